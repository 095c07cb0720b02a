package exercise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/lab"
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
	if err := r.client.Do(ctx, http.MethodPost, "/releases/"+s.Version+"/ship", api.Reason{}, &did); err != nil {
		return false, fmt.Errorf("ship: %w", err)
	}
	r.record(drill.Record{Kind: drill.Told, Ack: &release.Ack{Seq: did.Event, Type: "shipped"}})
	return false, nil // it is seen in the next turn
}

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
		return !r.lab.Now().Before(w.At)
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
	m := r.fleet[x.Machine]
	return m.Plain || len(m.Warm) > 0
}

// inject breaks something, after the guards have agreed, and looks whether it bites.
func (r *runner) inject(ctx context.Context, a drill.Action, lasts time.Duration) {
	x := drill.Record{Kind: drill.Injected, Name: a.Name, Host: a.Host}
	k := drill.Faults()[slices.IndexFunc(drill.Faults(), func(k drill.FaultKind) bool { return k.Fault == a.Fault })]
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
		return
	}
	if k.Down {
		r.down[a.Host] = true
	}
	r.faults[a.Name], r.hurt[a.Name] = f, time.Now()
	p := drill.Record{Kind: drill.Probed, Name: a.Name, Host: a.Host}
	p.OK, p.Why = answer(f.Probe(ctx))
	r.record(p)
	r.lasts(a, lasts)
}

// prepare makes a fault ready. Its probe is asked before anything is broken: one that
// says yes already shows nothing afterwards. Somebody who is away is a model, and no
// probe sees it.
func (r *runner) prepare(ctx context.Context, a drill.Action) (*lab.Fault, error) {
	if a.Fault == "person-away" {
		return nil, nil
	}
	if a.Fault == "key-revoked" {
		f := r.revoked(a.Of)
		x := drill.Record{Kind: drill.Probed, Name: a.Name, Before: true}
		x.OK, x.Why = answer(f.Probe(ctx))
		r.record(x)
		return f, nil
	}
	h := r.lab.Get(a.Host)
	if h == nil {
		return nil, fmt.Errorf("there is no machine %q", a.Host)
	}
	of := a.Of
	if a.Fault == "original-corrupted" || a.Fault == "artifact-corrupted" {
		of = r.digest(a.Of)
	}
	f, err := h.Prepare(a.Fault, of)
	if err != nil {
		return nil, err
	}
	x := drill.Record{Kind: drill.Probed, Name: a.Name, Host: a.Host, Before: true}
	x.OK, x.Why = answer(f.Probe(ctx))
	r.record(x)
	return f, nil
}

// revoked is the fault that a person's token is worthless. The probe asks control
// with that token; to undo it is to give them another.
func (r *runner) revoked(name string) *lab.Fault {
	ctx := context.Background()
	return &lab.Fault{
		Inject: func() error {
			return r.client.Do(ctx, http.MethodPost, "/tokens/revoke", api.Revoke{Person: name}, nil)
		},
		Probe: func(ctx context.Context) error {
			err := r.desks[name].Do(ctx, http.MethodGet, "/fleet", nil, nil)
			var p *api.Problem
			if errors.As(err, &p) && p.Code == "denied" {
				return nil
			}
			return errors.Join(errors.New("control still answers to their token"), err)
		},
		Undo: func() error {
			delete(r.denied, name)
			return r.badge(ctx, name)
		},
	}
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
		r.undoAt[a.Name] = r.lab.Now().Add(lasts)
	}
}

// digest finds an artifact of the release by its path.
func (r *runner) digest(path string) string {
	for _, e := range r.seen() {
		var list []release.Artifact
		switch b := e.Body.(type) {
		case release.Finished:
			list = b.Outputs
		case release.Committed:
			list = b.Outputs
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
		if !r.lab.Now().Before(at) {
			r.takeBack(name)
		}
	}
}

func (r *runner) undoAll() {
	for name := range r.undoAt {
		r.takeBack(name)
	}
}

func (r *runner) takeBack(name string) {
	delete(r.undoAt, name)
	r.moved()
	a := r.p.Method[slices.IndexFunc(r.p.Method, func(a drill.Action) bool { return a.Name == name })]
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
		err = errors.New("it still bites")
	}
	x.OK, x.Why = answer(err)
	r.record(x)
	delete(r.down, a.Host)
	r.o.Progress(r.ahead() + name + " is over")
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
	self, err := os.Executable()
	if err != nil {
		return err
	}
	desk := r.lab.Get("desk")
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + desk.Network(), self, "--state", desk.State(), "--drill-clock", desk.ClockFile()}, args...)...)
	cmd.Env = append(os.Environ(), "TRYSAIL_CONTROL="+r.link.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// verify reads every original in control's depot again.
func (r *runner) verify(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	state := r.lab.Get("control").State()
	cmd := exec.CommandContext(ctx, self, "--state", state, "--depot", filepath.Join(state, "depot"), "depot", "verify")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// recover begins control again from the copy of its ledger on a machine's disk.
func (r *runner) recover(args []string) error {
	if len(args) != 3 || args[1] != "recover" {
		return fmt.Errorf("%q is not control recover HOST", args)
	}
	control, from := r.lab.Get("control"), r.lab.Get(args[2])
	if from == nil {
		return fmt.Errorf("there is no machine %s", args[2])
	}
	if err := control.PowerOff(); err != nil {
		return err
	}
	if err := control.Put("recovered", filepath.Join(from.Disk(), "agent", "ledger")); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(control.Disk(), "control", "etcd")); err != nil {
		return err
	}
	serve := []string{"serve", "--listen", control.Address(port)}
	if err := control.Start(append(serve, "--recover", "/var/lib/trysail/recovered")...); err != nil {
		return err
	}
	control.Again(serve...)
	return nil
}

// people lets those decide whose time has come.
func (r *runner) people(ctx context.Context) {
	now := r.lab.Now()
	open := map[string]bool{}
	for _, ask := range r.status.Asks {
		for _, name := range ask.People {
			who, known := r.p.People[name]
			if !known || r.away[name] || r.denied[name] {
				continue
			}
			key := ask.Item + " " + ask.Type + " " + name
			open[key] = true
			if who.Live {
				r.live(ctx, ask, name)
				continue
			}
			at, waits := r.due[key]
			if !waits {
				at = r.responds(who, name, now)
				r.due[key] = at
				r.record(drill.Record{Kind: drill.Decided, Name: name, Why: "is asked: " + ask.Item})
			}
			if !now.Before(at) {
				delete(r.due, key)
				r.decide(ctx, ask, name, who.Spends, false, release.Approve, "")
			}
		}
	}
	for key := range r.due {
		if !open[key] {
			delete(r.due, key)
		}
	}
}

// responds is when somebody will have decided: their own time, in the hours in
// which they work, and not while they are away.
func (r *runner) responds(who drill.Response, name string, now time.Time) time.Time {
	d := who.Least
	if more := who.Most - who.Least; more > 0 {
		d += time.Duration(r.rand.Int64N(int64(more)))
	}
	at := now
	if c, ok := r.o.Hours[name]; ok {
		at = c.Add(at, d)
	} else {
		at = at.Add(d)
	}
	for _, s := range who.Away {
		if at.After(s.From) && at.Before(s.To) {
			at = s.To.Add(d)
		}
	}
	return at
}

// decide says a person's word, and remembers that it was acknowledged.
func (r *runner) decide(ctx context.Context, ask api.Ask, name string, spent time.Duration, live bool, decision release.Decision, reason string) {
	x := drill.Record{Kind: drill.Decided, Name: name, Why: string(decision) + ": " + ask.Item, Spent: spent, Live: live}
	var did struct {
		Event int64 `json:"event"`
	}
	var err error
	kind := ""
	switch ask.Type {
	case "sign":
		kind = "signed"
		err = r.desks[name].Do(ctx, http.MethodPost, "/releases/"+r.status.Version+"/sign", api.Decide{
			Item: ask.Item, Person: name, Decision: decision, Subject: ask.Subject, Reason: reason, Spent: spent,
		}, &did)
	case "except":
		kind = "excepted"
		err = r.desks[name].Do(ctx, http.MethodPost, "/releases/"+r.status.Version+"/except", release.Excepted{
			Person: name, Differences: r.status.Gold.Differences, Reason: "as in every build of it, says the model of " + name,
		}, &did)
	case "agree":
		kind = "agreed"
		err = r.desks[name].Do(ctx, http.MethodPost, "/releases/"+r.status.Version+"/agree", release.Agreed{
			Amendment: r.status.Amendment, Person: name, Decision: decision, Reason: reason,
		}, &did)
	default:
		return // what no model can decide: the drill ends when nothing else is left
	}
	x.OK, _ = answer(err)
	if err != nil {
		x.Why += ": " + err.Error()
		var p *api.Problem
		if errors.As(err, &p) && p.Code == "denied" {
			r.denied[name] = true // they try no more before somebody gives them another token
		}
	}
	r.moved()
	r.record(x)
	if err == nil {
		item := ask.Item
		if kind != "signed" {
			item = ""
		}
		a := &release.Ack{Seq: did.Event, Type: kind, Item: item}
		if kind == "signed" {
			a.Person = name
		}
		r.record(drill.Record{Kind: drill.Told, Ack: a})
	}
}

// live asks somebody at the terminal; what it takes them is measured.
func (r *runner) live(ctx context.Context, ask api.Ask, name string) {
	if r.o.Ask == nil {
		return
	}
	begun := time.Now()
	yes, reason, err := r.o.Ask(ctx, name, ask.Item, ask.What)
	if err != nil {
		r.record(drill.Record{Kind: drill.Decided, Name: name, Why: err.Error(), Live: true})
		return
	}
	decision := release.Approve
	if !yes {
		decision = release.Reject
	}
	r.record(drill.Record{Kind: drill.Decided, Name: name, Why: "was asked at the terminal: " + ask.Item, Live: true, Took: time.Since(begun)})
	r.decide(ctx, ask, name, time.Since(begun), true, decision, reason)
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
		a := r.p.Method[slices.IndexFunc(r.p.Method, func(a drill.Action) bool { return a.Name == name })]
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
	now := r.lab.Now()
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
	if err := r.lab.Jump(d); err != nil {
		return false, err
	}
	r.record(drill.Record{Kind: drill.Jumped, Took: d, Why: why})
	r.o.Progress(r.ahead() + "… " + drill.Human(d) + " pass: " + why)
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
