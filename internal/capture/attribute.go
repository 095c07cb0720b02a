package capture

import (
	"debug/elf"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/trace"
	"trysail/internal/tree"
)

// stat is what attribution needs to know of a path.
type stat struct {
	Type     string // file, dir, link, other; "" when it is not there
	Mode     fs.FileMode
	Size     int64
	Owner    string // user:group
	Modified time.Time
	Link     string
	Err      error // why it could not be looked at, though it may be there
}

// world is what attribution asks about the machine. It is an interface of
// functions so that the rules can be tested on tables.
type world struct {
	// stat looks at the machine as it was before the build.
	stat func(p string) stat
	// may says why the build's user cannot read a file, or see what is no file;
	// nil where they can. It is the kernel's answer (fs.ErrPermission).
	may func(p string) error
	// made tells that the build made or changed the path.
	made func(p string) bool
	// sums hashes a regular file of the machine.
	sums func(p string) (md5, sha256 string, err error)
	// owners asks dpkg.
	owners func(p string) []debian.Ownership
	// younger tells that a file or link was put there after its package was unpacked.
	younger func(p string, by *debian.Package) (bool, error)
	// large tells that an unowned tree is software rather than settings: it
	// holds programs, or more than anyone writes by hand.
	large func(dir string) bool
	// several tells a large directory of installations, each of which is a tree.
	several func(dir string) bool
}

// layout is where the build's own places are.
type layout struct {
	workspace string
	home      string
	tracked   map[string]bool // files of the source, relative to the workspace
	outputs   []string        // globs relative to the workspace
	scratch   []string        // temporary directories, empty when the build began
	caches    []string
	masked    []string // Trysail's own
}

// attributor puts each path into exactly one class.
type attributor struct {
	world
	layout
	ignore       []blueprint.IgnoreRule
	alternatives map[string]debian.Alternative // by any link that belongs to it
	generated    []rule
	system       []rule
}

func newAttributor(w world, l layout, ignore []blueprint.IgnoreRule, alts []debian.Alternative) *attributor {
	a := &attributor{world: w, layout: l, ignore: ignore, alternatives: map[string]debian.Alternative{}, generated: generatedRules(), system: systemRules()}
	for _, alt := range alts {
		a.alternatives[alt.Link] = alt
		a.alternatives["/etc/alternatives/"+alt.Name] = alt
		for _, s := range alt.Slaves {
			a.alternatives[s.Link] = alt
			a.alternatives["/etc/alternatives/"+s.Name] = alt
		}
	}
	return a
}

// attribute classifies one physical path. The order of the questions is the
// rule: the first that applies decides.
func (a *attributor) attribute(acc trace.Access) blueprint.Observed {
	p := acc.Path
	st := a.stat(p)
	o := blueprint.Observed{Path: p, Ops: acc.Ops.String(), Type: st.Type, Link: st.Link}
	if st.Type != "" && st.Type != "link" {
		o.Mode = modeText(st.Mode)
	}
	set := func(c blueprint.Class, item, why string) blueprint.Observed {
		o.Class, o.Item, o.Why = c, item, why
		if !o.Provided() {
			o.Type, o.Mode, o.Link, o.SHA256 = "", "", "", ""
		}
		return o
	}
	for _, r := range a.ignore {
		if ok, err := doublestar.Match(r.Glob, p); err == nil && ok {
			return set(blueprint.ClassIgnored, r.Name, "ignored by the blueprint's rule "+r.Name+": "+r.Why)
		}
	}
	if below(p, "/etc/ssl/certs") && path.Base(st.Link) == "ssl-cert-snakeoil.pem" {
		return set(blueprint.ClassIgnored, "snakeoil", "a link to the certificate that ssl-cert makes for this host")
	}
	if r := matchRule(ignoredRules(), p); r != nil {
		return set(blueprint.ClassIgnored, r.name, r.why)
	}
	for _, m := range a.masked {
		if below(p, m) {
			return set(blueprint.ClassIgnored, "trysail", "Trysail's own directory, hidden from the build")
		}
	}
	if below(p, a.workspace) {
		return a.inWorkspace(p, set)
	}
	for _, dir := range a.scratch {
		if below(p, dir) {
			return set(blueprint.ClassTemporary, dir, "in a temporary directory that was empty when the build began")
		}
	}
	for _, dir := range a.caches {
		if below(p, dir) {
			return set(blueprint.ClassDownload, dir, "in a cache that was empty when the build began")
		}
	}
	if below(p, "/dev") {
		if matchAny(standardDevices(), p) || st.Type == "dir" || st.Type == "" {
			return set(blueprint.ClassSystem, "device", "every machine has it")
		}
		if a.made(p) {
			return set(blueprint.ClassTemporary, "", "made by the build")
		}
		if acc.Ops&trace.OpOpen == 0 {
			return set(blueprint.ClassSystem, "device", "a device node that was looked at and not opened")
		}
		return set(blueprint.ClassLive, p, "a device node: hardware cannot be captured")
	}
	if a.link(p, st) {
		return set(blueprint.ClassConfig, p, "a link in place of a directory")
	}
	if r := matchRule(a.system, p); r != nil {
		if r.name == "runtime" && st.Type == "other" && acc.Found && acc.Ops&trace.OpConnect != 0 {
			return set(blueprint.ClassLive, p, "a socket of a service that runs outside of the build")
		}
		return set(blueprint.ClassSystem, r.name, r.why)
	}
	if errors.Is(a.may(p), fs.ErrPermission) && !(st.Type == "" && a.made(p)) {
		return a.refused(p, st, acc, set)
	}
	if st.Err != nil && acc.Found && !a.made(p) {
		return set(blueprint.ClassUnexplained, "", st.Err.Error())
	}
	if st.Type == "" {
		if a.made(p) || acc.Found {
			return set(blueprint.ClassTemporary, "", "made by the build")
		}
		if owners := a.owners(p); len(owners) > 0 {
			return set(blueprint.ClassConfig, p, removed(owners))
		}
		return set(blueprint.ClassMissing, "", "looked for, and not on the machine")
	}
	if st.Type == "other" {
		return set(blueprint.ClassLive, p, "a socket or pipe of a service that runs outside of the build")
	}
	if alt, ok := a.alternatives[p]; ok && st.Type == "link" {
		return set(blueprint.ClassAlternative, alt.Name, "kept by update-alternatives")
	}
	if owners := a.owners(p); len(owners) > 0 {
		return a.owned(p, st, acc, owners, &o, set)
	}
	if r := matchRule(a.generated, p); r != nil {
		if !r.remade && st.Type == "file" {
			if err := a.hash(&o, acc); err != nil {
				return set(blueprint.ClassUnexplained, "", err.Error())
			}
		}
		return set(blueprint.ClassGenerated, r.name, r.why)
	}
	if st.Type == "dir" {
		return set(blueprint.ClassDirectory, p, "a directory that no package owns")
	}
	return a.unowned(p, st, acc, &o, set)
}

// link tells a link that the administrator made in place of a directory of every system, or
// of a home.
func (a *attributor) link(p string, st stat) bool {
	r := matchRule(a.system, p)
	return st.Type == "link" && (r != nil && r.name == "top-level" || p == a.home || path.Dir(p) == "/home")
}

// removed says why a path that packages own is kept as absent.
func removed(owners []debian.Ownership) string {
	return "removed since " + owners[len(owners)-1].Package.Name + " was installed"
}

// refused classifies a path that the build's user may not read. Nothing of it is
// kept or hashed, and it does not say whether anything is there.
func (a *attributor) refused(p string, st stat, acc trace.Access, set func(blueprint.Class, string, string) blueprint.Observed) blueprint.Observed {
	if r := matchRule(a.generated, p); r != nil && r.remade {
		return set(blueprint.ClassGenerated, r.name, r.why)
	}
	// A program with more rights than the user (set-user-ID) may have read it.
	if owners := a.owners(p); len(owners) > 0 && (st.Type != "file" || acc.Done&trace.OpOpen == 0) {
		item := owners[len(owners)-1].Package.Key()
		return set(blueprint.ClassPackage, item, "owned by "+item+"; the build's user may not read it, so it is not compared")
	}
	if dir := closedAbove(p, a.may); dir != "" {
		return set(blueprint.ClassRefused, dir, "the build's user may not enter "+dir)
	}
	return set(blueprint.ClassRefused, p, notForUser)
}

// closedAbove finds the directory on the way to p that the user may not enter,
// "" where the path itself is refused.
func closedAbove(p string, may func(p string) error) string {
	for _, q := range append(parents(p), p) {
		var at *fs.PathError
		if err := may(q); errors.Is(err, fs.ErrPermission) && errors.As(err, &at) && at.Op == "lstat" {
			return path.Dir(q)
		}
	}
	return ""
}

func (a *attributor) inWorkspace(p string, set func(blueprint.Class, string, string) blueprint.Observed) blueprint.Observed {
	rel := strings.TrimPrefix(strings.TrimPrefix(p, a.workspace), "/")
	switch {
	case rel == "" || a.tracked[rel]:
		return set(blueprint.ClassSource, "", "in the checked-out revision")
	case matchAny(a.outputs, rel):
		return set(blueprint.ClassOutput, "", "matches an output glob")
	case a.made(p):
		return set(blueprint.ClassTemporary, "", "made by the build in its workspace")
	default:
		return set(blueprint.ClassMissing, "", "looked for in the workspace, and not in the revision")
	}
}

func (a *attributor) owned(p string, st stat, acc trace.Access, owners []debian.Ownership, o *blueprint.Observed, set func(blueprint.Class, string, string) blueprint.Observed) blueprint.Observed {
	// A package that is split keeps the name of the one whose file it is now.
	own := owners[len(owners)-1]
	item := own.Package.Key()
	if st.Type == "dir" {
		return set(blueprint.ClassPackage, item, "owned by "+item)
	}
	// Dpkg keeps no sum of a link, nor of what old packages brought.
	younger := false
	if st.Type == "link" || own.MD5 == "" {
		var err error
		if younger, err = a.younger(p, own.Package); err != nil {
			return set(blueprint.ClassUnexplained, "", err.Error())
		}
	}
	why := "changed since " + own.Package.Name + " was installed"
	if st.Type == "link" {
		if younger {
			return set(blueprint.ClassConfig, p, why)
		}
		return set(blueprint.ClassPackage, item, "owned by "+item)
	}
	if acc.Ops&(trace.OpOpen|trace.OpExec) == 0 && !own.Conffile {
		return set(blueprint.ClassPackage, item, "owned by "+item)
	}
	md5, sha, err := a.sums(p)
	if err != nil {
		return set(blueprint.ClassUnexplained, "", err.Error())
	}
	o.SHA256 = "sha256:" + sha
	for _, x := range owners {
		if x.MD5 == md5 || x.MD5 == "" && !younger {
			return set(blueprint.ClassPackage, x.Package.Key(), "owned by "+x.Package.Key())
		}
	}
	if r := matchRule(a.generated, p); r != nil {
		if r.remade {
			o.SHA256 = ""
		}
		return set(blueprint.ClassGenerated, r.name, r.why)
	}
	if own.Conffile {
		return set(blueprint.ClassConfig, p, "changed conffile of "+own.Package.Name)
	}
	if a.settings(p) {
		return set(blueprint.ClassConfig, p, why)
	}
	return set(blueprint.ClassSoftware, p, why)
}

func (a *attributor) hash(o *blueprint.Observed, acc trace.Access) error {
	if acc.Ops&(trace.OpOpen|trace.OpExec) == 0 {
		return nil
	}
	_, sha, err := a.sums(o.Path)
	if err == nil {
		o.SHA256 = "sha256:" + sha
	}
	return err
}

// settings tells that a path is where people and programs keep settings.
func (a *attributor) settings(p string) bool {
	if below(p, "/etc") {
		return true
	}
	if !below(p, a.home) {
		return false
	}
	rel := strings.TrimPrefix(p, a.home+"/")
	if !strings.Contains(rel, "/") {
		return true
	}
	return matchAny([]string{".config/**", ".ssh/**", ".gnupg/**", ".m2/*", ".gradle/*", ".cargo/config*", ".docker/**", ".aws/**", ".kube/**", ".subversion/**", ".git-templates/**"}, rel)
}

func (a *attributor) unowned(p string, st stat, acc trace.Access, o *blueprint.Observed, set func(blueprint.Class, string, string) blueprint.Observed) blueprint.Observed {
	if st.Type == "file" && st.Size == 0 && acc.Ops&trace.OpWrite != 0 {
		return set(blueprint.ClassIgnored, "lock", "an empty file that the build itself opens to write: a lock")
	}
	if st.Type == "file" {
		// Configuration is kept even where it was only looked for: its being
		// there is a setting.
		if err := a.hash(o, acc); err != nil {
			return set(blueprint.ClassUnexplained, "", err.Error())
		}
	}
	const most = 1 << 20
	if a.settings(p) && (st.Type == "link" || st.Size <= most) {
		return set(blueprint.ClassConfig, p, "unowned")
	}
	top := treeRoot(p, a.standing, []string{a.workspace, a.home})
	if below(p, a.home) && st.Type == "file" && !a.large(top) {
		return set(blueprint.ClassConfig, p, "unowned")
	}
	return set(blueprint.ClassSoftware, top, "no package owns it")
}

// standing tells the directories that packages own or that every system has:
// a tree of software begins below them.
func (a *attributor) standing(dir string) bool {
	return len(a.owners(dir)) > 0 || matchAny([]string{
		"/{opt,srv,home,root,mnt,media,data}", "/home/*", "/usr/local", "/usr/local/{bin,sbin,lib,lib32,lib64,libexec,share,include,etc,games,src,man}",
		"/usr/local/share/{man,man/*,info,doc,bash-completion,bash-completion/*,fonts,perl,pkgconfig,aclocal,icons,applications}", "/usr/local/lib/{pkgconfig,systemd,*-linux-gnu*}", "/usr/local/man/*",
		"/usr/local/lib/python3*", "/usr/local/lib/python3*/{site,dist}-packages", "/var/{lib,cache,opt,www}", "/etc/**",
	}, dir) || dir == a.home || below(a.home, dir) || a.several(dir)
}

func modeText(m fs.FileMode) string {
	n := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		n |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		n |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		n |= 0o1000
	}
	const digits = "01234567"
	return string([]byte{digits[n>>9&7], digits[n>>6&7], digits[n>>3&7], digits[n&7]})
}

// physical merges the accesses of a trace into one for each physical path: the
// links on the way to a file are paths that the build depends on as well.
func physical(seen []trace.Access, readlink func(string) (string, bool), interpreter func(p string) string) []trace.Access {
	m := map[string]*trace.Access{}
	add := func(p string, a trace.Access) {
		x := m[p]
		if x == nil {
			x = &trace.Access{Path: p}
			m[p] = x
		}
		x.Ops, x.Done = x.Ops|a.Ops, x.Done|a.Done
		x.Found, x.Missing, x.Refused = x.Found || a.Found, x.Missing || a.Missing, x.Refused || a.Refused
	}
	var put func(a trace.Access)
	put = func(a trace.Access) {
		names := trace.Names(a.Path, readlink)
		for i, n := range names {
			if i < len(names)-1 {
				add(n, trace.Access{Ops: trace.OpReadlink, Done: trace.OpReadlink, Found: true})
				continue
			}
			add(n, a)
			if a.Ops&trace.OpExec != 0 && a.Found {
				// The kernel itself opens an executable's loader.
				if ld := interpreter(n); ld != "" && (m[ld] == nil || m[ld].Ops&trace.OpOpen == 0) {
					put(trace.Access{Path: ld, Ops: trace.OpOpen, Done: trace.OpOpen, Found: true})
				}
			}
		}
	}
	for _, a := range seen {
		put(a)
	}
	list := make([]trace.Access, 0, len(m))
	for _, a := range m {
		list = append(list, *a)
	}
	slices.SortFunc(list, func(a, b trace.Access) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// loader reads the name of an ELF file's interpreter, "" if it has none.
func loader(file string) string {
	in, err := tree.OpenFile(file)
	if err != nil {
		return "" // the build has put something else there
	}
	defer in.Close()
	f, err := elf.NewFile(in)
	if err != nil {
		return ""
	}
	for _, prog := range f.Progs {
		if prog.Type != elf.PT_INTERP || prog.Filesz > 4096 {
			continue
		}
		data := make([]byte, prog.Filesz)
		if _, err := prog.ReadAt(data, 0); err != nil {
			return ""
		}
		if name := strings.TrimRight(string(data), "\x00"); path.IsAbs(name) {
			return name
		}
	}
	return ""
}
