package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"trysail/blueprint"
	"trysail/evidence"
	"trysail/internal/build"
	"trysail/internal/capture"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/tree"
	"trysail/internal/vcs"
	"trysail/release"
	"trysail/runbook"
)

// maxUncommitted is how many files that differ are recorded by name.
const maxUncommitted = 100

// revision is the committed revision that a release, or a change of it, is made of. What it
// needs is read from there, and not from the working copy.
type revision struct {
	copy   *vcs.Copy
	source release.Source
	files  *build.Files
	depot  *depot.Depot
	origin release.Origin
	need   map[string]bool // digests that control must have
	apart  bool            // the copy is a clone, in which nobody works
}

// fixRevision keeps the committed revision, so that the version control may go away.
func fixRevision(ctx context.Context, ms *machine.State, d *depot.Depot, clone string) (v *revision, err error) {
	dir := clone
	if dir == "" {
		if dir, err = os.Getwd(); err != nil {
			return nil, err
		}
	}
	w, err := vcs.Find(ctx, dir)
	if err != nil {
		return nil, err
	}
	n, err := ms.Begin()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	original, err := capture.PutTree(ctx, d, func(out io.Writer) error { return w.Archive(ctx, n.Dir, 0, 0, out) })
	if err != nil {
		return nil, err
	}
	v = &revision{
		copy: w, depot: d, need: map[string]bool{}, apart: clone != "",
		source: release.Source{VCS: w.Source.VCS, URL: w.Source.URL, Revision: w.Source.Revision, Author: w.Author, Original: original},
		origin: release.Origin{Revision: w.Source.Revision, Uncommitted: slices.Clone(w.Changed)},
	}
	v.files, err = build.OpenFiles(ctx, func() (io.ReadCloser, error) { return d.Get(ctx, original) })
	return v, err
}

// path gives the path below the root of the working copy that a file has, as it was named in
// the working directory.
func (v *revision) path(file string) (string, error) {
	root := v.copy.Root
	if v.apart { // the file is named in the working copy that was cloned
		var err error
		if root, err = repository(); err != nil {
			return "", err
		}
	}
	rel, ok, err := below(root, file)
	if err == nil && !ok {
		err = usage("%s is not in the working copy %s: a release takes everything from the revision that it names", file, root)
	}
	return rel, err
}

// uncommittedError says that a revision does not hold a file.
type uncommittedError struct{ name, revision, system string }

func (e *uncommittedError) Error() string {
	return fmt.Sprintf("%s is not committed: revision %s does not hold it", e.name, e.revision)
}

// Hint says what to type.
func (e *uncommittedError) Hint() string {
	if e.system == "svn" {
		return "svn add " + shellWord(e.name) + " && svn commit; then start again"
	}
	return "git add " + shellWord(e.name) + " && git commit; then start again"
}

// read gives committed files, and all those below committed directories; each name must be
// there. It notes which of them differ in the working copy.
func (v *revision) read(ctx context.Context, names ...string) (map[string][]byte, error) {
	found, err := v.files.Read(ctx, names...)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		inside := func(f string) bool { return f == name || strings.HasPrefix(f, name+"/") }
		any := false
		for f := range found {
			any = any || inside(f)
		}
		if !any {
			return nil, &uncommittedError{name, v.source.Revision, v.source.VCS}
		}
	}
	if v.apart {
		return found, nil
	}
	here, err := tree.OpenRoot(v.copy.Root)
	if err != nil {
		return nil, err
	}
	defer here.Close()
	for f, committed := range found {
		data, err := here.ReadFile(f, maxDocument)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if (err != nil || !bytes.Equal(data, committed)) && !slices.Contains(v.origin.Uncommitted, f) {
			v.origin.Uncommitted = append(v.origin.Uncommitted, f)
		}
	}
	return found, nil
}

// put keeps a committed file, and notes where it is from.
func (v *revision) put(ctx context.Context, name string, data []byte) (string, error) {
	dg, err := v.depot.PutBytes(ctx, data)
	if err != nil {
		return "", err
	}
	v.need[dg] = true
	v.origin.Files = append(v.origin.Files, release.File{Path: name, Digest: dg})
	return dg, nil
}

// runbook reads the committed document. at is its path below the root.
func (v *revision) runbook(ctx context.Context, file string) (r *runbook.Runbook, at, dg string, err error) {
	if at, err = v.path(file); err != nil {
		return nil, "", "", err
	}
	found, err := v.read(ctx, at)
	if err != nil {
		var none *uncommittedError
		if _, missing := tree.Lstat(file); errors.As(err, &none) && errors.Is(missing, fs.ErrNotExist) {
			err = &noRunbookError{file}
		}
		return nil, "", "", err
	}
	if r, err = runbook.Parse(file, found[at], time.LoadLocation); err != nil {
		return nil, "", "", err
	}
	dg, err = v.put(ctx, at, found[at])
	return r, at, dg, err
}

// signers keeps who may sign, and whose keys are good no more. In a drill others sign, if
// anybody does: what the team has is looked at, and not used.
func (v *revision) signers(ctx context.Context, at string, r *runbook.Runbook, rehearsers []byte) (list evidence.Signers, gone []ssh.PublicKey, allowed, revoked string, err error) {
	keep := func(name string, parse func(string, []byte) error) (string, error) {
		if name == "" {
			return "", nil
		}
		name = path.Join(path.Dir(at), name)
		found, err := v.read(ctx, name)
		if err != nil {
			return "", err
		}
		if err := parse(name, found[name]); err != nil {
			return "", err
		}
		return v.put(ctx, name, found[name])
	}
	allowed, err = keep(r.Signers, func(name string, data []byte) (err error) {
		list, err = evidence.ParseSigners(name, data)
		return err
	})
	if err != nil {
		return nil, nil, "", "", err
	}
	if allowed != "" && rehearsers != nil {
		if allowed, err = v.depot.PutBytes(ctx, rehearsers); err != nil {
			return nil, nil, "", "", err
		}
		v.need[allowed] = true
		return list, nil, allowed, "", nil
	}
	revoked, err = keep(r.Revoked, func(name string, data []byte) (err error) {
		gone, err = evidence.ParseRevoked(name, data)
		return err
	})
	return list, gone, allowed, revoked, err
}

// machines are what the steps of each role run in.
func (v *revision) machines(ctx context.Context, r *runbook.Runbook) (list []release.Machine, err error) {
	for _, role := range r.Roles {
		m := release.Machine{Role: role.Name}
		if role.Blueprint != "" {
			if m, err = v.machine(ctx, role); err != nil {
				return nil, err
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// machine names the committed blueprint of a role by digest, and all that it needs.
func (v *revision) machine(ctx context.Context, role runbook.Role) (release.Machine, error) {
	m := release.Machine{Role: role.Name}
	dir := path.Clean(role.Blueprint)
	names := []string{path.Join(dir, "blueprint.yaml"), path.Join(dir, "blueprint.sum")}
	docs, err := v.read(ctx, names...)
	var none *uncommittedError
	if errors.As(err, &none) && !v.has(names[0]) {
		return m, &noBlueprintError{filepath.Join(v.copy.Root, filepath.FromSlash(dir))}
	}
	if err != nil {
		return m, err
	}
	b, err := blueprint.Parse(names[0], docs[names[0]])
	if err != nil {
		return m, err
	}
	if b.Unobserved || len(b.Builds) == 0 {
		return m, usage("%s holds no captured build: trysail capture makes one", dir)
	}
	sum, err := blueprint.ParseSum(names[1], docs[names[1]])
	if err != nil {
		return m, err
	}
	if err := sum.Check(b); err != nil {
		return m, err
	}
	if err := v.config(ctx, dir, b, sum); err != nil {
		return m, err
	}
	for i, dg := range []*string{&m.Blueprint, &m.Sum} {
		if *dg, err = v.put(ctx, names[i], docs[names[i]]); err != nil {
			return m, err
		}
	}
	m.Name = b.Name
	for name, dg := range sum {
		if release.NeedsOriginal(name) {
			if !v.depot.Has(dg) {
				return m, &depot.NotFoundError{What: name + " of blueprint " + b.Name, Depot: v.depot.Dir()}
			}
			v.need[dg] = true
		} else if v.depot.Has(dg) {
			v.need[dg] = true // for a machine that must prove itself
		}
	}
	return m, nil
}

// has tells whether the working copy has a file, committed or not.
func (v *revision) has(name string) bool {
	here, err := tree.OpenRoot(v.copy.Root)
	if err != nil {
		return false
	}
	defer here.Close()
	_, err = here.Lstat(name)
	return err == nil
}

// config puts the configuration beside a blueprint into the depot.
func (v *revision) config(ctx context.Context, dir string, b *blueprint.Blueprint, sum blueprint.Sum) error {
	if len(b.Config) == 0 {
		return nil
	}
	found, err := v.files.Read(ctx, path.Join(dir, "config"))
	if err != nil {
		return err
	}
	return putConfig(ctx, v.depot, dir, b, sum, func(name string) (io.ReadCloser, error) {
		data, ok := found[path.Join(dir, name)]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

// dirtyError lists what of the working copy the release would not hold.
type dirtyError struct {
	revision string
	files    []string
}

func (e *dirtyError) Error() string {
	return fmt.Sprintf("the working copy differs from revision %s, of which the release is made: %s", e.revision, strings.Join(e.files, ", "))
}

// Hint says what to type.
func (e *dirtyError) Hint() string {
	return "commit these files, or take the changes back; --allow-dirty leaves them out of the release and records their names"
}

// settle refuses a working copy that differs, or lists what differs and gives the origin with it.
func (v *revision) settle(a *app, allow bool) (release.Origin, error) {
	o := v.origin
	if v.apart {
		return o, nil
	}
	slices.Sort(o.Uncommitted)
	if n := len(o.Uncommitted) - maxUncommitted; n > 0 {
		o.Uncommitted = append(slices.Clone(o.Uncommitted[:maxUncommitted]), fmt.Sprintf("… and %d more", n))
	}
	if len(o.Uncommitted) == 0 {
		return o, nil
	}
	if !allow {
		return o, &dirtyError{v.source.Revision, o.Uncommitted}
	}
	a.ui.end()
	for _, f := range o.Uncommitted {
		fmt.Fprintf(a.stderr, "  ! %s differs from revision %s: what is committed is taken\n", plainLine(f), v.source.Revision)
	}
	return o, nil
}
