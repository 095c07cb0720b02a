package agent

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/machine"
)

// beats ends when ctx does, or the guard has: without it no deadline stands, and the
// whole agent is to be started anew. Each second it reports; it stops what is not
// this machine's any more, and everything when nothing was answered for too long.
func (a *Agent) beats(ctx context.Context) error {
	t := time.NewTicker(fleet.Beat)
	defer t.Stop()
	last := "" // what went wrong, said once
	for {
		err := a.beat(ctx, machine.BootTime())
		var unguarded *machine.GuardError
		switch {
		case ctx.Err() != nil:
		case errors.As(err, &unguarded):
			return err
		case err == nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			a.o.Log.Warn("report", "err", err)
		}
		if a.overdue() {
			a.fence(silent())
		}
		var soon <-chan time.Time
		if err != nil && len(a.o.Client.Addresses()) > 1 {
			soon = time.After(elsewhere) // another control may decide by now
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-soon:
		case <-a.hurry:
		case <-t.C:
		}
	}
}

// elsewhere is how long an agent waits before it asks another control, or the
// same again while none of them decides.
const elsewhere = 100 * time.Millisecond

func (a *Agent) beat(ctx context.Context, sent time.Duration) error {
	// The answer must come before the fence falls, or it is worth nothing.
	ctx, cancel := context.WithTimeout(ctx, fleet.Beat)
	defer cancel()
	a.mu.Lock()
	b := api.Beat{Holding: slices.Collect(maps.Keys(a.running)), Warm: slices.Sorted(maps.Keys(a.warm)), Has: slices.Clone(a.has), Copied: a.copied, Events: a.events}
	b.Control, b.Copies = a.show()
	now := a.o.Now()
	b.Clock = &now
	a.mu.Unlock()
	var answer api.BeatAnswer
	if err := a.o.Client.Do(ctx, http.MethodPost, "/beat", b, &answer); err != nil {
		if len(a.o.Client.Addresses()) > 1 {
			a.mu.Lock()
			a.asks = "" // others may be asked meanwhile, one that is frozen among them
			a.mu.Unlock()
		}
		return err
	}
	if len(answer.Controls) > 0 && a.o.Client.Learn(answer.Controls) {
		if err := a.o.Remember(a.o.Client.Addresses()); err != nil {
			a.o.Log.Error("remember which controls there are", "err", err)
		}
	}
	if err := a.guard.Until(sent + fleet.FenceAfter); err != nil {
		return err
	}
	a.mu.Lock()
	if a.late() {
		a.lapsed = machine.BootTime()
	}
	if a.heard == 0 {
		close(a.fenced)
	}
	a.heard, a.seen = sent, answer.Mark
	if a.showed(b, answer.Control) {
		a.hasten()
	}
	if now := a.o.Client.Address(); a.asks != now {
		a.asks = now
		a.again() // whoever was asked for work has none any more
	}
	a.leave(a.asks)
	for h, l := range a.running {
		switch {
		case !slices.Contains(b.Holding, h): // it came meanwhile
		case slices.Contains(answer.Renewed, h):
			l.renew()
		case l.over: // control has the report, and we have yet to hear so
		default:
			a.o.Log.Warn("stopping a step", "release", h.Release, "step", h.Item, "why", "its lease is over")
			l.end(&endedError{"its lease is over"})
		}
	}
	a.mu.Unlock()
	if len(answer.Want) > 0 {
		select {
		case a.wanted <- answer.Want:
		default: // it is being sent
		}
	}
	select {
	case a.behind <- answer:
	default: // the copy loop is busy; what it was not told of is in the next answer too
	}
	return nil
}
