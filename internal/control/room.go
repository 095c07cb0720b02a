package control

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// reserve is kept free on control's disks for the ledger: etcd ends its process
// where it cannot write, and takes 64 MB at a time for its log. What is large
// (blobs, logs of steps) is refused before that.
const reserve = 192 << 20

// NoRoomError says that one of control's disks is nearly full.
type NoRoomError struct {
	Dir  string
	Free uint64 // bytes
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("control's disk has %d MB left at %s, and %d are kept for the ledger", e.Free>>20, e.Dir, reserve>>20)
}

// Hint says what to do.
func (e *NoRoomError) Hint() string {
	return "make room there: trysail depot prune removes what no release needs; everything goes on by itself then"
}

// tight says that there is no room, once a minute: whoever was refused asks again.
func (c *Control) tight(err *NoRoomError) {
	c.mu.Lock()
	again := time.Since(c.said) < time.Minute
	if !again {
		c.said = time.Now()
	}
	c.mu.Unlock()
	if !again {
		c.o.Log.Error("nothing large is taken", "err", err, "remedy", err.Hint())
	}
}

// room tells whether control takes large things.
func (c *Control) room() error {
	dirs := []string{c.o.Dir}
	if c.o.Depot != nil {
		dirs = append(dirs, c.o.Depot.Dir())
	}
	for _, dir := range dirs {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return err
		}
		if free := s.Bavail * uint64(s.Bsize); free < reserve {
			return &NoRoomError{dir, free}
		}
	}
	return nil
}
