package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"trysail/internal/trace"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks for capture, rebuild and drill",
		Long:  "Doctor looks and changes nothing; it needs no root. For each thing that is missing it names the\nsmallest step that mends it." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

// finding is one thing that a machine has or lacks.
type finding struct {
	Name   string   `json:"name"`
	OK     bool     `json:"ok"`
	For    []string `json:"for"`
	Found  string   `json:"found"`
	Remedy string   `json:"remedy,omitempty"`
}

func (a *app) doctor(_ context.Context) error {
	list := a.examine()
	missing := 0
	for _, f := range list {
		mark := "✓"
		if !f.OK {
			mark = "✗"
			missing++
		}
		a.printf("%s %-22s %s\n", mark, f.Name, f.Found)
		if !f.OK {
			a.printf("    needed for %s\n    → %s\n", strings.Join(f.For, ", "), f.Remedy)
		}
	}
	if a.json {
		if err := a.printJSON(struct {
			Findings []finding `json:"findings"`
			Missing  int       `json:"missing"`
		}{list, missing}); err != nil {
			return err
		}
	}
	if missing > 0 {
		a.printf("%d thing(s) are missing.\n", missing)
		return answerNo{}
	}
	a.printf("This machine can capture and rebuild build servers, and be drilled.\n")
	return nil
}

func (a *app) examine() []finding {
	all := []string{"capture", "rebuild", "drill"}
	var list []finding
	add := func(name string, ok bool, found, remedy string, needs ...string) {
		f := finding{Name: name, OK: ok, For: needs, Found: found}
		if !ok {
			f.Remedy = remedy
		}
		list = append(list, f)
	}
	root := os.Geteuid() == 0
	who := "root"
	if !root {
		who = fmt.Sprintf("user %d", os.Geteuid())
	}
	self, err := os.Executable()
	if err != nil {
		self = "trysail"
	}
	add("root", root, who, "sudo trysail …; to grant no more than this program, put into /etc/sudoers.d/trysail: USER ALL=(root) "+self+" (doctor and inspect need no root)", all...)
	if root {
		lacking := lackingCapabilities()
		add("capabilities", len(lacking) == 0, found(len(lacking) == 0, "all that are needed", "without "+strings.Join(lacking, ", ")), "run this container with --cap-add "+strings.TrimPrefix(strings.Join(lacking, " --cap-add "), " "), all...)
	}
	var uts unix.Utsname
	release := "unknown"
	var major, minor int
	if err := unix.Uname(&uts); err == nil {
		release = unix.ByteSliceToString(uts.Release[:])
		_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor) // stays 0.0, which is too old
	}
	add("kernel", major > 5 || (major == 5 && minor >= 8), release, "use kernel 5.8 or newer: tracing needs its ring buffer", "capture")
	_, err = os.Stat("/sys/kernel/btf/vmlinux")
	add("kernel types (BTF)", err == nil, found(err == nil, "/sys/kernel/btf/vmlinux", "not there"), "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's and Ubuntu's are", "capture")
	cg, err := trace.CgroupRoot()
	add("cgroup v2", err == nil, found(err == nil, cg, "not mounted"), "mount -t cgroup2 none /sys/fs/cgroup/unified", "capture", "drill")
	data, err := os.ReadFile("/proc/filesystems")
	over := err == nil && strings.Contains(string(data), "\toverlay\n")
	add("overlayfs", over, found(over, "in the kernel", "not loaded"), "modprobe overlay", all...)
	list = append(list, a.stateFinding())
	for _, p := range []struct {
		program, pkg string
		needs        []string
	}{
		{"runc", "runc", all}, {"dpkg", "dpkg", all}, {"apt-get", "apt", []string{"capture"}}, {"xz", "xz-utils", []string{"rebuild"}}, {"tar", "tar", all}, {"git", "git", []string{"capture of git working copies"}}, {"svn", "subversion", []string{"capture of Subversion working copies"}},
	} {
		path, err := exec.LookPath(p.program)
		if err != nil {
			// Administrators' programs are not in everyone's PATH.
			if _, serr := os.Stat("/usr/sbin/" + p.program); serr == nil {
				path, err = "/usr/sbin/"+p.program, nil
			}
		}
		add(p.program, err == nil, found(err == nil, path, "not installed"), "apt-get install "+p.pkg, p.needs...)
	}
	_, err = os.Stat("/etc/machine-id")
	add("machine identity", err == nil, found(err == nil, "/etc/machine-id", "no /etc/machine-id"), "systemd-machine-id-setup", "telling two machines apart")
	return list
}

func found(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

// stateFinding looks at the file system under the state directory.
func (a *app) stateFinding() finding {
	f := finding{Name: "state directory", For: []string{"capture", "rebuild", "drill"}}
	dir := a.state
	for dir != "/" {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		f.Found, f.Remedy = err.Error(), "choose another with --state DIR"
		return f
	}
	free := int64(st.Bavail) * st.Bsize
	f.Found = fmt.Sprintf("%s, %s free", a.state, size(free))
	switch {
	case st.Type == unix.OVERLAYFS_SUPER_MAGIC:
		f.Remedy = "it is on an overlay, which cannot carry another: choose a directory on a real file system with --state DIR"
	case free < 4<<30:
		f.Remedy = "a rebuilt server and its originals take some GiB: make room, or choose another place with --state DIR"
	default:
		f.OK = true
	}
	return f
}

// lackingCapabilities names what this root may not do.
func lackingCapabilities() []string {
	var list []string
	for _, c := range []struct {
		name string
		bit  int
	}{
		{"SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"NET_ADMIN", unix.CAP_NET_ADMIN}, {"SYS_CHROOT", unix.CAP_SYS_CHROOT}, {"MKNOD", unix.CAP_MKNOD}, {"CHOWN", unix.CAP_CHOWN}, {"DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE}, {"SETUID", unix.CAP_SETUID}, {"SETGID", unix.CAP_SETGID}, {"SYS_PTRACE", unix.CAP_SYS_PTRACE},
	} {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil || data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			list = append(list, c.name)
		}
	}
	return list
}
