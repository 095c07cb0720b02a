// Package exercise runs a drill: the release of a working copy, on machines of a
// lab, by the drill's clock, with people as they are modelled and faults as the
// scenario says; and writes down what is seen (package drill judges it).
//
// The runner is one loop. Each turn it looks at the release and the fleet through
// control's own API, as a person would, injects what is due, lets people decide
// whose time has come, and takes back what has lasted long enough. When nothing is
// left to wait for but the calendar, the clock of every machine jumps to the next
// thing that is due. Every line of the history is synced before the next thing is
// done, so a drill that is killed says how far it came.
package exercise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/lab"
	"trysail/release"
	"trysail/runbook"
)

// Options say what is run.
type Options struct {
	Plan   *drill.Plan
	Header drill.Header // Run, Tool, Scenario, Seed, Source and Machine are the caller's
	Dir    string       // of this run's history, made by the caller
	// Stage makes the place where it is played.
	Stage func() (lab.Stage, error)
	Root  string // of the working copy
	// Start begins the release that is in the working copy, as trysail release start
	// does; from the clone source, if there is one. Where people sign with keys, those of
	// signers do, as ssh-keygen reads them, in place of the team's.
	Start func(ctx context.Context, c *api.Client, version string, ship time.Time, source string, signers []byte) error
	// Ask asks a person who is at the terminal; nil: nobody is.
	Ask func(ctx context.Context, person, item, what string) (yes bool, reason string, err error)
	// Hours are when people work, by name.
	Hours map[string]runbook.Calendar
	// Look lists what of drills is on the host, when all is cleaned up.
	Look     func() ([]string, error)
	Progress func(string)
	Log      *slog.Logger
}

// runner is a drill that runs.
type runner struct {
	o     Options
	p     *drill.Plan
	stage lab.Stage
	begun time.Time
	rand  *rand.Rand

	mu      sync.Mutex
	file    *os.File
	seq     int64
	torn    error  // why the history is not whole
	stop    func() // ends the drill
	events  int64  // of the release, seen
	notable []release.Event

	client *api.Client
	http   *http.Client           // of all clients: it dials from the desk
	desks  map[string]*api.Client // of each person, with their own token
	denied map[string]bool        // people whose token control does not know
	keys   map[string]ssh.Signer  // of people, made for this drill
	signed bool                   // the release wants signatures
	vain   map[string]int         // decisions that control did not take, by "item type person"
	link   api.Link               // of whoever is root on the first control
	fleet  map[string]api.MachineStatus
	status *api.Status
	since  map[string]time.Time // machine: since when it makes the server
	warm   map[string]bool
	faults map[string]*lab.Fault // by action, in force
	hurt   map[string]time.Time  // by action: when its fault was injected, in real time
	bit    map[string]bool       // verified: actions whose fault was seen to take effect
	undoAt map[string]time.Time  // by action: by the drill's clock
	done   map[string]bool       // actions
	due    map[string]time.Time  // of a person's decision, by "item person"
	away   map[string]bool       // people taken away by a fault
	down   map[string]bool       // hosts
	still  time.Time             // since when nothing has moved, in real time
	last   string                // what it looked like then
}

// Run runs a drill and gives its history. An error is whatever kept it from
// running at all; that it stopped half-way is in the history.
func Run(ctx context.Context, o Options) (history []drill.Record, err error) {
	r := &runner{
		o: o, p: o.Plan, begun: time.Now(), rand: rand.New(rand.NewPCG(o.Header.Seed, 1)),
		fleet: map[string]api.MachineStatus{}, since: map[string]time.Time{}, warm: map[string]bool{}, faults: map[string]*lab.Fault{},
		undoAt: map[string]time.Time{}, desks: map[string]*api.Client{}, denied: map[string]bool{}, hurt: map[string]time.Time{}, bit: map[string]bool{}, done: map[string]bool{}, due: map[string]time.Time{}, away: map[string]bool{}, down: map[string]bool{}, vain: map[string]int{},
	}
	file := filepath.Join(o.Dir, "history.jsonl")
	if r.file, err = os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.file.Close()) }()
	if r.stage, err = o.Stage(); err != nil {
		return nil, err
	}
	if err := r.stage.Jump(time.Until(r.p.Begins)); err != nil {
		return nil, errors.Join(err, r.stage.Close())
	}
	r.stop = func() {}
	h := o.Header
	h.Began = r.begun.UTC()
	r.record(drill.Record{Kind: drill.Began, Header: &h})
	limited, cancel := context.WithTimeout(ctx, r.p.Within)
	defer cancel()
	r.stop = cancel
	runErr := r.run(limited)
	switch {
	case ctx.Err() != nil:
		r.record(drill.Record{Kind: drill.Stopped, Why: "interrupted"})
	case limited.Err() != nil:
		r.record(drill.Record{Kind: drill.Guarded, Why: fmt.Sprintf("it took longer than %s", r.p.Within)})
	case runErr != nil:
		r.record(drill.Record{Kind: drill.Stopped, Why: runErr.Error()})
	}
	r.clean()
	if runErr == nil {
		r.record(drill.Record{Kind: drill.Ended})
	}
	if r.torn != nil {
		return nil, fmt.Errorf("the history of the drill: %w", r.torn)
	}
	data, rerr := os.ReadFile(file)
	if rerr != nil {
		return nil, rerr
	}
	return drill.ReadHistory(data)
}

// record writes one line, and syncs it.
func (r *runner) record(x drill.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	x.Seq, x.At, x.Clock = r.seq, time.Since(r.begun), r.stage.Now().UTC().Truncate(time.Millisecond)
	line, err := json.Marshal(x)
	if err == nil {
		_, err = r.file.Write(append(line, '\n'))
	}
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		// A drill whose history is not kept shows nothing: it ends, and cleans up.
		r.torn = errors.Join(r.torn, err)
		r.stop()
	}
}

func answer(err error) (*bool, string) {
	ok := err == nil
	if err != nil {
		return &ok, err.Error()
	}
	return &ok, ""
}

func (r *runner) run(ctx context.Context) error {
	if err := r.world(ctx); err != nil {
		return err
	}
	if err := r.steady(ctx, drill.Asked); err != nil {
		return err
	}
	r.o.Progress("starting the release")
	source, err := r.source(ctx)
	if err != nil {
		return err
	}
	signers, err := r.makeKeys()
	if err != nil {
		return err
	}
	if err := r.o.Start(ctx, r.client, r.p.Release.Version, r.p.Ship, source, signers); err != nil {
		return fmt.Errorf("start the release: %w", err)
	}
	r.record(drill.Record{Kind: drill.Told, Ack: &release.Ack{Type: "started"}})
	watch, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.watch(watch) })
	err = r.loop(ctx)
	r.reread()
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	r.again(ctx)
	r.undoAll()
	return r.steady(ctx, drill.Asked2)
}

// watch follows the release's ledger.
func (r *runner) watch(ctx context.Context) {
	err := r.client.Follow(ctx, r.p.Release.Version, 0, func(line []byte) (bool, error) { return false, r.saw(line) })
	if ctx.Err() == nil {
		r.o.Log.Error("the drill's watch of the ledger ended", "err", err) // what it did not see makes the verdict unknown
	}
}

// saw takes one event of the ledger.
func (r *runner) saw(line []byte) error {
	var e release.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	r.mu.Lock()
	known := e.Seq <= r.events
	r.events = max(r.events, e.Seq)
	if !known {
		r.notable = append(r.notable, e)
	}
	if b, ok := e.Body.(release.Started); ok {
		r.signed = b.Signers != ""
	}
	r.mu.Unlock()
	if !known {
		r.record(drill.Record{Kind: drill.Happened, Name: e.Type, Event: &e})
		r.tell(e)
		if b, ok := e.Body.(release.Finished); ok && b.Exit != 0 {
			r.keepLog(b)
		}
	}
	return nil
}

// keepLog keeps the log of a step that failed: the machines are gone when somebody
// asks why.
func (r *runner) keepLog(b release.Finished) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := func() error {
		// Control says how the step is called, and may be on a host of somebody else.
		file := fmt.Sprintf("step-%s-%d.log", b.Item, b.Epoch)
		if filepath.Base(file) != file {
			return fmt.Errorf("%q is no name of a step", b.Item)
		}
		res, err := r.client.Open(ctx, http.MethodGet, fmt.Sprintf("/releases/%s/logs/%s/%d", r.p.Release.Version, b.Item, b.Epoch), nil, nil)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		data, err := io.ReadAll(io.LimitReader(res.Body, 10<<20))
		if err != nil {
			return err
		}
		dir := filepath.Join(r.o.Dir, "logs")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, file), data, 0o600)
	}()
	if err != nil {
		r.o.Log.Warn("the log of a step that failed", "step", b.Item, "err", err)
	}
}

// tell says on the terminal what happened.
func (r *runner) tell(e release.Event) {
	if s := release.Sentence(e); s != "" {
		r.o.Progress(r.ahead() + s)
	}
}

// ahead says where the drill's clock stands.
func (r *runner) ahead() string { return drill.TMinus(r.p, r.stage.Now()) + "  " }

// reread reads the whole ledger once more, from its beginning: what was seen or
// acknowledged while the drill ran must still be there.
func (r *runner) reread() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	x := drill.Record{Kind: drill.Reread}
	var err error
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if x.Ledger, err = r.client.Events(ctx, r.p.Release.Version); err != nil {
			continue
		}
		// The watch may be behind what was read; what it saw later is not missing.
		r.mu.Lock()
		seen := r.events
		r.mu.Unlock()
		if seen == int64(len(x.Ledger)) {
			break
		}
	}
	x.OK, x.Why = answer(err)
	r.record(x)
}

// look asks control how things stand, and writes down what changed.
func (r *runner) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var list []api.MachineStatus
	if err := r.client.Do(ctx, http.MethodGet, "/fleet", nil, &list); err != nil {
		return err
	}
	for _, m := range list {
		old, known := r.fleet[m.Name]
		if !known || old.Condition != m.Condition {
			r.record(drill.Record{Kind: drill.Sighted, Host: m.Name, Why: string(m.Condition)})
		}
		r.warmed(m)
		r.fleet[m.Name] = m
	}
	if r.status == nil && len(r.seen()) == 0 {
		return nil
	}
	s := &api.Status{}
	if err := r.client.Do(ctx, http.MethodGet, "/releases/"+r.p.Release.Version, nil, s); err != nil {
		return err
	}
	r.status = s
	return nil
}

// seen gives the events of the release so far.
func (r *runner) seen() []release.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notable
}

// warmed writes down how long a machine took to make its server, once it has it.
func (r *runner) warmed(m api.MachineStatus) {
	switch {
	case len(m.Warm) > 0 && !r.warm[m.Name]:
		r.warm[m.Name] = true
		x := drill.Record{Kind: drill.Warmed, Host: m.Name}
		if at, ok := r.since[m.Name]; ok {
			x.Took = time.Since(at)
		}
		r.record(x)
		r.o.Progress(r.ahead() + m.Name + " is a build server")
	case len(m.Warm) == 0 && r.since[m.Name].IsZero() && slices.ContainsFunc(m.Running, func(x api.Holding) bool { return r.wantsServer(x.Item) }):
		r.since[m.Name] = time.Now()
	}
}

// clean takes everything away and looks at what is left.
func (r *runner) clean() {
	r.o.Progress("cleaning up")
	// What goes wrong with logs must not keep a machine running.
	if err := r.keepLogs(); err != nil {
		r.o.Log.Warn("the logs of the machines are not kept", "err", err)
	}
	err := r.stage.Close()
	x := drill.Record{Kind: drill.Cleaned}
	x.OK, x.Why = answer(err)
	// The kernel gives back a disk when nobody has it any more; somebody else may be
	// making a mount namespace just now, and has a copy for a moment.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		now, lerr := r.o.Look()
		x.Left = append(r.stage.Own(now), r.stage.Left()...)
		switch {
		case lerr != nil:
			x.OK, x.Why = nil, lerr.Error()
		case len(x.Left) > 0 && time.Now().Before(end):
			continue
		case len(x.Left) > 0:
			no := false
			x.OK = &no
		}
		break
	}
	r.record(x)
}

// keepLogs keeps the end of what each machine has said.
func (r *runner) keepLogs() error {
	logs := filepath.Join(r.o.Dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	for _, name := range slices.Concat(r.p.Machines(), r.p.Services()) {
		if h := r.stage.Get(name); h != nil {
			if err := os.WriteFile(filepath.Join(logs, name+".log"), []byte(h.Tail(1<<20)), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func hostNames(p *drill.Plan) []string {
	var list []string
	for _, h := range p.World.Hosts {
		list = append(list, h.Name)
	}
	return list
}

// steady asks the questions.
func (r *runner) steady(ctx context.Context, when drill.Kind) error {
	for _, q := range r.p.Steady {
		if q == drill.NothingLeft {
			continue // the clean-up answers it
		}
		var err error
		for range 20 { // what was undone a moment ago takes a moment
			if err = r.question(ctx, q); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(300 * time.Millisecond):
			}
		}
		x := drill.Record{Kind: when, Name: string(q)}
		x.OK, x.Why = answer(err)
		r.record(x)
	}
	return nil
}

func (r *runner) question(ctx context.Context, q drill.Steady) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	switch q {
	case drill.ControlAnswers:
		return nil
	case drill.HostsUp:
		var bad []string
		for _, name := range hostNames(r.p) {
			if c := r.fleet[name].Condition; c != "up" && !r.down[name] {
				bad = append(bad, fmt.Sprintf("%s is %s", name, c))
			}
		}
		if len(bad) > 0 {
			return errors.New(strings.Join(bad, ", "))
		}
	case drill.LedgerCopied:
		for _, name := range hostNames(r.p) {
			if m := r.fleet[name]; m.Condition == "up" && r.status != nil && m.Events < r.status.Head {
				return fmt.Errorf("%s has %d events, and there are at least %d", name, m.Events, r.status.Head)
			}
		}
	case drill.ReleaseMoves:
		if r.status != nil && (r.status.Phase == release.Holding || r.status.Phase == release.Ended) {
			return fmt.Errorf("the release is %s: %s", r.status.Phase, r.status.Why)
		}
	case drill.LedgerUndoubted:
		if r.status != nil && len(r.status.Doubts) > 0 {
			return errors.New(strings.Join(r.status.Doubts, "; "))
		}
	case drill.ServicesAnswer:
		for _, name := range r.p.Services() {
			if r.down[name] || r.refuses(name) {
				continue
			}
			if err := r.stage.Get(name).Answers(ctx); err != nil {
				return err
			}
		}
	case drill.DepotWhole:
		return r.stage.Get(r.upright()).Verify(ctx)
	default:
		return fmt.Errorf("nobody knows how to ask %q", q) // a question without an answer is no yes
	}
	return nil
}

// upright is a control that no fault took away; the first, where all are gone.
func (r *runner) upright() string {
	controls := r.p.Machines()[:r.p.World.Controls]
	if i := slices.IndexFunc(controls, func(name string) bool { return !r.down[name] }); i >= 0 {
		return controls[i]
	}
	return controls[0]
}
