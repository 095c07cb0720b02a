package capture

import (
	"archive/tar"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/debian"
	"trysail/internal/depot"
	"trysail/internal/machine"
)

// NoOutputError says that a build made nothing that --output names.
type NoOutputError struct {
	Globs []string
	Root  string
}

func (e *NoOutputError) Error() string {
	if len(e.Globs) == 0 {
		return "no --output was given, so there is nothing to prove"
	}
	return fmt.Sprintf("the build succeeded but made no file that matches %s", strings.Join(e.Globs, ", "))
}

// Hint says what to do.
func (e *NoOutputError) Hint() string {
	return "give --output a path or glob relative to " + e.Root + ", for instance --output 'dist/**'"
}

// attributeAll classifies everything the tracer saw and collects what the
// classes ask for.
func (c *capture) attributeAll(ctx context.Context) error {
	if c.result.Trace == nil {
		return errors.New("the build was not traced")
	}
	alts, err := debian.ReadAlternatives("/")
	if err != nil {
		return err
	}
	tracked := map[string]bool{}
	for _, t := range c.tracked {
		tracked[t] = true
	}
	a := newAttributor(world{stat: statPath, made: c.made, sums: c.sums, owners: c.db.Owners, large: c.large},
		layout{
			workspace: c.x.Workspace, home: c.user.Home, tracked: tracked, outputs: c.x.Outputs,
			scratch: []string{"/tmp", "/var/tmp", "/run/lock"}, caches: build.Caches(c.user.Home, c.x.Environment), masked: []string{c.State.Dir, c.State.Run, machine.InitPath, build.TrustDir},
		}, c.b.Ignore, alts)
	accesses := physical(c.result.Trace.Accesses, func(p string) (string, bool) {
		real, _ := c.result.Real(p)
		target, err := os.Readlink(real)
		return target, err == nil
	}, func(p string) string {
		real, _ := c.result.Real(p)
		return loader(real)
	})
	for i, acc := range accesses {
		if i%512 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.Progress(fmt.Sprintf("%d of %d", i, len(accesses)))
		}
		c.draft.Observation = append(c.draft.Observation, a.attribute(acc))
	}
	c.draft.Stats.Seconds, c.draft.Stats.Paths = c.x.Seconds, len(accesses)
	c.draft.Stats.Events, c.draft.Stats.LostEvents = c.result.Trace.Events, c.result.Trace.Lost
	return c.changedByBuild()
}

// statPath looks at the machine itself, never through the overlay.
func statPath(p string) stat {
	info, err := os.Lstat(p)
	if err != nil {
		return stat{}
	}
	s := stat{Mode: info.Mode(), Size: info.Size(), Owner: ownerOf(info)}
	switch {
	case info.Mode().IsRegular():
		s.Type = "file"
	case info.IsDir():
		s.Type = "dir"
	case info.Mode()&fs.ModeSymlink != 0:
		s.Type = "link"
		if s.Link, err = os.Readlink(p); err != nil {
			return stat{}
		}
	default:
		s.Type = "other"
	}
	return s
}

func ownerOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "root:root"
	}
	name, group := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return name + ":" + group
}

// made tells that the build made a path: it is in one of the run's scratch
// directories or upper layers.
func (c *capture) made(p string) bool {
	real, scratch := c.result.Real(p)
	if scratch {
		_, err := os.Lstat(real)
		return err == nil
	}
	_, err := os.Lstat(c.inUpper(p))
	return err == nil
}

func (c *capture) inUpper(p string) string {
	best := "/"
	for mount := range c.uppers {
		if below(p, mount) && len(mount) > len(best) {
			best = mount
		}
	}
	return filepath.Join(c.uppers[best], strings.TrimPrefix(p, best))
}

// sums hashes a file of the machine, once.
func (c *capture) sums(p string) (string, string, error) {
	if h, ok := c.hashes[p]; ok {
		return h[0], h[1], nil
	}
	f, err := os.Open(p)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	m, s := md5.New(), sha256.New()
	if _, err := io.Copy(io.MultiWriter(m, s), f); err != nil {
		return "", "", fmt.Errorf("read %s: %w", p, err)
	}
	h := [2]string{hex.EncodeToString(m.Sum(nil)), hex.EncodeToString(s.Sum(nil))}
	c.hashes[p] = h
	return h[0], h[1], nil
}

// large looks at a tree in a home directory: programs, or more than a
// mebibyte, make it software.
func (c *capture) large(dir string) bool {
	var size int64
	stop := errors.New("large")
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read makes it no larger
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if size += info.Size(); size > 1<<20 || info.Mode()&0o111 != 0 {
			return stop
		}
		return nil
	})
	return err == stop
}

// changedByBuild names files of the machine that the build would have changed:
// the next build on this machine would not begin where this one did.
func (c *capture) changedByBuild() error {
	for mount, upper := range c.uppers {
		err := filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return nil
			}
			at := path.Join(mount, strings.TrimPrefix(p, upper))
			st := statPath(at)
			if st.Type == "" || st.Type == "dir" && d.Type()&fs.ModeCharDevice == 0 {
				return nil
			}
			if matchRule(generatedRules(), at) != nil || matchRule(systemRules(), at) != nil || below(at, "/tmp") || strings.HasSuffix(at, ".pyc") || below(at, c.user.Home) {
				return nil
			}
			c.attention(at, "the build changes this file of the machine", "let the build write into its workspace only; the next build on this machine would begin from other files")
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

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
	pkgs, _ := c.db.Closure(sortedKeys(used))
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
		}
	}
	for _, m := range missing {
		c.attention(m, "a dependency of an installed package is not installed", "apt-get -f install on the captured machine, then capture again")
	}
	return c.originals(ctx, pkgs, why)
}

func (c *capture) originals(ctx context.Context, pkgs []*debian.Package, why map[string]string) error {
	c.Step(fmt.Sprintf("finding the originals of %d packages", len(pkgs)))
	scratch, err := c.session.MkdirAll(0o755, "originals")
	if err != nil {
		return err
	}
	found, err := debian.FetchOriginals(ctx, c.db, pkgs, debian.FetchOptions{
		Scratch: scratch, Log: c.Log,
		Have:     func(sha string) bool { return c.Depot.Has("sha256:" + sha) },
		Progress: func(done, total int, name string) { c.Progress(fmt.Sprintf("%d of %d: %s", done, total, name)) },
	}, func(ctx context.Context, o *debian.Original, r io.Reader) error {
		_, err := c.Depot.PutExpected(ctx, r, "sha256:"+o.SHA256)
		return err
	})
	if err != nil {
		return err
	}
	repacked := 0
	for _, o := range found {
		p := blueprint.Package{
			Name: o.Package.Name, Version: o.Package.Version, Architecture: o.Package.Architecture, File: fileName(o.Package.FileName()),
			Essential: o.Package.Essential, Why: why[o.Package.Key()],
		}
		if o.From == "repacked" {
			p.Repacked = o.Why
			repacked++
		}
		c.b.Packages = append(c.b.Packages, p)
		c.draft.Sum[p.DebName()] = "sha256:" + o.SHA256
	}
	if repacked > 0 {
		names := []string{}
		for _, p := range c.b.Packages {
			if p.Repacked != "" {
				names = append(names, p.Name)
			}
		}
		c.attention(clipList(names, 4), fmt.Sprintf("%d package(s) were packed again from the installed files, because no source has their version any more", repacked), "keep this depot well: these originals are nowhere else; or upgrade to versions that a mirror keeps")
	}
	return nil
}

// fileName makes a package's file name fit for blueprint.sum.
func fileName(s string) string { return strings.ReplaceAll(s, "%3a", "%3A") }

func clipList(list []string, n int) string {
	if len(list) > n {
		return strings.Join(list[:n], ", ") + ", …"
	}
	return strings.Join(list, ", ")
}

// collect puts what the observation found into the blueprint.
func (c *capture) collect(ctx context.Context) error {
	trees := map[string]bool{}
	for _, o := range c.draft.Observation {
		switch o.Class {
		case blueprint.ClassSoftware:
			trees[o.Item] = true
		case blueprint.ClassUnexplained:
			c.draft.Stats.Unexplained++
			c.attention(o.Path, "the build uses this path, and where it comes from is not known: "+o.Why, "own it by a package, put it under /etc, /opt or /usr/local, or name an ignore rule for it in the blueprint")
		}
	}
	// A tree inside another is part of it.
	for t := range trees {
		for d := path.Dir(t); d != "/"; d = path.Dir(d) {
			if trees[d] {
				delete(trees, t)
			}
		}
	}
	for _, o := range c.draft.Observation {
		switch o.Class {
		case blueprint.ClassConfig:
			if err := c.file(ctx, o.Path, o.Why); err != nil {
				return err
			}
		case blueprint.ClassGenerated:
			if r := matchRule(c.rules(), o.Path); r != nil && !r.remade && o.Type == "file" && o.SHA256 != "" {
				if err := c.generated(ctx, o); err != nil {
					return err
				}
			}
		case blueprint.ClassDirectory:
			st := statPath(o.Path)
			inTree := slices.ContainsFunc(sortedKeys(trees), func(t string) bool { return below(o.Path, t) })
			if st.Type == "dir" && !inTree {
				c.b.Directories = append(c.b.Directories, blueprint.Directory{Path: o.Path, Mode: modeText(st.Mode), Owner: st.Owner})
			}
		}
	}
	// The user's home is there for every user of a real machine.
	if st := statPath(c.user.Home); st.Type == "dir" && c.user.Home != "/" {
		if !slices.ContainsFunc(c.b.Directories, func(d blueprint.Directory) bool { return d.Path == c.user.Home }) {
			c.b.Directories = append(c.b.Directories, blueprint.Directory{Path: c.user.Home, Mode: modeText(st.Mode), Owner: st.Owner})
		}
	}
	if err := c.around(ctx); err != nil {
		return err
	}
	for _, t := range sortedKeys(trees) {
		if err := c.software(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (c *capture) rules() []rule { return generatedRules() }

func sortedKeys(m map[string]bool) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// around keeps configuration that a machine has whether the build looked at it
// or not: apt's sources, pins and keys, the loader's directories, the locale.
func (c *capture) around(ctx context.Context) error {
	var list []string
	for _, g := range []string{
		"/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/apt/preferences", "/etc/apt/preferences.d/*", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d/*",
		"/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d/*", "/etc/apt/keyrings/*", "/etc/ld.so.conf", "/etc/ld.so.conf.d/*",
		"/etc/default/locale", "/etc/locale.conf", "/etc/locale.gen", "/etc/timezone", "/etc/localtime",
	} {
		names, err := filepath.Glob(g)
		if err != nil {
			return err
		}
		list = append(list, names...)
	}
	for _, p := range list {
		st := statPath(p)
		if st.Type != "file" && st.Type != "link" {
			continue
		}
		why := "unowned"
		if owners := c.db.Owners(p); len(owners) > 0 {
			if st.Type == "link" {
				continue
			}
			md5, _, err := c.sums(p)
			if err != nil {
				return err
			}
			own := owners[len(owners)-1]
			if own.MD5 == "" || own.MD5 == md5 {
				continue
			}
			why = "changed conffile of " + own.Package.Name
		}
		if below(p, "/etc/apt") && st.Type == "file" {
			_, sha, err := c.sums(p)
			if err != nil {
				return err
			}
			c.b.Apt.Files = append(c.b.Apt.Files, blueprint.AptFile{Path: p, SHA256: "sha256:" + sha})
		}
		if err := c.file(ctx, p, why); err != nil {
			return err
		}
	}
	return nil
}

// file keeps one configuration file or link.
func (c *capture) file(ctx context.Context, p, why string) error {
	if slices.ContainsFunc(c.b.Config, func(f blueprint.File) bool { return f.Path == p }) ||
		slices.ContainsFunc(c.b.Withheld, func(w blueprint.Withheld) bool { return w.Path == p }) {
		return nil
	}
	st := statPath(p)
	f := blueprint.File{Path: p, Owner: st.Owner, Why: why}
	switch st.Type {
	case "link":
		f.Link = st.Link
		c.b.Config = append(c.b.Config, f)
		return nil
	case "file":
	default:
		return nil // gone since the build
	}
	f.Mode = modeText(st.Mode)
	data, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	f.SHA256 = "sha256:" + hex.EncodeToString(sum[:])
	stored, ok, err := c.protect(&f, data)
	if err != nil || !ok {
		return err
	}
	digest, err := c.Depot.PutBytes(ctx, stored)
	if err != nil {
		return err
	}
	c.b.Config = append(c.b.Config, f)
	c.draft.Config[f.ConfigName()] = stored
	c.draft.Sum[f.ConfigName()] = digest
	return nil
}

func (c *capture) generated(ctx context.Context, o blueprint.Observed) error {
	st := statPath(o.Path)
	digest, _, err := c.Depot.PutFile(ctx, o.Path)
	if err != nil {
		return err
	}
	f := blueprint.File{Path: o.Path, Mode: modeText(st.Mode), Owner: st.Owner, SHA256: digest, Why: o.Why}
	c.b.Generated = append(c.b.Generated, f)
	c.draft.Sum[f.GeneratedName()] = digest
	return nil
}

// software keeps one whole tree, whichever of its files were used.
func (c *capture) software(ctx context.Context, tree string) error {
	c.Step("keeping " + tree)
	s := blueprint.Software{Path: tree, File: strings.ReplaceAll(strings.Trim(tree, "/"), "/", "-") + ".tar.zst"}
	for n := 2; slices.ContainsFunc(c.b.Software, func(x blueprint.Software) bool { return x.File == s.File }); n++ {
		s.File = fmt.Sprintf("%s-%d.tar.zst", strings.TrimSuffix(s.File, ".tar.zst"), n)
	}
	skip := append(build.Caches(c.user.Home, c.x.Environment), c.ws.Root, c.State.Dir)
	digest, err := PutTree(ctx, c.Depot, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		// Directories above the tree that no package brings.
		for _, dir := range parents(tree) {
			if len(c.db.Owners(dir)) == 0 {
				if err := addToTar(tw, dir, dir[1:], nil); err != nil {
					return err
				}
			}
		}
		err := filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if p != tree && slices.Contains(skip, p) {
				return fs.SkipDir
			}
			if d.Type().IsRegular() {
				info, err := d.Info()
				if err != nil {
					return err
				}
				keep, err := c.screen(p, info)
				if err != nil || !keep {
					return err
				}
				s.Files++
				s.Size += info.Size()
			}
			return addToTar(tw, p, p[1:], nil)
		})
		return errors.Join(err, tw.Close())
	})
	if err != nil {
		return fmt.Errorf("keep %s: %w", tree, err)
	}
	c.b.Software = append(c.b.Software, s)
	c.draft.Sum[s.OriginalName()] = digest
	return nil
}

func parents(p string) []string {
	var list []string
	for d := path.Dir(p); d != "/"; d = path.Dir(d) {
		list = append([]string{d}, list...)
	}
	return list
}

// PutTree keeps what write produces, compressed with zstd.
func PutTree(ctx context.Context, d *depot.Depot, write func(io.Writer) error) (string, error) {
	pr, pw := io.Pipe()
	go func() {
		zw, err := zstd.NewWriter(pw, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2))
		if err == nil {
			err = errors.Join(write(zw), zw.Close())
		}
		pw.CloseWithError(err)
	}()
	digest, _, err := d.Put(ctx, pr)
	pr.CloseWithError(err)
	return digest, err
}

// alternatives keeps the groups that the build came through, and every one
// that the administrator set by hand.
func (c *capture) alternatives() error {
	all, err := debian.ReadAlternatives("/")
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, o := range c.draft.Observation {
		if o.Class == blueprint.ClassAlternative {
			used[o.Item] = true
		}
	}
	for _, a := range all {
		if !used[a.Name] {
			continue
		}
		alt := blueprint.Alternative{Name: a.Name, Link: a.Link, Value: a.Value, Manual: a.Manual}
		if choice := a.Choice(); choice != nil {
			alt.Priority = choice.Priority
			for i, s := range a.Slaves {
				if i < len(choice.Slaves) && choice.Slaves[i] != "" {
					alt.Slaves = append(alt.Slaves, blueprint.Slave{Name: s.Name, Link: s.Link, Path: choice.Slaves[i]})
				}
			}
		}
		c.b.Alternatives = append(c.b.Alternatives, alt)
	}
	return nil
}

// finish completes the draft and names the set of originals in the depot.
func (c *capture) finish(ctx context.Context) error {
	if err := c.collect(ctx); err != nil {
		return err
	}
	if err := c.alternatives(); err != nil {
		return err
	}
	for _, d := range c.db.Diversions() {
		if d.By == ":" {
			c.b.Diversions = append(c.b.Diversions, blueprint.Diversion{From: d.From, To: d.To})
		}
	}
	touched := map[string]bool{}
	for _, o := range c.draft.Observation {
		if o.Provided() && o.Class != blueprint.ClassDirectory {
			touched[o.Path] = true
		}
	}
	c.b.Units = readUnits("/", touched)
	c.connections()
	// What the build made, so that a proof elsewhere can say where it differs.
	for _, out := range c.x.Made {
		if out.SHA256 == "" {
			continue
		}
		digest, size, err := c.Depot.PutFile(ctx, filepath.Join(c.checkout, out.Path))
		if err != nil {
			return err
		}
		c.draft.items = append(c.draft.items, depot.Item{Name: "made/" + c.x.Name + "/" + out.Path, Digest: digest, Size: size})
	}
	data, err := blueprint.MarshalObservation(c.draft.Observation)
	if err != nil {
		return err
	}
	if c.x.Observation, err = c.Depot.PutBytes(ctx, data); err != nil {
		return err
	}
	c.draft.Sum[c.x.ObservationName()] = c.x.Observation
	c.draft.Stats.Packages, c.draft.Stats.Software, c.draft.Stats.Config = len(c.b.Packages), len(c.b.Software), len(c.b.Config)
	c.b.Sort()
	return c.merge()
}

// connections proposes live dependencies for what the build reached outside of
// the machine by other ways than a download.
func (c *capture) connections() {
	propose := func(l blueprint.LiveDependency, remedy string) {
		for _, have := range c.b.LiveDependencies {
			if have.Kind == l.Kind && have.Address == l.Address {
				return
			}
		}
		l.Proposed = true
		c.b.LiveDependencies = append(c.b.LiveDependencies, l)
		c.attention(l.Address, l.Why, remedy)
	}
	for _, x := range c.recording.Connections {
		if x.Allowed {
			continue
		}
		switch x.Why {
		case "ssh":
			propose(blueprint.LiveDependency{Name: safeName(x.Address), Kind: "tcp", Address: x.Address, Why: "the build fetches by ssh, which cannot be recorded"}, "fetch by https instead (git config url.https://….insteadOf), or confirm it under live_dependencies")
		case "tls-refused":
			c.attention(x.Address, "a program does not trust the recorder, so its download is not recorded", "tell the program to use the system's certificate authorities, or fetch the file another way")
		default:
			propose(blueprint.LiveDependency{Name: safeName(x.Address), Kind: "tcp", Address: x.Address, Why: "the build connects to this by a protocol that cannot be recorded (a licence server, a database?)"}, "if the release needs it, confirm it under live_dependencies (owner, expires, fallback) and remove \"proposed\"; else build without it")
		}
	}
	for _, o := range c.draft.Observation {
		if o.Class != blueprint.ClassLive {
			continue
		}
		kind, what := "unix", "the build talks to a service outside of it"
		if below(o.Path, "/dev") {
			kind, what = "device", "the build opened a device that cannot be captured"
		}
		if engine := containerEngine(o.Path); engine != "" {
			what = "the build uses the container engine " + engine + ", whose work is not seen"
		}
		propose(blueprint.LiveDependency{Name: safeName(path.Base(o.Path)), Kind: kind, Address: o.Path, Why: what}, "if the release needs it, confirm it under live_dependencies (owner, expires, fallback) and remove \"proposed\"; else build without it")
	}
}

func containerEngine(p string) string {
	for _, e := range []string{"docker", "podman", "containerd", "buildkit", "crio"} {
		if strings.Contains(p, e) {
			return e
		}
	}
	return ""
}

// merge is where captures of several builds become one machine.
func (c *capture) merge() error {
	if c.Into == nil {
		return nil
	}
	merged := *c.Into
	if err := merged.Merge(c.b); err != nil {
		return err
	}
	// Digests of what the other builds still need.
	for _, name := range merged.Names() {
		if c.draft.Sum[name] == "" {
			c.draft.Sum[name] = c.IntoSum[name]
		}
	}
	for name, digest := range c.IntoSum {
		if strings.HasPrefix(name, "downloads/bodies/") && c.draft.Sum[name] == "" && len(merged.Builds) > 1 {
			c.draft.Sum[name] = digest
		}
	}
	c.draft.Blueprint = &merged
	return nil
}

// Reference names the draft's originals in the depot.
func (d *Draft) tag(ctx context.Context) error {
	items := d.items
	for name, digest := range d.Sum {
		items = append(items, depot.Item{Name: name, Digest: digest})
	}
	files, err := d.files()
	if err != nil {
		return err
	}
	for file, data := range files {
		digest, err := d.depot.PutBytes(ctx, data)
		if err != nil {
			return err
		}
		items = append(items, depot.Item{Name: file, Digest: digest, Size: int64(len(data))})
	}
	slices.SortFunc(items, func(a, b depot.Item) int { return strings.Compare(a.Name, b.Name) })
	_, err = d.depot.Tag(ctx, d.Blueprint.Reference(), d.Blueprint.Captured, items)
	return err
}

// files renders the blueprint's own files.
func (d *Draft) files() (map[string][]byte, error) {
	yaml, err := d.Blueprint.Marshal()
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"blueprint.yaml": yaml, "blueprint.sum": d.Sum.Marshal(), "REBUILD.md": []byte(d.Blueprint.RebuildDocument())}, nil
}

// Write writes the blueprint's files below dir, each whole or not at all, and
// names the originals in the depot.
func (d *Draft) Write(ctx context.Context, dir string) error {
	if err := d.tag(ctx); err != nil {
		return err
	}
	files, err := d.files()
	if err != nil {
		return err
	}
	return writeFiles(dir, files, d.Config)
}
