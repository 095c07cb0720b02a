package cli

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"trysail/drill"
	"trysail/internal/exercise"
	"trysail/internal/lab"
	"trysail/internal/machine"
	"trysail/internal/site"
	"trysail/internal/tree"
)

// readHosts reads the hosts of a drill. The file says where root logs in, and its
// ssh_config which programs run here on the way.
func readHosts(file string) (*site.Hosts, error) {
	name, err := callers().ownFile(file)
	if err != nil {
		return nil, err
	}
	data, err := tree.ReadFile(name, maxDocument)
	if err != nil {
		return nil, err
	}
	h, err := site.ParseHosts(file, data)
	if err != nil || h.Config == "" {
		return h, err
	}
	h.Config, err = callers().ownFile(h.Config)
	return h, err
}

// drillHosts looks at real hosts, and says whether a drill may break them.
func (a *app) drillHosts(ctx context.Context, file string) error {
	h, err := readHosts(file)
	if err != nil {
		return err
	}
	found, err := h.Look(ctx, a.ui.Step)
	if err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		return a.printJSON(h.Names())
	}
	a.printf("%d host(s) carry the marker of this drill, and nothing was changed on them.\n", len(found))
	return nil
}

// onSite is real hosts as the place of a drill.
func (a *app) onSite(ctx context.Context, file string, p *drill.Plan, st *machine.State) (func() (lab.Stage, error), error) {
	h, err := readHosts(file)
	if err != nil {
		return nil, err
	}
	if err := h.Covers(slices.Concat(p.Machines(), p.Services())); err != nil {
		return nil, err
	}
	// Whoever is refused leaves nothing behind, not even a run that was not begun.
	found, err := h.Look(ctx, a.ui.Step)
	if err != nil {
		return nil, err
	}
	return func() (lab.Stage, error) {
		// A host takes everything away by itself a little after the drill's own guard.
		s, err := site.Open(h, found, st, p.Within+2*time.Minute, exercise.Port, a.log)
		if err != nil {
			return nil, err
		}
		return s, nil
	}, nil
}

// standard is this process's standard input and output.
type standard struct {
	io.Reader
	io.Writer
}

func (standard) Close() error { return nil }

// drillWorker is the worker of a drill on a real host. Its reaper is there before anything
// that he would have to take away.
func (a *app) drillWorker(ctx context.Context, within, word, boot string) error {
	d, err := time.ParseDuration(within)
	if err != nil {
		return err
	}
	if filepath.Dir(a.state) != site.Dir {
		return usage("a worker keeps its files in %s, and nowhere else", site.Dir)
	}
	if err := site.Same(word, boot); err != nil {
		return err
	}
	if err := site.Guarded(site.Dir, d, []string{"--state", a.state, "drill", "reaper"}); err != nil {
		return err
	}
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	return site.Serve(ctx, st, a.log, standard{a.stdin, a.stdout})
}

// drillReaper takes away what a worker leaves. It is the worker's child, or the worker has ended.
func (a *app) drillReaper(ctx context.Context, worker, within string) error {
	pid, err := strconv.Atoi(worker)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(within)
	if err != nil {
		return err
	}
	if filepath.Dir(a.state) != site.Dir {
		return usage("a reaper removes %s, and nothing else", site.Dir)
	}
	return site.Reap(pid, d, site.Dir, a.log, func() (*machine.State, error) { return a.openState(context.WithoutCancel(ctx)) })
}
