package account_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"trysail/internal/account"
)

const stranger = 4242

// TestMain is the program that Self runs, too.
func TestMain(m *testing.M) {
	if os.Args[0] == "trysail-test-sleeper" {
		// A caller that runs a command of the stranger and is killed.
		a, err := account.Lookup(stranger)
		if err != nil {
			panic(err)
		}
		if err := a.Command(context.Background(), account.Options{}, "sh", "-c", "echo started >&2; exec sleep "+os.Args[1]).Run(); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	if os.Args[0] == "trysail-test-self" {
		fmt.Print(os.Geteuid(), " ", strings.Join(os.Args[1:], " "))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func lookup(t *testing.T) account.Account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	a, err := account.Lookup(stranger)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCommandHasNothingOfRoot(t *testing.T) {
	a := lookup(t)
	t.Setenv("GIT_DIR", "/root/secret.git")
	t.Setenv("LD_PRELOAD", "")
	temp := filepath.Join(t.TempDir(), "own")
	if err := a.MakeTemp(temp); err != nil {
		t.Fatal(err)
	}
	out, err := a.Command(context.Background(), account.Options{Temp: temp, Env: []string{"ASKED=yes"}}, "sh", "-c", `
		id -u; id -g; id -G
		grep -E '^(CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs)' /proc/self/status
		env
		pwd
		ls /proc | grep -c '^[0-9]'
		touch "$TMPDIR/made" && ls -ld "$TMPDIR"
		cat /etc/shadow
		echo x >/dev/tty
	`).CombinedOutput()
	got := string(out)
	for _, want := range []string{"4242\n4242\n4242\n", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "ASKED=yes", "HOME=/\n", "TMPDIR=" + account.Place, "drwx------ 2 4242 4242", "Permission denied"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in (%v):\n%s", want, err, got)
		}
	}
	if strings.Contains(got, "GIT_DIR") {
		t.Errorf("the caller's environment came through:\n%s", got)
	}
	if _, err := os.Stat(filepath.Join(temp, "made")); err != nil {
		t.Error(err)
	}
}

func TestCommandGivesStatus(t *testing.T) {
	a := lookup(t)
	var exit *exec.ExitError
	if err := a.Command(context.Background(), account.Options{}, "sh", "-c", "exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("status: %v", err)
	}
	if err := a.Command(context.Background(), account.Options{}, "sh", "-c", "kill -9 $$").Run(); !errors.As(err, &exit) || exit.ExitCode() != 137 {
		t.Errorf("killed: %v", err)
	}
	var none *account.NotInstalledError
	if err := a.Command(context.Background(), account.Options{}, "no-such-program").Run(); !errors.As(err, &none) {
		t.Errorf("not installed: %v", err)
	}
}

func TestSelfNeedsNoPath(t *testing.T) {
	a := lookup(t) // a test's program is in a directory of mode 0700
	out, err := a.Self(context.Background(), account.Options{}, "trysail-test-self", "one", "two").CombinedOutput()
	if err != nil || string(out) != "4242 one two" {
		t.Errorf("%v: %s", err, out)
	}
}

// running tells whether a sleep of that many seconds runs anywhere.
func running(t *testing.T, seconds string) bool {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		data, err := os.ReadFile(name)
		if err == nil && bytes.Equal(data, []byte("sleep\x00"+seconds+"\x00")) {
			return true
		}
	}
	return false
}

func gone(t *testing.T, seconds string) {
	t.Helper()
	for range 100 {
		if !running(t, seconds) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("sleep %s still runs", seconds)
}

func TestAttackDaemonDoesNotOutliveCommand(t *testing.T) {
	a := lookup(t)
	seconds := strconv.Itoa(100000 + os.Getpid())
	begin := time.Now()
	out, err := a.Command(context.Background(), account.Options{}, "sh", "-c", "setsid setsid sleep "+seconds+" & sleep 0.2; echo done").Output()
	if err != nil || string(out) != "done\n" || time.Since(begin) > 5*time.Second {
		t.Errorf("%v: %s after %s", err, out, time.Since(begin))
	}
	gone(t, seconds)
}

func TestCommandEndsWithItsContext(t *testing.T) {
	a := lookup(t)
	seconds := strconv.Itoa(200000 + os.Getpid())
	ctx, cancel := context.WithTimeout(context.Background(), time.Second/2)
	defer cancel()
	if err := a.Command(ctx, account.Options{}, "sh", "-c", "trap '' TERM; setsid sleep "+seconds+"; true").Run(); err == nil {
		t.Error("no error")
	}
	gone(t, seconds)
}

func TestCommandEndsWithACallerThatIsKilled(t *testing.T) {
	lookup(t)
	seconds := strconv.Itoa(300000 + os.Getpid())
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"trysail-test-sleeper", seconds}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := 0; !running(t, seconds); i++ {
		if i > 100 {
			t.Fatal("the command did not start")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	gone(t, seconds)
}

func TestOnlyRootBecomesAnother(t *testing.T) {
	a := lookup(t)
	// As the stranger, this program cannot become root.
	out, err := a.Self(context.Background(), account.Options{}, "trysail-as", `{"args":["id"],"file":"/usr/bin/id","dir":"/"}`).CombinedOutput()
	if err == nil {
		t.Errorf("a stranger became root: %s", out)
	}
	if _, err := os.Stat(account.Place); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestReachGoesThroughClosedDirectories(t *testing.T) {
	a := lookup(t)
	dir := t.TempDir() // below a directory of mode 0700
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "closed", "below")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{filepath.Join(below, "file"): "reached", filepath.Join(dir, "closed", "secret"): "secret"} {
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, "closed"), 0o700), os.Chown(below, stranger, stranger)); err != nil {
		t.Fatal(err)
	}
	out, err := a.Command(context.Background(), account.Options{Reach: below}, "sh", "-c", "cat "+below+"/file; cat "+below+"/../secret; true").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "reached") || strings.Contains(string(out), "secret\n") || !strings.Contains(string(out), "No such file") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAttackReachIsLedElsewhere(t *testing.T) {
	a := lookup(t)
	top, err := os.MkdirTemp("/var/tmp", "account-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	below := filepath.Join(top, "strangers", "closed", "below")
	if err := errors.Join(os.Chmod(top, 0o755), os.MkdirAll(below, 0o755), os.Chmod(filepath.Dir(below), 0o700), os.Chown(filepath.Join(top, "strangers"), stranger+1, stranger+1)); err != nil {
		t.Fatal(err)
	}
	out, err := a.Command(context.Background(), account.Options{Reach: below}, "true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not root's alone") {
		t.Errorf("%v: %s", err, out)
	}
}

// A user holds a directory open that root has closed since, and makes a link of the way
// to the working copy once root has looked: root's own directory is mounted for the user.
func TestAttackReachGoesThroughALink(t *testing.T) {
	a := lookup(t)
	top, err := os.MkdirTemp("/var/tmp", "account-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	secret, way := filepath.Join(top, "root", "copy"), filepath.Join(top, "closed", "way")
	err = errors.Join(os.Chmod(top, 0o755), os.MkdirAll(secret, 0o755), os.WriteFile(secret+"/payroll", []byte("secret"), 0o644), os.Chmod(filepath.Dir(secret), 0o700),
		os.Mkdir(filepath.Dir(way), 0o700), os.Symlink(filepath.Dir(secret), way), os.Lchown(way, stranger, stranger))
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.Command(context.Background(), account.Options{Reach: way + "/copy"}, "cat", way+"/copy/payroll").CombinedOutput()
	if err == nil || strings.Contains(string(out), "secret") {
		t.Errorf("%v: %s", err, out)
	}
}

// Whoever starts root's program may have left files open in it.
func TestAttackDescriptorsOfRootAreNotInherited(t *testing.T) {
	a := lookup(t)
	secret, err := os.Open("/etc/shadow")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	cmd := a.Command(context.Background(), account.Options{}, "ls", "/proc/self/fd")
	cmd.ExtraFiles = append(cmd.ExtraFiles, secret, secret)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "0\n1\n2\n3\n" { // the last is the directory that ls reads
		t.Errorf("%v: %s", err, out)
	}
}
