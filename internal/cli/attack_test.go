package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trysail runs a command in a state directory of its own, and fails the test if the
// command blocks, as opening a FIFO does.
func trysail(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append(args, "--state", t.TempDir())
	done := make(chan int, 1)
	go func() { done <- Run(context.Background(), args, 0o022, strings.NewReader(""), &stdout, &stderr) }()
	select {
	case code = <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("trysail %s blocks", strings.Join(args, " "))
	}
	return code, stdout.String() + stderr.String()
}

// A user leaves FIFOs where root reads files: who opens one waits for ever.
func TestAttackFilesThatRootReadsAreFIFOs(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"fifo", "bundle/SHA256SUMS", "trysail/blueprint.yaml"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755), unix.Mkfifo(filepath.Join(dir, f), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	for _, args := range [][]string{
		{"verify", filepath.Join(dir, "bundle")},
		{"verify", filepath.Join(dir, "bundle"), "--release-key", fifo},
		{"runbook", "check", fifo},
		{"drill", "check", fifo},
		{"rebuild", "--blueprint", filepath.Join(dir, "trysail")},
		{"runbook", "init", "--blueprint", filepath.Join(dir, "trysail"), filepath.Join(dir, "RUNBOOK.md")},
		{"diligence", "changes", "--since", fifo, fifo},
	} {
		if code, out := trysail(t, args...); code == 0 || !strings.Contains(out, "FIFO") && !strings.Contains(out, "pipe") {
			t.Errorf("trysail %s: %d %s", strings.Join(args, " "), code, out)
		}
	}
}

// A user makes what root reads a link to a file that only root may read, so that an
// error shows some of it, or that it is taken over into a blueprint, a release or a depot.
func TestAttackFilesThatRootReadsAreLinksToSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.MkdirAll(filepath.Join(home, "trysail"), 0o755), os.WriteFile(filepath.Join(dir, "secret"), []byte("root:$6$secret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"file", "trysail/blueprint.yaml"} {
		if err := errors.Join(os.Symlink(filepath.Join(dir, "secret"), filepath.Join(home, f)), os.Lchown(filepath.Join(home, f), 4242, 4242)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(home, "file")
	for _, args := range [][]string{
		{"runbook", "check", file},
		{"drill", "check", file},
		{"rebuild", "--blueprint", filepath.Join(home, "trysail")},
		{"verify", home, "--release-key", file},
		{"diligence", "changes", "--since", file, file},
	} {
		code, out := trysail(t, args...)
		if code == 0 || strings.Contains(out, "$6$") || !strings.Contains(out, "symbolic link") {
			t.Errorf("trysail %s: %d %s", strings.Join(args, " "), code, out)
		}
	}
}
