package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"

	"trysail/internal/rootless"
	"trysail/internal/trace"
)

// cgroup is the machine's own, of a controller: of the first version, which keeps
// a tree for each, or of the second.
type cgroup struct {
	dir    string
	second bool
}

// ended says that the kernel has taken a process out of its cgroup. It does so when the process
// ends, before anybody waits for it.
func ended() error {
	return fmt.Errorf("the machine's first process has ended: %w", os.ErrNotExist)
}

// cgroup finds it by the machine's first process.
func (r *running) cgroup(controller string) (cgroup, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(r.pid) + "/cgroup")
	if err != nil {
		return cgroup{}, err
	}
	unified := ""
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[0] == "0" {
			unified = f[2]
		}
		for c := range strings.SplitSeq(f[1], ",") {
			if c == controller {
				if f[2] == "/" {
					return cgroup{}, ended()
				}
				at, err := controllerMount(controller)
				return cgroup{filepath.Join(at, f[2]), false}, err
			}
		}
	}
	if unified == "/" {
		return cgroup{}, ended()
	}
	if unified == "" {
		return cgroup{}, fmt.Errorf("this host has no cgroup controller %s for machines", controller)
	}
	at, err := trace.CgroupRoot()
	return cgroup{filepath.Join(at, unified), true}, err
}

// controllerMount is where the tree of a controller of the first version is mounted.
func controllerMount(controller string) (string, error) {
	list, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "cgroup" || m.Root != "/" || !slices.Contains(strings.Split(m.VFSOptions, ","), controller), false
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("the cgroup controller %s is not mounted", controller)
	}
	if err != nil {
		return "", err
	}
	return list[0].Mountpoint, nil
}

func (c cgroup) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(c.dir, name))
	return strings.TrimSpace(string(data)), err
}

func (c cgroup) write(name, value string) error {
	return os.WriteFile(filepath.Join(c.dir, name), []byte(value), 0)
}

// freeze stops every process of the machine, or lets them go on; it waits until
// the kernel has done so. The machine's lock is held.
func (h *Host) freeze(stop bool) error {
	if h.on == nil || !h.on.alive() || !stop && rootless.Inside() { // it has no cgroup, and was never frozen
		return nil
	}
	c, err := h.on.cgroup("freezer")
	if err != nil {
		if !h.on.alive() || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	file, value, state, want := "freezer.state", "THAWED", "freezer.state", "THAWED"
	if stop {
		value, want = "FROZEN", "FROZEN"
	}
	if c.second {
		file, value, state, want = "cgroup.freeze", "0", "cgroup.events", "frozen 0"
		if stop {
			value, want = "1", "frozen 1"
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := c.write(file, value); err != nil { // again: a process may have come meanwhile
			if errors.Is(err, os.ErrNotExist) {
				return nil // it is off
			}
			return err
		}
		now, err := c.read(state)
		if err == nil && strings.Contains(now, want) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: its processes are %q after 10 s", h.Name, now)
		}
	}
}

// ooms counts processes that the kernel killed for want of the machine's memory.
func (c cgroup) ooms() (int, error) {
	file := "memory.oom_control"
	if c.second {
		file = "memory.events"
	}
	text, err := c.read(file)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, err
}

// limit bounds the machine's memory, in bytes; -1: no bound.
func (c cgroup) limit(bytes int64) error {
	if c.second {
		if bytes < 0 {
			return c.write("memory.max", "max")
		}
		return c.write("memory.max", strconv.FormatInt(bytes, 10))
	}
	return c.write("memory.limit_in_bytes", strconv.FormatInt(bytes, 10))
}
