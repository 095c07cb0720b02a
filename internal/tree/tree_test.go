package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const attacker = 4242

// both runs a test with openat2 and without it.
func both(t *testing.T, test func(t *testing.T, slow bool)) {
	t.Run("openat2", func(t *testing.T) { test(t, false) })
	t.Run("without openat2", func(t *testing.T) { test(t, true) })
}

func opened(t *testing.T, dir string, r rule, slow bool) *Dir {
	t.Helper()
	d, err := open(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	d.slow = d.slow || slow
	t.Cleanup(func() { d.Close() })
	return d
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestOpenFollowsNoLink(t *testing.T) {
	both(t, func(t *testing.T, slow bool) {
		dir := t.TempDir()
		write(t, dir+"/a/b/file", "inside")
		write(t, dir+"/outside/secret", "secret")
		link(t, "../../outside", dir+"/a/b/up")
		link(t, "b", dir+"/a/here")
		link(t, "file", dir+"/a/b/link")
		link(t, dir+"/outside/secret", dir+"/a/absolute")
		d := opened(t, dir+"/a", noLinks, slow)
		if data, err := d.ReadFile("b/file", 100); err != nil || string(data) != "inside" {
			t.Fatal(string(data), err)
		}
		for _, name := range []string{"b/up/secret", "here/file", "b/link", "absolute", "b/up", "here"} {
			var le *LinkError
			if _, err := d.ReadFile(name, 100); !errors.As(err, &le) {
				t.Errorf("read %s: %v", name, err)
			}
			if _, err := d.Sub(name); !errors.As(err, &le) {
				t.Errorf("open %s: %v", name, err)
			}
			if err := d.WriteFile(name+"/new", []byte("x"), 0o644); !errors.As(err, &le) {
				t.Errorf("write below %s: %v", name, err)
			}
			if err := d.MkdirAll(name+"/new", 0o755); !errors.As(err, &le) {
				t.Errorf("make below %s: %v", name, err)
			}
		}
		for _, name := range []string{"../outside/secret", "b/../../outside/secret", "/etc/passwd", "..", "b/../.."} {
			if _, err := d.ReadFile(name, 1<<20); err == nil {
				t.Errorf("%s was read", name)
			}
			if err := d.Remove(name); err == nil {
				t.Errorf("%s was removed", name)
			}
		}
		if target, err := d.Readlink("here"); err != nil || target != "b" {
			t.Error(target, err)
		}
		if info, err := d.Lstat("here"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Error(info, err)
		}
	})
}

func TestOpenRootResolvesLinksAsAfterChroot(t *testing.T) {
	both(t, func(t *testing.T, slow bool) {
		top := t.TempDir()
		dir := top + "/root"
		write(t, top+"/secret", "of the host")
		write(t, dir+"/secret", "of the root")
		write(t, dir+"/data/srv/tool", "tool")
		link(t, "/data/srv", dir+"/srv")
		link(t, "../../../../../secret", dir+"/data/up")
		link(t, "/secret", dir+"/data/absolute")
		link(t, "loop", dir+"/loop")
		d := opened(t, dir, inRoot, slow)
		for name, want := range map[string]string{"/srv/tool": "tool", "srv/../absolute": "of the root", "data/up": "of the root", "/data/absolute": "of the root", "../../secret": "of the root"} {
			if data, err := d.ReadFile(name, 100); err != nil || string(data) != want {
				t.Errorf("%s: %q %v", name, data, err)
			}
		}
		if _, err := d.ReadFile("loop", 100); !errors.Is(err, unix.ELOOP) {
			t.Error(err)
		}
		if err := d.MkdirAll("srv/made/deep", 0o755); err != nil {
			t.Error(err)
		}
		if err := d.WriteFile("/srv/made/deep/file", []byte("new"), 0o644); err != nil {
			t.Error(err)
		}
		if data, err := os.ReadFile(dir + "/data/srv/made/deep/file"); err != nil || string(data) != "new" {
			t.Error(string(data), err)
		}
		if info, err := d.Lstat("/srv"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Error(info, err)
		}
	})
}

func TestSpecialFilesAreNotOpened(t *testing.T) {
	both(t, func(t *testing.T, slow bool) {
		dir := t.TempDir()
		if err := unix.Mkfifo(dir+"/fifo", 0o666); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/socket"}); err != nil {
			t.Fatal(err)
		}
		link(t, "fifo", dir+"/to-fifo")
		want := map[string]string{"fifo": "FIFO", "socket": "socket", ".": "directory"}
		if os.Geteuid() == 0 {
			if err := unix.Mknod(dir+"/device", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err == nil {
				want["device"] = "device"
			}
		}
		d, r := opened(t, dir, noLinks, slow), opened(t, dir, inRoot, slow)
		for name, kind := range want {
			for _, d := range []*Dir{d, r} {
				var ke *KindError
				if _, err := d.Open(name); !errors.As(err, &ke) || !strings.Contains(err.Error(), kind) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := OpenFile(dir + "/" + name); err == nil || !strings.Contains(err.Error(), kind) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := r.Open("to-fifo"); err == nil || !strings.Contains(err.Error(), "FIFO") {
			t.Error(err)
		}
		if _, err := OpenFile(dir + "/to-fifo"); err == nil || !strings.Contains(err.Error(), "FIFO") {
			t.Error(err)
		}
	})
}

func TestAttackALinkOfAUserLeadsRootToASecret(t *testing.T) {
	root(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/secret/key", "of root")
	write(t, dir+"/home/own/key", "of the attacker")
	link(t, "own", dir+"/by-root")
	for name, target := range map[string]string{"dir": dir + "/secret", "file": dir + "/secret/key", "mine": "own", "chain": "dir"} {
		link(t, target, dir+"/home/"+name)
	}
	link(t, dir+"/home/own", dir+"/ours")
	err := filepath.WalkDir(dir+"/home", func(p string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, attacker, attacker))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dir/key", "file", "chain/key", "mine/../dir/key"} {
		var le *LinkError
		if data, err := ReadFile(dir+"/home/"+name, 100); !errors.As(err, &le) || !le.Theirs {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	for _, name := range []string{"home/mine/key", "ours/key", "home/own/../mine/key"} {
		if data, err := ReadFile(dir+"/"+name, 100); err != nil || string(data) != "of the attacker" {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	var le *LinkError
	if err := WriteFile(dir+"/home/dir/key", []byte("x"), 0o644); !errors.As(err, &le) {
		t.Error(err)
	}
	if _, err := MkdirAll(dir+"/home/dir/new/deep", 0o755); !errors.As(err, &le) {
		t.Error(err)
	}
	// A link at the end is replaced, and what it led to stays.
	if err := WriteFile(dir+"/home/file", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(dir + "/secret/key"); err != nil || string(data) != "of root" {
		t.Error(string(data), err)
	}
	// As the attacker, all of it is the kernel's business.
	err = As(attacker, attacker, func() error {
		_, err := ReadFile(dir+"/home/own/key", 100)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRelativePathsOfAPerson(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a/file", "x")
	link(t, "a", dir+"/b")
	if err := os.Mkdir(dir+"/c", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir + "/c")
	for _, name := range []string{"../a/file", "../b/file", "../c/../b/../a/file", dir + "/b/file", "../b//./file"} {
		if data, err := ReadFile(name, 10); err != nil || string(data) != "x" {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	if _, err := ReadFile("../nothing", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if info, err := Stat("../b"); err != nil || !info.IsDir() {
		t.Error(info, err)
	}
	if info, err := Lstat("../b"); err != nil || info.IsDir() {
		t.Error(info, err)
	}
	if _, err := ReadFile(dir+"/a/file", 0); err == nil {
		t.Error("a file over the limit was read")
	}
}

// The racer swaps a file for a link to a secret, a FIFO and back, as fast as it can.
func TestAttackAFileIsSwappedWhileRootReadsIt(t *testing.T) {
	both(t, func(t *testing.T, slow bool) {
		dir := t.TempDir()
		write(t, dir+"/secret", "secret")
		write(t, dir+"/in/d/file", "public")
		write(t, dir+"/evil/file", "secret")
		link(t, "../../secret", dir+"/in/d/other")
		link(t, "../evil", dir+"/in/e")
		if err := unix.Mkfifo(dir+"/in/d/fifo", 0o600); err != nil {
			t.Fatal(err)
		}
		stop, stopped := make(chan bool), make(chan bool)
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, x := range [][2]string{{"d/file", "d/other"}, {"d/file", "d/fifo"}, {"d", "e"}} {
					for range 2 { // and back
						_ = unix.Renameat2(unix.AT_FDCWD, dir+"/in/"+x[0], unix.AT_FDCWD, dir+"/in/"+x[1], unix.RENAME_EXCHANGE)
					}
				}
			}
		}()
		d := opened(t, dir+"/in", noLinks, slow)
		read, refused := 0, 0
		check := func(f *os.File, err error) {
			if err != nil {
				refused++
				return
			}
			defer f.Close()
			data, err := io.ReadAll(f)
			if err != nil || string(data) != "public" {
				t.Fatalf("read %q %v", data, err)
			}
			read++
		}
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			check(d.Open("d/file"))
			err := d.Walk(".", func(e *Entry) error {
				if e.Mode().IsRegular() {
					check(e.Open())
				}
				return nil
			})
			if err != nil {
				refused++
			}
		}
		close(stop)
		<-stopped
		if read == 0 || refused == 0 {
			t.Errorf("%d read, %d refused: the race did not take place", read, refused)
		}
	})
}

func TestWalkIsSortedAndFollowsNothing(t *testing.T) {
	both(t, func(t *testing.T, slow bool) {
		dir := t.TempDir()
		for _, n := range []string{"b/2", "b/1", "a", "c/d/e", "b.x"} {
			write(t, dir+"/in/"+n, n)
		}
		write(t, dir+"/out/secret", "secret")
		link(t, "../out", dir+"/in/l")
		d := opened(t, dir+"/in", noLinks, slow)
		var got []string
		err := d.Walk(".", func(e *Entry) error {
			got = append(got, e.Path)
			if e.Path == "c/d" {
				return fs.SkipDir
			}
			if e.Mode()&fs.ModeSymlink != 0 {
				if target, err := e.Readlink(); err != nil || target != "../out" {
					t.Error(target, err)
				}
			}
			return nil
		})
		if want := []string{".", "a", "b", "b/1", "b/2", "b.x", "c", "c/d", "l"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%v %v", got, err)
		}
		got = nil
		if err := d.Walk("b", func(e *Entry) error { got = append(got, e.Path); return nil }); err != nil || !slices.Equal(got, []string{"b", "b/1", "b/2"}) {
			t.Error(got, err)
		}
		var le *LinkError
		if err := d.Walk("l/x", func(*Entry) error { return nil }); !errors.As(err, &le) {
			t.Error(err)
		}
	})
}

func TestWalkIsBounded(t *testing.T) {
	dir := t.TempDir()
	d := opened(t, dir, noLinks, false)
	at, err := d.Sub(".")
	if err != nil {
		t.Fatal(err)
	}
	for range MaxDepth + 10 {
		if err := at.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := at.Sub("d")
		at.Close()
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
	at.Close()
	var le *LimitError
	if err := d.Walk(".", func(*Entry) error { return nil }); !errors.As(err, &le) {
		t.Error(err)
	}
	if err := os.RemoveAll(dir + "/d"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		write(t, fmt.Sprintf("%s/f%d", dir, i), "")
	}
	left := 5
	if _, err := d.list(&left); !errors.As(err, &le) {
		t.Error(err)
	}
}

func TestRemoveAllStaysInside(t *testing.T) {
	both(t, func(t *testing.T, slow bool) {
		dir := t.TempDir()
		write(t, dir+"/out/keep", "keep")
		write(t, dir+"/in/a/b/c", "")
		link(t, "../../out", dir+"/in/a/l")
		d := opened(t, dir+"/in", noLinks, slow)
		for _, n := range []string{"a", "not-there/at/all", "a"} {
			if err := d.RemoveAll(n); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(dir + "/out/keep"); err != nil {
			t.Error(err)
		}
		if err := d.RemoveAll("."); err == nil {
			t.Error("the directory removed itself")
		}
	})
}

func TestAsHasTheRightsOfTheUserOnly(t *testing.T) {
	root(t)
	dir := t.TempDir()
	write(t, dir+"/roots/file", "x")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755), os.Mkdir(dir+"/theirs", 0o755), os.Chown(dir+"/theirs", attacker, attacker), os.Chmod(dir+"/roots/file", 0o600)); err != nil {
		t.Fatal(err)
	}
	d := opened(t, dir, noLinks, false)
	err := As(attacker, attacker, func() error {
		if _, err := d.ReadFile("roots/file", 10); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("read: %v", err)
		}
		if err := d.WriteFile("roots/new", nil, 0o644); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("write: %v", err)
		}
		if err := d.Remove("roots/file"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("remove: %v", err)
		}
		if err := d.Lchown("theirs", 0, 0); err == nil {
			t.Error("chown")
		}
		return d.WriteFile("theirs/new", []byte("x"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := d.Lstat("theirs/new"); err != nil || info.UID() != attacker || info.GID() != attacker {
		t.Error(info, err)
	}
	if _, err := d.ReadFile("roots/file", 10); err != nil {
		t.Errorf("afterwards: %v", err) // root is root again
	}
}

func TestFilesAreCompleteOrNotThere(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "old")
	d := opened(t, dir, noLinks, false)
	failure := errors.New("the disk burns")
	if err := d.Replace("file", 0o640, func(f *os.File) error { f.WriteString("half"); return failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
	if data, err := d.ReadFile("file", 10); err != nil || string(data) != "old" {
		t.Error(string(data), err)
	}
	if err := d.WriteFile("file", []byte("new"), 0o640); err != nil {
		t.Error(err)
	}
	info, err := d.Lstat("file")
	if err != nil || info.Mode() != 0o640 || info.Size() != 3 {
		t.Error(info, err)
	}
	if list, err := d.ReadDir("."); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
	if _, err := d.Create("file", 0o600); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
}

// TestAttackAFileFillsTheMemory: a bundle of a stranger holds a file of which all is a
// hole, and that takes no room until somebody reads it as a whole.
func TestAttackAFileFillsTheMemory(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "stamp"), "")
	if err := os.Truncate(filepath.Join(dir, "stamp"), 200<<20); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var limit *LimitError
	if data, err := fs.ReadFile(d.FS(), "stamp"); !errors.As(err, &limit) {
		t.Errorf("%d bytes are read: %v", len(data), err)
	}
}
