package tree

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// at does something in the directory that holds a name.
func (d *Dir) at(op, name string, do func(dir int, base string) error) error {
	p, err := d.parent(name)
	if err != nil {
		return err
	}
	defer p.close()
	for {
		err := do(p.fd, p.base)
		if !errors.Is(err, unix.EINTR) {
			return d.failed(op, name, err)
		}
	}
}

// Mkdir makes a directory. The process's umask applies.
func (d *Dir) Mkdir(name string, perm fs.FileMode) error {
	return d.at("mkdir", name, func(dir int, base string) error { return unix.Mkdirat(dir, base, uint32(perm.Perm())) })
}

// MkdirAll makes a directory and those above it that are missing. What is there
// must be a directory.
func (d *Dir) MkdirAll(name string, perm fs.FileMode) error {
	fd, err := d.descriptor(name, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		return unix.Close(fd)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if up := path.Dir(strings.Trim(name, "/")); up != "." {
		if err := d.MkdirAll(up, perm); err != nil {
			return err
		}
	}
	if err := d.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s, err := d.Sub(name) // somebody else may have made it, and as something else
	if err != nil {
		return err
	}
	return s.Close()
}

// Create makes a new file and opens it for writing. What is there already, a
// link too, is an error that is [fs.ErrExist].
func (d *Dir) Create(name string, perm fs.FileMode) (f *os.File, err error) {
	err = d.at("create", name, func(dir int, base string) error {
		fd, err := openat(dir, base, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint32(perm.Perm()))
		if err == nil {
			f = os.NewFile(uintptr(fd), d.full(name))
		}
		return err
	})
	return f, err
}

// Replace writes a file that takes the place of what had its name: the file is
// complete or it is not there. write may change the file's owner and mode; they
// are the process's and perm otherwise.
func (d *Dir) Replace(name string, perm fs.FileMode, write func(*os.File) error) (err error) {
	p, err := d.parent(name)
	if err != nil {
		return err
	}
	defer p.close()
	tmp := ".new-" + rand.Text()
	fd, err := openat(p.fd, tmp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return d.failed("create", name, err)
	}
	f := os.NewFile(uintptr(fd), d.full(name))
	err = f.Chmod(perm)
	if err == nil {
		err = write(f)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.failed("rename", name, unix.Renameat(p.fd, tmp, p.fd, p.base))
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(p.fd, tmp, 0))
	}
	return nil
}

// WriteFile is [Dir.Replace] for what is in memory.
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return d.Replace(name, perm, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// Put writes a file in place of what had its name, which must not be a
// directory. It neither syncs nor renames: for trees that are made anew after a
// failure.
func (d *Dir) Put(name string, data []byte, perm fs.FileMode) error {
	return d.at("create", name, func(dir int, base string) error {
		if err := unix.Unlinkat(dir, base, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		fd, err := openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint32(perm.Perm()))
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), d.full(name))
		_, err = f.Write(data)
		if err == nil {
			err = f.Chmod(perm)
		}
		return errors.Join(err, f.Close())
	})
}

// WriteFile writes a file that a person named, complete or not at all. See the
// package comment for the links that the way to it may go through; a link at
// its end is replaced.
func WriteFile(name string, data []byte, perm fs.FileMode) error {
	d, err := Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.WriteFile(path.Base(name), data, perm)
}

// MkdirAll makes a directory that a person named and those above it that are
// missing, and opens it as [Open] does.
func MkdirAll(name string, perm fs.FileMode) (*Dir, error) {
	d, err := Open(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	up, err := MkdirAll(path.Dir(path.Clean(name)), perm)
	if err != nil {
		return nil, err
	}
	defer up.Close()
	base := path.Base(name)
	if err := up.Mkdir(base, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return up.Sub(base)
}

// MakeDir is [MkdirAll] for a caller that does not need the directory open.
func MakeDir(name string, perm fs.FileMode) error {
	d, err := MkdirAll(name, perm)
	if err != nil {
		return err
	}
	return d.Close()
}

// Symlink makes a link.
func (d *Dir) Symlink(target, name string) error {
	return d.at("symlink", name, func(dir int, base string) error { return unix.Symlinkat(target, dir, base) })
}

// Link gives a file that is there a second name.
func (d *Dir) Link(old, name string) error {
	p, err := d.parent(old)
	if err != nil {
		return err
	}
	defer p.close()
	return d.at("link", name, func(dir int, base string) error { return unix.Linkat(p.fd, p.base, dir, base, 0) })
}

// Rename moves a file within the tree and replaces what had the new name.
func (d *Dir) Rename(old, name string) error {
	p, err := d.parent(old)
	if err != nil {
		return err
	}
	defer p.close()
	return d.at("rename", name, func(dir int, base string) error { return unix.Renameat(p.fd, p.base, dir, base) })
}

// Remove removes a file, a link or an empty directory.
func (d *Dir) Remove(name string) error {
	return d.at("remove", name, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			if derr := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); !errors.Is(derr, unix.ENOTDIR) {
				return derr
			}
		}
		return err
	})
}

// RemoveAll removes a name and everything below it. What is not there is no error.
func (d *Dir) RemoveAll(name string) error {
	if clean := path.Clean("/" + name); clean == "/" {
		return d.failed("remove", name, errors.New("the directory itself is not removed"))
	}
	p, err := d.parent(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	return d.failed("remove", name, removeAll(p.fd, p.base))
}

// removeAll removes a tree of any depth. It keeps few descriptors open: a hostile tree may have more
// levels than a process may open.
func removeAll(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	fd, oerr := openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if oerr != nil {
		return err
	}
	top := os.NewFile(uintptr(fd), base)
	defer top.Close()
	if err := empty(top, top, 0); err != nil {
		return err
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}

// deepest is how many directories removeAll holds open, one in another. What is deeper it moves
// to the top.
const deepest = 64

// empty removes what is in a directory, which is reached from the top.
func empty(top, f *os.File, depth int) error {
	for {
		names, err := f.Readdirnames(1024)
		if len(names) == 0 && !errors.Is(err, io.EOF) {
			return err
		}
		for _, n := range names {
			if err := emptied(top, f, n, depth); err != nil {
				return err
			}
		}
		if len(names) > 0 {
			continue
		}
		// An entry that was moved here, or passed over while others went, is read now.
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if names, err := f.Readdirnames(1); len(names) == 0 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// emptied removes one entry of a directory, or moves it to the top.
func emptied(top, f *os.File, name string, depth int) error {
	dir := int(f.Fd())
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if depth >= deepest {
		derr := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		if derr == nil {
			return nil
		}
		if errors.Is(derr, unix.ENOTDIR) {
			return err
		}
		return unix.Renameat(dir, name, int(top.Fd()), "deep-"+rand.Text())
	}
	fd, oerr := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if oerr != nil {
		return err
	}
	sub := os.NewFile(uintptr(fd), name)
	defer sub.Close()
	if err := empty(top, sub, depth+1); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// RemoveAll removes a directory of this program, whatever is below it.
func RemoveAll(dir string) error {
	d, err := Open(path.Dir(path.Clean(dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return d.RemoveAll(path.Base(dir))
}

// Lchown changes the owner of a file, or of a link itself.
func (d *Dir) Lchown(name string, uid, gid int) error {
	return d.at("chown", name, func(dir int, base string) error {
		return unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Chmod changes the mode of a file or directory. A link is a [KindError].
func (d *Dir) Chmod(name string, mode fs.FileMode) error {
	return d.at("chmod", name, func(dir int, base string) error {
		fd, err := openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		info, err := fstat(fd, base)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return &KindError{d.full(name), info.Mode(), "regular file"}
		}
		return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
	})
}

// Chtimes sets the time of the last change of a file, or of a link itself.
func (d *Dir) Chtimes(name string, mtime time.Time) error {
	ts, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return d.failed("chtimes", name, err)
	}
	return d.at("chtimes", name, func(dir int, base string) error {
		return unix.UtimesNanoAt(dir, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
}
