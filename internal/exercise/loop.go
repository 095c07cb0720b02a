package exercise

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// The times of the loop, all real.
const (
	turn = 100 * time.Millisecond
	// quiet is for how long nothing may move before idle time is skipped: longer than
	// it takes control to notice that a machine is gone.
	quiet = 1200 * time.Millisecond
	// noticing is how long a machine that is gone may be taken for one that is there.
	noticing = 10 * time.Second
	// patience is for how long nothing may move when there is nothing to skip to.
	patience = 20 * time.Second
)

// loop goes on until the release is over, or nothing can move it on.
func (r *runner) loop(ctx context.Context) error {
	t := time.NewTicker(turn)
	defer t.Stop()
	away := time.Time{} // since when control does not answer
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		err := r.look(ctx)
		switch {
		case err == nil:
			away = time.Time{}
		case away.IsZero():
			away = time.Now()
		}
		r.undo()
		r.acts(ctx)
		if err != nil {
			if time.Since(away) > 2*time.Minute {
				r.record(drill.Record{Kind: drill.Stuck, Why: "control has not answered for 2 minutes: " + err.Error()})
				return nil
			}
			continue
		}
		if r.status == nil {
			continue // nothing of the release was seen yet
		}
		r.people(ctx)
		if over, err := r.over(ctx); over || err != nil {
			return err
		}
		if stuck, err := r.skip(); stuck || err != nil {
			return err
		}
	}
}

// over ships what may be shipped, and tells whether the release has ended.
func (r *runner) over(ctx context.Context) (bool, error) {
	s := r.status
	if s.Phase == release.Done || s.Phase == release.Ended {
		return true, nil
	}
	if slices.ContainsFunc(s.Items, func(x api.ItemStatus) bool { return x.Status != release.Complete }) {
		return false, nil
	}
	var did struct {
		Event int64 `json:"event"`
	}
	if err := r.client.Do(ctx, http.MethodPost, "/releases/"+s.Version+"/ship", api.Ship{}, &did); err != nil {
		return false, fmt.Errorf("ship: %w", err)
	}
	r.record(drill.Record{Kind: drill.Told, Ack: &release.Ack{Seq: did.Event, Type: "shipped"}})
	return false, nil // it is seen in the next turn
}

// moved says that something happened, whatever status says.
func (r *runner) moved() { r.still = time.Now() }

// idle tells whether no machine works, and none is about to.
func (r *runner) idle() bool {
	look := fmt.Sprint(r.status.Head)
	working := false
	for _, name := range slices.Sorted(maps.Keys(r.fleet)) {
		m := r.fleet[name]
		look += fmt.Sprint(m.Name, m.Condition, len(m.Running))
		working = working || len(m.Running) > 0
	}
	if look != r.last {
		r.last = look
		r.moved()
	}
	for _, x := range r.status.Items {
		// A step that is ready waits for a machine, or is about to be given to one.
		working = working || x.Kind == runbook.Step && x.Status == release.Ready && x.Waiting == ""
	}
	for name := range r.faults {
		a := r.action(name)
		if c := r.fleet[a.Host].Condition; r.down[a.Host] && c == "up" && time.Since(r.hurt[name]) < noticing {
			return false // it has yet to be noticed; a machine without its disk may answer for ever
		}
	}
	return !working && time.Since(r.still) > quiet
}

// skip jumps over idle time to the next thing that is due. Where there is none, and
// nothing else will move the release on, it says so: that is how a release ends that
// does not ship.
func (r *runner) skip() (stuck bool, err error) {
	if !r.idle() {
		return false, nil
	}
	now := r.stage.Now()
	next, why := time.Time{}, ""
	may := func(at time.Time, what string) {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next, why = at, what
		}
	}
	for i, a := range r.p.Method {
		if !r.done[a.Name] && !r.p.Timed[i].When.At.IsZero() {
			may(r.p.Timed[i].When.At, a.Name)
		}
	}
	for key, at := range r.due {
		may(at, key)
	}
	for name, at := range r.undoAt {
		may(at, "the end of "+name)
	}
	if st, err := release.Fold(r.seen()); err == nil {
		if _, wait := st.Due(now); !wait.IsZero() {
			may(wait.Add(time.Second), "a wait of the runbook")
		}
	}
	if next.IsZero() {
		if time.Since(r.still) < patience {
			return false, nil
		}
		r.record(drill.Record{Kind: drill.Stuck, Why: r.trouble()})
		return true, nil
	}
	d := next.Sub(now)
	if err := r.stage.Jump(d); err != nil {
		return false, err
	}
	r.record(drill.Record{Kind: drill.Jumped, Took: d, Why: why})
	r.o.Progress(r.ahead() + "… " + runbook.FormatDuration(d) + " pass: " + why)
	r.moved()
	return false, nil
}

// trouble is what the release waits for.
func (r *runner) trouble() string {
	var list []string
	for _, a := range r.status.Asks {
		list = append(list, a.Item+": "+a.What)
	}
	for _, x := range r.status.Items {
		for _, why := range []string{x.Waiting, x.Failed} {
			if why != "" {
				list = append(list, x.Name+": "+why)
			}
		}
	}
	list = append(list, r.status.Trouble...)
	if len(list) == 0 {
		return "of no reason that control knows"
	}
	return strings.Join(list, "; ")
}
