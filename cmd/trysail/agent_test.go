package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/fleet"
	"trysail/internal/api"
)

// exits runs a command of a host and gives its exit status and all that it says.
func (w *world) exits(host string, args ...string) (int, string) {
	w.t.Helper()
	out, err := w.commandAt(host, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	if exit == nil {
		return 0, string(out)
	}
	return exit.ExitCode(), string(out)
}

// TestFleetHeld: a second agent, or control, on one state directory ends at once and says
// which process has it; it changes nothing there. Once the first was killed the next begins.
func TestFleetHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plainRelease(t.TempDir()))
	a := w.agent("a", 11, "--plain")
	before := w.sh("cd " + w.dir + "/a/agent && sha256sum key.pem cert.pem identity.json")
	link := strings.TrimSpace(w.trysail("fleet", "token"))
	for _, x := range []struct {
		host string
		args []string
		pid  int
	}{
		{"a", []string{"agent"}, a.cmd.Process.Pid},
		{"a", []string{"agent", "--join", link, "--name", "b"}, a.cmd.Process.Pid},
		{"control", []string{"serve", "--listen", "127.0.0.1:0"}, w.hosts["control"].cmd.Process.Pid},
	} {
		status, said := w.exits(x.host, x.args...)
		if want := fmt.Sprintf("process %d (trysail %s) works on ", x.pid, x.args[0]); status != 11 || !strings.Contains(said, want) || !strings.Contains(said, "--state DIR") {
			t.Errorf("%s %s: exit status %d, and it says\n%s\nnot 11 and %q", x.host, strings.Join(x.args, " "), status, said, want)
		}
	}
	if after := w.sh("cd " + w.dir + "/a/agent && sha256sum key.pem cert.pem identity.json"); after != before {
		t.Errorf("the second agent changed what the first has:\n%s\nand before\n%s", after, before)
	}
	// The link is not spent either.
	w.host("b", 12).start("agent", "--name", "b", "--join", link)
	w.until("b is up", func() bool { return len(w.fleet()) == 2 })
	a.kill()
	a.start("agent")
	w.until("a is up again", func() bool {
		for _, m := range w.fleet() {
			if m.Name == "a" && m.Condition == "up" && m.Heard >= 0 && m.Heard < 2 {
				return !strings.Contains(w.logOf("a"), "works on") && strings.Count(w.logOf("a"), "works for control") == 2
			}
		}
		return false
	})
}

// TestFleetReplicaDamaged: copies of the ledger that are damaged, each in its way, are made
// anew from control; nothing is in doubt, and the release goes on and ships.
func TestFleetReplicaDamaged(t *testing.T) {
	w := plainWorld(t)
	a := w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.until("gold begins", func() bool { return w.marker("began") != "" })
	head := w.status().Head
	w.until("both have the ledger", func() bool { return w.copied("a") >= head && w.copied("b") >= head })
	ledger := func(host, file string) string { return filepath.Join(w.dir, host, "agent/ledger", file) }
	for _, x := range []struct{ host, what, damage string }{
		{"b", "what two agents leave", "tail -1 $L >> $L"},
		{"b", "an event is missing", "sed -i 2d $L"},
		{"b", "an event was changed", "sed -i '2s/compile/compilf/' $L"},
		{"b", "the end is gone", "head -c 300 $L > $L.x && mv $L.x $L"},
		{"b", "zeroes", "head -c 4096 /dev/zero > $L && echo >> $L"},
		{"b", "the fleet's stream", "sed -i 1d " + ledger("b", "fleet.jsonl")},
	} {
		w.hosts[x.host].kill()
		file := ledger(x.host, "release.4.2.jsonl")
		w.sh("L=" + file + "; " + x.damage)
		w.hosts[x.host].start("agent")
		w.until(x.what+" is mended", func() bool {
			data, err := os.ReadFile(file)
			fleet, ferr := os.ReadFile(ledger(x.host, "fleet.jsonl"))
			return err == nil && ferr == nil && string(data) == w.trysail("release", "events", "4.2") && bytes.Count(fleet, []byte("\n")) == 2
		})
		if s := w.status(); len(s.Trouble)+len(s.Doubts) > 0 {
			t.Errorf("%s: release status says %q %q", x.what, s.Trouble, s.Doubts)
		}
	}
	if kept, err := filepath.Glob(ledger("b", "release.4.2.jsonl.damaged-*")); err != nil || len(kept) != 4 {
		t.Errorf("kept are %q (%v)", kept, err)
	}
	if _, err := os.Stat(ledger("b", "fleet.jsonl.damaged-1")); err != nil {
		t.Error(err)
	}
	a.kill() // who has the only other copy
	w.until("gold begins on b", func() bool { return w.item("gold").Machine == "b" })
	w.agent("c", 13, "--plain", "--rank", "spare")
	w.finish()
}

// TestFleetTerms: what an agent is started with counts at each start, and stays where it is
// not given; what cannot change is refused with what to type instead.
func TestFleetTerms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plainRelease(t.TempDir()))
	a := w.agent("a", 11)
	is := func() api.MachineStatus {
		for _, m := range w.fleet() {
			if m.Name == "a" {
				return m
			}
		}
		return api.MachineStatus{}
	}
	for n, x := range []struct {
		args  []string
		rank  fleet.Rank
		roles []string
		plain bool
		slots int
		text  string
	}{
		{nil, fleet.Primary, nil, false, 1, "primary  up        any role; heard"},
		{[]string{"--rank", "spare"}, fleet.Spare, nil, false, 1, "spare    up        any role; heard"},
		{nil, fleet.Spare, nil, false, 1, "spare "},
		{[]string{"--role", "office", "--plain"}, fleet.Spare, []string{"office"}, true, 1, "role office, plain; heard"},
		{[]string{"--serves", "office", "--serves", "docs", "--slots", "3"}, fleet.Spare, []string{"office", "docs"}, true, 3, "roles office, docs, plain; heard"},
		{nil, fleet.Spare, []string{"office", "docs"}, true, 3, "roles office, docs, plain; heard"},
		{[]string{"--plain=false", "--role", "", "--rank", "backup"}, fleet.Backup, nil, false, 3, "backup   up        any role; heard"},
	} {
		a.kill()
		a.start(append([]string{"agent"}, x.args...)...)
		w.until(fmt.Sprintf("a is as start %d says", n), func() bool {
			m := is()
			return m.Condition == fleet.Up && m.Rank == x.rank && slices.Equal(m.Serves, x.roles) && m.Plain == x.plain && m.Slots == x.slots &&
				strings.Contains(w.trysail("fleet"), x.text) && strings.Count(w.logOf("a"), "works for control") == n+2
		})
	}
	// What people decided of it stays.
	w.trysail("fleet", "drain", "a", "--reason", "a new disk")
	a.kill()
	a.start("agent", "--rank", "primary")
	w.until("a is a primary machine that drains", func() bool {
		m := is()
		return m.Condition == fleet.Draining && m.Why == "a new disk" && m.Rank == fleet.Primary
	})
	a.kill()
	link := strings.TrimSpace(w.trysail("fleet", "token"))
	w.host("b", 12).start("agent", "--name", "b", "--join", link)
	w.until("b is up", func() bool { return len(w.fleet()) == 2 })
	w.write("spent", link+"\n")
	for _, x := range []struct {
		args   []string
		status int
		says   []string
	}{
		{[]string{"agent", "--name", "z"}, 2, []string{"--name z: this machine joined as a", "trysail agent --join link --name z", "trysail fleet retire a"}},
		{[]string{"agent", "--rank", "first"}, 2, []string{"primary, backup or spare"}},
		{[]string{"agent", "--slots", "2000"}, 1, []string{"2000 steps at once: 1 to 1000"}},
		{[]string{"agent", "--join", filepath.Join(w.dir, "spent")}, 1, []string{"was used", "this machine has joined already: sudo trysail agent"}},
	} {
		status, said := w.exits("a", x.args...)
		for _, want := range x.says {
			if status != x.status || !strings.Contains(said, want) {
				t.Errorf("%s: exit status %d, and it says\n%s\nwant %d and %q", strings.Join(x.args, " "), status, said, x.status, want)
			}
		}
	}
	// The remedy of the first, word by word.
	w.write("link", w.trysail("fleet", "token"))
	a.start("agent", "--join", filepath.Join(w.dir, "link"), "--name", "z")
	w.until("z is up", func() bool { return len(w.fleet()) == 3 })
	w.trysail("fleet", "retire", "a")
}
