package control

import (
	"context"
	"slices"
	"strings"
	"time"

	"trysail/fleet"
	"trysail/internal/machine"
	"trysail/release"
)

// tick is how often place looks although nothing moved: machines are lost by
// silence, and waits end by the clock.
const tick = 200 * time.Millisecond

// place ends when ctx does. It ends leases of lost machines and waits that are
// over, and gives steps that are ready to machines. Whatever it could not append
// it tries again at the next look.
func (c *Control) place(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		news := c.news()
		for _, v := range c.versions() {
			if err := c.expire(ctx, v); err != nil && ctx.Err() == nil {
				c.o.Log.Error("expire", "release", v, "err", err)
			}
		}
		if err := c.assign(ctx); err != nil && ctx.Err() == nil {
			c.o.Log.Error("place", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-t.C:
		}
	}
}

// machines is the fleet as the rules see it.
func (c *Control) machines(now time.Time) []fleet.Machine {
	running := map[string]int{}
	for _, v := range c.versions() {
		if st := c.state(v); st != nil {
			for _, l := range st.Leases() {
				running[l.Machine]++
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []fleet.Machine
	for _, m := range c.members {
		list = append(list, fleet.Machine{
			Name: m.Name, Rank: m.Rank, Serves: m.Serves, Plain: m.Plain, Slots: m.Slots, Set: m.set,
			Heard: c.heard(m), Running: running[m.Name], Losses: m.losses, Warm: m.warm, Has: m.has,
		})
	}
	slices.SortFunc(list, func(a, b fleet.Machine) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// heard is when a machine was heard of, on control's monotonic clock. Who was
// not since control began counts from then for what is leased to them, and as
// lost for what is new.
func (c *Control) heard(m *member) time.Duration {
	if m.heard.IsZero() {
		return -1
	}
	return m.heard.Sub(c.begun)
}

func (c *Control) mono(now time.Time) time.Duration { return now.Sub(c.begun) }

// state gives a copy of a release's state; nil if it does not fold.
func (c *Control) state(version string) *release.State {
	s, err := c.stream(version)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.state.Head == 0 {
		return nil
	}
	return s.state.Clone()
}

// expire appends what time alone brings about in one release.
func (c *Control) expire(ctx context.Context, version string) error {
	st := c.state(version)
	if st == nil || st.Over() {
		return nil
	}
	due, _ := st.Due(c.clock.sure(c.o.Now(), machine.BootTime()))
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
	now := time.Now()
	for item, l := range st.Leases() {
		why := c.gone(l.Machine, now)
		if why == "" {
			continue
		}
		_, err := c.update(ctx, version, c.o.Actor, func(s *release.State) (release.Body, error) {
			if cur := s.Progress[item].Lease; cur == nil || cur.Epoch != l.Epoch {
				return nil, errNothing
			}
			return release.Lost{Item: item, Epoch: l.Epoch, Machine: l.Machine, Why: why}, nil
		})
		if err != nil {
			return err
		}
		c.mu.Lock()
		if m := c.members[l.Machine]; m != nil {
			m.losses++
		}
		c.mu.Unlock()
		c.o.Log.Warn("machine lost", "machine", l.Machine, "release", version, "step", item, "why", why)
	}
	return nil
}

// gone says why a machine's leases end; "" while they do not.
func (c *Control) gone(name string, now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[name]
	if m == nil || m.set == fleet.Retired {
		return "the machine does not belong to the fleet any more"
	}
	last := m.heard
	if last.IsZero() {
		last = c.begun
	}
	if now.Sub(last) < fleet.LostAfter {
		return ""
	}
	return "not heard of for " + now.Sub(last).Round(100*time.Millisecond).String()
}

// assign grants what is ready.
func (c *Control) assign(ctx context.Context) error {
	now := time.Now()
	var wants []fleet.Want
	waiting := map[string]string{}
	for _, v := range c.versions() {
		st := c.state(v)
		if st == nil {
			continue
		}
		for _, w := range st.Next() {
			if c.lacks(append(slices.Clone(w.Warm), st.Source.Original, st.Machine(w.Role).Blueprint, st.Machine(w.Role).Sum)...) {
				waiting[v+" "+w.Item] = "control's depot lost what it takes in; agents that have it are asked for it"
				continue
			}
			wants = append(wants, fleet.Want{Key: v + " " + w.Item, Role: w.Role, Blueprint: st.Machine(w.Role).Blueprint, Not: w.Not, Has: w.Warm})
		}
	}
	placed, reasons := fleet.Place(c.mono(now), c.machines(now), wants)
	for _, r := range reasons {
		waiting[r.Key] = r.Why
	}
	c.mu.Lock()
	c.waiting = waiting
	c.mu.Unlock()
	for _, p := range placed {
		version, item, _ := strings.Cut(p.Key, " ")
		_, err := c.update(ctx, version, c.o.Actor, func(s *release.State) (release.Body, error) {
			for _, w := range s.Next() {
				if w.Item == item && w.Not != p.Machine {
					return release.Granted{Item: item, Machine: p.Machine, Confirm: w.Confirm}, nil
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
