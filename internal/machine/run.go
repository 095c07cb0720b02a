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
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Mount is one bind mount, file or directory, into the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
	Recursive      bool
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
	// NetNS is the path of a network namespace; "" is a new one with only a
	// loopback that is down: no network at all.
	NetNS string
	// HostDevices gives the container the machine's own /dev, for capture.
	HostDevices bool
	// Devices are further device nodes allowed by name, for live dependencies.
	Devices []string
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
func (n *Session) Run(ctx context.Context, sp Spec) (*Exit, error) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return nil, &RuncError{What: "not found", Err: exec.ErrNotFound}
	}
	self, err := staticSelf()
	if err != nil {
		return nil, err
	}
	id := n.ID + "-" + strconv.Itoa(len(n.j.Entries))
	bundle, err := n.MkdirAll(0o700, "bundle-"+id)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(sp.oci(self, id))
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
	go func() { waited <- cmd.Wait() }()

	stop := context.AfterFunc(ctx, func() { orderW.Close() })
	defer stop()

	dec := json.NewDecoder(reportR)
	var ready, end report
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
	derr := dec.Decode(&end)
	if sp.Ended != nil {
		sp.Ended()
	}
	<-waited // its status is process 1's; the command's is in the report
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, &RuncError{What: "the container was killed (out of memory?)", Output: lastLog(logFile)}
	}
	if end.Error != "" {
		return nil, &CommandError{Args: sp.Args, What: end.Error}
	}
	return &Exit{Code: end.Code, Signal: end.Signal, Leftover: end.Leftover, Duration: time.Duration(end.Seconds * float64(time.Second))}, nil
}

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

// capabilities lists what root has in a container: what builds use (chroot,
// mount in a namespace of their own, mknod, file owners), and nothing that
// reaches the machine outside (modules, raw I/O, clock, boot, kernel log). What
// this process itself may not have (it may be in a container) it cannot give.
// A whole machine has besides what it takes to make networks and limits.
func capabilities(whole bool) []string {
	type capability struct {
		name string
		bit  uintptr
	}
	list := []capability{
		{"CAP_AUDIT_WRITE", unix.CAP_AUDIT_WRITE},
		{"CAP_CHOWN", unix.CAP_CHOWN},
		{"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
		{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH},
		{"CAP_FOWNER", unix.CAP_FOWNER},
		{"CAP_FSETID", unix.CAP_FSETID},
		{"CAP_IPC_OWNER", unix.CAP_IPC_OWNER},
		{"CAP_KILL", unix.CAP_KILL},
		{"CAP_LEASE", unix.CAP_LEASE},
		{"CAP_LINUX_IMMUTABLE", unix.CAP_LINUX_IMMUTABLE},
		{"CAP_MKNOD", unix.CAP_MKNOD},
		{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
		{"CAP_NET_RAW", unix.CAP_NET_RAW},
		{"CAP_SETFCAP", unix.CAP_SETFCAP},
		{"CAP_SETGID", unix.CAP_SETGID},
		{"CAP_SETPCAP", unix.CAP_SETPCAP},
		{"CAP_SETUID", unix.CAP_SETUID},
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN},
		{"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT},
		{"CAP_SYS_NICE", unix.CAP_SYS_NICE},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE},
		{"CAP_SYS_RESOURCE", unix.CAP_SYS_RESOURCE},
	}
	if whole {
		list = append(list, capability{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, capability{"CAP_BPF", unix.CAP_BPF}, capability{"CAP_PERFMON", unix.CAP_PERFMON})
	}
	var have []string
	for _, c := range list {
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c.bit, 0, 0, 0); err == nil && set == 1 {
			have = append(have, c.name)
		}
	}
	return have
}

// unified is where the second version of cgroups is mounted on hosts that have both.
const unified = "/sys/fs/cgroup/unified"

func (sp Spec) oci(self, id string) *specs.Spec {
	umask := sp.Umask
	bounding := capabilities(sp.Whole)
	caps := bounding
	if sp.UID != 0 {
		caps = nil
	}
	s := &specs.Spec{
		Version:  "1.0.2",
		Hostname: sp.Hostname,
		Root:     &specs.Root{Path: sp.Root},
		Process: &specs.Process{
			Terminal: sp.Terminal,
			User:     specs.User{UID: sp.UID, GID: sp.GID, AdditionalGids: sp.Groups, Umask: &umask},
			Args:     []string{InitPath},
			Env:      []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GODEBUG=netdns=go"},
			Cwd:      "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: bounding, Permitted: caps, Effective: caps, Inheritable: nil,
			},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.NetworkNamespace, Path: sp.NetNS},
			},
			RootfsPropagation: "private",
		},
	}
	for _, l := range sp.Limits {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: l.Type, Soft: l.Soft, Hard: l.Hard})
	}
	add := func(m specs.Mount) { s.Mounts = append(s.Mounts, m) }
	add(specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}})
	if sp.Whole {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		add(specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
		add(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "rw"}})
		if _, err := os.Stat(unified); err == nil { // beside the first version
			add(specs.Mount{Destination: unified, Type: "cgroup2", Source: "cgroup2", Options: []string{"nosuid", "noexec", "nodev"}})
		}
		add(specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}})
		add(specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}})
	} else {
		add(specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"bind", "ro", "nosuid", "noexec", "nodev"}})
	}
	if sp.HostDevices {
		add(specs.Mount{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"rbind", "rw"}})
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	} else {
		add(specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}})
		add(specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}})
		for _, dev := range sp.Devices {
			add(specs.Mount{Destination: dev, Type: "bind", Source: dev, Options: []string{"bind", "rw"}})
		}
		s.Linux.Resources = deviceRules(sp.Devices)
		if sp.Whole { // as far as its own containers may go
			s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
		}
	}
	add(specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "mode=1777"}})
	for _, m := range sp.Mounts {
		opts := []string{"bind", "rw"}
		if m.Recursive {
			opts[0] = "rbind"
		}
		if m.ReadOnly {
			opts[1] = "ro"
		}
		add(specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: opts})
	}
	add(specs.Mount{Destination: InitPath, Type: "bind", Source: self, Options: []string{"bind", "ro"}})
	return s
}

// deviceRules allows the usual nodes (runc makes them), making nodes, and the
// live dependencies' devices; everything else is refused.
func deviceRules(devices []string) *specs.LinuxResources {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	wild := int64(-1)
	rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &wild, Minor: &wild, Access: "m"},
		specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &wild, Minor: &wild, Access: "m"})
	for _, dev := range devices {
		var st unix.Stat_t
		if unix.Stat(dev, &st) != nil {
			continue // runc's bind mount will name the missing node
		}
		major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		kind := "c"
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			kind = "b"
		}
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: "rw"})
	}
	return &specs.LinuxResources{Devices: rules}
}
