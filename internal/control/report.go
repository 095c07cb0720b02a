package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"trysail/internal/api"
	"trysail/internal/ledger"
	"trysail/release"
)

// report takes the end of a lease.
func (c *Control) report(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[struct {
		Release string         `json:"release"`
		Report  release.Report `json:"report"`
	}](r)
	if err != nil {
		return nil, err
	}
	b.Report.Machine = q.machine
	s, err := c.stream(b.Release)
	if err != nil {
		return nil, err
	}
	// A list of a million files takes longer to look at than the caller may wait: what
	// was found of it counts when it asks again.
	whole := context.WithoutCancel(ctx)
	var unfit error
	if c.holds(q.machine, api.Holding{Release: b.Release, Item: b.Report.Item, Epoch: b.Report.Epoch}) {
		unfit = c.fit(whole, &b.Report)
	}
	var did release.Body
	take := func() error {
		_, err := c.takeResult(ctx, s, b.Release, b.Report, &did)
		return err
	}
	if errors.As(unfit, new(*unfitError)) {
		b.Report = failed(b.Report, unfit)
	} else if unfit != nil {
		return nil, unfit
	}
	err = take()
	if tooLarge := new(ledger.SizeError); errors.As(err, &tooLarge) {
		unfit = &unfitError{err}
		b.Report = failed(b.Report, unfit)
		err = take()
	}
	if err != nil {
		return nil, err
	}
	if err := c.keepResult(ctx, b.Release, b.Report); err != nil {
		return nil, err
	}
	refused, late := did.(release.Refused)
	c.mu.Lock()
	switch {
	case late:
	case b.Report.Stopped:
		c.members[q.machine].losses += badlyLost // others are to have it
	default:
		c.members[q.machine].losses = 0 // it is well again
	}
	c.mu.Unlock()
	if unfit != nil && did != nil && !late {
		return nil, unfit // the step has failed, and its machine is told why
	}
	return struct {
		Refused string `json:"refused,omitempty"`
	}{refused.Why}, nil
}

// takeResult appends what a report amounts to, and says in did what that is.
func (c *Control) takeResult(ctx context.Context, s *stream, version string, r release.Report, did *release.Body) (int64, error) {
	return c.update(ctx, version, "machine "+r.Machine, func(st *release.State) (release.Body, error) {
		// An answer that was lost is asked for again: one event.
		if p := st.Progress[r.Item]; p != nil && p.Ended == r.Epoch {
			return nil, errNothing
		}
		*did = st.Result(r)
		// No machine fills the ledger with leases that it never had, nor with one many times.
		if no, late := (*did).(release.Refused); late && (!s.leased(no) || slices.ContainsFunc(st.Refusals, no.Same)) {
			return nil, errNothing
		}
		return *did, nil
	})
}

// leased tells whether a result is of a lease that its machine had, in force or not. The
// stream's lock is held.
func (s *stream) leased(r release.Refused) bool {
	if r.Epoch < 1 || r.Epoch > int64(len(s.lines)) {
		return false
	}
	var e release.Event // the number of a lease is that of its event
	if err := json.Unmarshal(s.lines[r.Epoch-1], &e); err != nil {
		return false
	}
	g, ok := e.Body.(release.Granted)
	return ok && g.Item == r.Item && g.Machine == r.Machine
}
