package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/tree"
)

// packages closes the used packages over their dependencies and finds every original.
func (c *capture) packages(ctx context.Context) error {
	used := map[string]bool{}
	for _, o := range c.draft.Observation {
		if o.Class == blueprint.ClassPackage && o.Type != "dir" {
			used[o.Item] = true
		}
		if o.Class == blueprint.ClassConfig || o.Class == blueprint.ClassGenerated {
			for _, own := range c.db.Owners(o.Path) {
				used[own.Package.Key()] = true
			}
		}
	}
	for _, r := range generatedRules() {
		if len(r.by) > 0 && c.uses(r.name) {
			c.installed(used, r.by)
		}
	}
	asked := c.asked(used)
	pkgs, _ := c.db.Closure(sortedKeys(used))
	if asked {
		pkgs = c.nominal(used, pkgs)
	}
	// A directory belongs to every package that ships it: one that is there
	// anyway provides it.
	in := map[string]bool{}
	for _, p := range pkgs {
		in[p.Key()] = true
	}
	for i := range c.draft.Observation {
		o := &c.draft.Observation[i]
		if o.Class != blueprint.ClassPackage || o.Type != "dir" {
			continue
		}
		owners := c.db.Owners(o.Path)
		k := slices.IndexFunc(owners, func(own debian.Ownership) bool { return in[own.Package.Key()] })
		if k < 0 {
			k = 0
			used[owners[0].Package.Key()] = true
		}
		o.Item = owners[k].Package.Key()
		o.Why = "owned by " + o.Item
	}
	pkgs, missing := c.db.Closure(sortedKeys(used))
	why := map[string]string{}
	for _, p := range pkgs {
		why[p.Key()] = "needed"
		if used[p.Key()] {
			why[p.Key()] = "used"
		}
	}
	if c.KeepAll {
		pkgs = c.db.Installed()
		for _, p := range pkgs {
			if why[p.Key()] == "" {
				why[p.Key()] = "kept"
			}
			used[p.Key()] = true
		}
		_, missing = c.db.Closure(sortedKeys(used))
	}
	for _, p := range pkgs {
		if lacks := missing[p]; len(lacks) > 0 {
			c.attention("package "+p.Key(), "it was installed by force, without what it depends on: "+strings.Join(lacks, ", ")+"; the rebuilt machine has it in the same way", "do nothing if the build works; otherwise install what it depends on, and capture again")
		}
	}
	for _, p := range c.db.Lost() {
		c.attention("package "+p.Key(), "dpkg has lost the list of its files (/var/lib/dpkg/info/"+p.InfoName()+".list), so they count as files of no package", "apt-get install --reinstall "+p.Name+", and capture again")
	}
	return c.originals(ctx, pkgs, why, missing)
}

// installed adds the packages of the machine that answer to one of the names.
func (c *capture) installed(used map[string]bool, names []string) {
	for _, p := range c.db.Installed() {
		provided := strings.FieldsFunc(p.Provides, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
		if slices.Contains(names, p.Name) || slices.ContainsFunc(provided, func(n string) bool { return slices.Contains(names, n) }) {
			used[p.Key()] = true
		}
	}
}

// asked tells whether the build asked dpkg what is installed, and adds what it
// is known to have asked for: where it is the build of a Debian package, its
// build dependencies, which may be packages that hold no file a build opens. The
// package's source may be of the revision, or unpacked by the build.
func (c *capture) asked(used map[string]bool) bool {
	status, control := false, []string{}
	for _, o := range c.draft.Observation {
		read := strings.Contains(o.Ops, "open")
		status = status || read && o.Path == "/var/lib/dpkg/status"
		if read && (o.Class == blueprint.ClassSource || o.Class == blueprint.ClassTemporary) && strings.HasSuffix(o.Path, "/debian/control") {
			control = append(control, o.Path)
		}
	}
	if !status {
		return false
	}
	checkout, err := tree.Open(c.checkout)
	if err != nil {
		return false // nothing is built there
	}
	defer checkout.Close()
	for _, p := range control {
		data, err := checkout.ReadFile(strings.TrimPrefix(p, c.x.Workspace+"/"), 4<<20)
		if err != nil {
			continue // the build removed it
		}
		c.installed(used, append(debian.BuildDependencies(data), "build-essential"))
	}
	return true
}

// nominal adds packages of which the machine keeps no file but documentation,
// and whose dependencies are all there anyway: only dpkg's answer tells whether
// such a package is installed, and it costs nothing. A package whose list of files dpkg has
// lost is none of them.
func (c *capture) nominal(used map[string]bool, closed []*debian.Package) []*debian.Package {
	in := map[string]bool{}
	for _, p := range closed {
		in[p.Key()] = true
	}
	for _, p := range c.db.Installed() {
		if in[p.Key()] || slices.Contains(c.db.Lost(), p) || slices.ContainsFunc(c.db.Files(p), func(f string) bool { return !documentation(f) }) {
			continue
		}
		with, missing := c.db.Closure([]string{p.Key()})
		if len(missing) == 0 && !slices.ContainsFunc(with, func(q *debian.Package) bool { return q != p && !in[q.Key()] }) {
			used[p.Key()] = true
			closed = append(closed, p)
		}
	}
	return closed
}

func documentation(p string) bool {
	return matchAny([]string{"/usr", "/usr/share", "/usr/share/{doc,lintian,bug}{,/**}"}, p)
}

func (c *capture) originals(ctx context.Context, pkgs []*debian.Package, why map[string]string, missing map[*debian.Package][]string) error {
	c.Step(fmt.Sprintf("finding the originals of %d packages", len(pkgs)))
	scratch, err := c.session.MkdirAll(0o755, "originals")
	if err != nil {
		return err
	}
	var left []string
	repacked := recall(filepath.Join(c.Depot.Dir(), ".trysail-repacked.json"))
	found, err := debian.FetchOriginals(ctx, c.db, pkgs, debian.FetchOptions{
		Scratch: scratch, Log: c.Log,
		Have:  func(sha string) bool { return c.Depot.Has("sha256:" + sha) },
		Known: repacked.known,
		Learn: repacked.learn,
		Leave: func(p string) bool {
			leave := c.closed(p)
			if leave && !slices.Contains(left, p) {
				left = append(left, p)
			}
			return leave
		},
		Progress: func(done, total int, name string) { c.Progress(fmt.Sprintf("%d of %d: %s", done, total, name)) },
	}, func(ctx context.Context, o *debian.Original, r io.Reader) error {
		_, err := c.Depot.PutExpected(ctx, r, "sha256:"+o.SHA256)
		return err
	})
	if err != nil {
		return err
	}
	if err := repacked.save(); err != nil {
		return err
	}
	for _, p := range left {
		c.attention(p, "left out of its package, which had to be packed again: it was changed, and no ordinary user or the build's user may not read it", "keep the package's own archive on a mirror, or let the build's user read the file")
	}
	for _, o := range found {
		p := blueprint.Package{
			Name: o.Package.Name, Version: o.Package.Version, Architecture: o.Package.Architecture, File: fileName(o.Package.FileName()),
			Essential: o.Package.Essential, Why: why[o.Package.Key()], Lacks: missing[o.Package],
			Held: strings.HasPrefix(o.Package.Status, "hold "),
		}
		if o.From == "repacked" {
			p.Repacked = o.Why
		}
		c.b.Packages = append(c.b.Packages, p)
		c.draft.Sum[p.DebName()] = "sha256:" + o.SHA256
	}
	for _, r := range repackings(c.b.Packages) {
		c.attention(fmt.Sprintf("%d repacked package(s)", len(r.names)), "packed again from the installed files, because "+r.why+": "+clipList(r.names, 6), r.remedy)
	}
	return nil
}

// repacking is why some packages had to be packed again, and what a person can do.
type repacking struct {
	why, remedy string
	names       []string
}

// repackings groups the packages that had to be packed again by what a person can do.
func repackings(pkgs []blueprint.Package) []repacking {
	list := []repacking{
		{why: debian.NoIndex, remedy: "run apt-get update, and capture again"},
		{why: "apt's index is older than they are", remedy: "run apt-get update, and capture again"},
		{why: "their download failed", remedy: "capture again once the mirror answers"},
		{why: "no source has these versions", remedy: "keep this depot well: these originals are nowhere else; or upgrade to versions that a mirror keeps"},
	}
	for _, p := range pkgs {
		at := 3
		switch {
		case p.Repacked == "":
			continue
		case p.Repacked == debian.NoIndex:
			at = 0
		case strings.HasPrefix(p.Repacked, debian.OldIndex):
			at = 1
		case strings.HasPrefix(p.Repacked, debian.NoDownload):
			at = 2
		}
		list[at].names = append(list[at].names, p.Name)
	}
	return slices.DeleteFunc(list, func(r repacking) bool { return len(r.names) == 0 })
}

// closed tells a changed file of a package that the build's user may not read, or
// that only root may. What is as its package brought it is no secret.
func (c *capture) closed(p string) bool {
	if !errors.Is(c.rights.judge([]string{p})[0], fs.ErrPermission) && !c.private(p) {
		return false
	}
	if st := statPath(p); st.Type != "file" {
		return false
	}
	have, err := md5Of(p)
	return err != nil || !slices.ContainsFunc(c.db.Owners(p), func(o debian.Ownership) bool { return o.MD5 == have })
}

// fileName makes a package's file name fit for blueprint.sum.
func fileName(s string) string { return strings.ReplaceAll(s, "%3a", "%3A") }

func clipList(list []string, n int) string {
	if len(list) > n {
		return strings.Join(list[:n], ", ") + ", …"
	}
	return strings.Join(list, ", ")
}

// repacks remembers what was packed again: the same installed files give the
// same archive, and packing it takes longer than all the rest.
type repacks struct {
	file string
	sums map[string]string // fingerprint -> hex sha256
	new  bool
}

func recall(file string) *repacks {
	r := &repacks{file: file, sums: map[string]string{}}
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &r.sums) != nil {
		r.sums = map[string]string{} // nothing is lost but time
	}
	return r
}

func (r *repacks) known(fingerprint string) (string, bool) {
	sum, ok := r.sums[fingerprint]
	return sum, ok
}

func (r *repacks) learn(fingerprint, sum string) { r.sums[fingerprint], r.new = sum, true }

func (r *repacks) save() error {
	if !r.new {
		return nil
	}
	data, err := json.Marshal(r.sums)
	if err != nil {
		return err
	}
	return renameio.WriteFile(r.file, data, 0o600)
}
