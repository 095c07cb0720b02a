package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// GuardName is the argv[0] by which cmd/trysail knows that it is a guard.
const GuardName = "trysail-guard"

// Guard is a process beside this one that kills what it was shown when a
// deadline passes or this process is gone, however that came about: killed,
// stopped, or hung. Its clock counts time in which the machine slept
// (CLOCK_BOOTTIME), and nobody can set it.
type Guard struct {
	mu   sync.Mutex
	cmd  *exec.Cmd
	pipe io.WriteCloser
	last int
}

// GuardError says that a guard cannot be told anything: its process has ended.
type GuardError struct{ Err error }

func (e *GuardError) Error() string {
	return "the guard of this process, without which no step may run, has ended: " + e.Err.Error()
}
func (e *GuardError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *GuardError) Hint() string {
	return "start this program again, as a service manager does (Restart=always); if it happens again: what killed the process " + GuardName + "?"
}

// guardOrder is one line of what a guard is told.
type guardOrder struct {
	Until  int64  `json:"until,omitempty"`  // boot time in ns; until the first one there is no deadline
	ID     int    `json:"id,omitempty"`     // of what is shown or forgotten
	PID    int    `json:"pid,omitempty"`    // process 1 of a namespace
	Cgroup string `json:"cgroup,omitempty"` // of the second version
}

// BootTime is the time since the machine started, including sleep.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// StartGuard starts a guard; it ends with this process or with Close.
func StartGuard() (*Guard, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(self)
	cmd.Args = []string{GuardName}
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	// Its own session: what is sent to this process's group does not reach it.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return &Guard{cmd: cmd, pipe: w}, nil
}

func (g *Guard) tell(o guardOrder) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := g.pipe.Write(append(line, '\n')); err != nil {
		return &GuardError{err}
	}
	return nil
}

// Until sets the deadline, in boot time.
func (g *Guard) Until(at time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tell(guardOrder{Until: int64(at)})
}

// Watch shows the guard a process or a cgroup to kill; the number forgets it.
func (g *Guard) Watch(pid int, cgroup string) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	return g.last, g.tell(guardOrder{ID: g.last, PID: pid, Cgroup: cgroup})
}

// Forget ends a Watch.
func (g *Guard) Forget(id int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tell(guardOrder{ID: id})
}

// Close ends the guard, which kills what it still watches.
func (g *Guard) Close() error {
	return errors.Join(g.pipe.Close(), g.cmd.Wait())
}

// RunGuard is the guard's own process. It returns its exit status.
func RunGuard() int {
	orders := make(chan guardOrder)
	go func() {
		defer close(orders)
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var o guardOrder
			if json.Unmarshal(in.Bytes(), &o) == nil {
				orders <- o
			}
		}
	}()
	return guard(orders)
}

// watched is one thing that a guard kills.
type watched struct {
	pidfd  int
	cgroup string
}

func (w watched) kill() error {
	if w.cgroup != "" {
		err := os.WriteFile(filepath.Join(w.cgroup, "cgroup.kill"), []byte("1"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has ended
		}
		return err
	}
	err := unix.PidfdSendSignal(w.pidfd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func guard(orders <-chan guardOrder) int {
	list := map[int]watched{}
	killAll := func() (status int) {
		for id, w := range list {
			if err := w.kill(); err != nil {
				fmt.Fprintln(os.Stderr, "trysail guard:", err)
				status = 1
			}
			if w.cgroup == "" {
				unix.Close(w.pidfd)
			}
			delete(list, id)
		}
		return status
	}
	var until time.Duration
	for {
		// A timer may sleep through the machine's sleep: look often.
		wait := 50 * time.Millisecond
		if until == 0 || len(list) == 0 {
			wait = time.Minute
		}
		select {
		case o, open := <-orders:
			switch {
			case !open:
				return killAll()
			case o.Until > 0:
				until = time.Duration(o.Until)
			case o.PID == 0 && o.Cgroup == "":
				if w, ok := list[o.ID]; ok && w.cgroup == "" {
					unix.Close(w.pidfd)
				}
				delete(list, o.ID)
			case o.Cgroup != "":
				list[o.ID] = watched{cgroup: o.Cgroup}
			default:
				fd, err := unix.PidfdOpen(o.PID, 0)
				if errors.Is(err, unix.ESRCH) {
					continue // it has ended
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, "trysail guard:", err)
					return 1
				}
				list[o.ID] = watched{pidfd: fd}
			}
		case <-time.After(wait):
		}
		if until > 0 && BootTime() >= until {
			killAll()
		}
	}
}
