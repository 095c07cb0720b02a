package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/compare"
	"trysail/internal/machine"
	"trysail/internal/recorder"
)

// RepeatOptions say how to build again on the captured machine.
type RepeatOptions struct {
	Output io.Writer // of the build
	Step   func(text string)
}

// Repeat builds again on the captured machine, in the way of a proof: a fresh
// checkout, empty caches, and the recorded downloads for a network. It writes
// into the draft's blueprint where the build differs from itself, which tells a
// build that is never the same twice from a machine that is not rebuilt right.
//
// The second build does not read what the first one wrote, is not traced, and
// leaves nothing behind but what it made, in the depot, where that differs. If
// it fails, that is one more thing to look at: the capture is still good.
func (d *Draft) Repeat(ctx context.Context, o RepeatOptions) (err error) {
	x := d.Blueprint.Build(d.Build)
	if x == nil {
		return fmt.Errorf("the draft has no build %q", d.Build)
	}
	o.Step("building a second time on this machine: " + x.Name)
	n, err := d.state.Begin()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	u, _, err := build.Identity(d.Blueprint, x)
	if err != nil {
		return err
	}
	checkout, err := build.Source(ctx, n, d.depot, x.Source.Original, u)
	if err != nil {
		return err
	}
	host, err := mountHost(n, d.state, d.ws.Root, "root")
	if err != nil {
		return err
	}
	b, err := hostBuild(n, d.state, host, d.Blueprint, x, checkout)
	if err != nil {
		return err
	}
	net, err := recorder.Start(ctx, recorder.Options{Replay: d.recording, IgnoreQuery: x.IgnoreQuery, Store: d.depot, Live: d.Blueprint.LiveDependencies, UID: b.User.UID, Log: d.log})
	if err != nil {
		return err
	}
	stop := sync.OnceValues(net.Stop)
	defer stop() //nolint:errcheck // an error of the build is more to the point
	b.Network, b.Output = net, o.Output
	r, err := build.Run(ctx, b)
	var ce *machine.CommandError
	if errors.As(err, &ce) {
		d.failedAgain(x, err)
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := stop(); err != nil {
		return err
	}
	if r.Exit.Code != 0 {
		d.failedAgain(x, &build.FailedError{Command: x.Command, Exit: *r.Exit, Where: "the second time on the captured machine"})
		return nil
	}
	o.Step("comparing the two builds of this machine")
	pairs, err := compare.Outputs(ctx, compare.Builds{
		Made: x.Made, Other: r.Outputs, Scratch: n.Dir, OpenOther: compare.In(checkout),
		OpenMade: compare.From(d.depot, n.Dir, func(o blueprint.Output) string { return o.SHA256 }),
	})
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if p.Made == nil {
			continue
		}
		p.Made.Again = ""
		if p.Other == nil || p.Made.SHA256 == p.Other.SHA256 || p.Made.SHA256 == "" || p.Other.SHA256 == "" {
			continue
		}
		if p.Made.Again, err = d.keep(ctx, checkout, p.Other.Path); err != nil {
			return err
		}
	}
	x.Repeated, x.Differs = true, compare.Itself(pairs)
	return nil
}

func (d *Draft) failedAgain(x *blueprint.Build, err error) {
	d.Attention = append(d.Attention, Attention{
		Item: x.Name, Why: err.Error() + "; the first time it succeeded",
		Remedy: "see what it asks of the network that was not recorded (--verbose shows its output); until then nothing tells where this build differs from itself",
	})
}

// keep puts one output of the second build into the depot.
func (d *Draft) keep(ctx context.Context, dir, path string) (string, error) {
	f, done, err := compare.In(dir)(ctx, blueprint.Output{Path: path})
	if err != nil {
		return "", err
	}
	defer done()
	digest, _, err := d.depot.Put(ctx, io.NewSectionReader(f, 0, f.Size))
	return digest, err
}

// hostBuild says how a build runs on the captured machine.
func hostBuild(n *machine.Session, st *machine.State, h *hostRoot, b *blueprint.Blueprint, x *blueprint.Build, checkout string) (build.Options, error) {
	u, groups, err := build.Identity(b, x)
	return build.Options{
		Session: n, Name: "build", Root: h.dir, Hostname: b.Machine.Hostname, Build: *x, User: u, Groups: groups,
		Checkout: checkout, Host: true, Mask: []string{st.Dir}, Mounts: h.mounts, Live: b.LiveDependencies,
	}, err
}
