package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capability is one of Linux's, by its name in a configuration.
type capability struct {
	name string
	bit  uintptr
}

// capabilitiesForPackages are what maintainer scripts need of root.
func capabilitiesForPackages() []capability {
	return []capability{
		{"CAP_AUDIT_WRITE", unix.CAP_AUDIT_WRITE},
		{"CAP_CHOWN", unix.CAP_CHOWN},
		{"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
		{"CAP_FOWNER", unix.CAP_FOWNER},
		{"CAP_FSETID", unix.CAP_FSETID},
		{"CAP_KILL", unix.CAP_KILL},
		{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
		{"CAP_SETFCAP", unix.CAP_SETFCAP},
		{"CAP_SETGID", unix.CAP_SETGID},
		{"CAP_SETPCAP", unix.CAP_SETPCAP},
		{"CAP_SETUID", unix.CAP_SETUID},
		{"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT},
	}
}

// capabilitiesForBuilds are what builds use besides: mounts in a namespace of their
// own, debuggers, device nodes. In a user namespace they reach nothing outside of it.
func capabilitiesForBuilds() []capability {
	return append(capabilitiesForPackages(), []capability{
		{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH},
		{"CAP_IPC_OWNER", unix.CAP_IPC_OWNER},
		{"CAP_LEASE", unix.CAP_LEASE},
		{"CAP_LINUX_IMMUTABLE", unix.CAP_LINUX_IMMUTABLE},
		{"CAP_MKNOD", unix.CAP_MKNOD},
		{"CAP_NET_RAW", unix.CAP_NET_RAW},
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN},
		{"CAP_SYS_NICE", unix.CAP_SYS_NICE},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE},
		{"CAP_SYS_RESOURCE", unix.CAP_SYS_RESOURCE},
	}...)
}

// capabilitiesForHosts are for a drill's disposable host, which makes containers,
// networks and limits itself.
func capabilitiesForHosts() []capability {
	return append(capabilitiesForBuilds(), []capability{
		{"CAP_BPF", unix.CAP_BPF},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
		{"CAP_PERFMON", unix.CAP_PERFMON},
	}...)
}

// walled tells whether the container must not reach this machine: it runs what a
// blueprint, a package or a runbook brought. The machine's own build (capture) and a
// drill's disposable host are not.
func (sp Spec) walled() bool { return !sp.HostDevices && !sp.Whole }

// capabilities lists what root has in the container. What this process itself may not
// have (it may be in a container) it cannot give.
func (sp Spec) capabilities(userNamespace bool) []string {
	list := capabilitiesForBuilds()
	switch {
	case sp.Whole:
		list = capabilitiesForHosts()
	case sp.walled() && !userNamespace:
		list = capabilitiesForPackages()
	}
	var have []string
	for _, c := range list {
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c.bit, 0, 0, 0); err == nil && set == 1 {
			have = append(have, c.name)
		}
	}
	return have
}

// wall keeps the container from the kernel's interfaces: the paths that runc masks by
// default, and moby's system call profile, which its maintainers keep up to date.
func wall(s *specs.Spec) (err error) {
	s.Linux.MaskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
		"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s); err != nil {
		return fmt.Errorf("system call profile: %w", err)
	}
	return nil
}

// unified is where the second version of cgroups is mounted on hosts that have both.
const unified = "/sys/fs/cgroup/unified"

// oci gives the container's configuration. v is nil where it has no user namespace of
// its own; rootless says that this process is in one already.
func (sp Spec) oci(self, id string, v *view, rootless bool) (*specs.Spec, error) {
	umask := sp.Umask
	bounding := sp.capabilities(v != nil || rootless)
	root, mounts, devices := sp.Root, sp.Mounts, sp.Devices
	if v != nil {
		root, mounts, devices = v.root, v.mounts, v.devices
	}
	caps := bounding
	if sp.UID != 0 {
		caps = nil
	}
	s := &specs.Spec{
		Version:  "1.0.2",
		Hostname: sp.Hostname,
		Root:     &specs.Root{Path: root},
		Process: &specs.Process{
			Terminal: sp.Terminal,
			User:     specs.User{UID: sp.UID, GID: sp.GID, AdditionalGids: sp.Groups, Umask: &umask},
			Args:     []string{InitPath},
			Env:      []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GODEBUG=netdns=go"},
			Cwd:      "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: bounding, Permitted: caps, Effective: caps, Inheritable: nil,
			},
			NoNewPrivileges: sp.NoNewPrivileges,
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
	if v != nil {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = v.ids.lines(), v.ids.lines()
	}
	if !sp.Whole { // what it runs may take all memory: then it ends, and not who runs it
		first := 1000
		s.Process.OOMScoreAdj = &first
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
	} else if rootless { // a mount of the machine's own cannot be made without those below it
		add(specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
	} else if v == nil { // a view has a mount of it
		add(specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"bind", "ro", "nosuid", "noexec", "nodev"}})
	}
	if sp.HostDevices {
		add(specs.Mount{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"rbind", "rw"}})
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	} else {
		add(specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}})
		add(specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}})
		for _, dev := range devices {
			dev.ReadOnly = true // the node, not the device
			add(dev.oci())
		}
		s.Linux.Resources = deviceRules(devices)
		if sp.Whole { // as far as its own containers may go
			s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
		}
	}
	add(specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "mode=1777"}})
	var first []specs.Mount
	for _, m := range mounts {
		// A blueprint says where they are, and its root has links. Runc masks /proc with
		// the /dev/null that it finds, and makes no /dev where another is asked for.
		if sp.walled() && m.Target == "/dev" {
			return nil, errors.New("nothing can be mounted at /dev: a container has its own")
		}
		if sp.walled() && m.Target != "/sys" && !strings.HasPrefix(m.Target, "/dev/shm/") {
			first = append(first, m.oci())
		} else {
			add(m.oci())
		}
	}
	s.Mounts = append(first, s.Mounts...)
	add(specs.Mount{Destination: InitPath, Type: "bind", Source: self, Options: []string{"bind", "ro"}})
	if rootless { // cgroups are not theirs; without device nodes of their own they need none
		s.Linux.CgroupsPath, s.Linux.Resources = "", nil
	}
	if sp.walled() {
		return s, wall(s)
	}
	return s, nil
}

// oci mounts it as runc is to.
func (m Mount) oci() specs.Mount {
	opts := []string{"bind", "rw"}
	if m.Target == "/sys" {
		opts = append(opts, "nosuid", "noexec", "nodev")
	}
	if m.ReadOnly {
		opts[1] = "ro"
		// Runc mounts it again for that, and forgets what the source's mount has.
		flags, _ := restrictions(m.Source) // runc names a source that is not there
		for name, flag := range map[string]uintptr{"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC} {
			if flags&flag != 0 {
				opts = append(opts, name)
			}
		}
	}
	return specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: opts}
}

// deviceRules allows the usual nodes (runc makes them), making nodes, and the
// live dependencies' devices; everything else is refused.
func deviceRules(devices []Mount) *specs.LinuxResources {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	wild := int64(-1)
	rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &wild, Minor: &wild, Access: "m"},
		specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &wild, Minor: &wild, Access: "m"})
	for _, dev := range devices {
		var st unix.Stat_t
		if unix.Stat(dev.Source, &st) != nil {
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
