package build

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/blueprint"
	"trysail/release"
)

// TestCollect: what a step hands on is what it made: modes with their setuid bits, empty
// files and directories, links, any name that is text.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"obj/tool", "obj/suid", "obj/private", "obj/.hidden", "obj/sub/deep", "obj/two words", "obj/[x]*?", "obj/a\nb", `obj/x\x2dy`, "src/x"} {
		put(t, filepath.Join(dir, n), "x")
	}
	for name, mode := range map[string]fs.FileMode{"tool": 0o755, "suid": 0o755 | fs.ModeSetuid | fs.ModeSetgid, "private": 0o600} {
		if err := os.Chmod(filepath.Join(dir, "obj", name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{"obj/empty": 0o700, "obj/sticky": 0o777 | fs.ModeSticky, "src/none": 0o755} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nowhere", dir+"/obj/dangling"); err != nil {
		t.Fatal(err)
	}
	got, err := Collect(dir, []string{"obj/**", "obj/*", "none/*"}, Limits{Files: 100, Bytes: 1 << 20}, release.CheckPath)
	if err != nil {
		t.Fatal(err)
	}
	var modes []string
	for _, o := range got.Files {
		modes = append(modes, o.Mode+" "+o.Path)
	}
	if want := []string{"0644 obj/.hidden", "0644 obj/[x]*?", "0644 obj/a\nb", " obj/dangling", "0600 obj/private", "0644 obj/sub/deep", "6755 obj/suid", "0755 obj/tool", "0644 obj/two words", `0644 obj/x\x2dy`}; !slices.Equal(modes, want) {
		t.Errorf("files %q", modes)
	}
	var dirs []string
	for _, a := range got.Artifacts(blueprint.User{UID: os.Getuid(), GID: os.Getgid()}) {
		if a.Dir {
			dirs = append(dirs, a.Mode+" "+a.Path)
		}
	}
	if !slices.Equal(dirs, []string{"0700 obj/empty", "1777 obj/sticky"}) || !slices.Equal(got.Unmatched, []string{"none/*"}) {
		t.Errorf("directories %q, unmatched %q", dirs, got.Unmatched)
	}
	for _, o := range got.Files {
		if o.Mode == "" {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, o.Path))
		if m, merr := FileMode(o.Mode); err != nil || merr != nil || m != info.Mode() {
			t.Errorf("%s: %v and not %v (%v)", o.Path, m, info.Mode(), errors.Join(err, merr))
		}
	}
	// A blueprint names neither setuid bits nor directories.
	list, _, err := Outputs(dir, []string{"obj/suid", "obj/empty"})
	if err != nil || len(list) != 1 || list[0].Mode != "0755" {
		t.Errorf("%+v %v", list, err)
	}
	for name, want := range map[string]string{"a\xe4b": "not UTF-8"} {
		put(t, filepath.Join(dir, "bad", name), "x")
		_, err := Collect(dir, []string{"bad/*"}, Limits{Files: 100, Bytes: 1 << 20}, release.CheckPath)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"bad/a\xe4b"`) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, most := range []Limits{{Files: 3, Bytes: 1 << 20}, {Files: 100, Bytes: 3}} {
		if _, err := Collect(dir, []string{"obj/**"}, most, release.CheckPath); err == nil || !strings.Contains(err.Error(), "has more than 3") {
			t.Error(err)
		}
	}
}
