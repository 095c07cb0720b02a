package trace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The ways in which programs name files that are easy to miss, each by a
// program that does just that.

// program compiles a C program.
func program(t *testing.T, source string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "main.c")
	if err := os.WriteFile(file, []byte("#define _GNU_SOURCE\n"+source), 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "main")
	if out, err := exec.Command("gcc", append(flags, "-O1", "-o", bin, file, "-lpthread")...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return bin
}

// tree makes files in a fresh directory.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	threadsOwnDirectory = `#include <pthread.h>
#include <sched.h>
#include <fcntl.h>
#include <unistd.h>
static pthread_barrier_t b;
static void *other(void *x) {
	if (unshare(CLONE_FS) || chdir("sub/deep")) _exit(1);
	pthread_barrier_wait(&b);
	if (open("three", O_RDONLY) < 0) _exit(2);
	return 0;
}
int main(void) {
	pthread_t t;
	pthread_barrier_init(&b, 0, 2);
	pthread_create(&t, 0, other, 0);
	pthread_barrier_wait(&b);
	if (open("one", O_RDONLY) < 0) _exit(3);
	pthread_join(t, 0);
	return 0;
}`
	execByDescriptor = `#include <fcntl.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
int main(int n, char **v) {
	char *argv[] = {"prog", 0}, *env[] = {0};
	int st;
	if (fork() == 0) { int d = open("bin", O_PATH | O_DIRECTORY); syscall(SYS_execveat, d, "at", argv, env, 0); _exit(1); }
	wait(&st); if (st) return 1;
	if (fork() == 0) { int f = open("bin/by-fd", O_PATH); fexecve(f, argv, env); _exit(1); }
	wait(&st); if (st) return 2;
	if (fork() == 0) { int d = open("bin", O_RDONLY | O_DIRECTORY); syscall(SYS_execveat, d, "script", argv, env, 0); _exit(1); }
	wait(&st); if (st) return 3;
	if (vfork() == 0) { execve("bin/vforked", argv, env); _exit(1); }
	wait(&st); return st != 0;
}`
)

func TestHard(t *testing.T) {
	dir := tree(t, "one", "sub/two", "sub/deep/three", "new/f", "bin/script")
	for _, b := range []string{"at", "by-fd", "vforked", "spawned"} {
		if err := exec.Command("cp", "/bin/true", filepath.Join(dir, "bin", b)).Run(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/script"), []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "bin/script"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"link": "sub", "chain": "link/deep"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	py := func(s string) []string { return []string{"python3", "-c", "import os,socket\n" + s} }
	sh := func(s string) []string { return []string{"sh", "-c", s} }
	for _, c := range []struct {
		name  string
		argv  []string
		found string // path=ops …
		never string
	}{
		{"chdir", py(`os.chdir("sub"); os.chdir("deep"); open("three")`), "sub=chdir sub/deep=chdir sub/deep/three=open", "sub/sub sub/deep/deep"},
		{"chdir in vain", py("try: os.chdir('one')\nexcept OSError: open('sub/two')"), "sub/two=open", ""},
		{"chdir through a link", py(`os.chdir("link"); open("two")`), "link=readlink sub=chdir sub/two=open", ""},
		{"fchdir", py(`os.fchdir(os.open("sub",os.O_RDONLY)); open("deep/three")`), "sub=open sub/deep/three=open", "deep/three"},
		{"directory descriptor after chdir", py(`d=os.open("sub",os.O_RDONLY); os.chdir("/"); open(os.open("two",os.O_RDONLY,dir_fd=d)); os.stat("deep",dir_fd=d)`), "sub/two=open sub/deep=stat", ""},
		{"stat by descriptor", py(`d=os.open("one",os.O_RDONLY); os.stat(d); os.stat("sub/two")`), "one=open sub/two=stat", ""},
		{"links", py(`open("chain/three")`), "chain=readlink link=readlink sub/deep/three=open", ""},
		{"merged /usr", sh("/bin/cat one"), "/bin=readlink /usr/bin/cat=exec one=open", ""},
		{"below /proc", py(`d=os.open("sub",os.O_RDONLY); open(f"/proc/self/fd/{d}/deep/three"); f=os.open("one",os.O_PATH); open(f"/dev/fd/{f}")`), "sub/deep/three=open one=open", ""},
		{"renamed directory", py(`os.chdir("new"); open("f"); os.rename("../new","../newer"); open("f"); os.rename("../newer","../new")`), "new/f=open newer/f=open", ""},
		{"local socket by a relative name", py(`os.chdir("sub"); s=socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen(); c=socket.socket(socket.AF_UNIX); c.connect("sock"); os.unlink("sock")`), "sub/sock=connect", ""},
		{"daemon", py(`
if os.fork() == 0:
	os.setsid()
	if os.fork() == 0:
		os.close(0); os.close(1); os.close(2)
		import time; time.sleep(0.3)
		open("one"); open("done","w")
	os._exit(0)
import time
while not os.path.exists("done"): time.sleep(0.02)`), "one=open", ""},
		{"posix_spawn", py(`os.waitpid(os.posix_spawn("bin/spawned",["x"],{}),0)`), "bin/spawned=exec", ""},
		{"exec by descriptor, vfork", []string{program(t, execByDescriptor)}, "bin/at=exec bin/by-fd=exec bin/vforked=exec bin/script=open /usr/bin/dash=exec", ""},
		{"threads with their own directory", []string{program(t, threadsOwnDirectory)}, "sub/deep/three=open one=open", "three"},
		{"bind mount", sh(`mkdir -p mnt && unshare -m sh -c 'mount --bind sub mnt && cat mnt/two && cd mnt && cat deep/three'`), "mnt/two=open sub/two=open sub/deep/three=open", ""},
		{"chroot with bind mounts", sh(`mkdir -p root/data && for d in usr lib lib64 bin; do mkdir -p root/$d; done; unshare -m sh -c 'mount --bind sub root/data && for d in usr lib lib64 bin; do mount --rbind /$d root/$d; done; exec chroot root /usr/bin/cat /data/two'`), "sub/two=open /usr/bin/cat=exec root=chdir", "root/root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := resolved(watch(t, dir, c.argv...))
			for _, want := range strings.Fields(c.found) {
				p, op, _ := strings.Cut(want, "=")
				if !filepath.IsAbs(p) {
					p = filepath.Join(dir, p)
				}
				if a := got[p]; !a.Found || !strings.Contains(","+a.Ops.String()+",", ","+op+",") && op != "readlink" {
					t.Errorf("%s: want %s, got %+v", p, op, a)
				}
			}
			for _, p := range strings.Fields(c.never) {
				if a, ok := got[filepath.Join(dir, p)]; ok {
					t.Errorf("%s was never named: %+v", p, a)
				}
			}
		})
	}
}

// Thousands of processes that live for a moment, while the machine is busy.
func TestThousands(t *testing.T) {
	const n = 5000
	dir := t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	busy := exec.Command("sh", "-c", "for i in 1 2; do while :; do :; done & done; wait")
	busy.SysProcAttr = group()
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer endGroup(busy)
	bin := program(t, `#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>
int main(int n, char **v) {
	char name[32];
	for (int i = 0; i < atoi(v[1]); i++) {
		snprintf(name, sizeof name, "f%d", i);
		int pid = i % 2 ? fork() : vfork();
		if (pid == 0) { open(name, O_RDONLY); _exit(0); }
		if (i % 50 == 49) while (waitpid(-1, 0, WNOHANG) > 0);
	}
	while (wait(0) > 0);
	return 0;
}`)
	got := resolved(watch(t, dir, bin, fmt.Sprint(n)))
	missed := 0
	for i := range n {
		if !got[filepath.Join(dir, fmt.Sprint("f", i))].Found {
			missed++
		}
	}
	if missed > 0 {
		t.Errorf("%d of %d files are not seen", missed, n)
	}
}

// What is remembered in the kernel is bounded, and forgetting costs an event,
// not a path: more names than it remembers, the first ones again at the end.
func TestMoreThanIsRemembered(t *testing.T) {
	const n = 1<<18 + 20000
	bin := program(t, `#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
int main(int n, char **v) {
	char name[32];
	struct stat st;
	int most = atoi(v[1]);
	for (int i = 0; i < most + 1000; i++) {
		snprintf(name, sizeof name, "n%d", i % most);
		stat(name, &st);
	}
	return 0;
}`)
	dir := t.TempDir()
	r := watch(t, dir, bin, fmt.Sprint(n))
	seen := 0
	for _, a := range r.Accesses {
		if strings.HasPrefix(a.Path, dir+"/n") && a.Missing {
			seen++
		}
	}
	if seen != n || r.Lost != 0 {
		t.Errorf("%d of %d names seen, %d lost", seen, n, r.Lost)
	}
}

// An event that is larger than the whole ring buffer is lost for certain: it is
// counted, and the observation is not called complete.
func TestLost(t *testing.T) {
	deep := t.TempDir()
	for range 12 {
		deep = filepath.Join(deep, strings.Repeat("d", 200))
	}
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := watchWith(t, uint32(os.Getpagesize()), deep, "sh", "-c", "cat "+strings.Repeat("./", 900)+"nosuch 2>/dev/null; true")
	var lost *LostError
	if !errors.As(err, &lost) || lost.Lost == 0 || r == nil || r.Lost != lost.Lost {
		t.Errorf("result %+v, error %v", r, err)
	}
}

// Directories are followed far down; where they are too deep to be named, the error says so
// and blames no busy machine.
func TestDeepDirectories(t *testing.T) {
	for _, c := range []struct {
		levels int
		name   string
		deep   bool
	}{
		{120, "d", false},
		{300, "longer-name", false},
		{450, "d", true},
		{60, strings.Repeat("n", 200), true},
	} {
		t.Run(fmt.Sprintf("%d levels of %.10s", c.levels, c.name), func(t *testing.T) {
			r, err := watchWith(t, 0, t.TempDir(), "python3", "-c", fmt.Sprintf("import os\nfor i in range(%d): os.mkdir(%q); os.chdir(%q)\nopen('f', 'w')", c.levels, c.name, c.name))
			var lost *LostError
			switch {
			case !c.deep && (err != nil || r.Lost != 0):
				t.Error(err)
			case c.deep && (!errors.As(err, &lost) || lost.Deep == 0 || strings.Contains(lost.Hint(), "busy")):
				t.Error(err)
			}
		})
	}
}

// Programs of another system call table are counted as lost: their calls
// cannot be followed.
func TestOtherABI(t *testing.T) {
	bin := program(t, `int main(void) { long r; static char name[] = "/etc/passwd";
	asm volatile("int $0x80" : "=a"(r) : "a"(20L), "b"(name) : "memory", "r8", "r9", "r10", "r11"); return r > 0 ? 0 : 1; }`, "-static")
	if err := exec.Command(bin).Run(); err != nil {
		t.Skipf("this kernel runs no 32-bit system calls: %v", err)
	}
	r, err := watchWith(t, 0, t.TempDir(), bin)
	var lost *LostError
	if !errors.As(err, &lost) || !strings.Contains(strings.Join(r.Notes, "\n"), "32-bit") {
		t.Errorf("notes %q, error %v", r.Notes, err)
	}
}

// Rings by which files can be opened unseen are counted.
func TestRings(t *testing.T) {
	bin := program(t, `#include <unistd.h>
#include <sys/syscall.h>
int main(void) { static char params[512]; return syscall(SYS_io_uring_setup, 1, params) < 0; }`)
	want := uint64(1)
	if exec.Command(bin).Run() != nil {
		want, bin = 0, "true" // turned off here: there is nothing to count
	}
	if r := watch(t, t.TempDir(), bin); r.Rings != want {
		t.Errorf("%d rings, want %d", r.Rings, want)
	}
}

// TestRefused: what the kernel refuses is told from what is there and from what
// is not, whatever else was done with the same path.
func TestRefused(t *testing.T) {
	dir := tree(t, "public", "secret", "seen", "closed/file")
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o755, "secret": 0o600, "seen": 0o600, "closed": 0o700} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	got := resolved(watch(t, dir, "setpriv", "--reuid=4242", "--regid=4242", "--clear-groups", "sh", "-c",
		"exec 2>/dev/null; cat public secret seen closed/file closed/none none; ls -l seen; true"))
	for name, want := range map[string]Access{
		"public": {Found: true}, "secret": {Refused: true}, "seen": {Refused: true, Found: true}, "closed/file": {Refused: true}, "closed/none": {Refused: true}, "none": {Missing: true},
	} {
		a := got[filepath.Join(dir, name)]
		if a.Found != want.Found || a.Refused != want.Refused || a.Missing != want.Missing || (a.Done&OpOpen != 0) != (name == "public") {
			t.Errorf("%s: %+v, want %+v", name, a, want)
		}
	}
}
