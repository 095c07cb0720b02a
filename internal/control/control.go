// Package control decides what happens in a fleet, and keeps nothing that it
// could not work out again.
//
// The facts are in the ledger: one stream for each release, one named "fleet"
// for who belongs to it, one named "access" for who may ask what, and one named
// "notices" for what was delivered to whom. Control folds a stream to its head, decides,
// and appends on condition that the head is still the same ([Control.update]).
// Every rule is pure code in packages release and fleet; here are loops, each in
// a file of its own:
//
//	fold.go        the ledger has new events: fold them
//	replication.go an event was appended: answer nobody before a machine has a copy of it
//	diverged.go    a machine's copy of the ledger contradicts it: append nothing
//	place.go       a machine is lost, a wait is over, a step needs a machine: append that
//	missing.go     the depot lost something that others have: fetch it, ask for it
//	notify.go      something happened that people must know: notify them
//	vcs_anchor.go  somebody decided: commit a checkpoint to version control
//	standby.go     another control is the leader: follow it, keep copies
//
// Each machine asks each second, so its answer does not read every release: leases.go
// updates who holds which lease with each fold, only its own leases wake a machine's
// poll, and place reads only releases that have new events.
//
// serve.go and the files that it names answer requests. Heartbeats are in memory
// only, so a control that starts again waits for [fleet.LostAfter] before it marks a machine lost.
package control

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"trysail/evidence"
	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/ledger"
	"trysail/internal/machine"
	"trysail/internal/notify"
	"trysail/release"
)

// Options are what a control is made of.
type Options struct {
	Ledger   *ledger.Ledger
	Depot    *depot.Depot
	Identity *Identity
	Cluster  Cluster // of several controls; nil: this one is alone
	Dir      string  // of logs and the token of who is root here
	Name     string  // of this control among several: the address of its API
	Actor    string  // how events name it
	Log      *slog.Logger
	Now      func() time.Time     // the wall clock
	Boot     func() time.Duration // since the machine started, which nobody can set; nil: the kernel's
	Notify   *notify.Config       // nil: nobody is told anything
	// Checkpoints is a working copy in which the releases' checkpoints are kept; "":
	// nowhere. Stamp has them time-stamped there; nil: nobody does.
	Checkpoints string
	Stamp       func(ctx context.Context, data []byte) ([]byte, error)
	// Lab tells that this control is on a disposable machine: there a release of the past is
	// made again, with the plan of evidence that verified.
	Lab bool
}

// Cluster is what a control knows of the others and asks of them: a [ledger.Store], which
// tests have in states that take an election and a death to come by.
type Cluster interface {
	Controls() []ledger.Member
	Leader() string
	AddControl(ctx context.Context, name, peer string) (string, error)
	Dismiss(ctx context.Context, name string) error
}

// Control is one control process.
type Control struct {
	o     Options
	begun time.Time // with its monotonic reading
	clock steady
	over  chan struct{} // closed when another decides
	id    string        // no two controls, and no two runs of one, have the same
	free  func(dir string) (uint64, error)
	// silence is for how long another control may send nothing of a blob.
	silence time.Duration

	mu       sync.Mutex
	streams  map[string]*stream
	members  map[string]*member
	joined   int64                     // events of the fleet's stream that were folded
	waiting  map[string]string         // why a step has no machine, by release/item
	rebuilds map[string]time.Duration  // how long a machine took to make a server, by blueprint
	leases   leases                    // in force, by machine
	heads    heads                     // of all streams
	fresh    map[string]bool           // releases that moved since place looked at them
	changed  bell                      // anything moved
	wanted   []string                  // digests that releases need and the depot lacks
	sums     map[string][]depot.Item   // originals, by the digest of their blueprint.sum
	tokens   []token                   // in force
	sealed   *sealed                   // the authority, as it was sealed last
	accesses int64                     // events of the stream they come from
	grown    bell                      // a log did
	said     time.Time                 // when it was said last that there is no room
	notices  notices                   // with locks of its own
	trees    map[string]*evidence.Tree // of the streams that are no release's
	doubts   doubts
	bodies   bodies     // with a lock of its own
	anchor   *vcsAnchor // with a lock of its own
	lists    lists      // with locks of its own
	// See replication.go.
	witnesses []string
	copied    bell // a machine has copied more
	alone     bool // nobody copies
}

// stream is one release, folded.
type stream struct {
	mu    sync.Mutex
	name  string
	state *release.State
	lines [][]byte      // all that the ledger has, also where it does not fold
	tree  evidence.Tree // over the lines
	news  bell
	err   error // it does not fold: the state is that of before
}

// member is a machine of the fleet with what it last said.
type member struct {
	enrolled
	set      fleet.Condition
	since    int64     // event that set it
	why      string    // it was set
	heard    time.Time // monotonic; zero: not since control began
	told     time.Time // the same, of a report meant for this run of control: it says what its disk has
	warm     []string
	has      []string
	holding  []api.Holding // what it said it runs, when it was heard of last
	copied   int64         // events that are safe on its disk
	copiedTo int64         // move up to which it has copied all streams
	skew     time.Duration // of its wall clock against this one, when it last said
	losses   int
	terms    []time.Time // of the events by which it joined or changed its terms, the last [mostTerms]
	news     bell        // it was given a lease, lost one, or was set
}

// New makes a control; Run makes it work.
func New(o Options) *Control {
	if o.Boot == nil {
		o.Boot = machine.BootTime
	}
	return &Control{
		o: o, begun: time.Now(), clock: newSteady(o.Now(), o.Boot()), over: make(chan struct{}), id: rand.Text(), free: freeAt, silence: 5 * time.Second, streams: map[string]*stream{}, members: map[string]*member{},
		waiting: map[string]string{}, rebuilds: map[string]time.Duration{}, sums: map[string][]depot.Item{}, leases: newLeases(), heads: newHeads(), fresh: map[string]bool{},
		trees: map[string]*evidence.Tree{}, doubts: doubts{}, anchor: newVCSAnchor(),
	}
}

// moved wakes everybody who waits for anything to happen.
func (c *Control) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.ring()
}

// news gives a channel that is closed at the next move.
func (c *Control) news() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed.next()
}

// logGrew wakes everybody who follows a log.
func (c *Control) logGrew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grown.ring()
}

func (c *Control) moreLog() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.grown.next()
}

// NotFoundError says that there is no such release.
type NotFoundError struct{ What string }

func (e *NotFoundError) Error() string { return "there is no " + e.What }

// Hint says what to type.
func (e *NotFoundError) Hint() string { return "trysail release list, trysail fleet" }

func (c *Control) stream(version string) (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[version]
	if s == nil {
		return nil, &NotFoundError{"release " + version}
	}
	return s, nil
}

// streamOf is the release whose stream has a name; nil if that is another stream, of
// which a release may have the name, or is not folded.
func (c *Control) streamOf(name string) *stream {
	version, ok := strings.CutPrefix(name, releaseStream(""))
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[version]
}

// versions lists the releases, sorted.
func (c *Control) versions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.streams))
}

// catchUp folds what the ledger has and the stream, whose lock is held, has not. That
// it does not fold is no error here: that release stands still, and no other.
func (c *Control) catchUp(ctx context.Context, s *stream) error {
	lines, err := c.o.Ledger.Read(ctx, releaseStream(s.name), int64(len(s.lines)))
	if err != nil || len(lines) == 0 {
		return err
	}
	defer c.folded(s)
	known := s.err
	for _, line := range lines {
		if err := s.takeLine(line); err != nil {
			return err
		}
	}
	if s.err != nil && known == nil {
		c.o.Log.Error("a release stands still", "err", s.err)
	}
	return nil
}

const fleetStream = "fleet"

func releaseStream(version string) string { return evidence.Stream(version) }

// errNothing is a decision's way to say that there is nothing to append.
var errNothing = errors.New("nothing to append")

// update folds a release to its head, lets decide say what is to be appended,
// and appends it. If another writer was faster it begins again. It returns the
// number of the event.
func (c *Control) update(ctx context.Context, version, actor string, decide func(*release.State) (release.Body, error)) (int64, error) {
	s, err := c.stream(version)
	if err != nil {
		return 0, err
	}
	if err := c.doubted(releaseStream(version)); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		e, line, derr := s.next(c.o.Now(), actor, decide)
		if derr == nil {
			err := c.o.Ledger.Append(ctx, releaseStream(version), s.state.Head, line)
			if err == nil {
				err = s.takeLine(line)
				c.folded(s)
				return e.Seq, errors.Join(err, s.err)
			}
			var conflict *ledger.ConflictError
			if !errors.As(err, &conflict) || ctx.Err() != nil {
				return 0, err
			}
		}
		// A no counts only at the head, and so does a yes that came second.
		head := s.state.Head
		if err := c.catchUp(ctx, s); err != nil {
			return 0, err
		}
		switch {
		case s.state.Head > head:
		case errors.Is(derr, errNothing):
			return head, nil
		case derr != nil:
			return 0, derr
		}
	}
}

// next is the event that a decision amounts to at the head that is known.
func (s *stream) next(now time.Time, actor string, decide func(*release.State) (release.Body, error)) (*release.Event, []byte, error) {
	if s.err != nil {
		return nil, nil, s.err
	}
	body, err := decide(s.state)
	if err != nil {
		return nil, nil, err
	}
	e := release.New(now, actor, body)
	e.Seq = s.state.Head + 1
	if err := s.state.Clone().Apply(e); err != nil {
		return nil, nil, err
	}
	line, err := json.Marshal(e)
	return &e, line, err
}

// takeLine takes one line that is in the ledger, and folds it if those before did. Also
// one that does not fold is there: it is copied, and compared with copies.
func (s *stream) takeLine(line []byte) error {
	if s.err == nil {
		var e release.Event
		err := json.Unmarshal(line, &e)
		if err == nil {
			err = s.state.Apply(e)
		}
		if err != nil {
			s.err = &UnfoldedError{s.name, int64(len(s.lines)) + 1, err}
		}
	}
	s.lines = append(s.lines, line)
	return s.tree.Add(line)
}

// UnfoldedError says that a release stands still, because this control does not know
// what an event of its ledger means.
type UnfoldedError struct {
	Release string
	Event   int64
	Err     error
}

func (e *UnfoldedError) Error() string {
	return fmt.Sprintf("release %s does not fold at event %d: %v", e.Release, e.Event, e.Err)
}

func (e *UnfoldedError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *UnfoldedError) Hint() string {
	return "if a newer Trysail wrote it, run that one on every control; if the ledger was changed, stop control, move its etcd/ away, and begin it from a machine's copy: trysail serve --recover DIR"
}

// folded keeps in step with a stream that moved, whose lock is held, what is
// known of all of them, and wakes those whom it concerns.
func (c *Control) folded(s *stream) {
	s.news.ring()
	var leases map[string]release.Lease
	if s.err == nil { // else what does not fold may have ended them: none is renewed
		leases = s.state.Leases()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.leases.put(s.name, leases) {
		if m := c.members[name]; m != nil {
			m.news.ring()
		}
	}
	c.heads.put(releaseStream(s.name), int64(len(s.lines)))
	c.fresh[s.name] = true
	c.changed.ring()
}

// Run decides until ctx ends: it returns the first loop's error, or nil. All was
// folded before.
func (c *Control) Run(ctx context.Context) error {
	defer close(c.over)
	// A control that was killed between an event and this has not named it.
	for _, v := range c.versions() {
		if err := c.keep(ctx, v, ""); err != nil {
			c.o.Log.Error("keep", "release", v, "err", err) // fill looks for it
		}
	}
	if err := c.compareKept(ctx); err != nil {
		return fmt.Errorf("checkpoints in version control: %w", err)
	}
	return c.loops(ctx, c.fold, c.place, c.fill, c.tell, c.witness)
}

// loops runs each until ctx or one of them ends.
func (c *Control) loops(ctx context.Context, loops ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(loops))
	for _, loop := range loops {
		go func() { errs <- loop(ctx) }()
	}
	err := <-errs
	cancel()
	for range loops[1:] {
		<-errs
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
