package build

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"trysail/internal/machine"
)

const unlimited = ^uint64(0)

// limits reads a build's resource limits and lowers those that are above what this
// machine can give: the blueprint may come from a machine that gives more. It says which.
func limits(m map[string]string, ceiling func(name string) uint64) (list []machine.Limit, lowered []string, err error) {
	for name, value := range m {
		soft, hard, ok := strings.Cut(value, ":")
		s, err := limit(soft)
		h, herr := limit(hard)
		if err != nil || herr != nil || !ok {
			return nil, nil, fmt.Errorf("limit %s: %q is not soft:hard", name, value)
		}
		if most := ceiling(name); max(s, h) > most {
			s, h = min(s, most), min(h, most)
			lowered = append(lowered, fmt.Sprintf("%s is %s here, and was %s: this machine cannot give more", name, limitText(s)+":"+limitText(h), value))
		}
		list = append(list, machine.Limit{Type: name, Soft: s, Hard: h})
	}
	slices.SortFunc(list, func(a, b machine.Limit) int { return strings.Compare(a.Type, b.Type) })
	slices.Sort(lowered)
	return list, lowered, nil
}

func limit(s string) (uint64, error) {
	if s == "unlimited" {
		return unlimited, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

func limitText(n uint64) string {
	if n == unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// hostLimit is the highest limit that this process may set: as many open files as the
// kernel allows anybody (fs.nr_open), and without CAP_SYS_RESOURCE no more than it has. Nobody
// gets more of a processor's time than this process: it could not stop a build in real time.
func hostLimit(name string) uint64 { return ceiling(name, mayRaise()) }

func ceiling(name string, raise bool) uint64 {
	most := uint64(unlimited)
	if name == "RLIMIT_NOFILE" {
		if data, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err == nil {
				most = n
			}
		}
	}
	which, known := map[string]int{
		"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE,
		"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_NPROC": unix.RLIMIT_NPROC,
		"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
		"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_RSS": unix.RLIMIT_RSS,
	}[name]
	var own unix.Rlimit
	if !known || raise && name != "RLIMIT_RTPRIO" && name != "RLIMIT_NICE" || unix.Getrlimit(which, &own) != nil {
		return most
	}
	return min(most, own.Max)
}

// mayRaise tells whether this process may raise its own hard limits: it has
// CAP_SYS_RESOURCE in the first user namespace.
func mayRaise() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	if f := strings.Fields(string(ids)); err != nil || len(f) != 3 || f[0] != "0" || f[1] != "0" || f[2] != "4294967295" {
		return false
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
