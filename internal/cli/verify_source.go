package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"trysail/evidence"
	"trysail/internal/build"
	"trysail/internal/capture"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/vcs"
	"trysail/release"
)

// compareSource holds the runbook, the signers and the blueprints of a release against the
// revisions that they are of, in a working copy of the person who verifies.
func (a *app) compareSource(ctx context.Context, dir string, r *evidence.Report) error {
	if dir == "" {
		for _, o := range r.Origins {
			r.Attention = append(r.Attention, "runbook, signers and blueprints were not compared with revision "+o.Revision+": --source DIR, a working copy that has it")
		}
		return nil
	}
	for _, what := range r.Unnamed { // the person who starts a release could leave them out
		r.Refuse("", what+", so it cannot be compared with "+dir)
	}
	if len(r.Origins) == 0 {
		r.Attention = append(r.Attention, "the ledger does not say of which revision the runbook is: it was not compared with "+dir)
		return nil
	}
	ms, err := a.openScratch(ctx)
	if err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	w, err := vcs.Find(ctx, dir)
	if err != nil {
		return err
	}
	for _, o := range r.Origins {
		at, err := w.At(o.Revision)
		if err != nil {
			return err
		}
		files, err := filesAt(ctx, ms, d, at)
		if err != nil {
			return err
		}
		wrong, err := compareFiles(ctx, files, o)
		if err != nil {
			return err
		}
		for _, what := range wrong {
			r.Refuse("", what)
		}
	}
	return nil
}

// filesAt opens the files of a revision.
func filesAt(ctx context.Context, ms *machine.State, d *depot.Depot, at *vcs.Copy) (f *build.Files, err error) {
	n, err := ms.Begin()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	original, err := capture.PutTree(ctx, d, func(out io.Writer) error { return at.Archive(ctx, n.Dir, 0, 0, out) })
	if err != nil {
		return nil, err
	}
	return build.OpenFiles(ctx, func() (io.ReadCloser, error) { return d.Get(ctx, original) })
}

// compareFiles says which files of a revision are not those that a release took from it.
func compareFiles(ctx context.Context, files *build.Files, o release.Origin) (wrong []string, err error) {
	for _, f := range o.Files {
		found, err := files.Read(ctx, f.Path)
		if err != nil {
			return nil, err
		}
		switch data, ok := found[f.Path]; {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%s is not in revision %s, of which the release says that it took it", f.Path, o.Revision))
		case digest.FromBytes(data).String() != f.Digest:
			wrong = append(wrong, fmt.Sprintf("%s of revision %s is not the file that the release took: it was changed before it was committed, or after", f.Path, o.Revision))
		}
	}
	return wrong, nil
}
