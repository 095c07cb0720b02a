package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"trysail/internal/api"
	"trysail/internal/build"
	"trysail/internal/machine"
)

// works ends when ctx does, and when every step that it started has ended.
func (a *Agent) works(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	// Nothing runs before a first report was answered: until then no deadline
	// stands that would end it.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.fenced:
	}
	last := "" // what went wrong, said once
	for {
		list, err := a.poll(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, context.Canceled) {
			continue // another control is asked
		}
		if err != nil {
			if err.Error() != last {
				last = err.Error()
				a.o.Log.Warn("work", "err", err)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(500 * time.Millisecond):
			}
			continue
		}
		if len(list) == 0 {
			// There is something to copy, says control. The report that fetches word of
			// it is to be on its way before the next poll, which would say so again.
			a.hasten()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
		for _, as := range list {
			if as.Check != nil {
				wg.Go(a.ask(ctx, *as.Check))
				continue
			}
			rctx, cancel := context.WithCancelCause(ctx)
			l := &lease{end: cancel, sure: make(chan struct{})}
			a.mu.Lock()
			a.running[as.Holding] = l
			a.mu.Unlock()
			a.hasten()
			wg.Go(func() {
				a.step(ctx, rctx, as, l)
				cancel(nil)
				a.mu.Lock()
				delete(a.running, as.Holding)
				a.mu.Unlock()
			})
		}
	}
}

// oomKills counts the processes that this machine's kernel has killed for want of
// memory since it started; 0 if it does not say (before Linux 4.13).
func oomKills() int {
	data, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			kills, err := strconv.Atoi(n)
			if err != nil {
				return 0
			}
			return kills
		}
	}
	return 0
}

// little is how much of a disk is left when whatever fails on it may fail for that:
// bytes, and files.
const (
	littleBytes = 1 << 20
	littleFiles = 64
)

// trouble says what is wrong with this machine, if that may be why a step failed
// or could not be run: then another machine is to run it. A step that fills every
// disk moves until a person is asked ([release.MovesBeforeAsking]).
func (a *Agent) trouble(err error) error {
	var runc *machine.RuncError
	if errors.As(err, &runc) && errors.Is(err, exec.ErrNotFound) {
		return errors.New("runc is not installed there")
	}
	var unguarded *machine.GuardError
	if errors.As(err, &unguarded) {
		return err
	}
	var plain *PlainError
	if errors.As(err, &plain) {
		return fmt.Errorf("%w (%s)", err, plain.Hint())
	}
	var refused *build.RefusedError
	if errors.As(err, &refused) && !refused.Never() { // another machine may permit it
		return fmt.Errorf("%w (%s)", err, refused.Hint())
	}
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return err
		}
	}
	var s unix.Statfs_t
	if unix.Statfs(a.o.State.Dir, &s) == nil && (s.Bavail*uint64(s.Bsize) < littleBytes || s.Files > 0 && s.Ffree < littleFiles) {
		return fmt.Errorf("its disk at %s is full", a.o.State.Dir)
	}
	return nil
}

// ask takes up the question what this machine is like, and puts the one before
// down, of which nobody wants to know any more.
func (a *Agent) ask(ctx context.Context, q api.Check) func() {
	ctx, cancel := context.WithCancel(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stop != nil {
		a.stop()
	}
	a.asked, a.stop = q.Event, cancel
	before, done := a.looked, make(chan struct{})
	a.looked = done
	return func() {
		defer close(done)
		defer cancel()
		if before != nil {
			<-before
		}
		a.recheck(ctx, q)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.asked == q.Event {
			a.asked = 0
		}
	}
}

func (a *Agent) mark() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// poll asks for leases that this machine does not work on.
func (a *Agent) poll(ctx context.Context) ([]api.Assignment, error) {
	q := url.Values{}
	q.Set("seen", a.mark())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.again = cancel
	for h := range a.running {
		q.Add("have", h.Release+" "+strconv.FormatInt(h.Epoch, 10))
	}
	if a.asked != 0 {
		q.Set("check", strconv.FormatInt(a.asked, 10))
	}
	a.mu.Unlock()
	var list []api.Assignment
	err := a.o.Client.Do(ctx, http.MethodGet, "/work?"+q.Encode(), nil, &list)
	return list, err
}

// step runs one lease, for as long as rctx lasts, and reports how it ended. One
// that was stopped from here is reported too: control writes down that this
// machine came back and had nothing to give.
func (a *Agent) step(ctx, rctx context.Context, as api.Assignment, l *lease) {
	log := a.o.Log.With("release", as.Release, "step", as.Item, "epoch", as.Epoch)
	begun, ooms := machine.BootTime(), oomKills()
	var r *api.Report
	var err error
	select {
	case <-l.sure:
		log.Info("step begins")
		r, err = a.run(rctx, as)
	case <-rctx.Done():
		err = context.Cause(rctx)
	}
	bad := err != nil || r.Exit != 0
	var ended *endedError
	if bad && !errors.As(context.Cause(rctx), &ended) && a.lapsedSince(begun) {
		ended = &endedError{silent()} // the guard was faster
	}
	var trouble error
	if bad {
		if trouble = a.trouble(err); trouble == nil && oomKills() > ooms {
			trouble = errors.New("it has too little memory: the kernel killed processes while the step ran")
		}
	}
	switch {
	case ctx.Err() != nil:
		return // the agent itself ends
	case bad && ended != nil:
		log.Warn("step stopped", "why", ended.why)
		r = &api.Report{Stopped: true}
		r.Exit, r.Why = 137, "it was stopped on its machine: "+ended.why
	case trouble != nil:
		log.Error("this machine cannot run the step", "why", trouble)
		r = &api.Report{Stopped: true}
		r.Exit, r.Why = 1, "its machine cannot run it: "+trouble.Error()
	case err != nil:
		log.Error("step could not be run", "err", err)
		r = &api.Report{}
		r.Exit, r.Why = 1, "it could not be run: "+err.Error()
	}
	r.Item, r.Epoch, r.Why = as.Item, as.Epoch, short(r.Why)
	a.mu.Lock()
	l.over = true
	a.mu.Unlock()
	type report struct {
		Release string     `json:"release"`
		Report  api.Report `json:"report"`
	}
	no := a.tell(ctx, log, "/report", report{as.Release, *r})
	if no != nil && ctx.Err() == nil && !r.Stopped {
		// Control will never take it, so the lease ends with what it does take: else the step
		// runs again, here or elsewhere, to the same end.
		failed := api.Report{}
		failed.Item, failed.Epoch, failed.Exit, failed.Status, failed.Took = r.Item, r.Epoch, cmp.Or(r.Exit, 1), r.Status, r.Took
		failed.Why = short("control does not take its result: " + no.Error())
		no = a.tell(ctx, log, "/report", report{as.Release, failed})
	}
	if no == nil && ctx.Err() == nil {
		log.Info("step ended", "exit", r.Exit)
	}
}

// tell says something until control has heard it. The error is control's no, for good.
func (a *Agent) tell(ctx context.Context, log *slog.Logger, path string, body any) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		var answer struct {
			Refused string `json:"refused"`
		}
		tried, cancel := a.briefly(ctx)
		err := a.o.Client.Do(tried, http.MethodPost, path, body, &answer)
		cancel()
		switch {
		case err == nil && answer.Refused != "":
			log.Warn("the result was refused", "why", answer.Refused)
			return nil
		case err == nil:
			return nil
		case final(err):
			log.Error("control does not take the result", "err", err)
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// final tells whether control has said no for good: not that another decides, which
// is a [api.Problem] inside an [api.UnreachableError], and not that it cannot say yet.
func final(err error) bool {
	var away *api.UnreachableError
	var p *api.Problem
	if errors.As(err, &away) || !errors.As(err, &p) {
		return false
	}
	return !slices.Contains([]string{"", "unknown", api.Doubted, api.Full}, p.Code)
}
