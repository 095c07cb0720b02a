package rebuild

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"trysail/internal/machine"
)

// TestDrop: what is kept is removed, what another run holds is not, and nothing
// else is touched.
func TestDrop(t *testing.T) {
	st := &machine.State{Dir: t.TempDir()}
	layer := func(name string) string {
		t.Helper()
		dir := filepath.Join(st.Roots(), name)
		if err := os.MkdirAll(filepath.Join(dir, "root/etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	there := func(want bool, dirs ...string) {
		t.Helper()
		for _, dir := range dirs {
			if _, err := os.Stat(dir); (err == nil) != want {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
	one, two, other := layer("machine-1"), layer("packages-2"), layer("somebody-else's")
	torn := filepath.Join(st.Roots(), "machine-torn")
	if err := os.Mkdir(torn, 0o755); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(filepath.Join(two, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	var h *HeldError
	if n, err := Drop(st); n != 2 || !errors.As(err, &h) || h.Root != two {
		t.Errorf("%d dropped: %v", n, err)
	}
	there(true, two, other)
	there(false, one, torn)
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := Drop(st); n != 1 || err != nil {
		t.Errorf("%d dropped: %v", n, err)
	}
	there(true, other)
	there(false, two)
}
