package evidence

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// amendBook changes the runbook, as bob proposes and ann approves, but for what differ does.
func (x *story) amendBook(doc string, differ func(*release.Amended)) {
	x.t.Helper()
	seq := x.decide(x.amended(doc, differ))
	x.decide(release.Agreed{Amendment: seq, Person: "ann", Decision: release.Approve})
}

func (x *story) amended(doc string, differ func(*release.Amended)) release.Amended {
	x.t.Helper()
	r, err := runbook.Parse("RELEASE.md", []byte(doc), time.LoadLocation)
	if err != nil {
		x.t.Fatal(err)
	}
	p := release.PlanOf(r)
	b := release.Amended{
		What: []string{"runbook"}, Runbook: x.blob(doc), Items: p.Items, Endgame: p.Endgame, Approver: p.Approver, Team: p.Team,
		People: p.People, Ship: p.Ship, Budget: p.Budget, Reason: "it was wrong", By: "bob",
	}
	if differ != nil {
		differ(&b)
	}
	return b
}

// rest goes on until it ships: each step once, and each sign-off by the people that the runbook asks.
func (x *story) rest() {
	x.t.Helper()
	x.run("compile", "a", "obj/a", "object")
	x.run("gold", "a", "dist/app", "the program")
	epoch := x.must(release.Granted{Item: "gold", Machine: "b", Confirm: true})
	x.must(release.Confirmed{Epoch: epoch, Verdict: release.Identical, Log: x.blob("second log")})
	x.signAll()
	x.must(release.Shipped{})
}

func (x *story) signAll() {
	x.t.Helper()
	for _, a := range x.s.Asks() {
		for _, who := range a.People[:min(a.Needed, len(a.People))] {
			x.sign(a.Item, who, release.Approve)
		}
	}
}

// A release that is postponed after gold is of the runbook by which gold was made: provenance
// names that one, the rest of the evidence the one in force.
func TestPostponedAfterGold(t *testing.T) {
	x := newStory(t, "4.2")
	x.begin()
	x.run("compile", "a", "obj/a", "object")
	x.run("gold", "a", "dist/app", "the program")
	x.amendBook(strings.Replace(document, "2026-12-01T09:00:00Z", "2026-12-08T09:00:00Z", 1), nil)
	x.must(release.Confirmed{Epoch: x.must(release.Granted{Item: "gold", Machine: "b", Confirm: true}), Verdict: release.Identical, Log: x.blob("second log")})
	x.signAll()
	x.must(release.Shipped{})
	b := x.bundle()
	if r := Verify(b, x.trust()); !r.Verified {
		t.Errorf("%s", problems(r))
	}
	_, gold, _ := strings.Cut(x.blob(document), ":")
	if text := statementOf(t, b, provenanceFile); !strings.Contains(text, gold) {
		t.Errorf("provenance does not name the runbook of gold: %s", text)
	}
}

// The plan in the ledger is what the runbook says that people approved and auditors are shown.
func TestPlanIsHeldAgainstItsRunbook(t *testing.T) {
	other := strings.Replace(document, "(@eve, budget 1h)", "(@eve, budget 3h)", 1)
	for _, c := range []struct {
		name  string
		rules int // 0: those of now
		start func(*release.Started)
		more  func(x *story)
		// bundle changes it, and its checksums are made anew.
		bundle    func(x *story, b fstest.MapFS)
		problem   string
		attention string
	}{
		{name: "as it says"},
		{name: "another ship date, which the person who starts may choose", start: func(b *release.Started) { b.Ship = b.Ship.Add(24 * time.Hour) }},
		{name: "one approval for two", start: func(b *release.Started) {
			for i := range b.Items {
				if b.Items[i].Name == "tried" {
					b.Items[i].Approvals = 1
				}
			}
		}, problem: "runbook.md: event 1 is not as its runbook says: steps and sign-offs"},
		{name: "nobody is asked", start: func(b *release.Started) { b.Items = b.Items[:len(b.Items)-1] }, problem: "event 1 is not as its runbook says: steps and sign-offs"},
		{name: "another script", start: func(b *release.Started) { b.Items[0].Script = "true\n" }, problem: "steps and sign-offs"},
		{name: "more approvers", start: func(b *release.Started) { b.Approver = append(b.Approver, "eve") }, problem: "event 1 is not as its runbook says: approvers"},
		{name: "another version of a runbook that names one", start: func(b *release.Started) { b.Machines = nil }, problem: "1 roles, and not 0"},
		{name: "by older rules it is said", rules: 2, start: func(b *release.Started) { b.Approver = append(b.Approver, "eve") }, attention: "runbook.md: event 1 is not as its runbook says: approvers"},

		{name: "amended", more: func(x *story) { x.amendBook(other, nil) }},
		{name: "amended twice, to and fro", more: func(x *story) { x.amendBook(other, nil); x.amendBook(document, nil); x.amendBook(other, nil) }},
		{name: "amended, and the plan is another", more: func(x *story) {
			x.amendBook(other, func(b *release.Amended) { b.Items[0].Script = "true\n" })
		}, problem: "runbook.md: event 2 is not as its runbook says: steps and sign-offs"},
		{name: "the start is another, and was amended", start: func(b *release.Started) { b.Items[0].Script = "true\n" }, more: func(x *story) { x.amendBook(other, nil) }, problem: ".md: event 1 is not as its runbook says: steps and sign-offs"},
		{name: "a plan without a document", more: func(x *story) {
			x.amendBook(other, func(b *release.Amended) { b.Runbook = x.s.Runbook })
		}, problem: "event 2 is not as its runbook says: steps and sign-offs"},
		{name: "proposed, and rejected", more: func(x *story) {
			seq := x.must(x.amended(other, nil))
			x.decide(release.Agreed{Amendment: seq, Person: "ann", Decision: release.Reject, Reason: "no"})
		}},
		{name: "the runbook before is not there", more: func(x *story) { x.amendBook(other, nil) }, bundle: func(x *story, b fstest.MapFS) {
			delete(b, runbooksFile(x.blob(document)))
		}, problem: "is not there, so the plan that was in force before an amendment cannot be held against it"},
		{name: "the runbook before is another", more: func(x *story) { x.amendBook(other, nil) }, bundle: func(x *story, b fstest.MapFS) {
			b[runbooksFile(x.blob(document))] = &fstest.MapFile{Data: []byte(other)}
		}, problem: "is not the runbook sha256:"},
		{name: "a runbook more", bundle: func(_ *story, b fstest.MapFS) {
			b["runbooks/other.md"] = &fstest.MapFile{Data: []byte(other)}
		}, problem: "runbooks/other.md: the ledger does not speak of it"},
		{name: "by older rules no runbook before was there", rules: 1, more: func(x *story) { x.amendBook(other, nil) }, bundle: func(x *story, b fstest.MapFS) {
			delete(b, runbooksFile(x.blob(document)))
		}, attention: "cannot be held against it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newStory(t, "4.2")
			b := x.started()
			if b.Rules = planRules; c.rules > 0 {
				b.Rules = c.rules
			}
			if c.start != nil {
				c.start(&b)
			}
			x.must(b)
			if c.more != nil {
				c.more(x)
			}
			x.rest()
			files := x.bundle()
			if c.bundle != nil {
				c.bundle(x, files)
				x.resum(files)
			}
			r := Verify(files, x.trust())
			if said := problems(r); r.Verified != (c.problem == "") || !strings.Contains(said, c.problem) {
				t.Errorf("verified: %v: %s", r.Verified, said)
			}
			said := strings.Join(r.Attention, "\n")
			if !strings.Contains(said, c.attention) || c.attention == "" && strings.Contains(said, "runbook says") {
				t.Errorf("attention: %s", said)
			}
		})
	}
}

// Who starts by older rules is told what they do not demand.
func TestOldRulesAreReported(t *testing.T) {
	for rules, says := range map[int]string{
		0: "follows rules 0, which do not demand that an approval ends when another source is released",
		1: "follows rules 1, which do not demand that a change has the approvals",
		2: "follows rules 2, which do not demand that approvals are counted for each group",
		3: "follows rules 3, which do not demand that people sign their decisions",
		4: "",
	} {
		x := newStory(t, "4.2")
		x.rules = rules
		x.begin()
		x.rest()
		said := strings.Join(Verify(x.bundle(), x.trust()).Attention, "\n")
		if !strings.Contains(said, says) || says == "" && strings.Contains(said, "follows rules") {
			t.Errorf("rules %d: %s", rules, said)
		}
	}
}

// A second build that failed or differed is reported, also if another agreed afterwards.
func TestSecondBuildsAreReported(t *testing.T) {
	for _, c := range []struct {
		name   string
		builds func(x *story)
		want   []string // parts of what is said, each in a line of its own
	}{
		{"the first agreed", func(x *story) { x.second("b", release.Identical) }, nil},
		{"one failed", func(x *story) {
			x.secondFails("b", 2, "")
			x.second("c", release.Identical)
		}, []string{"a second build of gold failed on b before one agreed: exit status 2"}},
		{"two failed, on one machine and on another", func(x *story) {
			x.secondFails("b", 1, "no disk")
			x.secondFails("c", 1, "no memory")
			x.second("b", release.Identical)
		}, []string{"failed on b before one agreed: no disk", "failed on c before one agreed: no memory"}},
		{"one lost its machine, which is no failure", func(x *story) {
			epoch := x.must(release.Granted{Item: "gold", Machine: "b", Confirm: true})
			x.must(release.Lost{Item: "gold", Epoch: epoch, Machine: "b", Why: "no heartbeat"})
			x.second("c", release.Identical)
		}, nil},
		{"it differs, and a person signed for that", func(x *story) {
			x.second("b", release.Equivalent, "dist/app: time")
			x.decide(release.Excepted{Person: "ann", Differences: []string{"dist/app: time"}, Reason: "only the time"})
		}, []string{"a second build of gold on b was equivalent: dist/app: time"}},
		{"many differences", func(x *story) {
			var list []string
			for i := range 9 {
				list = append(list, fmt.Sprintf("dist/app: %d", i))
			}
			x.second("b", release.Equivalent, list...)
			x.decide(release.Excepted{Person: "ann", Differences: list, Reason: "only the time"})
		}, []string{"dist/app: 4; and 4 more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newStory(t, "4.2")
			x.begin()
			x.run("compile", "a", "obj/a", "object")
			x.run("gold", "a", "dist/app", "the program")
			c.builds(x)
			x.signAll()
			x.must(release.Shipped{})
			r := Verify(x.bundle(), x.trust())
			if !r.Verified {
				t.Fatal(problems(r))
			}
			var said []string
			for _, a := range r.Attention {
				if strings.Contains(a, "second build") {
					said = append(said, a)
				}
			}
			if len(said) != len(c.want) {
				t.Fatalf("said %q", said)
			}
			for i, want := range c.want {
				if !strings.Contains(said[i], want) {
					t.Errorf("said %q, and not %q", said[i], want)
				}
			}
		})
	}
}

func (x *story) second(machine string, v release.Verdict, differences ...string) {
	x.t.Helper()
	epoch := x.must(release.Granted{Item: "gold", Machine: machine, Confirm: true})
	x.must(release.Confirmed{Epoch: epoch, Verdict: v, Differences: differences, Log: x.blob("second log")})
}

func (x *story) secondFails(machine string, exit int, why string) {
	x.t.Helper()
	epoch := x.must(release.Granted{Item: "gold", Machine: machine, Confirm: true})
	x.must(release.Finished{Item: "gold", Epoch: epoch, Exit: exit, Why: why, Log: x.blob("log of a failure")})
	if x.s.Status(x.s.Item("gold")) == release.Stopped {
		x.must(release.Retried{Item: "gold", Reason: "again"})
	}
}

// statementOf is what a file of attest/ states.
func statementOf(t *testing.T, b fstest.MapFS, name string) string {
	t.Helper()
	var bundle struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(b[name].Data, &bundle); err != nil || len(bundle.Envelope.Payload) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	return string(bundle.Envelope.Payload)
}
