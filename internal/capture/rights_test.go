package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trysail/internal/machine"
)

// builder is a user of no name and no group.
const builder = 4242

// session begins a session of a state in a directory, and ends it before what the test made
// earlier is taken away.
func session(t *testing.T, dir string) (*machine.State, *machine.Session) {
	t.Helper()
	st, err := machine.OpenState(t.Context(), filepath.Join(dir, "state"), filepath.Join(dir, "run"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n, err := st.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return st, n
}

// place is a directory that any user may enter, unlike t.TempDir's.
func place(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "trysail-rights-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// put writes a file with its mode, and its directories with 0755.
func put(t *testing.T, p string, mode fs.FileMode, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o600), os.Chmod(p, mode)); err != nil {
		t.Fatal(err)
	}
}

// TestRights: the kernel answers, for the owner, the groups, access lists and
// the directories above.
func TestRights(t *testing.T) {
	dir := place(t)
	put(t, dir+"/open", 0o644, "x")
	put(t, dir+"/root", 0o600, "x")
	put(t, dir+"/group", 0o640, "x")
	put(t, dir+"/listed", 0o600, "x")
	put(t, dir+"/denied", 0o644, "x")
	put(t, dir+"/closed/open", 0o644, "x")
	put(t, dir+"/own", 0o600, "x")
	err := errors.Join(os.Chmod(dir+"/closed", 0o700), os.Chown(dir+"/group", 0, 4343), os.Chown(dir+"/own", builder, 0), os.Symlink("root", dir+"/link"),
		unix.Mkfifo(dir+"/fifo", 0o666))
	if err != nil {
		t.Fatal(err)
	}
	for name, perm := range map[string]byte{"listed": 4, "denied": 0} {
		// acl(5) as the kernel keeps it: owner rw, user 4242, group -, mask r, others.
		list := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, perm, 0, builder & 255, builder >> 8, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4 - perm, 0, 255, 255, 255, 255}
		if err := unix.Setxattr(dir+"/"+name, "system.posix_acl_access", list, 0); err != nil {
			t.Fatalf("access list of %s: %v", name, err)
		}
	}
	plain, err := rightsOf(builder, builder, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.close()
	member, err := rightsOf(builder, builder, []int{4343})
	if err != nil {
		t.Fatal(err)
	}
	defer member.close()
	for _, c := range []struct {
		name          string
		plain, member error
	}{
		{"open", nil, nil},
		{"root", fs.ErrPermission, fs.ErrPermission},
		{"group", fs.ErrPermission, nil},
		{"listed", nil, nil},
		{"denied", fs.ErrPermission, fs.ErrPermission},
		{"closed", nil, nil},
		{"closed/open", fs.ErrPermission, fs.ErrPermission},
		{"closed/none", fs.ErrPermission, fs.ErrPermission},
		{"own", nil, nil},
		{"link", nil, nil},
		{"fifo", nil, nil},
		{"none", fs.ErrNotExist, fs.ErrNotExist},
		{"open/x", fs.ErrNotExist, fs.ErrNotExist},
	} {
		p := dir + "/" + c.name
		if got := plain.judge([]string{p})[0]; !errors.Is(got, c.plain) {
			t.Errorf("%s: %v, want %v", c.name, got, c.plain)
		}
		if got := member.judge([]string{p})[0]; !errors.Is(got, c.member) {
			t.Errorf("%s, for a member of the group: %v, want %v", c.name, got, c.member)
		}
	}
	for name, want := range map[string]bool{"open": true, "own": true, "root": false, "closed/open": false, "link": false, "fifo": false} {
		if data, err := plain.readFile(dir + "/" + name); (err == nil && string(data) == "x") != want {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	if _, err := os.ReadFile(dir + "/closed/open"); err != nil {
		t.Errorf("another thread has lost its rights: %v", err)
	}
}

// TestJudgeMany: thousands of paths cost milliseconds.
func TestJudgeMany(t *testing.T) {
	dir := place(t)
	var paths []string
	for i := range 5000 {
		p := fmt.Sprintf("%s/%d/%d", dir, i%50, i)
		put(t, p, 0o644, "")
		paths = append(paths, p)
	}
	r, err := rightsOf(builder, builder, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	begin := time.Now()
	for i, err := range r.judge(paths) {
		if err != nil {
			t.Fatalf("%s: %v", paths[i], err)
		}
	}
	t.Logf("5000 paths in %v", time.Since(begin))
}
