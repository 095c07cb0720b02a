package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"

	"trysail/evidence"
	"trysail/internal/api"
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
	outputs, err := madeBy(l.State, step)
	if err != nil {
		return err
	}
	a.ui.Step("fetching what " + step + " made")
	if err := fetchArtifacts(ctx, c, outputs, into); err != nil {
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
		a.printf("%s  %s\n", x.Digest, filepath.Join(into, x.Path))
	}
	return nil
}

// madeBy is what a step of a release made.
func madeBy(s *release.State, step string) ([]release.Artifact, error) {
	x := s.Item(step)
	switch {
	case x == nil || x.Kind == runbook.SignOff || x.Kind == runbook.Wait:
		return nil, usage("release %s has no step %s: trysail release status %s", s.Started.Version, step, s.Started.Version)
	case x.Gold && s.Gold != nil:
		return s.Gold.Outputs, nil
	case x.Gold || s.Status(x) != release.Complete:
		return nil, usage("%s is not done", step)
	}
	if r := s.Progress[step].Result; r != nil && len(r.Outputs) > 0 {
		return r.Outputs, nil
	}
	return nil, usage("%s makes no files (its log: trysail release log %s %s)", step, s.Started.Version, step)
}

// fetchArtifacts lays files below a directory, each as its digest says.
func fetchArtifacts(ctx context.Context, c *api.Client, list []release.Artifact, dir string) error {
	for _, x := range list {
		if x.Digest == "" {
			continue
		}
		if err := fetchArtifact(ctx, c, x, dir); err != nil {
			return fmt.Errorf("%s: %w", x.Path, err)
		}
	}
	return nil
}

func fetchArtifact(ctx context.Context, c *api.Client, x release.Artifact, dir string) error {
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
	return writeBelow(dir, x.Path, mode, io.TeeReader(r, v), func() error {
		if !v.Verified() {
			return fmt.Errorf("control gave other bytes than those of %s", x.Digest)
		}
		return nil
	})
}

// writeBelow writes a new file below a directory, which its name cannot leave. What is
// not whole, or not what it should be, is not left there.
func writeBelow(dir, name string, mode fs.FileMode, from io.Reader, whole func() error) error {
	if !evidence.FileName(name) {
		return fmt.Errorf("%q is no name of a file in a bundle", name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Close()); err == nil {
		err = whole()
	}
	if err != nil {
		return errors.Join(err, root.Remove(name))
	}
	return nil
}
