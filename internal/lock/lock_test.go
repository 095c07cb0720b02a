package lock

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain is also the other process of the tests: it takes a directory, says so, and
// holds it until its input ends.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LOCK_TEST_HOLD"); dir != "" {
		if _, err := Take(dir, "agent build1"); err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		// What it starts does not hold the directory after it.
		if err := exec.Command("sleep", "60").Start(); err != nil {
			os.Exit(2)
		}
		os.Stdout.WriteString("held\n")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// other starts the other process and gives what it says.
func other(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOCK_TEST_HOLD="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(said)
}

// TestOneAtATime: the second process is told who was first; a process that is killed
// leaves the directory to the next.
func TestOneAtATime(t *testing.T) {
	dir := t.TempDir()
	first, said := other(t, dir)
	if said != "held" {
		t.Fatal(said)
	}
	_, err := Take(dir, "agent build2")
	var held *HeldError
	if !errors.As(err, &held) || held.PID != first.Process.Pid || held.As != "agent build1" || held.Dir != dir || held.Hint() == "" {
		t.Fatalf("while process %d has it: %v", first.Process.Pid, err)
	}
	another := filepath.Join(dir, "another")
	if err := os.Mkdir(another, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Take(another, "agent build2")
	if err != nil {
		t.Errorf("another directory: %v", err)
	} else if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // it was killed
	if l, err = Take(dir, "a shorter one"); err != nil {
		t.Fatalf("after it was killed: %v", err)
	}
	if _, said := other(t, dir); !strings.Contains(said, "(a shorter one) works on "+dir) {
		t.Errorf("the other is told %q", said)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, said := other(t, dir); said != "held" {
		t.Errorf("after it was given back: %s", said)
	}
}

// TestHolder: what stands in the file is for people, and may be cut or somebody's.
func TestHolder(t *testing.T) {
	for text, want := range map[string]HeldError{
		"":                     {},
		"4711 agent build1\n":  {PID: 4711, As: "agent build1"},
		"4711\n":               {PID: 4711},
		"not a number\n":       {},
		"4711 control at host": {PID: 4711, As: "control at host"},
	} {
		name := filepath.Join(t.TempDir(), "lock")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got := *holder(f); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	// A link leads to somebody's file.
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(dir, "x"); err == nil {
		t.Error("it follows a link")
	}
}
