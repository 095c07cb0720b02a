package capture

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/trace"
)

const (
	packaged = "11111111111111111111111111111111"
	changed  = "22222222222222222222222222222222"
	sha      = "3333333333333333333333333333333333333333333333333333333333333333"
)

// fake is a machine as attribution sees it: everything it answers is in maps.
type fake struct {
	stats   map[string]stat
	made    map[string]bool
	refused map[string]string // the call that was refused, by path
	md5     map[string]string
	broken  map[string]bool
	owned   map[string][]debian.Ownership
	younger map[string]bool
	large   map[string]bool
}

func newFake() *fake {
	f := &fake{stats: map[string]stat{}, made: map[string]bool{}, md5: map[string]string{}, broken: map[string]bool{}, owned: map[string][]debian.Ownership{}, large: map[string]bool{}, refused: map[string]string{}}
	gcc := &debian.Package{Name: "gcc", Architecture: "amd64"}
	ssl := &debian.Package{Name: "openssl", Architecture: "amd64"}
	for _, dir := range []string{"/usr", "/usr/bin", "/usr/lib", "/etc", "/etc/ssl", "/opt", "/var", "/var/lib"} {
		f.stats[dir] = stat{Type: "dir", Mode: fs.ModeDir | 0o755}
		f.owned[dir] = []debian.Ownership{{Package: gcc}, {Package: ssl}}
	}
	f.file("/usr/bin/gcc", packaged)
	f.owned["/usr/bin/gcc"] = []debian.Ownership{{Package: gcc, MD5: packaged}}
	f.file("/usr/bin/patched", changed)
	f.owned["/usr/bin/patched"] = []debian.Ownership{{Package: gcc, MD5: packaged}}
	f.file("/usr/bin/shared", changed)
	f.owned["/usr/bin/shared"] = []debian.Ownership{{Package: ssl, MD5: changed}, {Package: gcc, MD5: packaged}}
	f.file("/usr/lib/nosums.so", changed)
	f.owned["/usr/lib/nosums.so"] = []debian.Ownership{{Package: gcc}}
	f.file("/etc/ssl/openssl.cnf", changed)
	f.owned["/etc/ssl/openssl.cnf"] = []debian.Ownership{{Package: ssl, MD5: packaged, Conffile: true}}
	f.file("/etc/ssl/same.cnf", packaged)
	f.owned["/etc/ssl/same.cnf"] = []debian.Ownership{{Package: ssl, MD5: packaged, Conffile: true}}
	f.file("/usr/lib/broken", "")
	f.broken["/usr/lib/broken"] = true
	f.owned["/usr/lib/broken"] = []debian.Ownership{{Package: gcc, MD5: packaged}}
	f.stats["/usr/bin/cc"] = stat{Type: "link", Link: "/etc/alternatives/cc", Mode: fs.ModeSymlink | 0o777}
	f.stats["/etc/alternatives/cc"] = stat{Type: "link", Link: "/usr/bin/gcc", Mode: fs.ModeSymlink | 0o777}
	f.owned["/usr/bin/cc"] = nil
	f.stats["/usr/bin/turned-link"] = stat{Type: "link", Link: "/usr/local/bin/gcc"}
	f.file("/usr/bin/no-link", changed)
	f.file("/usr/bin/no-sum", changed)
	for _, p := range []string{"turned-link", "no-link", "no-sum", "removed"} {
		f.owned["/usr/bin/"+p] = []debian.Ownership{{Package: gcc}}
	}
	f.younger = map[string]bool{"/usr/bin/turned-link": true, "/usr/bin/no-link": true}
	f.stats["/srv"], f.stats["/opt"] = stat{Type: "link", Link: "/data/srv"}, stat{Type: "dir"}
	f.stats["/usr/bin/owned-link"] = stat{Type: "link", Link: "gcc"}
	f.owned["/usr/bin/owned-link"] = []debian.Ownership{{Package: gcc}}
	for _, p := range []string{"/etc/app.conf", "/opt/tool/bin/run", "/usr/local/bin/script", "/home/rel/.npmrc", "/home/rel/.config/tool/x", "/home/rel/sdk/bin/cc", "/home/rel/notes/todo", "/data/keys/list", "/etc/ld.so.cache", "/usr/lib/locale/locale-archive", "/srv/broken"} {
		f.file(p, changed)
	}
	f.broken["/srv/broken"] = true
	f.stats["/etc/huge.db"] = stat{Type: "file", Mode: 0o644, Size: 5 << 20}
	f.stats["/etc/applink"] = stat{Type: "link", Link: "/opt/tool/etc"}
	f.large["/home/rel/sdk"] = true
	f.stats["/srv/empty"] = stat{Type: "dir", Mode: fs.ModeDir | 0o755}
	f.stats["/var/lib/service.sock"] = stat{Type: "other"}
	f.stats["/run/docker.sock"] = stat{Type: "other"}
	f.stats["/dev/hidraw0"] = stat{Type: "other"}
	f.stats["/dev/null"] = stat{Type: "other"}
	f.stats["/dev/bus"] = stat{Type: "dir", Mode: fs.ModeDir}
	f.stats["/home/rel/age/out.o"] = stat{}
	f.made["/home/rel/age/out.o"], f.made["/usr/bin/installed"], f.made["/dev/made"] = true, true, true
	f.stats["/dev/made"] = stat{Type: "other"}
	f.stats["/tmp/x"] = stat{Type: "file"}
	f.file("/opt/versions/2/bin/run", "x")
	f.file("/home/rel/.pyenv/version", "x")
	f.file("/home/rel/.pyenv/versions/3/bin/python", "x")
	f.large["/home/rel/.pyenv/versions/3"] = true
	f.stats["/home/rel/sdk/lock"] = stat{Type: "file", Mode: 0o644}
	return f
}

func (f *fake) file(p, md5 string) {
	f.stats[p] = stat{Type: "file", Mode: 0o644, Size: 100}
	f.md5[p] = md5
}

func (f *fake) attributor() *attributor {
	w := world{
		stat: func(p string) stat { return f.stats[p] },
		may: func(p string) error {
			if op := f.refused[p]; op != "" {
				return &fs.PathError{Op: op, Path: p, Err: fs.ErrPermission}
			}
			return nil
		},
		made: func(p string) bool { return f.made[p] },
		sums: func(p string) (string, string, error) {
			if f.broken[p] {
				return "", "", errors.New("input/output error")
			}
			return f.md5[p], sha, nil
		},
		owners:  func(p string) []debian.Ownership { return f.owned[p] },
		younger: func(p string, by *debian.Package) (bool, error) { return f.younger[p], nil },
		large:   func(dir string) bool { return f.large[dir] },
		several: func(dir string) bool {
			return dir == "/opt/versions" || dir == "/home/rel/.pyenv" || dir == "/home/rel/.pyenv/versions"
		},
	}
	l := layout{
		workspace: "/home/rel/age", home: "/home/rel", tracked: map[string]bool{"main.go": true, "cmd": true}, outputs: []string{"dist/*.tar.gz"},
		scratch: []string{"/tmp", "/var/tmp"}, caches: []string{"/home/rel/.cache", "/home/rel/go/pkg/mod"}, masked: []string{"/var/lib/trysail"},
	}
	alts := []debian.Alternative{{Name: "cc", Link: "/usr/bin/cc", Slaves: []debian.SlaveLink{{Name: "cc.1", Link: "/usr/share/man/man1/cc.1"}}}}
	return newAttributor(w, l, []blueprint.IgnoreRule{{Name: "team", Glob: "/usr/bin/team-{a,b}", Why: "ours"}}, alts)
}

func TestAttribute(t *testing.T) {
	const open, exec, look = trace.OpOpen, trace.OpExec, trace.OpStat
	for _, c := range []struct {
		path  string
		ops   trace.Op
		class blueprint.Class
		item  string
		sum   bool // the observation holds the file's digest
	}{
		// Packages.
		{"/usr/bin/gcc", exec, blueprint.ClassPackage, "gcc:amd64", true},
		{"/usr/bin/gcc", look, blueprint.ClassPackage, "gcc:amd64", false},
		{"/usr/bin", look, blueprint.ClassPackage, "openssl:amd64", false},
		{"/usr/bin/owned-link", open, blueprint.ClassPackage, "gcc:amd64", false},
		// What the administrator made of a package's.
		{"/usr/bin/turned-link", open, blueprint.ClassConfig, "/usr/bin/turned-link", false},
		{"/usr/bin/no-link", exec, blueprint.ClassSoftware, "/usr/bin/no-link", true},
		{"/usr/bin/no-sum", exec, blueprint.ClassPackage, "gcc:amd64", true},
		{"/usr/bin/removed", look, blueprint.ClassConfig, "/usr/bin/removed", false},
		{"/srv", look, blueprint.ClassConfig, "/srv", false},
		{"/opt", look, blueprint.ClassSystem, "top-level", false},
		{"/usr/bin/shared", open, blueprint.ClassPackage, "openssl:amd64", true}, // the one whose bytes it has
		{"/usr/lib/nosums.so", open, blueprint.ClassPackage, "gcc:amd64", true},
		{"/etc/ssl/same.cnf", look, blueprint.ClassPackage, "openssl:amd64", true},
		// Changed.
		{"/usr/bin/patched", open, blueprint.ClassSoftware, "/usr/bin/patched", true},
		{"/usr/bin/patched", look, blueprint.ClassPackage, "gcc:amd64", false}, // nobody read it
		{"/etc/ssl/openssl.cnf", open, blueprint.ClassConfig, "/etc/ssl/openssl.cnf", true},
		{"/etc/ssl/openssl.cnf", look, blueprint.ClassConfig, "/etc/ssl/openssl.cnf", true}, // a setting, even if unread
		{"/usr/lib/broken", open, blueprint.ClassUnexplained, "", false},
		// Links that update-alternatives keeps.
		{"/usr/bin/cc", open, blueprint.ClassAlternative, "cc", false},
		{"/etc/alternatives/cc", trace.OpReadlink, blueprint.ClassAlternative, "cc", false},
		// Unowned.
		{"/etc/app.conf", open, blueprint.ClassConfig, "/etc/app.conf", true},
		{"/etc/app.conf", look, blueprint.ClassConfig, "/etc/app.conf", false},
		{"/etc/applink", open, blueprint.ClassConfig, "/etc/applink", false},
		{"/etc/huge.db", open, blueprint.ClassSoftware, "/etc/huge.db", true},
		{"/opt/tool/bin/run", exec, blueprint.ClassSoftware, "/opt/tool", true},
		{"/usr/local/bin/script", exec, blueprint.ClassSoftware, "/usr/local/bin/script", true},
		{"/data/keys/list", open, blueprint.ClassSoftware, "/data/keys", true},
		{"/home/rel/.npmrc", open, blueprint.ClassConfig, "/home/rel/.npmrc", true},
		{"/home/rel/.config/tool/x", open, blueprint.ClassConfig, "/home/rel/.config/tool/x", true},
		{"/home/rel/sdk/bin/cc", exec, blueprint.ClassSoftware, "/home/rel/sdk", true},
		{"/home/rel/notes/todo", open, blueprint.ClassConfig, "/home/rel/notes/todo", true},
		{"/opt/versions/2/bin/run", exec, blueprint.ClassSoftware, "/opt/versions/2", true},
		{"/home/rel/.pyenv/versions/3/bin/python", exec, blueprint.ClassSoftware, "/home/rel/.pyenv/versions/3", true},
		{"/home/rel/.pyenv/version", open, blueprint.ClassConfig, "/home/rel/.pyenv/version", true},
		{"/home/rel/sdk/lock", open | trace.OpWrite, blueprint.ClassIgnored, "lock", false},
		{"/srv/broken", open, blueprint.ClassUnexplained, "", false},
		{"/srv/empty", look, blueprint.ClassDirectory, "/srv/empty", false},
		// Generated.
		{"/etc/ld.so.cache", open, blueprint.ClassGenerated, "ld.so-cache", false},
		{"/usr/lib/locale/locale-archive", open, blueprint.ClassGenerated, "locale-archive", true},
		// The build's own.
		{"/home/rel/age", look, blueprint.ClassSource, "", false},
		{"/home/rel/age/main.go", open, blueprint.ClassSource, "", false},
		{"/home/rel/age/dist/age.tar.gz", open, blueprint.ClassOutput, "", false},
		{"/home/rel/age/out.o", open, blueprint.ClassTemporary, "", false},
		{"/home/rel/age/.config", open, blueprint.ClassMissing, "", false},
		{"/home/rel/age2", look, blueprint.ClassMissing, "", false}, // not the workspace
		{"/tmp/x", open, blueprint.ClassTemporary, "/tmp", false},
		{"/home/rel/.cache/go/x", open, blueprint.ClassDownload, "/home/rel/.cache", false},
		{"/usr/bin/installed", open, blueprint.ClassTemporary, "", false},
		{"/usr/bin/none", look, blueprint.ClassMissing, "", false},
		// The system's, and what is alive.
		{"/proc/self/maps", open, blueprint.ClassSystem, "kernel", false},
		{"/etc/resolv.conf", open, blueprint.ClassSystem, "resolver", false},
		{"/", look, blueprint.ClassSystem, "top-level", false},
		{"/dev/null", open, blueprint.ClassSystem, "device", false},
		{"/dev/bus", look, blueprint.ClassSystem, "device", false},
		{"/dev/nothing", look, blueprint.ClassSystem, "device", false},
		{"/dev/hidraw0", open, blueprint.ClassLive, "/dev/hidraw0", false},
		{"/dev/made", open, blueprint.ClassTemporary, "", false},
		{"/run/docker.sock", trace.OpConnect, blueprint.ClassLive, "/run/docker.sock", false},
		{"/run/docker.sock", look, blueprint.ClassSystem, "runtime", false},
		{"/var/lib/service.sock", trace.OpConnect, blueprint.ClassLive, "/var/lib/service.sock", false},
		// Ignored.
		{"/usr/bin/team-b", open, blueprint.ClassIgnored, "team", false},
		{"/var/lib/trysail/depot/x", open, blueprint.ClassIgnored, "trysail", false},
		{"/var/lib/trysailor", look, blueprint.ClassMissing, "", false},
		{"/var/log/apt/history.log", open, blueprint.ClassIgnored, "logs", false},
	} {
		a := newFake().attributor()
		o := a.attribute(trace.Access{Path: c.path, Ops: c.ops, Found: a.stat(c.path).Type != ""})
		if o.Class != c.class || o.Item != c.item {
			t.Errorf("%s (%v) is %s %q (%s), want %s %q", c.path, c.ops, o.Class, o.Item, o.Why, c.class, c.item)
		}
		if o.Path != c.path || o.Why == "" || o.Ops != c.ops.String() {
			t.Errorf("%s: %+v", c.path, o)
		}
		if (o.SHA256 != "") != c.sum || (c.sum && o.SHA256 != "sha256:"+sha) {
			t.Errorf("%s (%v) has the digest %q", c.path, c.ops, o.SHA256)
		}
		if !o.Provided() && o.Type+o.Mode+o.Link != "" {
			t.Errorf("%s says what it was, and no machine must provide it: %+v", c.path, o)
		}
	}
}

// TestAttributeRefused: of what the build's user may not read nothing is known but
// its name, and of a closed directory not even whether it holds the path.
func TestAttributeRefused(t *testing.T) {
	f := newFake()
	for _, p := range []string{"/etc/app.conf", "/usr/bin/gcc", "/etc/ssl/openssl.cnf", "/etc/ld.so.cache", "/opt/tool/bin/run", "/usr/lib/locale/locale-archive"} {
		f.refused[p] = "open"
	}
	f.file("/etc/closed/there", changed)
	f.refused["/etc/closed/there"], f.refused["/etc/closed/none"] = "lstat", "lstat"
	for _, c := range []struct {
		path  string
		done  trace.Op
		class blueprint.Class
		item  string
	}{
		{"/etc/app.conf", 0, blueprint.ClassRefused, "/etc/app.conf"},
		{"/opt/tool/bin/run", trace.OpExec, blueprint.ClassRefused, "/opt/tool/bin/run"},
		{"/usr/lib/locale/locale-archive", 0, blueprint.ClassRefused, "/usr/lib/locale/locale-archive"},
		{"/etc/closed/there", 0, blueprint.ClassRefused, "/etc/closed"},
		{"/etc/closed/none", 0, blueprint.ClassRefused, "/etc/closed"},
		{"/usr/bin/gcc", trace.OpExec, blueprint.ClassPackage, "gcc:amd64"},
		{"/etc/ssl/openssl.cnf", 0, blueprint.ClassPackage, "openssl:amd64"},
		// A set-user-ID program read it for the user.
		{"/etc/ssl/openssl.cnf", trace.OpOpen, blueprint.ClassRefused, "/etc/ssl/openssl.cnf"},
		{"/etc/ld.so.cache", 0, blueprint.ClassGenerated, "ld.so-cache"},
	} {
		o := f.attributor().attribute(trace.Access{Path: c.path, Ops: trace.OpOpen | c.done, Done: c.done, Refused: c.done == 0, Found: c.done != 0})
		if o.Class != c.class || o.Item != c.item || o.SHA256 != "" || !o.Provided() && o.Type+o.Mode+o.Link != "" {
			t.Errorf("%s: %+v, want %s %s", c.path, o, c.class, c.item)
		}
	}
}

func TestModeText(t *testing.T) {
	for mode, want := range map[fs.FileMode]string{0: "0000", 0o755: "0755", 0o640: "0640", fs.ModeSetuid | 0o755: "4755", fs.ModeSetgid | fs.ModeSticky | 0o777: "3777", fs.ModeDir | 0o700: "0700"} {
		if got := modeText(mode); got != want {
			t.Errorf("%v is %s, want %s", mode, got, want)
		}
	}
}

// TestPhysical: every link on the way is a path of its own, and a program's
// loader is one that the kernel opened.
func TestPhysical(t *testing.T) {
	links := map[string]string{"/bin": "usr/bin", "/usr/bin/cc": "/etc/alternatives/cc", "/etc/alternatives/cc": "/usr/bin/gcc", "/lib64": "usr/lib64", "/loop": "loop"}
	list := physical([]trace.Access{
		{Path: "/bin/cc", Ops: trace.OpExec, Found: true},
		{Path: "/usr/bin/../bin/gcc", Ops: trace.OpStat, Found: true},
		{Path: "/usr/bin/none", Ops: trace.OpStat, Missing: true},
		{Path: "/loop/x", Ops: trace.OpOpen, Missing: true},
	}, func(p string) (string, bool) { to, ok := links[p]; return to, ok }, func(p string) string {
		if p == "/usr/bin/gcc" {
			return "/lib64/ld.so"
		}
		return ""
	})
	got := map[string]trace.Access{}
	for _, a := range list {
		got[a.Path] = a
	}
	for p, ops := range map[string]trace.Op{"/bin": trace.OpReadlink, "/usr/bin/cc": trace.OpReadlink, "/etc/alternatives/cc": trace.OpReadlink, "/usr/bin/gcc": trace.OpExec | trace.OpStat, "/lib64": trace.OpReadlink, "/usr/lib64/ld.so": trace.OpOpen, "/usr/bin/none": trace.OpStat} {
		if a, ok := got[p]; !ok || a.Ops != ops || a.Found == (p == "/usr/bin/none") {
			t.Errorf("%s: %+v, want %v", p, a, ops)
		}
	}
	if !slices.IsSortedFunc(list, func(a, b trace.Access) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("not in order")
	}
}

func TestLoader(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"script": "#!/bin/sh\n", "empty": "", "torn": "\x7fELF\x02\x01\x01"} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := loader(p); got != "" {
			t.Errorf("%s has the loader %q", name, got)
		}
	}
	if got := loader(filepath.Join(dir, "none")); got != "" {
		t.Errorf("a file that is not there has the loader %q", got)
	}
	if _, err := os.Stat("/bin/true"); err == nil {
		if got := loader("/bin/true"); got != "" && !filepath.IsAbs(got) {
			t.Errorf("/bin/true has the loader %q", got)
		}
	}
}

func TestTreeRoot(t *testing.T) {
	owned := func(dir string) bool {
		return slices.Contains([]string{"/opt", "/usr", "/usr/local", "/usr/local/bin", "/home", "/home/rel"}, dir)
	}
	for p, want := range map[string]string{
		"/opt/a/b/c": "/opt/a", "/opt/a": "/opt/a", "/data/a/b": "/data/a", "/data": "/data", "/usr/local/bin/x": "/usr/local/bin/x", "/usr/local/go/bin/go": "/usr/local/go",
		"/home/rel/src/age/x": "/home/rel/src/age/x", "/home/rel/src/other/x": "/home/rel/src/other", "/build/w/s/x": "/build/w/s/x", "/build/w2/x": "/build/w2",
	} {
		if got := treeRoot(p, owned, []string{"/home/rel/src/age/x/y", "/home/rel", "/build/w/s/x/z"}); got != want {
			t.Errorf("%s belongs to the tree %s, want %s", p, got, want)
		}
	}
}

// TestRules: each glob is one, and no rule is shadowed by a name used twice.
func TestRules(t *testing.T) {
	names := map[string]bool{}
	for _, r := range slices.Concat(generatedRules(), ignoredRules(), systemRules()) {
		if names[r.name] || r.name == "" || r.why == "" || len(r.globs) == 0 {
			t.Errorf("rule %+v has no name of its own, no reason or no glob", r)
		}
		names[r.name] = true
		for _, g := range r.globs {
			if !strings.HasPrefix(g, "/") || strings.Count(g, "{") != strings.Count(g, "}") {
				t.Errorf("rule %s: glob %q", r.name, g)
			}
		}
	}
	for p, want := range map[string]string{
		"/etc/passwd-": "users", "/etc/passwd.bak": "", "/usr/lib/python3/dist-packages/__pycache__/a.pyc": "python-bytecode", "/var/lib/dpkg/status": "dpkg-database", "/etc/ssl/certs": "trust-store", "/etc/ssl/certs/ca.pem": "trust-store", "/etc/ssl/openssl.cnf": "", "/usr/share/mime/x/y": "shared-mime", "/var/lib/systemd": "system-state", "/opt/x/__pycache__/a.pyc": "",
	} {
		got := ""
		if r := matchRule(generatedRules(), p); r != nil {
			got = r.name
		}
		if got != want {
			t.Errorf("%s: rule %q, want %q", p, got, want)
		}
	}
	for _, c := range []struct {
		p, dir string
		want   bool
	}{{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/", "/", true}, {"/x", "/", true}, {"/a", "/a/b", false}} {
		if below(c.p, c.dir) != c.want {
			t.Errorf("below(%q, %q) = %v", c.p, c.dir, !c.want)
		}
	}
}

func TestTreeFile(t *testing.T) {
	var have []blueprint.Software
	for _, c := range []struct{ tree, want string }{
		{"/opt/tool", "opt-tool.tar.zst"}, {"/opt-tool", "opt-tool-2.tar.zst"}, {"/opt/tool-2", "opt-tool-2-2.tar.zst"}, {"/opt/My Tool (x)", "opt-My-Tool--x-.tar.zst"}, {"/opt/größe", "opt-gr--e.tar.zst"}, {"/...", "tree.tar.zst"}, {"/.hidden", "hidden.tar.zst"},
	} {
		got := treeFile(c.tree, have)
		if got != c.want {
			t.Errorf("%s is kept as %s, want %s", c.tree, got, c.want)
		}
		have = append(have, blueprint.Software{Path: c.tree, File: got})
	}
	b := blueprint.Blueprint{Software: have}
	if err := b.Validate(); err != nil && strings.Contains(err.Error(), "software") {
		t.Error(err)
	}
}
