package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/drill"
	"trysail/internal/machine"
)

func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == machine.InitPath:
		os.Exit(machine.Init())
	case os.Args[0] == "/whose-root":
		os.Exit(whoseRoot())
	case filepath.Base(os.Args[0]) == "trysail" || os.Args[0] == "/drill-bin":
		os.Exit(guest(os.Args))
	}
	os.Exit(m.Run())
}

// guest is what runs on the machines of these tests, in place of trysail: it says
// each tenth of a second that it is alive, and listens; or it eats memory.
func guest(args []string) int {
	if args[len(args)-1] == "eat" {
		time.Sleep(2 * time.Second) // the test takes the memory away meanwhile
		var all [][]byte
		for range 600 {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
			time.Sleep(2 * time.Millisecond)
		}
		return len(all) % 7
	}
	if err := serve("0.0.0.0:9"); err != nil {
		fmt.Println(err)
		return 1
	}
	for n := 0; ; n++ {
		if err := os.WriteFile("/var/lib/trysail/alive", fmt.Append(nil, n), 0o600); err != nil {
			fmt.Println(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("TRYSAIL_TESTS") == "all" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	root(t)
	return newLabIn(t, t.TempDir())
}

func newLabIn(t *testing.T, dir string) *Lab {
	t.Helper()
	st, err := machine.OpenState(t.Context(), filepath.Join(dir, "state"), filepath.Join(dir, "run"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if list, _ := filepath.Glob(filepath.Join(dir, "run/journal/*")); len(list) > 0 {
			t.Errorf("journals are left: %v", list)
		}
	})
	return l
}

func machineOn(t *testing.T, l *Lab, name string, args ...string) *Host {
	t.Helper()
	h, err := l.Host(HostSpec{Name: name, Disk: 256 << 20})
	if err == nil {
		err = h.Start(append(args, "run")...)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, name+" lives", func() error { _, err := os.Stat(filepath.Join(h.Disk(), "alive")); return err })
	return h
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// TestFaults: each fault bites, as its probe sees; the probe says no before it was
// injected; and after it was undone the machine is as it was.
func TestFaults(t *testing.T) {
	l := newLab(t)
	machineOn(t, l, "other")
	for _, x := range []struct {
		fault drill.Fault
		good  bool // for good
	}{
		{"machine-hung", false},
		{"disk-full", false},
		{"inodes-gone", false},
		{"read-only", false},
		{"partition", false},
		{"partition-out", false},
		{"partition-in", false},
		{"original-corrupted", true},
		{"disk-dead", true},
		{"disk-destroyed", true},
		{"machine-lost", false},
	} {
		t.Run(string(x.fault), func(t *testing.T) {
			h := machineOn(t, l, string(x.fault))
			of := ""
			if x.fault == "original-corrupted" {
				_, of = blob(t, h, "original")
			}
			f, err := h.Prepare(x.fault, of)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Probe(t.Context()); err == nil {
				t.Fatal("its probe says yes before it was injected")
			}
			if err := f.Inject(); err != nil {
				t.Fatal(err)
			}
			if err := f.Probe(t.Context()); err != nil {
				t.Fatalf("it has no effect: %v", err)
			}
			if x.good != (f.Undo == nil) {
				t.Fatalf("it can be undone: %v", f.Undo != nil)
			}
			if x.good {
				return
			}
			if err := f.Undo(); err != nil {
				t.Fatalf("undo: %v", err)
			}
			if err := f.Probe(t.Context()); err == nil {
				t.Error("it bites after it was undone")
			}
			before, err := os.ReadFile(filepath.Join(h.Disk(), "alive"))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "it lives again", func() error {
				now, err := os.ReadFile(filepath.Join(h.Disk(), "alive"))
				if err == nil && bytes.Equal(now, before) {
					err = errors.New("it does nothing")
				}
				return err
			})
			c, err := l.Dial(t.Context(), &net.Dialer{}, h, l.Get("other").Address(9))
			if err != nil {
				t.Fatalf("the other machine: %v", err)
			}
			c.Close()
			if err := h.PowerOff(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPartitionStays: a machine that is turned on again is cut off as before, until the
// fault is undone.
func TestPartitionStays(t *testing.T) {
	h := machineOn(t, newLab(t), "one")
	f, err := h.Prepare("partition", "")
	if err == nil {
		err = f.Inject()
	}
	for range 2 {
		if err == nil {
			err = errors.Join(h.PowerOff(), h.Restart())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Probe(t.Context()); err != nil {
			t.Errorf("turned on again: %v", err)
		}
	}
	if err := f.Undo(); err != nil {
		t.Fatal(err)
	}
	if err := f.Probe(t.Context()); err == nil {
		t.Error("it is cut off after that was undone")
	}
}

// TestOutOfMemory: the kernel kills what needs more than there is.
func TestOutOfMemory(t *testing.T) {
	l := newLab(t)
	h, err := l.Host(HostSpec{Name: "eater", Disk: 256 << 20})
	if err == nil {
		err = h.Start("eat")
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.Prepare("out-of-memory", "")
	if err == nil {
		err = f.Inject()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Probe(t.Context()); err == nil {
		t.Error("it bit before anything was killed")
	}
	eventually(t, "the kernel kills", func() error { return f.Probe(t.Context()) })
	if err := h.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if err := f.Undo(); err != nil {
		t.Errorf("of a machine that is off: %v", err)
	}
}

// leftovers is what a lab in a directory has on this host: mounts, loop devices,
// what its journals name, and the cgroups of those, which are not gone before the
// processes in them are.
func leftovers(t *testing.T, dir string, ids []string) string {
	t.Helper()
	var all strings.Builder
	scripts := []string{"grep " + dir + " /proc/self/mountinfo || true", "losetup -a | grep " + dir + " || true", "ls " + dir + "/state/scratch " + dir + "/run/journal"}
	for _, id := range ids {
		scripts = append(scripts, "find /sys/fs/cgroup -name '"+id+"*' -type d")
	}
	for _, script := range scripts {
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v", script, err)
		}
		all.Write(out)
	}
	return all.String()
}

// TestKilled: a lab whose process is killed is gone but for what its journal names,
// and the next run takes that away too; a machine that hangs included.
func TestKilled(t *testing.T) {
	root(t)
	dir := t.TempDir()
	if os.Getenv("LAB_TO_KILL") != "" {
		dir = os.Getenv("LAB_TO_KILL")
		st, err := machine.OpenState(t.Context(), filepath.Join(dir, "state"), filepath.Join(dir, "run"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		l, err := New(st, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // where this fails before it is killed
		for _, name := range []string{"one", "two"} {
			machineOn(t, l, name)
		}
		for _, f := range []drill.Fault{"disk-full", "partition-in", "machine-hung"} {
			x, err := l.Get("two").Prepare(f, "")
			if err == nil {
				err = x.Inject()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
	}
	for _, d := range []string{"state/scratch", "run/journal"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	before := leftovers(t, dir, nil)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), "LAB_TO_KILL="+dir)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lab stands", func() error { _, err := os.Stat(filepath.Join(dir, "ready")); return err })
	var ids []string
	for _, f := range []string{"losetup -a | grep -c " + dir, "ls " + dir + "/run/journal"} {
		out, err := exec.Command("sh", "-c", f).Output()
		if err != nil {
			t.Fatalf("this test does not see what a lab is made of: %s: %v", f, err)
		}
		ids = strings.Fields(strings.ReplaceAll(string(out), ".json", ""))
	}
	if seen := leftovers(t, dir, ids); strings.Count(seen, "/sys/fs/cgroup/") < 2 || len(ids) != 3 {
		t.Fatalf("this test does not see the machines' cgroups: %v\n%s", ids, seen)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	st, err := machine.OpenState(t.Context(), filepath.Join(dir, "state"), filepath.Join(dir, "run"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("the next run: %v", err)
	}
	if _, err := os.Stat(st.Dir); errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	eventually(t, "nothing is left", func() error {
		if after := leftovers(t, dir, ids); after != before {
			return fmt.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		return nil
	})
}
