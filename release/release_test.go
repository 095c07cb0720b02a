package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trysail/runbook"
)

const doc = "---\nship: 2026-12-01T09:00:00Z\nroles:\n  build: {blueprint: trysail}\npeople:\n  ann: {}\n  bob: {}\n  eve: {}\ngroups:\n  qa: [ann, bob]\napprovers: [ann, bob]\n" +
	"endgame:\n  - {phase: Gold master, freezes: [source, runbook], approvals: 1}\n---\n" +
	"## Build\n\n```sh {\"name\":\"compile\",\"budget\":\"10m\",\"out\":\"obj/**\",\"retry\":\"1\"}\nmake\n```\n\n" +
	"```sh {\"name\":\"test\",\"needs\":\"compile\",\"budget\":\"10m\",\"results\":\"r.xml\",\"again\":\"machine\"}\nmake check\n```\n\n" +
	"## Gold master\n\n```sh {\"name\":\"gold\",\"needs\":\"test\",\"in\":\"obj/a\",\"budget\":\"20m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake dist\n```\n\n" +
	"## Diligence\n\n- [ ] **tried** (2 of @qa, budget 2h, needs gold): it works\n- [ ] **legal** (@eve, budget 1h): licences\n\n" +
	"```yaml {\"name\":\"hold\",\"kind\":\"wait\",\"until\":\"ship-1d\"}\nembargo\n```\n\n" +
	"## Ship\n\n```sh {\"name\":\"upload\",\"kind\":\"publish\",\"in\":\"dist/app\",\"needs\":\"hold\",\"budget\":\"5m\"}\nup\n```\n"

func at(minute int) time.Time {
	return time.Date(2026, 11, 24, 9, minute, 0, 0, time.UTC)
}

// game is a stream that is appended to as control does.
type game struct {
	tb     failer
	s      *State
	events []Event
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func begin(tb failer) *game {
	tb.Helper()
	r, err := runbook.Parse("RELEASE.md", []byte(doc), time.LoadLocation)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	g := &game{tb: tb, s: Empty()}
	g.must(Started{
		Version: "4.2", Rules: RulesNow, Runbook: r.Digest, Items: r.Items, Endgame: r.Endgame, Approver: r.Approvers, Ship: r.Ship, Team: r.Team.Hours(), People: People(r),
		Source: Source{VCS: "git", Revision: "abc", Original: "sha256:src"}, Machines: []Machine{{Role: "build", Blueprint: "sha256:bp1"}},
	})
	return g
}

func (g *game) try(b Body) error {
	if p, ok := b.(Personal); ok && p.Signed() == nil && b.kind() != "signed" && g.s.Signers != "" && g.s.Started.Rules >= 4 {
		b = p.Prove(&Proof{Statement: "s", Signature: "s", Nonce: fmt.Sprint("nonce ", g.s.Head), Key: "SHA256:" + p.Decider()})
	}
	return g.bare(b)
}

// bare tries an event as it is: a decision that nobody signed, perhaps.
func (g *game) bare(b Body) error {
	e := New(at(len(g.events)), "test", b)
	e.Seq = g.s.Head + 1
	if err := g.s.Apply(e); err != nil {
		return err
	}
	g.events = append(g.events, e)
	return nil
}

func (g *game) must(b Body) int64 {
	g.tb.Helper()
	if err := g.try(b); err != nil {
		g.tb.Fatalf("%s: %v", b.kind(), err)
	}
	return g.s.Head
}

func (g *game) refused(b Body, why string) {
	g.tb.Helper()
	before, _ := json.Marshal(g.s)
	err := g.try(b)
	var rule *RuleError
	if !errors.As(err, &rule) || !strings.Contains(err.Error(), why) {
		g.tb.Errorf("%s was not refused for %q: %v", b.kind(), why, err)
	}
	if after, _ := json.Marshal(g.s); string(after) != string(before) {
		g.tb.Errorf("a refused %s changed the state", b.kind())
	}
}

func out(path, bytes string) []Artifact {
	return []Artifact{{Path: path, Digest: "sha256:" + bytes, Size: 1, Mode: "0644"}}
}

func (g *game) run(item, machine, path, bytes string) {
	g.tb.Helper()
	epoch := g.must(Granted{Item: item, Machine: machine})
	r := Report{Machine: machine}
	r.Item, r.Epoch = item, epoch
	if path != "" {
		r.Outputs = out(path, bytes)
	}
	g.must(g.s.Result(r))
}

func (g *game) sign(item, person string) {
	g.tb.Helper()
	g.must(Signed{Item: item, Person: person, Decision: Approve, Subject: g.s.Subject(g.s.Item(item)), Spent: time.Hour})
}

func (g *game) status(want map[string]Status) {
	g.tb.Helper()
	for name, w := range want {
		if got := g.s.Status(g.s.Item(name)); got != w {
			g.tb.Errorf("%s is %s, not %s", name, got, w)
		}
	}
}

// TestStory: a release that loses its machine twice and ships.
func TestStory(t *testing.T) {
	g := begin(t)
	g.status(map[string]Status{"compile": Ready, "test": Pending, "gold": Pending, "tried": Pending, "legal": Ready, "hold": Ready, "upload": Pending})
	g.refused(Granted{Item: "test", Machine: "a"}, "pending")
	g.refused(Granted{Item: "legal", Machine: "a"}, "no machine runs")
	g.refused(Started{Version: "4.2"}, "started already")
	first := g.must(Granted{Item: "compile", Machine: "a"})
	g.refused(Granted{Item: "compile", Machine: "b"}, "running on a")
	g.must(Lost{Item: "compile", Epoch: first, Machine: "a", Why: "no heartbeat"})
	second := g.must(Granted{Item: "compile", Machine: "b"})
	if second <= first {
		t.Errorf("epoch %d follows epoch %d", second, first)
	}
	// The dead machine comes back with a result.
	late := Report{Machine: "a"}
	late.Item, late.Epoch, late.Outputs = "compile", first, out("obj/a", "evil")
	if b, ok := g.s.Result(late).(Refused); !ok || !strings.Contains(b.Why, "another machine") {
		t.Fatalf("a late result is %+v", b)
	}
	g.must(g.s.Result(late))
	g.refused(Finished{Item: "compile", Epoch: first}, "not in force")
	ok := late
	ok.Machine, ok.Epoch, ok.Outputs = "b", second, out("obj/a", "obj")
	g.must(g.s.Result(ok))
	g.status(map[string]Status{"compile": Complete, "test": Ready})
	g.refused(Granted{Item: "compile", Machine: "a"}, "done")

	// Tests fail, one is waived, by an approver, with a reason.
	epoch := g.must(Granted{Item: "test", Machine: "b"})
	g.must(Finished{Item: "test", Epoch: epoch, Tests: 9, Failing: []string{"t1", "t2"}})
	g.status(map[string]Status{"test": Stopped, "gold": Pending})
	g.refused(Waived{Item: "test", Test: "t9", Person: "ann", Reason: "r"}, "no failing test")
	g.refused(Waived{Item: "test", Test: "t1", Person: "eve", Reason: "r"}, "not an approver")
	g.refused(Waived{Item: "test", Test: "t1", Person: "ann"}, "needs a reason")
	g.must(Waived{Item: "test", Test: "t1", Person: "ann", Reason: "flaky"})
	g.status(map[string]Status{"test": Stopped})
	g.must(Waived{Item: "test", Test: "t2", Person: "bob", Reason: "flaky"})
	g.status(map[string]Status{"test": Complete, "gold": Ready})

	// Gold: once, and built again on another machine.
	if in := g.s.Inputs(g.s.Item("gold")); len(in) != 1 || in[0].Digest != "sha256:obj" {
		t.Errorf("gold takes %+v", in)
	}
	g.run("gold", "b", "dist/app", "gold")
	g.status(map[string]Status{"gold": Confirming, "tried": Pending})
	if w := g.s.Next(); len(w) != 1 || !w[0].Confirm || w[0].Not != "b" {
		t.Errorf("next %+v", w)
	}
	g.refused(Granted{Item: "gold", Machine: "c"}, "confirming")
	g.refused(Granted{Item: "gold", Machine: "b", Confirm: true}, "not to be built again on b")
	epoch = g.must(Granted{Item: "gold", Machine: "c", Confirm: true})
	g.refused(Committed{Finished{Item: "gold", Epoch: epoch, Outputs: out("dist/app", "second")}}, "not in force")
	r := Report{Machine: "c", Compared: Identical}
	r.Item, r.Epoch = "gold", epoch
	g.must(g.s.Result(r))
	g.status(map[string]Status{"gold": Complete, "tried": Ready})
	g.refused(Amended{What: []string{"source"}, Reason: "r", By: "eve"}, "does not change any more")

	// People.
	g.refused(Signed{Item: "tried", Person: "eve", Decision: Approve, Subject: g.s.Subject(g.s.Item("tried"))}, "not asked")
	g.refused(Signed{Item: "tried", Person: "ann", Decision: Approve, Subject: "sha256:old"}, "has changed")
	g.refused(Signed{Item: "tried", Person: "ann", Decision: Reject, Subject: g.s.Subject(g.s.Item("tried"))}, "need a reason")
	g.sign("tried", "ann")
	g.refused(Signed{Item: "tried", Person: "ann", Decision: Approve, Subject: g.s.Subject(g.s.Item("tried"))}, "has signed")
	g.status(map[string]Status{"tried": Ready})
	g.sign("tried", "bob")
	g.must(Withdrawn{Item: "tried", Person: "bob", Reason: "wrong box"})
	g.status(map[string]Status{"tried": Ready})
	g.must(Signed{Item: "tried", Person: "bob", Decision: Reject, Reason: "it does not start", Subject: g.s.Subject(g.s.Item("tried"))})
	g.status(map[string]Status{"tried": Stopped})
	g.must(Withdrawn{Item: "tried", Person: "bob", Reason: "wrong machine"})
	g.sign("tried", "bob")
	g.status(map[string]Status{"tried": Complete, "upload": Pending})
	g.sign("legal", "eve")
	g.must(Held{Reason: "fire drill"})
	g.refused(Held{}, "held already")
	g.must(Passed{Item: "hold"})
	g.status(map[string]Status{"upload": Ready})
	g.refused(Granted{Item: "upload", Machine: "c"}, "held")
	g.must(Resumed{})
	g.refused(Shipped{}, "not done: upload")
	g.run("upload", "c", "", "")
	g.must(Shipped{})
	g.refused(Held{Reason: "late"}, "is shipped")
	if g.s.Spent["ann"] != time.Hour || g.s.Spent["bob"] != 2*time.Hour {
		t.Errorf("spent %v", g.s.Spent)
	}

	// The stream survives the disk, byte for byte.
	var again []Event
	for _, e := range g.events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back Event
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if second, _ := json.Marshal(back); string(second) != string(line) {
			t.Errorf("event %d comes back as %s, was %s", e.Seq, second, line)
		}
		again = append(again, back)
	}
	folded, err := Fold(again)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(folded)
	b, _ := json.Marshal(g.s)
	if string(a) != string(b) {
		t.Errorf("the stream folds to another state:\n%s\n%s", a, b)
	}
}

// TestRetry: a step fails as often as its retry allows, then a person is asked.
func TestRetry(t *testing.T) {
	g := begin(t)
	fail := func() {
		t.Helper()
		epoch := g.must(Granted{Item: "compile", Machine: "a"})
		g.must(Finished{Item: "compile", Epoch: epoch, Exit: 2, Why: "exit status 2"})
	}
	fail()
	g.status(map[string]Status{"compile": Ready})
	fail()
	g.status(map[string]Status{"compile": Stopped})
	if a := g.s.Asks(); len(a) != 2 || a[0].Item != "compile" || a[0].Type != "retry" {
		t.Errorf("asks %+v", a)
	}
	g.must(Retried{Item: "compile"})
	for range MovesBeforeAsking {
		g.status(map[string]Status{"compile": Ready})
		epoch := g.must(Granted{Item: "compile", Machine: "a"})
		g.must(Lost{Item: "compile", Epoch: epoch, Machine: "a"})
	}
	g.status(map[string]Status{"compile": Stopped})
	g.must(Retried{Item: "compile"})
	g.run("compile", "a", "obj/a", "obj")
	g.refused(Retried{Item: "compile"}, "done")
}

// TestGoldDiffers: other bytes stop the release; an equivalent build needs a
// person who names each difference.
func TestGoldDiffers(t *testing.T) {
	for _, c := range []struct {
		verdict Verdict
		status  Status
	}{{Different, Stopped}, {Equivalent, Stopped}, {Identical, Complete}} {
		g := begin(t)
		g.run("compile", "a", "obj/a", "obj")
		g.run("test", "a", "", "")
		g.run("gold", "a", "dist/app", "gold")
		epoch := g.must(Granted{Item: "gold", Machine: "b", Confirm: true})
		g.must(Finished{Item: "gold", Epoch: epoch, Exit: 1, Why: "no space"})
		g.status(map[string]Status{"gold": Stopped})
		g.must(Retried{Item: "gold"})
		epoch = g.must(Granted{Item: "gold", Machine: "b", Confirm: true})
		confirmed := Confirmed{Epoch: epoch, Verdict: c.verdict, Differences: []string{"time stamp in dist/app"}}
		if c.verdict == Identical {
			confirmed.Differences = nil
		}
		g.must(confirmed)
		g.status(map[string]Status{"gold": c.status})
		yes := Excepted{Person: "ann", Differences: []string{"time stamp in dist/app"}, Reason: "known"}
		if c.verdict != Equivalent {
			g.refused(yes, "no difference")
			continue
		}
		g.refused(Retried{Item: "gold"}, "not tried until it agrees")
		g.refused(Excepted{Person: "ann", Differences: []string{"something"}}, "names each difference")
		g.refused(Excepted{Person: "eve", Differences: yes.Differences}, "not an approver")
		g.must(yes)
		g.status(map[string]Status{"gold": Complete})
		if len(g.s.Gold.Outputs) != 1 || g.s.Gold.Outputs[0].Digest != "sha256:gold" {
			t.Errorf("gold is %+v", g.s.Gold)
		}
	}
}

// TestAmend: a change is proposed, approved by another, and done again is what it touches.
func TestAmend(t *testing.T) {
	g := begin(t)
	g.run("compile", "a", "obj/a", "obj")
	g.run("test", "a", "", "")
	g.sign("legal", "eve")
	g.refused(Amended{What: []string{"source"}, By: "ann"}, "what changes and why")
	open := g.must(Amended{What: []string{"machines"}, Machines: []Machine{{Role: "build", Blueprint: "sha256:bp2"}}, Reason: "new compiler", By: "ann"})
	g.refused(Granted{Item: "gold", Machine: "a"}, "gold waits")
	g.refused(Agreed{Amendment: open, Person: "ann", Decision: Approve}, "another must approve")
	g.refused(Agreed{Amendment: open, Person: "eve", Decision: Approve}, "not an approver")
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
	// Only what says so runs again on another machine.
	g.status(map[string]Status{"compile": Complete, "test": Ready, "gold": Pending, "legal": Complete})
	epoch := g.must(Granted{Item: "test", Machine: "a"})
	open = g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:src2"}, Reason: "a bug", By: "eve"})
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
	g.status(map[string]Status{"compile": Ready, "test": Pending, "legal": Complete})
	if g.s.Candidate != 2 || g.s.Source.Revision != "def" {
		t.Errorf("candidate %d of %s", g.s.Candidate, g.s.Source.Revision)
	}
	r := Report{Machine: "a"}
	r.Item, r.Epoch = "test", epoch
	if _, ok := g.s.Result(r).(Refused); !ok {
		t.Error("the result of a step of the earlier candidate counts")
	}
	// A runbook brings its approvers and its endgame with it.
	amended := Amended{What: []string{"runbook"}, Runbook: "sha256:two", Items: g.s.Items, Approver: []string{"bob", "eve"}, Reason: "ann leaves", By: "ann"}
	open = g.must(amended)
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
	if g.s.Runbook != "sha256:two" || len(g.s.Endgame) != 0 {
		t.Errorf("runbook %s, endgame %v", g.s.Runbook, g.s.Endgame)
	}
	open = g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git"}, Reason: "r", By: "eve"})
	g.refused(Agreed{Amendment: open, Person: "ann", Decision: Reject}, "not an approver")
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Reject})
	if g.s.Amendment != nil || g.s.Candidate != 2 {
		t.Errorf("a rejected amendment: %+v", g.s.Amendment)
	}
}

// TestAnotherCandidate: what people said of the source before, on what steps have made of
// it, they are asked again; and who wrote it has not signed. A stream of the first rules
// folds as it did.
func TestAnotherCandidate(t *testing.T) {
	for rules, want := range []map[string]Status{
		{"tried": Complete, "legal": Complete, "go": Complete},
		{"tried": Ready, "legal": Ready, "go": Pending},
	} {
		g := begin(t)
		g.s.Started.Rules = rules
		g.s.Items = []runbook.Item{
			{Name: "compile", Kind: runbook.Step, Role: "build"},
			{Name: "tried", Kind: runbook.SignOff, Signers: []string{"bob"}, Approvals: 1, Needs: []string{"compile"}},
			{Name: "go", Kind: runbook.SignOff, Signers: []string{"bob"}, Approvals: 1, Needs: []string{"tried"}},
			{Name: "legal", Kind: runbook.SignOff, Signers: []string{"eve"}, Approvals: 1},
		}
		g.s.Progress["go"] = &Progress{}
		g.run("compile", "a", "", "")
		g.sign("tried", "bob")
		g.sign("go", "bob")
		g.sign("legal", "eve")
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:src2", Author: "eve"}, Reason: "a bug", By: "ann"})
		g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
		g.run("compile", "a", "", "")
		g.status(want)
	}
}

// TestSignaturesAreForBytes: what was signed for other bytes is asked again.
func TestSignaturesAreForBytes(t *testing.T) {
	g := begin(t)
	g.run("compile", "a", "obj/a", "one")
	x := g.s.Item("legal")
	before := g.s.Subject(x)
	x.Needs = []string{"compile"}
	if g.s.Subject(x) == before {
		t.Error("the subject does not hold what was made")
	}
	g.sign("legal", "eve")
	g.status(map[string]Status{"legal": Complete})
	g.s.Progress["compile"].Result.Outputs = out("obj/a", "two")
	g.status(map[string]Status{"legal": Ready})
}

func TestOutlook(t *testing.T) {
	g := begin(t)
	g.s.Team, g.s.People = runbook.Hours{}, nil // as of a stream that is older than hours are
	outlook := func(now time.Time) Outlook {
		t.Helper()
		o, err := g.s.Outlook(now, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	o := outlook(at(0))
	// compile 10, test 10, gold 20 and again 20, tried 2 h; the wait ends a day before shipping, upload 5.
	if want := time.Date(2026, 11, 30, 9, 5, 0, 0, time.UTC); !o.Ends.Equal(want) || o.Slack != 23*time.Hour+55*time.Minute {
		t.Errorf("ends %s, slack %s", o.Ends, o.Slack)
	}
	if want := []string{"hold", "upload"}; !slices.Equal(o.Chain, want) {
		t.Errorf("hangs on %q", o.Chain)
	}
	late := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	o = outlook(late)
	if o.Slack != time.Hour-185*time.Minute || !slices.Equal(o.Chain, []string{"compile", "test", "gold", "tried", "upload"}) {
		t.Errorf("late: slack %s, hangs on %q", o.Slack, o.Chain)
	}
}

func TestUnknownEvents(t *testing.T) {
	for _, line := range []string{
		`{"seq":1,"type":"exploded","body":{}}`, `{"seq":1,"type":"held","body":{"reason":"r","more":1}}`, `{"seq":1,"type":"held","body":{},"x":1}`,
		`{"seq":1,"type":"held","body":[]}`, `[]`, `{}`, `{"seq":1,"type":"granted"`,
	} {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err == nil {
			t.Errorf("%s is read as %+v", line, e)
		}
	}
}

// TestRules walks at random, with machines that die, come back, report late and
// twice, and checks what must hold whatever happens.
func TestRules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := begin(rt)
		machines := []string{"a", "b", "c"}
		epochs := map[string]int64{}
		var golds int
		var issued []Report
		pick := func(list []string, label string) string { return rapid.SampledFrom(list).Draw(rt, label) }
		var items []string
		for _, x := range g.s.Items {
			items = append(items, x.Name)
		}
		people := []string{"ann", "bob", "eve"}
		for range rapid.IntRange(0, 120).Draw(rt, "steps") {
			if g.s.Over() {
				break
			}
			before := g.s.Gold
			var b Body
			switch rapid.IntRange(0, 12).Draw(rt, "what") {
			case 0, 1, 2, 3:
				want := g.s.Next()
				if len(want) == 0 {
					continue
				}
				w := want[rapid.IntRange(0, len(want)-1).Draw(rt, "want")]
				b = Granted{Item: w.Item, Machine: pick(machines, "machine"), Confirm: w.Confirm}
			case 4, 5, 6:
				if len(issued) == 0 {
					continue
				}
				r := issued[rapid.IntRange(0, len(issued)-1).Draw(rt, "report")]
				r.Exit = rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "exit")
				r.Compared = rapid.SampledFrom([]Verdict{Identical, Identical, Different}).Draw(rt, "verdict")
				r.Outputs = out("dist/app", pick([]string{"x", "y"}, "bytes"))
				b = g.s.Result(r)
			case 7:
				leases := g.s.Leases()
				for _, name := range items {
					if l, ok := leases[name]; ok {
						b = Lost{Item: name, Epoch: l.Epoch, Machine: l.Machine, Why: "silence"}
						break
					}
				}
				if b == nil {
					continue
				}
			case 8:
				x := g.s.Item(pick(items, "item"))
				b = Signed{Item: x.Name, Person: pick(people, "person"), Decision: Approve, Subject: g.s.Subject(x)}
			case 9:
				b = Passed{Item: pick(items, "item")}
			case 10:
				b = Retried{Item: pick(items, "item")}
			case 11:
				b = Shipped{}
			case 12:
				if g.s.Amendment == nil {
					b = Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: pick([]string{"r1", "r2"}, "rev")}, Reason: "r", By: "eve"}
				} else {
					b = Agreed{Amendment: g.s.Amendment.Seq, Person: pick(people, "person"), Decision: Approve}
				}
			}
			state, _ := json.Marshal(g.s)
			if err := g.try(b); err != nil {
				if after, _ := json.Marshal(g.s); string(after) != string(state) {
					rt.Fatalf("a refused %s changed the state: %v", b.kind(), err)
				}
				continue
			}
			switch b := b.(type) {
			case Granted:
				if g.s.Head <= epochs[b.Item] {
					rt.Fatalf("epoch %d of %s is not higher than %d", g.s.Head, b.Item, epochs[b.Item])
				}
				epochs[b.Item] = g.s.Head
				r := Report{Machine: b.Machine}
				r.Item, r.Epoch = b.Item, g.s.Head
				issued = append(issued, r)
			case Committed:
				golds++
			case Shipped:
				if left := g.s.Unfinished(); len(left) > 0 || g.s.Gold == nil || g.s.Gold.Confirmed == nil || g.s.Gold.Confirmed.Verdict != Identical {
					rt.Fatalf("shipped with %v open and gold %+v", left, g.s.Gold)
				}
			}
			if before != nil && (g.s.Gold == nil || !reflect.DeepEqual(before.Outputs, g.s.Gold.Outputs)) {
				rt.Fatalf("gold changed with %s", b.kind())
			}
			if golds > 1 {
				rt.Fatalf("%d golds", golds)
			}
		}
		folded, err := Fold(g.events)
		if err != nil {
			rt.Fatalf("the stream does not fold: %v", err)
		}
		a, _ := json.Marshal(folded)
		b, _ := json.Marshal(g.s)
		if string(a) != string(b) {
			rt.Fatalf("another state:\n%s\n%s", a, b)
		}
		for i := range g.s.Items {
			if st := g.s.Status(&g.s.Items[i]); !slices.Contains([]Status{Pending, Ready, InProgress, Confirming, Stopped, Complete}, st) {
				rt.Fatalf("%s is %q", g.s.Items[i].Name, st)
			}
		}
	})
}

// Where there are allowed signers, a word is not enough; a signature counts once; and
// who wrote what is released does not approve it. Who may sign is changed even after gold.
func TestSigners(t *testing.T) {
	g := begin(t)
	g.s.Signers, g.s.Source.Author = "sha256:signers", "bob@example.org"
	g.s.People[1].Email = "bob@example.org"
	g.run("compile", "a", "obj/a", "one")
	say := func(item, person string, d Decision, nonce string) Signed {
		return Signed{Item: item, Person: person, Decision: d, Subject: g.s.Subject(g.s.Item(item)), Statement: "s", Signature: "s", Nonce: nonce, Key: "SHA256:" + person, Reason: "r"}
	}
	g.refused(Signed{Item: "legal", Person: "eve", Decision: Approve, Subject: g.s.Subject(g.s.Item("legal"))}, "has allowed signers")
	g.must(say("legal", "eve", ApproveExcept, "one"))
	g.status(map[string]Status{"legal": Complete})
	g.must(Withdrawn{Item: "legal", Person: "eve"})
	g.refused(say("legal", "eve", Approve, "one"), "was used before")
	g.must(say("legal", "eve", Approve, "two"))
	g.run("test", "a", "", "")
	epoch := g.must(Granted{Item: "gold", Machine: "a"})
	r := Report{Machine: "a"}
	r.Item, r.Epoch, r.Outputs = "gold", epoch, out("dist/app", "gold")
	g.must(g.s.Result(r))
	c := g.must(Granted{Item: "gold", Machine: "b", Confirm: true})
	g.must(Confirmed{Epoch: c, Verdict: Identical})
	g.refused(say("tried", "bob", Approve, "three"), "wrote what is released")
	g.must(say("tried", "bob", Reject, "four")) // to say no is anybody's

	n := g.must(Amended{What: []string{"signers"}, Signers: "sha256:others", Revoked: "sha256:lost", Reason: "bob's key is lost", By: "bob"})
	g.must(Agreed{Amendment: n, Person: "ann", Decision: Approve})
	if g.s.Signers != "sha256:others" || g.s.Revoked != "sha256:lost" || g.s.Gold == nil {
		t.Errorf("after gold, who may sign is %q, without %q", g.s.Signers, g.s.Revoked)
	}
	g.refused(Amended{What: []string{"signers", "source"}, Signers: "x", Source: &Source{VCS: "git"}, Reason: "r", By: "bob"}, "gold is committed")
	for _, more := range []func(b *Amended){
		func(b *Amended) { b.Items = g.s.Items[:1] }, func(b *Amended) { b.Source = &Source{VCS: "git"} }, func(b *Amended) { b.Machines = []Machine{} },
		func(b *Amended) { b.Approver = []string{"bob"} }, func(b *Amended) { b.People = []Person{{Name: "eve", Email: "x@example.org"}} },
	} {
		b := Amended{What: []string{"signers"}, Signers: "sha256:more", Reason: "r", By: "bob"}
		more(&b)
		g.refused(b, "and changes")
	}
	g.refused(Amended{What: []string{"signers"}, Reason: "r", By: "bob"}, "names no allowed signers")
	x := say("legal", "eve", Approve, "five")
	x.Reason, x.Decision = "", ApproveExcept
	g.refused(x, "need a reason")

	// Without signers nobody signs: what is in the ledger must be worth something.
	g = begin(t)
	for _, b := range []Signed{{Statement: "s"}, {Signature: "s"}, {Nonce: "n"}} {
		b.Item, b.Person, b.Decision, b.Subject = "legal", "eve", Approve, g.s.Subject(g.s.Item("legal"))
		g.refused(b, "no allowed signers")
	}
	g.s.Source.Author = "EVE"
	g.refused(Signed{Item: "legal", Person: "eve", Decision: Approve, Subject: g.s.Subject(g.s.Item("legal"))}, "wrote what is released")
}
