package machine

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is one bind mount, file or directory, into the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool // its files and nodes cannot change; what a device or socket does can
}

// Limit is one resource limit as the build had it.
type Limit struct {
	Type       string // RLIMIT_NOFILE
	Soft, Hard uint64
}

// Spec says what to run where.
type Spec struct {
	Root     string
	Hostname string
	Args     []string
	Env      []string
	Dir      string
	UID, GID uint32
	Groups   []uint32
	Umask    uint32
	Limits   []Limit
	Mounts   []Mount
	// NoNewPrivileges makes set-user-ID programs run as who started them.
	NoNewPrivileges bool
	// NetNS is the path of a network namespace; "" is a new one with only a
	// loopback that is down: no network at all.
	NetNS string
	// HostDevices gives the container the machine's own /dev, for capture.
	HostDevices bool
	// Devices are further device nodes, for live dependencies.
	Devices []Mount
	// Whole makes it a machine of its own, which runs containers itself: all that
	// this process may do it may, with cgroups of its own. For disposable hosts.
	Whole bool
	// Chroot starts the command in what ischroot(1) tells from a machine's own root, as
	// all that make a Debian root from nothing do: scripts of packages then leave the
	// init alone that is not there. (That of libc6 would have it start again, and sleep
	// for a second.)
	Chroot bool
	// Terminal connects the container to the caller's terminal.
	Terminal       bool
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Ready is called when process 1 stands and before the command starts,
	// with the process's number on the host.
	Ready func(pid int) error
	// Ended is called when the command ended, before the namespaces are gone.
	Ended func()
}

// Exit says how a command ended. A non-zero code is a result, not an error.
type Exit struct {
	Code     int
	Signal   string
	Leftover []string      // commands still running when the main one ended; they were killed
	Duration time.Duration // of the command alone
}

// RuncError says that the OCI runtime is missing or failed.
type RuncError struct {
	What   string
	Output string
	Err    error
}

func (e *RuncError) Error() string {
	msg := "runc: " + e.What
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	if e.Output != "" {
		msg += ": " + strings.TrimSpace(e.Output)
	}
	return msg
}

func (e *RuncError) Unwrap() error { return e.Err }

// Hint says what to type.
func (e *RuncError) Hint() string {
	if errors.Is(e.Err, exec.ErrNotFound) {
		return "install it: apt-get install runc; trysail doctor lists everything that is missing"
	}
	return "trysail doctor says what this machine lacks"
}

// CommandError says that a command could not be started in the container.
type CommandError struct {
	Args []string
	What string
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("cannot start %q: %s", e.Args[0], e.What)
}

// Hint says what to check.
func (e *CommandError) Hint() string {
	return "check the command's name and that it is in PATH of the build's environment"
}

func (s *State) runcRoot() string { return filepath.Join(s.Run, "runc") }

// Run runs a command to its end. Cancelling ctx ends every process in the
// container and returns the context's error.
func (n *Session) Run(ctx context.Context, sp Spec) (x *Exit, err error) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return nil, &RuncError{What: "not found", Err: exec.ErrNotFound}
	}
	self, err := staticSelf()
	if err != nil {
		return nil, err
	}
	n.runs++
	id := n.ID + "-" + strconv.Itoa(n.runs)
	bundle, err := n.MkdirAll(0o700, "bundle-"+id)
	if err != nil {
		return nil, err
	}
	if n.state.rootless && sp.walled() {
		if self, sp.Mounts, err = n.seal(self, sp.Mounts); err != nil {
			return nil, err
		}
	}
	var v *view
	if sp.walled() && !n.state.rootless && n.state.Isolation().UserNamespace {
		if v, err = n.enter(sp); err != nil {
			return nil, fmt.Errorf("make the container's view of its root: %w", err)
		}
		defer func() { err = errors.Join(err, v.leave()) }()
	}
	oci, err := sp.oci(self, id, v, n.state.rootless)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(oci)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		return nil, err
	}
	if err := n.record("container", id); err != nil {
		return nil, err
	}
	defer deleteContainer(n.state.runcRoot(), id) //nolint:errcheck // the journal still names it
	orderR, orderW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer orderW.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		orderR.Close()
		return nil, err
	}
	defer reportR.Close()

	pidFile := filepath.Join(bundle, "pid")
	logFile := filepath.Join(bundle, "log")
	cmd := exec.Command(runc, "--root", n.state.runcRoot(), "--log", logFile, "run", "--bundle", bundle, "--pid-file", pidFile, "--preserve-fds", "2", id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = sp.Stdin, sp.Stdout, sp.Stderr
	cmd.ExtraFiles = []*os.File{orderR, reportW}
	if !sp.Terminal {
		// Its own process group: an interrupt at the terminal is ours to handle.
		cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	}
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Start()
	orderR.Close()
	reportW.Close()
	if err != nil {
		return nil, &RuncError{What: "start", Err: err}
	}
	waited := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		waited <- cmd.Wait()
		close(ended)
	}()
	// Whoever is root in there can be process 1: it is asked to end, and then killed.
	end := sync.OnceFunc(func() {
		orderW.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			_ = deleteContainer(n.state.runcRoot(), id) // it is tried again below
		}
		_ = reportR.SetReadDeadline(time.Now().Add(patience)) // another may have got the pipe
	})
	stop := context.AfterFunc(ctx, end)
	defer stop()

	dec := json.NewDecoder(io.LimitReader(reportR, maxReport))
	var ready, told report
	if err := dec.Decode(&ready); err != nil {
		werr := <-waited
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &RuncError{What: "the container did not start", Err: werr, Output: lastLog(logFile)}
	}
	if sp.Ready != nil {
		pid, err := readPID(pidFile)
		if err == nil {
			err = sp.Ready(pid)
		}
		if err != nil {
			orderW.Close()
			<-waited
			return nil, err
		}
	}
	if err := json.NewEncoder(orderW).Encode(order{Args: sp.Args, Env: sp.Env, Dir: sp.Dir, Chroot: sp.Chroot}); err != nil && ctx.Err() == nil {
		<-waited
		return nil, &RuncError{What: "the container ended before its command", Err: err, Output: lastLog(logFile)}
	}
	began := time.Now()
	derr := dec.Decode(&told)
	took := time.Since(began)
	if sp.Ended != nil {
		sp.Ended()
	}
	end()
	<-waited // its status is process 1's; the command's is in the report
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, &RuncError{What: "the container was killed (out of memory?)", Output: lastLog(logFile)}
	}
	if told.Error != "" {
		return nil, &CommandError{Args: sp.Args, What: told.Error}
	}
	seconds := min(max(told.Seconds, 0), took.Seconds())
	return &Exit{Code: told.Code, Signal: told.Signal, Leftover: told.Leftover, Duration: time.Duration(seconds * float64(time.Second))}, nil
}

const (
	// patience is how long process 1 may take to end once it is asked to.
	patience = 2 * time.Second
	// maxReport bounds what process 1 reports, in bytes.
	maxReport = 1 << 20
)

func readPID(file string) (int, error) {
	// runc writes the file about when process 1 starts.
	for wait := time.Millisecond; ; wait *= 2 {
		data, err := os.ReadFile(file)
		if err == nil && len(data) > 0 {
			return strconv.Atoi(strings.TrimSpace(string(data)))
		}
		if wait > 2*time.Second {
			return 0, &RuncError{What: "no process number", Err: err}
		}
		time.Sleep(wait)
	}
}

func lastLog(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	line := lines[len(lines)-1]
	var entry struct{ Msg string }
	if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg != "" {
		return entry.Msg
	}
	if _, msg, ok := strings.Cut(line, "msg="); ok {
		return strings.Trim(msg, `"`)
	}
	return line
}

func deleteContainer(root, id string) error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return nil // nothing can have been started
	}
	if _, err := os.Stat(filepath.Join(root, id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// What is frozen takes no signal; what is not, or is gone, needs no thaw.
	_ = exec.Command(runc, "--root", root, "resume", id).Run()
	out, err := exec.Command(runc, "--root", root, "delete", "--force", id).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "does not exist") {
		return &RuncError{What: "delete " + id, Err: err, Output: string(out)}
	}
	return nil
}

// staticSelf finds this program and checks that it runs in a root without libraries.
func staticSelf() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := elf.Open(self)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is linked to shared libraries and cannot be process 1 of a container: build it with CGO_ENABLED=0 (make build does)", self)
		}
	}
	return self, nil
}
