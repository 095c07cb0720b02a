package control

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

// setMachine drains, retires or readmits a machine.
func (c *Control) setMachine(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.SetMachine](r)
	if err != nil {
		return nil, err
	}
	name, what := r.PathValue("name"), r.PathValue("what")
	set, ok := map[string]fleet.Condition{"drain": fleet.Draining, "retire": fleet.Retired, "readmit": fleet.Proving}[what]
	if !ok {
		return nil, &NotFoundError{"way to " + what + " a machine"}
	}
	return nil, c.decide(ctx, func() (membership, error) {
		m := c.members[name]
		if m == nil {
			return membership{}, &NotFoundError{"machine " + name}
		}
		e := membership{Actor: q.name(), Name: name, Set: set, Reason: b.Reason}
		if set == fleet.Draining && m.set == fleet.Retired {
			return e, &release.RuleError{Type: "fleet", What: name + " is retired: it comes back by trysail fleet readmit alone"}
		}
		if set == fleet.Proving {
			if e.Set, e.Proof, err = fleet.Readmit(name, m.set, b.WithoutProof, b.Reason); err != nil {
				return e, &release.RuleError{Type: "fleet", What: err.Error()}
			}
		}
		return e, nil
	})
}

// anew is the joining of a machine. One that was drained or retired under its name
// is readmitted by that: a person gave it a link, as one does after a new disk.
func (c *Control) anew(e membership) membership {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.members[e.Joined.Name]; m != nil && m.set != "" {
		e.Set, e.Reason = fleet.Proving, "it joined anew"
	}
	return e
}

// check is what a machine that comes back is asked, once nothing is leased to it;
// nil if there is nothing to ask, or it is at it.
func (c *Control) check(name, at string) *api.Check {
	c.mu.Lock()
	m := c.members[name]
	if m == nil || m.set != fleet.Proving || len(c.leases.by[name]) > 0 || strconv.FormatInt(m.since, 10) == at {
		c.mu.Unlock()
		return nil
	}
	ask, serves := &api.Check{Event: m.since, Servers: []release.Machine{}}, m.Serves
	c.mu.Unlock()
	var states []*release.State
	for _, v := range c.versions() {
		if st := c.state(v); st != nil {
			states = append(states, st)
		}
	}
	ask.Servers = append(ask.Servers, servers(states, serves)...)
	return ask
}

// servers are those of the roles that releases which run name, the newest first;
// where there are none, of the last release that names any.
func servers(states []*release.State, serves []string) []release.Machine {
	slices.SortFunc(states, func(a, b *release.State) int {
		over := func(s *release.State) int {
			if s.Over() {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(over(a), over(b)), b.Begun.Compare(a.Begun))
	})
	var list []release.Machine
	for _, st := range states {
		if len(list) > 0 && st.Over() {
			break
		}
		for _, m := range st.Machines {
			known := slices.ContainsFunc(list, func(x release.Machine) bool { return x.Blueprint == m.Blueprint && x.Sum == m.Sum })
			if m.Blueprint != "" && !known && (len(serves) == 0 || slices.Contains(serves, m.Role)) {
				list = append(list, m)
			}
		}
	}
	return list
}

// checked takes what a machine found when it looked at itself. An answer to
// another question than the last is refused: a person has decided meanwhile.
func (c *Control) checked(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Checked](r)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Refused string `json:"refused,omitempty"`
	}
	err = c.decide(ctx, func() (membership, error) {
		m := c.members[q.machine]
		if m.set != fleet.Proving || m.since != b.Event {
			answer.Refused = "the machine is not asked that any more"
			return membership{}, errNothing
		}
		e := membership{Actor: q.name(), Name: q.machine, Found: &b.Found}
		e.Set, e.Proof, e.Reason = b.Found.Back(m.Plain)
		return e, nil
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return answer, err
}
