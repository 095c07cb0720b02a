package rebuild

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"trysail/internal/machine"
)

// Drop removes the layers that are kept, so that the next rebuild begins from
// originals. A layer is named by the digest of what went into it; its files have
// no digests, so what became of them on a disk that failed, nobody can tell. One
// that another run holds is an error.
func Drop(st *machine.State) (dropped int, err error) {
	entries, err := os.ReadDir(st.Roots())
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "packages-") && !strings.HasPrefix(e.Name(), "machine-") {
			continue
		}
		if err := dropLayer(filepath.Join(st.Roots(), e.Name())); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, nil
}

func dropLayer(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return machine.RemoveAll(dir) // nobody can hold it
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return &HeldError{dir}
		}
		return err
	}
	return machine.RemoveAll(dir)
}
