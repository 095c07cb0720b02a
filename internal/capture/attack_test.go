package capture

import (
	"archive/tar"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/depot"
	"trysail/internal/tree"
)

// TestAttackClosedMount: a user waits for a capture to get into a file system that
// root keeps closed. The overlay of the build opens it to nobody.
func TestAttackClosedMount(t *testing.T) {
	dir := place(t)
	at, err := os.MkdirTemp("/opt", "trysail-attack-") // a build sees an empty /var/tmp
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(at) })
	if err := errors.Join(unix.Mount("tmpfs", at, "tmpfs", 0, "mode=0700")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	put(t, at+"/payroll", 0o644, "x")
	st, n := session(t, dir)
	host, err := mountHost(n, st, "/nonexistent", "root")
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(host.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := root.Stat(at[1:] + "/payroll"); err != nil {
		t.Fatalf("root does not see the file: %v", err)
	}
	user, err := rightsOf(builder, builder, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer user.close()
	user.do(func() {
		if f, err := root.Open(at[1:] + "/payroll"); err == nil || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("user %d opened %v: %v", builder, f, err)
		}
		if _, err := root.Stat("etc/passwd"); err != nil {
			t.Errorf("user %d is locked out of its own machine: %v", builder, err)
		}
	})
}

// TestAttackUntrustedMount: a user has a set-user-ID program and a device node on a
// disk that the machine mounts with nosuid and nodev, as it does with sticks and shares
// of users. In the build's view of the machine they work.
func TestAttackUntrustedMount(t *testing.T) {
	dir := place(t)
	at, err := os.MkdirTemp("/opt", "trysail-attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(at) })
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	id, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	put(t, at+"/id", 0o755, string(id))
	if err := errors.Join(os.Chmod(at+"/id", 0o755|fs.ModeSetuid), unix.Mknod(at+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Chmod(at+"/null", 0o666)); err != nil {
		t.Fatal(err)
	}
	st, n := session(t, dir)
	host, err := mountHost(n, st, "/nonexistent", "root")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(host.dir + at + "/id")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := exec.Command("/proc/self/fd/3", "-u")
	cmd.ExtraFiles = []*os.File{program}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: builder, Gid: builder}}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != fmt.Sprintln(builder) {
		t.Errorf("user %d became %s (%v)", builder, out, err)
	}
	if f, err := os.Open(host.dir + at + "/null"); err == nil {
		f.Close()
		t.Error("the device node of a disk with nodev can be opened")
	}
}

// TestAttackProgramBecomesFIFO: a build runs a program and puts a FIFO in its place, which
// root would open to find the program's loader, and wait for ever.
func TestAttackProgramBecomesFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "program")
	if err := unix.Mkfifo(fifo, 0o777); err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() { done <- loader(fifo) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("root waits for whoever writes to the FIFO")
	}
	if loader("/bin/true") == "" {
		t.Error("a program has no loader")
	}
}

// TestAttackConfigGrows: a user makes a file of settings larger than root's memory, once
// capture has seen that it is small.
func TestAttackConfigGrows(t *testing.T) {
	dir := place(t)
	put(t, dir+"/.toolrc", 0o644, "x")
	if err := os.Truncate(dir+"/.toolrc", mostConfig+1); err != nil {
		t.Fatal(err)
	}
	user, err := rightsOf(builder, builder, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer user.close()
	var limit *tree.LimitError
	if data, err := user.readFile(dir + "/.toolrc"); !errors.As(err, &limit) {
		t.Errorf("root read %d bytes into memory: %v", len(data), err)
	}
}

// TestAttackDrift: a user who may run trysail through sudo writes a blueprint that
// names a file of root, to be told its digest, and a tree, to be told what is in it.
func TestAttackDrift(t *testing.T) {
	dir := place(t)
	put(t, dir+"/secret", 0o600, "0000")
	put(t, dir+"/tree/closed/pin-1234", 0o600, "x")
	put(t, dir+"/tree/file", 0o644, "x")
	if err := os.Chmod(dir+"/tree/closed", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_USER", "nobody")
	d, err := depot.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	digest, err := PutTree(t.Context(), d, func(w io.Writer) error { return tar.NewWriter(w).Close() })
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/tree/closed/merger-with-acme", 0o750); err != nil {
		t.Fatal(err)
	}
	s := blueprint.Software{Path: dir + "/tree", File: "tree.tar.zst"}
	b := &blueprint.Blueprint{
		Config: []blueprint.File{{Path: dir + "/secret", Mode: "0600", Owner: "root:root", SHA256: "sha256:"}}, Software: []blueprint.Software{s}, Directories: []blueprint.Directory{{Path: dir + "/tree/closed/merger-with-acme", Mode: "0700", Owner: "x:x"}},
		Overrides: []blueprint.Override{{Path: dir + "/tree/closed/merger-with-acme", Mode: "0700", Owner: "x:x"}},
	}
	drift, unknown, err := FindDrift(t.Context(), b, blueprint.Sum{s.OriginalName(): digest}, d, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprint(drift, unknown)
	if strings.Contains(said, fmt.Sprintf("%x", sha256.Sum256([]byte("0000")))) || strings.Contains(said, "pin-1234") || strings.Contains(said, "0750 root:root") {
		t.Errorf("drift told it: %s", said)
	}
	if !strings.Contains(said, "config "+dir+"/secret: user nobody may not read it") || !strings.Contains(said, "tree/file is new") {
		t.Errorf("drift says %s", said)
	}
}

// TestAttackInspect: a user who may run trysail inspect through sudo is not told the
// digest of a file that only root may read, as a short password can be found by it.
func TestAttackInspect(t *testing.T) {
	place(t)
	f, err := os.CreateTemp("/etc", "trysail-attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if _, err := f.WriteString("0000"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_USER", "nobody")
	b, _, err := Inspect(t.Context(), "", time.Now(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range b.Config {
		if c.Path == f.Name() {
			t.Errorf("inspect told it: %v", c)
		}
	}
}

// TestAttackRepack: a package that no mirror has is packed again. A user who needs
// it does not get the secret that the administrator wrote into its conffile.
func TestAttackRepack(t *testing.T) {
	dir := place(t)
	put(t, dir+"/changed", 0o600, "secret")
	put(t, dir+"/same", 0o600, "maker's")
	put(t, dir+"/public", 0o644, "changed")
	for _, uid := range []int{builder, 0} {
		c := &capture{user: blueprint.User{UID: uid}}
		var err error
		if c.rights, err = rightsOf(uid, uid, nil); err != nil {
			t.Fatal(err)
		}
		defer c.rights.close()
		if c.anyone, err = rightsOf(stranger, stranger, nil); err != nil {
			t.Fatal(err)
		}
		defer c.anyone.close()
		sum := fmt.Sprintf("%x", md5.Sum([]byte("maker's")))
		if c.db, err = debian.ReadDatabase(database(t, dir, sum)); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"changed": true, "same": false, "public": false} {
			if got := c.closed(dir + "/" + name); got != want {
				t.Errorf("as user %d: %s is left out: %v, want %v", uid, name, got, want)
			}
		}
	}
}

// database is dpkg's, with one package that owns the files of a directory.
func database(t *testing.T, dir, sum string) string {
	lists, sums := "", ""
	for _, name := range []string{"changed", "same", "public"} {
		lists += dir + "/" + name + "\n"
		sums += sum + "  " + dir[1:] + "/" + name + "\n"
	}
	return root(t, map[string]string{
		"var/lib/dpkg/status":         "Package: tool\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n",
		"var/lib/dpkg/info/tool.list": lists, "var/lib/dpkg/info/tool.md5sums": sums,
	})
}
