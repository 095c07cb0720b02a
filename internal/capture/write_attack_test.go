package capture

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The owner of a working copy makes trysail, or a directory in it, a link to a
// directory of root, and waits until root captures there.
func TestAttackTheBlueprintDirectoryIsALink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const attacker = 4242
	for name, at := range map[string]string{"trysail": "trysail", "config": "trysail/config", "deep": "trysail/config/etc"} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			outside, work := filepath.Join(top, "somewhere"), filepath.Join(top, "work")
			if err := errors.Join(
				os.MkdirAll(filepath.Join(outside, "config/etc"), 0o755), os.MkdirAll(filepath.Join(work, filepath.Dir(at)), 0o755),
				os.WriteFile(filepath.Join(outside, "config/etc/precious"), []byte("precious"), 0o600), os.WriteFile(filepath.Join(outside, "blueprint.yaml"), []byte("precious"), 0o600),
				os.Symlink(filepath.Join(outside, strings.TrimPrefix(at, "trysail")), filepath.Join(work, at)),
				os.Chown(work, attacker, attacker),
			); err != nil {
				t.Fatal(err)
			}
			if at != "trysail" {
				if err := errors.Join(os.Chown(work+"/trysail", attacker, attacker), os.Lchown(filepath.Dir(filepath.Join(work, at)), attacker, attacker)); err != nil {
					t.Fatal(err)
				}
			}
			for _, config := range []map[string][]byte{{"config/etc/a.conf": []byte("bad")}, nil} {
				err := writeFiles(filepath.Join(work, "trysail"), map[string][]byte{"blueprint.yaml": []byte("y")}, config, nil)
				var hint interface{ Hint() string }
				if (config != nil || name != "deep") && (err == nil || !strings.Contains(err.Error(), "symbolic link") || !errors.As(err, &hint)) {
					t.Errorf("not refused: %v", err)
				}
			}
			if got, want := listFiles(t, outside), "blueprint.yaml=precious\nconfig/etc/precious=precious\n"; got != want {
				t.Errorf("outside:\n%s", got)
			}
			for _, d := range []string{"", "config", "config/etc"} {
				info, err := os.Stat(filepath.Join(outside, d))
				if err != nil {
					t.Fatal(err)
				}
				if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 {
					t.Errorf("%s belongs to user %d", d, st.Uid)
				}
			}
		})
	}
}

// Root writes with the rights of the working copy's owner, and so nothing that
// the owner could not write.
func TestAttackTheBlueprintDirectoryIsOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	work := filepath.Join(t.TempDir(), "work")
	if err := errors.Join(os.MkdirAll(work+"/trysail/config", 0o755), os.WriteFile(work+"/trysail/config/precious", nil, 0o600), os.Chown(work, 4242, 4242)); err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(work+"/trysail", map[string][]byte{"blueprint.yaml": nil}, nil, nil); err == nil {
		t.Error("root wrote into a directory that the owner of the working copy does not own")
	}
	if got := listFiles(t, work+"/trysail"); got != "config/precious=\n" {
		t.Error(got)
	}
}
