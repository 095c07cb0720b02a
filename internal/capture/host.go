package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"trysail/internal/machine"
	"trysail/internal/tree"
)

// hostRoot is the machine's own files, to be built on.
type hostRoot struct {
	dir    string
	uppers map[string]string // mount point -> upper directory
	mounts []machine.Mount   // file mounts of the machine, handed through
}

// mountHost mounts the machine's own files under an overlay, one for each real
// file system, so that nothing of the build reaches them.
func mountHost(n *machine.Session, st *machine.State, workspace, name string) (*hostRoot, error) {
	upper := n.Path(name + "-upper")
	if err := likeLower(upper, "/"); err != nil {
		return nil, err
	}
	root, err := n.MkdirAll(0o755, name)
	if err != nil {
		return nil, err
	}
	if err := n.OverlayHost(root, root, "/", upper); err != nil {
		return nil, err
	}
	seen, err := tree.Open(root)
	if err != nil {
		return nil, err
	}
	defer seen.Close()
	machines, err := tree.Open("/")
	if err != nil {
		return nil, err
	}
	defer machines.Close()
	h := &hostRoot{dir: root, uppers: map[string]string{"/": upper}}
	list, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b *mountinfo.Info) int {
		return strings.Count(a.Mountpoint, "/") - strings.Count(b.Mountpoint, "/")
	})
	done := map[string]bool{"/": true}
	for i, m := range list {
		p := m.Mountpoint
		if done[p] || pseudo(m.FSType) || machine.OfRun(p) || slices.ContainsFunc([]string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", st.Dir, st.Run, workspace}, func(d string) bool { return below(p, d) }) {
			continue
		}
		f, info, err := machines.Handle(p[1:])
		if err != nil {
			continue // hidden below a later mount, or not ours to see
		}
		done[p], err = h.mount(n, f, m, seen, n.Path(fmt.Sprintf("%s-upper-%d", name, i)), info.IsDir())
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%w (file system %s)", err, m.FSType)
		}
	}
	return h, nil
}

// mount lays a mount of the machine, which is open, over its place in the root, and tells
// whether it is there: users can unmount theirs, put links in their place, and mount over
// them, so that its name leads elsewhere, now or a moment later.
func (h *hostRoot) mount(n *machine.Session, f *os.File, m *mountinfo.Info, seen *tree.Dir, upper string, dir bool) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return false, fmt.Errorf("mount of %s: %w", m.Mountpoint, err)
	}
	if st.Mask&unix.STATX_MNT_ID != 0 && st.Mnt_id != uint64(m.ID) { // before Linux 5.8 it is not told
		return false, nil
	}
	if !dir {
		// A file mounted over a file, as containers do with resolv.conf.
		at := upper + ".file"
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return false, err
		}
		h.mounts = append(h.mounts, machine.Mount{Source: at, Target: m.Mountpoint, ReadOnly: true})
		return true, n.Mount(byDescriptor(f), at, "", unix.MS_BIND, "")
	}
	to, _, err := seen.Handle(m.Mountpoint[1:])
	if err != nil {
		return false, err
	}
	defer to.Close()
	if err := likeLower(upper, byDescriptor(f)); err != nil {
		return false, err
	}
	h.uppers[m.Mountpoint] = upper
	return true, n.OverlayHost(filepath.Join(h.dir, m.Mountpoint), byDescriptor(to), byDescriptor(f), upper)
}

// byDescriptor is a name that leads to what is open, whatever becomes of its own.
func byDescriptor(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// likeLower makes an upper directory with the owner, mode and access list of the
// directory below it: the overlay shows those of the upper one, and must open to
// nobody what is closed on the machine.
func likeLower(upper, lower string) error {
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return fmt.Errorf("%s: %w", lower, err)
	}
	if err := errors.Join(os.Mkdir(upper, 0o700), os.Chown(upper, int(st.Uid), int(st.Gid)), unix.Chmod(upper, st.Mode&0o7777)); err != nil {
		return err
	}
	for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		list := make([]byte, 64<<10) // the largest there is
		n, err := unix.Getxattr(lower, name, list)
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			continue
		}
		if err == nil {
			err = unix.Setxattr(upper, name, list[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("access list of %s: %w", lower, err)
		}
	}
	return nil
}

func pseudo(fstype string) bool {
	return slices.Contains([]string{"proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "bpf", "tracefs", "debugfs", "securityfs", "pstore", "configfs", "fusectl", "hugetlbfs", "autofs", "binfmt_misc", "nsfs", "rpc_pipefs", "efivarfs", "selinuxfs"}, fstype)
}
