package tree

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// NotOursError says that a directory cannot be made private, because it is
// another user's or one that all users share.
type NotOursError struct {
	Dir     string
	Why     string
	Foreign bool // it is another user's
}

func (e *NotOursError) Error() string { return e.Dir + " " + e.Why }

// Hint says what to type.
func (e *NotOursError) Hint() string {
	return "choose a directory of its own, which this user makes (--state DIR, --depot DIR); chown and chmod it if it is the right one"
}

// Private makes a directory that only the user of this process may enter, and
// takes from others what an older version or a umask let them do. What is below
// it is out of their reach, whatever modes it has. A directory of another user,
// who could exchange what is in it, gives a [NotOursError].
func Private(dir string) error { return Own(dir, 0o700) }

// Own is [Private] for a directory that has another mode.
func Own(dir string, mode fs.FileMode) error {
	d, err := MkdirAll(dir, 0o700)
	if err != nil {
		return err
	}
	defer d.Close()
	info, err := d.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.UID() != os.Geteuid():
		return &NotOursError{dir, fmt.Sprintf("belongs to user %d, who could exchange what is in it", info.UID()), true}
	case slices.ContainsFunc([]string{"/", "/tmp", "/var/tmp", "/dev/shm", "/home", "/var/lib", "/srv", "/opt"}, func(p string) bool { other, err := Stat(p); return err == nil && info.Same(other) }):
		return &NotOursError{Dir: dir, Why: "is a directory that all users share"}
	case info.Mode().Perm() == mode:
		return nil
	}
	return d.Chmod(".", mode)
}
