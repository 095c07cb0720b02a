package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"trysail/blueprint"
	"trysail/internal/api"
	"trysail/internal/build"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/mask"
	"trysail/internal/rebuild"
	"trysail/internal/tree"
	"trysail/release"
	"trysail/runbook"
)

// run runs one step to its end. A step that fails is a report; an error is
// whatever kept it from being run.
func (a *Agent) run(ctx context.Context, as api.Assignment) (r *api.Report, err error) {
	if _, err := exec.LookPath("runc"); err != nil && as.Machine.Blueprint != "" {
		return nil, &machine.RuncError{What: "not found", Err: exec.ErrNotFound} // before anything is fetched for nothing
	}
	n, err := a.o.State.Begin()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	secrets, err := a.secrets(as.Step.Secrets)
	if err != nil {
		return nil, err
	}
	hidden := maskOf(secrets)
	log, err := a.newLog(as.Holding, n.Path("log"), hidden)
	if err != nil {
		return nil, err
	}
	defer log.file.Close()
	var sender sync.WaitGroup
	sender.Go(func() { log.send(ctx) })
	s := &step{a: a, as: as, n: n, log: log, secrets: secrets, mask: hidden}
	r, err = s.report(ctx)
	err = hide(hidden, r, err)
	log.finish()
	sender.Wait()
	if err != nil {
		return nil, err
	}
	r.Log, err = log.store(ctx)
	return r, err
}

// report runs the step and says how it ended, and what it made.
func (s *step) report(ctx context.Context) (*api.Report, error) {
	r, err := s.once(ctx)
	if err != nil || r.Exit != 0 {
		return r, err
	}
	if err := s.collect(ctx, r); err != nil {
		return nil, err
	}
	if err := r.Over(); err != nil {
		r.Finished = r.Without()
		r.Exit, r.Why = 1, err.Error()
	}
	return r, nil
}

// once runs the step in a server and a workspace of its own, and says how it ended.
func (s *step) once(ctx context.Context) (*api.Report, error) {
	exit, err := s.inside(ctx)
	if err != nil {
		return nil, err
	}
	r := &api.Report{}
	r.Exit, r.Took, r.Root = exit.Code, exit.Duration, s.root
	r.Status, r.Signal = exit.Code, exit.Signal
	switch {
	case s.late:
		r.Why = "stopped after its timeout of " + s.as.Step.Timeout.String()
	case exit.Signal != "":
		r.Why = "it ended by a signal: " + exit.Signal
	case exit.Code != 0:
		r.Why = exitWhy(exit.Code)
		s.tested(r)
	default:
		s.tested(r)
	}
	return r, nil
}

// step is one lease being worked on.
type step struct {
	a        *Agent
	as       api.Assignment
	n        *machine.Session
	log      *logSink
	checkout string
	before   results   // files of test results that were there before the script began
	begun    time.Time // when it did, by the clock of its files
	root     string    // digest of the rebuilt server
	late     bool      // stopped by its timeout
	secrets  map[string]string
	mask     *mask.Mask // of the secrets
	user     blueprint.User
}

// limited runs the command within the step's timeout; making its server first
// does not count.
func (s *step) limited(ctx context.Context, run func(context.Context) (*machine.Exit, error)) (*machine.Exit, error) {
	if s.as.Step.Timeout == 0 {
		return run(ctx)
	}
	within, cancel := context.WithTimeout(ctx, s.as.Step.Timeout)
	defer cancel()
	exit, err := run(within)
	if ctx.Err() == nil && within.Err() != nil {
		s.late = true
		return &machine.Exit{Code: 124, Duration: s.as.Step.Timeout}, nil
	}
	return exit, err
}

func (s *step) inside(ctx context.Context) (*machine.Exit, error) {
	if s.as.Machine.Blueprint != "" {
		return s.rebuilt(ctx)
	}
	if !s.a.o.Plain { // control does not send one, unless somebody else rules it
		return nil, &PlainError{}
	}
	return s.plain(ctx)
}

// atOnce is how many blobs go to control or come from it at a time: each waits for a disk.
const atOnce = 8

// fetch makes sure that originals are in this machine's depot.
func (a *Agent) fetch(ctx context.Context, digests ...string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, dg := range digests {
		if dg == "" || a.o.Depot.Has(dg) {
			continue
		}
		g.Go(func() error {
			return again(ctx, func() error {
				return a.transferred(ctx, func(ctx context.Context) error { return a.get(ctx, dg) })
			})
		})
	}
	return g.Wait()
}

func (a *Agent) get(ctx context.Context, dg string) error {
	r, err := a.o.Client.GetBlob(ctx, dg)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", dg, err)
	}
	defer r.Close()
	_, err = a.o.Depot.PutExpected(ctx, r, dg)
	return err
}

// send gives control a blob that it has not.
func (a *Agent) send(ctx context.Context, dg string) error {
	return a.transferred(ctx, func(ctx context.Context) error {
		if has, err := a.o.Client.HasBlob(ctx, dg); err != nil || has {
			return err
		}
		return a.put(ctx, dg)
	})
}

// put sends control a blob.
func (a *Agent) put(ctx context.Context, dg string) error {
	f, err := a.o.Depot.Get(ctx, dg)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.o.Client.PutBlob(ctx, dg, f)
}

// healing is how long a step waits for a blob that control has lost or found
// damaged to be sent by another machine.
const healing = time.Minute

// again does something that needs control until control answers, and has room. It
// ends with the lease at the latest: then ctx does.
func again(ctx context.Context, do func() error) error {
	begin := machine.BootTime()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := do()
		var away *api.UnreachableError
		var p *api.Problem
		heals := errors.As(err, &p) && ((p.Code == api.Damaged || p.Code == "not-found") && machine.BootTime()-begin < healing || p.Code == api.Full)
		if !errors.As(err, &away) && !heals {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// script writes the step's script into a directory that the step can read, and
// gives the command that runs it where that directory stands at seen.
func (s *step) script(seen string) (dir string, argv []string, err error) {
	argv, ok := runbook.Languages()[s.as.Step.Language]
	if !ok {
		return "", nil, fmt.Errorf("no step is written in %q", s.as.Step.Language)
	}
	if dir, err = s.n.MkdirAll(0o755, "script"); err != nil {
		return "", nil, err
	}
	if seen == "" {
		seen = dir
	}
	if !isName(s.as.Step.Name) {
		return "", nil, fmt.Errorf("%q is no name of a step", s.as.Step.Name)
	}
	name := filepath.Join(dir, s.as.Step.Name)
	err = os.WriteFile(name, []byte(s.as.Step.Script), 0o644)
	if err == nil {
		var info *tree.Info
		if info, err = tree.Stat(name); err == nil {
			s.begun = info.ModTime()
		}
	}
	if err == nil && seen == scriptDir { // this program is process 1 there: under another name it is the command line
		err = os.Symlink(machine.InitPath, filepath.Join(dir, "trysail"))
	}
	return dir, append(slices.Clone(argv), filepath.Join(seen, s.as.Step.Name)), err
}

// rebuilt runs the step in the rebuilt server.
func (s *step) rebuilt(ctx context.Context) (*machine.Exit, error) {
	a := s.a
	b, sum, err := a.blueprint(ctx, s.as.Machine)
	if err != nil {
		return nil, err
	}
	if err := a.o.Permits.Check(b.LiveDependencies); err != nil {
		return nil, err
	}
	if _, closed := a.o.Permits.Allow.Remote(b.LiveDependencies); !s.as.Step.Network {
		for _, l := range closed {
			fmt.Fprintln(s.log, "[trysail] this machine does not let steps through to live dependency "+l.Name+": trysail agent "+blueprint.Flags(l))
		}
	}
	server, err := rebuild.Root(ctx, rebuild.Options{
		State: a.o.State, Depot: a.o.Depot, Blueprint: b, Sum: sum, Log: a.o.Log, Now: time.Now,
		Step:     func(t string) { fmt.Fprintln(s.log, "[trysail] "+t) },
		Progress: func(string) {},
	})
	if err != nil {
		return nil, fmt.Errorf("rebuild %s: %w", b.Name, err)
	}
	defer server.Close()
	s.root = server.Digest
	a.mu.Lock()
	a.warm[s.as.Machine.Blueprint] = true
	a.mu.Unlock()
	a.hasten() // whoever waits for this machine to be a build server hears of it at once
	root, err := server.Mount(s.n, "root")
	if err != nil {
		return nil, err
	}
	x := b.Builds[0]
	user, groups, err := build.Identity(b, &x)
	if err != nil {
		return nil, err
	}
	if err := s.workspace(ctx, user); err != nil {
		return nil, err
	}
	dir, argv, err := s.script(scriptDir)
	if err != nil {
		return nil, err
	}
	x.Command, x.Outputs = argv, nil
	x.Environment = maps.Clone(x.Environment)
	if x.Environment == nil {
		x.Environment = map[string]string{}
	}
	for name, value := range s.environment() {
		x.Environment[name] = value
	}
	net, stop, err := s.network(ctx, b, &x)
	if err != nil {
		return nil, err
	}
	defer stop()
	watch := 0
	o := build.Options{
		Session: s.n, Name: "step", Root: root, Hostname: b.Machine.Hostname, Build: x, User: user, Groups: groups,
		Checkout: s.checkout, Live: b.LiveDependencies, Permits: a.o.Permits, Output: s.log, Network: net, HostNetwork: s.as.Step.HostNetwork,
		Mounts: []machine.Mount{{Source: dir, Target: scriptDir, ReadOnly: true}},
		Ready: func(pid int) error {
			watch, err = a.guard.Watch(pid, "")
			return err
		},
	}
	exit, err := s.limited(ctx, func(ctx context.Context) (*machine.Exit, error) {
		res, err := build.Run(ctx, o)
		if err != nil {
			return nil, err
		}
		for _, what := range res.Lowered {
			fmt.Fprintln(s.log, "trysail:", what)
		}
		return res.Exit, nil
	})
	if watch > 0 {
		err = errors.Join(err, a.guard.Forget(watch))
	}
	return exit, err
}

// environment is what a step is told, beside what its server's build was: which
// release it is of, of which revision of the source, and its own name; and its
// secrets.
func (s *step) environment() map[string]string {
	env := map[string]string{"TRYSAIL_RELEASE": s.as.Release, "TRYSAIL_REVISION": s.as.Source.Revision, "TRYSAIL_STEP": s.as.Item}
	if s.as.Machine.Blueprint != "" {
		env["TRYSAIL"] = scriptDir + "/trysail"
	} else if self, err := os.Executable(); err == nil {
		env["TRYSAIL"] = self
	}
	if s.a.o.Drill {
		env["TRYSAIL_DRILL"] = "true"
	}
	maps.Copy(env, s.secrets)
	return env
}

// scriptDir is where a step's script stands inside its server.
const scriptDir = "/.trysail-step"

// blueprint reads a role's blueprint, and fetches what a rebuild needs.
func (a *Agent) blueprint(ctx context.Context, m release.Machine) (*blueprint.Blueprint, blueprint.Sum, error) {
	if err := a.fetch(ctx, m.Blueprint, m.Sum); err != nil {
		return nil, nil, err
	}
	data, err := a.o.Depot.ReadAll(ctx, m.Blueprint, 4<<20)
	if err != nil {
		return nil, nil, err
	}
	b, err := blueprint.Parse("blueprint.yaml", data)
	if err != nil {
		return nil, nil, err
	}
	if data, err = a.o.Depot.ReadAll(ctx, m.Sum, 4<<20); err != nil {
		return nil, nil, err
	}
	sum, err := blueprint.ParseSum("blueprint.sum", data)
	if err != nil {
		return nil, nil, err
	}
	if len(b.Builds) == 0 {
		return nil, nil, fmt.Errorf("blueprint %s holds no build: capture one", b.Name)
	}
	var need []string
	for name, dg := range sum {
		if release.NeedsOriginal(name) {
			need = append(need, dg)
		}
	}
	return b, sum, a.fetch(ctx, need...)
}

// workspace lays out the release's source and the artifacts that the step takes in.
func (s *step) workspace(ctx context.Context, user blueprint.User) error {
	inputs, err := s.inputs(ctx)
	if err != nil {
		return err
	}
	if err := s.a.fetch(ctx, s.as.Keep...); err != nil {
		s.a.o.Log.Warn("keep what the release is made of", "release", s.as.Release, "err", err) // the step needs none of it
	}
	dir, err := build.Source(ctx, s.n, s.a.o.Depot, s.as.Source.Original, user)
	if err != nil {
		return err
	}
	s.checkout = dir
	root, err := tree.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	l := s.artifactWriter(ctx, root, user)
	for _, in := range inputs {
		err := s.a.undamaged(ctx, in.Digest, func() error { return l.Write(in) })
		if err != nil {
			return fmt.Errorf("write %s into the workspace: %w", in.Path, err)
		}
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("write directories into the workspace: %w", err)
	}
	s.user = user
	s.before, err = seen(root, dir, s.as.Step.Results)
	return err
}

// undamaged reads a blob of this machine's depot. One that this disk changed is
// fetched anew: control's is as good.
func (a *Agent) undamaged(ctx context.Context, dg string, read func() error) error {
	err := read()
	var damaged *depot.DigestError
	if !errors.As(err, &damaged) {
		return err
	}
	a.o.Log.Error("a blob is damaged, and fetched anew", "digest", dg)
	if err := a.o.Depot.SetAside(ctx, dg); err != nil {
		return err
	}
	if err := a.fetch(ctx, dg); err != nil {
		return err
	}
	return read()
}

// artifactWriter writes artifacts of earlier steps into the workspace, in place of what the source has
// there. A link of the source on the way is refused. They belong to the step's user; what
// belonged to another user of the step that made it still does where the step's user is root.
func (s *step) artifactWriter(ctx context.Context, root *tree.Dir, user blueprint.User) *build.ArtifactWriter {
	l := build.NewArtifactWriter(root, func(dg string) (io.ReadCloser, error) { return s.a.o.Depot.Get(ctx, dg) })
	l.Replace = true
	l.Owner = func(a release.Artifact) (uid, gid int) {
		uid, gid, other := a.Belongs()
		if !other || s.isPlain() || user.UID != 0 {
			return user.UID, user.GID
		}
		return uid, gid
	}
	// A plain step runs on the machine itself, where a capability is one of the machine.
	l.Keep = func(attribute string) bool { return !s.isPlain() || attribute != "security.capability" }
	return l
}

// isPlain tells whether the step runs on the machine itself.
func (s *step) isPlain() bool { return s.as.Machine.Blueprint == "" }
