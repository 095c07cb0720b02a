package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/fleet"
	"trysail/internal/api"
)

// A machine that was repaired looks at itself before it works again. This one runs
// plainly on its host, so it has nothing to prove; TestFirstRelease has one that has.
func TestFleetReadmit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Gold master\n\n"+
		"```sh {\"name\":\"gold\",\"timeout\":\"1m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmkdir dist\ncp app.txt dist/app\n```\n\n"+
		"## Diligence\n\n- [ ] **tried** (@ann, needs gold): tried\n")
	a := w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.until("gold is done", func() bool { return w.item("gold").Status == "done" })
	machine := func() api.MachineStatus {
		for _, m := range w.fleet() {
			if m.Name == "a" {
				return m
			}
		}
		return api.MachineStatus{}
	}
	is := func(want fleet.Condition, why string) {
		t.Helper()
		w.until("a is "+string(want)+": "+why, func() bool {
			m := machine()
			return m.Condition == want && strings.Contains(m.Why, why)
		})
	}
	blobs, err := filepath.Glob(filepath.Join(w.dir, "a/depot/blobs/sha256/*"))
	if err != nil || len(blobs) == 0 {
		t.Fatalf("a has no originals: %v", err)
	}

	w.trysail("fleet", "retire", "a", "--reason", "its disk")
	if err := os.WriteFile(blobs[0], []byte("what a broken disk gives"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "a/roots/machine-of-yore/root"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out := w.trysail("fleet"); !strings.Contains(out, "retired") || !strings.Contains(out, "\n  its disk\n") {
		t.Errorf("fleet: %s", out)
	}
	a.kill() // readmitted while it is away, it looks at itself when it comes
	if out := w.trysail("fleet", "readmit", "a", "--reason", "new disk"); !strings.Contains(out, "proves itself first") {
		t.Errorf("readmit: %s", out)
	}
	is(fleet.Lost, "new disk")
	a.start("agent", "--name", "a", "--plain")
	is(fleet.Up, "not proven: it runs steps plainly on its host")
	if why := machine().Why; !strings.Contains(why, "1 of them damaged and set aside") {
		t.Errorf("it found %q", why)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "a/roots/machine-of-yore")); err == nil {
		t.Error("what was made before the repair is still there")
	}

	// An original that cannot even be read: nothing good comes of this disk.
	if err := os.Remove(filepath.Join(w.dir, "a/depot/damaged", filepath.Base(blobs[0]))); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(blobs[0], 0o755); err != nil {
		t.Fatal(err)
	}
	w.trysail("fleet", "drain", "a")
	w.trysail("fleet", "readmit", "a")
	is(fleet.Retired, "its depot: ")
	if out := w.trysail("fleet"); !strings.Contains(out, "  its depot: ") {
		t.Errorf("fleet: %s", out)
	}
	if _, err := w.run("fleet", "readmit", "a", "--without-proof"); err == nil || !strings.Contains(err.Error(), "give a reason") {
		t.Errorf("a machine is readmitted without proof or reason: %v", err)
	}
	w.trysail("fleet", "readmit", "a", "--without-proof", "--reason", "we need it today")
	is(fleet.Up, "we need it today")

	// It gets another disk, and joins under its old name.
	w.trysail("fleet", "retire", "a", "--reason", "its disk, again")
	a.kill()
	if err := os.RemoveAll(filepath.Join(w.dir, "a")); err != nil {
		t.Fatal(err)
	}
	a.start("agent", "--name", "a", "--plain", "--join", strings.TrimSpace(w.trysail("fleet", "token")))
	is(fleet.Up, "not proven: it runs steps plainly on its host")
	w.until("b has it in its copy", func() bool {
		data, err := os.ReadFile(filepath.Join(w.dir, "b/agent/ledger/fleet.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), `"set":"proving"`) == 3 && strings.Contains(string(data), `"set":"proving","reason":"it joined anew"`) &&
			strings.Contains(string(data), `"reason":"we need it today","proof":"without proof"`)
	})
}
