package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// target is a root beside a directory that nothing may be written to.
func target(t testing.TB) (tg *Target, root, outside string) {
	t.Helper()
	top := t.TempDir()
	root, outside = filepath.Join(top, "root"), filepath.Join(top, "outside")
	for _, d := range []string{root, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tg, err := NewTarget(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tg.Close(); err != nil {
			t.Error(err)
		}
	})
	return tg, root, outside
}

func unpack(t testing.TB, tg *Target, raw []byte) *Unpacked {
	t.Helper()
	u, err := tg.Unpack(context.Background(), readDeb(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func read(t testing.TB, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func named(name, fields string) string {
	return "Package: " + name + "\nVersion: 1\nArchitecture: amd64\n" + fields
}

func TestUnpack(t *testing.T) {
	tg, root, _ := target(t)
	setuid := file("./usr/bin/su", "#!")
	setuid.Mode = 0o4755
	sticky := dir("./var/tmp")
	sticky.Mode = 0o1777
	raw := deb(t, control, map[string]string{"conffiles": "/etc/hello.conf\n/etc/hello.link\n"},
		dir("./"), dir("./etc"), file("./etc/hello.conf", "conf"), link("./etc/hello.link", "hello.conf"), dir("./usr"), dir("./usr/bin"), file("./usr/bin/hello", "program"), setuid, sticky,
		link("./usr/bin/hi", "hello"), hard("./usr/bin/also", "./usr/bin/hello"), hard("./usr/conf", "./etc/hello.conf"), file("./usr/share/deep/er/x", "not announced"))
	u := unpack(t, tg, raw)
	if got, want := string(u.ListFile()), "/.\n/etc\n/etc/hello.conf\n/etc/hello.link\n/usr\n/usr/bin\n/usr/bin/hello\n/usr/bin/su\n/var/tmp\n/usr/bin/hi\n/usr/bin/also\n/usr/conf\n/usr/share/deep/er/x\n"; got != want {
		t.Errorf("list\n%swant\n%s", got, want)
	}
	if u.Bytes != int64(len("conf")+len("program")+len("#!")+len("not announced")) {
		t.Errorf("%d bytes", u.Bytes)
	}
	for name, want := range map[string]string{"etc/hello.conf.dpkg-new": "conf", "usr/bin/hello": "program", "usr/bin/hi": "program", "usr/bin/also": "program", "usr/conf": "conf", "usr/share/deep/er/x": "not announced"} {
		if got := read(t, root, name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"etc/hello.conf", "etc/hello.link"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stands before dpkg configures it (%v)", name, err)
		}
	}
	for name, want := range map[string]fs.FileMode{"usr/bin/su": 0o755 | fs.ModeSetuid, "var/tmp": 0o777 | fs.ModeSticky | fs.ModeDir, "usr/share": 0o755 | fs.ModeDir, "etc/hello.link.dpkg-new": 0o777 | fs.ModeSymlink} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, want %v", name, info, err, want)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "usr/bin/hello")); err != nil || !info.ModTime().Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("its time is not the archive's: %v", info.ModTime())
	}
	if !strings.Contains(u.MD5, "a9c449d4fa44e9e5a41c574ae55ce4d9  usr/bin/hello\n") || strings.Contains(u.MD5, "hello.conf") {
		t.Errorf("md5sums\n%s", u.MD5)
	}
	tg, _, _ = target(t)
	if u := unpack(t, tg, deb(t, control, map[string]string{"md5sums": ""}, file("./x", "y"))); u.MD5 != "" {
		t.Errorf("md5sums are made although the package brings them: %s", u.MD5)
	}
}

// TestUnpackHostile: nothing that an archive says gets out of the root.
func TestUnpackHostile(t *testing.T) {
	for _, c := range []struct {
		name string
		list func(outside string) []entry
		ok   bool // harmless once read in the root's own terms
	}{
		{"climbs", func(o string) []entry { return []entry{file("../outside/x", "bad")} }, false},
		{"climbs within", func(o string) []entry { return []entry{file("./usr/../../outside/x", "bad")} }, false},
		{"climbs in the end", func(o string) []entry { return []entry{dir("./usr/..")} }, false},
		{"absolute", func(o string) []entry { return []entry{file(o+"/x", "bad")} }, true},
		{"absolute link", func(o string) []entry { return []entry{link("./l", o), file("./l/x", "bad")} }, true},
		{"relative link", func(o string) []entry { return []entry{link("./l", "../outside"), file("./l/x", "bad")} }, true},
		{"link to the file itself", func(o string) []entry { return []entry{link("./x", o+"/x"), file("./x", "bad")} }, true},
		{"chain of links", func(o string) []entry {
			return []entry{link("./a", "b"), link("./b", "c/.."), link("./c", "../outside"), file("./a/x", "bad")}
		}, true},
		{"loop of links", func(o string) []entry { return []entry{link("./a", "b"), link("./b", "a"), file("./a/x", "bad")} }, false},
		{"link and then a directory", func(o string) []entry { return []entry{link("./d", "../outside"), dir("./d"), file("./d/x", "bad")} }, true},
		{"hard link out", func(o string) []entry { return []entry{hard("./h", "../outside/secret"), file("./h", "bad")} }, false},
		{"hard link absolute", func(o string) []entry { return []entry{hard("./h", o+"/secret")} }, false},
		{"hard link through a link", func(o string) []entry { return []entry{link("./l", "../outside"), hard("./h", "./l/secret")} }, false},
		{"hard link to a link", func(o string) []entry {
			return []entry{link("./l", o+"/secret"), hard("./h", "./l"), file("./h", "bad")}
		}, true},
		{"hard link to itself", func(o string) []entry { return []entry{file("./h", "x"), hard("./h", "./h")} }, true},
		{"device", func(o string) []entry {
			return []entry{{tar.Header{Name: "./sda", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 8}, ""}}
		}, false},
		{"character device", func(o string) []entry {
			return []entry{{tar.Header{Name: "./mem", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 1}, ""}}
		}, false},
		{"pipe", func(o string) []entry {
			return []entry{{tar.Header{Name: "./p", Typeflag: tar.TypeFifo, Mode: 0o666}, ""}}
		}, false},
		{"unknown type", func(o string) []entry { return []entry{{tar.Header{Name: "./p", Typeflag: 'Z', Mode: 0o666}, ""}} }, false},
		{"file as a directory", func(o string) []entry { return []entry{file("./f", "x"), file("./f/x", "bad")} }, false},
		{"directory over a file", func(o string) []entry { return []entry{file("./f", "x"), dir("./f")} }, false},
		{"file over a directory", func(o string) []entry { return []entry{dir("./d"), file("./d", "x")} }, false},
		{"line end", func(o string) []entry { return []entry{file("./a\n/etc/shadow", "x")} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tg, root, outside := target(t)
			if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := tg.Unpack(context.Background(), readDeb(t, deb(t, control, nil, c.list(outside)...)))
			if (err == nil) != c.ok {
				t.Errorf("error %v, want none: %v", err, c.ok)
			}
			var ae *ArchiveError
			if err != nil && (!errors.As(err, &ae) || ae.Package != "hello" || ae.Hint() == "") {
				t.Errorf("error %v names no package or no remedy", err)
			}
			if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
				t.Errorf("outside of the root: %v, %v", names, err)
			}
			if read(t, outside, "secret") != "secret" {
				t.Error("a file outside of the root was changed")
			}
			if info, err := os.Stat(filepath.Join(outside, "secret")); err != nil || info.Mode() != 0o600 {
				t.Errorf("a file outside of the root has other permissions: %v %v", info.Mode(), err)
			}
			err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
				if d.Type()&(fs.ModeDevice|fs.ModeNamedPipe) != 0 {
					t.Errorf("%s is a device", p)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnpackLinks: links inside the root are followed as the machine itself
// would follow them.
func TestUnpackLinks(t *testing.T) {
	tg, root, _ := target(t)
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "usr/lib"), 0o755), os.Symlink("usr/lib", filepath.Join(root, "lib"))); err != nil {
		t.Fatal(err)
	}
	unpack(t, tg, deb(t, named("a", ""), nil, dir("./lib"), dir("./lib/x"), file("./lib/x/so", "1"), link("./abs", "/usr/lib/x"), file("./abs/two", "2"), link("./lib/x/so", "elsewhere")))
	for name, want := range map[string]string{"usr/lib/x/two": "2"} {
		if got := read(t, root, name); got != want {
			t.Errorf("%s holds %q", name, got)
		}
	}
	if info, err := os.Lstat(filepath.Join(root, "lib")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link of the merged /usr is gone: %v %v", info, err)
	}
	unpack(t, tg, deb(t, named("b", ""), nil, link("./lib", "usr/lib64"), link("./usr/lib/x", "/tmp")))
	if got, err := os.Readlink(filepath.Join(root, "lib")); err != nil || got != "usr/lib" {
		t.Errorf("a link to a directory was replaced: %q %v", got, err)
	}
	if info, err := os.Lstat(filepath.Join(root, "usr/lib/x")); err != nil || !info.IsDir() {
		t.Errorf("a directory was replaced by a link: %v %v", info, err)
	}
}

func TestUnpackOwners(t *testing.T) {
	tg, _, _ := target(t)
	tg.UserID = func(n string) (int, bool) { return 7, n == "daemon" }
	tg.GroupID = func(n string) (int, bool) { return 8, n == "mail" }
	for _, c := range []struct {
		h        tar.Header
		uid, gid int
	}{
		{tar.Header{Uid: 1, Gid: 2, Uname: "daemon", Gname: "mail"}, 7, 8},
		{tar.Header{Uid: 1, Gid: 2, Uname: "other", Gname: ""}, 1, 2},
	} {
		if uid, gid := tg.owner(&c.h); uid != c.uid || gid != c.gid {
			t.Errorf("%s:%s is %d:%d, want %d:%d", c.h.Uname, c.h.Gname, uid, gid, c.uid, c.gid)
		}
	}
}

func TestUnpackDiversions(t *testing.T) {
	tg, root, _ := target(t)
	tg.Divert([]Diversion{{"/usr/bin/ld", "/usr/bin/ld.real", "gold"}, {"/etc/x", "/srv/deep/x.mine", ":"}, {"/usr/lib/a", "/usr/lib/b", ":"}})
	unpack(t, tg, deb(t, named("binutils", ""), map[string]string{"conffiles": "/etc/x\n"}, file("./usr/bin/ld", "real"), file("./etc/x", "conf"), file("./usr/lib/a", "a"), hard("./usr/lib/c", "./usr/lib/a")))
	unpack(t, tg, deb(t, named("gold", ""), nil, file("./usr/bin/ld", "gold")))
	for name, want := range map[string]string{"usr/bin/ld": "gold", "usr/bin/ld.real": "real", "srv/deep/x.mine.dpkg-new": "conf", "usr/lib/b": "a", "usr/lib/c": "a"} {
		if got := read(t, root, name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	// A diversion that leads through a link stays in the root as well.
	tg, _, outside := target(t)
	tg.Divert([]Diversion{{"/x", "/out/x", ":"}})
	unpack(t, tg, deb(t, named("a", ""), nil, link("./out", outside), file("./x", "bad")))
	if names, err := os.ReadDir(outside); err != nil || len(names) != 0 {
		t.Errorf("diverted out of the root: %v %v", names, err)
	}
}

// TestUnpackReplaces: the package that replaces another keeps the file, whoever
// comes first; several architectures of one package share theirs.
func TestUnpackReplaces(t *testing.T) {
	older := deb(t, named("older", ""), nil, file("./f", "older"), link("./l", "older"))
	newer := deb(t, named("newer", "Replaces: other (<< 2),\n older (<< 2)\n"), nil, file("./f", "newer"), link("./l", "newer"))
	for _, order := range [][][]byte{{older, newer}, {newer, older}} {
		tg, root, _ := target(t)
		for _, raw := range order {
			unpack(t, tg, raw)
		}
		if got := read(t, root, "f"); got != "newer" {
			t.Errorf("f is %q's", got)
		}
		if got, err := os.Readlink(filepath.Join(root, "l")); err != nil || got != "newer" {
			t.Errorf("l is %q's (%v)", got, err)
		}
	}
	for range 20 {
		tg, root, _ := target(t)
		var wg sync.WaitGroup
		for _, raw := range [][]byte{older, newer} {
			d := readDeb(t, raw)
			wg.Go(func() {
				if _, err := tg.Unpack(context.Background(), d); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := read(t, root, "f"); got != "newer" {
			t.Fatalf("unpacked at once, f is %q's", got)
		}
	}
}

// TestCreateAfterLosing: a package that claimed a place first, and writes after
// the one that replaces it, does not write.
func TestCreateAfterLosing(t *testing.T) {
	tg, root, _ := target(t)
	older, newer := &Package{Name: "older"}, &Package{Name: "newer"}
	write := func(text string) func() error {
		return func() error {
			f, err := tg.root.OpenFile("f", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = f.WriteString(text)
			return errors.Join(err, f.Close())
		}
	}
	for _, c := range []struct {
		p        *Package
		replaces map[string]bool
	}{{older, nil}, {newer, map[string]bool{"older": true}}} {
		if ok, err := tg.claim("f", c.p, c.replaces); err != nil || !ok {
			t.Fatalf("%s may not write: %v", c.p.Name, err)
		}
	}
	if made, err := tg.create("f", newer, write("newer")); err != nil || !made {
		t.Errorf("the winner: %v %v", made, err)
	}
	if made, err := tg.create("f", older, write("older")); err != nil || made {
		t.Errorf("the loser: %v %v", made, err)
	}
	if got := read(t, root, "f"); got != "newer" {
		t.Errorf("f is %q's", got)
	}
}

// endError is a stream whose digest is wrong, which shows at its very end.
type endError struct {
	r   io.Reader
	err error
}

func (e *endError) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = e.err
	}
	return n, err
}

// TestUnpackReadsToTheEnd: the depot verifies an original at the end of its
// stream, so unpacking must get there, whatever stands behind the data.
func TestUnpackReadsToTheEnd(t *testing.T) {
	wrong := errors.New("other bytes")
	plain := ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar", tarball(t, file("control", control))}, arMember{"data.tar", tarball(t, file("./x", "y"))})
	for name, raw := range map[string][]byte{
		"gz": deb(t, control, nil, file("./x", "y")), "plain": plain,
		"more members": append(bytes.Clone(plain), ar(arMember{"_gpgorigin", bytes.Repeat([]byte("sig"), 1<<20)})[8:]...),
	} {
		d, err := ReadDeb(context.Background(), name, &endError{bytes.NewReader(raw), wrong})
		if err != nil {
			t.Fatal(err)
		}
		tg, _, _ := target(t)
		if _, err := tg.Unpack(context.Background(), d); !errors.Is(err, wrong) {
			t.Errorf("%s: the error at the end of the stream is not seen: %v", name, err)
		}
	}
}

func TestUnpackDamage(t *testing.T) {
	data := gz(t, tarball(t, file("./x", strings.Repeat("y", 4096))))
	flipped := bytes.Clone(data)
	flipped[len(flipped)-6] ^= 1
	for name, c := range map[string]struct {
		member arMember
		what   string
	}{
		"flipped":     {arMember{"data.tar.gz", flipped}, "checksum"},
		"cut":         {arMember{"data.tar.gz", data[:len(data)-4]}, "EOF"},
		"no gzip":     {arMember{"data.tar.gz", []byte("x")}, "EOF"},
		"compression": {arMember{"data.tar.bz2", data}, "not known"},
	} {
		raw := ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar", tarball(t, file("control", control))}, c.member)
		tg, _, _ := target(t)
		_, err := tg.Unpack(context.Background(), readDeb(t, raw))
		var ae *ArchiveError
		if !errors.As(err, &ae) || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%s: %v, want an ArchiveError with %q", name, err, c.what)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tg, _, _ := target(t)
	if _, err := tg.Unpack(ctx, readDeb(t, deb(t, control, nil, file("./x", "y")))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestUnpackLikeDpkg compares with dpkg-deb on archives that dpkg-deb made.
func TestUnpackLikeDpkg(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed")
	}
	stage := t.TempDir()
	for name, text := range map[string]string{"DEBIAN/control": "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n", "usr/bin/x": "#!/bin/sh\n", "usr/share/doc/x/" + strings.Repeat("long-", 30): "name", "etc/ünï cödé": "y"} {
		p := filepath.Join(stage, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("../share/doc", filepath.Join(stage, "usr/bin/doc")), os.Link(filepath.Join(stage, "usr/bin/x"), filepath.Join(stage, "usr/bin/y")), os.Chmod(stage, 0o755), os.Chmod(filepath.Join(stage, "usr/bin/x"), 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	for _, z := range []string{"gzip", "xz", "zstd", "none"} {
		file := filepath.Join(t.TempDir(), "x.deb")
		if out, err := exec.Command("dpkg-deb", "-Z"+z, "--root-owner-group", "--build", stage, file).CombinedOutput(); err != nil {
			if z == "zstd" {
				continue // dpkg before 1.21.18 has none
			}
			t.Fatalf("%v: %s", err, out)
		}
		want := t.TempDir()
		if out, err := exec.Command("dpkg-deb", "--extract", file, want).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tg, root, _ := target(t)
		if os.Geteuid() != 0 { // who is not root cannot give files away
			tg.UserID = func(string) (int, bool) { return os.Getuid(), true }
			tg.GroupID = func(string) (int, bool) { return os.Getgid(), true }
		}
		unpack(t, tg, raw)
		if a, b := fileTree(t, want), fileTree(t, root); a != b {
			t.Errorf("%s: dpkg-deb makes\n%s\nand we\n%s", z, a, b)
		}
	}
}

// fileTree lists a directory with modes, times and contents.
func fileTree(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b.WriteString(info.Mode().String() + " " + strings.TrimPrefix(p, root))
		switch {
		case info.Mode().IsRegular():
			b.WriteString(" " + info.ModTime().UTC().Format(time.RFC3339) + " " + read(t, p))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			b.WriteString(" -> " + target)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return b.String()
}
