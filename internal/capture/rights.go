package capture

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"trysail/internal/account"
	"trysail/internal/tree"
)

// rights does file work with the rights of one user, so that the kernel itself
// answers what the user may read: owner, groups, access lists, and the search
// permission of every directory on the way.
//
// What is opened in this way the user could have opened, whatever happens to the
// path meanwhile. One thread has the user's rights until close.
type rights struct{ work chan func() } // no channel: the rights of this process

// stranger is the number of a user who owns nothing and is in no group: nobody.
const stranger = 65534

// rightsOf takes the rights of a user. Root's are those of this process.
func rightsOf(uid, gid int, groups []int) (*rights, error) {
	if uid == 0 {
		return &rights{}, nil
	}
	r := &rights{work: make(chan func())}
	ready := make(chan error)
	go func() {
		err := tree.AsMember(uid, gid, groups, func() error {
			ready <- nil
			for f := range r.work {
				f()
			}
			return nil
		})
		if err != nil {
			ready <- fmt.Errorf("take the rights of user %d: %w", uid, err)
		}
	}()
	return r, <-ready
}

// asking finds the user who asks: who called sudo, else who runs this process.
func asking() (account.Account, error) {
	name, err := invoker()
	if err != nil {
		return account.Account{}, err
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account.Account{}, fmt.Errorf("who asks: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account.Account{}, fmt.Errorf("who asks: %w", err)
	}
	return account.Lookup(uid)
}

func (r *rights) close() {
	if r != nil && r.work != nil {
		close(r.work)
	}
}

// do runs f with the user's rights and returns when it has run. What f hands to
// other goroutines runs with the rights of this process.
func (r *rights) do(f func()) {
	if r.work == nil {
		f()
		return
	}
	done := make(chan struct{})
	r.work <- func() { defer close(done); f() }
	<-done
}

// open opens a regular file for reading. Its error says fs.ErrPermission where
// the user may not read it.
func (r *rights) open(p string) (f *os.File, err error) {
	r.do(func() { f, err = openRegular(p) })
	return f, err
}

// openRegular opens a regular file, and neither follows a link at the path's end
// nor opens anything else.
func openRegular(p string) (*os.File, error) {
	d, err := tree.Open(path.Dir(p))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Open(path.Base(p))
}

// judge says of each path why the user cannot read it, nil where they can. A
// link or a directory needs only to be seen. fs.ErrPermission says that the user
// may not; fs.ErrNotExist that nothing is there. The error's Op is "lstat" where
// the way there is closed, "open" where the file is.
func (r *rights) judge(paths []string) []error {
	list := make([]error, len(paths))
	r.do(func() {
		for i, p := range paths {
			list[i] = readable(p)
		}
	})
	return list
}

// readable asks the kernel with the rights of the calling thread.
func readable(p string) error {
	op := "lstat"
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		op = "open"
		var fd int
		if fd, err = unix.Open(p, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			err = unix.Close(fd)
		}
	}
	if err == unix.ENOTDIR {
		err = unix.ENOENT
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: p, Err: err}
	}
	return nil
}

// mostConfig bounds a file that is kept in version control, in bytes. Its owner can make
// it any size after it was chosen.
const mostConfig = 64 << 20

// readFile reads a regular file whole.
func (r *rights) readFile(p string) (data []byte, err error) {
	r.do(func() {
		d, derr := tree.Open(path.Dir(p))
		if err = derr; err != nil {
			return
		}
		defer d.Close()
		data, err = d.ReadFile(path.Base(p), mostConfig)
	})
	return data, err
}
