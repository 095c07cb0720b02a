package ledger

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sockets lists this process's listening sockets without an address in a file system
// that only root reaches.
func sockets(t *testing.T) []string {
	t.Helper()
	own := map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.Trim(to, "socket:[]")] = true
		}
	}
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 8 || !own[f[6]] || f[3] != "00010000" { // it does not listen
			continue
		}
		if info, err := os.Stat(filepath.Dir(f[7])); strings.HasPrefix(f[7], "@") || err != nil || info.Mode().Perm()&0o077 != 0 {
			open = append(open, f[7])
		}
	}
	return open
}

// TestAttackEtcdSocket is any process of control's machine, which looks for a socket on
// which etcd takes what members say without credentials.
func TestAttackEtcdSocket(t *testing.T) {
	dir := short(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	before := sockets(t)
	s, err := Start(t.Context(), StartOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if open := sockets(t); len(open) > len(before) {
		t.Errorf("everybody on this machine reaches etcd at %q", open)
	}
	for _, name := range []string{"client", "peer"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Type() != fs.ModeSocket {
			t.Errorf("%s: %v", name, err)
		}
	}
}
