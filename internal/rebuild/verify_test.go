package rebuild

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/blueprint"
)

const (
	emptySum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	otherSum = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
)

// smallRoot makes a small root: an empty file, a directory, links of every kind.
func smallRoot(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	root := filepath.Join(top, "root")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755), os.MkdirAll(filepath.Join(top, "host/etc"), 0o755),
		os.WriteFile(filepath.Join(root, "usr/bin/cc"), nil, 0o755), os.WriteFile(filepath.Join(top, "host/etc/only-here"), nil, 0o644),
		os.Symlink("usr/bin", filepath.Join(root, "bin")), os.Symlink("/usr/bin/cc", filepath.Join(root, "usr/bin/c99")),
		os.Symlink(filepath.Join(top, "host/etc"), filepath.Join(root, "etc")), os.Symlink("../host/etc", filepath.Join(root, "rel")),
	); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestVerify(t *testing.T) {
	root := smallRoot(t)
	for _, c := range []struct {
		name string
		o    blueprint.Observed
		what string
	}{
		{"a file", blueprint.Observed{Path: "/usr/bin/cc", Class: blueprint.ClassPackage, Item: "gcc:amd64", Type: "file", SHA256: emptySum}, ""},
		{"a file that was only looked at", blueprint.Observed{Path: "/usr/bin/cc", Class: blueprint.ClassPackage, Type: "file"}, ""},
		{"other content", blueprint.Observed{Path: "/usr/bin/cc", Class: blueprint.ClassPackage, Type: "file", SHA256: otherSum}, "has other content"},
		{"missing", blueprint.Observed{Path: "/usr/bin/ld", Class: blueprint.ClassPackage, Type: "file", SHA256: emptySum}, "is missing"},
		{"missing below a file", blueprint.Observed{Path: "/usr/bin/cc/x", Class: blueprint.ClassConfig, Type: "file"}, "is missing"},
		{"a directory", blueprint.Observed{Path: "/usr", Class: blueprint.ClassDirectory, Type: "dir"}, ""},
		{"the root", blueprint.Observed{Path: "/", Class: blueprint.ClassDirectory, Type: "dir"}, ""},
		{"a file for a directory", blueprint.Observed{Path: "/usr/bin/cc", Class: blueprint.ClassDirectory, Type: "dir"}, "is not a dir"},
		{"a directory for a file", blueprint.Observed{Path: "/usr/bin", Class: blueprint.ClassSoftware, Type: "file"}, "is not a file"},
		{"a link", blueprint.Observed{Path: "/bin", Class: blueprint.ClassPackage, Type: "link", Link: "usr/bin"}, ""},
		{"an absolute link", blueprint.Observed{Path: "/usr/bin/c99", Class: blueprint.ClassAlternative, Type: "link", Link: "/usr/bin/cc"}, ""},
		{"a link to elsewhere", blueprint.Observed{Path: "/usr/bin/c99", Class: blueprint.ClassAlternative, Type: "link", Link: "/usr/bin/clang"}, "leads to /usr/bin/cc, not to /usr/bin/clang"},
		{"a file for a link", blueprint.Observed{Path: "/usr/bin/cc", Class: blueprint.ClassPackage, Type: "link", Link: "gcc"}, "is not a link"},
		{"remade, other content", blueprint.Observed{Path: "/usr/bin/cc", Class: blueprint.ClassGenerated, Type: "file"}, ""},
		{"remade, another target", blueprint.Observed{Path: "/bin", Class: blueprint.ClassGenerated, Type: "link", Link: "x"}, ""},
		{"remade, and missing", blueprint.Observed{Path: "/x", Class: blueprint.ClassGenerated, Type: "file", Ops: "open"}, "is missing"},
		{"remade, missing, only looked at", blueprint.Observed{Path: "/x", Class: blueprint.ClassGenerated, Type: "file", Ops: "stat"}, ""},
		{"kept, missing, only looked at", blueprint.Observed{Path: "/x", Class: blueprint.ClassGenerated, Type: "file", Ops: "stat", SHA256: emptySum}, "is missing"},
		{"removed", blueprint.Observed{Path: "/usr/bin/gone", Class: blueprint.ClassConfig}, ""},
		{"removed, and there", blueprint.Observed{Path: "/usr/bin/cc", Class: blueprint.ClassConfig}, "is there, and was not on the captured machine"},
		{"made by the build", blueprint.Observed{Path: "/x", Class: blueprint.ClassTemporary}, ""},
		{"downloaded", blueprint.Observed{Path: "/x", Class: blueprint.ClassDownload}, ""},
		{"withheld", blueprint.Observed{Path: "/x", Class: blueprint.ClassSecret}, ""},
		// It is there on the machine that proves, and not in the root.
		{"only on this machine", blueprint.Observed{Path: "/etc/only-here", Class: blueprint.ClassConfig, Type: "file", SHA256: emptySum}, "is missing"},
		{"only on this machine, by a relative link", blueprint.Observed{Path: "/rel/only-here", Class: blueprint.ClassConfig, Type: "file", SHA256: emptySum}, "is missing"},
		{"climbs", blueprint.Observed{Path: "/../host/etc/only-here", Class: blueprint.ClassConfig, Type: "file", SHA256: emptySum}, "is missing"},
	} {
		list, err := Verify(root, []blueprint.Observed{c.o}, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		switch {
		case c.what == "" && len(list) != 0:
			t.Errorf("%s: %+v", c.name, list)
		case c.what != "" && (len(list) != 1 || !strings.HasPrefix(list[0].What, c.what) || list[0].Path != c.o.Path || list[0].Item != c.o.Provider()):
			t.Errorf("%s: %+v, want %q", c.name, list, c.what)
		}
	}
	missing := blueprint.Observed{Path: "/x", Class: blueprint.ClassConfig, Type: "file"}
	if list, err := Verify(root, []blueprint.Observed{missing}, map[string]bool{"/x": true}); err != nil || len(list) != 0 {
		t.Errorf("what no key opens is skipped: %+v %v", list, err)
	}
	if _, err := Verify(filepath.Join(root, "none"), nil, nil); err == nil {
		t.Error("a root that is not there has no deviation")
	}
}

func TestByItem(t *testing.T) {
	got := ByItem([]Deviation{{"/b", "package x", "is missing"}, {"/a", "package y", "is missing"}, {"/c", "package x", "has other content"}, {"/d", "config /d", "is missing"}})
	want := []Deviation{{"/d", "config /d", "is missing"}, {"/b", "package x", "is missing"}, {"/a", "package y", "is missing"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestDigest: the name of a root changes with everything that goes into it, and
// with nothing else.
func TestDigest(t *testing.T) {
	b := func() *blueprint.Blueprint {
		return &blueprint.Blueprint{
			Trysail: blueprint.Version, Name: "a", Machine: blueprint.Machine{Distribution: "debian", Architecture: "amd64", Hostname: "h", Kernel: "6.1"},
			Packages: []blueprint.Package{{Name: "x", Version: "1", Architecture: "all", File: "x.deb"}},
			Config:   []blueprint.File{{Path: "/etc/x", Mode: "0644", Owner: "root:root", SHA256: emptySum}},
			Users:    []blueprint.User{{Name: "root"}}, Builds: []blueprint.Build{{Name: "b"}},
		}
	}
	sums := func() blueprint.Sum { return blueprint.Sum{"deb/x.deb": emptySum, "config/etc/x": emptySum} }
	whole, err := Digest(b(), sums())
	if err != nil || len(whole) != 64 {
		t.Fatal(whole, err)
	}
	packages, err := PackagesDigest(b(), sums())
	if err != nil || packages == whole {
		t.Fatal(packages, err)
	}
	for _, c := range []struct {
		name            string
		change          func(*blueprint.Blueprint, blueprint.Sum)
		whole, packages bool // whether the digest changes
	}{
		{"nothing", func(b *blueprint.Blueprint, s blueprint.Sum) {}, false, false},
		{"another build", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Builds[0].Name = "c" }, false, false},
		{"another name", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Name = "c" }, false, false},
		{"facts", func(b *blueprint.Blueprint, s blueprint.Sum) {
			b.Machine.Kernel, b.Machine.CPU, b.Machine.Identity = "x", "y", "z"
		}, false, false},
		{"an unused original", func(b *blueprint.Blueprint, s blueprint.Sum) { s["source/b.tar.zst"] = otherSum }, false, false},
		{"a package's version", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Packages[0].Version = "2" }, true, true},
		{"a package's bytes", func(b *blueprint.Blueprint, s blueprint.Sum) { s["deb/x.deb"] = otherSum }, true, true},
		{"a user", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Users[0].UID = 1 }, true, true},
		{"the host's name", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Machine.Hostname = "i" }, true, true},
		{"a diversion", func(b *blueprint.Blueprint, s blueprint.Sum) {
			b.Diversions = []blueprint.Diversion{{From: "/a", To: "/b"}}
		}, true, true},
		{"a file's mode", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Config[0].Mode = "0600" }, true, false},
		{"a file's bytes", func(b *blueprint.Blueprint, s blueprint.Sum) { s["config/etc/x"] = otherSum }, true, false},
		{"software", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Software = []blueprint.Software{{Path: "/opt/x"}} }, true, false},
		{"an alternative", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Alternatives = []blueprint.Alternative{{Name: "cc"}} }, true, false},
		{"a directory", func(b *blueprint.Blueprint, s blueprint.Sum) { b.Directories = []blueprint.Directory{{Path: "/srv/x"}} }, true, false},
	} {
		b, s := b(), sums()
		c.change(b, s)
		w, werr := Digest(b, s)
		p, perr := PackagesDigest(b, s)
		if err := errors.Join(werr, perr); err != nil {
			t.Fatal(err)
		}
		if (w != whole) != c.whole || (p != packages) != c.packages {
			t.Errorf("%s: whole changed %v, packages changed %v; want %v, %v", c.name, w != whole, p != packages, c.whole, c.packages)
		}
	}
}
