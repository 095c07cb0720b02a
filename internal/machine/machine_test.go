package machine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test mounts file systems and needs root")
	}
}

// state is a state on a file system that can hold overlays.
func state(t testing.TB) *State {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	s, err := OpenState(context.Background(), filepath.Join(dir, "state"), filepath.Join(dir, "run"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t testing.TB, s *State) *Session {
	t.Helper()
	n, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mounted lists mount points below a directory.
func mounted(t testing.TB, dir string) []string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range mounts {
		list = append(list, m.Mountpoint)
	}
	return list
}

// What is mounted is somebody's live data, however its directory is named.
func TestRemoveAllKeepsMounts(t *testing.T) {
	s := state(t) // needs root
	for _, name := range []string{"plain", "with a space"} {
		dir := filepath.Join(s.Dir, name)
		at := filepath.Join(dir, "mount")
		link := dir + "-link"
		if err := errors.Join(os.MkdirAll(at, 0o755), os.Symlink(dir, link)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) }) // where the test failed
		data := filepath.Join(at, "data")
		if err := os.WriteFile(data, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, at, filepath.Join(link, "mount")} {
			if err := RemoveAll(d); err == nil || !strings.Contains(err.Error(), at+" is still mounted") {
				t.Errorf("remove %q: %v", d, err)
			}
		}
		if _, err := os.Stat(data); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(at, 0); err != nil {
			t.Fatal(err)
		}
		for range 2 { // what is gone is gone
			if err := RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", dir, err)
		}
	}
}

func empty(t testing.TB, s *State) {
	t.Helper()
	for _, dir := range []string{s.scratch(), s.journals()} {
		if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
			t.Errorf("left in %s: %v %v", dir, names, err)
		}
	}
	if left := mounted(t, s.Dir); len(left) != 0 {
		t.Errorf("still mounted: %q", left)
	}
}

func readJournal(t testing.TB, n *Session) journal {
	t.Helper()
	data, err := os.ReadFile(n.path())
	if err != nil {
		t.Fatal(err)
	}
	var j journal
	if err := json.Unmarshal(data, &j); err != nil {
		t.Fatal(err)
	}
	return j
}

// kill makes a session's journal look as if its process were gone.
func kill(t testing.TB, n *Session) {
	t.Helper()
	n.j.Started = "1"
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
}

// overlay mounts a new upper layer, as a volatile one cannot be mounted twice.
func overlay(t testing.TB, n *Session) (at, upper string) {
	t.Helper()
	lower, err := n.MkdirAll(0o755, "lower")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lower, "below"), []byte("below"), 0o644); err != nil {
		t.Fatal(err)
	}
	upper = n.Path("upper-" + rand.Text())
	if at, err = n.Overlay("root", []string{lower}, upper, true); err != nil {
		t.Fatal(err)
	}
	return at, upper
}

func TestOpenStateNeedsRoot(t *testing.T) {
	dir, run := t.TempDir(), t.TempDir()
	if os.Geteuid() == 0 {
		// This thread alone stops being root for a moment.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		become := func(uid uintptr) {
			const keep = ^uintptr(0)
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep); errno != 0 {
				t.Fatal(errno)
			}
		}
		become(65534)
		defer become(0)
	}
	var re *RootError
	if _, err := OpenState(context.Background(), dir, run, slog.New(slog.DiscardHandler)); !errors.As(err, &re) || re.Hint() == "" {
		t.Errorf("without root: %v", err)
	}
}

// TestRootsAreClosed: no user of the machine reaches the set-user-ID programs of a
// rebuilt root, or what a session lays out.
func TestRootsAreClosed(t *testing.T) {
	s := state(t)
	// As an earlier version left them.
	if err := errors.Join(os.Chmod(s.Roots(), 0o711), os.Chmod(s.scratch(), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(context.Background(), s.Dir, s.Run, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{s.Roots(), s.scratch(), s.journals()} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", dir, info.Mode(), err)
		}
	}
}

func TestOfRun(t *testing.T) {
	n := begin(t, state(t))
	for p, want := range map[string]bool{
		n.Dir: true, filepath.Join(n.Dir, "host-primary/disk"): true, "/var/lib/trysail/scratch/trysail-0a1b2c3d/x": true,
		"/": false, "/opt/trysail-tools/bin": false, "/srv/trysail-0a1b2c3d4e": false, "/var/lib/trysail": false,
	} {
		if OfRun(p) != want {
			t.Errorf("%s is of a run: %t", p, !want)
		}
	}
}

// TestSession: everything is in the journal before it is made, and Close undoes
// it and erases the journal.
func TestSession(t *testing.T) {
	s := state(t)
	n := begin(t, s)
	if info, err := os.Stat(n.Dir); err != nil || !strings.HasPrefix(filepath.Base(n.Dir), "trysail-") || info.Mode().Perm() != 0o700 {
		t.Errorf("scratch directory %v %v", info, err)
	}
	root, upper := overlay(t, n)
	if data, err := os.ReadFile(filepath.Join(root, "below")); err != nil || string(data) != "below" {
		t.Errorf("the lower layer shows %q %v", data, err)
	}
	if err := os.WriteFile(filepath.Join(root, "above"), nil, 0o644); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(upper, "above")); err != nil {
		t.Errorf("what is written is not in the upper layer: %v", err)
	}
	j := readJournal(t, n)
	if want := []entry{{"dir", n.Dir}, {"mount", root}}; j.ID != n.ID || j.PID != os.Getpid() || !slices.Equal(j.Entries, want) {
		t.Errorf("journal %+v, want %+v", j, want)
	}
	if info, err := os.Stat(n.path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("journal %v %v", info, err)
	}
	if err := n.Unmount(root); err != nil {
		t.Fatal(err)
	}
	if j := readJournal(t, n); len(j.Entries) != 1 {
		t.Errorf("unmounted, and still in the journal: %+v", j)
	}
	if err := n.Unmount(root); err == nil {
		t.Error("unmounted twice")
	}
	overlay(t, n)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
	if err := n.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestOverlayRefusesOptions(t *testing.T) {
	s := state(t)
	n := begin(t, s)
	defer n.Close()
	for _, dir := range []string{"/a:b", "/a,upperdir=/etc", `/a\b`} {
		if _, err := n.Overlay("root", []string{dir}, n.Path("upper"), false); err == nil {
			t.Errorf("lower directory %q went into the mount's options", dir)
		}
		if _, err := n.Overlay("root", []string{"/usr"}, dir, false); err == nil {
			t.Errorf("upper directory %q went into the mount's options", dir)
		}
	}
	if _, err := n.Overlay("root", []string{n.Path("none")}, n.Path("upper"), false); err == nil {
		t.Error("mounted over nothing")
	}
}

// TestSweep: what a killed run left is undone by the next, and what a living one
// holds is not.
func TestSweep(t *testing.T) {
	ctx := context.Background()
	s := state(t)
	dead, alive := begin(t, s), begin(t, s)
	root, _ := overlay(t, dead)
	kept, _ := overlay(t, alive)
	kill(t, dead)
	stray := filepath.Join(s.scratch(), "trysail-0badcafe") // its journal went with a reboot
	if err := errors.Join(os.MkdirAll(filepath.Join(stray, "x"), 0o755), os.Mkdir(filepath.Join(s.scratch(), "somebody-else"), 0o755), os.WriteFile(filepath.Join(s.journals(), "trysail-torn.json"), []byte(`{"id":"trysail-`), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if got := mounted(t, root); len(got) != 0 {
		t.Errorf("still mounted: %q", got)
	}
	for _, gone := range []string{dead.Dir, dead.path(), stray, filepath.Join(s.journals(), "trysail-torn.json")} {
		if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left (%v)", gone, err)
		}
	}
	for _, there := range []string{filepath.Join(kept, "below"), alive.path(), filepath.Join(s.scratch(), "somebody-else")} {
		if _, err := os.Stat(there); err != nil {
			t.Errorf("swept away: %v", err)
		}
	}
	if err := errors.Join(alive.Close(), os.Remove(filepath.Join(s.scratch(), "somebody-else"))); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
}

// TestSweepReusedPID: a process that has the number of a killed run is not it.
func TestSweepReusedPID(t *testing.T) {
	s := state(t)
	n := begin(t, s)
	n.j.PID = 1
	if err := n.save(); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
}

// TestSweepAtEveryPoint: a run may be killed between writing an entry and making
// the thing, and in the middle of undoing.
func TestSweepAtEveryPoint(t *testing.T) {
	ctx := context.Background()
	s := state(t)
	for name, e := range map[string]entry{
		"mount not made": {"mount", filepath.Join(s.scratch(), "never")}, "mount whose directory is no mount": {"mount", s.scratch()}, "cgroup not made": {"cgroup", "/sys/fs/cgroup/trysail-never"}, "container not made": {"container", "trysail-never-0"}, "directory not made": {"dir", filepath.Join(s.scratch(), "trysail-never")},
	} {
		n := begin(t, s)
		if err := n.record(e.Kind, e.Name); err != nil {
			t.Fatal(err)
		}
		kill(t, n)
		if err := s.Sweep(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		empty(t, s)
	}
	n := begin(t, s)
	root, _ := overlay(t, n)
	kill(t, n)
	if err := unix.Unmount(root, 0); err != nil { // undone, and killed before the journal was erased
		t.Fatal(err)
	}
	if err := s.Sweep(ctx); err != nil {
		t.Error(err)
	}
	empty(t, s)
}

// TestSweepKeepsWhatItCannotUndo: the journal stays, and so does what is mounted.
func TestSweepKeepsWhatItCannotUndo(t *testing.T) {
	ctx := context.Background()
	s := state(t)
	n := begin(t, s)
	// Something that the journal does not know of is mounted in the scratch
	// directory: somebody's live data.
	at, err := n.MkdirAll(0o755, "live")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(data, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) }) // it is gone where the test went well
	kill(t, n)
	if err := s.Sweep(ctx); err == nil || !strings.Contains(err.Error(), at) || !strings.Contains(err.Error(), n.ID) {
		t.Errorf("error %v does not name the mount", err)
	}
	if _, err := os.Stat(filepath.Join(data, "precious")); err != nil {
		t.Fatalf("removed through a mount: %v", err)
	}
	if _, err := os.Stat(n.path()); err != nil {
		t.Errorf("the journal is gone, and the mount is not: %v", err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(ctx); err != nil {
		t.Error(err)
	}
	empty(t, s)
	n = begin(t, s)
	if err := n.record("volcano", "x"); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err == nil || !strings.Contains(err.Error(), "volcano") {
		t.Errorf("a thing that is not known: %v", err)
	}
}

// TestKilledProcess kills a process that holds a session, as hard as can be, and
// lets the next one clean up.
func TestKilledProcess(t *testing.T) {
	if dir := os.Getenv("TRYSAIL_TEST_STATE"); dir != "" {
		s, err := OpenState(context.Background(), filepath.Join(dir, "state"), filepath.Join(dir, "run"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		overlay(t, begin(t, s))
		if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {} // dead in a moment
	}
	s := state(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
	cmd.Env = append(os.Environ(), "TRYSAIL_TEST_STATE="+filepath.Dir(s.Dir))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(exit.Error(), "killed") {
		t.Fatalf("%v: %s", err, out)
	}
	if len(mounted(t, s.Dir)) != 1 {
		t.Fatalf("the killed process left %q", mounted(t, s.Dir))
	}
	if err := s.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
}

// cgroup2 finds where the machine has cgroups of the second version.
func cgroup2(t testing.TB) string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) == 0 {
		t.Skip("cgroup v2 is not mounted")
	}
	return mounts[0].Mountpoint
}

func TestCgroup(t *testing.T) {
	s := state(t)
	top := cgroup2(t)
	n := begin(t, s)
	dir, err := n.Cgroup(top)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(errors.Join(err, cmd.Process.Kill()))
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("what ran in the cgroup still ran")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left (%v)", dir, err)
	}
	empty(t, s)
}

// TestDevicesInAView: a device that root gave to a group is that group's inside as well.
func TestDevicesInAView(t *testing.T) {
	s := state(t)
	n := begin(t, s)
	node := n.Path("dongle")
	if err := errors.Join(unix.Mknod(node, unix.S_IFCHR|0o660, int(unix.Mkdev(1, 5))), os.Chown(node, 0, 20), os.Chmod(node, 0o660)); err != nil {
		t.Fatal(err)
	}
	v, err := n.enter(Spec{Root: n.Dir, Devices: []Mount{{Source: node, Target: "/dev/dongle"}}})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(v.devices[0].Source, &st); err != nil || st.Uid != v.ids.base || st.Gid != v.ids.base+20 || st.Mode != unix.S_IFCHR|0o660 || st.Rdev != unix.Mkdev(1, 5) {
		t.Errorf("%+v, %v; the range begins at %d", st, err, v.ids.base)
	}
	f, err := os.Open(v.devices[0].Source)
	if err != nil {
		t.Errorf("the node is closed to everybody: %v", err)
	} else {
		f.Close()
	}
	if err := errors.Join(v.leave(), n.Close()); err != nil {
		t.Error(err)
	}
	empty(t, s)
	if left := mounted(t, s.Run); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestReachable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if err := os.MkdirAll(filepath.Join(dir, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := reachable("/usr/bin"); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o710); err != nil {
		t.Fatal(err)
	}
	if err := reachable(filepath.Join(dir, "b")); err == nil || !strings.Contains(err.Error(), dir+", mode 0710") {
		t.Errorf("closed to others: %v", err)
	}
}
