// Package trace watches everything that the processes of a cgroup name: files
// that they open, execute, stat or look for in vain, and peers they connect to.
//
// The kernel does the watching (eBPF, trace.bpf.c), so the build runs unchanged
// and at full speed; tools that stop a build at each call (strace, ReproZip,
// CDE) cost two to three times its duration. A program at the end of each
// system call reads the path while its page is resident and the result is
// known, drops what it has reported before, and hands the rest over in a ring
// buffer. Relative names come with their directory, walked up through mounts to
// the root of the mount namespace, so nothing has to be guessed afterwards.
//
// Completeness is counted, not hoped for: an event that could not be handed
// over, a directory too deep to walk, a call of a foreign ABI, an interrupted
// program, each is counted as lost, and [Tracer.Stop] then returns a
// [LostError]. A capture with lost events fails.
//
// What system calls do not show is said in [Result.Notes]: files opened by
// io_uring, and work that a daemon outside of the cgroup does for the build.
package trace

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

//go:generate ./generate.sh

//go:embed trace_x86_bpfel.o
var object []byte

// Op is a set of ways in which a path was used.
type Op uint32

// The ways; a path's Ops is their union.
const (
	OpOpen Op = 1 << iota
	OpExec
	OpStat
	OpReadlink
	OpAccess
	OpChdir
	OpWrite // opened for writing, created, or its metadata changed
	OpRemove
	OpConnect
)

func opNames() []string {
	return []string{"open", "exec", "stat", "readlink", "access", "chdir", "write", "remove", "connect"}
}

func (o Op) String() string {
	var names []string
	for i, n := range opNames() {
		if o&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// Access is what the build did with one path.
type Access struct {
	// Path is absolute in the build's root, as the build put it: not cleaned,
	// symbolic links not followed. See [Names].
	Path    string
	Ops     Op
	Done    Op   // those of Ops that some call was allowed to do
	Found   bool // some call met it
	Missing bool // some call was told that it is not there
	Refused bool // some call was refused (EACCES, EPERM); it says nothing of what is there
}

// Connect is a peer that the build connected to.
type Connect struct {
	Network string // tcp (any stream or datagram over IP) or unix
	Address string // host:port, a socket's path, or @name
}

// Result is everything that was seen.
type Result struct {
	Accesses []Access // by path
	Connects []Connect
	Events   uint64 // calls seen
	Lost     uint64
	Rings    uint64 // io_uring rings that the build made
	Notes    []string
}

// LostError says that the observation is not complete.
type LostError struct {
	Lost uint64 // calls that are not in the observation
	Deep uint64 // of these, in directories too deep to be named
}

func (e *LostError) Error() string {
	what := fmt.Sprintf("%d calls of the build were not recorded: the observation is not complete", e.Lost)
	if e.Deep > 0 {
		what += fmt.Sprintf("; %d of them were in a directory more than %d levels deep, or whose path is longer than 8,000 bytes", e.Deep, maxDepth)
	}
	return what
}

// maxDepth is how many directories and mounts lead to a directory at most: DEPTH_MAX of trace.bpf.c.
const maxDepth = 400

// Hint says what to do.
func (e *LostError) Hint() string {
	if e.Deep > 0 {
		return "let the build use less deep directories: no path there can be recorded"
	}
	return "capture again while the machine is less busy; if it happens again, report it with trysail doctor's output"
}

// FloodError says that a build named so much that no machine's memory holds it.
type FloodError struct{ Limit int } // bytes of names

func (e *FloodError) Error() string {
	return fmt.Sprintf("the build names more than %d bytes of different paths and addresses: the observation is not complete", e.Limit)
}

// Hint says what to do.
func (e *FloodError) Hint() string {
	return "see what the build looks for (strace -f -e trace=file), and let it stop"
}

// mostNames bounds what one build names: ten million paths of a hundred bytes.
const mostNames = 1 << 30

// Tracer is attached to the kernel until Stop.
type Tracer struct {
	coll     *ebpf.Collection
	links    []link.Link
	reader   *ringbuf.Reader
	done     chan error
	accesses map[string]*Access
	connects map[Connect]bool
	binds    map[string][]string // target -> sources
	source   map[uint32]string   // of the bind mount whose target comes next, by task
	malform  uint64
	distinct atomic.Uint64
	room     int // bytes of names that are still kept; below 0 some were not
}

func newTracer(coll *ebpf.Collection) *Tracer {
	return &Tracer{coll: coll, done: make(chan error, 1), accesses: map[string]*Access{}, connects: map[Connect]bool{}, binds: map[string][]string{}, source: map[uint32]string{}, room: mostNames}
}

// call mirrors struct call in trace.bpf.c.
type call struct {
	Path, Dir, Flags int8
	Kind             uint8
	Op               uint32
}

const (
	kindPath    = 1
	kindConnect = 2
	kindChdir   = 3
	kindBind    = 4
	kindRing    = 5
	header      = 24 // bytes before the data of struct event
)

const (
	// opMissable marks execve in the table: a successful one has lost its
	// arguments, and what it finds there must not be believed.
	opMissable Op = 1 << 31
	// opSource and opTarget mark the two names of a bind mount.
	opSource Op = 1 << 30
	opTarget Op = 1 << 29
)

// Start attaches to the processes of a cgroup (version 2, its directory) and
// their descendants. It returns when everything is being watched.
func Start(ctx context.Context, cgroup string) (*Tracer, error) {
	return start(ctx, cgroup, 0)
}

// start is Start with a ring buffer of so many bytes; 0 is the usual size.
func start(ctx context.Context, cgroup string, ring uint32) (_ *Tracer, err error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("tracing is built for amd64 only, this machine is %s", runtime.GOARCH)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("tracer: %w", err)
	}
	for name, value := range map[string]uint32{"op_exec": uint32(OpExec), "nr_chdir": unix.SYS_CHDIR, "nr_chroot": unix.SYS_CHROOT} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("tracer: %w", err)
		}
	}
	if ring > 0 {
		spec.Maps["events"].MaxEntries = ring
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, &UnavailableError{Err: err}
	}
	t := newTracer(coll)
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, fmt.Errorf("tracer: %w", err)
	}
	err = coll.Maps["cgroup"].Put(uint32(0), uint32(dir.Fd()))
	dir.Close() // the map holds the cgroup now
	if err != nil {
		return nil, fmt.Errorf("tracer: cgroup %s (is it of version 2?): %w", cgroup, err)
	}
	for nr, rows := range calls() {
		for i, c := range rows {
			if err := coll.Maps["calls"].Put(uint32(nr*2+i), c); err != nil {
				return nil, fmt.Errorf("tracer: %w", err)
			}
		}
	}
	if t.reader, err = ringbuf.NewReader(coll.Maps["events"]); err != nil {
		return nil, fmt.Errorf("tracer: %w", err)
	}
	go t.read()
	// A call's beginning is watched before its end is.
	for _, at := range []struct{ program, tracepoint string }{{"sys_enter", "sys_enter"}, {"sys_exit", "sys_exit"}, {"process_exec", "sched_process_exec"}} {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: at.tracepoint, Program: coll.Programs[at.program]})
		if err != nil {
			return nil, &UnavailableError{Err: err}
		}
		t.links = append(t.links, l)
	}
	return t, ctx.Err()
}

// UnavailableError says that the kernel would not let us watch.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return "cannot trace with eBPF: " + e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *UnavailableError) Hint() string {
	return "tracing needs root (or CAP_BPF and CAP_PERFMON), kernel 5.8 or newer with BTF, and cgroup v2: trysail doctor says which is missing"
}

// Progress is the number of distinct events so far.
func (t *Tracer) Progress() uint64 { return t.distinct.Load() }

func (t *Tracer) read() {
	var rec ringbuf.Record
	for {
		err := t.reader.ReadInto(&rec)
		if errors.Is(err, ringbuf.ErrClosed) || errors.Is(err, ringbuf.ErrFlushed) {
			t.done <- nil
			return
		}
		if err != nil {
			t.done <- err
			return
		}
		t.distinct.Add(1)
		t.event(rec.RawSample)
	}
}

func (t *Tracer) event(raw []byte) {
	if t.room < 0 {
		return
	}
	if len(raw) < header {
		t.malform++
		return
	}
	le := binary.LittleEndian
	op, ret, flags := Op(le.Uint32(raw)), int32(le.Uint32(raw[4:])), le.Uint32(raw[8:])
	nameLen, baseLen := int(le.Uint32(raw[12:])), int(le.Uint32(raw[16:]))
	data := raw[header:]
	if nameLen < 0 || baseLen < 0 || nameLen+baseLen > len(data) {
		t.malform++
		return
	}
	name, base := data[:nameLen], data[nameLen:nameLen+baseLen]
	if op == OpConnect {
		t.connect(name, base, ret)
		return
	}
	if op&opMissable != 0 && ret == 0 {
		return
	}
	op &^= opMissable
	if op&OpOpen != 0 && flags&(unix.O_ACCMODE|unix.O_CREAT|unix.O_TRUNC) != 0 {
		op |= OpWrite
	}
	p := join(name, base)
	switch task := le.Uint32(raw[20:]); {
	case op&opSource != 0:
		t.source[task] = path.Clean(p)
	case op&opTarget != 0:
		if from, to := t.source[task], path.Clean(p); from != "" && from != to {
			if !slices.Contains(t.binds[to], from) && t.fits(from+to) {
				t.binds[to] = append(t.binds[to], from)
			}
		}
		delete(t.source, task)
	}
	if op &^= opSource | opTarget; op != 0 {
		t.add(p, op, ret)
	}
}

// followBinds adds, for each path that was met below the target of a bind
// mount that the build made, the path below its source: that is where the file
// is. A source may be below another target; depth ends a circle.
func (t *Tracer) followBinds() {
	if len(t.binds) == 0 {
		return
	}
	list := slices.Collect(maps.Values(t.accesses))
	for depth := 0; depth < 4 && len(list) > 0; depth++ {
		var more []*Access
		for _, a := range list {
			p := path.Clean(a.Path)
			for dir := p; a.Found && dir != "/"; dir = path.Dir(dir) {
				for _, from := range t.binds[dir] {
					at := path.Join(from, p[len(dir):])
					x := t.accesses[at]
					if x == nil {
						if !t.fits(at) {
							return
						}
						x = &Access{Path: at}
						t.accesses[at] = x
						more = append(more, x)
					}
					x.Ops, x.Done, x.Found = x.Ops|a.Ops, x.Done|a.Done, true
				}
			}
		}
		list = more
	}
}

const around = 100 // bytes that a name takes besides

// fits counts a name that will be kept.
func (t *Tracer) fits(name string) bool {
	t.room -= len(name) + around
	return t.room >= 0
}

func (t *Tracer) meet(c Connect) {
	if !t.connects[c] && t.fits(c.Address) {
		t.connects[c] = true
	}
}

func (t *Tracer) add(p string, op Op, ret int32) {
	a := t.accesses[p]
	if a == nil {
		if !t.fits(p) {
			return
		}
		a = &Access{Path: p}
		t.accesses[p] = a
	}
	switch -ret {
	case int32(unix.ENOENT), int32(unix.ENOTDIR):
		a.Missing = true
		a.Ops |= op
	case int32(unix.EACCES), int32(unix.EPERM):
		a.Refused = true
		a.Ops |= op
	case int32(unix.ENAMETOOLONG), int32(unix.EFAULT), int32(unix.EBADF), int32(unix.EINVAL), int32(unix.EINTR):
		// nothing was looked up
		if a.Ops == 0 {
			delete(t.accesses, p)
			t.room += len(p) + around
		}
	case 0:
		a.Found = true
		a.Ops, a.Done = a.Ops|op, a.Done|op
	default:
		a.Found = true
		a.Ops |= op
	}
}

// join puts a name behind the names of its directory, innermost first.
func join(name, base []byte) string {
	name = bytes.TrimRight(name, "\x00")
	parts := strings.Split(strings.TrimRight(string(base), "\x00"), "\x00")
	slices.Reverse(parts)
	dir := "/" + strings.Join(parts, "/")
	if len(base) == 0 {
		dir = ""
	}
	if len(name) == 0 && dir != "" {
		return dir
	}
	if len(name) > 0 && name[0] == '/' {
		return dir + string(name)
	}
	return dir + "/" + string(name)
}

func (t *Tracer) connect(addr, base []byte, ret int32) {
	if len(addr) < 2 {
		return
	}
	switch binary.LittleEndian.Uint16(addr) {
	case unix.AF_INET:
		if len(addr) >= 8 {
			t.meet(Connect{"tcp", net.JoinHostPort(net.IP(addr[4:8]).String(), strconv.Itoa(int(binary.BigEndian.Uint16(addr[2:]))))})
		}
	case unix.AF_INET6:
		if len(addr) >= 24 {
			t.meet(Connect{"tcp", net.JoinHostPort(net.IP(addr[8:24]).String(), strconv.Itoa(int(binary.BigEndian.Uint16(addr[2:]))))})
		}
	case unix.AF_UNIX:
		name := addr[2:]
		if len(name) > 0 && name[0] == 0 {
			t.meet(Connect{"unix", "@" + string(bytes.TrimRight(name[1:], "\x00"))})
			return
		}
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if len(name) == 0 {
			return
		}
		p := join(name, base)
		t.add(p, OpConnect, ret)
		if ret == 0 || -ret == int32(unix.EINPROGRESS) {
			t.meet(Connect{"unix", path.Clean(p)})
		}
	}
}

// Stop detaches and returns what was seen. The result is returned even with an error.
func (t *Tracer) Stop() (*Result, error) {
	var stats uint64
	for _, l := range t.links {
		l.Close()
	}
	for _, p := range t.coll.Programs {
		if s, err := p.Stats(); err == nil {
			stats += s.RecursionMisses
		}
	}
	// What the kernel has handed over is read to its end.
	var err error
	if ferr := t.reader.Flush(); ferr != nil {
		err = ferr
	} else {
		err = <-t.done
	}
	var counts [5]uint64
	for i := range counts {
		var per []uint64
		if lerr := t.coll.Maps["counts"].Lookup(uint32(i), &per); lerr != nil {
			err = errors.Join(err, lerr)
		}
		for _, n := range per {
			counts[i] += n
		}
	}
	t.close()
	r := &Result{Events: counts[0], Lost: counts[1] + counts[2] + counts[4] + stats + t.malform, Rings: counts[3], Notes: []string{
		"files opened through io_uring and work done by daemons outside of the build are not seen",
	}}
	if counts[2] > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d calls of 32-bit programs could not be followed", counts[2]))
	}
	t.followBinds()
	for _, a := range t.accesses {
		r.Accesses = append(r.Accesses, *a)
	}
	slices.SortFunc(r.Accesses, func(a, b Access) int { return strings.Compare(a.Path, b.Path) })
	for c := range t.connects {
		r.Connects = append(r.Connects, c)
	}
	slices.SortFunc(r.Connects, func(a, b Connect) int { return strings.Compare(a.Network+a.Address, b.Network+b.Address) })
	if err == nil && t.room < 0 {
		err = &FloodError{mostNames}
	}
	if err == nil && r.Lost > 0 {
		err = &LostError{r.Lost, counts[4]}
	}
	return r, err
}

func (t *Tracer) close() {
	for _, l := range t.links {
		l.Close()
	}
	if t.reader != nil {
		t.reader.Close()
	}
	t.coll.Close()
}

// CgroupRoot finds the mounted hierarchy of cgroup version 2.
func CgroupRoot() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}
