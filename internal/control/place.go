package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// tick is how often place looks although nothing moved: machines are lost by
// silence, and waits end by the clock.
const tick = 200 * time.Millisecond

// place ends when ctx does. It ends leases of lost machines, leases that nothing comes of
// and waits that are over, and gives steps that are ready to machines. Whatever it could not append
// it tries again at the next look.
func (c *Control) place(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	p := newPending()
	for {
		news := c.news()
		c.read(p)
		c.chooseReplicas()
		c.complain(ctx, "expire", c.expire(ctx, p))
		c.complain(ctx, "give up", c.giveUp(ctx, p))
		c.complain(ctx, "place", c.assign(ctx, p))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-t.C:
		}
	}
}

// complain logs what could not be appended, but for doubts, which were logged when they arose.
func (c *Control) complain(ctx context.Context, what string, err error) {
	var doubted *DivergedError
	if err != nil && ctx.Err() == nil && !errors.As(err, &doubted) {
		c.o.Log.Error(what, "err", err)
	}
}

// pending is what place has left to do, by release. It holds until the release moves.
type pending struct {
	waits map[string]time.Time // when the next one ends
	steps map[string][]ready
	void  map[string][]lapsed // leases that nothing comes of
	due   map[string]fleet.Due
	dueAt time.Time // when due was worked out for all of them
}

// dueAgain is after how long it is worked out anew how urgent releases are: as time passes,
// one that waits for a date keeps its slack, and one with work to do loses it.
const dueAgain = time.Minute

// ready is a step that wants a machine, and digests that it needs in the depot.
type ready struct {
	fleet.Want
	needs []string
	want  release.Want
}

func newPending() *pending {
	return &pending{waits: map[string]time.Time{}, steps: map[string][]ready{}, void: map[string][]lapsed{}, due: map[string]fleet.Due{}}
}

// read looks at the releases that moved.
func (c *Control) read(p *pending) {
	c.mu.Lock()
	fresh := c.fresh
	c.fresh = map[string]bool{}
	c.mu.Unlock()
	if now := time.Now(); now.Sub(p.dueAt) >= dueAgain {
		p.dueAt = now
		for version := range p.due {
			c.look(version, func(st *release.State) { p.due[version] = c.due(st) })
		}
	}
	for version := range fresh {
		delete(p.waits, version)
		delete(p.steps, version)
		delete(p.void, version)
		delete(p.due, version)
		c.look(version, func(st *release.State) {
			if !st.Over() {
				p.due[version] = c.due(st)
			}
			if _, next := st.Due(time.Time{}); !next.IsZero() {
				p.waits[version] = next
			}
			for item, l := range st.Leases() {
				if why := st.Void(item); why != "" {
					p.void[version] = append(p.void[version], lapsed{api.Holding{Release: version, Item: item, Epoch: l.Epoch}, l.Machine, why})
				}
			}
			for _, w := range st.Next() {
				m := st.Machine(w.Role)
				p.steps[version] = append(p.steps[version], ready{
					fleet.Want{Key: version + " " + w.Item, Role: w.Role, Blueprint: m.Blueprint, Not: w.Not, Has: w.Warm, Due: p.due[version]},
					append(slices.Clone(w.Warm), st.Source.Original, m.Blueprint, m.Sum), w,
				})
			}
		})
	}
}

// machines is the fleet as the rules see it.
func (c *Control) machines() []fleet.Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []fleet.Machine
	for _, m := range c.members {
		list = append(list, fleet.Machine{
			Name: m.Name, Rank: m.Rank, Serves: m.Serves, Plain: m.Plain, Slots: m.Slots, Set: m.set,
			Heard: c.told(m), Running: len(c.leases.by[m.Name]), Losses: m.losses, Warm: m.warm, Has: m.has,
		})
	}
	slices.SortFunc(list, func(a, b fleet.Machine) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// due is how urgent a release is: by its slack if it had as many machines as it wants, since
// who has them is what is decided.
func (c *Control) due(st *release.State) fleet.Due {
	d := fleet.Due{Release: st.Started.Version, Slack: st.Ship.Sub(c.o.Now()), Ship: st.Ship}
	out, err := st.Outlook(c.o.Now(), time.LoadLocation)
	if err != nil {
		c.o.Log.Error("slack", "release", d.Release, "err", err)
		return d
	}
	d.Slack = out.Slack
	return d
}

// runs lists the releases whose steps a machine runs.
func (c *Control) runs(machine string, p *pending) []fleet.Due {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []fleet.Due
	for _, h := range c.leases.held(machine) {
		if d, ok := p.due[h.Release]; ok {
			list = append(list, d)
		}
	}
	return list
}

// told is when a machine was heard of that had told what its disk says, on
// control's monotonic clock. Who has not since control began counts as lost for
// what is new; for what is leased to them [Control.gone] asks when they were heard.
func (c *Control) told(m *member) time.Duration {
	if m.told.IsZero() {
		return -1
	}
	return m.told.Sub(c.begun)
}

func (c *Control) mono(now time.Time) time.Duration { return now.Sub(c.begun) }

// look shows a release's state, which is not to be changed or kept; nothing if it
// does not fold.
func (c *Control) look(version string, at func(*release.State)) {
	s, err := c.stream(version)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.state.Head > 0 {
		at(s.state)
	}
}

// state gives a copy of a release's state; nil if it does not fold.
func (c *Control) state(version string) (st *release.State) {
	c.look(version, func(s *release.State) { st = s.Clone() })
	return st
}

// expire appends what time alone brings about. What it cannot append to one
// release keeps it from no other.
func (c *Control) expire(ctx context.Context, p *pending) (err error) {
	sure := c.clock.sure(c.o.Now(), c.o.Boot())
	for version, at := range p.waits {
		if !sure.Before(at) {
			err = errors.Join(err, c.pass(ctx, version, sure))
		}
	}
	for _, l := range c.lost(time.Now()) {
		over, e := c.end(ctx, l)
		if err = errors.Join(err, e); e == nil && !over {
			c.mu.Lock()
			if m := c.members[l.machine]; m != nil {
				m.losses++
			}
			c.mu.Unlock()
		}
	}
	return err
}

// giveUp ends leases that nothing comes of: no hour of a machine is to go into a build
// whose result is refused.
func (c *Control) giveUp(ctx context.Context, p *pending) (err error) {
	for _, list := range p.void {
		for _, l := range list {
			_, e := c.end(ctx, l)
			err = errors.Join(err, e)
		}
	}
	return err
}

// pass ends the waits of a release that are over.
func (c *Control) pass(ctx context.Context, version string, now time.Time) error {
	var due []string
	c.look(version, func(st *release.State) { due, _ = st.Due(now) })
	for _, item := range due {
		if _, err := c.update(ctx, version, c.o.Actor, func(s *release.State) (release.Body, error) {
			if s.Progress[item].Passed {
				return nil, errNothing
			}
			return release.Passed{Item: item}, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// lapsed is a lease that is to end, and why.
type lapsed struct {
	api.Holding
	machine, why string
}

// lost lists the leases of machines that are gone.
func (c *Control) lost(now time.Time) []lapsed {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []lapsed
	for name := range c.leases.by {
		if why := c.gone(name, now); why != "" {
			for _, h := range c.leases.held(name) {
				list = append(list, lapsed{h, name, why})
			}
		}
	}
	return list
}

// end ends a lease, unless it was over by itself in the meantime.
func (c *Control) end(ctx context.Context, l lapsed) (over bool, err error) {
	_, err = c.update(ctx, l.Release, c.o.Actor, func(s *release.State) (release.Body, error) {
		p := s.Progress[l.Item]
		if over = p == nil || p.Lease == nil || p.Lease.Epoch != l.Epoch; over {
			return nil, errNothing
		}
		return release.Lost{Item: l.Item, Epoch: l.Epoch, Machine: l.machine, Why: l.why}, nil
	})
	if err == nil && !over {
		c.o.Log.Warn("lease ended", "machine", l.machine, "release", l.Release, "step", l.Item, "why", l.why)
	}
	return over, err
}

// gone says why a machine's leases end; "" while they do not. The lock is held.
func (c *Control) gone(name string, now time.Time) string {
	m := c.members[name]
	if m == nil || m.set == fleet.Retired {
		return fleet.NoMember
	}
	silent := now.Sub(c.last(m))
	if silent < fleet.LostAfter {
		return ""
	}
	return "no heartbeat for " + runbook.FormatDuration(silent)
}

// last is when a machine was answered last; who was not since control began counts
// from then. The lock is held.
func (c *Control) last(m *member) time.Time {
	if m.heard.IsZero() {
		return c.begun
	}
	return m.heard
}

// stops tells whether a machine may still be at a step whose lease ended without a
// result: a person retired the machine, or an amendment made the lease void. It is until
// a report of its own has it no more, or its fence has fallen.
func (c *Control) stops(version string, w release.Want) bool {
	if w.After == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[w.After.Machine]
	if m == nil || time.Since(c.last(m)) >= fleet.LostAfter {
		return false
	}
	return m.heard.IsZero() || slices.Contains(m.holding, api.Holding{Release: version, Item: w.Item, Epoch: w.After.Epoch})
}

// assign grants what is ready. A release in doubt keeps no other from a machine.
func (c *Control) assign(ctx context.Context, p *pending) error {
	var wants []fleet.Want
	waiting := map[string]string{}
	for _, version := range slices.Sorted(maps.Keys(p.steps)) {
		doubt := c.doubted(releaseStream(version))
		for _, r := range p.steps[version] {
			if doubt != nil {
				waiting[r.Key] = doubt.Error()
				continue
			}
			if c.lacks(r.needs...) {
				waiting[r.Key] = "control's depot lost what it takes in; agents that have it are asked for it"
				continue
			}
			if c.stops(version, r.want) {
				waiting[r.Key] = r.want.After.Machine + " is stopping it"
				continue
			}
			r.Due = p.due[version]
			wants = append(wants, r.Want)
		}
	}
	var placed []fleet.Placed
	var reasons []fleet.Reason
	if len(wants) > 0 {
		machines := c.machines()
		for i := range machines {
			machines[i].Runs = c.runs(machines[i].Name, p)
		}
		placed, reasons = fleet.Place(c.mono(time.Now()), machines, wants)
	}
	for _, r := range reasons {
		waiting[r.Key] = r.Why
		if d := r.First; d != nil {
			waiting[r.Key] = "release " + d.Release + " " + release.Ships(d.Ship.Sub(c.o.Now())) + " and goes first: " + r.Why
		}
	}
	c.mu.Lock()
	c.waiting = waiting
	c.mu.Unlock()
	for _, x := range placed {
		version, item, _ := strings.Cut(x.Key, " ")
		_, err := c.update(ctx, version, c.o.Actor, func(s *release.State) (release.Body, error) {
			for _, w := range s.Next() {
				if w.Item == item && w.Not != x.Machine && !c.stops(version, w) {
					return release.Granted{Item: item, Machine: x.Machine, Confirm: w.Confirm}, nil
				}
			}
			return nil, errNothing
		})
		if err != nil {
			return err
		}
	}
	return nil
}
