package capture

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func listFiles(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		b.WriteString(strings.TrimPrefix(p, dir+"/") + "=" + string(data) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work/trysail")
	files := map[string][]byte{"blueprint.yaml": []byte("y1"), "blueprint.sum": []byte("s1"), "REBUILD.md": []byte("r1")}
	config := map[string][]byte{"config/etc/a.conf": []byte("a1"), "config/etc/deep/b": nil, "config/etc/c": {}}
	if err := writeFiles(dir, files, config, map[string]bool{"config/etc/c": true}); err != nil {
		t.Fatal(err)
	}
	if got, want := listFiles(t, dir), "REBUILD.md=r1\nblueprint.sum=s1\nblueprint.yaml=y1\nconfig/etc/a.conf=a1\nconfig/etc/c=\nconfig/etc/deep/b=\n"; got != want {
		t.Errorf("written\n%swant\n%s", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, "config/etc/a.conf"))
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "config/etc/c")); err != nil || info.Mode() != 0o600 {
		t.Errorf("a file that not everybody could read is now %v (%v)", info.Mode(), err)
	}
	// What the next capture no longer has goes; what people put beside it stays.
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "NOTES.md"), []byte("n"), 0o644), os.WriteFile(filepath.Join(dir, "config/stray"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	files["blueprint.yaml"] = []byte("y2")
	if err := writeFiles(dir, files, map[string][]byte{"config/etc/a.conf": []byte("a2")}, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := listFiles(t, dir), "NOTES.md=n\nREBUILD.md=r1\nblueprint.sum=s1\nblueprint.yaml=y2\nconfig/etc/a.conf=a2\n"; got != want {
		t.Errorf("written again\n%swant\n%s", got, want)
	}
	for _, bad := range []string{"../x", "/etc/x", "config/../../x"} {
		if err := writeFiles(dir, files, map[string][]byte{bad: []byte("bad")}, nil); err == nil {
			t.Errorf("%s is written", bad)
		}
	}
}

// TestWriteFilesTruthLast: blueprint.yaml is written after everything that it
// speaks of, so that a capture that is cut leaves the old truth.
func TestWriteFilesTruthLast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trysail")
	if err := writeFiles(dir, map[string][]byte{"blueprint.yaml": []byte("old")}, nil, nil); err != nil {
		t.Fatal(err)
	}
	// A directory where a file must go: writing ends there.
	if err := os.MkdirAll(filepath.Join(dir, "config/zzz/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := writeFiles(dir, map[string][]byte{"blueprint.yaml": []byte("new"), "blueprint.sum": []byte("new")}, map[string][]byte{"config/zzz": []byte("new")}, nil)
	if err == nil {
		t.Fatal("a file took a directory's place")
	}
	if got := listFiles(t, dir); !strings.Contains(got, "blueprint.yaml=old") || strings.Contains(got, ".new-") {
		t.Errorf("after a failure:\n%s", got)
	}
}

// TestWriteFilesLinks: root writes into somebody's working copy, and a link in
// there must not make it write, delete or give away anything elsewhere.
func TestWriteFilesLinks(t *testing.T) {
	top := t.TempDir()
	outside, dir := filepath.Join(top, "outside"), filepath.Join(top, "trysail")
	if err := errors.Join(os.MkdirAll(filepath.Join(outside, "etc"), 0o755), os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(outside, "etc/a.conf"), []byte("precious"), 0o600), os.WriteFile(filepath.Join(outside, "yaml"), []byte("precious"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, links := range map[string]map[string]string{
		"absolute": {"config": outside}, "relative": {"config": "../outside"}, "below": {"config/etc": filepath.Join(outside, "etc")}, "a file": {"blueprint.yaml": filepath.Join(outside, "yaml"), "config/etc/a.conf": filepath.Join(outside, "etc/a.conf")},
	} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		for at, to := range links {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, at)), 0o755), os.Symlink(to, filepath.Join(dir, at))); err != nil {
				t.Fatal(err)
			}
		}
		err := writeFiles(dir, map[string][]byte{"blueprint.yaml": []byte("y")}, map[string][]byte{"config/etc/a.conf": []byte("bad")}, nil)
		if (err == nil) != (name == "a file") { // the link itself is replaced
			t.Errorf("%s: %v", name, err)
		}
		if got, want := listFiles(t, outside), "etc/a.conf=precious\nyaml=precious\n"; got != want {
			t.Errorf("%s: outside\n%s", name, got)
		}
		if info, err := os.Stat(filepath.Join(outside, "etc/a.conf")); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: outside: %v %v", name, info, err)
		}
	}
}

// TestWriteFilesOwner: who owns the working copy can commit what root wrote.
func TestWriteFilesOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	work := t.TempDir()
	if err := os.Chown(work, 1234, 1235); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(work, "trysail")
	if err := writeFiles(dir, map[string][]byte{"blueprint.yaml": nil}, map[string][]byte{"config/etc/deep/a": nil}, nil); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 1235 {
			t.Errorf("%s belongs to %d:%d", p, st.Uid, st.Gid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
