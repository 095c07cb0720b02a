package tree

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPrivate: whatever the umask and whatever an older version made, nobody else
// may enter; what belongs to others is not taken.
func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	for umask, name := range map[int]string{0: "none", 0o022: "usual", 0o077: "strict"} {
		old := unix.Umask(umask)
		err := Private(filepath.Join(dir, name, "state"))
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "old"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o755, 0o711, 0o777, 0o500, 0o770 | os.ModeSetgid} {
		if err := errors.Join(os.Chmod(filepath.Join(dir, "old"), mode), Private(filepath.Join(dir, "old"))); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, "old")); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("after %v: %v %v", mode, info.Mode(), err)
		}
	}
	for _, name := range []string{"none/state", "usual/state", "strict/state"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	var other *NotOursError
	if err := Private("/tmp"); !errors.As(err, &other) || other.Foreign && os.Geteuid() == 0 {
		t.Errorf("/tmp: %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(filepath.Join(dir, "old"), 4242, 0); err != nil {
		t.Fatal(err)
	}
	if err := Private(filepath.Join(dir, "old")); !errors.As(err, &other) || !other.Foreign {
		t.Errorf("a directory of user 4242: %v", err)
	}
}
