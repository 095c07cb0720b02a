package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/compare"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/recorder"
)

// Verdict is the answer of a proof.
type Verdict string

// The verdicts.
const (
	Identical  Verdict = "identical"
	Equivalent Verdict = "equivalent"
	Different  Verdict = "different"
	Failed     Verdict = "failed"
)

// OutputProof compares one output of the captured and of the rebuilt machine.
type OutputProof struct {
	Path      string `json:"path"`
	Captured  string `json:"sha256_captured"`
	Rebuilt   string `json:"sha256_rebuilt"`
	Identical bool   `json:"identical"`
	// Equivalent: it differs only where the captured machine differs from itself.
	Equivalent  bool                   `json:"equivalent"`
	Differences []blueprint.Difference `json:"differences"`
}

// Proof is the report of a build in a rebuilt root. A proof is a report, never
// a boolean: it says what was compared and what was found.
type Proof struct {
	Build      string
	Verdict    Verdict
	Outputs    []OutputProof
	Seconds    float64 // of the build
	Blocked    int     // network attempts that no recording answers
	Unanswered []recorder.Unanswered
	Deviations []Deviation
	Failure    string // why the build failed, if it did
	Leftover   []string
	Lowered    []string // resource limits: see [build.Result]
}

// ProveOptions say what to prove.
type ProveOptions struct {
	State     *machine.State
	Depot     *depot.Depot
	Blueprint *blueprint.Blueprint
	Build     *blueprint.Build
	Server    *Server
	Permits   build.Permits // of this machine, for live dependencies
	Output    io.Writer     // of the build
	Log       *slog.Logger
	Step      func(string)
	Progress  func(string)
	// Repeat builds again on the captured machine and records in Build where it
	// differs from itself; nil where this is another machine. It is called only
	// if the rebuilt machine made other bytes and nobody has repeated the build.
	Repeat func(ctx context.Context) error
}

// Prove runs a recorded build in a rebuilt root, with the network replaced by
// the recording, and compares what it makes with what was captured.
func Prove(ctx context.Context, o ProveOptions) (p *Proof, err error) {
	p = &Proof{Build: o.Build.Name}
	observation, err := Observation(ctx, o.Depot, o.Build)
	if err != nil {
		return nil, err
	}
	skip := map[string]bool{}
	for _, path := range o.Server.Skipped {
		skip[path] = true
	}
	n, err := o.State.Begin()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	root, err := o.Server.Mount(n, "root")
	if err != nil {
		return nil, err
	}
	o.Step("comparing the rebuilt machine with what the build saw")
	if p.Deviations, err = Verify(root, observation, skip); err != nil {
		return nil, err
	}
	user, groups, err := build.Identity(o.Blueprint, o.Build)
	var unknown *build.NoUserError
	if errors.As(err, &unknown) {
		p.Verdict, p.Failure = Failed, err.Error()
		p.Deviations = append(p.Deviations, Deviation{Path: o.Build.Home, Item: "user " + unknown.User, What: "has no owner"})
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	checkout, err := build.Source(ctx, n, o.Depot, o.Build.Source.Original, user)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", o.Build.Name, err)
	}
	net, err := Network(ctx, o.Depot, o.Blueprint, o.Build, o.Permits.Allow, o.Log)
	if err != nil {
		return nil, err
	}
	stop := sync.OnceValues(net.Stop)
	defer stop() //nolint:errcheck // an error of the build is more to the point
	o.Step("building again: " + o.Build.Name)
	r, err := build.Run(ctx, build.Options{
		Session: n, Name: "prove", Root: root, Hostname: o.Blueprint.Machine.Hostname, Build: *o.Build, User: user, Groups: groups,
		Checkout: checkout, Live: o.Blueprint.LiveDependencies, Permits: o.Permits, Output: o.Output, Network: net,
	})
	if err != nil {
		var ce *machine.CommandError
		var live *build.LiveError
		if errors.As(err, &ce) || errors.As(err, &live) {
			p.Verdict, p.Failure = Failed, err.Error()
			return p, nil
		}
		return nil, err
	}
	if _, err := stop(); err != nil {
		return nil, err
	}
	p.Blocked, p.Unanswered = net.Stats().Blocked, net.Unanswered()
	p.Seconds, p.Leftover, p.Lowered = r.Exit.Duration.Seconds(), r.Exit.Leftover, r.Lowered
	if r.Exit.Code != 0 {
		p.Verdict = Failed
		p.Failure = (&build.FailedError{Command: o.Build.Command, Exit: *r.Exit, Where: "on the rebuilt machine"}).Error()
		return p, nil
	}
	if err := o.repeat(ctx, r.Outputs); err != nil {
		return nil, err
	}
	if p.Outputs, err = o.compare(ctx, n.Dir, checkout, r.Outputs); err != nil {
		return nil, err
	}
	p.Verdict = judge(p.Outputs)
	return p, nil
}

// judge gives the verdict on a build from its outputs.
func judge(list []OutputProof) Verdict {
	v := Identical
	for _, out := range list {
		switch {
		case out.Identical:
		case out.Equivalent && v == Identical:
			v = Equivalent
		case !out.Equivalent:
			v = Different
		}
	}
	return v
}

// Network replays what a build recorded, and lets through the live dependencies of the
// blueprint that this machine permits. They are connected as nobody: the build's user is
// another's on this machine.
func Network(ctx context.Context, d *depot.Depot, b *blueprint.Blueprint, x *blueprint.Build, allow blueprint.Permissions, log *slog.Logger) (*recorder.Recorder, error) {
	r := &recorder.Recording{Version: 1}
	if x.Downloads != "" {
		data, err := d.ReadAll(ctx, x.Downloads, 1<<30)
		if err != nil {
			return nil, fmt.Errorf("recorded downloads of build %s: %w", x.Name, err)
		}
		if r, err = recorder.ParseRecording(data); err != nil {
			return nil, err
		}
	}
	open, _ := allow.Remote(b.LiveDependencies)
	return recorder.Start(ctx, recorder.Options{Replay: r, IgnoreQuery: x.IgnoreQuery, Store: d, Live: open, UID: recorder.Nobody, Log: log})
}

// Observation reads what a captured build used.
func Observation(ctx context.Context, d *depot.Depot, x *blueprint.Build) ([]blueprint.Observed, error) {
	if x.Observation == "" {
		return nil, nil
	}
	data, err := d.ReadAll(ctx, x.Observation, 1<<30)
	if err != nil {
		return nil, fmt.Errorf("observation of build %s: %w", x.Name, err)
	}
	return blueprint.ParseObservation(data)
}

// repeat has the build repeated on the captured machine, if that can tell
// anything: the reproducible case costs nothing more.
func (o *ProveOptions) repeat(ctx context.Context, rebuilt []blueprint.Output) error {
	if o.Repeat == nil || o.Build.Repeated {
		return nil
	}
	same := slices.EqualFunc(o.Build.Made, rebuilt, func(c, r blueprint.Output) bool {
		return c.Path == r.Path && c.SHA256 == r.SHA256 && c.Mode == r.Mode && c.Link == r.Link
	})
	if same {
		return nil
	}
	return o.Repeat(ctx)
}

// compare says of each output whether the rebuilt machine made the same, and
// where and why not.
func (o *ProveOptions) compare(ctx context.Context, scratch, checkout string, rebuilt []blueprint.Output) ([]OutputProof, error) {
	pairs, err := compare.Outputs(ctx, compare.Builds{
		Made: o.Build.Made, Other: rebuilt, Scratch: scratch, Repeated: o.Build.Repeated, Differs: o.Build.Differs,
		OpenMade:  compare.From(o.Depot, scratch, func(x blueprint.Output) string { return x.SHA256 }),
		OpenAgain: compare.From(o.Depot, scratch, func(x blueprint.Output) string { return x.Again }),
		OpenOther: compare.In(checkout),
	})
	if err != nil {
		return nil, err
	}
	var list []OutputProof
	for _, p := range pairs {
		out := OutputProof{Identical: p.Identical, Equivalent: !p.Identical && len(p.Beyond) == 0, Differences: []blueprint.Difference{}}
		if p.Made != nil {
			out.Path, out.Captured = p.Made.Path, content(*p.Made)
		}
		if p.Other != nil {
			out.Rebuilt = content(*p.Other)
			if p.Made == nil {
				out.Path = p.Other.Path
			}
		}
		out.Differences = append(out.Differences, p.Differences()...)
		list = append(list, out)
	}
	return list, nil
}

func content(o blueprint.Output) string {
	if o.Link != "" {
		return "-> " + o.Link
	}
	return o.SHA256
}
