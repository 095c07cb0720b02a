package control

import (
	"fmt"
	"io"
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

// diskFullError is a [NoRoomError], or that of a depot which met the end of its disk.
type diskFullError interface {
	error
	Hint() string
}

// reportDiskFull logs once a minute that the disk is full: agents repeat what control refused.
func (c *Control) reportDiskFull(err diskFullError) {
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

// checkDiskSpace tells whether control takes large things.
func (c *Control) checkDiskSpace() error {
	dirs := []string{c.o.Dir}
	if c.o.Depot != nil {
		dirs = append(dirs, c.o.Depot.Dir())
	}
	for _, dir := range dirs {
		free, err := c.free(dir)
		if err != nil {
			return err
		}
		if free < reserve {
			return &NoRoomError{dir, free}
		}
	}
	return nil
}

// freeAt is what is left on a disk, in bytes.
func freeAt(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// between is how many bytes of something large are taken before room is asked again.
const between = 4 << 20

// limitToDiskSpace reads for as long as there is room: nobody says how large it is.
func (c *Control) limitToDiskSpace(r io.Reader) io.Reader {
	return &spaceReader{r: r, room: c.checkDiskSpace}
}

type spaceReader struct {
	r    io.Reader
	room func() error
	left int // bytes until it is asked again
}

func (x *spaceReader) Read(p []byte) (int, error) {
	if x.left <= 0 {
		if err := x.room(); err != nil {
			return 0, err
		}
		x.left = between
	}
	n, err := x.r.Read(p)
	x.left -= n
	return n, err
}
