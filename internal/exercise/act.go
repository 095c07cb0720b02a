package exercise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"trysail/drill"
	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/lab"
	"trysail/release"
)

// acts injects and does what is due.
func (r *runner) acts(ctx context.Context) {
	for i, a := range r.p.Method {
		if r.done[a.Name] || !r.isDue(r.p.Timed[i].When) {
			continue
		}
		r.done[a.Name] = true
		r.moved()
		if a.Do != "" {
			r.command(ctx, a)
			continue
		}
		r.inject(ctx, a, r.p.Timed[i].For)
	}
}

func (r *runner) isDue(w drill.When) bool {
	switch {
	case !w.At.IsZero():
		return !r.stage.Now().Before(w.At)
	case w.After != "":
		return r.done[w.After]
	case w.Host != "" && w.Item == "":
		return !r.since[w.Host].IsZero() && !r.warm[w.Host]
	}
	if r.status == nil {
		return false
	}
	for _, x := range r.status.Items {
		if x.Name == w.Item {
			return string(x.Status) == w.Status && (w.Host == "" || x.Machine == w.Host) && (w.Status != string(release.InProgress) || r.works(x))
		}
	}
	return false
}

// works tells whether a step runs, and not only the making of its server.
func (r *runner) works(x api.ItemStatus) bool {
	return !r.wantsServer(x.Name) || len(r.fleet[x.Machine].Warm) > 0
}

// wantsServer tells whether a step runs in a server that is made from a blueprint; a
// machine may run others beside it, on its host.
func (r *runner) wantsServer(item string) bool {
	st, err := release.Fold(r.seen())
	if err != nil {
		return true
	}
	x := st.Item(item)
	return x == nil || st.Machine(x.Role).Blueprint != ""
}

// inject injects a fault, after the guards have agreed, and verifies it.
func (r *runner) inject(ctx context.Context, a drill.Action, lasts time.Duration) {
	x := drill.Record{Kind: drill.Injected, Name: a.Name, Host: a.Host}
	k := kind(a.Fault)
	if k.Down && len(r.down) >= r.p.Guards.DownAtOnce {
		x.OK, x.Why = answer(fmt.Errorf("the guard allows %d host(s) down at once", r.p.Guards.DownAtOnce))
		r.record(x)
		return
	}
	f, err := r.prepare(ctx, a)
	if err != nil {
		x.OK, x.Why = answer(err)
		r.record(x)
		return
	}
	r.record(drill.Record{Kind: drill.Intended, Name: a.Name, Host: a.Host})
	r.o.Progress(r.ahead() + "⚡ " + k.What + on(a.Host))
	if r.status != nil {
		slack := time.Duration(r.status.Slack * float64(time.Second))
		x.Slack = &slack
	}
	if a.Fault == "person-away" {
		r.away[a.Of] = true
		x.OK, x.Why = answer(nil)
		r.record(x)
		r.record(drill.Record{Kind: drill.Probed, Name: a.Name, OK: x.OK, Why: "modelled: nobody asks them"})
		r.lasts(a, lasts)
		return
	}
	x.OK, x.Why = answer(f.Inject())
	r.record(x)
	if !*x.OK {
		// Half of it may be done. An undo of what was not done may well fail: whether
		// something is left, the probe says.
		if f.Undo != nil {
			u := drill.Record{Kind: drill.Undone, Name: a.Name, Host: a.Host}
			err := f.Undo()
			if f.Probe(ctx) != nil {
				err = nil
			}
			u.OK, u.Why = answer(err)
			r.record(u)
		}
		return
	}
	if k.Down {
		r.down[a.Host] = true
	}
	r.faults[a.Name], r.hurt[a.Name] = f, time.Now()
	p := drill.Record{Kind: drill.Probed, Name: a.Name, Host: a.Host}
	p.OK, p.Why = answer(f.Probe(ctx))
	r.bit[a.Name] = *p.OK
	r.record(p)
	r.lasts(a, lasts)
}

// prepare makes a fault ready. Its probe is asked before anything is broken: one that
// says yes already shows nothing afterwards. Somebody who is away is a model, and no
// probe sees it.
func (r *runner) prepare(ctx context.Context, a drill.Action) (*lab.Fault, error) {
	f, err := r.fault(a)
	if f == nil || err != nil {
		return nil, err
	}
	x := drill.Record{Kind: drill.Probed, Name: a.Name, Host: a.Host, Before: true}
	x.OK, x.Why = answer(f.Probe(ctx))
	r.record(x)
	return f, nil
}

// fault is the one of an action; nil where it is only a model.
func (r *runner) fault(a drill.Action) (*lab.Fault, error) {
	switch a.Fault {
	case "person-away":
		return nil, nil
	case "key-revoked":
		return r.revoked(a.Of), nil
	}
	h := r.stage.Get(a.Host)
	if h == nil {
		return nil, fmt.Errorf("there is no machine %q", a.Host)
	}
	switch a.Fault {
	case "clock-skew":
		return r.skewed(a.Host, h, a.Of)
	case "original-corrupted", "artifact-corrupted":
		return h.Prepare(a.Fault, r.digest(a.Of))
	}
	return h.Prepare(a.Fault, a.Of)
}

// skewed is the fault that a machine's wall clock is wrong. What the machines say of
// their clocks with each report is the probe: the clock of one against control's, or,
// where it is control's that is wrong, those of all.
func (r *runner) skewed(name string, h lab.Machine, of string) (*lab.Fault, error) {
	text, back := strings.CutPrefix(of, "-")
	by, ok := drill.Duration(text)
	if !ok {
		return nil, fmt.Errorf("%q is no time", of)
	}
	if back {
		by = -by
	}
	said := func(ctx context.Context) error {
		var list []api.MachineStatus
		if err := r.client.Do(ctx, http.MethodGet, "/fleet", nil, &list); err != nil {
			return err
		}
		for _, m := range list {
			want := by
			if strings.HasPrefix(name, "control") {
				want = -by
			} else if m.Name != name {
				continue
			}
			if d := time.Duration(m.Skew*float64(time.Second)) - want; m.Condition == "up" && d.Abs() < 5*time.Second {
				return nil
			}
		}
		return fmt.Errorf("no machine says that the clock of %s is off by %s", name, of)
	}
	// A report comes once a second.
	within := func(ctx context.Context, yes bool) error {
		for end := time.Now().Add(3 * fleet.Beat); ; time.Sleep(100 * time.Millisecond) {
			if err := said(ctx); (err == nil) == yes || time.Now().After(end) {
				return err
			}
		}
	}
	return &lab.Fault{
		Inject: func() error { return h.Skew(by) },
		Probe:  func(ctx context.Context) error { return within(ctx, true) },
		Undo: func() error {
			if err := h.Skew(0); err != nil {
				return err
			}
			if within(context.Background(), false) == nil {
				return errors.New("its clock is still off")
			}
			return nil
		},
	}, nil
}

func on(host string) string {
	if host == "" {
		return ""
	}
	return " (" + host + ")"
}

// lasts notes until when a fault is in force.
func (r *runner) lasts(a drill.Action, lasts time.Duration) {
	if lasts > 0 {
		r.undoAt[a.Name] = r.stage.Now().Add(lasts)
	}
}

// digest finds an artifact of the release by its path.
func (r *runner) digest(path string) string {
	for _, e := range r.seen() {
		var made release.Made
		switch b := e.Body.(type) {
		case release.Finished:
			made = b.Made()
		case release.Committed:
			made = b.Made()
		}
		list, err := r.client.Files(context.Background(), made)
		if err != nil {
			r.o.Log.Warn("what a step made cannot be read", "err", err)
		}
		for _, x := range list {
			if x.Path == path {
				return x.Digest
			}
		}
	}
	return path
}

// undo takes back what has lasted long enough. A probe that is not seen yet, such
// as memory that has to run out, is asked again before.
func (r *runner) undo() {
	for name, at := range r.undoAt {
		if !r.stage.Now().Before(at) {
			r.takeBack(name)
		}
	}
}

func (r *runner) undoAll() {
	for name := range r.undoAt {
		r.takeBack(name)
	}
}

// again asks the probes of what is in force for good once more, at the end, where they
// have not seen it yet: some of it takes a while to bite, such as memory that has to run
// out.
func (r *runner) again(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		if _, ends := r.undoAt[name]; ends || r.bit[name] {
			continue // it is asked when it is taken back
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		p := drill.Record{Kind: drill.Probed, Name: name, Host: r.action(name).Host}
		p.OK, p.Why = answer(r.faults[name].Probe(ctx))
		cancel()
		r.bit[name] = *p.OK
		r.record(p)
	}
}

func (r *runner) takeBack(name string) {
	delete(r.undoAt, name)
	r.moved()
	a := r.action(name)
	x := drill.Record{Kind: drill.Undone, Name: name, Host: a.Host}
	if a.Fault == "person-away" {
		delete(r.away, a.Of)
		x.OK, x.Why = answer(nil)
		r.record(x)
		return
	}
	f := r.faults[name]
	if f == nil || f.Undo == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p := drill.Record{Kind: drill.Probed, Name: name, Host: a.Host}
	p.OK, p.Why = answer(f.Probe(ctx))
	r.record(p)
	err := f.Undo()
	if err == nil && f.Probe(ctx) == nil && a.Fault != "out-of-memory" { // what the kernel has killed stays killed
		err = errors.New("it still has an effect")
	}
	x.OK, x.Why = answer(err)
	r.record(x)
	if err == nil {
		delete(r.faults, name)
	}
	r.down = r.gone()
	r.o.Progress(r.ahead() + name + " is over")
}

// gone are the hosts that a fault which is in force took away.
func (r *runner) gone() map[string]bool {
	down := map[string]bool{}
	for name := range r.faults {
		a := r.action(name)
		if kind(a.Fault).Down {
			down[a.Host] = true
		}
	}
	return down
}

// refuses tells whether a service was told to.
func (r *runner) refuses(host string) bool {
	for name := range r.faults {
		if a := r.action(name); a.Host == host && a.Fault == "service-gone" {
			return true
		}
	}
	return false
}

func (r *runner) action(name string) drill.Action {
	return r.p.Method[slices.IndexFunc(r.p.Method, func(a drill.Action) bool { return a.Name == name })]
}

func kind(f drill.Fault) drill.FaultKind {
	return drill.Faults()[slices.IndexFunc(drill.Faults(), func(k drill.FaultKind) bool { return k.Fault == f })]
}

// command does what a person would type.
func (r *runner) command(ctx context.Context, a drill.Action) {
	r.o.Progress(r.ahead() + "$ trysail " + a.Do)
	x := drill.Record{Kind: drill.Done, Name: a.Name}
	f := strings.Fields(a.Do)
	if f[0] == "control" {
		x.OK, x.Why = answer(r.recover(f))
	} else {
		x.OK, x.Why = answer(r.typed(ctx, f))
	}
	r.record(x)
}

// typed runs a command of trysail where control's link is.
func (r *runner) typed(ctx context.Context, args []string) error {
	cmd, err := r.stage.Command(ctx, args...)
	if err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "TRYSAIL_CONTROL="+r.link.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// recover begins control again from the copy of its ledger on a machine's disk.
func (r *runner) recover(args []string) error {
	if len(args) != 3 || args[1] != "recover" {
		return fmt.Errorf("%q is not control recover HOST", args)
	}
	file, err := r.stage.Recover("control", args[2])
	if err != nil {
		return err
	}
	control := r.stage.Get("control")
	serve := []string{"serve", "--listen", control.Address(Port)}
	if err := control.Start(append(serve, "--recover", file)...); err != nil {
		return err
	}
	return control.Again(serve...)
}
