package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InitPath is where this program stands inside every container, and the
// argv[0] by which cmd/trysail knows that it is process 1 there.
const InitPath = "/.trysail-init"

// order is what the caller sends to process 1 once it may start the command.
type order struct {
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	// Chroot gives process 1 another root than the command has: see Spec.Chroot.
	Chroot bool `json:"chroot,omitempty"`
}

// report is how process 1 says that the command ended.
type report struct {
	Started  bool     `json:"started"`
	Error    string   `json:"error,omitempty"` // why it could not be started
	Code     int      `json:"code"`
	Signal   string   `json:"signal,omitempty"`
	Leftover []string `json:"leftover,omitempty"`
	Seconds  float64  `json:"seconds"`
}

// The pipes that runc hands through: orders come in, the report goes out.
const (
	orderFD  = 3
	reportFD = 4
)

// Init is process 1 of a container. It returns the exit status of the process.
func Init() int {
	in, out := os.NewFile(orderFD, "order"), os.NewFile(reportFD, "report")
	syscall.CloseOnExec(orderFD)
	syscall.CloseOnExec(reportFD)
	enc := json.NewEncoder(out)
	dec := json.NewDecoder(in)
	if err := enc.Encode(report{}); err != nil { // "ready"
		return 1
	}
	var o order
	if err := dec.Decode(&o); err != nil {
		return 1 // the caller is gone
	}
	r := serve(o, io.MultiReader(dec.Buffered(), in))
	if err := enc.Encode(r); err != nil {
		return 1
	}
	return 0
}

// serve starts the command and reaps until it has ended. It ends early when the
// caller's pipe closes or a signal asks for it.
func serve(o order, alive io.Reader) report {
	path, err := lookPath(o.Args[0], o.Env, o.Dir)
	if err != nil {
		return report{Error: err.Error(), Code: 127}
	}
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, alive) // ends when the caller does
		close(gone)
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	begin := time.Now()
	proc, err := os.OpenRoot("/proc") // wherever the root is
	if err != nil {
		return report{Error: err.Error(), Code: 126}
	}
	attr := &os.ProcAttr{Dir: o.Dir, Env: o.Env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if o.Chroot {
		if attr.Sys, err = leaveRoot(); err != nil {
			return report{Error: err.Error(), Code: 126}
		}
	}
	p, err := os.StartProcess(path, o.Args, attr)
	if err != nil {
		return report{Error: err.Error(), Code: 126}
	}
	type ended struct{ status unix.WaitStatus }
	done := make(chan ended, 1)
	go func() {
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, 0, nil)
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				return
			case pid == p.Pid:
				done <- ended{ws}
			}
		}
	}()
	select {
	case e := <-done:
		r := report{Started: true, Seconds: time.Since(begin).Seconds(), Leftover: lingering(proc)}
		if e.status.Signaled() {
			r.Signal, r.Code = e.status.Signal().String(), 128+int(e.status.Signal())
		} else {
			r.Code = e.status.ExitStatus()
		}
		return r
	case s := <-stop:
		return report{Started: true, Code: 130, Signal: s.String(), Seconds: time.Since(begin).Seconds()}
	case <-gone:
		return report{Started: true, Code: 137, Signal: "caller gone"}
	}
}

// leaveRoot moves process 1 to a root of its own, /dev, and says how a command is
// started in the one that it left.
func leaveRoot() (*syscall.SysProcAttr, error) {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root: %w", err)
	}
	// The way back, which a new root does not have; it is for the child, before it executes.
	at, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	if err := unix.Fchdir(at); err != nil {
		return nil, fmt.Errorf("enter /proc: %w", err)
	}
	if err := unix.Chroot("/dev"); err != nil {
		return nil, fmt.Errorf("leave the root: %w", err)
	}
	return &syscall.SysProcAttr{Chroot: fmt.Sprintf("self/fd/%d", old)}, nil
}

func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, kv := range env {
		if list, ok := strings.CutPrefix(kv, "PATH="); ok {
			if err := os.Setenv("PATH", list); err != nil {
				return "", err
			}
		}
	}
	if err := os.Chdir(dir); err != nil {
		return "", err
	}
	return exec.LookPath(name)
}

// lingering names the processes that are still there a moment after the command
// ended: a daemon that the command has told to end (fakeroot's) needs one.
func lingering(proc *os.Root) []string {
	for range 20 {
		if len(leftover(proc)) == 0 {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return leftover(proc)
}

// leftover names the processes that the command left running. They end with
// the namespace; the caller tells the user.
func leftover(proc *os.Root) []string {
	names, err := fs.ReadDir(proc.FS(), ".")
	if err != nil {
		return nil
	}
	var list []string
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil || pid == 1 {
			continue
		}
		data, err := proc.ReadFile(n.Name() + "/cmdline")
		if err != nil || len(data) == 0 {
			continue // ended, or a zombie that is being reaped
		}
		cmd := strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))
		if len(cmd) > 120 {
			cmd = cmd[:120] + "…"
		}
		list = append(list, cmd)
		if len(list) == 20 {
			break
		}
	}
	return list
}
