// Package agent makes a machine run steps for control, and stop in time.
//
// An agent asks and control answers; nothing listens here. Its loops, each in a
// file of its own:
//
//	beat.go   once a second: what I hold, and which of it is still mine
//	work.go   fetch leases and run them
//	copy.go   keep a copy of the ledger on this disk, synced
//	send.go   send what control lost and this disk has; leave a control that is frozen
//	renew.go  have the certificate made anew before it ends
//
// A machine that comes back looks at itself first, in no lease (recheck.go).
//
// A step runs in the rebuilt server that its role names, in a clean workspace,
// through the same two packages that a proof uses (run.go). A second build of
// gold that made other bytes runs once more, so that the verdict can tell a build
// that is never the same from a machine that is not (confirm.go). A step ends for good
// when its lease does: if no report of this machine was answered since
// [fleet.FenceAfter], counted on a clock that only goes forward from the moment
// the last answered report was *sent*, everything is killed before control can
// give the step to another. A guard does so, a process of its own
// ([machine.Guard]): an agent that was killed, stopped or hangs cannot. A result
// that arrives all the same is refused by control.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/build"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/runbook"
)

// Options are what an agent is made of.
type Options struct {
	Name   string
	Client *api.Client
	State  *machine.State
	Depot  *depot.Depot // of this machine
	Dir    string       // of what it keeps: the copy of the ledger, logs not yet sent
	// Permits is what steps may reach of this machine beside their server.
	Permits build.Permits
	// Plain lets steps run on this machine itself, as root, where control says so.
	Plain bool
	// Remember keeps the addresses of all controls for the next start.
	Remember func([]string) error
	// Renew makes this machine's certificate anew, if it ends soon.
	Renew func(ctx context.Context) error
	Log   *slog.Logger
	Now   func() time.Time // the wall clock: to be compared, and for nothing else
	Drill bool             // this machine takes part in a drill: steps are told so
}

// Agent is one machine's agent.
type Agent struct {
	o Options

	mu      sync.Mutex
	running map[api.Holding]*lease
	warm    map[string]bool     // digests of blueprints whose server is ready here
	has     []string            // digests of artifacts made or fetched here, the newest last
	seen    string              // mark of the last answer
	copied  string              // mark of the last answer whose streams are all on this disk
	events  int64               // on this disk, of all streams
	copies  map[string]api.Copy // those streams; nil: not looked at yet
	shown   map[string]int64    // events of each that the control was told of
	told    string              // that run of control
	heard   time.Duration       // boot time at which the last answered report was sent
	lapsed  time.Duration       // boot time at which control was last found to have been away too long
	asks    string              // address of the control that answered last, if the last report was answered
	again   context.CancelFunc  // ends the request for work that is under way
	guard   *machine.Guard
	fenced  chan struct{} // closed once a deadline stands
	hurry   chan struct{} // to report at once: a lease came
	behind  chan api.BeatAnswer
	wanted  chan []string

	asked  int64              // event of the check that this machine is at; 0: none
	stop   context.CancelFunc // ends it
	looked chan struct{}      // closed when it has ended

	transfers map[*transfer]bool // under way
	patience  time.Duration      // instead of answering; 0: that
}

// New makes an agent, with its guard.
func New(o Options) (*Agent, error) {
	g, err := machine.StartGuard()
	if err != nil {
		return nil, err
	}
	return &Agent{
		o: o, guard: g, running: map[api.Holding]*lease{}, warm: map[string]bool{},
		again: func() {}, fenced: make(chan struct{}), hurry: make(chan struct{}, 1), behind: make(chan api.BeatAnswer, 1), wanted: make(chan []string, 1),
	}, nil
}

// Run works until ctx ends. What runs then is killed: control gives it to others.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.guard.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.beats(ctx) })
	g.Go(func() error { return a.works(ctx) })
	g.Go(func() error { return a.keepCopies(ctx) })
	g.Go(func() error { return a.sends(ctx) })
	g.Go(func() error { return a.renews(ctx) })
	return g.Wait()
}

// mostHas bounds what a report says of artifacts.
const mostHas = 500

// note remembers that artifacts are on this disk.
func (a *Agent) note(digests ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range digests[max(len(digests)-mostHas, 0):] {
		a.has = append(slices.DeleteFunc(a.has, func(x string) bool { return x == d }), d)
	}
	a.has = a.has[max(len(a.has)-mostHas, 0):]
}

// lease is one that this machine holds. What control gave may have been held up on
// its way for longer than it was in force, so nothing of it begins before a report
// that was sent after it came was answered with it.
type lease struct {
	end   context.CancelCauseFunc
	sure  chan struct{} // closed by the first such answer
	known bool
	over  bool // its end is being reported
}

// renew notes that control says that the lease is in force. The lock is held.
func (l *lease) renew() {
	if !l.known {
		l.known = true
		close(l.sure)
	}
}

// endedError is why a step was stopped from here.
type endedError struct{ why string }

func (e *endedError) Error() string { return e.why }

// hasten reports at once.
func (a *Agent) hasten() {
	select {
	case a.hurry <- struct{}{}:
	default: // a report is on its way, and knows of this too
	}
}

// fence kills everything.
func (a *Agent) fence(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for h, l := range a.running {
		a.o.Log.Warn("stopping a step", "release", h.Release, "step", h.Item, "why", why)
		l.end(&endedError{why})
	}
}

// overdue tells whether no report is answered for so long that what runs here
// may be somebody else's by now.
func (a *Agent) overdue() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.late()
}

// late is overdue for who holds the lock.
func (a *Agent) late() bool {
	return a.heard > 0 && machine.BootTime()-a.heard >= fleet.FenceAfter
}

// lapsedSince tells whether it was so at any time since then: the guard has
// killed what ran, although control answers again.
func (a *Agent) lapsedSince(then time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.late() || a.lapsed >= then
}

// silent is why everything is killed when control does not answer.
func silent() string { return "control did not answer for " + runbook.FormatDuration(fleet.FenceAfter) }
