package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCgroupOfAMachineThatEnded: a process that has ended and that nobody waited for yet has the
// host's own cgroup, which is not to be frozen.
func TestCgroupOfAMachineThatEnded(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // it ends well
	status := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status"
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		data, err := os.ReadFile(status)
		if err != nil || time.Now().After(end) {
			t.Fatalf("it does not end: %s (%v)", data, err)
		}
		if strings.Contains(string(data), "State:\tZ") {
			break
		}
	}
	c, err := (&running{pid: cmd.Process.Pid}).cgroup("freezer")
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "..", "cgroup.procs")); err != nil {
		t.Errorf("%s is the root of the host's cgroups", c.dir)
	}
}
