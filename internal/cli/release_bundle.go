package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/drill"
	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/keys"
	"trysail/internal/tree"
	"trysail/release"
)

// bundleOptions say where a bundle goes and who signs it.
type bundleOptions struct {
	into     string
	key      string
	keys     keyOptions
	drills   []string
	noDrills bool
	stamp    string
}

// bundling makes one bundle: it grows beside its place, and is there when it is whole.
type bundling struct {
	a       *app
	c       *api.Client
	k       keys.Key
	o       bundleOptions
	above   *tree.Dir
	part    *tree.Dir
	growing string
	files   map[string][]byte  // what goes in besides what is made of the ledger
	gold    []release.Artifact // of which the artifacts are there
	wrote   map[string][]byte  // what the last [bundling.write] put there
}

// newBundling opens the key, and a directory beside the bundle's place.
func (a *app) newBundling(ctx context.Context, o bundleOptions) (b *bundling, err error) {
	if err := o.possible(); err != nil {
		return nil, err
	}
	b = &bundling{a: a, o: o, growing: ".trysail-bundle-" + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.c, err = a.client(); err != nil {
		return b, err
	}
	if b.k, err = a.openKey(ctx, o.key, o.keys); err != nil {
		return b, err
	}
	if b.above, err = tree.Open(filepath.Dir(filepath.Clean(o.into))); err != nil {
		return b, err
	}
	if err = b.above.Mkdir(b.growing, 0o755); err != nil {
		return b, err
	}
	if b.part, err = b.above.Sub(b.growing); err != nil {
		return b, err
	}
	return b, b.part.Chmod(".", 0o755)
}

// close removes what is not in its place.
func (b *bundling) close() (err error) {
	if b.part != nil {
		err = b.part.Close()
	}
	if b.above != nil {
		err = errors.Join(err, b.above.RemoveAll(b.growing), b.above.Close())
	}
	if b.k != nil {
		err = errors.Join(err, b.k.Close())
	}
	return err
}

// gather fetches what a release was made in and of, and what it made.
func (b *bundling) gather(ctx context.Context, l *api.Ledger) error {
	b.files = map[string][]byte{}
	b.a.ui.Step("fetching blueprints")
	for _, m := range l.State.Machines {
		if m.Blueprint != "" {
			if err := blueprintFiles(ctx, b.c, m, b.files); err != nil {
				return fmt.Errorf("the blueprint of role %s: %w", m.Role, err)
			}
		}
	}
	if err := b.a.drillsInForce(l.State, b.o, b.files); err != nil {
		return err
	}
	if l.State.Gold == nil {
		return usage("release %s has no gold", l.State.Started.Version)
	}
	if b.gold == nil { // once there is gold, it stays as it is
		b.a.ui.Step("fetching what was shipped")
		gold, err := b.c.Files(ctx, l.State.Gold.Made())
		if err != nil {
			return err
		}
		if err := b.artifacts(ctx, gold); err != nil {
			return err
		}
		b.gold = gold
	}
	return b.a.billsOfMaterials(ctx, b.c, l, b.gold, b.part, b.files)
}

// artifacts lays the files of gold into the bundle, as anybody may read them: what else there
// is to them, and the links among them, the list of gold says.
func (b *bundling) artifacts(ctx context.Context, gold []release.Artifact) error {
	if err := b.part.MkdirAll("artifacts", 0o755); err != nil {
		return err
	}
	dir, err := b.part.Sub("artifacts")
	if err != nil {
		return err
	}
	defer dir.Close()
	var files []release.Artifact
	for _, x := range gold {
		if x.Digest == "" {
			continue
		}
		mode := "0644"
		if strings.ContainsAny(x.Mode[max(len(x.Mode)-3, 0):], "1357") {
			mode = "0755"
		}
		files = append(files, release.Artifact{Path: x.Path, Digest: x.Digest, Size: x.Size, Mode: mode, Modified: x.Modified})
	}
	return fetchArtifacts(ctx, b.c, files, dir)
}

// write makes the bundle of a ledger, and verifies it: nobody is to be given what does not.
// With a pending event it is the bundle of a release that would ship by it.
func (b *bundling) write(ctx context.Context, l *api.Ledger, pending *release.Event) (*evidence.Report, error) {
	files, events := maps.Clone(b.files), l.Events
	var line []byte
	if pending != nil {
		var err error
		if line, err = json.Marshal(pending); err != nil {
			return nil, err
		}
		events = append(slices.Clone(events), *pending)
	}
	if err := reportFiles(events, files); err != nil {
		return nil, err
	}
	if b.o.stamp != "" {
		b.a.ui.Step("having the ledger time-stamped")
		token, err := stamp(ctx, b.o.stamp, []byte(l.Note))
		if err != nil {
			return nil, err
		}
		files[evidence.StampFile] = token
	}
	b.a.ui.Step("signing")
	made, err := evidence.Assemble(evidence.Material{
		Lines: l.Lines, Pending: line, Checkpoint: []byte(l.Note), LogKey: l.Key, Files: files, Key: b.k.Public(),
		Sign: func(message []byte) ([]byte, error) { return b.k.Sign(ctx, message) },
		Blobs: func(dg string) ([]byte, error) {
			if dg == l.State.Gold.Tree {
				return readBlobTo(ctx, b.c, dg, release.MostList)
			}
			return readBlob(ctx, b.c, dg)
		},
	})
	if err != nil {
		return nil, err
	}
	for name := range b.wrote { // by a ledger that went on meanwhile
		if err := b.part.Remove(name); err != nil {
			return nil, err
		}
	}
	b.wrote = made.Files
	for name, data := range made.Files {
		if err := b.part.MkdirAll(path.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := b.part.Put(name, data, 0o644); err != nil {
			return nil, err
		}
	}
	r := evidence.Verify(b.part.FS(), evidence.Trust{Key: b.k.Public(), LogKey: l.Key, Pending: pending != nil})
	if !r.Verified {
		return nil, fmt.Errorf("the bundle that was made does not verify: %s", r.Problems[0])
	}
	return r, nil
}

// done puts the bundle into its place, and says what it is.
func (b *bundling) done(r *evidence.Report) error {
	if err := b.above.Rename(b.growing, filepath.Base(filepath.Clean(b.o.into))); err != nil {
		return err
	}
	a := b.a
	a.ui.end()
	if a.json {
		return a.printJSON(struct {
			Bundle string           `json:"bundle"`
			Report *evidence.Report `json:"report"`
		}{b.o.into, r})
	}
	a.printVerified(r)
	for _, line := range []string{"release key  " + r.Key, "ledger key   " + r.LogKey} {
		a.printf("  %s\n", line)
	}
	a.printf("Wrote %s. Next: trysail verify %s\n", b.o.into, b.o.into)
	return nil
}

// releaseBundle makes the evidence of a release that shipped.
func (a *app) releaseBundle(ctx context.Context, version string, o bundleOptions) (err error) {
	if o.into == "" || o.key == "" {
		return usage("say where the bundle goes and who signs it: --into DIR --key KEY")
	}
	b, err := a.newBundling(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	a.ui.Step("reading the ledger")
	l, err := a.readLedger(ctx, b.c, version)
	if err != nil {
		return err
	}
	if err := b.gather(ctx, l); err != nil {
		return err
	}
	r, err := b.write(ctx, l, nil)
	if err != nil {
		return err
	}
	return b.done(r)
}

// releaseShip ends a release. Control ships what it can make evidence of; told where the
// bundle goes, this command makes it and verifies it first, and ships only that very state.
func (a *app) releaseShip(ctx context.Context, version string, o bundleOptions) (err error) {
	if o.into == "" {
		if o.key != "" || o.noDrills || o.stamp != "" || len(o.drills) > 0 {
			return usage("say where the evidence goes: --bundle DIR")
		}
		return a.tell(ctx, version, "ship", api.Ship{}, "ship", version)
	}
	if o.key == "" {
		return usage("say who signs the evidence: --key KEY")
	}
	b, err := a.newBundling(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.ship(ctx, version); err != nil {
		return err
	}
	r, err := func() (*evidence.Report, error) {
		l, err := a.readLedger(ctx, b.c, version)
		if err != nil {
			return nil, err
		}
		return b.write(ctx, l, nil)
	}()
	if err == nil {
		err = b.done(r)
	}
	if err != nil {
		return fmt.Errorf("release %s is shipped, and its evidence is yet to be made (trysail release bundle): %w", version, err)
	}
	return nil
}

// ship makes the bundle of a release as if it had shipped, verifies it, and ships the
// release if it is still the one of which the bundle was made. If it went on meanwhile, it
// begins again.
func (b *bundling) ship(ctx context.Context, version string) error {
	for {
		b.a.ui.Step("reading the ledger")
		l, err := b.a.readLedger(ctx, b.c, version)
		if err != nil {
			return err
		}
		head := l.State.Head
		pending := release.New(time.Now(), "trysail release ship", release.Shipped{})
		pending.Seq = head + 1
		if l.State.Clone().Apply(pending) == nil { // else control says what is missing
			if err := b.gather(ctx, l); err != nil {
				return err
			}
			if _, err := b.write(ctx, l, &pending); err != nil {
				return fmt.Errorf("release %s is not shipped: %w", version, err)
			}
		}
		_, err = b.a.post(ctx, version, "ship", api.Ship{Head: head})
		var p *api.Problem
		if errors.As(err, &p) && p.Code == api.Moved {
			continue
		}
		if err == nil {
			b.a.ui.end()
			if !b.a.json {
				b.a.printf("%s: ship\n", version)
			}
		}
		return err
	}
}

// possible refuses what could not be written, or is not there.
func (o bundleOptions) possible() error {
	if _, err := tree.Stat(o.into); err == nil {
		return usage("%s is there already: a bundle is made once, into a new directory", o.into)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := unix.Access(filepath.Dir(filepath.Clean(o.into)), unix.W_OK); err != nil {
		return &os.PathError{Op: "write into", Path: filepath.Dir(filepath.Clean(o.into)), Err: err}
	}
	files := map[string][]byte{}
	for _, d := range o.drills {
		if err := drillFiles(d, files); err != nil {
			return err
		}
	}
	return nil
}

// blueprintFiles are those of a role's server, and the document for the day on which
// this program is gone.
func blueprintFiles(ctx context.Context, c *api.Client, m release.Machine, files map[string][]byte) error {
	dir := path.Join("blueprint", m.Role)
	for name, dg := range map[string]string{"blueprint.yaml": m.Blueprint, "blueprint.sum": m.Sum} {
		data, err := readBlob(ctx, c, dg)
		if err != nil {
			return err
		}
		files[path.Join(dir, name)] = data
	}
	b, err := blueprint.Parse("blueprint.yaml", files[path.Join(dir, "blueprint.yaml")])
	if err != nil {
		return err
	}
	sum, err := blueprint.ParseSum("blueprint.sum", files[path.Join(dir, "blueprint.sum")])
	if err != nil {
		return err
	}
	files[path.Join(dir, "REBUILD.md")] = []byte(b.RebuildDocument())
	for _, f := range b.Config {
		dg := sum[f.ConfigName()]
		if f.Link != "" || dg == "" {
			continue
		}
		if files[path.Join(dir, f.ConfigName())], err = readBlob(ctx, c, dg); err != nil {
			return fmt.Errorf("%s: %w", f.ConfigName(), err)
		}
	}
	return nil
}

// drillsInForce puts in what was rehearsed of this release's build servers on this
// machine, and what the user names.
func (a *app) drillsInForce(s *release.State, o bundleOptions, files map[string][]byte) error {
	dirs := slices.Clone(o.drills)
	if !o.noDrills {
		list, err := tree.ReadDir(a.drillsDir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		var runs []drill.Run
		for _, d := range list {
			dir, p, h, err := a.readRun(d.Name())
			if info, serr := tree.Stat(filepath.Join(dir, "history.jsonl")); err == nil && (serr != nil || info.Size() > evidence.MaxRecord) {
				err = errors.Join(serr, fmt.Errorf("its record has more than %d MB", evidence.MaxRecord>>20))
			}
			if err != nil {
				a.log.Warn("a drill cannot be read, and is left out", "run", d.Name(), "err", err)
				continue
			}
			runs = append(runs, drill.Run{Dir: dir, Plan: p, History: h})
		}
		named := func(dir string) bool {
			return slices.ContainsFunc(o.drills, func(x string) bool { return filepath.Base(filepath.Clean(x)) == filepath.Base(dir) })
		}
		for _, r := range drill.InForce(runs, s.Machines, s.Changed) {
			if !named(r.Dir) {
				dirs = append(dirs, r.Dir)
			}
		}
	}
	for _, d := range dirs {
		if err := drillFiles(d, files); err != nil {
			return err
		}
	}
	return nil
}

// drillFiles are the reports of a drill's run.
func drillFiles(dir string, files map[string][]byte) error {
	list, err := tree.ReadDir(dir)
	if err != nil {
		return err
	}
	name, found := filepath.Base(filepath.Clean(dir)), false
	if files[path.Join("drill", name, "history.jsonl")] != nil {
		return usage("two drills are called %s", name)
	}
	for _, f := range list {
		if !f.Mode().IsRegular() {
			continue // logs
		}
		data, err := tree.ReadFile(filepath.Join(dir, f.Name()), maxDocument)
		if err != nil {
			return err
		}
		files[path.Join("drill", name, f.Name())] = data
		found = found || f.Name() == "history.jsonl"
	}
	if !found {
		return usage("%s is no drill's run: trysail drill run says where its run is", dir)
	}
	return nil
}

// reportFiles are the release as it was run.
func reportFiles(events []release.Event, files map[string][]byte) error {
	r, err := release.Retrospect(events, time.LoadLocation)
	if err != nil {
		return err
	}
	page, err := r.HTML()
	files["report/report.md"], files["report/report.html"] = []byte(r.Markdown()), page
	return err
}
