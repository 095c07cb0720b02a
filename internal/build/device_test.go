package build

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDeviceGrade(t *testing.T) {
	dongle := usbInterface{class: "ff"}
	for _, x := range []struct {
		what string
		device
		want grade
	}{
		{"/dev/null", device{major: 1, minor: 3}, harmless},
		{"/dev/zero", device{major: 1, minor: 5}, harmless},
		{"/dev/urandom", device{major: 1, minor: 9}, harmless},
		{"a dongle that the maker's library speaks to", device{major: 189, minor: 3, subsystem: "usb", name: "1-4", usb: []usbInterface{dongle}}, harmless},
		{"a dongle that is open", device{major: 189, minor: 3, subsystem: "usb", usb: []usbInterface{{"ff", "usbfs"}}}, harmless},

		{"/dev/mem", device{major: 1, minor: 1, subsystem: "mem", name: "mem"}, never},
		{"/dev/mem where the kernel has none", device{major: 1, minor: 1}, never},
		{"/dev/kmem", device{major: 1, minor: 2}, never},
		{"/dev/port", device{major: 1, minor: 4}, never},
		{"/dev/kmsg", device{major: 1, minor: 11, subsystem: "mem", name: "kmsg"}, never},
		{"a disk", device{block: true, major: 8}, never},
		{"/dev/loop0", device{block: true, major: 7}, never},
		{"a block device with the numbers of null", device{block: true, major: 1, minor: 3}, never},
		{"/dev/sg0", device{major: 21, minor: 0}, never},
		{"/dev/bsg/0:0:0:0", device{major: 250, subsystem: "bsg"}, never},
		{"/dev/nvme0", device{major: 240, subsystem: "nvme"}, never},
		{"/dev/ng0n1", device{major: 239, subsystem: "nvme-generic"}, never},
		{"/dev/mapper/control", device{major: 10, minor: 236, subsystem: "misc"}, never},
		{"/dev/loop-control", device{major: 10, minor: 237}, never},
		{"/dev/btrfs-control", device{major: 10, minor: 234}, never},
		{"/dev/uinput", device{major: 10, minor: 223}, never},
		{"/dev/input/event0", device{major: 13, minor: 64, subsystem: "input"}, never},
		{"/dev/tty1", device{major: 4, minor: 1, subsystem: "tty"}, never},
		{"/dev/console", device{major: 5, minor: 1}, never},
		{"/dev/pts/0", device{major: 136}, never},
		{"/dev/vcs1", device{major: 7, minor: 1}, never},
		{"/dev/cpu/0/msr", device{major: 202}, never},
		{"/dev/vhost-net", device{major: 10, minor: 238, subsystem: "misc", name: "vhost-net"}, never},
		{"/dev/tpm0", device{major: 10, minor: 224, subsystem: "tpm"}, never},
		{"/dev/vfio/12", device{major: 241, subsystem: "vfio"}, never},

		{"/dev/kvm", device{major: 10, minor: 232, subsystem: "misc", name: "kvm"}, needsPermission},
		{"/dev/fuse", device{major: 10, minor: 229, subsystem: "misc", name: "fuse"}, needsPermission},
		{"/dev/net/tun", device{major: 10, minor: 200, subsystem: "misc", name: "tun"}, needsPermission},
		{"/dev/hidraw0, which may be a keyboard", device{major: 242, subsystem: "hidraw", name: "hidraw0"}, needsPermission},
		{"/dev/ttyUSB0, which ends at another machine", device{major: 188, subsystem: "usb-serial", name: "ttyUSB0"}, needsPermission},
		{"a USB disk", device{major: 189, subsystem: "usb", usb: []usbInterface{{"08", "usb-storage"}}}, needsPermission},
		{"a USB disk without its driver", device{major: 189, subsystem: "usb", usb: []usbInterface{{"08", ""}}}, needsPermission},
		{"a USB keyboard with a function of its maker", device{major: 189, subsystem: "usb", usb: []usbInterface{dongle, {"03", "usbhid"}}}, needsPermission},
		{"a USB network card of its maker's own class", device{major: 189, subsystem: "usb", usb: []usbInterface{{"ff", "r8152"}}}, needsPermission},
		{"a USB device that shows no function", device{major: 189, subsystem: "usb"}, needsPermission},
		{"what nobody knows", device{major: 511, minor: 7}, needsPermission},
	} {
		got, why := x.grade()
		if got != x.want || (why == "") != (got == harmless) {
			t.Errorf("%s: %d %q, want %d", x.what, got, why, x.want)
		}
	}
}

// The numbers decide, whatever name somebody gave the node.
func TestReadDeviceAsksTheKernel(t *testing.T) {
	if d := readDevice(unix.S_IFCHR, unix.Mkdev(1, 3)); d.name != "null" || d.subsystem != "mem" {
		t.Errorf("%+v", d)
	}
	if d := readDevice(unix.S_IFCHR, unix.Mkdev(4000, 77)); d.name != "" || d.subsystem != "" || d.major != 4000 || d.minor != 77 {
		t.Errorf("%+v", d)
	}
	if d := readDevice(unix.S_IFBLK, unix.Mkdev(1, 3)); !d.block {
		t.Errorf("%+v", d)
	}
}

func TestPrivatePaths(t *testing.T) {
	p := Permits{Private: []string{"/var/lib/trysail", "/srv/depot"}}
	for path, want := range map[string]string{
		"/var/lib/trysail/agent/secrets/TOKEN": "Trysail's", "/var/lib/trysail": "Trysail's", "/var/lib": "Trysail's", "/srv/depot/blobs": "Trysail's",
		"/etc/shadow": "passwords", "/etc": "passwords", "/etc/ssh/ssh_host_ed25519_key": "passwords", "/run/user/1000/bus": "passwords", "/run": "passwords",
		"/home/ann/.ssh/id_ed25519": "keys", "/tmp/ssh-XXXX/agent.77": "keys", "/home/ann/.gnupg/S.gpg-agent": "keys",
		"/proc/1/root/etc/shadow": "kernel", "/sys/kernel/debug": "kernel", "/dev/sda": "kernel",
		"/opt/licence/key.dat": "", "/run/docker.sock": "", "/var/lib/trysailor": "", "/etc/licence.dat": "",
	} {
		kind := "unix"
		if got := p.private(dependency(kind, path)); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if why := p.private(dependency("device", "/dev/hidraw0")); why != "" {
		t.Error(why)
	}
}
