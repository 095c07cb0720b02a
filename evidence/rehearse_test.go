package evidence

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"trysail/release"
)

// Whatever the engine takes gets a bundle that verifies: the rules of a release are those of
// its fold, and no other.
func TestWhatTheEngineTakesVerifies(t *testing.T) {
	source := func(x *story, revision, data string) {
		seq := x.decide(release.Amended{What: []string{"source"}, Source: &release.Source{VCS: "git", Revision: strings.Repeat(revision, 40), Original: x.blob(data)}, Reason: "r", By: "ann"})
		x.decide(release.Agreed{Amendment: seq, Person: "bob", Decision: release.Approve})
	}
	for name, before := range map[string]func(x *story){
		"a group grew, and its people signed again if they were asked": func(x *story) {
			x.sign("legal", "eve", release.Approve)
			x.amendBook(strings.Replace(document, "(@eve, budget 1h)", "(@eve, @bob, budget 1h)", 1), nil)
		},
		"another source, and back": func(x *story) {
			x.run("compile", "a", "obj/a", "object")
			source(x, "c", "other")
			x.run("compile", "a", "obj/a", "object 2")
			source(x, "a", "source")
		},
		"rejected, taken back, approved, and the same again": func(x *story) {
			for range 2 {
				x.sign("legal", "eve", release.Reject)
				x.decide(release.Withdrawn{Item: "legal", Person: "eve", Reason: "it is mended"})
				x.sign("legal", "eve", release.Approve)
				x.decide(release.Withdrawn{Item: "legal", Person: "eve", Reason: "not so fast"})
			}
		},
		"a step that ended well runs again after another plan": func(x *story) {
			x.run("compile", "a", "obj/a", "object")
			x.amendBook(strings.Replace(document, "\nmake\n", "\nmake all\n", 1), nil)
			x.run("compile", "a", "obj/a", "object 2")
			x.amendBook(document, nil)
		},
		"who may sign changes, and changes back": func(x *story) {
			x.sign("legal", "eve", release.Approve)
			was := x.s.Signers
			for _, digest := range []string{x.blob("# less\n" + x.allowed), was} {
				seq := x.decide(release.Amended{What: []string{"signers"}, Signers: digest, Reason: "r", By: "ann"})
				x.decide(release.Agreed{Amendment: seq, Person: "bob", Decision: release.Approve})
			}
		},
		"held and resumed": func(x *story) {
			x.must(release.Held{Reason: "wait"})
			x.must(release.Resumed{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newStory(t, "4.2")
			x.begin()
			before(x)
			x.rest()
			if list := release.Check(read(t, x), release.History{}); len(list) > 0 {
				t.Errorf("the rules do not hold: %q", list)
			}
			if r := Verify(x.bundle(), x.trust()); !r.Verified {
				t.Errorf("it does not verify: %s", problems(r))
			}
		})
	}
}

func read(t *testing.T, x *story) []release.Event {
	t.Helper()
	list, err := parseLines(x.lines)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// pending is the line by which a story would ship.
func (x *story) pending() []byte {
	x.t.Helper()
	e := release.New(x.now.Add(1), "test", release.Shipped{})
	e.Seq = x.s.Head + 1
	line, err := json.Marshal(e)
	if err != nil {
		x.t.Fatal(err)
	}
	return line
}

// readyToShip is a story of which only the last event is missing.
func readyToShip(t *testing.T) *story {
	x := newStory(t, "4.2")
	x.gold()
	x.signAll()
	return x
}

// The rehearsal of a bundle says what is wrong with it before the release has shipped.
func TestRehearse(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(x *story, m *Material)
		want   string // of the error or of the problems; "" if all is well
	}{
		{"all is well", nil, ""},
		{"the runbook says otherwise", func(x *story, m *Material) {
			y := newStory(t, "4.2")
			y.key, y.log, y.logKey, y.people, y.allowed = x.key, x.log, x.logKey, x.people, x.allowed
			b := y.started()
			b.Rules, b.Approver = planRules, []string{"ann", "bob", "eve"}
			y.must(b)
			y.run("compile", "a", "obj/a", "object")
			y.run("gold", "a", "dist/app", "the program")
			y.second("b", release.Identical)
			y.signAll()
			*m = y.material()
			m.Pending = y.pending()
		}, "approvers"},
		{"the runbook is gone", func(x *story, m *Material) { delete(x.blobs, x.s.Runbook) }, "the runbook: no blob"},
		{"who may sign is gone", func(x *story, m *Material) { delete(x.blobs, x.s.Signers) }, "who may sign: no blob"},
		{"the event is none that ships", func(x *story, m *Material) {
			m.Pending = []byte(strings.Replace(string(m.Pending), "shipped", "resumed", 1))
		}, "not held"},
		{"the event is not the next", func(x *story, m *Material) {
			m.Pending = []byte(strings.Replace(string(m.Pending), `"seq":1`, `"seq":2`, 1))
		}, "follows event"},
		{"the ledger went on", func(x *story, m *Material) {
			x.must(release.Held{Reason: "wait"})
			m.Checkpoint = []byte(x.checkpoint())
		}, "checkpoint covers"},
		{"a file that no bundle holds", func(_ *story, m *Material) { m.Files = map[string][]byte{"other/file": nil} }, "other/file: has no place in a bundle"},
		{"it is held", func(x *story, m *Material) {
			x.must(release.Held{Reason: "wait"})
			*m = x.material()
			m.Pending = x.pending()
		}, ""}, // the rules of the engine decide whether it ships
	} {
		t.Run(c.name, func(t *testing.T) {
			x := readyToShip(t)
			m := x.material()
			m.Pending = x.pending()
			if c.change != nil {
				c.change(x, &m)
			}
			if c.name == "it is held" {
				if _, err := release.Fold(append(read(t, x), shippedAfter(x))); err != nil {
					c.want = err.Error()
				}
			}
			r, err := Rehearse(m)
			said := ""
			switch {
			case err != nil:
				said = err.Error()
			default:
				said = problems(r)
				if r.Verified != (said == "") {
					t.Errorf("verified: %v: %s", r.Verified, said)
				}
			}
			if (said == "") != (c.want == "") || !strings.Contains(said, c.want) {
				t.Errorf("it says %q, and not %q", said, c.want)
			}
		})
	}
}

func shippedAfter(x *story) release.Event {
	e := release.New(x.now, "test", release.Shipped{})
	e.Seq = x.s.Head + 1
	return e
}

// What was rehearsed is the bundle that is made afterwards, but for the last event, and what
// speaks of it.
func TestTheBundleIsTheOneThatWasRehearsed(t *testing.T) {
	x := readyToShip(t)
	m := x.material()
	m.Pending = x.pending()
	first, err := Assemble(m)
	if err != nil {
		t.Fatal(err)
	}
	x.must(release.Shipped{})
	then, err := Assemble(x.material())
	if err != nil {
		t.Fatal(err)
	}
	changes := []string{eventsFile, checkpointFile, summaryFile, summaryLine, provenanceFile, readmeFile, sumsFile, sumsSignature}
	if len(first.Files) != len(then.Files) {
		t.Errorf("%d files, and then %d", len(first.Files), len(then.Files))
	}
	for name, data := range then.Files {
		was, ok := first.Files[name]
		if !ok || string(was) != string(data) && !slices.Contains(changes, name) && !strings.HasSuffix(name, ".proof.json") {
			t.Errorf("%s is another one", name)
		}
	}
}
