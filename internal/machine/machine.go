// Package machine runs commands on a machine that is really another root file
// system on this one, and leaves nothing behind.
//
// There is one way to run anything that belongs to a build: a root file system
// (an overlay over the live host for capture, over a rebuilt root for rebuild
// and proof), started by runc in its own mount, process, host name, IPC and
// network namespaces. Captured and rebuilt builds therefore differ only in
// where their files come from, which is what a proof is about.
//
// Process 1 in every container is this program itself ([InitPath]), bind-mounted.
// It waits until the caller is ready (a tracer must be attached before the first
// instruction of the build), starts the command, reaps orphans, and reports how
// the command ended and which processes it left running. It holds the read end
// of a pipe from the caller: if the caller dies, however hard, process 1 sees
// the end of file and exits, and the kernel ends everything in the namespace.
//
// Everything that outlives a process (mounts, cgroups, containers, packet rules,
// scratch directories) is written to a journal, fsynced, before it is made. A [Session]
// undoes its journal when closed; [State.Sweep] undoes those of runs that were
// killed. The order is always: write, make; undo, erase.
package machine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"trysail/internal/rootless"
	"trysail/internal/tree"
)

// State is where Trysail keeps what lasts (Dir) and what must not (Run).
type State struct {
	Dir string // /var/lib/trysail
	Run string // /run/trysail
	log *slog.Logger
	// rootless: this process is root in a user namespace of somebody who is not.
	rootless bool
	// isolation is found out once, by trying.
	isolation func() Isolation
}

// RootError is returned where an operation needs root.
type RootError struct{ What string }

func (e *RootError) Error() string { return e.What + " needs root" }

// Hint says what to type.
func (e *RootError) Hint() string {
	return "run it with sudo; the build itself still runs as the owner of the working copy"
}

// OpenState makes the directories and removes what killed runs left behind.
func OpenState(ctx context.Context, dir, run string, log *slog.Logger) (*State, error) {
	if os.Geteuid() != 0 {
		return nil, &RootError{What: "making namespaces and mounts"}
	}
	return OpenScratch(ctx, dir, run, log)
}

// OpenScratch is OpenState for those who make directories only, which needs no root.
func OpenScratch(ctx context.Context, dir, run string, log *slog.Logger) (*State, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &State{Dir: dir, Run: run, log: log, rootless: rootless.Inside()}
	s.isolation = sync.OnceValue(s.probe)
	// Nobody else may see what a build, a depot or a drill holds, or reach a root:
	// it has set-user-ID programs of whatever age. The root of a container passes
	// through Run on its way to its own view.
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{{dir, 0o700}, {s.scratch(), 0o700}, {s.Roots(), 0o700}, {s.Run, 0o711}, {s.journals(), 0o700}, {s.views(), 0o711}} {
		if err := tree.Own(d.name, d.mode); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
	}
	if err := s.Sweep(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *State) scratch() string  { return filepath.Join(s.Dir, "scratch") }
func (s *State) journals() string { return filepath.Join(s.Run, "journal") }
func (s *State) views() string    { return filepath.Join(s.Run, "view") }

// Roots is where rebuilt roots are cached.
func (s *State) Roots() string { return filepath.Join(s.Dir, "roots") }

// entry is one thing to undo.
type entry struct {
	Kind string `json:"kind"` // mount, cgroup, container, rules, dir
	Name string `json:"name"`
}

// journal is the undo list of one session, on disk before each thing is made.
type journal struct {
	ID      string  `json:"id"`
	PID     int     `json:"pid"`
	Started string  `json:"started"` // start time of PID in clock ticks: tells a reused PID
	Entries []entry `json:"entries"`
}

// Session owns what one run makes. It is not safe for concurrent use except Close.
type Session struct {
	ID    string // trysail-1a2b3c4d
	Dir   string // scratch directory, on the state's file system
	state *State
	j     journal
	runs  int // of containers and views so far: each has a name of its own
	ids   []uint32
	// overlays are the mounted ones, by mount point.
	overlays map[string]*overlayMount
	seals    map[string]string // what a container cannot change, by what it is of
}

// overlayMount is what one overlay mount is made of.
type overlayMount struct {
	target   string
	at       string   // another name of the target by which it is mounted; "" is the target's
	lower    []string // topmost first
	upper    string
	volatile bool
	// userXattr: marks of the overlay are attributes that a user may write.
	userXattr bool
	flags     uintptr // of the mount
}

// OfRun tells whether a path is that of something which a run has made, of whatever
// state: it is there for a while, and no part of the machine.
func OfRun(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		id, ok := strings.CutPrefix(part, "trysail-")
		if raw, err := hex.DecodeString(id); ok && err == nil && len(raw) == 4 {
			return true
		}
	}
	return false
}

// Begin starts a session with an empty scratch directory.
func (s *State) Begin() (*Session, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	id := "trysail-" + hex.EncodeToString(b[:])
	started, err := startTime(os.Getpid())
	if err != nil {
		return nil, err
	}
	n := &Session{ID: id, Dir: filepath.Join(s.scratch(), id), state: s, j: journal{ID: id, PID: os.Getpid(), Started: started}, overlays: map[string]*overlayMount{}}
	if err := n.record("dir", n.Dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(n.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("scratch directory: %w", err)
	}
	return n, nil
}

func (n *Session) record(kind, name string) error {
	n.j.Entries = append(n.j.Entries, entry{kind, name})
	return n.save()
}

func (n *Session) save() error {
	data, err := json.Marshal(n.j)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(n.path(), data, 0o600); err != nil {
		return fmt.Errorf("undo journal: %w", err)
	}
	wrote()
	return nil
}

func (n *Session) path() string { return filepath.Join(n.state.journals(), n.ID+".json") }

// Path gives a name below the scratch directory.
func (n *Session) Path(elem ...string) string {
	return filepath.Join(append([]string{n.Dir}, elem...)...)
}

// MapIDs names users and groups that the session's containers know. A user namespace
// has those up to 65535 anyway.
func (n *Session) MapIDs(ids []uint32) { n.ids = append(n.ids, ids...) }

// MkdirAll makes a directory below the scratch directory.
func (n *Session) MkdirAll(mode fs.FileMode, elem ...string) (string, error) {
	p := n.Path(elem...)
	if err := os.MkdirAll(p, mode); err != nil {
		return "", err
	}
	return p, os.Chmod(p, mode)
}

// Overlay mounts upper over the lower directories at a scratch directory of the
// given name and returns it. With volatile, nothing is synced: for a root whose
// making can begin again.
func (n *Session) Overlay(name string, lower []string, upper string, volatile bool) (string, error) {
	target, err := n.MkdirAll(0o755, name)
	if err != nil {
		return "", err
	}
	return target, n.mountOverlay(&overlayMount{target: target, lower: lower, upper: upper, volatile: volatile, userXattr: n.state.rootless})
}

// OverlayHost mounts upper over a directory of this machine, at a directory that exists
// below the scratch directory. What the machine keeps from the directory's file system
// (nosuid, nodev, noexec) an overlay would give back: users bring their own disks. Where
// users can change what a name leads to, at and lower name descriptors (below /proc/self/fd).
func (n *Session) OverlayHost(target, at, lower, upper string) error {
	flags, err := restrictions(lower)
	if err != nil {
		return err
	}
	return n.mountOverlay(&overlayMount{target: target, at: at, lower: []string{lower}, upper: upper, userXattr: n.state.rootless, flags: flags})
}

// restrictions are what the mount of a path keeps from the files on it.
func restrictions(name string) (uintptr, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return 0, fmt.Errorf("file system of %s: %w", name, err)
	}
	return uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC), nil // ST_ and MS_ have the same bits
}

func (n *Session) mountOverlay(o *overlayMount) error {
	for _, d := range append([]string{o.upper}, o.lower...) {
		if strings.ContainsAny(d, ":,\\") {
			return fmt.Errorf("overlay: directory %q holds a character that mount options cannot", d)
		}
	}
	if err := n.record("mount", o.target); err != nil {
		return err
	}
	if err := o.mount(); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w (is %s on an overlay itself? choose a real file system with --state DIR)", err, n.state.Dir)
		}
		return err
	}
	n.overlays[o.target] = o
	return nil
}

func (o *overlayMount) mount() error {
	work := o.upper + ".work"
	for _, d := range []string{o.upper, work} {
		if err := os.Mkdir(d, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		// The upper directory's mode is that of the root seen.
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	opts := "lowerdir=" + strings.Join(o.lower, ":") + ",upperdir=" + o.upper + ",workdir=" + work
	if o.volatile {
		opts += ",volatile"
	}
	if o.userXattr {
		opts += ",userxattr"
	}
	if err := unix.Mount("overlay", cmp.Or(o.at, o.target), "overlay", o.flags, opts); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", o.target, err)
	}
	return nil
}

// away unmounts an overlay for a while: another mount takes its layers.
func (n *Session) away(target string) error {
	o := n.overlays[target]
	if err := unmountNow(target); err != nil {
		return err
	}
	delete(n.overlays, target)
	return errors.Join(o.unmark(), n.forget("mount", target))
}

// unmark removes the kernel's mark that a volatile overlay was not taken down in
// order, as after a crash. It was.
func (o *overlayMount) unmark() error {
	if !o.volatile {
		return nil
	}
	return os.RemoveAll(filepath.Join(o.upper+".work", "work", "incompat"))
}

// Mount mounts a file system at a directory that exists.
func (n *Session) Mount(source, target, kind string, flags uintptr, data string) error {
	if err := n.record("mount", target); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	return nil
}

// Unmount undoes one Overlay or Mount before the session ends.
func (n *Session) Unmount(target string) error {
	if err := unix.Unmount(target, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	delete(n.overlays, target)
	return n.forget("mount", target)
}

// forget notes that something was undone.
func (n *Session) forget(kind, name string) error {
	if i := slices.Index(n.j.Entries, entry{kind, name}); i >= 0 {
		n.j.Entries = slices.Delete(n.j.Entries, i, i+1)
	}
	return n.save()
}

// Cgroup makes a cgroup of the second version for the session's processes.
func (n *Session) Cgroup(root string) (string, error) {
	dir := filepath.Join(root, n.ID)
	if err := n.record("cgroup", dir); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("cgroup: %w", err)
	}
	return dir, nil
}

// Close undoes everything the session made. What cannot be undone stays in the
// journal, for the next run's sweep, and is returned as an error.
func (n *Session) Close() error {
	var errs []error
	for i := len(n.j.Entries) - 1; i >= 0; i-- {
		if err := n.state.undo(n.j.Entries[i]); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("clean up: %w", errors.Join(errs...))
	}
	if err := os.Remove(n.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Sweep undoes the journals of runs whose process is gone.
func (s *State) Sweep(ctx context.Context) error {
	names, err := filepath.Glob(filepath.Join(s.journals(), "trysail-*.json"))
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its owner has just finished
		}
		if err != nil {
			return err
		}
		var j journal
		if err := json.Unmarshal(data, &j); err != nil {
			s.log.Warn("torn journal, removed", "file", name, "err", err)
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		if started, err := startTime(j.PID); err == nil && started == j.Started {
			live[j.ID] = true
			continue
		}
		s.log.Info("cleaning up after a run that was killed", "id", j.ID)
		n := &Session{ID: j.ID, Dir: filepath.Join(s.scratch(), j.ID), state: s, j: j, overlays: map[string]*overlayMount{}}
		if err := n.Close(); err != nil {
			return fmt.Errorf("clean up after killed run %s: %w", j.ID, err)
		}
	}
	// After a reboot the journals are gone with /run, the scratch is not.
	dirs, err := os.ReadDir(s.scratch())
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), "trysail-") && !live[d.Name()] {
			if _, err := os.Stat(filepath.Join(s.journals(), d.Name()+".json")); err == nil {
				continue // begun while we looked
			}
			if err := RemoveAll(filepath.Join(s.scratch(), d.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Others lists the sessions of other processes that live: what bears their names is
// theirs.
func (s *State) Others() ([]string, error) {
	names, err := filepath.Glob(filepath.Join(s.journals(), "trysail-*.json"))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, name := range names {
		data, err := os.ReadFile(name)
		var j journal
		if err != nil || json.Unmarshal(data, &j) != nil || j.PID == os.Getpid() {
			continue // it has just ended; a torn one is nobody's
		}
		if started, err := startTime(j.PID); err == nil && started == j.Started {
			list = append(list, j.ID)
		}
	}
	return list, nil
}

// Holds tells whether a process has a journal yet: what is in it was not undone.
func (s *State) Holds(pid int) (bool, error) {
	names, err := filepath.Glob(filepath.Join(s.journals(), "trysail-*.json"))
	if err != nil {
		return false, err
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		var j journal
		if err == nil && json.Unmarshal(data, &j) == nil && j.PID == pid {
			return true, nil
		}
	}
	return false, nil
}

func (s *State) undo(e entry) error {
	switch e.Kind {
	case "mount":
		err := s.detach(e.Name)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmount %s: %w", e.Name, err)
		}
		return nil
	case "cgroup":
		return removeCgroup(e.Name)
	case "rules":
		return dropRules(e.Name)
	case "container":
		return deleteContainer(s.runcRoot(), e.Name)
	case "dir":
		return RemoveAll(e.Name)
	default:
		return fmt.Errorf("journal names unknown thing %q", e.Kind)
	}
}

// detach takes a mount away. A scratch directory has roots with directories of others in
// them: a link there leads to a mount of the machine itself, and is not followed.
func (s *State) detach(name string) error {
	below, ok := strings.CutPrefix(name, s.scratch()+"/")
	if !ok {
		return unix.Unmount(name, unix.MNT_DETACH)
	}
	d, err := tree.Open(s.scratch())
	if err != nil {
		return err
	}
	defer d.Close()
	f, _, err := d.Handle(below)
	if tree.IsRefusal(err) {
		return nil // nothing of ours is there
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.MNT_DETACH)
}

// RemoveAll refuses to cross a mount: a directory below which something is
// still mounted is somebody's live data.
func RemoveAll(dir string) error {
	at, err := filepath.EvalSymlinks(dir) // as the kernel names mounts
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(at))
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is still mounted: not removing %s", mounts[0].Mountpoint, dir)
	}
	return tree.RemoveAll(at)
}

func removeCgroup(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill processes of %s: %w", dir, err)
	}
	for wait := time.Millisecond; ; wait *= 2 {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if wait > 2*time.Second {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(wait)
	}
}

// startTime reads a process's start time, field 22 of stat, in clock ticks.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	// The command name may hold spaces and parentheses.
	i := strings.LastIndexByte(string(data), ')')
	if i < 0 {
		return "", fmt.Errorf("process %d: unreadable stat", pid)
	}
	f := strings.Fields(string(data[i+1:]))
	if len(f) < 20 {
		return "", fmt.Errorf("process %d: unreadable stat", pid)
	}
	return f[19], nil
}
