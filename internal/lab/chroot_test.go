package lab

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/internal/machine"
)

// whoseRoot says what ischroot(1) asks, and what a command is to see whichever the
// answer: its own root, its directory, and that process 1 knows its processes.
func whoseRoot() int {
	own, err := os.Stat("/")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	first, err := os.Stat("/proc/1/root")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	dir, err := os.Getwd()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	_, err = os.Stat("/whose-root")
	fmt.Printf("same root: %v, in %s, itself: %v\n", os.SameFile(own, first), dir, err == nil)
	if len(os.Args) > 1 { // a child that stays
		p, err := os.StartProcess("/whose-root", []string{"/drill-bin", "stays"}, &os.ProcAttr{})
		if err != nil {
			fmt.Println(err)
			return 1
		}
		_ = p // it is to be told of, and killed with the container
	}
	return 0
}

// TestChroot: a command that is to be in a chroot is, for whoever asks as ischroot
// does, and sees everything else as another command does.
func TestChroot(t *testing.T) {
	root(t)
	dir := t.TempDir()
	st, err := machine.OpenState(t.Context(), filepath.Join(dir, "state"), filepath.Join(dir, "run"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n, err := st.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(top, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "whose-root"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, chroot := range []bool{false, true} {
		var out bytes.Buffer
		x, err := n.Run(t.Context(), machine.Spec{Root: top, Args: []string{"/whose-root", "stay"}, Dir: "/work", Chroot: chroot, Stdout: &out, Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("same root: %v, in /work, itself: true\n", !chroot); x.Code != 0 || out.String() != want {
			t.Errorf("chroot %v: %d %q, want %q", chroot, x.Code, out.String(), want)
		}
		if len(x.Leftover) != 1 || !strings.Contains(x.Leftover[0], "stays") {
			t.Errorf("chroot %v: left running are %q", chroot, x.Leftover)
		}
	}
	// What cannot be started is said in the same way.
	if _, err := n.Run(t.Context(), machine.Spec{Root: top, Args: []string{"/none"}, Dir: "/", Chroot: true}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a command that is not there: %v", err)
	}
}
