package debian

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const status = `Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Priority: optional
Version: 2.36-9+deb12u8
Replaces: libc6-amd64
Depends: libgcc-s1, libcrypt1 (>= 1:4.4.10-10~)
Conffiles:
 /etc/ld.so.conf.d/x86_64-linux-gnu.conf d4e7a7b88a71b5ffd9e2644e71a0cfab
 /etc/with blank.conf 0123456789abcdef0123456789abcdef
 /etc/old.conf 0123456789abcdef0123456789abcdef obsolete
 /etc/older.conf 0123456789abcdef0123456789abcdef remove-on-upgrade
 /etc/new.conf newconffile
Description: GNU C Library
 with
 .
 several lines: and a colon

Package: dpkg
Essential: yes
Status: install ok triggers-pending
Architecture: amd64
Version: 1.21.22

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
`

func TestParseStatus(t *testing.T) {
	list, err := ParseStatus("status", []byte(status))
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %d packages", err, len(list))
	}
	p := list[0]
	if p.Key() != "libc6:amd64" || p.InfoName() != "libc6:amd64" || p.Version != "2.36-9+deb12u8" || p.Depends != "libgcc-s1, libcrypt1 (>= 1:4.4.10-10~)" || p.Replaces != "libc6-amd64" || p.Essential {
		t.Errorf("%+v", p)
	}
	want := map[string]string{"/etc/ld.so.conf.d/x86_64-linux-gnu.conf": "d4e7a7b88a71b5ffd9e2644e71a0cfab", "/etc/with blank.conf": "0123456789abcdef0123456789abcdef", "/etc/new.conf": "newconffile"}
	if !maps.Equal(p.Conffiles, want) {
		t.Errorf("conffiles %q, want %q", p.Conffiles, want)
	}
	if !strings.HasSuffix(string(p.Raw), " several lines: and a colon\n") || !strings.HasPrefix(string(p.Raw), "Package: libc6\n") {
		t.Errorf("raw paragraph %q", p.Raw)
	}
	if p := list[1]; !p.Essential || p.InfoName() != "dpkg" || !present(p.Status) {
		t.Errorf("%+v", p)
	}
	for s, want := range map[string]bool{"install ok installed": true, "hold ok installed": true, "install ok triggers-awaited": true, "install ok unpacked": false, "deinstall ok config-files": false, "install ok half-installed": false, "purge ok not-installed": false, "": false} {
		if present(s) != want {
			t.Errorf("present(%q) = %v", s, !want)
		}
	}
}

func TestParseStatusDamage(t *testing.T) {
	for _, c := range []struct {
		name, text, what string
		line             int
	}{
		{"torn", "Package: a\nVersion: 1\nStatus: install ok inst", "torn", 3},
		{"no name", "\n\nPackage: a\n\nVersion: 1\n", "Package field", 5},
		{"not a field", "Package: a\ngarbage\n", "not a field", 2},
		{"binary", "Package: a\n\x00\x00\x00\x00\n", "not a field", 2},
		{"a blank in a field's name", "Package: a\nFoo bar: x\n", "not a field", 2},
		{"continues nothing", " x\nPackage: a\n", "continuation", 1},
		{"twice", "Package: a\n\n\nPackage: b\nVersion: 1\nversion: 2\n", "twice", 6},
		{"name climbs", "Package: ../../etc/passwd\n", "not valid", 1},
		{"version climbs", "Package: a\nVersion: ../x\n", "not valid", 1},
		{"architecture with a line end", "Package: a\nArchitecture:\n amd64\n", "not valid", 1},
		{"version with a shell", "Package: a\nVersion: 1;reboot\n", "not valid", 1},
	} {
		list, err := ParseStatus("/var/lib/dpkg/status", []byte(c.text))
		var fe *FileError
		if !errors.As(err, &fe) || fe.Line != c.line || !strings.Contains(fe.What, c.what) || fe.File != "/var/lib/dpkg/status" || fe.Hint() == "" {
			t.Errorf("%s: %+v, %v; want line %d: %s", c.name, list, err, c.line, c.what)
		}
	}
	for _, text := range []string{"", "\n", "\n\n\n"} {
		if list, err := ParseStatus("status", []byte(text)); err != nil || len(list) != 0 {
			t.Errorf("%q: %+v, %v", text, list, err)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(status))
	f.Add([]byte("Package: a\nDepends: b [cinux-a-------------ny]\n")) // the library panics on it
	f.Add([]byte("Package: a\n\n\n\nPackage: b\nConffiles:\n /x y obsolete\n"))
	f.Add([]byte("Package: a\nDepends: b:any (>= 1~) [linux-any] <!nocheck> | c\nProvides: d (= 1)\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseStatus("fuzz", data)
		if err != nil {
			var fe *FileError
			if !errors.As(err, &fe) || fe.Line < 1 || fe.Line > 1+strings.Count(string(data), "\n") {
				t.Fatalf("%v", err)
			}
			return
		}
		db := &Database{byKey: map[string]*Package{}}
		for _, p := range list {
			if strings.ContainsAny(p.FileName(), "/\n ") {
				t.Fatalf("file name %q", p.FileName())
			}
			again, err := ParseStatus("again", p.Raw)
			if err != nil || len(again) != 1 || again[0].Key() != p.Key() || !maps.Equal(again[0].Conffiles, p.Conffiles) {
				t.Fatalf("its own paragraph is read as %+v, %v", again, err)
			}
			db.packages = append(db.packages, p)
			db.byKey[p.Key()] = p
		}
		var keys []string
		for _, p := range list {
			keys = append(keys, p.Key())
		}
		db.Closure(keys)
	})
}

func TestParseDiversions(t *testing.T) {
	list, err := ParseDiversions("d", []byte("/usr/bin/ld\n/usr/bin/ld.real\nbinutils-gold\n/etc/x\n/etc/x y\n:\n"))
	if err != nil || !slices.Equal(list, []Diversion{{"/usr/bin/ld", "/usr/bin/ld.real", "binutils-gold"}, {"/etc/x", "/etc/x y", ":"}}) {
		t.Errorf("%+v %v", list, err)
	}
	if list, err := ParseDiversions("d", nil); err != nil || list != nil {
		t.Errorf("none: %+v %v", list, err)
	}
	for text, line := range map[string]int{"/a\n/b\n": 2, "/a\n/b\n:\n/c\n": 4, "a\n/b\n:\n": 1, "/a\n/b\n:\n/a\nb\n:\n": 4, "/a\n/b\n\n\n/c\n:\n": 1} {
		list, err := ParseDiversions("d", []byte(text))
		var fe *FileError
		if !errors.As(err, &fe) || fe.Line != line {
			t.Errorf("%q: %+v, %v; want line %d", text, list, err, line)
		}
	}
}

// machine writes a root with dpkg's database.
func machine(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(to, p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOwners(t *testing.T) {
	files := map[string]string{
		"lib": "-> usr/lib", "bin": "-> usr/bin", "lib64": "-> elsewhere", "sbin/x": "",
		"var/lib/dpkg/status":                     status + "\nPackage: gold\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: binutils\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n",
		"var/lib/dpkg/info/libc6:amd64.list":      "/.\n/lib\n/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu/libc.so.6\n/etc/with blank.conf\n/lib64/ld.so\n",
		"var/lib/dpkg/info/libc6:amd64.md5sums":   "11111111111111111111111111111111  lib/x86_64-linux-gnu/libc.so.6\n",
		"var/lib/dpkg/info/dpkg.list":             "/.\n/usr/lib\n/usr/bin/dpkg\n/bin\n",
		"var/lib/dpkg/info/gold.list":             "/usr/bin/ld\n/usr/bin/gold\n",
		"var/lib/dpkg/info/binutils.list":         "/usr/bin/ld\n/etc/local\n",
		"var/lib/dpkg/info/binutils.md5sums":      "22222222222222222222222222222222  usr/bin/ld\n",
		"var/lib/dpkg/diversions":                 "/usr/bin/ld\n/bin/ld.bfd\ngold\n/etc/local\n/etc/local.dist\n:\n",
		"var/lib/dpkg/info/not-there.list":        "/x\n",
		"var/lib/dpkg/alternatives/cc":            "auto\n/usr/bin/cc\n\n/usr/bin/gcc\n20\n\n",
		"var/lib/dpkg/alternatives/gone":          "auto\n/usr/bin/gone\n\n\n",
		"var/lib/dpkg/alternatives/torn.dpkg-tmp": "au",
		"etc/alternatives/cc":                     "-> /usr/bin/gcc",
	}
	db, err := ReadDatabase(machine(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if got := db.Merged(); !slices.Equal(got, []string{"bin", "lib"}) {
		t.Errorf("merged %q", got)
	}
	if got := len(db.Installed()); got != 4 || db.Package("gone:amd64") != nil || db.Package("libc6:amd64") == nil {
		t.Errorf("%d packages are installed", got)
	}
	for _, c := range []struct {
		path, owners, md5 string
		conffile          bool
	}{
		{"/usr/lib/x86_64-linux-gnu/libc.so.6", "libc6:amd64", "11111111111111111111111111111111", false},
		{"/lib/x86_64-linux-gnu/libc.so.6", "libc6:amd64", "11111111111111111111111111111111", false},
		{"/lib/x86_64-linux-gnu/../x86_64-linux-gnu/libc.so.6", "libc6:amd64", "11111111111111111111111111111111", false},
		{"/lib64/ld.so", "libc6:amd64", "", false}, // a link, but not into /usr
		{"/usr/lib64/ld.so", "", "", false},
		{"/lib", "libc6:amd64", "", false},
		{"/usr/lib", "dpkg:amd64", "", false},
		{"/bin", "dpkg:amd64", "", false},
		{"/bin/dpkg", "dpkg:amd64", "", false},
		{"/etc/with blank.conf", "libc6:amd64", "0123456789abcdef0123456789abcdef", true},
		{"/usr/bin/ld", "gold:amd64", "", false},                                         // the diverter's own
		{"/usr/bin/ld.bfd", "binutils:amd64", "22222222222222222222222222222222", false}, // the diverted one, by its merged name
		{"/etc/local", "", "", false},
		{"/etc/local.dist", "binutils:amd64", "", false},
		{"/x", "", "", false},
		{"/", "", "", false},
	} {
		var keys []string
		owners := db.Owners(c.path)
		for _, o := range owners {
			keys = append(keys, o.Package.Key())
		}
		if got := strings.Join(keys, " "); got != c.owners {
			t.Errorf("%s belongs to %q, want %q", c.path, got, c.owners)
			continue
		}
		if len(owners) > 0 && (owners[0].MD5 != c.md5 || owners[0].Conffile != c.conffile) {
			t.Errorf("%s: %+v", c.path, owners[0])
		}
	}
	if got := db.Files(db.Package("binutils:amd64")); !slices.Equal(got, []string{"/usr/bin/ld.bfd", "/etc/local.dist"}) {
		t.Errorf("binutils has %q", got)
	}
	if len(db.Diversions()) != 2 {
		t.Errorf("diversions %+v", db.Diversions())
	}
	alts, err := ReadAlternatives(machine(t, files))
	if err != nil || len(alts) != 1 || alts[0].Value != "/usr/bin/gcc" || alts[0].Choice() == nil {
		t.Errorf("alternatives %+v %v", alts, err)
	}

	delete(files, "var/lib/dpkg/info/dpkg.list")
	lost, err := ReadDatabase(machine(t, files))
	if err != nil || len(lost.Lost()) != 1 || lost.Lost()[0].Name != "dpkg" {
		t.Fatalf("without a package's list: %v", err)
	}
	o := FetchOptions{Scratch: t.TempDir(), Log: slog.New(slog.DiscardHandler), Progress: func(int, int, string) {}}
	if _, err := FetchOriginals(t.Context(), lost, lost.Lost(), o, nil); err == nil || !strings.Contains(err.Error(), "lost the list of its files") {
		t.Errorf("an original without files: %v", err)
	}
	if _, err := ReadDatabase(t.TempDir()); err == nil || !strings.Contains(err.Error(), "Debian") {
		t.Errorf("without a database: %v", err)
	}
}

func TestParseAlternative(t *testing.T) {
	text := "manual\n/usr/bin/editor\neditor.1.gz\n/usr/share/man/man1/editor.1.gz\neditor.fr\n/usr/share/man/fr/editor.1.gz\n\n/bin/ed\n-100\n/usr/share/man/man1/ed.1.gz\n\n/usr/bin/vim.basic\n30\n/usr/share/man/man1/vim.1.gz\n/usr/share/man/fr/vim.1.gz\n\n"
	a, err := ParseAlternative("f", "editor", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if !a.Manual || a.Link != "/usr/bin/editor" || len(a.Slaves) != 2 || len(a.Choices) != 2 || a.Choices[0].Priority != -100 || a.Choices[1].Slaves[1] != "/usr/share/man/fr/vim.1.gz" || a.Choices[0].Slaves[1] != "" {
		t.Errorf("%+v", a)
	}
	a.Value = "/bin/ed"
	if c := a.Choice(); c == nil || c.Path != "/bin/ed" {
		t.Errorf("choice %+v", c)
	}
	a.Value = "/other"
	if a.Choice() != nil {
		t.Error("a link to elsewhere is a choice")
	}
	// No part of the file passes for the whole.
	for i := range len(text) - 1 {
		if got, err := ParseAlternative("f", "editor", []byte(text[:i])); err == nil && len(got.Choices) == 2 {
			t.Errorf("cut at %d of %d it is read: %+v", i, len(text), got)
		}
	}
	for name, bad := range map[string]string{
		"mode": "automatic\n/a\n\n\n", "link": "auto\na\n\n\n", "slave link": "auto\n/a\ns\nl\n\n\n", "choice": "auto\n/a\n\nb\n1\n\n", "priority": "auto\n/a\n\n/b\nhigh\n\n", "empty": "", "no end": "auto\n/a\n\n/b\n1\n",
	} {
		got, err := ParseAlternative("f", "x", []byte(bad))
		var fe *FileError
		if !errors.As(err, &fe) || fe.File != "f" || fe.Line == 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzParseAlternative(f *testing.F) {
	f.Add([]byte("auto\n/usr/bin/cc\ncc.1.gz\n/m/cc.1.gz\n\n/usr/bin/gcc\n20\n/m/gcc.1.gz\n\n"))
	f.Add([]byte("manual\n/a\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAlternative("f", "x", data)
		if err != nil {
			return
		}
		for _, c := range a.Choices {
			if len(c.Slaves) != len(a.Slaves) || !strings.HasPrefix(c.Path, "/") {
				t.Fatalf("%+v", a)
			}
		}
	})
}

func TestParseTriggers(t *testing.T) {
	got := ParseTriggers([]byte("# comment\n\ninterest /usr/share/man\n  interest-noawait  ldconfig \ninterest-await /x\nactivate ldconfig\nactivate-noawait y\ninterest\ninterest a b\n#interest z\n"))
	want := []Trigger{{"/usr/share/man", true}, {"ldconfig", false}, {"/x", true}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
