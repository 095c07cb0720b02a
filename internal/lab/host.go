package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"trysail/internal/clock"
	"trysail/internal/machine"
	"trysail/internal/rootless"
)

// Host is one machine. Its methods are safe for concurrent use, and each fault is
// injected once at a time.
type Host struct {
	Name string
	IP   string

	lab  *Lab
	spec HostSpec
	dir  string // below the lab's: disk, image, drill (the clock), log
	ns   netns.NsHandle
	skew time.Duration

	mu   sync.Mutex
	on   *running // nil: off
	args []string // the main process: the program too
	gone bool     // for good
	out  bool     // its cable, for a fault, whether it is on or not
}

// running is a machine that is on.
type running struct {
	n     *machine.Session
	pid   int // of its first process, on this host
	ended chan struct{}
	err   error
}

// Disk is where the machine's disk is mounted on this host.
func (h *Host) Disk() string { return filepath.Join(h.dir, "disk") }

// State is the machine's state directory, as this host sees it.
func (h *Host) State() string { return h.Disk() }

func (h *Host) nothing() string { return filepath.Join(h.dir, "nothing") }

func (h *Host) image() string { return filepath.Join(h.dir, "image") }

// LogFile holds what the machine's main process has said.
func (h *Host) LogFile() string { return filepath.Join(h.dir, "log") }

func (h *Host) make() error {
	for _, d := range []string{h.dir, h.Disk(), filepath.Join(h.dir, "drill")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(h.nothing(), nil, 0o600); err != nil {
		return err
	}
	// Without root there are no loop devices: the machine's files are on this host's disk.
	if h.spec.Disk > 0 && !rootless.Inside() {
		if err := h.format(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(h.State(), clock.Marker), []byte(h.lab.Nonce+"\n"), 0o600); err != nil {
		return err
	}
	if err := h.setClock(); err != nil {
		return err
	}
	return h.plug()
}

// format makes the disk: a file system in a file, of which only what is written
// takes room. Its device is given back when it is unmounted.
func (h *Host) format() error {
	f, err := os.OpenFile(h.image(), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(h.spec.Disk); err != nil {
		return err
	}
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard", h.image()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	device, err := loop(f)
	if err != nil {
		return err
	}
	defer device.Close() // what is mounted keeps it
	return h.lab.n.Mount(device.Name(), h.Disk(), "ext4", 0, "")
}

// loop makes a block device of a file. It is given back with its last user.
func loop(f *os.File) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("a disk for a machine: %w", err)
	}
	defer ctl.Close()
	for tries := 0; ; tries++ {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		name := "/dev/loop" + strconv.Itoa(n)
		if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) { // no udev here
			if err := unix.Mknod(name, unix.S_IFBLK|0o660, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, fmt.Errorf("mknod %s: %w", name, err)
			}
		}
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) || tries > 50 {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
}

// Start turns the machine on: its main process is trysail with these arguments.
func (h *Host) Start(args ...string) error { return h.StartProgram(h.trysail(args)...) }

// trysail is its command line on the machine.
func (h *Host) trysail(args []string) []string {
	self := "/bin/trysail"
	if h.spec.Plain {
		self = "/drill-bin"
	}
	return append([]string{self, "-v", "--drill-clock", "/drill/clock"}, args...)
}

// StartProgram turns the machine on with another program of this host.
func (h *Host) StartProgram(args ...string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return fmt.Errorf("%s is gone for good", h.Name)
	}
	if h.on != nil && h.on.alive() {
		return fmt.Errorf("%s is on", h.Name)
	}
	if err := h.mounted(); err != nil && !rootless.Inside() {
		return err
	}
	h.args = args
	if err := h.plugged(!h.out); err != nil {
		return err
	}
	n, err := h.lab.state.Begin()
	if err != nil {
		return err
	}
	h.lab.began(n.ID)
	log, err := os.OpenFile(h.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(err, n.Close())
	}
	r := &running{n: n, ended: make(chan struct{})}
	ready := make(chan struct{})
	sp := machine.Spec{
		Root: filepath.Join(h.lab.Dir, "root"), Hostname: h.Name, Whole: true, Dir: "/", NetNS: h.Network(), Umask: 0o022,
		Args: args,
		Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NO_COLOR=1", "HOME=/var/lib/trysail", "TRYSAIL_STATE=/var/lib/trysail"},
		Mounts: []machine.Mount{
			{Source: h.Disk(), Target: "/var/lib/trysail"},
			{Source: filepath.Join(h.dir, "drill"), Target: "/drill", ReadOnly: true},
		},
		Stdout: log, Stderr: log,
		Ready: func(pid int) error { r.pid = pid; close(ready); return nil },
	}
	if h.spec.Without != "" { // a file that nobody can execute
		sp.Mounts = append(sp.Mounts, machine.Mount{Source: h.nothing(), Target: "/bin/" + h.spec.Without, ReadOnly: true})
	}
	if h.spec.Plain {
		for _, d := range []string{"/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc"} {
			if _, err := os.Stat(d); err == nil {
				sp.Mounts = append(sp.Mounts, machine.Mount{Source: d, Target: d, ReadOnly: true})
			}
		}
		self, err := os.Executable()
		if err != nil {
			return errors.Join(err, n.Close())
		}
		sp.Mounts = append(sp.Mounts, machine.Mount{Source: self, Target: "/drill-bin", ReadOnly: true})
	}
	// Machines find each other by name, as on any network.
	if h.lab.alone != nil {
		sp.Mounts = append(sp.Mounts, h.resolves()...)
	} else if _, err := os.Stat("/etc/hosts"); err == nil || !h.spec.Plain {
		sp.Mounts = append(sp.Mounts, machine.Mount{Source: h.lab.names(), Target: "/etc/hosts", ReadOnly: true})
	}
	go func() {
		defer close(r.ended)
		defer log.Close()
		x, err := n.Run(context.Background(), sp)
		if err == nil {
			err = fmt.Errorf("its main process ended with status %d", x.Code)
		}
		r.err = errors.Join(err, n.Close())
	}()
	select {
	case <-ready:
		h.on = r
		return nil
	case <-r.ended:
		return r.err
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%s did not start", h.Name)
	}
}

func (r *running) alive() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// On tells whether the machine's main process runs.
func (h *Host) On() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on != nil && h.on.alive()
}

// PowerOff kills everything on the machine at once, as a power cut does.
func (h *Host) PowerOff() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.off()
}

func (h *Host) off() error {
	r := h.on
	if r == nil || !r.alive() {
		return nil
	}
	// Whoever speaks to it hears nothing any more, not even that it refuses.
	if err := h.plugged(false); err != nil {
		return err
	}
	if err := h.freeze(false); err != nil {
		return err
	}
	if err := unix.Kill(r.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	select {
	case <-r.ended:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("%s does not end", h.Name)
	}
}

// Restart turns the machine on again, as it was, or as Again said.
func (h *Host) Restart() error {
	h.mu.Lock()
	args := h.args
	h.mu.Unlock()
	return h.StartProgram(args...)
}

// Again says how the machine is started the next time.
func (h *Host) Again(args ...string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.args = h.trysail(args)
	return nil
}

// Give lays a file that only root reads before the machine, and says where it is
// there.
func (h *Host) Give(name string, data []byte) (string, error) {
	return "/drill/" + name, os.WriteFile(filepath.Join(h.dir, "drill", name), data, 0o600)
}

// Network is the path of the machine's network namespace, for this process's children.
func (h *Host) Network() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(h.ns)) }

// ClockFile sets the machine's clock.
func (h *Host) ClockFile() string { return filepath.Join(h.dir, "drill", "clock") }

// Keep turns the machine off, keeps a copy of a directory on its disk as it is now,
// and turns it on again: Put puts the copy back.
func (h *Host) Keep(dir string) error {
	if err := h.PowerOff(); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(h.dir, "kept"), filepath.Join(h.Disk(), dir)); err != nil {
		return err
	}
	return h.Restart()
}

// Put lays a directory of this host over one of the machine's disk, which is off.
func (h *Host) Put(dir, from string) error {
	to := filepath.Join(h.Disk(), dir)
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return copyTree(to, from)
}

func copyTree(to, from string) error {
	out, err := exec.Command("cp", "--archive", "--no-target-directory", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}

// Tail is the end of the machine's log.
func (h *Host) Tail(bytes int64) string {
	f, err := os.Open(h.LogFile())
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > bytes {
		_, _ = f.Seek(-bytes, io.SeekEnd)
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	data, _ := io.ReadAll(f)
	return string(data)
}

// plugged puts the machine's cable in, or pulls it.
func (h *Host) plugged(in bool) error {
	if h.lab.alone != nil {
		return nil // it is the cable of a real host
	}
	nl, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return err
	}
	defer nl.Close()
	l, err := nl.LinkByName("eth0")
	if err != nil {
		return err
	}
	if in {
		return nl.LinkSetUp(l)
	}
	return nl.LinkSetDown(l)
}

// Address is the machine's, with a port.
func (h *Host) Address(port int) string { return net.JoinHostPort(h.IP, strconv.Itoa(port)) }

func (h *Host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.off()
	if h.ns >= 0 {
		err = errors.Join(err, h.ns.Close())
		h.ns = -1
	}
	return err
}
