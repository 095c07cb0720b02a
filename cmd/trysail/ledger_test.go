package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/release"
)

// Survival 6, second half: control is killed and its disk destroyed the moment it
// has acknowledged something. The longest copy of a machine has it.
func TestFleetAcknowledged(t *testing.T) {
	w := plainWorld(t)
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.until("gold begins", func() bool { return w.item("gold").Machine == "a" })
	c := w.hosts["control"]
	for i := range 4 {
		what, args := "held", []string{"release", "hold", "4.2", "--reason", fmt.Sprint("time ", i)}
		if i%2 == 1 {
			what, args = "resumed", []string{"release", "resume", "4.2"}
		}
		w.trysail(args...)
		c.kill()
		w.sh(fmt.Sprintf("cd %s; mkdir lost%d; mv control/control/etcd lost%d", w.dir, i, i))
		from := slices.MaxFunc([]string{"a", "b"}, func(x, y string) int { return cmp.Compare(w.copied(x), w.copied(y)) })
		c.start("serve", "--listen", w.control, "--recover", filepath.Join(w.dir, from, "agent/ledger"))
		w.until("control answers", func() bool { _, err := w.run("fleet"); return err == nil })
		events := w.events()
		if !slices.ContainsFunc(events, func(e release.Event) bool { return e.Type == what && e.Seq > int64(len(events))-3 }) {
			t.Fatalf("%s was acknowledged, and is lost: of %d events the last is %s", what, len(events), events[len(events)-1].Type)
		}
		if trouble := w.status().Trouble; len(trouble) > 0 {
			t.Errorf("after it began from the longest copy: %v", trouble)
		}
	}
	w.finish()
}

// TestFleetLedgerPutBack: control's ledger is put back to an earlier day. Machines
// have what was acknowledged since: control appends nothing and says so, and
// begins again from a copy.
func TestFleetLedgerPutBack(t *testing.T) {
	w := plainWorld(t)
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.until("gold begins", func() bool { return w.item("gold").Machine == "a" && len(w.began()) == 1 })
	c := w.hosts["control"]
	etcd := filepath.Join(w.dir, "control/control/etcd")
	restart := func(between string, args ...string) {
		t.Helper()
		c.kill()
		w.sh(between)
		c.start(append([]string{"serve", "--listen", w.control}, args...)...)
		w.until("control answers", func() bool { _, err := w.run("fleet"); return err == nil })
	}
	w.trysail("release", "checkpoint", "4.2")
	restart("cp -a " + etcd + " " + w.dir + "/yesterday")
	w.letGo()
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })
	w.trysail("release", "sign", "4.2", "tried", "--as", "ann")
	w.until("it is published", func() bool { return w.item("upload").Status == release.Complete })
	head := w.status().Head
	kept := filepath.Join(w.dir, "kept")
	w.write("kept", w.trysail("release", "checkpoint", "4.2"))
	if out := w.trysail("release", "checkpoint", "4.2", "--since", kept, "--json"); !strings.Contains(out, `"events"`) || strings.Contains(out, "broken") {
		t.Errorf("the ledger and what was kept of it: %s", out)
	}
	w.until("both have the ledger", func() bool { return w.copied("a") >= head && w.copied("b") >= head })
	before := w.trysail("release", "events", "4.2")
	restart("rm -r " + etcd + "; mv " + w.dir + "/yesterday " + etcd)
	w.until("control says that its ledger is in doubt", func() bool {
		s := w.status()
		return len(s.Trouble) == 1 && strings.Contains(s.Trouble[0], "in doubt") && s.Head < head
	})
	if out, err := w.run("release", "hold", "4.2", "--reason", "r"); err == nil || !strings.Contains(err.Error(), "serve --recover") {
		t.Errorf("a word on a ledger in doubt: %s %v", out, err)
	}
	if out, err := w.run("release", "checkpoint", "4.2"); err == nil {
		t.Errorf("a ledger in doubt is signed: %s", out)
	}
	if got := w.marker("ran"); got != "compile\nupload\n" {
		t.Errorf("what ran: %q", got)
	}
	restart("mv "+etcd+" "+w.dir+"/wrong", "--recover", filepath.Join(w.dir, "b/agent/ledger"))
	if after := w.trysail("release", "events", "4.2"); after != before {
		t.Errorf("the ledger was\n%s\nand is\n%s", before, after)
	}
	w.until("there is no doubt", func() bool { s := w.status(); return len(s.Trouble) == 0 && s.Head == head })
	w.trysail("release", "checkpoint", "4.2", "--since", kept)
	w.trysail("release", "ship", "4.2")
	w.check()
}
