// Package treetest is the one table of what a file can be, for tests of everything that carries
// files: trees of software, configuration, artifacts between steps, fetched files, bundles.
//
// [Make] makes a tree with each kind of entry and with each thing that a file has beside its
// bytes: mode, owner, time, second names, holes, access lists, capabilities, attributes of users,
// odd names. [Describe] describes what came out on the other side, and [Equal] names the
// differences. Who cannot carry something says so in its own test, by altering the description:
// no loss goes without a line of code. A new property is added here, once, and fails wherever it
// is lost.
package treetest

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Dir makes an empty directory on a file system that keeps attributes, which /tmp may not do.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "tree-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Make makes the tree. It needs root.
func Make(t testing.TB, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make files of others and capabilities")
	}
	cmd := exec.Command("sh", "-euc", `umask 022; mkdir -p "$1"; cd "$1"; mkdir bin "empty
dir" private; head -c 5000 /dev/urandom > bin/one; ln bin/one bin/two; ln bin/one zz; echo x > plain; chmod 4751 plain; ln -s bin/one link
		truncate -s 64M holes; printf begin | dd of=holes conv=notrunc status=none; printf middle | dd of=holes bs=1M seek=50 conv=notrunc status=none
		truncate -s 65536 all-hole; head -c 300000 /dev/zero > zeros; : > nothing; echo y > other; chown 33:34 other; chmod 0640 other; echo z > private/file; chmod 0700 private
		printf n > "$(printf 'n\303\244me\n\\x2d')"
		touch -d '2021-03-04 05:06:07.123456789' bin/one; touch -d '2020-01-01 00:00:00.5' holes all-hole zeros nothing other plain private/file n*
		touch -h -d '2019-01-01 00:00:00.25' link; touch -d '2018-01-01 00:00:00.75' private "empty
dir"; touch -d '2021-03-04 05:06:07.123456789' bin`, "sh", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const accessList = "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\x92\x10\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"
	for name, attributes := range map[string]map[string]string{
		"plain":   {"user.origin": "vendor\x00=1", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		"nothing": {"system.posix_acl_access": accessList},
		"bin":     {"system.posix_acl_default": accessList},
	} {
		for key, value := range attributes {
			if err := unix.Setxattr(filepath.Join(dir, name), key, []byte(value), 0); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
		}
	}
}

// Entry is what there is to a file, link or directory.
type Entry struct {
	Mode       uint32
	UID, GID   uint32
	Links      uint64 // names of a file
	Size       int64  // 0 of a directory
	Holes      bool   // it takes less of the disk than its size
	Modified   time.Time
	Content    string // digest, or where a link leads
	Attributes string
}

// Describe describes all that is below a directory, and the directory itself as ".".
func Describe(t testing.TB, top string) map[string]Entry {
	t.Helper()
	all := map[string]Entry{}
	err := filepath.WalkDir(top, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		x := Entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Modified: time.Unix(st.Mtim.Unix()).UTC()}
		for _, name := range []string{"security.capability", "system.posix_acl_access", "system.posix_acl_default", "user.origin"} {
			b := make([]byte, 1000)
			if n, err := unix.Lgetxattr(p, name, b); err == nil {
				x.Attributes += name + "=" + hex.EncodeToString(b[:n]) + " "
			}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			x.Content, err = os.Readlink(p)
		case unix.S_IFREG:
			x.Links, x.Size, x.Holes = uint64(st.Nlink), st.Size, st.Blocks*512 < st.Size
			x.Content, err = digest(p)
		}
		name, rerr := filepath.Rel(top, p)
		all[name] = x
		if err != nil {
			return err
		}
		return rerr
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func digest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// Equal holds what came out against what went in. alter changes what cannot come through as it
// was; nil changes nothing.
func Equal(t testing.TB, want, have map[string]Entry, alter func(name string, e *Entry)) {
	t.Helper()
	for name, w := range want {
		if alter != nil {
			alter(name, &w)
		}
		if h, ok := have[name]; !ok {
			t.Errorf("%q is not there", name)
		} else if h != w {
			t.Errorf("%q:\n is %+v\nwas %+v", name, h, w)
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is there, and was not", name)
		}
	}
}
