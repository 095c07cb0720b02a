package machine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// TestAttackUndoFollowsALink: a session has a mount in a directory of a user, which becomes
// a link before the session ends. The undo takes a mount of the machine away.
func TestAttackUndoFollowsALink(t *testing.T) {
	st := state(t)
	roots := filepath.Join(t.TempDir(), "roots")
	if err := errors.Join(os.MkdirAll(roots+"/disk", 0o755), unix.Mount("tmpfs", roots+"/disk", "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(roots+"/disk", unix.MNT_DETACH) })
	n, err := st.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.MkdirAll(0o755, "users", "disk"); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(n.Mount("tmpfs", n.Path("users", "disk"), "tmpfs", 0, ""),
		unix.Unmount(n.Path("users", "disk"), 0), os.RemoveAll(n.Path("users")), os.Symlink(roots, n.Path("users")), n.Close())
	if err != nil {
		t.Fatal(err)
	}
	if is, err := mountinfo.Mounted(roots + "/disk"); err != nil || !is {
		t.Errorf("root's mount is gone (%v)", err)
	}
}
