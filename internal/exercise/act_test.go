package exercise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/lab"
	"trysail/release"
	"trysail/runbook"
)

// board is a stage of which every machine has one fault, that the test makes.
type board struct {
	fault *lab.Fault
	err   error
	now   time.Time
}

// piece is one of its machines.
type piece struct{ b *board }

func (b *board) Machine(lab.HostSpec) (lab.Machine, error) { return piece{b}, nil }
func (b *board) Service(context.Context, drill.Service, string) (lab.Machine, error) {
	return piece{b}, nil
}
func (b *board) Get(string) lab.Machine     { return piece{b} }
func (b *board) Now() time.Time             { return b.now }
func (b *board) Jump(d time.Duration) error { b.now = b.now.Add(d); return nil }
func (b *board) Dial(context.Context, *net.Dialer, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func (b *board) Command(context.Context, ...string) (*exec.Cmd, error) {
	return nil, errors.ErrUnsupported
}
func (b *board) Clone(context.Context, string, string) error    { return errors.ErrUnsupported }
func (b *board) Recover(string, string) (string, error)         { return "", errors.ErrUnsupported }
func (b *board) Scratch() string                                { return "" }
func (b *board) Close() error                                   { return nil }
func (b *board) Own([]string) []string                          { return nil }
func (b *board) Left() []string                                 { return nil }
func (piece) Start(...string) error                             { return nil }
func (piece) Again(...string) error                             { return nil }
func (piece) Address(int) string                                { return "" }
func (piece) Give(string, []byte) (string, error)               { return "", nil }
func (piece) Read(string) ([]byte, error)                       { return nil, os.ErrNotExist }
func (p piece) Prepare(drill.Fault, string) (*lab.Fault, error) { return p.b.fault, p.b.err }
func (piece) Skew(time.Duration) error                          { return nil }
func (piece) Keep(string) error                                 { return nil }
func (piece) Verify(context.Context) error                      { return nil }
func (piece) Answers(context.Context) error                     { return nil }
func (piece) Tail(int64) string                                 { return "" }

const scenario = `drill: 1
name: test
hypothesis: what happens is written down
clock: {ship: "2026-12-18T17:00:00Z", begins: T-10d, mode: jump}
release: {version: "1", runbook: RELEASE.md}
world:
  controls: 1
  hosts:
    - {name: a, rank: primary, disk: 1GB}
    - {name: b, rank: backup, disk: 1GB}
guards: {down_at_once: 1, within: 5m}
people: [{name: ann, responds: 1h..3h, spends: 30m, away: [T-9d..T-8d]}]
method:
  - {name: hangs, when: T-9d, fault: machine-hung, host: a, for: 1h}
  - {name: dies, when: after hangs, fault: machine-lost, host: b}
  - {name: ill, when: T-9d, fault: person-away, of: ann, for: 2h}
`

// one makes a runner of a scenario on a board.
func one(t *testing.T, b *board) *runner {
	t.Helper()
	p, err := drill.Parse("drill.yaml", []byte(scenario))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b.now = p.Begins
	return &runner{
		o: Options{Plan: p, Progress: func(string) {}, Log: slog.New(slog.DiscardHandler)}, p: p, stage: b, begun: time.Now(), file: f, stop: func() {},
		fleet: map[string]api.MachineStatus{}, since: map[string]time.Time{}, warm: map[string]bool{}, faults: map[string]*lab.Fault{},
		undoAt: map[string]time.Time{}, hurt: map[string]time.Time{}, bit: map[string]bool{}, done: map[string]bool{}, away: map[string]bool{}, down: map[string]bool{},
	}
}

// wrote is what stands in the history, in words.
func (r *runner) wrote(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(r.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	var list []drill.Record
	for d := json.NewDecoder(bytes.NewReader(data)); d.More(); {
		var x drill.Record
		if err := d.Decode(&x); err != nil {
			t.Fatal(err)
		}
		list = append(list, x)
	}
	var words []string
	for _, x := range list {
		w := string(x.Kind) + " " + x.Name
		switch {
		case x.Before:
			w += " before"
		case x.Kind == drill.Intended:
			words = append(words, w)
			continue
		}
		if x.OK != nil && *x.OK {
			w += " yes"
		} else {
			w += " no"
		}
		words = append(words, w)
	}
	return words
}

// What is broken, seen and taken back is written down as it was, whatever goes wrong.
func TestInjected(t *testing.T) {
	bad := errors.New("bad")
	for _, x := range []struct {
		name   string
		fault  func(bites *bool) *lab.Fault
		err    error
		writes []string
	}{
		{"as it should", func(bites *bool) *lab.Fault {
			return &lab.Fault{
				Inject: func() error { *bites = true; return nil },
				Undo:   func() error { *bites = false; return nil },
			}
		}, nil, []string{"probed hangs before no", "intended hangs", "injected hangs yes", "probed hangs yes", "probed hangs yes", "undone hangs yes"}},
		{"the injector does nothing", func(*bool) *lab.Fault {
			return &lab.Fault{Inject: func() error { return nil }, Undo: func() error { return nil }}
		}, nil, []string{"probed hangs before no", "intended hangs", "injected hangs yes", "probed hangs no", "probed hangs no", "undone hangs yes"}},
		{"the injector fails", func(*bool) *lab.Fault {
			return &lab.Fault{Inject: func() error { return bad }, Undo: func() error { return nil }}
		}, nil, []string{"probed hangs before no", "intended hangs", "injected hangs no", "undone hangs yes"}},
		{"the undo does nothing", func(bites *bool) *lab.Fault {
			return &lab.Fault{Inject: func() error { *bites = true; return nil }, Undo: func() error { return nil }}
		}, nil, []string{"probed hangs before no", "intended hangs", "injected hangs yes", "probed hangs yes", "probed hangs yes", "undone hangs no"}},
		{"the undo fails", func(bites *bool) *lab.Fault {
			return &lab.Fault{Inject: func() error { *bites = true; return nil }, Undo: func() error { *bites = false; return bad }}
		}, nil, []string{"probed hangs before no", "intended hangs", "injected hangs yes", "probed hangs yes", "probed hangs yes", "undone hangs no"}},
		{"it bit before", func(bites *bool) *lab.Fault {
			*bites = true
			return &lab.Fault{Inject: func() error { return nil }, Undo: func() error { *bites = false; return nil }}
		}, nil, []string{"probed hangs before yes", "intended hangs", "injected hangs yes", "probed hangs yes", "probed hangs yes", "undone hangs yes"}},
		{"not on this host", func(*bool) *lab.Fault { return nil }, &lab.UnavailableError{Fault: "machine-hung", Why: "no freezer"}, []string{"injected hangs no"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			bites := false
			b := &board{fault: x.fault(&bites), err: x.err}
			if b.fault != nil {
				b.fault.Probe = func(context.Context) error {
					if bites {
						return nil
					}
					return errors.New("it has no effect")
				}
			}
			r := one(t, b)
			r.inject(t.Context(), r.p.Method[0], r.p.Timed[0].For)
			r.undo() // not yet
			b.now = b.now.Add(2 * time.Hour)
			r.undo()
			r.undo() // once
			if got := r.wrote(t); !slices.Equal(got, x.writes) {
				t.Errorf("%q", got)
			}
			if len(r.faults) > 0 && slices.Contains(x.writes, "undone hangs yes") {
				t.Errorf("in force: %v", r.faults)
			}
		})
	}
}

// Somebody who is away decides when they are back, in their hours and in their time.
func TestResponds(t *testing.T) {
	r := one(t, &board{})
	r.rand = rand.New(rand.NewPCG(1, 1))
	who := drill.Response{Least: time.Hour, Most: time.Hour}
	day := func(d, h int) time.Time { return time.Date(2026, 12, d, h, 0, 0, 0, time.UTC) } // the 9th is a Wednesday
	who.Away = []drill.Span{{From: day(10, 0), To: day(12, 0)}}
	for _, x := range []struct{ asked, decides time.Time }{
		{day(9, 10), day(9, 11)},
		{day(9, 23).Add(time.Minute), day(12, 1)}, // they are gone before they have decided
		{day(10, 12), day(12, 1)},
		{day(12, 12), day(12, 13)},
	} {
		if at := r.responds(who, "ann", x.asked); !at.Equal(x.decides) {
			t.Errorf("asked %s, they decide %s, and not %s", x.asked, at, x.decides)
		}
	}
	hours, err := runbook.Hours{Zone: "UTC", Days: []string{"mon", "tue", "wed", "thu", "fri"}, From: "09:00", To: "17:00"}.Calendar(time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	r.o.Hours = map[string]runbook.Calendar{"ann": hours}
	if at := r.responds(who, "ann", day(10, 12)); !at.Equal(day(14, 10)) { // they are back on a Saturday
		t.Errorf("in their hours they decide %s", at)
	}
}

// What is in force for good is looked at once more in the end, and what is not, is not:
// that is asked when it is taken back.
func TestAgain(t *testing.T) {
	bites := false
	r := one(t, &board{fault: &lab.Fault{Inject: func() error { return nil }, Undo: func() error { bites = false; return nil }, Probe: func(context.Context) error {
		if bites {
			return nil
		}
		return errors.New("it has no effect yet")
	}}})
	r.inject(t.Context(), r.p.Method[0], 0)
	r.inject(t.Context(), r.p.Method[2], 0) // a model
	bites = true
	r.again(t.Context())
	r.again(t.Context()) // once it was seen that is enough
	want := []string{"probed hangs before no", "intended hangs", "injected hangs yes", "probed hangs no", "intended ill", "injected ill yes", "probed ill yes", "probed hangs yes"}
	if got := r.wrote(t); !slices.Equal(got, want) {
		t.Errorf("for good: %q", got)
	}
	clear(r.bit)
	r.lasts(r.p.Method[0], time.Hour)
	r.again(t.Context())
	if got := r.wrote(t); !slices.Equal(got, want) {
		t.Errorf("with an end: %q", got)
	}
}

// However somebody's absences are written down and overlap, no answer falls into one; who
// works in none of the coming years never decides.
func TestRespondsInOrder(t *testing.T) {
	for _, away := range []string{"T-9d..T-8d, T-8d..T-7d, T-210h..T-6d", "T-210h..T-6d, T-8d..T-7d, T-9d..T-8d", "T-8d..T-7d, T-210h..T-6d, T-9d..T-8d"} {
		p, err := drill.Parse("drill.yaml", []byte(strings.Replace(scenario, "T-9d..T-8d", away, 1)))
		if err != nil {
			t.Fatal(err)
		}
		r := one(t, &board{})
		r.rand = rand.New(rand.NewPCG(1, 1))
		who := p.People["ann"]
		who.Least, who.Most = time.Hour, time.Hour
		for asked := p.Ship.AddDate(0, 0, -10); asked.Before(p.Ship.AddDate(0, 0, -5)); asked = asked.Add(20 * time.Minute) {
			at := r.responds(who, "ann", asked)
			if from, to := p.Ship.AddDate(0, 0, -9), p.Ship.AddDate(0, 0, -6); at.After(from) && at.Before(to) || at.Before(asked.Add(time.Hour)) {
				t.Fatalf("away %s, and asked at %s they decide at %s", away, asked, at)
			}
		}
		// Nothing but the calendar's own end lets a person never decide.
		r.p, r.o.Hours = p, map[string]runbook.Calendar{"ann": {Zone: time.UTC}}
		r.due, r.denied, r.vain = map[string]time.Time{}, map[string]bool{}, map[string]int{}
		r.status = &api.Status{Asks: []api.Ask{{Item: "review", Type: "nothing that is decided", People: []string{"ann"}}}}
		for range 3 {
			r.people(t.Context())
		}
		if at, waits := r.due["review nothing that is decided ann"]; !waits || !at.IsZero() {
			t.Errorf("who never works decides at %s (%t)", at, waits)
		}
		if got := r.wrote(t); len(got) != 1 {
			t.Errorf("%q", got)
		}
	}
}

// What would take more away than the guard allows is not injected; one action is due
// after another, and each once. What ends on a host that something else took away does
// not bring it back.
func TestGuardAndOrder(t *testing.T) {
	b := &board{}
	bites := false
	b.fault = &lab.Fault{Inject: func() error { bites = true; return nil }, Probe: func(context.Context) error {
		if bites {
			return nil
		}
		return errors.New("it has no effect")
	}, Undo: func() error { bites = false; return nil }}
	r := one(t, b)
	r.acts(t.Context())
	if got := r.wrote(t); len(got) != 0 {
		t.Errorf("before its time: %q", got)
	}
	b.now = r.p.Ship.AddDate(0, 0, -9)
	r.acts(t.Context())
	r.acts(t.Context())
	got := r.wrote(t)
	for what, n := range map[string]int{"injected hangs yes": 1, "injected dies no": 1, "injected dies yes": 0, "injected ill yes": 1} {
		if have := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != what })); have != n {
			t.Errorf("%s %d times, not %d: %q", what, have, n, got)
		}
	}
	if !r.away["ann"] || !r.down["a"] || r.down["b"] {
		t.Errorf("away %v, down %v", r.away, r.down)
	}
	b.now = b.now.Add(3 * time.Hour)
	r.undo()
	if r.away["ann"] || r.down["a"] {
		t.Errorf("after it was undone: away %v, down %v", r.away, r.down)
	}
	// Two faults on one host, of which the one that takes it away lasts longer.
	r.p.Method[0].For, r.p.Timed[0].For = "", 0
	r.inject(t.Context(), r.p.Method[0], 0)
	r.p.Method[1].Fault, r.p.Method[1].Host = "disk-full", "a"
	r.inject(t.Context(), r.p.Method[1], time.Second)
	b.now = b.now.Add(time.Hour)
	r.undo()
	if !r.down["a"] || len(r.faults) != 1 {
		t.Errorf("a is back because its disk has room again: down %v, in force %v", r.down, r.faults)
	}
}

// A machine that runs steps with and without a server makes one when the first of those
// runs that want it, and only those wait for it.
func TestServers(t *testing.T) {
	r := one(t, &board{})
	e := release.New(r.p.Begins, "ann", release.Started{
		Version: "1", Ship: r.p.Ship, Machines: []release.Machine{{Role: "host"}, {Role: "build", Blueprint: "sha256:1"}},
		Items: []runbook.Item{{Name: "notes", Kind: runbook.Step, Role: "host"}, {Name: "gold", Kind: runbook.Step, Role: "build"}},
	})
	e.Seq = 1
	r.notable = []release.Event{e}
	for _, x := range []struct {
		runs          []string
		warm          bool
		works, begins bool
	}{
		{nil, false, false, false},
		{[]string{"notes"}, false, true, false},
		{[]string{"gold"}, false, false, true},
		{[]string{"notes", "gold"}, false, false, true},
		{[]string{"gold"}, true, true, false},
	} {
		for _, plain := range []bool{true, false} {
			r.since, r.warm = map[string]time.Time{}, map[string]bool{}
			m := api.MachineStatus{Name: "a", Condition: "up", Plain: plain, Warm: []string{}}
			if x.warm {
				m.Warm = []string{"sha256:1"}
			}
			r.status = &api.Status{}
			for _, item := range x.runs {
				m.Running = append(m.Running, api.Holding{Release: "1", Item: item, Epoch: 2})
				r.status.Items = append(r.status.Items, api.ItemStatus{Name: item, Status: release.InProgress, Machine: "a"})
			}
			r.warmed(m)
			r.fleet["a"] = m
			if begins := !r.since["a"].IsZero(); begins != x.begins {
				t.Errorf("%v run, plain %t: it makes its server: %t", x.runs, plain, begins)
			}
			if begins := r.isDue(drill.When{Host: "a"}); begins != x.begins {
				t.Errorf("%v run, plain %t: a rebuilding: %t", x.runs, plain, begins)
			}
			if n := len(x.runs); n > 0 {
				if works := r.isDue(drill.When{Item: x.runs[n-1], Status: "running", Host: "a"}); works != x.works {
					t.Errorf("%v run, plain %t: %s running: %t", x.runs, plain, x.runs[n-1], works)
				}
			}
		}
	}
}

// A control that is there is asked for its depot.
func TestUpright(t *testing.T) {
	r := one(t, &board{})
	r.p.World.Controls = 3
	for _, x := range []struct {
		down []string
		want string
	}{{nil, "control"}, {[]string{"a"}, "control"}, {[]string{"control"}, "control2"}, {[]string{"control", "control2"}, "control3"}, {[]string{"control", "control2", "control3"}, "control"}} {
		r.down = map[string]bool{}
		for _, name := range x.down {
			r.down[name] = true
		}
		if got := r.upright(); got != x.want {
			t.Errorf("%v are down: %s", x.down, got)
		}
	}
}
