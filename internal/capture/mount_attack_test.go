package capture

import (
	"errors"
	"os"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// TestAttackMountBelowALink: a user brings two disks, or two file systems of FUSE. One is
// mounted below a directory of the user, the other over that directory: what is listed
// as a mount is a path of the second now, and leads through the user's link.
func TestAttackMountBelowALink(t *testing.T) {
	dir := place(t)
	at, err := os.MkdirTemp("/opt", "trysail-attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(at+"/users", unix.MNT_DETACH)
		_ = unix.Unmount(at+"/users/lib/bin", unix.MNT_DETACH)
		os.RemoveAll(at)
	})
	victim := at + "/roots/bin"
	err = errors.Join(os.Chmod(at, 0o755), os.MkdirAll(victim, 0o755), os.MkdirAll(at+"/users/lib/bin", 0o755),
		unix.Mount("tmpfs", at+"/users/lib/bin", "tmpfs", 0, ""), unix.Mount("tmpfs", at+"/users", "tmpfs", 0, "mode=0755"), os.Symlink(at+"/roots", at+"/users/lib"))
	if err != nil {
		t.Fatal(err)
	}
	st, n := session(t, dir)
	if _, err := mountHost(n, st, "/nonexistent", "root"); err != nil {
		t.Error(err)
	}
	if is, err := mountinfo.Mounted(victim); err != nil || is {
		t.Errorf("an overlay is mounted over root's directory %s of the machine itself (%v)", victim, err)
	}
}

// TestAttackFileMountBecomesALink: a user mounts a file over one of their own, and makes a
// link to a directory of root of it before the build's container is made. Root mounts
// what the link leads to into the build, past the closed directories above it.
func TestAttackFileMountBecomesALink(t *testing.T) {
	dir := place(t)
	at, err := os.MkdirTemp("/opt", "trysail-attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(at+"/file", unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		os.RemoveAll(at)
	})
	put(t, at+"/file", 0o644, "")
	put(t, at+"/users", 0o644, "users")
	put(t, at+"/roots", 0o644, "secret")
	if err := unix.Mount(at+"/users", at+"/file", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	st, n := session(t, dir)
	host, err := mountHost(n, st, "/nonexistent", "root")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Unmount(at+"/file", unix.MNT_DETACH), os.Remove(at+"/file"), os.Symlink(at+"/roots", at+"/file")); err != nil {
		t.Fatal(err)
	}
	for _, m := range host.mounts {
		if m.Target != at+"/file" {
			continue
		}
		if data, err := os.ReadFile(m.Source); err != nil || string(data) != "users" {
			t.Errorf("the build gets %q (%v)", data, err)
		}
		return
	}
	t.Error("the mount of a file is not handed through")
}
