// Package account runs programs as another user of this machine.
//
// Trysail is root, and what it looks at belongs to others. A program that
// parses or executes what another user wrote must run as that user, because
// each fault of such a program (a hook, a filter, a tampered database) is that
// user's to exploit. [Account.Command] and [Account.Self] make an [exec.Cmd]
// that does so: user, group and groups of the account, no capabilities, no new
// privileges, a clean environment, a session of its own, no terminal.
//
// Between root and the program stands a helper, this program itself under
// another name (argv[0]). It is process 1 of a new PID namespace: when the
// program ends, or the caller dies or cancels, the kernel kills every process
// that the program left, daemons too. It is in a new mount namespace, in which
// [Place] is the private directory that the caller made: the program can reach
// it by that name although the caller's directories are closed to its user.
//
// A caller that is not root can only run programs as itself. It gets the clean
// environment and the session, and no namespaces.
package account

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Place is where a program finds the directory of [Options].Temp, if the caller is root.
const Place = "/run/trysail"

// path is where programs are looked for; the caller's own list may name
// directories that others can write.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Account is a user of this machine. A number without a name can own files too.
type Account struct {
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups"` // supplementary, without GID
	Name   string `json:"name"`   // the number, if it has no name
	Home   string `json:"home"`   // "/" if it has none
}

// Current is who runs this process.
func Current() (Account, error) { return Lookup(os.Geteuid()) }

// Lookup finds an account by its number. For a number without a name, the group
// is the same number.
func Lookup(uid int) (Account, error) {
	a := Account{UID: uid, GID: uid, Name: strconv.Itoa(uid), Home: "/"}
	u, err := user.LookupId(a.Name)
	var unknown user.UnknownUserIdError
	if errors.As(err, &unknown) {
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("look up user %d: %w", uid, err)
	}
	a.Name, a.Home = u.Username, u.HomeDir
	if a.GID, err = strconv.Atoi(u.Gid); err != nil {
		return a, fmt.Errorf("group of user %s: %w", a.Name, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return a, fmt.Errorf("groups of user %s: %w", a.Name, err)
	}
	for _, id := range ids {
		gid, err := strconv.Atoi(id)
		if err != nil {
			return a, fmt.Errorf("groups of user %s: %w", a.Name, err)
		}
		if gid != a.GID {
			a.Groups = append(a.Groups, gid)
		}
	}
	return a, nil
}

// Alone tells whether a group is the account's private one, as Debian and Fedora make
// it: its primary group, of its own name, with no other member. A group that is not
// in /etc/group counts as shared.
func (a Account) Alone(gid int) bool {
	if gid != a.GID {
		return false
	}
	found := false
	err := eachLine("/etc/group", func(f []string) {
		if len(f) == 4 && f[2] == strconv.Itoa(gid) {
			found = f[0] == a.Name && (f[3] == "" || f[3] == a.Name)
		}
	})
	if err != nil || !found {
		return false
	}
	err = eachLine("/etc/passwd", func(f []string) {
		if len(f) > 3 && f[3] == strconv.Itoa(gid) && f[2] != strconv.Itoa(a.UID) {
			found = false
		}
	})
	return err == nil && found
}

func eachLine(name string, do func(fields []string)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		do(strings.Split(in.Text(), ":"))
	}
	return in.Err()
}

// Options say how a program runs.
type Options struct {
	Dir  string   // working directory; default "/"
	Env  []string // NAME=value, added to HOME, USER, LOGNAME, SHELL, PATH, LANG and TMPDIR
	Temp string   // a directory of the account, see [MakeTemp]; the program sees it at [Account.TempPath]
	// Reach is a directory of the account, without symbolic links, that the program finds under its own name although directories
	// above it are closed to the account; what else is in those is hidden then.
	Reach string
	// Network is the network namespace to run in, as a file (/proc/PID/fd/N or /run/netns/NAME);
	// default: the caller's.
	Network string
}

// MakeTemp makes a directory of mode 0700 that belongs to the account. Make it in the
// scratch directory of a session (internal/machine): its journal removes it, also
// after the process was killed.
func (a Account) MakeTemp(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	if err := os.Lchown(dir, a.UID, a.GID); err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	return nil
}

// TempPath is the name by which a program knows the directory of [Options].Temp.
func TempPath(temp string) string {
	if os.Geteuid() == 0 {
		return Place
	}
	return temp
}

// Environment is the clean one of a program: the account's own, and what is added.
func (a Account) environment(o Options) []string {
	env := []string{"HOME=" + a.Home, "USER=" + a.Name, "LOGNAME=" + a.Name, "SHELL=/bin/sh", "PATH=" + path, "LANG=C.UTF-8"}
	if o.Temp != "" {
		env = append(env, "TMPDIR="+TempPath(o.Temp))
	}
	return append(env, o.Env...)
}

// NotInstalledError says that a program is not on this machine.
type NotInstalledError struct{ Program string }

func (e *NotInstalledError) Error() string { return e.Program + " is not installed" }

// Find finds a program in the directories of the system.
func Find(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for dir := range strings.SplitSeq(path, ":") {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", &NotInstalledError{name}
}

// Command runs a program as the account. The program is found in the directories of the
// system, and its standard input is empty unless the caller sets it. If the command
// cannot be made, its Err says why.
func (a Account) Command(ctx context.Context, o Options, name string, args ...string) *exec.Cmd {
	file, err := Find(name)
	return a.command(ctx, o, file, append([]string{name}, args...), err)
}

// Self runs this program itself as the account, under another name, by which its main
// or an init function knows what to do. It need not be reachable for the account.
func (a Account) Self(ctx context.Context, o Options, name string, args ...string) *exec.Cmd {
	return a.command(ctx, o, "", append([]string{name}, args...), nil)
}

func (a Account) command(ctx context.Context, o Options, file string, args []string, err error) *exec.Cmd {
	const self = "/proc/self/exe"
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = a.environment(o)
	cmd.WaitDelay = wait
	fail := func(err error) *exec.Cmd {
		if cmd.Err == nil {
			cmd.Err = err
		}
		return cmd
	}
	if err != nil {
		return fail(err)
	}
	if o.Dir == "" {
		o.Dir = "/"
	}
	if os.Geteuid() != 0 {
		if a.UID != os.Geteuid() || o.Network != "" {
			return fail(fmt.Errorf("only root can run %s as user %s: %w", args[0], a.Name, fs.ErrPermission))
		}
		if file != "" {
			cmd.Path = file
		}
		cmd.Args, cmd.Dir = args, o.Dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		// Its group, with what it started.
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		return cmd
	}
	if o.Temp != "" {
		if err := os.MkdirAll(Place, 0o700); err != nil {
			return fail(err)
		}
	}
	text, err := json.Marshal(order{Account: a, File: file, Args: args, Dir: o.Dir, Temp: o.Temp, Reach: o.Reach, Network: o.Network})
	if err != nil {
		return fail(err)
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fail(fmt.Errorf("watch this process: %w", err))
	}
	cmd.Args = []string{helperName, string(text)}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "caller")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	return cmd
}

// identity is how the kernel is told who runs a program.
func (a Account) identity() *syscall.Credential {
	c := &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
	for _, g := range slices.Sorted(slices.Values(a.Groups)) {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}
