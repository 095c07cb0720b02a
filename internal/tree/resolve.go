package tree

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// start gives the directory in which a person's path begins.
func start(name string) (*Dir, error) {
	top := "."
	if path.IsAbs(name) {
		top = "/"
	}
	fd, err := openat(unix.AT_FDCWD, top, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: top, Err: err}
	}
	return &Dir{f: os.NewFile(uintptr(fd), top), name: top, rule: byOwner}, nil
}

// openat2 tries again when it is interrupted, or when a rename elsewhere makes
// the kernel unsure whether the path stayed below its root.
func openat2(dir int, name string, flags int, resolve uint64) (fd int, err error) {
	for range 128 {
		fd, err = unix.Openat2(dir, name, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve})
		if err != unix.EINTR && err != unix.EAGAIN { //nolint:errorlint // a system call gives these very values
			if err == nil && fd < 0 {
				err = unix.EBADF
			}
			return fd, err
		}
	}
	return -1, err
}

func openat(dir int, name string, flags int, perm uint32) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, perm)
		if err != unix.EINTR { //nolint:errorlint // as above
			return fd, err
		}
	}
}

func (d *Dir) fd() int { return int(d.f.Fd()) }

// full is a name's path in messages.
func (d *Dir) full(name string) string {
	if d.name == "." || path.IsAbs(name) {
		return name
	}
	return path.Join(d.name, name)
}

func (d *Dir) failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: d.full(name), Err: err}
}

// local cleans a name, and refuses one that leaves a directory of [Open].
func (d *Dir) local(name string) (string, error) {
	switch d.rule {
	case byOwner:
		return name, nil
	case inRoot:
		return strings.TrimLeft(name, "/"), nil
	}
	clean := path.Clean(name)
	if clean != "." && !fs.ValidPath(clean) || strings.ContainsRune(name, 0) {
		return "", d.failed("open", name, errors.New("the path leaves its directory"))
	}
	return clean, nil
}

// open opens what a name leads to. The flags are those of open(2); O_NOFOLLOW
// with O_PATH gives a link itself. Never pass flags that read or write anything
// but a directory: [Dir.Open] does that safely.
func (d *Dir) open(name string, flags int) (*os.File, error) {
	fd, err := d.descriptor(name, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.full(name)), nil
}

func (d *Dir) descriptor(name string, flags int) (int, error) {
	rel, err := d.local(name)
	if err != nil {
		return -1, err
	}
	if rel == "" {
		rel = "."
	}
	if !d.slow {
		resolve := uint64(unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS)
		switch d.rule {
		case noLinks:
			resolve |= unix.RESOLVE_BENEATH
		case inRoot:
			resolve = unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_IN_ROOT
		}
		fd, err := openat2(d.fd(), rel, flags, resolve)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			// An old kernel, or a seccomp profile that does not know the call.
		case errors.Is(err, unix.ELOOP) && d.rule != inRoot:
			// Say which link it is, or follow it as the rule says.
		default:
			return -1, d.failed("open", name, err)
		}
	}
	w := walk{d: d}
	defer w.close()
	base, err := w.to(rel, flags&unix.O_NOFOLLOW == 0)
	if err != nil {
		return -1, err
	}
	fd, err := openat(w.top(), base, flags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, d.failed("open", name, err)
	}
	if err := w.allowed(fd, name); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// walk resolves a path component by component. It holds a descriptor of each
// directory on the way, so that ".." goes back to where it came from.
type walk struct {
	d     *Dir
	stack []int    // the directories entered; d itself is below them
	names []string // of those, for messages
	links []*LinkError
	hops  int
}

func (w *walk) push(fd int, name string) {
	w.stack, w.names = append(w.stack, fd), append(w.names, name)
}

// here is the path of a component in the directory that was reached.
func (w *walk) here(c string) string {
	if len(w.names) == 0 {
		if w.d.rule == byOwner && w.d.name == "/" {
			return "/" + c
		}
		return w.d.full(c)
	}
	return path.Join(w.names[len(w.names)-1], c)
}

func (w *walk) close() {
	for _, fd := range w.stack {
		unix.Close(fd)
	}
	w.stack, w.names = nil, nil
}

func (w *walk) top() int {
	if len(w.stack) == 0 {
		return w.d.fd()
	}
	return w.stack[len(w.stack)-1]
}

// to goes to the directory that holds the last component, and gives that
// component, which is a link only if follow is false. "." stands for the
// directory itself.
func (w *walk) to(name string, follow bool) (base string, err error) {
	if path.IsAbs(name) && w.d.rule == byOwner {
		name = strings.TrimLeft(name, "/")
	}
	for parts := strings.Split(name, "/"); len(parts) > 0; {
		c := parts[0]
		parts = parts[1:]
		switch {
		case c == "" || c == ".":
			continue
		case c == "..":
			if err := w.up(); err != nil {
				return "", w.d.failed("open", name, err)
			}
			continue
		}
		final := !hasName(parts)
		if final && !follow {
			return c, nil
		}
		fd, err := openat(w.top(), c, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.ENOENT) && final {
			return c, nil // the caller makes it, or says that it is not there
		}
		if err != nil {
			return "", w.d.failed("open", name, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return "", w.d.failed("stat", name, err)
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			w.push(fd, w.here(c))
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := w.link(fd, &st, c)
			unix.Close(fd)
			if err != nil {
				return "", err
			}
			parts = append(strings.Split(target, "/"), parts...)
		default:
			unix.Close(fd)
			if !final {
				return "", w.d.failed("open", name, unix.ENOTDIR)
			}
			return c, nil
		}
	}
	return ".", nil
}

// hasName tells whether something other than "" and "." is left.
func hasName(parts []string) bool {
	for _, p := range parts {
		if p != "" && p != "." {
			return true
		}
	}
	return false
}

func (w *walk) up() error {
	switch {
	case w.d.rule == byOwner: // nothing bounds the path of a person
		fd, err := openat(w.top(), "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		w.push(fd, w.here(".."))
	case len(w.stack) > 0:
		unix.Close(w.top())
		w.stack, w.names = w.stack[:len(w.stack)-1], w.names[:len(w.names)-1]
	}
	return nil
}

// link reads a link and applies the rule. An absolute target begins at the root.
func (w *walk) link(fd int, st *unix.Stat_t, c string) (string, error) {
	target, err := readlink(fd, "")
	if err != nil {
		return "", w.d.failed("readlink", c, err)
	}
	le := &LinkError{Path: w.here(c), Target: target, Owner: int(st.Uid)}
	if w.d.rule == noLinks {
		return "", le
	}
	if w.hops++; w.hops > maxLinks {
		return "", w.d.failed("open", c, unix.ELOOP)
	}
	if w.d.rule == byOwner && st.Uid != 0 && privileged() {
		le.Theirs = true
		w.links = append(w.links, le)
	}
	if !path.IsAbs(target) {
		return target, nil
	}
	w.close()
	if w.d.rule == byOwner {
		fd, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return "", err
		}
		w.push(fd, "/")
	}
	return target, nil
}

// privileged tells whether this process has root's rights over the machine. Root
// of a user namespace has the rights of the user who made it.
func privileged() bool {
	if os.Geteuid() != 0 {
		return false
	}
	m, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || slices.Equal(strings.Fields(string(m)), []string{"0", "0", "4294967295"})
}

// allowed asks of each link of another user whether that user owns what was reached.
func (w *walk) allowed(fd int, name string) error {
	if len(w.links) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return w.d.failed("stat", name, err)
	}
	for _, l := range w.links {
		if int(st.Uid) != l.Owner {
			return l
		}
	}
	return nil
}

func readlink(fd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	return string(buf[:max(n, 0)]), err
}

// parent is the directory that holds a name, and the name in it.
type parent struct {
	fd    int
	base  string
	owned bool
}

func (p *parent) close() {
	if p.owned {
		unix.Close(p.fd)
	}
}

// parent resolves all but the last component of a name.
func (d *Dir) parent(name string) (*parent, error) {
	rel, err := d.local(name)
	if err != nil {
		return nil, err
	}
	rel = strings.TrimRight(rel, "/")
	dir, base := path.Split(rel)
	switch {
	case base == "" || base == "." || base == "..":
		if base == ".." && d.rule != byOwner {
			return nil, d.failed("open", name, errors.New("the path leaves its directory"))
		}
		fd, err := d.descriptor(rel, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		return &parent{fd, ".", true}, nil
	case dir == "":
		return &parent{d.fd(), base, false}, nil
	}
	fd, err := d.descriptor(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &parent{fd, base, true}, nil
}
