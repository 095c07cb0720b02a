package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trysail/drill"
)

// Fault is one that may be injected. Probe checks that it took effect, from another
// place than where it is injected. Asked before, it must say no: else it would say yes to anything.
// Undo reverts it, and is nil where nothing can.
type Fault struct {
	Inject func() error
	Probe  func(ctx context.Context) error // nil: it was seen
	Undo   func() error
}

// UnavailableError says that this host cannot do it.
type UnavailableError struct {
	Fault drill.Fault
	Why   string
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%s cannot be done on this host: %s", e.Fault, e.Why)
}

// Prepare makes a fault ready, and breaks nothing yet. of is what some faults are about.
func (h *Host) Prepare(kind drill.Fault, of string) (*Fault, error) {
	prepare, ok := map[drill.Fault]func(*Host, string) (*Fault, error){
		"machine-lost": (*Host).lose, "machine-hung": (*Host).hang, "disk-destroyed": (*Host).destroy, "disk-dead": (*Host).kill,
		"disk-full": (*Host).fill, "inodes-gone": (*Host).inodes, "read-only": (*Host).readOnly,
		"artifact-corrupted": (*Host).corrupt, "original-corrupted": (*Host).corrupt,
		"partition": (*Host).cut, "partition-in": (*Host).cutIn, "partition-out": (*Host).cutOut,
		"out-of-memory": (*Host).starve, "ledger-rolled-back": (*Host).putBack,
		"service-gone": (*Host).refuse, "mirror-short": (*Host).short, "mirror-slow": (*Host).slow, "mirror-wrong": (*Host).wrong,
		"tag-moved": (*Host).retag, "history-rewritten": (*Host).rewrite,
	}[kind]
	if !ok {
		return nil, &UnavailableError{kind, "the lab does not know it"}
	}
	if err := h.onlyOn(kind); err != nil {
		return nil, err
	}
	if kind.OnDisk() {
		return h.onDisk(prepare, of)
	}
	return prepare(h, of)
}

// silent is the probe of a machine that is down: nothing at its address answers or
// refuses, asked from the switch, and the kernel knows its first process no more.
func (h *Host) silent(ctx context.Context) error {
	if h.lab.alone == nil { // a real host is there all the same
		if err := h.lab.reaches(ctx, nil, h.IP); err == nil {
			return fmt.Errorf("something answers at the address of %s", h.Name)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on != nil && unix.Kill(h.on.pid, 0) == nil {
		return fmt.Errorf("%s still runs", h.Name)
	}
	return nil
}

// answering is how long whoever is there may take to answer a connection. The first
// packet may be lost where a cable was put in a moment ago, and is sent again after a
// second.
const answering = 1500 * time.Millisecond

// reaches tells whether packets go from a machine, or from the switch, to an address
// and back: a connection that is refused went there.
func (l *Lab) reaches(ctx context.Context, from *Host, ip string) error {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	c, err := l.Dial(ctx, &net.Dialer{}, from, net.JoinHostPort(ip, "9")) // discard: nothing listens there
	if err == nil {
		return c.Close()
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return err
}

func (h *Host) lose(string) (*Fault, error) {
	if !h.On() {
		return nil, fmt.Errorf("%s is off already", h.Name)
	}
	return &Fault{
		Probe: h.silent,
		Inject: func() error {
			if err := h.PowerOff(); err != nil {
				return err
			}
			h.mu.Lock()
			h.gone = true
			h.mu.Unlock()
			return nil
		},
		Undo: func() error {
			h.mu.Lock()
			h.gone = false
			h.mu.Unlock()
			return h.Restart()
		},
	}, nil
}

// putBack gives a control the ledger that it had when Keep was called.
func (h *Host) putBack(string) (*Fault, error) {
	kept := filepath.Join(h.dir, "kept")
	if _, err := os.Stat(kept); err != nil {
		return nil, fmt.Errorf("no earlier ledger was kept: %w", err)
	}
	// Byte for byte, but for the sockets that etcd made.
	look := func() error {
		out, err := exec.Command("diff", "--recursive", "--brief", "--exclude=client", "--exclude=peer", kept, filepath.Join(h.Disk(), "control/etcd")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("its ledger is not that of before: %w: %s", err, out)
		}
		return nil
	}
	probe := look
	return &Fault{
		Probe: func(context.Context) error { return probe() },
		Inject: func() error {
			if err := h.PowerOff(); err != nil {
				return err
			}
			if err := h.Put("control/etcd", kept); err != nil {
				return err
			}
			seen := look() // before it begins, and writes to it again
			probe = func() error { return seen }
			return h.Restart()
		},
	}, nil
}

func (h *Host) hang(string) (*Fault, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on == nil || !h.on.alive() {
		return nil, fmt.Errorf("%s is off", h.Name)
	}
	r := h.on
	set := func(frozen bool) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.freeze(frozen)
	}
	return &Fault{
		Inject: func() error { return set(true) },
		Probe: func(ctx context.Context) error {
			// A service that nobody asks does nothing, and stands as well as one that hangs.
			if h.spec.Service != "" && h.Answers(ctx) == nil {
				return fmt.Errorf("%s answers", h.Name)
			}
			return r.stands()
		},
		Undo: func() error { return set(false) },
	}, nil
}

// stands tells whether no process of the machine gets any time: the kernel's own
// count of it, read twice, is not the freezer's word.
func (r *running) stands() error {
	c, err := r.cgroup("freezer")
	if err != nil {
		return err
	}
	ticks := func() (string, error) {
		var all strings.Builder
		err := filepath.WalkDir(c.dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return err
			}
			list, err := os.ReadFile(p)
			for pid := range strings.FieldsSeq(string(list)) {
				// Of each thread: the first one of a program in Go may well be idle.
				threads, gerr := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
				err = errors.Join(err, gerr)
				for _, file := range threads {
					stat, serr := os.ReadFile(file)
					if serr != nil {
						continue
					}
					run, _, _ := strings.Cut(string(stat), " ")
					fmt.Fprintln(&all, file, run)
				}
			}
			return err
		})
		return all.String(), err
	}
	before, err := ticks()
	if err != nil {
		return err
	}
	// Longer than a machine is quiet that does nothing but beat, once a second.
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
		after, err := ticks()
		if err != nil {
			return err
		}
		if before == "" || before != after {
			return errors.New("its processes still run")
		}
	}
	return nil
}

// destroy overwrites the disk and turns the machine off.
func (h *Host) destroy(string) (*Fault, error) {
	return &Fault{Inject: h.overwrite, Probe: func(ctx context.Context) error {
		if err := h.silent(ctx); err != nil {
			return err
		}
		device, err := os.OpenFile(h.image(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer device.Close()
		d, err := loop(device)
		if err != nil {
			return err
		}
		defer d.Close()
		probe := filepath.Join(h.dir, "probe")
		if err := os.MkdirAll(probe, 0o700); err != nil {
			return err
		}
		if err := unix.Mount(d.Name(), probe, "ext4", unix.MS_RDONLY, ""); err == nil {
			return errors.Join(errors.New("the disk can still be read"), unix.Unmount(probe, 0))
		}
		return nil
	}}, nil
}

func (h *Host) overwrite() error {
	if err := h.PowerOff(); err != nil {
		return err
	}
	h.mu.Lock()
	h.gone = true
	h.mu.Unlock()
	// The file system goes with its pages, or it would be written back.
	if err := h.lab.unmount(h.Disk()); err != nil {
		return err
	}
	f, err := os.OpenFile(h.image(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// What was allocated is given back, and the beginning is noise.
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, info.Size()); err != nil {
		return fmt.Errorf("overwrite the disk: %w", err)
	}
	noise := make([]byte, 1<<20)
	if _, err := rand.Read(noise); err != nil {
		return err
	}
	_, err = f.WriteAt(noise, 0)
	return err
}

func (l *Lab) unmount(dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n.Unmount(dir)
}

// kill makes every access to the disk an I/O error, as ext4 does when its device
// is dead.
func (h *Host) kill(string) (*Fault, error) {
	return &Fault{Probe: h.refuses(unix.EIO, 1), Inject: func() error {
		d, err := os.Open(h.Disk())
		if err != nil {
			return err
		}
		defer d.Close()
		const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, linux/ext4.h
		if err := unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noLogFlush); err != nil {
			return &UnavailableError{"disk-dead", err.Error()}
		}
		return nil
	}}, nil
}

// fill takes all room.
func (h *Host) fill(string) (*Fault, error) {
	file := filepath.Join(h.Disk(), ".ballast")
	return &Fault{
		Inject: func() error { return ballast(file) },
		Probe:  h.refuses(unix.ENOSPC, 1<<20),
		Undo:   func() error { return os.Remove(file) },
	}, nil
}

func ballast(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	at := int64(0)
	for step := int64(1 << 30); step >= 4096; { // the machine writes meanwhile
		err := unix.Fallocate(int(f.Fd()), 0, at, step)
		switch {
		case err == nil:
			at += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			return errors.Join(err, os.Remove(file))
		}
	}
	return nil
}

// inodes takes every file there may be.
func (h *Host) inodes(string) (*Fault, error) {
	dir := filepath.Join(h.Disk(), ".files")
	return &Fault{
		Inject: func() error { return crowd(dir) },
		Probe:  h.refuses(unix.ENOSPC, 0),
		Undo:   func() error { return os.RemoveAll(dir) },
	}, nil
}

func crowd(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i := 0; ; i++ {
		sub := filepath.Join(dir, fmt.Sprint(i/5000))
		var err error
		if i%5000 == 0 {
			err = os.Mkdir(sub, 0o700)
		} else {
			var f *os.File
			if f, err = os.Create(filepath.Join(sub, fmt.Sprint(i))); err == nil {
				err = f.Close()
			}
		}
		if errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if err != nil {
			return errors.Join(err, os.RemoveAll(dir))
		}
	}
}

// readOnly lets nobody write.
func (h *Host) readOnly(string) (*Fault, error) {
	remount := func(flags uintptr) error {
		return unix.Mount("", h.Disk(), "", unix.MS_REMOUNT|flags, "")
	}
	// A file that is open for writing holds the whole file system: as the kernel
	// does on a disk with errors, it is forced.
	force := func() error {
		err := remount(unix.MS_RDONLY)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := h.PowerOff(); err != nil { // a machine whose disk becomes so stops writing at once
			return err
		}
		if err := remount(unix.MS_RDONLY); err != nil {
			return err
		}
		return h.Restart()
	}
	return &Fault{Inject: force, Probe: h.refuses(unix.EROFS, 1), Undo: func() error {
		if err := remount(0); err != nil {
			return err
		}
		if h.On() {
			return nil
		}
		return h.Restart()
	}}, nil
}

// The partitions. A cable that is out loses both ways; a route into nowhere what the
// machine sends; and for what it is sent, the neighbour's side of the cable is told
// to drop it.
func (h *Host) cut(string) (*Fault, error) {
	if h.lab.alone != nil {
		return h.apart("partition", true, true)
	}
	out := func(out bool) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.out = out
		return h.plugged(!out)
	}
	return &Fault{Inject: func() error { return out(true) }, Probe: h.unreachable, Undo: func() error { return out(false) }}, nil
}

func (h *Host) cutOut(string) (*Fault, error) {
	if h.lab.alone != nil {
		return h.apart("partition-out", true, false)
	}
	return h.drop(true)
}

func (h *Host) cutIn(string) (*Fault, error) {
	if h.lab.alone != nil {
		return h.apart("partition-in", false, true)
	}
	return h.drop(false)
}

// unreachable is the probe of a partition: nothing goes from the machine to the
// switch and back.
func (h *Host) unreachable(ctx context.Context) error {
	if err := h.lab.reaches(ctx, h, hub); err == nil {
		return errors.New("it reaches the switch")
	}
	return nil
}

// starve leaves the machine too little memory.
func (h *Host) starve(string) (*Fault, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on == nil || !h.on.alive() {
		return nil, fmt.Errorf("%s is off", h.Name)
	}
	c, err := h.on.cgroup("memory")
	if err != nil {
		return nil, &UnavailableError{"out-of-memory", err.Error()}
	}
	before, err := c.ooms()
	if err != nil {
		return nil, err
	}
	return &Fault{
		Inject: func() error {
			if err := c.limit(littleMemory); err != nil {
				return &UnavailableError{"out-of-memory", err.Error()}
			}
			return nil
		},
		Probe: func(context.Context) error {
			now, err := c.ooms()
			if err == nil && now == before {
				err = errors.New("the kernel has killed nothing")
			}
			return err
		},
		Undo: func() error {
			if err := c.limit(-1); !errors.Is(err, fs.ErrNotExist) { // a machine that is off has none
				return err
			}
			return nil
		},
	}, nil
}

// littleMemory is what a starved machine has: enough for its agent, and for no build.
const littleMemory = 192 << 20

// Skew sets the machine's wall clock wrong; whether it is, the machine is to say.
func (h *Host) Skew(by time.Duration) error {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.skew = by
	return h.setClock()
}
