package tree

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNothingStaysOpen counts the descriptors of this process around every way to
// succeed and to fail.
func TestNothingStaysOpen(t *testing.T) {
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	both(t, func(t *testing.T, slow bool) {
		top := t.TempDir()
		dir := filepath.Join(top, "root")
		write(t, filepath.Join(dir, "d", "file"), "x")
		for name, target := range map[string]string{"d/up": "../..", "up": "../secret", "here": "d", "loop": "loop", "absolute": "/d", "d/back": "../here/file"} {
			link(t, target, filepath.Join(dir, name))
		}
		for _, r := range []rule{noLinks, inRoot} {
			for _, name := range []string{"d/file", "d/file/", "d/file/x", "d", ".", "", "\x00", "up", "here/file", "loop", "absolute/file", "d/back", "../../x", "d/up/d/file", "none/none"} {
				before := count()
				d, err := open(dir, r)
				if err != nil {
					t.Fatal(err)
				}
				d.slow = d.slow || slow
				_, _ = d.ReadFile(name, 100)
				_, _ = d.Lstat(name)
				_, _ = d.Readlink(name)
				_, _ = d.ReadDir(name)
				_ = d.Walk(name, func(*Entry) error { return nil })
				_ = d.MkdirAll(name, 0o755)
				_ = d.WriteFile(name+"-new", nil, 0o644)
				_ = d.Put(name+"-new", nil, 0o644)
				_ = d.Chmod(name, 0o755)
				_ = d.RemoveAll(name + "-new")
				_, _ = ReadFile(filepath.Join(dir, name), 100)
				_, _ = Stat(filepath.Join(dir, name))
				_ = MakeDir(filepath.Join(dir, name), 0o755)
				d.Close()
				if after := count(); after != before {
					t.Errorf("%q, rule %d: %d descriptors are open, %d were", name, r, after, before)
				}
			}
		}
	})
}
