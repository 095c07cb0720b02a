package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"trysail/internal/trace"
	"trysail/internal/tree"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "doctor [COMMAND…]",
		Short:   "Say what this machine lacks for capture, rebuild and drill, or for the commands that you name",
		Long:    "Doctor looks and changes nothing; it needs no root. For each thing that is missing it names the\nsmallest step that mends it. It exits with 3 if something is missing that the named commands need (default:\ncapture, rebuild and drill). git and svn are needed for a working copy of theirs: run it there." + exitHelp,
		Example: "  trysail doctor\n  trysail doctor agent",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.doctor(cmd.Context(), args) },
	}
}

// doctorKnows are the commands that a machine may lack something for.
func doctorKnows() []string { return []string{"capture", "rebuild", "drill", "agent", "release"} }

// finding is one thing that a machine has or lacks.
type finding struct {
	Name   string   `json:"name"`
	OK     bool     `json:"ok"`
	Needed bool     `json:"needed"` // by what was asked for
	For    []string `json:"for"`
	Found  string   `json:"found"`
	Remedy string   `json:"remedy,omitempty"`
}

func (a *app) doctor(ctx context.Context, commands []string) error {
	for _, c := range commands {
		if !slices.Contains(doctorKnows(), c) {
			return usage("doctor does not know what %q needs: it knows %s", c, strings.Join(doctorKnows(), ", "))
		}
	}
	if len(commands) == 0 {
		commands = []string{"capture", "rebuild", "drill"}
	}
	list := a.examine(ctx)
	missing := judge(list, commands, copyHere())
	for _, f := range list {
		mark := "✓"
		switch {
		case !f.OK && f.Needed:
			mark = "✗"
		case !f.OK:
			mark = "–"
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
		a.printf("%s missing for %s.\n", plural(missing, "thing"), strings.Join(commands, ", "))
		return answerNo{}
	}
	a.printf("This machine has what it needs for %s.\n", strings.Join(commands, ", "))
	return nil
}

// copyHere is the version control of the working directory; "" where there is none.
func copyHere() string {
	root, err := repository()
	if err != nil {
		return ""
	}
	d, err := tree.Open(root)
	if err != nil {
		return ""
	}
	defer d.Close()
	for _, name := range []string{"git", "svn"} {
		if _, err := d.Lstat("." + name); err == nil {
			return name
		}
	}
	return ""
}

// judge says which of the findings the commands need, and counts those that are missing. A
// program of version control is needed where the working copy is one of its.
func judge(list []finding, commands []string, copyOf string) (missing int) {
	for i := range list {
		f := &list[i]
		f.Needed = slices.ContainsFunc(f.For, func(c string) bool { return slices.Contains(commands, c) })
		if f.Name == "git" || f.Name == "svn" {
			f.Needed = f.Needed && f.Name == copyOf
		}
		if f.Needed && !f.OK {
			missing++
		}
	}
	return missing
}

func (a *app) examine(ctx context.Context) []finding {
	all := []string{"capture", "rebuild", "drill", "agent"}
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
	list = append(list, a.privacyFinding(), a.stateFinding())
	if _, err := os.Stat(a.state); root && err == nil { // before that nothing shows what its file system can do
		list = append(list, a.isolationFinding(ctx))
	}
	for _, p := range []struct {
		program, pkg string
		needs        []string
	}{
		{"runc", "runc", all}, {"dpkg", "dpkg", all}, {"apt-get", "apt", []string{"capture"}}, {"xz", "xz-utils", []string{"rebuild", "drill", "agent"}}, {"tar", "tar", all}, {"git", "git", []string{"capture", "release"}}, {"svn", "subversion", []string{"capture", "release"}},
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
	add("machine identity", err == nil, found(err == nil, "/etc/machine-id", "no /etc/machine-id"), "systemd-machine-id-setup", "rebuild")
	return list
}

func found(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

// privacyFinding looks for directories that others may enter, or could exchange.
func (a *app) privacyFinding() finding {
	f := finding{Name: "privacy", For: doctorKnows()} // what builds used and made is kept from other users
	dirs := []string{a.state}
	entries, err := os.ReadDir(a.state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		f.Found, f.Remedy = err.Error(), "choose another state directory with --state DIR"
		return f
	}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(a.state, e.Name()))
		}
	}
	// A directory that is no depot yet is closed when it becomes one.
	if _, err := os.Stat(filepath.Join(a.depotDir, "oci-layout")); err == nil && filepath.Dir(a.depotDir) != a.state {
		dirs = append(dirs, a.depotDir)
	}
	var wrong, remedies []string
	for _, dir := range dirs {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			continue // not made yet, or closed to this user, as it should be
		}
		if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			wrong = append(wrong, fmt.Sprintf("%s belongs to user %d", dir, st.Uid))
			remedies = append(remedies, "chown root: "+dir)
		}
		// What is below a closed directory is closed.
		if st.Mode&0o077 != 0 && (dir == a.state || dir == a.depotDir || len(wrong) > 0) {
			wrong = append(wrong, fmt.Sprintf("%s has the mode %04o", dir, st.Mode&0o7777))
			remedies = append(remedies, "chmod 0700 "+dir)
		}
	}
	f.OK = len(wrong) == 0
	f.Found, f.Remedy = found(f.OK, "nobody else can enter the state and the depot", strings.Join(wrong, "; ")), strings.Join(remedies, " && ")
	return f
}

// stateFinding looks at the file system under the state directory.
func (a *app) stateFinding() finding {
	f := finding{Name: "state directory", For: []string{"capture", "rebuild", "drill", "agent"}}
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

// isolationFinding tells what keeps root in a rebuilt server from this machine.
func (a *app) isolationFinding(ctx context.Context) finding {
	f := finding{Name: "isolation", For: []string{"rebuild", "drill", "agent"}} // which keep a rebuilt server away from this machine
	st, err := a.openState(ctx)
	if err != nil {
		f.Found, f.Remedy = err.Error(), "choose another state directory with --state DIR"
		return f
	}
	i := st.Isolation()
	f.OK, f.Found = i.UserNamespace, i.String()
	if !i.UserNamespace {
		f.Found += ": " + i.Why
		f.Remedy = "use Linux 6.1 or newer, a state directory on ext4, XFS or Btrfs, and sysctl user.max_user_namespaces above 0; docs/security.md says what holds without"
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
