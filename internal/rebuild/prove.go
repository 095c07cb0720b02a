package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"trysail/blueprint"
	"trysail/internal/build"
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
	Path        string                 `json:"path"`
	Captured    string                 `json:"sha256_captured"`
	Rebuilt     string                 `json:"sha256_rebuilt"`
	Identical   bool                   `json:"identical"`
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
	Unanswered []string
	Deviations []Deviation
	Failure    string // why the build failed, if it did
	Leftover   []string
	// Dir holds what the rebuilt machine made, until the session ends.
	dir string
}

// ProveOptions say what to prove.
type ProveOptions struct {
	State     *machine.State
	Depot     *depot.Depot
	Blueprint *blueprint.Blueprint
	Build     *blueprint.Build
	Server    *Server
	Output    io.Writer // of the build
	Log       *slog.Logger
	Step      func(string)
	Progress  func(string)
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
	checkout, err := Source(ctx, n, o.Depot, o.Build, user)
	if err != nil {
		return nil, err
	}
	net, err := o.network(ctx)
	if err != nil {
		return nil, err
	}
	stop := sync.OnceValues(net.Stop)
	defer stop() //nolint:errcheck // an error of the build is more to the point
	o.Step("building again: " + o.Build.Name)
	r, err := build.Run(ctx, build.Options{
		Session: n, Name: "prove", Root: root, Hostname: o.Blueprint.Machine.Hostname, Build: *o.Build, User: user, Groups: groups,
		Checkout: checkout, Live: o.Blueprint.LiveDependencies, Output: o.Output, Network: net,
	})
	if err != nil {
		var ce *machine.CommandError
		if errors.As(err, &ce) {
			p.Verdict, p.Failure = Failed, err.Error()
			return p, nil
		}
		return nil, err
	}
	if _, err := stop(); err != nil {
		return nil, err
	}
	p.Blocked, p.Unanswered = net.Stats().Blocked, net.Unanswered()
	p.Seconds, p.Leftover = r.Exit.Duration.Seconds(), r.Exit.Leftover
	if r.Exit.Code != 0 {
		p.Verdict = Failed
		p.Failure = (&build.FailedError{Command: o.Build.Command, Exit: *r.Exit, Where: "on the rebuilt machine"}).Error()
		return p, nil
	}
	p.Outputs = Compare(o.Build.Made, r.Outputs)
	p.Verdict = Identical
	for _, out := range p.Outputs {
		if !out.Identical {
			p.Verdict = Different
		}
	}
	return p, nil
}

// network replays what was recorded, and nothing else.
func (o *ProveOptions) network(ctx context.Context) (*recorder.Recorder, error) {
	r := &recorder.Recording{Version: 1}
	if o.Build.Downloads != "" {
		data, err := o.Depot.ReadAll(ctx, o.Build.Downloads, 1<<30)
		if err != nil {
			return nil, fmt.Errorf("recorded downloads of build %s: %w", o.Build.Name, err)
		}
		if r, err = recorder.ParseRecording(data); err != nil {
			return nil, err
		}
	}
	return recorder.Start(ctx, recorder.Options{Replay: r, Store: o.Depot, Live: o.Blueprint.LiveDependencies, Log: o.Log})
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

// Source lays out the recorded source in a scratch directory that belongs to
// the build's user.
func Source(ctx context.Context, n *machine.Session, d *depot.Depot, x *blueprint.Build, user blueprint.User) (string, error) {
	dir, err := n.MkdirAll(0o755, "checkout")
	if err != nil {
		return "", err
	}
	if err := os.Chown(dir, user.UID, user.GID); err != nil {
		return "", err
	}
	r, err := d.Get(ctx, x.Source.Original)
	if err != nil {
		return "", fmt.Errorf("source of build %s: %w", x.Name, err)
	}
	defer r.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := Extract(ctx, root, r, nil); err != nil {
		return "", fmt.Errorf("source of build %s: %w", x.Name, err)
	}
	return dir, nil
}

// Compare pairs captured and rebuilt outputs by path.
func Compare(captured, rebuilt []blueprint.Output) []OutputProof {
	again := map[string]blueprint.Output{}
	for _, o := range rebuilt {
		again[o.Path] = o
	}
	var list []OutputProof
	for _, c := range captured {
		r, ok := again[c.Path]
		delete(again, c.Path)
		p := OutputProof{Path: c.Path, Captured: content(c), Rebuilt: content(r), Differences: []blueprint.Difference{}}
		switch {
		case !ok:
			p.Differences = append(p.Differences, blueprint.Difference{Path: c.Path, What: "the rebuilt machine did not make it"})
		case p.Captured != p.Rebuilt:
		case c.Mode != r.Mode:
			p.Differences = append(p.Differences, blueprint.Difference{Path: c.Path, What: "mode " + r.Mode + ", captured " + c.Mode, Cause: "mode"})
		default:
			p.Identical = true
		}
		list = append(list, p)
	}
	for _, o := range rebuilt {
		if r, ok := again[o.Path]; ok {
			list = append(list, OutputProof{Path: r.Path, Rebuilt: content(r), Differences: []blueprint.Difference{{Path: r.Path, What: "only the rebuilt machine made it"}}})
		}
	}
	return list
}

func content(o blueprint.Output) string {
	if o.Link != "" {
		return "-> " + o.Link
	}
	return o.SHA256
}
