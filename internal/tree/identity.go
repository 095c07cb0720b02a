package tree

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// As does something with the file rights of a user: the kernel refuses what that
// user could not do, and what is made belongs to that user. It changes the
// user and group that the kernel checks files against (setfsuid(2), as file
// servers do) for one thread, which ends with the call. So do must not start
// goroutines that touch files. A caller that is not root, and root itself,
// keep their own rights.
func As(uid, gid int, do func() error) error { return AsMember(uid, gid, nil, do) }

// AsMember is As for a user who is in further groups.
func AsMember(uid, gid int, groups []int, do func() error) error {
	if os.Geteuid() != 0 || uid == 0 {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here, with its identity
		if err := assume(uid, gid, groups); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// assume gives the current thread the file rights of a user. The kernel takes the capabilities over files away with the user 0.
func assume(uid, gid int, groups []int) error {
	if err := unix.Setgroups(groups); err != nil { // of this thread; syscall.Setgroups sets all
		return fmt.Errorf("give up root's groups: %w", err)
	}
	if err := unix.Setfsgid(gid); err != nil {
		return fmt.Errorf("take group %d: %w", gid, err)
	}
	if err := unix.Setfsuid(uid); err != nil {
		return fmt.Errorf("take user %d: %w", uid, err)
	}
	// These calls report no failure; asking with an impossible number tells.
	if now, _ := unix.SetfsgidRetGid(-1); now != gid {
		return fmt.Errorf("the kernel did not give group %d", gid)
	}
	if now, _ := unix.SetfsuidRetUid(-1); now != uid {
		return fmt.Errorf("the kernel did not give user %d", uid)
	}
	return nil
}
