package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sys gives a *syscall.Stat_t, which archive/tar reads owners and devices from.
func (i *Info) Sys() any {
	s := i.st
	return &syscall.Stat_t{
		Dev: s.Dev, Ino: s.Ino, Nlink: s.Nlink, Mode: s.Mode, Uid: s.Uid, Gid: s.Gid, Rdev: s.Rdev, Size: s.Size, Blksize: s.Blksize, Blocks: s.Blocks,
		Atim: syscall.Timespec(s.Atim), Mtim: syscall.Timespec(s.Mtim), Ctim: syscall.Timespec(s.Ctim),
	}
}

// Lstat describes a file or link, without following the last component.
func (d *Dir) Lstat(name string) (*Info, error) {
	p, err := d.parent(name)
	if err != nil {
		return nil, err
	}
	defer p.close()
	info, err := lstat(p.fd, p.base)
	return info, d.failed("stat", name, err)
}

func lstat(dir int, base string) (*Info, error) {
	i := &Info{name: base}
	for {
		err := unix.Fstatat(dir, base, &i.st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return i, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

// Stat describes a file of this machine or one that a person named; see the
// package comment for the links that it follows.
func Stat(name string) (*Info, error) {
	d, err := start(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fd, err := d.descriptor(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return fstat(fd, name)
}

// Lstat is [Stat] that does not follow the last component.
func Lstat(name string) (*Info, error) {
	d, err := start(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Lstat(name)
}

// Readlink gives the target of a link of this machine or one that a person named.
func Readlink(name string) (string, error) {
	d, err := start(name)
	if err != nil {
		return "", err
	}
	defer d.Close()
	return d.Readlink(name)
}

func fstat(fd int, name string) (*Info, error) {
	i := &Info{name: path.Base(name)}
	if err := unix.Fstat(fd, &i.st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return i, nil
}

// Readlink gives the target of a link.
func (d *Dir) Readlink(name string) (string, error) {
	p, err := d.parent(name)
	if err != nil {
		return "", err
	}
	defer p.close()
	target, err := readlink(p.fd, p.base)
	return target, d.failed("readlink", name, err)
}

// Sub opens a directory below, under the same rule for links.
func (d *Dir) Sub(name string) (*Dir, error) {
	f, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) {
		if info, serr := d.Lstat(name); serr == nil && !info.IsDir() {
			return nil, &KindError{d.full(name), info.Mode(), "directory"}
		}
	}
	if err != nil {
		return nil, err
	}
	return &Dir{f: f, name: d.full(name), rule: d.rule, slow: d.slow}, nil
}

// Handle opens what a name leads to without any effect on it, whatever it is (O_PATH).
// The descriptor can be described and mounted, not read.
func (d *Dir) Handle(name string) (*os.File, *Info, error) {
	f, err := d.open(name, unix.O_PATH)
	if err != nil {
		return nil, nil, err
	}
	info, err := fstat(int(f.Fd()), name)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// Open opens a regular file for reading. Anything else is a [KindError], and is
// not opened.
func (d *Dir) Open(name string) (*os.File, error) {
	fd, err := d.descriptor(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return regular(fd, d.full(name))
}

// OpenFile opens a regular file that a person named, or a file of this machine,
// for reading. See the package comment for the links that it follows. A name
// below /dev/fd, as a shell gives for <(command), is what the caller has open.
func OpenFile(name string) (*os.File, error) {
	if fd, ok := inherited(name); ok {
		return fd, nil
	}
	d, err := start(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Open(name)
}

// inherited gives what a shell has opened for this program.
func inherited(name string) (*os.File, bool) {
	number, ok := strings.CutPrefix(name, "/dev/fd/")
	if name == "/dev/stdin" {
		number, ok = "0", true
	}
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		return nil, false
	}
	fd, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, false
	}
	return os.NewFile(uintptr(fd), name), true
}

// regular opens the file that an O_PATH descriptor names, if it is a regular
// file. It is opened through the descriptor, so nothing can take its place.
// O_NONBLOCK is for a file on which its owner holds a lease.
func regular(fd int, name string) (*os.File, error) {
	info, err := fstat(fd, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &KindError{name, info.Mode(), "regular file"}
	}
	r, err := openat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(r), name)
	got, err := fstat(r, name)
	if err == nil && !got.Same(info) {
		err = fmt.Errorf("open %s: /proc does not show this program's files", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadFile reads a regular file of at most limit bytes.
func (d *Dir) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, limit)
}

// ReadFile reads a file of at most limit bytes that a person named, or a file
// of this machine. See the package comment for the links that it follows.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, limit)
}

func readAll(f *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, &LimitError{f.Name(), "bytes", limit}
	}
	return data, err
}

// ReadDir lists a directory in the order of its names.
func (d *Dir) ReadDir(name string) ([]*Info, error) {
	s, err := d.Sub(name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	left := MaxEntries
	return s.list(&left)
}

// ReadDir lists a directory that a person named, in the order of its names.
func ReadDir(name string) ([]*Info, error) {
	d, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(".")
}

// list reads the directory itself. An entry that goes away meanwhile is left out.
func (d *Dir) list(left *int) ([]*Info, error) {
	var names []string
	for {
		batch, err := d.f.Readdirnames(1024)
		if *left -= len(batch); *left < 0 {
			return nil, &LimitError{d.name, "files and directories", MaxEntries}
		}
		if names = append(names, batch...); len(names) > MaxDirectory {
			return nil, &LimitError{d.name, "files and directories in one", MaxDirectory}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	list := make([]*Info, 0, len(names))
	for _, n := range names {
		info, err := lstat(d.fd(), n)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, d.failed("stat", n, err)
		}
		list = append(list, info)
	}
	return list, nil
}

// Entry is one file, link or directory that a walk came to.
type Entry struct {
	*Info
	Path string // below the directory that is walked, slashes
	in   *Dir   // the directory that holds it
}

// Open opens the entry for reading, if it is a regular file now.
func (e *Entry) Open() (*os.File, error) {
	fd, err := openat(e.in.fd(), e.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, e.in.failed("open", e.name, err)
	}
	defer unix.Close(fd)
	return regular(fd, e.in.full(e.name))
}

// Listable tells whether the entry, a directory, can be listed: the error is
// [fs.ErrPermission] where it cannot.
func (e *Entry) Listable() error {
	fd, err := openat(e.in.fd(), e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return e.in.failed("open", e.name, err)
	}
	return unix.Close(fd)
}

// Readlink gives the target of the entry, which is a link.
func (e *Entry) Readlink() (string, error) {
	target, err := readlink(e.in.fd(), e.name)
	return target, e.in.failed("readlink", e.name, err)
}

// Walk calls visit for a name and everything below it, a directory before its
// content and names in order. Below the name, links are not followed; they are
// visited as links. visit may return [fs.SkipDir] and [fs.SkipAll], as in
// [fs.WalkDir]. An entry is valid only while visit runs. More than [MaxEntries]
// or [MaxDepth] is a [LimitError], and so are more than [MaxDirectory] in one
// directory.
func (d *Dir) Walk(name string, visit func(*Entry) error) error {
	p, err := d.parent(name)
	if err != nil {
		return err
	}
	defer p.close()
	info, err := lstat(p.fd, p.base)
	if err != nil {
		return d.failed("stat", name, err)
	}
	f, err := openat(p.fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return d.failed("open", name, err)
	}
	at := d.full(name)
	if p.base != "." {
		at = path.Dir(at)
	}
	in := &Dir{f: os.NewFile(uintptr(f), at), name: at, rule: noLinks, slow: d.slow}
	defer in.Close()
	left := MaxEntries
	err = in.walk(&Entry{info, path.Clean(name), in}, 0, &left, visit)
	if errors.Is(err, fs.SkipAll) || errors.Is(err, fs.SkipDir) {
		return nil
	}
	return err
}

func (d *Dir) walk(e *Entry, depth int, left *int, visit func(*Entry) error) error {
	if err := visit(e); err != nil {
		if e.IsDir() && errors.Is(err, fs.SkipDir) {
			return nil
		}
		return err
	}
	if !e.IsDir() {
		return nil
	}
	if depth > MaxDepth {
		return &LimitError{d.full(e.name), "levels", MaxDepth}
	}
	fd, err := openat(d.fd(), e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return d.failed("open", e.name, err)
	}
	sub := &Dir{f: os.NewFile(uintptr(fd), e.name), name: d.full(e.name), rule: noLinks, slow: d.slow}
	defer sub.Close()
	list, err := sub.list(left)
	if err != nil {
		return err
	}
	for _, info := range list {
		err := sub.walk(&Entry{info, path.Join(e.Path, info.name), sub}, depth+1, left, visit)
		if errors.Is(err, fs.SkipDir) {
			return nil // of a file: the rest of its directory
		}
		if err != nil {
			return err
		}
	}
	return nil
}
