package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The numbers that containers get on the host: a range of idsPerContainer each,
// between the ranges that distributions give to people (/etc/subuid begins at
// 100000) and 2^31, above which some file systems and programs fail.
const (
	firstID         = 0x80000
	lastID          = 0x6FFE0000
	idsPerContainer = 0x20000
	ordinaryIDs     = 0x10000 // the first ones of each range are for the IDs 0 to 65535
	// hostRoot is what this machine's root is on the disk below a mapped mount: the
	// kernel makes an overlay's work directory and whiteouts as root.
	hostRoot = 0xFFFFFFF0
)

// ids maps the users and groups of a container to numbers that nobody on this
// machine has: 0 to 65535 and those of the container's own users above.
type ids struct {
	base  uint32
	extra []uint32 // sorted, above 65535
}

// mapIDs chooses the range of a session. reserved lists ranges of others (first
// and count, as in /etc/subuid).
func mapIDs(session uint32, extra []uint32, reserved [][2]uint64) (ids, error) {
	m := ids{}
	for _, id := range extra {
		if id >= ordinaryIDs {
			m.extra = append(m.extra, id)
		}
	}
	slices.Sort(m.extra)
	m.extra = slices.Compact(m.extra)
	// The kernel takes 340 lines; adjacent numbers share one, and few users have any.
	if len(m.extra) > 300 {
		return ids{}, fmt.Errorf("the blueprint has %d users and groups above %d; 300 fit into a user namespace", len(m.extra), ordinaryIDs-1)
	}
	const slots = (lastID - firstID) / idsPerContainer
	for try := range uint32(slots) {
		first := uint64(firstID) + uint64((session%slots+try)%slots)*idsPerContainer
		if !slices.ContainsFunc(reserved, func(r [2]uint64) bool { return first < r[0]+r[1] && r[0] < first+idsPerContainer }) {
			m.base = uint32(first)
			return m, nil
		}
	}
	return ids{}, errors.New("/etc/subuid and /etc/subgid leave no range of numbers for a container")
}

// host gives the number on this machine of a user or group of the container; one that the
// container does not have is root, and so nobody there.
func (m ids) host(id uint32) int {
	if id < ordinaryIDs {
		return int(m.base + id)
	}
	if i, ok := slices.BinarySearch(m.extra, id); ok {
		return int(m.base) + ordinaryIDs + i
	}
	return 0
}

// lines gives the map in the form of an OCI configuration.
func (m ids) lines() []specs.LinuxIDMapping {
	list := []specs.LinuxIDMapping{{ContainerID: 0, HostID: m.base, Size: ordinaryIDs}}
	for i, id := range m.extra {
		list = append(list, specs.LinuxIDMapping{ContainerID: id, HostID: m.base + ordinaryIDs + uint32(i), Size: 1})
	}
	return list
}

// reservedIDs reads the ranges that people of this machine may map: whoever has
// one could become the root of a container that uses it.
func reservedIDs() ([][2]uint64, error) {
	var list [][2]uint64
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, parseSubIDs(data)...)
	}
	return list, nil
}

// parseSubIDs reads lines such as "ann:100000:65536" and passes over others.
func parseSubIDs(data []byte) [][2]uint64 {
	var list [][2]uint64
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		f := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(f) != 3 {
			continue
		}
		first, err := strconv.ParseUint(f[1], 10, 32)
		count, cerr := strconv.ParseUint(f[2], 10, 32)
		if err == nil && cerr == nil {
			list = append(list, [2]uint64{first, count})
		}
	}
	return list
}

// namespace makes a user namespace with this map and gives a descriptor of it,
// for mounts. The process in it is stopped before its first instruction.
func (m ids) namespace() (*os.File, error) {
	list := []syscall.SysProcIDMap{{ContainerID: hostRoot, HostID: 0, Size: 1}}
	for _, l := range m.lines() {
		list = append(list, syscall.SysProcIDMap{ContainerID: int(l.ContainerID), HostID: int(l.HostID), Size: int(l.Size)})
	}
	runtime.LockOSThread() // who traces is a thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: list, GidMappings: list, Ptrace: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user")
	kerr := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed: its status says nothing
	if err := errors.Join(err, kerr); err != nil {
		return nil, err
	}
	return f, nil
}

// bindMapped mounts a file or directory at another place, where its files
// belong to the numbers of a container. What is written there belongs on the
// disk to the container's own numbers: nothing is ever changed to another owner.
func bindMapped(source, target string, userns *os.File) error {
	fd, err := mapped(source, userns)
	if err != nil {
		return err
	}
	return attach(fd, source, target)
}

// attach mounts what a descriptor holds, and closes it.
func attach(fd int, source, target string) error {
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	return nil
}

// mapped gives a descriptor of a mount of a file or directory that is attached nowhere,
// with owners in a container's numbers.
func mapped(source string, userns *os.File) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open the mount of %s: %w", source, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return -1, errors.Join(&noIDMapError{source, err}, unix.Close(fd))
	}
	return fd, nil
}

// noIDMapError says that a file system cannot show its files as another's.
type noIDMapError struct {
	source string
	err    error
}

func (e *noIDMapError) Error() string {
	return "the file system of " + e.source + " has no idmapped mounts: " + e.err.Error()
}
func (e *noIDMapError) Unwrap() error { return e.err }

// unmountNow unmounts, and waits for what still uses the mount: the kernel takes
// a container's namespaces apart after its last process has ended.
func unmountNow(target string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := unix.Unmount(target, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || wait > 2*time.Second {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
		time.Sleep(wait)
	}
}

// Isolation says what separates a container from this machine.
type Isolation struct {
	// UserNamespace: root in a container is nobody on this machine. Otherwise it is
	// root with few capabilities.
	UserNamespace bool
	// Why there is no user namespace.
	Why string
}

func (i Isolation) String() string {
	if i.UserNamespace {
		return "user namespace"
	}
	return "few capabilities"
}

// Isolation finds out, by trying, what this machine can do with the state's file system.
func (s *State) Isolation() Isolation { return s.isolation() }

func (s *State) probe() Isolation {
	if s.rootless {
		return Isolation{UserNamespace: true}
	}
	err := s.tryMapping()
	if err != nil {
		s.log.Warn("no user namespace: root in a rebuilt server is root of this machine with few capabilities", "err", err)
		return Isolation{Why: err.Error()}
	}
	return Isolation{UserNamespace: true}
}

// tryMapping maps the state's file system for nobody, and attaches it nowhere.
func (s *State) tryMapping() error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	if release := unix.ByteSliceToString(uts.Release[:]); !atLeast(release, 6, 1) {
		return fmt.Errorf("this is Linux %s, and an overlay of mapped mounts keeps access lists since 6.1", release)
	}
	if err := reachable(s.views()); err != nil {
		return err
	}
	m, err := mapIDs(0, nil, nil)
	if err != nil {
		return err
	}
	userns, err := m.namespace()
	if err != nil {
		return err
	}
	defer userns.Close()
	fd, err := mapped(s.scratch(), userns)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// atLeast compares the version in a kernel's release, such as 6.1.0-28-amd64.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// reachable tells whether somebody who is not root comes as far as a directory.
func reachable(dir string) error {
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("the root of a container cannot pass through %s, mode %04o", d, info.Mode().Perm())
		}
		if d == "/" {
			return nil
		}
	}
}

// view is a root and what is mounted into it as a container sees them: with
// owners in the container's own range of numbers.
type view struct {
	n       *Session
	ids     ids
	dir     string // what the container's root, and nobody else, may pass through
	userns  *os.File
	root    string
	mounts  []Mount
	devices []Mount
	back    *overlayMount // the session's overlay, which this one takes the place of
	undo    []string      // mount points, to be unmounted in reverse order
}

// enter makes a view of a root for one run. The session's own mount of an
// overlay is away until leave: two mounts must not write to one layer.
func (n *Session) enter(sp Spec) (v *view, err error) {
	session, err := strconv.ParseUint(strings.TrimPrefix(n.ID, "trysail-"), 16, 32)
	if err != nil {
		return nil, err
	}
	reserved, err := reservedIDs()
	if err != nil {
		return nil, err
	}
	n.runs++
	v = &view{n: n, dir: filepath.Join(n.state.views(), n.ID+"-"+strconv.Itoa(n.runs))}
	if v.ids, err = mapIDs(uint32(session), slices.Concat(n.ids, sp.Groups, []uint32{sp.UID, sp.GID}), reserved); err != nil {
		return nil, err
	}
	if v.userns, err = v.ids.namespace(); err != nil {
		return nil, err
	}
	if err := n.record("dir", v.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.leave())
		}
	}()
	if err = errors.Join(os.Mkdir(v.dir, 0o700), os.Chown(v.dir, 0, int(v.ids.base)), os.Chmod(v.dir, 0o710)); err != nil {
		return v, err
	}
	if err := v.enterRoot(sp.Root); err != nil {
		return v, err
	}
	mounts := slices.Clone(sp.Mounts)
	mounts = append(mounts, Mount{Source: "/sys", Target: "/sys", ReadOnly: true})
	for i, m := range mounts {
		if m.Source, err = v.bind(m, "mount-"+strconv.Itoa(i)); err != nil {
			return v, err
		}
		v.mounts = append(v.mounts, m)
	}
	return v, v.enterDevices(sp.Devices)
}

// enterDevices makes nodes of devices in the view. The file system of /dev has no
// idmapped mounts: bound from there, a device of root and its group would be nobody's
// inside, and closed to the build's user.
func (v *view) enterDevices(devices []Mount) error {
	if len(devices) == 0 {
		return nil
	}
	dir, err := v.mountPoint(v.dir, "devices")
	if err != nil {
		return err
	}
	// Not on the file system of the view: /run is mounted without devices.
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "size=64k,mode=711"); err != nil {
		return fmt.Errorf("make a place for devices: %w", err)
	}
	for i, m := range devices {
		var st unix.Stat_t
		if err := unix.Stat(m.Source, &st); err != nil {
			return fmt.Errorf("device %s: %w", m.Target, err)
		}
		m.Source = filepath.Join(dir, strconv.Itoa(i))
		if err := errors.Join(unix.Mknod(m.Source, st.Mode, int(st.Rdev)), unix.Chown(m.Source, v.ids.host(st.Uid), v.ids.host(st.Gid)), unix.Chmod(m.Source, st.Mode&0o777)); err != nil {
			return fmt.Errorf("device %s: %w", m.Target, err)
		}
		v.devices = append(v.devices, m)
	}
	return nil
}

func (v *view) enterRoot(root string) error {
	o := v.n.overlays[root]
	if o == nil {
		var err error
		v.root, err = v.bindRoot(root, "root")
		return err
	}
	if err := v.n.away(root); err != nil {
		return err
	}
	v.back = o
	inside := overlayMount{volatile: o.volatile}
	for i, d := range o.lower {
		at, err := v.bindRoot(d, "lower-"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		inside.lower = append(inside.lower, at)
	}
	at, err := v.bindRoot(filepath.Dir(o.upper), "writable")
	if err != nil {
		return err
	}
	inside.upper = filepath.Join(at, filepath.Base(o.upper))
	if inside.target, err = v.mountPoint(at, "root"); err != nil {
		return err
	}
	v.root = inside.target
	return inside.mount()
}

// bind mounts a file or directory in the view and says where. On a file system
// without idmapped mounts (that of a device or a kernel interface) its owners are
// nobody inside. What is to be read-only is so here already: root in the container
// may change the flags of mounts that runc makes there, but not of those that are
// there when its user namespace begins.
func (v *view) bind(m Mount, name string) (string, error) {
	target, err := v.mountPoint(m.Source, name)
	if err != nil {
		return "", err
	}
	fd, err := mapped(m.Source, v.userns)
	var none *noIDMapError
	if errors.As(err, &none) {
		if fd, err = unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
			err = fmt.Errorf("open the mount of %s: %w", m.Source, err)
		}
	}
	if err != nil {
		return "", err
	}
	if m.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return "", errors.Join(fmt.Errorf("make the mount of %s read-only: %w", m.Source, err), unix.Close(fd))
		}
	}
	return target, attach(fd, m.Source, target)
}

// bindRoot is bind where a root without owners would be of no use.
func (v *view) bindRoot(source, name string) (string, error) {
	target, err := v.mountPoint(source, name)
	if err != nil {
		return "", err
	}
	return target, bindMapped(source, target, v.userns)
}

// mountPoint makes one in the view, for a file or a directory.
func (v *view) mountPoint(source, name string) (string, error) {
	target := filepath.Join(v.dir, name)
	info, err := os.Stat(source)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		err = os.Mkdir(target, 0o700)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return "", err
	}
	v.undo = append(v.undo, target)
	return target, v.n.record("mount", target)
}

// leave takes the view away and mounts the session's own overlay again.
func (v *view) leave() error {
	var errs []error
	for _, target := range slices.Backward(v.undo) {
		err := unmountNow(target)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			err = nil // it was not mounted
		}
		errs = append(errs, err, v.n.forget("mount", target))
	}
	errs = append(errs, v.userns.Close(), RemoveAll(v.dir), v.n.forget("dir", v.dir))
	if v.back != nil {
		errs = append(errs, v.back.unmark(), v.n.mountOverlay(v.back))
	}
	return errors.Join(errs...)
}
