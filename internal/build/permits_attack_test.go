package build

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/tree"
)

func dependency(kind, address string) blueprint.LiveDependency {
	return blueprint.LiveDependency{Name: "D", Kind: kind, Address: address}
}

// A blueprint asks for what would make its build root, and calls it a dongle.
func TestAttackBlueprintNamesThisMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes device nodes")
	}
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	key := filepath.Join(state, "agent", "secrets", "UPLOAD_TOKEN")
	file := filepath.Join(dir, "key.dat")
	for _, f := range []string{key, file} {
		if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	node := func(name string, mode uint32, major, minor uint32) string {
		p := filepath.Join(dir, name)
		if err := unix.Mknod(p, mode|0o666, int(unix.Mkdev(major, minor))); err != nil {
			t.Fatal(err)
		}
		return p
	}
	memory := node("ttyUSB0", unix.S_IFCHR, 1, 1)
	disk := node("hidraw0", unix.S_IFBLK, 7, 0)
	raw := node("dongle", unix.S_IFCHR, 21, 0)
	kvm := node("kvm", unix.S_IFCHR, 10, 232)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "serial")
	linked := filepath.Join(dir, "by-id")
	for to, from := range map[string]string{link: "/dev/null", linked: dir} {
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		kind, address string
		never         bool
	}{
		{"file", key, true},
		{"file", state, true},
		{"file", dir, true}, // which holds the state
		{"file", "/etc/shadow", true},
		{"file", memory, true},
		{"file", fifo, true},
		{"device", memory, true},
		{"device", disk, true},
		{"device", raw, true},
		{"device", file, true},
		{"device", link, true},
		{"device", filepath.Join(linked, "kvm"), true},
		{"unix", file, true},
		{"device", kvm, false},
		{"file", file, false},
		{"unix", socket, false},
	} {
		l := dependency(x.kind, x.address)
		var refused *RefusedError
		err := Permits{Private: []string{state}}.Check([]blueprint.LiveDependency{l})
		if !errors.As(err, &refused) || refused.Never() != x.never {
			t.Errorf("%s %s: %v", x.kind, x.address, err)
			continue
		}
		if flag := "--allow " + x.kind + "=" + x.address; strings.Contains(refused.Hint(), flag) == x.never {
			t.Errorf("%s %s: hint %q", x.kind, x.address, refused.Hint())
		}
		permitted := Permits{Allow: blueprint.Permissions{l.Permission()}, Private: []string{state}}
		if err := permitted.Check([]blueprint.LiveDependency{l}); (err != nil) != x.never {
			t.Errorf("%s %s, permitted: %v", x.kind, x.address, err)
		}
	}
	proposed := dependency("file", key)
	proposed.Proposed = true
	if err := (Permits{}).Check([]blueprint.LiveDependency{proposed, dependency("device", "/dev/null"), dependency("unix", "@abstract"), dependency("tcp", "x:1"), dependency("device", "/dev/none")}); err != nil {
		t.Error(err)
	}
}

// The file that was checked is the one that is mounted, whatever its name leads to later.
func TestAttackFileIsSwappedAfterTheCheck(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "licence"), filepath.Join(dir, "other")
	for _, f := range []string{file, other} {
		if err := os.WriteFile(f, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := dependency("file", file)
	found, err := Permits{Allow: blueprint.Permissions{l.Permission()}}.open([]blueprint.LiveDependency{l}, false)
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	defer closeAll(found)
	if err := os.Rename(other, file); err != nil {
		t.Fatal(err)
	}
	now, err := tree.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if now.Same(found[0].info) {
		t.Error("the test swapped nothing")
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", found[0].file.Fd()))
	if err != nil || string(data) != file {
		t.Errorf("%q, %v", data, err)
	}
}
