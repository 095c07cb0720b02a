// Package rootless runs this program without root: in a user namespace of its own,
// in which the person who called it is root and has the further numbers that
// /etc/subuid and /etc/subgid give them.
//
// There this program can make mounts, networks and containers, which end with the
// namespace, and whatever it runs has no more rights on this machine than that person.
// The programs newuidmap and newgidmap of the package uidmap, which podman and
// mmdebstrap use too, write the map: only they may, for somebody who is not root.
//
// [Enter] starts this program again under another name. Its first process waits
// until the map is written and executes itself: root's capabilities come with an
// execution by a user who is root in the namespace. The second one holds a pipe to
// the first caller and stops in order when that is gone, however hard.
package rootless

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The names (argv[0]) by which cmd/trysail knows that it is started here.
const (
	WaitName = "trysail-rootless-wait"
	Name     = "trysail-rootless"
)

// pipeFD is the pipe to the caller, in both processes.
const pipeFD = 3

// Inside tells whether this process is in a user namespace that is not the machine's own.
func Inside() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !wholeMap(string(data))
}

// wholeMap tells the map of a machine's own namespace: every number is itself.
func wholeMap(text string) bool {
	f := strings.Fields(text)
	return len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}

// NoRangeError says that somebody has no further numbers.
type NoRangeError struct {
	User string
	File string
	Err  error
}

func (e *NoRangeError) Error() string {
	msg := fmt.Sprintf("%s gives user %s no range of 65536 numbers, which a rebuilt server's users need", e.File, e.User)
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

func (e *NoRangeError) Unwrap() error { return e.Err }

// Hint says what to type.
func (e *NoRangeError) Hint() string {
	return "once, as root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 " + e.User + " (a range that nobody else has); or run this command with sudo"
}

// MapError says that newuidmap or newgidmap failed.
type MapError struct {
	Program string
	Output  string
	Err     error
}

func (e *MapError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%s: %v: %s", e.Program, e.Err, strings.TrimSpace(e.Output)), ": ")
}

func (e *MapError) Unwrap() error { return e.Err }

// Hint says what to type.
func (e *MapError) Hint() string {
	if errors.Is(e.Err, exec.ErrNotFound) {
		return "once, as root: apt-get install uidmap; or run this command with sudo"
	}
	return "run this command with sudo, or let people make user namespaces: sysctl user.max_user_namespaces=10000"
}

// ids is a range of numbers on this machine.
type ids struct{ first, count int }

// rangeOf finds a person's range in the text of /etc/subuid or /etc/subgid, by name or number.
func rangeOf(text, name, uid string) (ids, bool) {
	for in := bufio.NewScanner(strings.NewReader(text)); in.Scan(); {
		f := strings.Split(strings.TrimSpace(in.Text()), ":")
		if len(f) != 3 || (f[0] != name && f[0] != uid) {
			continue
		}
		first, err := strconv.Atoi(f[1])
		count, cerr := strconv.Atoi(f[2])
		if err == nil && cerr == nil && count >= 65535 {
			return ids{first, count}, true
		}
	}
	return ids{}, false
}

func findRange(file string, u *user.User) (ids, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return ids{}, &NoRangeError{u.Username, file, err}
	}
	r, ok := rangeOf(string(data), u.Username, u.Uid)
	if !ok {
		return ids{}, &NoRangeError{User: u.Username, File: file}
	}
	return r, nil
}

// Enter runs this program again, with the same arguments, in a user namespace, and
// gives its exit status. alone gives it a network of its own, in which it can go from one
// namespace to another and back; the machine's network is then out of its reach.
func Enter(ctx context.Context, alone bool, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	u, err := user.Current()
	if err != nil {
		return 0, fmt.Errorf("who calls: %w", err)
	}
	uids, err := findRange("/etc/subuid", u)
	if err != nil {
		return 0, err
	}
	gids, err := findRange("/etc/subgid", u)
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{WaitName}, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	if alone {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	err = cmd.Start()
	r.Close()
	if err != nil {
		return 0, &MapError{Program: "user namespace", Err: err}
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	err = errors.Join(writeMap("newuidmap", pid, u.Uid, uids), writeMap("newgidmap", pid, u.Gid, gids))
	if err == nil {
		_, err = w.Write([]byte{1})
	}
	if err != nil {
		return 0, errors.Join(err, cmd.Process.Kill(), ignoreKilled(cmd.Wait()))
	}
	// A terminal interrupts both; what this process alone is sent goes on to the other.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var ended *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &ended) && ended.ExitCode() >= 0 {
		return ended.ExitCode(), nil
	} else if err != nil {
		return 0, err
	}
	return 0, nil
}

func ignoreKilled(err error) error {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return nil
	}
	return err
}

// writeMap makes the caller root of a process's namespace, and adds their range.
func writeMap(program, pid, own string, r ids) error {
	out, err := exec.Command(program, pid, "0", own, "1", "1", strconv.Itoa(r.first), strconv.Itoa(r.count)).CombinedOutput()
	if err != nil {
		return &MapError{program, string(out), err}
	}
	return nil
}

// Wait is the first process: it waits for the map, and becomes the second one.
func Wait() int {
	pipe := os.NewFile(pipeFD, "pipe")
	if n, err := pipe.Read(make([]byte, 1)); n != 1 || err != nil {
		return 1 // the caller failed, and says why
	}
	err := unix.Exec("/proc/self/exe", append([]string{Name}, os.Args[1:]...), os.Environ())
	fmt.Fprintln(os.Stderr, "trysail: enter the user namespace:", err)
	return 1
}

// Context is cancelled when the caller of [Enter] is gone.
func Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	syscall.CloseOnExec(pipeFD)
	pipe := os.NewFile(pipeFD, "pipe")
	go func() {
		_, _ = io.Copy(io.Discard, pipe) // ends with the caller
		cancel()
	}()
	return ctx, cancel
}
