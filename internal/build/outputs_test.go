package build

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
)

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func paths(list []blueprint.Output) []string {
	var names []string
	for _, o := range list {
		names = append(names, o.Path)
	}
	return names
}

// within fails a test that blocks, as opening a FIFO does.
func within(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan bool)
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal(what + " blocks")
	}
}

func TestOutputsMatchGlobs(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"dist/a.deb", "dist/.hidden", "dist/sub/b.deb", "dist/sub/deep/c.txt", "top.deb", "src/main.c", "one/x/y", "two/x/y"} {
		put(t, filepath.Join(dir, n), n)
	}
	if err := os.Symlink("a.deb", dir+"/dist/latest"); err != nil {
		t.Fatal(err)
	}
	for glob, want := range map[string][]string{
		"dist/*":          {"dist/.hidden", "dist/a.deb", "dist/latest", "dist/sub/b.deb", "dist/sub/deep/c.txt"},
		"dist/**":         {"dist/.hidden", "dist/a.deb", "dist/latest", "dist/sub/b.deb", "dist/sub/deep/c.txt"},
		"dist":            {"dist/.hidden", "dist/a.deb", "dist/latest", "dist/sub/b.deb", "dist/sub/deep/c.txt"},
		"./dist/*.deb":    {"dist/a.deb"},
		"**/*.deb":        {"dist/a.deb", "dist/sub/b.deb", "top.deb"},
		"*.deb":           {"top.deb"},
		"{one,two/x}/y":   {"two/x/y"},
		"{one/x,two/x}/y": {"one/x/y", "two/x/y"},
		"*/x/*":           {"one/x/y", "two/x/y"},
		"dist/sub/":       {"dist/sub/b.deb", "dist/sub/deep/c.txt"},
		"nothing/*":       nil, "top.deb/*": nil, "../*": nil, "/etc/passwd": nil,
	} {
		list, unmatched, err := Outputs(dir, []string{glob})
		if err != nil || !slices.Equal(paths(list), want) {
			t.Errorf("%s: %v %v", glob, paths(list), err)
		}
		if (len(unmatched) == 1) != (want == nil) {
			t.Errorf("%s: unmatched %v", glob, unmatched)
		}
	}
	list, _, err := Outputs(dir, []string{"dist/*", "dist/latest"})
	if err != nil || len(list) != 5 || list[2].Link != "a.deb" || list[1].Size != 10 || list[1].Mode != "0644" || !strings.HasPrefix(list[1].SHA256, "sha256:") {
		t.Errorf("%+v %v", list, err)
	}
}

// A step makes its output directory a link to the directory in which the agent
// keeps its key and the secrets of all steps.
func TestAttackAnOutputDirectoryIsALink(t *testing.T) {
	top := t.TempDir()
	put(t, top+"/agent/key.pem", "PRIVATE KEY")
	put(t, top+"/agent/secrets/UPLOAD_TOKEN", "token")
	ws := top + "/workspace"
	put(t, ws+"/src/main.c", "")
	for name, target := range map[string]string{"dist": top + "/agent", "tok": "../agent/secrets", "src/deep": "../../agent"} {
		if err := os.Symlink(target, filepath.Join(ws, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, glob := range []string{"dist/*", "dist/key.pem", "tok/*", "tok/**", "dist/**/UPLOAD_TOKEN", "src/deep/key.pem", "*/key.pem", "**/key.pem", "**"} {
		list, _, err := Outputs(ws, []string{glob})
		for _, o := range list {
			if o.Link == "" && strings.Contains(o.Path, "key.pem") || strings.Contains(o.Path, "TOKEN") {
				t.Errorf("%s gives the step %s", glob, o.Path)
			}
		}
		if strings.HasPrefix(glob, "dist/") && (err == nil || !strings.Contains(err.Error(), "symbolic link")) {
			t.Errorf("%s is not refused: %v", glob, err)
		}
	}
}

// A step leaves something that is no file where its output is expected.
func TestAttackAnOutputIsNoFile(t *testing.T) {
	for kind, make := range map[string]func(name string) error{
		"FIFO": func(name string) error { return unix.Mkfifo(name, 0o666) },
		"socket": func(name string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		},
		"device": func(name string) error { return unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
	} {
		t.Run(kind, func(t *testing.T) {
			if kind == "device" && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			dir := t.TempDir()
			put(t, dir+"/dist/a", "")
			if err := make(dir + "/dist/x"); err != nil {
				t.Fatal(err)
			}
			within(t, "collecting", func() {
				if _, _, err := Outputs(dir, []string{"dist/*"}); err == nil || !strings.Contains(err.Error(), kind) {
					t.Errorf("collected: %v", err)
				}
			})
		})
	}
}

// A step makes a sparse file that takes hours to read, or files without end.
func TestAttackOutputsAreTooLarge(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/dist/disk.img", "")
	if err := os.Truncate(dir+"/dist/disk.img", 8<<40); err != nil {
		t.Fatal(err)
	}
	within(t, "collecting 8 TiB", func() {
		if _, _, err := Outputs(dir, []string{"dist/*"}); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("collected: %v", err)
		}
	})
}

// TestMade: a person who gave a glob that matches nothing sees what was made instead.
func TestMade(t *testing.T) {
	for _, c := range []struct {
		name string
		make []string
		want string
	}{
		{"nothing", nil, "it made no file at all"},
		{"elsewhere", []string{"out/app.tar.gz"}, "it made out/app.tar.gz"},
		{"version control", []string{".git/index", "a/.svn/wc.db", "app"}, "it made app"},
		{"many", []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b"}, "it made 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name string) { put(t, filepath.Join(dir, name), "") }
			write("main.c") // of the checkout
			info, err := os.Stat(filepath.Join(dir, "main.c"))
			if err != nil {
				t.Fatal(err)
			}
			began := info.ModTime().Add(1) // after it
			for _, name := range c.make {
				write(name)
			}
			for _, name := range c.make { // made later than what stands there, whatever the clock's grain
				for {
					info, err := os.Stat(filepath.Join(dir, name))
					if err != nil {
						t.Fatal(err)
					}
					if !info.ModTime().Before(began) {
						break
					}
					write(name)
				}
			}
			if got, err := Made(dir, began); err != nil || got != c.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
