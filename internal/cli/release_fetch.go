package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"trysail/internal/api"
	"trysail/internal/build"
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
	if err := fetchArtifacts(ctx, c, outputs, dir); err != nil {
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
		name := release.StripControl(filepath.Join(into, x.Path))
		switch {
		case x.Link != "" && !inside(x):
			a.printf("%s is a link to %s, which is not in what the step made: it was not laid\n", name, release.StripControl(x.Link))
		case x.Link != "":
			a.printf("%s -> %s\n", name, release.StripControl(x.Link))
		case x.Dir:
			a.printf("%s/\n", name)
		default:
			a.printf("%s  %s%s\n", x.Digest, name, notLaid(x))
		}
	}
	return nil
}

// inside tells whether a link leads to what is below the directory that it is laid into.
func inside(x release.Artifact) bool {
	down := false
	for part := range strings.SplitSeq(x.Link, "/") {
		if part == ".." && down {
			return false // through another link, perhaps
		}
		down = down || part != ".."
	}
	return fs.ValidPath(path.Join(path.Dir(x.Path), x.Link)) && !path.IsAbs(x.Link)
}

// notLaid says what a person's copy of a file does not have.
func notLaid(x release.Artifact) string {
	var list []string
	if x.Mode != "" && x.Mode[0] != '0' {
		list = append(list, "mode "+x.Mode)
	}
	if x.Owner != "" {
		list = append(list, "owner "+x.Owner)
	}
	for _, name := range slices.Sorted(maps.Keys(x.Attributes)) {
		if !strings.HasPrefix(name, "user.") {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return " (without " + release.StripControl(strings.Join(list, ", ")) + ")"
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

// fetchArtifacts lays what a step made into a directory, each file as its digest says. Links
// that lead out of the directory are left out.
func fetchArtifacts(ctx context.Context, c *api.Client, list []release.Artifact, dir *tree.Dir) error {
	size := map[string]int64{}
	for _, x := range list {
		size[x.Digest] = x.Size
	}
	l := build.NewArtifactWriter(dir, func(dg string) (io.ReadCloser, error) {
		r, err := c.GetBlob(ctx, dg)
		if err != nil {
			return nil, err
		}
		return &verified{r, io.LimitReader(r, size[dg]+1), digest.Digest(dg).Verifier(), dg}, nil // control may send without end
	})
	lay := func(x release.Artifact) error {
		if x.Link != "" && !inside(x) {
			return nil
		}
		if err := l.Write(x); err != nil {
			return fmt.Errorf("%s: %w", x.Path, err)
		}
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, x := range list {
		if x.HardLink == "" {
			g.Go(func() error { return lay(x) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, x := range list {
		if x.HardLink != "" {
			if err := lay(x); err != nil {
				return err
			}
		}
	}
	return l.Close()
}

// verified reads a blob, and fails at the end of other bytes than the digest's.
type verified struct {
	io.Closer
	from   io.Reader
	sum    digest.Verifier
	digest string
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.from.Read(p)
	if _, werr := v.sum.Write(p[:n]); werr != nil {
		return n, werr
	}
	if errors.Is(err, io.EOF) && !v.sum.Verified() {
		return n, fmt.Errorf("control gave other bytes than those of %s", v.digest)
	}
	return n, err
}
