package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"trysail/blueprint"
	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/rebuild"
	"trysail/release"
)

// recheck looks at this machine before it works again, and says what it found.
// Nothing of it is anybody's lease, so it goes on while control is away.
func (a *Agent) recheck(ctx context.Context, ask api.Check) {
	log := a.o.Log.With("event", ask.Event)
	log.Info("this machine proves itself")
	a.idle(ctx)
	b := api.Checked{Event: ask.Event}
	err := a.examine(ctx, ask, &b.Found)
	if ctx.Err() != nil {
		return // the agent itself ends, or is asked anew
	}
	if err != nil {
		b.Found.Why = err.Error()
	}
	log.Info("this machine has looked at itself", "verdict", b.Found.Verdict, "why", b.Found.Why)
	a.tell(ctx, log, "/checked", b)
}

// idle waits until what was stopped here has ended.
func (a *Agent) idle(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		n := len(a.running)
		a.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// examine reads every original again, drops what was made of them, and makes the
// servers anew. In the first it builds what was captured there. An error is what
// is wrong with the machine.
func (a *Agent) examine(ctx context.Context, ask api.Check, f *fleet.Findings) (err error) {
	if err := a.verify(ctx, f); err != nil {
		return fmt.Errorf("its depot: %w", err)
	}
	a.mu.Lock()
	clear(a.warm)
	a.mu.Unlock()
	if f.Dropped, err = rebuild.Drop(a.o.State); err != nil {
		return err
	}
	file := filepath.Join(a.o.Dir, "proof.log")
	if err := os.MkdirAll(a.o.Dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	for i, m := range ask.Servers {
		if err := a.remake(ctx, m, i == 0, log, f); err != nil {
			return fmt.Errorf("the server of %s: %w (see %s there)", m.Name, err, file)
		}
	}
	return nil
}

// verify reads the whole depot. What is damaged is set aside, and fetched anew
// when something needs it.
func (a *Agent) verify(ctx context.Context, f *fleet.Findings) error {
	rep, err := a.o.Depot.Verify(ctx, nil)
	if err != nil {
		return err
	}
	f.Originals = rep.Originals
	for _, p := range rep.Problems {
		err := a.o.Depot.SetAside(ctx, p.Digest)
		var gone *depot.NotFoundError
		switch {
		case errors.As(err, &gone): // named and not there: nothing here is made of it
		case err != nil:
			return err
		case !a.o.Depot.Has(p.Digest):
			f.Damaged++
		}
	}
	return nil
}

// remake makes a role's server from originals, and proves it.
func (a *Agent) remake(ctx context.Context, m release.Machine, prove bool, log io.Writer, f *fleet.Findings) (err error) {
	b, sum, err := a.blueprint(ctx, m)
	if err != nil {
		return err
	}
	say := func(text string) { fmt.Fprintln(log, "[trysail] "+text) }
	server, err := rebuild.Root(ctx, rebuild.Options{
		State: a.o.State, Depot: a.o.Depot, Blueprint: b, Sum: sum, Log: a.o.Log, Now: time.Now, Step: say, Progress: func(string) {},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	f.Servers = append(f.Servers, b.Name)
	a.mu.Lock()
	a.warm[m.Blueprint] = true
	a.mu.Unlock()
	if !prove {
		return nil
	}
	x := &b.Builds[0]
	if err := a.forProof(ctx, x, sum); err != nil {
		return err
	}
	p, err := rebuild.Prove(ctx, rebuild.ProveOptions{
		State: a.o.State, Depot: a.o.Depot, Blueprint: b, Build: x, Server: server, Permits: a.o.Permits, Output: log, Log: a.o.Log, Step: say, Progress: func(string) {},
	})
	if err != nil {
		return err
	}
	f.Blueprint, f.Build, f.Verdict, f.Why = b.Name, x.Name, string(p.Verdict), proofWhy(p)
	return nil
}

// forProof fetches what a proof needs and a step does not. What the build made is
// needed only to say where other bytes differ.
func (a *Agent) forProof(ctx context.Context, x *blueprint.Build, sum blueprint.Sum) error {
	want := map[string]string{} // names, or "" for what may be missing, by digest
	for _, o := range x.Made {
		want[o.SHA256], want[o.Again] = "", ""
	}
	only := blueprint.Blueprint{Builds: []blueprint.Build{*x}}
	for _, name := range only.Names() {
		want[sum[name]] = name
	}
	for dg, name := range want {
		if dg == "" || a.o.Depot.Has(dg) {
			continue
		}
		var has bool
		err := again(ctx, func() error {
			return a.transferred(ctx, func(ctx context.Context) (err error) {
				has, err = a.o.Client.HasBlob(ctx, dg)
				return err
			})
		})
		switch {
		case err != nil:
			return err
		case has:
			if err := a.fetch(ctx, dg); err != nil {
				return err
			}
		case name != "":
			return fmt.Errorf("control's depot has not what a proof needs: %s", name)
		}
	}
	return nil
}

// proofWhy says what is wrong in one line.
func proofWhy(p *rebuild.Proof) string {
	if p.Verdict == rebuild.Identical || p.Verdict == rebuild.Equivalent {
		return ""
	}
	var say []string
	if p.Failure != "" {
		say = append(say, p.Failure)
	}
	for _, d := range p.Deviations {
		say = append(say, strings.TrimSpace(d.Item+" "+d.Path)+" "+d.What)
	}
	for _, o := range p.Outputs {
		for _, d := range o.Differences {
			say = append(say, named(nil, d.Path, d.What, d.Cause))
		}
	}
	const most = 3
	if more := len(say) - most; more > 0 {
		say = append(say[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(say, "; ")
}
