package debian

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A user who owns a directory of a package makes it a link to a directory of root,
// so that a file of root becomes part of the package that is made again.
func TestAttackAPackagesDirectoryIsALink(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and dpkg-deb")
	}
	root := machine(t, map[string]string{
		"var/lib/dpkg/status":         "Package: tool\nStatus: install ok installed\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n",
		"var/lib/dpkg/info/tool.list": "/.\n/usr/lib/tool\n/var/lib/tool\n/var/lib/tool/data\n/var/lib/tool/data/key\n/var/lib/tool/single\n",
		"usr/lib/tool":                "program", "root/key": "PRIVATE-KEY",
		"var/lib/tool/data": "-> ../../../root", "var/lib/tool/single": "-> ../../../root/key",
	})
	for _, name := range []string{"var/lib/tool", "var/lib/tool/data", "var/lib/tool/single"} {
		if err := os.Lchown(filepath.Join(root, name), 4242, 4242); err != nil {
			t.Fatal(err)
		}
	}
	db, err := ReadDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Repack(context.Background(), db, db.Package("tool:all"), db.Files(db.Package("tool:all")), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	tg, to, _ := target(t)
	if err := errors.Join(os.MkdirAll(filepath.Join(to, "root"), 0o755)); err != nil {
		t.Fatal(err)
	}
	unpack(t, tg, raw)
	err = filepath.WalkDir(to, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if bytes.Contains(data, []byte("PRIVATE-KEY")) {
			t.Errorf("%s holds the key of root", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "usr/lib/tool")); err != nil {
		t.Error(err)
	}
}
