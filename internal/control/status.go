package control

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"trysail/fleet"
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
		l.Phase, l.Head, l.Changed, l.Ship, l.Zone = s.state.Phase, s.state.Head, s.state.Changed, s.state.Ship, s.state.Team.Zone
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
		Version: version, Phase: st.Phase, Why: st.Why, Head: st.Head, Ship: st.Ship, Zone: st.Team.Zone, Ends: out.Ends, Slack: out.Slack.Seconds(),
		Chain: nonNil(out.Chain), Unknown: out.Unknown, Blocked: nonNil(out.Blocked), Asks: []api.Ask{}, Refused: nonNil(st.Refusals), Budget: st.Budget.Hours(),
		Spent: out.Spent.Hours(), Open: out.Open.Hours(), Candidate: st.Candidate, HeldBy: st.HeldBy, Signed: st.Signers != "", Assumed: out.Assumed,
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
		x := itemStatus(st, &st.Items[i], statuses[st.Items[i].Name], waiting[version+" "+st.Items[i].Name])
		x.Making = c.making(st, x.Name)
		a.Items = append(a.Items, x)
	}
	for _, b := range st.Backs {
		a.Trouble = append(a.Trouble, b.String())
	}
	if err := c.checkDiskSpace(); err != nil {
		a.Trouble = append(a.Trouble, err.Error())
	}
	a.Doubts = c.inDoubt()
	a.Trouble = append(append(a.Trouble, c.troubles()...), a.Doubts...)
	if st.Amendment != nil {
		a.Amendment = st.Amendment.Seq
	}
	if g := st.Gold; g != nil {
		m := g.Made()
		a.Gold = &api.Gold{Event: g.Seq, Machine: g.Machine, Outputs: nonNil(g.Outputs), List: m.List, By: g.By}
		if g.Confirmed != nil {
			a.Gold.Verdict, a.Gold.Differences = g.Confirmed.Verdict, g.Confirmed.Differences
		}
		for _, b := range st.SecondBuilds() {
			if b.Verdict == "" {
				a.Gold.SecondBuilds = append(a.Gold.SecondBuilds, b.String())
			}
		}
	}
	return a, nil
}

// outlook is a release's slack now, on the machines that there are.
func (c *Control) outlook(st *release.State) (release.Outlook, error) {
	return st.OutlookOn(c.fleet(st.Started.Version), c.o.Now(), time.LoadLocation)
}

// fleet is what there is for a release to run on: what other releases run goes on.
func (c *Control) fleet(version string) *release.Fleet {
	busy := map[string][]time.Time{}
	c.mu.Lock()
	f := &release.Fleet{Rebuild: maps.Clone(c.rebuilds)}
	others := map[string]map[string]release.Lease{}
	for v, list := range c.leases.of {
		if v != version {
			others[v] = list
		}
	}
	c.mu.Unlock()
	for v, list := range others {
		c.look(v, func(other *release.State) {
			for item, l := range list {
				if x := other.Item(item); x != nil {
					busy[l.Machine] = append(busy[l.Machine], l.Since.Add(x.Budget))
				}
			}
		})
	}
	now := c.mono(time.Now())
	for _, m := range c.machines() {
		h := release.Host{Name: m.Name, Rank: m.Standing(), Serves: m.Serves, Plain: m.Plain, Slots: m.Slots, Warm: m.Warm, Busy: busy[m.Name]}
		switch at := m.At(now); at {
		case fleet.Retired:
			continue
		case fleet.Up, fleet.Proving: // which ends by itself
		default:
			h.Away = string(at)
		}
		f.Hosts = append(f.Hosts, h)
	}
	return f
}

// making tells whether the machine of a step makes its build server first.
func (c *Control) making(st *release.State, item string) bool {
	l := st.Progress[item].Lease
	if l == nil || l.Blueprint == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[l.Machine]
	return m != nil && !slices.Contains(m.warm, l.Blueprint)
}

// measure takes down how long a machine took to make the servers that it did not have when
// it reported before. The lock is held.
func (c *Control) measure(m *member, warm []string) {
	for _, digest := range warm {
		if slices.Contains(m.warm, digest) {
			continue
		}
		for h := range c.leases.by[m.Name] {
			if l := c.leases.of[h.Release][h.Item]; l.Blueprint == digest {
				c.rebuilds[digest] = max(c.o.Now().Sub(l.Since), 0)
			}
		}
	}
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
	if x.Kind == runbook.Wait && status != release.Complete {
		until := x.Until.Time(st.Ship)
		a.Until = &until
	}
	return a
}

func (c *Control) fleetStatus(context.Context, *caller, *http.Request) (any, error) {
	now := time.Now()
	list := []api.MachineStatus{}
	for _, m := range c.machines() {
		s := api.MachineStatus{
			Name: m.Name, Rank: m.Rank, Condition: m.At(c.mono(now)), Serves: nonNil(m.Serves), Plain: m.Plain, Slots: m.Slots,
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
