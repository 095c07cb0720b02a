package machine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Somebody who is not root rebuilds a server: root in there is that person, makes every
// mount writable, and opens the program of that person to everybody, with set-user-ID.
func TestAttackWhatTheCallerOwnsIsMountedReadOnly(t *testing.T) {
	s := state(t)
	n := begin(t, s)
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	program, lib := filepath.Join(dir, "trysail"), filepath.Join(dir, "tool", "lib")
	if err := errors.Join(os.Mkdir(filepath.Dir(lib), 0o755), os.WriteFile(program, []byte("genuine"), 0o755), os.WriteFile(lib, []byte("genuine"), 0o644)); err != nil {
		t.Fatal(err)
	}
	self, mounts, err := n.seal(program, []Mount{{Source: filepath.Dir(lib), Target: "/tool", ReadOnly: true}, {Source: dir, Target: "/work"}})
	if err != nil {
		t.Fatal(err)
	}
	if mounts[1].Source != dir {
		t.Errorf("the workspace is %s", mounts[1].Source)
	}
	if err := os.Chmod(self, 0o4777); err != nil {
		t.Fatal(err)
	}
	at := mounts[0].Source
	for _, how := range []uintptr{unix.MS_BIND, 0} {
		_ = unix.Mount("", at, "", unix.MS_REMOUNT|how, "") // refused or of no use
	}
	if os.WriteFile(filepath.Join(at, "lib"), []byte("hostile"), 0) == nil || os.Chmod(filepath.Join(at, "lib"), 0o777) == nil {
		t.Error("the directory can be changed")
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(lib)
	if err != nil || string(text) != "genuine" || info.Mode() != 0o755 {
		t.Errorf("the program has mode %v, the file says %q (%v)", info.Mode(), text, err)
	}
	if again, err := n.sealed(program); err != nil || again != self {
		t.Errorf("a second run gets %s (%v)", again, err)
	}
}
