package site

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/internal/lab"
	"trysail/internal/machine"
)

// TestNoWorker: where the program was laid on a host and no worker begins there, it is taken
// away again; but where a reaper is to do that, or somebody else's things are there, it
// is not, and the clean-up says what is left.
func TestNoWorker(t *testing.T) {
	root(t)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name, worker string // what becomes of the worker
		left         bool
	}{
		{"it refuses the host", "exit 1", false},
		{"the connection is lost before", "exit 255", false},
		{"its reaper is there", "touch %s/reaper.log; exit 1", true},
		{"another drill is there by now", "echo another >%s/boot; exit 1", true},
		{"the host is another one", "echo another >%s/../marker; exit 1", true},
	} {
		t.Run(x.name, func(t *testing.T) {
			tmp := t.TempDir()
			dir, marker := filepath.Join(tmp, "dir"), filepath.Join(tmp, "marker")
			// An ssh that goes to this host, where the drill's places are elsewhere.
			ssh := fmt.Sprintf(`#!/bin/sh
for last; do :; done
script=$(printf '%%s\n' "$last" | sed 's,%s,%s,g; s,%s,%s,g; s,-lt 300,-lt 3,')
case "$script" in *"drill worker"*) `+strings.ReplaceAll(x.worker, "%s", dir)+`;; esac
exec sh -c "$script"
`, Dir, dir, Marker, marker)
			for file, text := range map[string]string{"ssh": ssh, "marker": word + "\n"} {
				if err := os.WriteFile(filepath.Join(tmp, file), []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", tmp+":"+os.Getenv("PATH"))
			st, err := machine.OpenState(t.Context(), filepath.Join(tmp, "state"), filepath.Join(tmp, "run"), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			hosts := &Hosts{Nonce: word, Hosts: []Target{{Name: "primary", SSH: "root@10.0.0.6", Address: "10.0.0.6"}}}
			s, err := Open(hosts, []Found{{Name: "primary", Boot: strings.TrimSpace(string(boot)), Space: space}}, st, time.Hour, 7440, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Machine(lab.HostSpec{Name: "primary"}); err == nil || !strings.Contains(err.Error(), "no worker answers") {
				t.Errorf("a machine is made: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			_, serr := os.Stat(dir)
			if left := strings.Join(s.Left(), "; "); (left != "") != x.left || (serr == nil) != x.left || x.left && !strings.Contains(left, "on root@10.0.0.6") {
				t.Errorf("left: %q (%v)", left, serr)
			}
		})
	}
}
