package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"trysail/internal/api"
	"trysail/internal/tree"
	"trysail/release"
	"trysail/runbook"
)

// releaseFetch gives a person what a step made, to be looked at before it is signed for.
func (a *app) releaseFetch(ctx context.Context, version, step, into string) error {
	if into == "" {
		return usage("say where it goes: --into DIR")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	a.ui.Step("reading the ledger")
	l, err := a.readLedger(ctx, c, version)
	if err != nil {
		return err
	}
	made, err := madeBy(l.State, step)
	if err != nil {
		return err
	}
	outputs, err := c.Files(ctx, made)
	if err != nil {
		return err
	}
	a.ui.Step("fetching what " + step + " made")
	dir, err := tree.MkdirAll(into, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := fetchArtifacts(ctx, c, outputs, dir, ""); err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		return a.printJSON(struct {
			Into    string             `json:"into"`
			Outputs []release.Artifact `json:"outputs"`
		}{into, outputs})
	}
	for _, x := range outputs {
		if x.Link != "" {
			a.printf("%s is a link to %s, and was not made\n", x.Path, release.Plainly(x.Link))
			continue
		}
		if x.Dir {
			a.printf("%s is a directory with nothing in it, and was not made\n", release.Plainly(x.Path))
			continue
		}
		a.printf("%s  %s\n", x.Digest, release.Plainly(filepath.Join(into, x.Path)))
	}
	return nil
}

// madeBy is what a step of a release made.
func madeBy(s *release.State, step string) (release.Made, error) {
	x := s.Item(step)
	switch {
	case x == nil || x.Kind == runbook.SignOff || x.Kind == runbook.Wait:
		return release.Made{}, usage("release %s has no step %s: trysail release status %s", s.Started.Version, step, s.Started.Version)
	case x.Gold && s.Gold != nil:
		return s.Gold.Made(), nil
	case x.Gold || s.Status(x) != release.Complete:
		return release.Made{}, usage("%s is not done", step)
	}
	if m := s.Made(step); m.Files > 0 {
		return m, nil
	}
	return release.Made{}, usage("%s makes no files (its log: trysail release log %s %s)", step, s.Started.Version, step)
}

// fetchArtifacts lays files below a name in a directory, each as its digest says.
func fetchArtifacts(ctx context.Context, c *api.Client, list []release.Artifact, dir *tree.Dir, below string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, x := range list {
		if x.Digest == "" {
			continue
		}
		g.Go(func() error {
			if err := fetchArtifact(ctx, c, x, dir, below); err != nil {
				return fmt.Errorf("%s: %w", x.Path, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func fetchArtifact(ctx context.Context, c *api.Client, x release.Artifact, dir *tree.Dir, below string) error {
	r, err := c.GetBlob(ctx, x.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	mode := fs.FileMode(0o644)
	if m, err := strconv.ParseUint(x.Mode, 8, 32); err == nil && m&0o111 != 0 {
		mode = 0o755
	}
	v := digest.Digest(x.Digest).Verifier()
	if err := release.CheckPath(x.Path); err != nil {
		return err
	}
	// A control that sends without end is not to fill the disk.
	return writeBelow(dir, path.Join(below, x.Path), mode, io.TeeReader(io.LimitReader(r, x.Size+1), v), func() error {
		if !v.Verified() {
			return fmt.Errorf("control gave other bytes than those of %s", x.Digest)
		}
		return nil
	})
}

// writeBelow writes a new file below a directory, which its name cannot leave. What is
// not whole, or not what it should be, is not left there.
func writeBelow(dir *tree.Dir, name string, mode fs.FileMode, from io.Reader, whole func() error) error {
	if !fs.ValidPath(name) {
		return fmt.Errorf("%q leaves its directory", name)
	}
	if err := dir.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := dir.Create(name, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Close()); err == nil {
		err = whole()
	}
	if err != nil {
		return errors.Join(err, dir.Remove(name))
	}
	return nil
}
