package build

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// device is what the kernel says of a device node. It goes by the node's number: a
// name can be given to any node.
type device struct {
	block        bool
	major, minor uint32
	subsystem    string // as in /sys; "" if no driver has the number
	name         string // the kernel's own
	usb          []usbInterface
}

// usbInterface is one function of a USB device.
type usbInterface struct {
	class  string // two hex digits; "ff" is the maker's own
	driver string // of the kernel; "" if none uses it
}

// grade says what a live dependency needs before a build gets it.
type grade int

const (
	needsPermission grade = iota
	harmless
	never // no permission opens it
)

// grade decides by what somebody could do who has the node open, and says why.
func (d device) grade() (grade, string) {
	if d.block {
		return never, "a block device is this machine's disk"
	}
	if d.major == unix.Major(memory) {
		if slices.Contains([]uint32{3, 5, 7, 8, 9}, d.minor) { // null, zero, full, random, urandom
			return harmless, ""
		}
		return never, "it is this machine's memory, ports or kernel log"
	}
	for _, x := range reserved() {
		if d.major == x.major && d.minor >= x.first && d.minor <= x.last {
			return never, x.why
		}
	}
	if why := systems()[d.subsystem]; why != "" {
		return never, why
	}
	if d.subsystem == "misc" && (strings.HasPrefix(d.name, "vhost") || d.name == "uhid" || d.name == "snapshot") {
		return never, "it controls this machine's kernel"
	}
	if d.subsystem == "usb" && len(d.usb) > 0 && !slices.ContainsFunc(d.usb, func(i usbInterface) bool {
		return i.class != "ff" || i.driver != "" && i.driver != "usbfs"
	}) {
		return harmless, "" // a dongle that only the maker's library speaks to
	}
	return needsPermission, "a device may reach more than the build"
}

// memory is the number of /dev/mem.
const memory = 1<<8 | 1

type numbers struct {
	major, first, last uint32
	why                string
}

// reserved lists the numbers that Linux assigns for ever (admin-guide/devices.txt) to
// what is the machine itself. They hold also where no driver is loaded yet: opening
// such a node loads it.
func reserved() []numbers {
	const (
		all     = 1<<20 - 1
		console = "it is a terminal of this machine, at which people type"
		kernel  = "it controls this machine's kernel"
		raw     = "it sends raw commands to this machine's disks"
	)
	list := []numbers{
		{4, 0, 63, console},
		{5, 1, 1, console},
		{7, 0, all, console},
		{13, 0, all, "people type and point with it"},
		{10, 144, 144, kernel},
		{10, 184, 184, kernel},
		{10, 223, 223, "people type and point with it"},
		{10, 231, 231, kernel},
		{10, 234, 237, kernel},
		{21, 0, all, raw},
		{90, 0, all, raw},
		{162, 0, all, raw},
		{202, 0, all, kernel},
		{203, 0, all, kernel},
	}
	for major := uint32(136); major <= 143; major++ {
		list = append(list, numbers{major, 0, all, console})
	}
	return list
}

// systems lists the kernel's classes of devices whose numbers are given out as they come.
func systems() map[string]string {
	const (
		raw  = "it sends raw commands to this machine's disks"
		core = "it controls this machine's hardware"
	)
	return map[string]string{
		"block": "it is this machine's disk", "bsg": raw, "scsi_generic": raw, "scsi_changer": raw, "nvme": raw, "nvme-generic": raw, "nvme-subsystem": raw, "raw": raw, "mtd": raw, "ubi": raw, "megaraid_sas": raw,
		"mem": "it is this machine's memory", "input": "people type and point with it", "vc": "it is a screen of this machine", "graphics": "it is a screen of this machine",
		"msr": core, "cpuid": core, "vfio": core, "iommu": core, "ipmi": core, "mei": core, "watchdog": core, "tpm": "it holds this machine's keys", "tpmrm": "it holds this machine's keys",
	}
}

// readDevice asks the kernel what has the number.
func readDevice(mode uint32, rdev uint64) device {
	d := device{block: mode&unix.S_IFMT == unix.S_IFBLK, major: unix.Major(rdev), minor: unix.Minor(rdev)}
	kind := "char"
	if d.block {
		kind = "block"
	}
	dir := filepath.Join("/sys/dev", kind, strconv.Itoa(int(d.major))+":"+strconv.Itoa(int(d.minor)))
	target, err := os.Readlink(dir)
	if err != nil {
		return d // no driver has it: then it is not known to be harmless
	}
	d.name = filepath.Base(target)
	link := func(name string) string {
		to, err := os.Readlink(name)
		if err != nil {
			return ""
		}
		return filepath.Base(to)
	}
	d.subsystem = link(filepath.Join(dir, "subsystem"))
	classes, err := filepath.Glob(filepath.Join(dir, "*", "bInterfaceClass"))
	if err != nil {
		return d
	}
	for _, file := range classes {
		class, err := os.ReadFile(file)
		if err != nil {
			return device{block: d.block, major: d.major, minor: d.minor} // it is going away
		}
		d.usb = append(d.usb, usbInterface{strings.TrimSpace(string(class)), link(filepath.Join(filepath.Dir(file), "driver"))})
	}
	return d
}
