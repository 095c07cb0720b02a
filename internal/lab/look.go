package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"

	"trysail/internal/machine"
)

// Look lists what of drills is on this host and is to be as it was when one has
// ended: mounts, loop devices, named network namespaces, nftables' tables, cgroups,
// and processes of machines; but for what bears the name of a run that goes on
// beside this one.
func Look(state *machine.State) ([]string, error) {
	list, err := look()
	if err != nil {
		return nil, err
	}
	others, err := state.Others()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(s string) bool {
		return slices.ContainsFunc(others, func(id string) bool { return strings.Contains(s, id) })
	}), nil
}

func look() ([]string, error) {
	var list []string
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		list = append(list, "mount "+m.Mountpoint)
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, f := range loops {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // given back meanwhile
		}
		list = append(list, "loop device of "+strings.TrimSpace(string(data)))
	}
	names, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, n := range names {
		list = append(list, "network namespace "+n.Name())
	}
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	for _, t := range tables {
		list = append(list, "nftables table "+t.Name)
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it went away
			}
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), "trysail-") {
			list = append(list, "cgroup "+p)
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		data, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(data), "\x00--drill-clock\x00") {
			cgroup, err := os.ReadFile(filepath.Join(filepath.Dir(p), "cgroup"))
			if err != nil {
				continue // it has ended
			}
			list = append(list, "process "+strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))+" of "+machineOf(string(cgroup)))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// machineOf is the session that a process belongs to, by its cgroup.
func machineOf(cgroup string) string {
	for part := range strings.FieldsFuncSeq(cgroup, func(r rune) bool { return r == '/' || r == '\n' || r == ':' }) {
		if strings.HasPrefix(part, "trysail-") {
			return part
		}
	}
	return "no machine"
}
