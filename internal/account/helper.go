package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	helperName = "trysail-as" // argv[0] of the helper
	callerFD   = 3            // the caller's pidfd
	// wait is how long a cancelled command may hold its pipes.
	wait = 10 * time.Second
)

// order is what the helper does.
type order struct {
	Account Account  `json:"account"`
	File    string   `json:"file"` // "" is this program itself
	Args    []string `json:"args"`
	Dir     string   `json:"dir"`
	Temp    string   `json:"temp,omitempty"`
	Reach   string   `json:"reach,omitempty"`
	Network string   `json:"network,omitempty"`
}

// The helper starts here and not in main, so that every program that links this package
// can be it, tests too. A main that forgets the helper would start itself without end.
func init() {
	if len(os.Args) == 2 && os.Args[0] == helperName {
		status, err := help(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "trysail:", err)
		}
		os.Exit(status)
	}
}

// help is process 1 of the program's PID namespace: when it exits, the kernel kills
// whatever is left there.
func help(text string) (status int, err error) {
	// Privileges and namespaces belong to threads: all of it happens on this one.
	runtime.LockOSThread()
	// Root's caller set this environment. The account does not inherit it.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 126, fmt.Errorf("keep descriptors from the program: %w", err)
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return 126, err
	}
	if err := enter(o); err != nil {
		return 126, err
	}
	if o.File == "" {
		// By descriptor: the account may not be able to reach the file's directory.
		fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return 126, fmt.Errorf("find this program: %w", err)
		}
		o.File = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	p, err := os.StartProcess(o.File, o.Args, &os.ProcAttr{
		Dir: o.Dir, Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{Credential: o.Account.identity()},
	})
	if err != nil {
		return 126, fmt.Errorf("run %s as %s: %w", o.Args[0], o.Account.Name, err)
	}
	go func() {
		for s := range stop {
			_ = p.Signal(s) // it may have ended
		}
	}()
	go exitWithCaller()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 126, fmt.Errorf("wait for %s: %w", o.Args[0], err)
		case pid == p.Pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case pid == p.Pid && ws.Exited():
			return ws.ExitStatus(), nil
		}
	}
}

// enter sets up what only root can, and gives up what root could get back.
func enter(o order) error {
	if o.Network != "" {
		fd, err := unix.Open(o.Network, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if o.Temp != "" {
		if err := unix.Mount(o.Temp, Place, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", o.Temp, err)
		}
		if err := unix.Mount("", Place, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			return fmt.Errorf("mount %s: %w", o.Temp, err)
		}
	}
	if o.Reach != "" {
		if err := reach(o.Account, o.Reach); err != nil {
			return fmt.Errorf("make %s reachable: %w", o.Reach, err)
		}
	}
	// In a container root may not be allowed to; then the program sees the caller's.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	if o.Account.UID == 0 {
		return nil
	}
	// Without these, a change of user leaves no capability behind.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	caps[0].Inheritable, caps[1].Inheritable = 0, 0
	if err := unix.Capset(&head, &caps[0]); err != nil {
		return fmt.Errorf("clear inheritable capabilities: %w", err)
	}
	return nil
}

// exitWithCaller ends this process, and so the namespace, with the process that asked for it.
func exitWithCaller() {
	list := []unix.PollFd{{Fd: callerFD, Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(list, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if n > 0 {
			os.Exit(137)
		}
	}
}

// reach mounts a directory at its own place again if one above it is closed to the
// account: over the outermost such directory comes an empty one. Only root may be able to change
// what is above, or somebody could lead the mount elsewhere.
func reach(a Account, dir string) error {
	if a.UID == 0 {
		return nil
	}
	parts := strings.Split(strings.Trim(dir, "/"), "/")
	others := ""
	for i := range parts[:len(parts)-1] {
		above := "/" + strings.Join(parts[:i+1], "/")
		var st unix.Stat_t
		if err := unix.Lstat(above, &st); err != nil {
			return err
		}
		if others == "" && (st.Uid != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0) {
			others = above
		}
		if a.enters(st) {
			continue
		}
		if others != "" {
			return fmt.Errorf("%s is closed to user %s, and %s is not root's alone: %w", above, a.Name, others, fs.ErrPermission)
		}
		// Below what is closed somebody may have put a link since the caller looked.
		fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if int(st.Uid) != a.UID {
			return fmt.Errorf("it is user %d's, not %s's: %w", st.Uid, a.Name, fs.ErrPermission)
		}
		if err := unix.Mount("tmpfs", above, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64k"); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), dir, "", unix.MS_BIND, "")
	}
	return nil
}

// enters tells whether the account may go through a directory, by its mode.
func (a Account) enters(st unix.Stat_t) bool {
	switch {
	case int(st.Uid) == a.UID:
		return st.Mode&unix.S_IXUSR != 0
	case int(st.Gid) == a.GID || slices.Contains(a.Groups, int(st.Gid)):
		return st.Mode&unix.S_IXGRP != 0
	}
	return st.Mode&unix.S_IXOTH != 0
}
