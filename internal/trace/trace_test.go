package trace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// watch runs a command in a cgroup of its own and returns what was seen.
// It needs root, cgroup v2 and a kernel with BTF.
func watch(t *testing.T, dir string, argv ...string) *Result {
	t.Helper()
	r, err := watchWith(t, 0, dir, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// watchWith is watch with a ring buffer of so many bytes, and gives Stop's error.
func watchWith(t *testing.T, ring uint32, dir string, argv ...string) (*Result, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test traces real processes and needs root")
	}
	root, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cg := filepath.Join(root, fmt.Sprintf("trysail-test-%d-%s", os.Getpid(), strings.NewReplacer("/", "-", " ", "-", ",", "-").Replace(t.Name())))
	if err := os.Mkdir(cg, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(cg, "cgroup.kill"), []byte("1"), 0); err != nil {
			t.Error(err)
		}
		for os.Remove(cg) != nil {
			if _, err := os.Stat(cg); err != nil {
				break
			}
		}
	})
	f, err := os.Open(cg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := start(context.Background(), cg, ring)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v\n%s", argv, err, out)
	}
	return tr.Stop()
}

// group makes a command the leader of a group that endGroup ends.
func group() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func endGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	_ = cmd.Wait()
}

// resolved maps every physical name of the result to what was done with it.
func resolved(r *Result) map[string]Access {
	m := map[string]Access{}
	readlink := func(p string) (string, bool) {
		target, err := os.Readlink(p)
		return target, err == nil
	}
	for _, a := range r.Accesses {
		for _, n := range Names(a.Path, readlink) {
			x := m[n]
			x.Path, x.Ops, x.Found, x.Missing = n, x.Ops|a.Ops, x.Found || a.Found, x.Missing || a.Missing
			x.Done, x.Refused = x.Done|a.Done, x.Refused || a.Refused
			m[n] = x
		}
	}
	return m
}

func TestSeen(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"one": "1", "sub/two": "2", "sub/deep/three": "3", "script": "#!/usr/bin/perl\nexit 0;\n", "lines": "x"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := filepath.Join(dir, strings.Repeat("d", 200), strings.Repeat("e", 200), strings.Repeat("f", 200), strings.Repeat("g", 200), strings.Repeat("h", 200))
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(long, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, script string
		found        []string
		missing      []string
	}{
		{"relative after chdir", "cd sub/deep && cat three >/dev/null", []string{"sub/deep/three"}, nil},
		{"parent directory", "cd sub/deep && cat ../two >/dev/null", []string{"sub/two"}, nil},
		{"look-up in vain", "cat nosuch/file 2>/dev/null; test -e gone; true", nil, []string{"nosuch/file", "gone"}},
		{"stat only", "test -e one", []string{"one"}, nil},
		{"directory descriptor", `python3 -c 'import os; d=os.open("sub",os.O_RDONLY); os.close(os.open("deep/three",os.O_RDONLY,dir_fd=d))'`, []string{"sub/deep/three"}, nil},
		{"interpreter of a script", "./script", []string{"script", "/usr/bin/perl"}, nil},
		{"daemon", "setsid sh -c 'sleep 0.1; cat one' >/dev/null 2>&1 & sleep 0.5", []string{"one"}, nil},
		{"threads", `python3 -c 'import threading
t=[threading.Thread(target=lambda i=i: open(["one","sub/two","sub/deep/three"][i%3]).close()) for i in range(30)]
[x.start() for x in t]; [x.join() for x in t]'`, []string{"one", "sub/two", "sub/deep/three"}, nil},
		{"bind mount and chroot", `unshare -m sh -c 'mkdir -p root/data && mount --bind sub root/data && for d in usr lib lib64 bin; do mkdir -p root/$d; mount --rbind /$d root/$d; done; chroot root /bin/cat /data/two >/dev/null'`, []string{"root/data/two"}, nil},
		{"renamed", "touch new && mv new newer", []string{"newer"}, nil},
		{"long path", "cat " + long + "/file", []string{long + "/file"}, nil},
		{"local socket", `python3 -c 'import socket
s=socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen(); c=socket.socket(socket.AF_UNIX); c.connect("'$PWD'/sock")'`, []string{"sock"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := resolved(watch(t, dir, "sh", "-c", c.script))
			for _, p := range c.found {
				if !filepath.IsAbs(p) {
					p = filepath.Join(dir, p)
				}
				if !got[p].Found {
					t.Errorf("%s was used and is not seen", p)
				}
			}
			for _, p := range c.missing {
				if a := got[filepath.Join(dir, p)]; !a.Missing || a.Found {
					t.Errorf("%s was looked for in vain; seen as %+v", p, a)
				}
			}
		})
	}
}

func TestShortLived(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := resolved(watch(t, dir, "sh", "-c", `for i in $(seq 0 299); do /bin/cat f$i; done`))
	for i := range 300 {
		if p := filepath.Join(dir, fmt.Sprint("f", i)); !got[p].Found {
			t.Errorf("%s was read by a short-lived process and is not seen", p)
		}
	}
}

func TestOutsideIsNotSeen(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	if err := os.WriteFile(own, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = os.ReadFile(own)
			}
		}
	}()
	defer close(stop)
	if got := resolved(watch(t, dir, "sleep", "0.2")); got[own].Path != "" {
		t.Error("a process outside of the cgroup was seen")
	}
}

// A compilation, compared with strace: every existing file that strace saw
// named must be in the result.
func TestCompleteAgainstStrace(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("this test compares with strace: apt-get install strace gcc make")
	}
	dir := t.TempDir()
	for i := range 5 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.c", i)), []byte("#include <stdio.h>\n#include <stdlib.h>\nint f"+fmt.Sprint(i)+"(void){return puts(\"x\");}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), []byte("all: lib.a\nlib.a: f0.o f1.o f2.o f3.o f4.o\n\tar rcs $@ $^\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "strace")
	strace := exec.Command("strace", "-f", "-y", "-e", "trace=%file", "-o", log, "make", "-j2", "-B")
	strace.Dir = dir
	if out, err := strace.CombinedOutput(); err != nil {
		t.Fatalf("strace: %v\n%s", err, out)
	}
	got := resolved(watch(t, dir, "make", "-j2", "-B"))
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	temporary := regexp.MustCompile(`^/(tmp/cc|proc/)`)
	checked := 0
	for line := range strings.Lines(string(data)) {
		m := regexp.MustCompile(`"(/[^"]*)"`).FindStringSubmatch(line)
		if m == nil || !strings.Contains(line, ") = ") || strings.Contains(line, " = -1") || strings.Contains(line, "getcwd(") || temporary.MatchString(m[1]) {
			continue
		}
		real, err := filepath.EvalSymlinks(m[1])
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		checked++
		if !got[real].Found {
			t.Errorf("strace saw %s, we did not", m[1])
		}
	}
	if checked < 100 {
		t.Errorf("only %d files to compare: the test has lost its input", checked)
	}
}

func TestNames(t *testing.T) {
	links := map[string]string{
		"/bin": "usr/bin", "/lib": "usr/lib", "/usr/bin/cc": "/etc/alternatives/cc", "/etc/alternatives/cc": "/usr/bin/gcc",
		"/usr/bin/gcc": "gcc-12", "/loop": "loop", "/opt/current": "../srv/tool/1.2",
	}
	readlink := func(p string) (string, bool) { target, ok := links[p]; return target, ok }
	for _, c := range []struct {
		path string
		want string
	}{
		{"/bin/sh", "/bin /usr/bin/sh"},
		{"/usr/bin/cc", "/usr/bin/cc /etc/alternatives/cc /usr/bin/gcc /usr/bin/gcc-12"},
		{"/opt/current/../x", "/opt/current /srv/tool/x"},
		{"/usr/./lib//../bin/cc", "/usr/bin/cc /etc/alternatives/cc /usr/bin/gcc /usr/bin/gcc-12"},
		{"/../etc/passwd", "/etc/passwd"},
		{"/", "/"},
	} {
		if got := strings.Join(Names(c.path, readlink), " "); got != c.want {
			t.Errorf("Names(%q) = %s, want %s", c.path, got, c.want)
		}
	}
	if n := len(Names("/loop/x", readlink)); n != maxLinks+1 {
		t.Errorf("a loop gives %d names", n)
	}
}

// Torn and hostile records from the ring buffer are counted, never believed.
func FuzzEvent(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, header))
	f.Add(append(make([]byte, header), "/etc/passwd\x00etc\x00"...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tr := newTracer(nil)
		tr.event(raw)
		tr.followBinds()
		for p := range tr.accesses {
			if !strings.HasPrefix(p, "/") {
				t.Errorf("path %q is not absolute", p)
			}
		}
	})
}
