// Package tree reads and writes directories that somebody else can change.
//
// Trysail runs as root over working copies, build outputs, rebuilt root file
// systems and files that a user named. Whoever owns such a directory can put a
// symbolic link, a FIFO or a device where a file is expected, at any moment. So
// code that runs as root opens these places with this package and with nothing
// else.
//
// There are three rules for symbolic links, and each way to open has one:
//
//   - [Open] gives a directory below which no link is followed at any
//     component. Use it for working copies, blueprint directories and outputs.
//   - [OpenRoot] gives a root file system. Links below it lead where a program
//     that is chrooted there would go, and never out of it.
//   - [OpenFile], [ReadFile], [WriteFile] and the path given to Open and
//     OpenRoot are paths that a person typed, or paths of this machine. Root
//     follows a link of another user only to what that user owns
//     (SymLinksIfOwnerMatch is Apache's name for this rule).
//
// Every operation resolves its path once, to a descriptor, and does the rest
// with that descriptor. Only regular files are opened for data: the file is
// first opened with O_PATH, which has no effect on a device or FIFO, then
// checked, and then opened again through its own descriptor. Size, mode and
// bytes therefore always describe the same file. Walks and reads are bounded.
//
// The kernel resolves paths with openat2(2). Where that call is missing or
// forbidden, the package resolves component by component, with the same rules.
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxEntries bounds the files and directories of one walk. The largest
	// public source trees, with their objects, have a tenth of that.
	MaxEntries = 16 << 20
	// MaxDirectory bounds the entries of one directory, which are sorted in memory.
	MaxDirectory = 1 << 20
	// MaxDepth bounds the depth of a walk: each level holds one descriptor.
	MaxDepth = 512
	maxLinks = 40 // followed for one path, as in the kernel
)

// rule says what happens at a symbolic link.
type rule int

const (
	noLinks rule = iota
	inRoot       // followed, and the directory is what "/" means
	byOwner      // followed by root only to what the link's owner owns
)

// Dir is an open directory of a tree that somebody else can change. Names
// below it are relative and separated by slashes.
type Dir struct {
	f    *os.File
	name string // for messages
	rule rule
	slow bool // do without openat2, as an old kernel must
}

// Open opens a directory below which no symbolic link is followed. The path
// itself may go through links of root, of the caller, and of users who own the
// directory that they lead to.
func Open(path string) (*Dir, error) { return open(path, noLinks) }

// OpenRoot opens a root file system: below it, links lead where a chrooted
// program would go. The path itself is resolved as in [Open].
func OpenRoot(path string) (*Dir, error) { return open(path, inRoot) }

func open(path string, r rule) (*Dir, error) {
	top, err := start(path)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	f, err := top.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &Dir{f: f, name: path, rule: r, slow: top.slow}, nil
}

// Close releases the descriptor.
func (d *Dir) Close() error { return d.f.Close() }

// Name is the path that the directory was opened with; it is for messages.
func (d *Dir) Name() string { return d.name }

// File is the descriptor, for a program that is started with it. Do not close it.
func (d *Dir) File() *os.File { return d.f }

// Stat describes the directory itself.
func (d *Dir) Stat() (*Info, error) { return d.Lstat(".") }

// Info describes a file. It is an [fs.FileInfo], whose Sys is a *syscall.Stat_t.
type Info struct {
	name string
	st   unix.Stat_t
}

// Name is the last element of the file's path.
func (i *Info) Name() string { return i.name }

// Size is in bytes.
func (i *Info) Size() int64 { return i.st.Size }

// Mode has the type and the permissions.
func (i *Info) Mode() fs.FileMode {
	m := fs.FileMode(i.st.Mode & 0o777)
	switch i.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	for bit, mode := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if i.st.Mode&bit != 0 {
			m |= mode
		}
	}
	return m
}

// ModTime is when the content last changed.
func (i *Info) ModTime() time.Time { return time.Unix(i.st.Mtim.Unix()) }

// IsDir tells whether it is a directory.
func (i *Info) IsDir() bool { return i.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// UID is the number of the owner.
func (i *Info) UID() int { return int(i.st.Uid) }

// GID is the number of the group.
func (i *Info) GID() int { return int(i.st.Gid) }

// Same tells whether both describe one file.
func (i *Info) Same(o *Info) bool { return i.st.Dev == o.st.Dev && i.st.Ino == o.st.Ino }

// KindError says that something else stands where a regular file or a
// directory is expected. Nothing was opened.
type KindError struct {
	Path string
	Mode fs.FileMode
	Want string // "regular file" or "directory"
}

func (e *KindError) Error() string {
	return fmt.Sprintf("%s is a %s, not a %s", e.Path, Kind(e.Mode), e.Want)
}

// Hint says what to do.
func (e *KindError) Hint() string {
	return "remove it, or put a " + e.Want + " in its place"
}

// Kind is the name of a file's type in a message.
func Kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "regular file"
	case m.IsDir():
		return "directory"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "file of unknown type"
}

// LinkError says that a path goes through a symbolic link that is not followed.
type LinkError struct {
	Path   string // of the link
	Target string
	Owner  int // user number of the link's owner
	// Theirs is true where the link was refused because it leads to a file that
	// the link's owner does not own.
	Theirs bool
}

func (e *LinkError) Error() string {
	if e.Theirs {
		return fmt.Sprintf("%s is a symbolic link of user %d and leads to something that this user does not own: %s", e.Path, e.Owner, e.Target)
	}
	return fmt.Sprintf("%s is a symbolic link to %s, and no link is followed here", e.Path, e.Target)
}

// Hint says what to do.
func (e *LinkError) Hint() string {
	if e.Theirs {
		return "name the file that the link leads to instead"
	}
	return "replace the link by what it leads to, or name the path without it"
}

// LimitError says that a tree or a file is larger than this program reads.
type LimitError struct {
	Path  string
	What  string // what is counted: "files and directories", "levels", "bytes"
	Limit int64
}

func (e *LimitError) Error() string {
	return e.Path + " has more than " + strconv.FormatInt(e.Limit, 10) + " " + e.What
}

// IsRefusal tells whether an error is about what somebody put into the tree: a
// link, a special file, or more than the limits allow.
func IsRefusal(err error) bool {
	var k *KindError
	var l *LinkError
	var n *LimitError
	return errors.As(err, &k) || errors.As(err, &l) || errors.As(err, &n)
}
