// Package lock lets one process at a time work on a directory.
//
// The lock is flock(2) on the file "lock" in it, which ends with the process, however that
// ends; what stands in the file is for people. A program that this one starts does not
// inherit it: Go opens every file close-on-exec.
//
// An agent and a control hold one for their life: two agents would write one copy of the
// ledger and one certificate, two controls one ledger. What else writes below the state
// directory may run twice, and takes locks of its own where two would meet:
//
//	capture, rebuild, drills   a scratch directory, a journal and a run's directory each
//	rebuilt roots              a lock for each layer, shared while it is used (internal/rebuild)
//	the depot                  a blob by its digest, its index and prune under a lock (internal/depot)
//	real hosts of a drill      refused while another drill is on one of them (internal/site)
package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is a directory that this process works on.
type Lock struct{ file *os.File }

// Take takes the directory, which must exist and be the caller's alone. It waits for nobody:
// while another process has it, the error is a [HeldError]. As is what this process is, such
// as "agent build1".
func Take(dir, as string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		held := holder(f)
		held.Dir = dir
		return nil, errors.Join(held, f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d %s\n", os.Getpid(), as), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return &Lock{f}, nil
}

// Close lets others have it.
func (l *Lock) Close() error { return l.file.Close() }

// HeldError says that another process works on a directory, and which one.
type HeldError struct {
	Dir string
	PID int    // 0: it has yet to say
	As  string // what it is
}

func (e *HeldError) Error() string {
	switch {
	case e.PID == 0:
		return "another process works on " + e.Dir
	case e.As == "":
		return fmt.Sprintf("process %d works on %s", e.PID, e.Dir)
	}
	return fmt.Sprintf("process %d (%s) works on %s", e.PID, e.As, e.Dir)
}

// Hint says what to do.
func (e *HeldError) Hint() string {
	return "two would damage what is there: stop that one first, or give this one a directory of its own with --state DIR"
}

// Details is what a program is told.
func (e *HeldError) Details() any {
	return struct {
		Dir string `json:"directory"`
		PID int    `json:"pid,omitempty"`
		As  string `json:"process,omitempty"`
	}{e.Dir, e.PID, e.As}
}

// holder reads who has the lock.
func holder(f *os.File) *HeldError {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<10))
	if err != nil {
		return &HeldError{}
	}
	number, as, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return &HeldError{} // it has yet to say
	}
	return &HeldError{PID: pid, As: as}
}
