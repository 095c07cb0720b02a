package build

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trysail/internal/machine"
)

func TestLimits(t *testing.T) {
	host := func(name string) uint64 {
		return map[string]uint64{"RLIMIT_NOFILE": 1000, "RLIMIT_CORE": 0, "RLIMIT_STACK": unlimited}[name]
	}
	for _, c := range []struct {
		name, value string
		want        machine.Limit
		said        string // "": nothing
	}{
		{"RLIMIT_NOFILE", "256:1000", machine.Limit{Soft: 256, Hard: 1000}, ""},
		{"RLIMIT_NOFILE", "256:1073741816", machine.Limit{Soft: 256, Hard: 1000}, "RLIMIT_NOFILE is 256:1000 here, and was 256:1073741816"},
		{"RLIMIT_NOFILE", "unlimited:unlimited", machine.Limit{Soft: 1000, Hard: 1000}, "RLIMIT_NOFILE is 1000:1000 here"},
		{"RLIMIT_CORE", "0:unlimited", machine.Limit{Soft: 0, Hard: 0}, "RLIMIT_CORE is 0:0 here, and was 0:unlimited"},
		{"RLIMIT_STACK", "8388608:unlimited", machine.Limit{Soft: 8388608, Hard: unlimited}, ""},
	} {
		list, said, err := limits(map[string]string{c.name: c.value}, host)
		c.want.Type = c.name
		if err != nil || !slices.Equal(list, []machine.Limit{c.want}) || (c.said == "") != (len(said) == 0) || !strings.Contains(strings.Join(said, "\n"), c.said) {
			t.Errorf("%s=%s: %v, %q (%v)", c.name, c.value, list, said, err)
		}
	}
	for _, bad := range []string{"", "1", "a:b", "1:2:3", "-1:5"} {
		if _, _, err := limits(map[string]string{"RLIMIT_NOFILE": bad}, host); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if n := hostLimit("RLIMIT_NOFILE"); n == 0 || n == unlimited {
		t.Errorf("this machine gives %d open files", n)
	}
}

// TestAttackBuildInRealTime: a blueprint lets its build run before every other program of the
// machine, the guard among them that is to stop it in time.
func TestAttackBuildInRealTime(t *testing.T) {
	for name, which := range map[string]int{"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_NICE": unix.RLIMIT_NICE} {
		var own unix.Rlimit
		if err := unix.Getrlimit(which, &own); err != nil {
			t.Fatal(err)
		}
		list, said, err := limits(map[string]string{name: "unlimited:unlimited"}, func(name string) uint64 { return ceiling(name, true) })
		if err != nil || len(list) != 1 || list[0].Soft > own.Max || list[0].Hard > own.Max || own.Max != unix.RLIM_INFINITY && len(said) != 1 {
			t.Errorf("%s: a build gets %v, and this process has %d: %q (%v)", name, list, own.Max, said, err)
		}
	}
}
