package machine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestAttackDirectoriesWithoutEnd: a step makes directories in one another, more than its agent
// may have open. The agent cannot remove them, and no other one can begin there.
func TestAttackDirectoriesWithoutEnd(t *testing.T) {
	st := state(t)
	n, err := st.Begin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := unix.Open(n.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range 3000 {
		if err == nil {
			err = unix.Mkdirat(dir, "d", 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		above := dir
		dir, err = unix.Openat(above, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(above)
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(dir)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 500, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	err = n.Close()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Errorf("%.200v", err)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}
