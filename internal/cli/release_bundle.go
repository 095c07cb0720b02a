package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/drill"
	"trysail/evidence"
	"trysail/internal/api"
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

// releaseBundle makes the evidence of a release that shipped.
func (a *app) releaseBundle(ctx context.Context, version string, o bundleOptions) (err error) {
	if o.into == "" || o.key == "" {
		return usage("say where the bundle goes and who signs it: --into DIR --key KEY")
	}
	if err := o.possible(); err != nil {
		return err
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
	k, err := a.openKey(ctx, o.key, o.keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	files := map[string][]byte{}
	a.ui.Step("fetching blueprints")
	for _, m := range l.State.Machines {
		if m.Blueprint != "" {
			if err := blueprintFiles(ctx, c, m, files); err != nil {
				return fmt.Errorf("the blueprint of role %s: %w", m.Role, err)
			}
		}
	}
	if err := a.drillsInForce(l.State, o, files); err != nil {
		return err
	}
	if err := reportFiles(l, files); err != nil {
		return err
	}
	if o.stamp != "" {
		a.ui.Step("having the ledger time-stamped")
		if files[evidence.StampFile], err = stamp(ctx, o.stamp, []byte(l.Note)); err != nil {
			return err
		}
	}
	// It grows beside its place, and is there when it is whole.
	part, err := os.MkdirTemp(filepath.Dir(filepath.Clean(o.into)), ".trysail-bundle-")
	if err != nil {
		return err
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(part)) }()
	a.ui.Step("fetching what was shipped")
	if l.State.Gold == nil {
		return usage("release %s has no gold", version)
	}
	if err := fetchArtifacts(ctx, c, l.State.Gold.Outputs, filepath.Join(part, "artifacts")); err != nil {
		return err
	}
	if err := a.billsOfMaterials(ctx, c, l, part, files); err != nil {
		return err
	}
	a.ui.Step("signing")
	b, err := evidence.Assemble(evidence.Material{
		Lines: l.Lines, Checkpoint: []byte(l.Note), LogKey: l.Key, Files: files, Key: k.Public(),
		Sign:  func(message []byte) ([]byte, error) { return k.Sign(ctx, message) },
		Blobs: func(dg string) ([]byte, error) { return readBlob(ctx, c, dg) },
	})
	if err != nil {
		return err
	}
	for name, data := range b.Files {
		if err := writeBelow(part, name, 0o644, strings.NewReader(string(data)), func() error { return nil }); err != nil {
			return err
		}
	}
	// Nobody is to be given what does not verify.
	root, err := os.OpenRoot(part)
	if err != nil {
		return err
	}
	defer root.Close()
	r := evidence.Verify(root.FS(), evidence.Trust{Key: k.Public(), LogKey: l.Key})
	if !r.Verified {
		return fmt.Errorf("the bundle that was made does not verify: %s", r.Problems[0])
	}
	if err := os.Rename(part, o.into); err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		return a.printJSON(struct {
			Bundle string           `json:"bundle"`
			Report *evidence.Report `json:"report"`
		}{o.into, r})
	}
	a.printVerified(r)
	for _, line := range []string{"release key  " + r.Key, "ledger key   " + r.LogKey} {
		a.printf("  %s\n", line)
	}
	a.printf("Wrote %s. Next: trysail verify %s\n", o.into, o.into)
	return nil
}

// releaseShip ends a release, and makes its evidence at once if it is told where. What
// could not be signed with is found out before.
func (a *app) releaseShip(ctx context.Context, version string, o bundleOptions) (err error) {
	if o.into == "" {
		if o.key != "" || o.noDrills || o.stamp != "" || len(o.drills) > 0 {
			return usage("say where the evidence goes: --bundle DIR")
		}
		return a.tell(ctx, version, "ship", api.Reason{}, "ship", version)
	}
	if o.key == "" {
		return usage("say who signs the evidence: --key KEY")
	}
	if err := o.possible(); err != nil {
		return err
	}
	k, err := a.openKey(ctx, o.key, o.keys)
	if err != nil {
		return err
	}
	_, err = k.Sign(ctx, []byte("whether this key signs"))
	if err := errors.Join(err, k.Close()); err != nil {
		return err
	}
	if _, err := a.post(ctx, version, "ship", api.Reason{}); err != nil {
		return err
	}
	a.printf("%s: ship\n", version)
	if err := a.releaseBundle(ctx, version, o); err != nil {
		return fmt.Errorf("release %s is shipped, and its evidence is yet to be made (trysail release bundle): %w", version, err)
	}
	return nil
}

// possible refuses what could not be written, or is not there.
func (o bundleOptions) possible() error {
	if _, err := os.Stat(o.into); err == nil {
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
		list, err := os.ReadDir(a.drillsDir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		var runs []drill.Run
		for _, d := range list {
			dir, p, h, err := a.readRun(d.Name())
			if info, serr := os.Stat(filepath.Join(dir, "history.jsonl")); err == nil && (serr != nil || info.Size() > evidence.MaxRecord) {
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
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	name, found := filepath.Base(filepath.Clean(dir)), false
	if files[path.Join("drill", name, "history.jsonl")] != nil {
		return usage("two drills are called %s", name)
	}
	for _, f := range list {
		if !f.Type().IsRegular() {
			continue // logs
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
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
func reportFiles(l *api.Ledger, files map[string][]byte) error {
	r, err := release.Retrospect(l.Events)
	if err != nil {
		return err
	}
	page, err := r.HTML()
	files["report/report.md"], files["report/report.html"] = []byte(r.Markdown()), page
	return err
}
