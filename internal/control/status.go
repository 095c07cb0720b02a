package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// list answers with all releases, the newest change first.
func (c *Control) list(context.Context, *caller, *http.Request) (any, error) {
	list := []api.Listed{}
	for _, v := range c.versions() {
		l := api.Listed{Version: v}
		s, err := c.stream(v)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		if s.err != nil {
			l.Error = s.err.Error()
		}
		l.Phase, l.Head, l.Changed, l.Ship = s.state.Phase, s.state.Head, s.state.Changed, s.state.Ship
		s.mu.Unlock()
		list = append(list, l)
	}
	slices.SortStableFunc(list, func(a, b api.Listed) int { return b.Changed.Compare(a.Changed) })
	return list, nil
}

func (c *Control) status(_ context.Context, _ *caller, r *http.Request) (any, error) {
	version := r.PathValue("version")
	s, err := c.stream(version)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	broken := s.err
	s.mu.Unlock()
	if broken != nil {
		return nil, broken
	}
	st := c.state(version)
	if st == nil {
		return nil, &NotFoundError{"release " + version}
	}
	out, err := c.outlook(st)
	if err != nil {
		return nil, err
	}
	a := &api.Status{
		Version: version, Phase: st.Phase, Why: st.Why, Head: st.Head, Ship: st.Ship, Ends: out.Ends, Slack: out.Slack.Seconds(),
		Chain: nonNil(out.Chain), Unknown: out.Unknown, Blocked: nonNil(out.Blocked), Asks: []api.Ask{}, Refused: nonNil(st.Refusals), Budget: st.Budget.Hours(),
		Spent: out.Spent.Hours(), Open: out.Open.Hours(), Candidate: st.Candidate,
	}
	for _, k := range st.Asks() {
		ask := api.Ask{Item: k.Item, What: k.What, People: nonNil(k.People), Needed: k.Needed, Type: k.Type, Tests: k.Tests, Change: k.Change}
		if x := st.Item(k.Item); x != nil && x.Kind == runbook.SignOff {
			ask.Subject = st.Subject(x)
		}
		a.Asks = append(a.Asks, ask)
	}
	c.mu.Lock()
	waiting := c.waiting
	c.mu.Unlock()
	statuses := st.Statuses()
	for i := range st.Items {
		a.Items = append(a.Items, itemStatus(st, &st.Items[i], statuses[st.Items[i].Name], waiting[version+" "+st.Items[i].Name]))
	}
	if err := c.room(); err != nil {
		a.Trouble = append(a.Trouble, err.Error())
	}
	a.Doubts = c.inDoubt()
	a.Trouble = append(append(a.Trouble, c.troubles()...), a.Doubts...)
	if st.Amendment != nil {
		a.Amendment = st.Amendment.Seq
	}
	if g := st.Gold; g != nil {
		a.Gold = &api.Gold{Event: g.Seq, Machine: g.Machine, Outputs: g.Outputs, By: g.By}
		if g.Confirmed != nil {
			a.Gold.Verdict, a.Gold.Differences = g.Confirmed.Verdict, g.Confirmed.Differences
		}
	}
	return a, nil
}

// outlook is a release's slack now.
func (c *Control) outlook(st *release.State) (release.Outlook, error) {
	return st.Outlook(c.o.Now(), time.LoadLocation)
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func itemStatus(st *release.State, x *runbook.Item, status release.Status, waiting string) api.ItemStatus {
	p := st.Progress[x.Name]
	a := api.ItemStatus{
		Name: x.Name, Kind: x.Kind, Phase: x.Phase, Status: status, Budget: x.Budget.Seconds(), Moves: p.Moves, Moved: p.Moved, Waiting: cmp.Or(st.Waits(x), waiting),
	}
	if l := p.Lease; l != nil {
		a.Machine, a.Epoch, a.Since = l.Machine, l.Epoch, &l.Since
	} else if res := p.Result; res != nil {
		a.Machine, a.Epoch, a.Took, a.Log = p.Machine, res.Epoch, res.Took.Seconds(), res.Log
	}
	a.Failed = p.Why
	return a
}

func (c *Control) fleetStatus(context.Context, *caller, *http.Request) (any, error) {
	now := time.Now()
	list := []api.MachineStatus{}
	for _, m := range c.machines() {
		s := api.MachineStatus{
			Name: m.Name, Rank: m.Rank, Condition: m.At(c.mono(now)), Serves: m.Serves, Plain: m.Plain, Slots: m.Slots,
			Heard: -1, Warm: nonNil(m.Warm),
		}
		if m.Heard >= 0 {
			s.Heard = (c.mono(now) - m.Heard).Seconds()
		}
		c.mu.Lock()
		s.Running, s.Events = nonNil(c.leases.held(m.Name)), c.members[m.Name].copied
		s.Why, s.Skew = c.members[m.Name].why, c.members[m.Name].skew.Seconds()
		c.mu.Unlock()
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b api.MachineStatus) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
