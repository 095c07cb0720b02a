package release

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/runbook"
)

// signoffs is a release whose sign-offs rely on one another and on steps.
const signoffs = "---\nship: 2026-12-01T09:00:00Z\nroles:\n  build: {blueprint: trysail}\npeople:\n  ann: {name: Ann A, email: ann@example.org}\n  bob: {name: Bob B, email: bob@example.org}\n  eve: {name: Eve E, email: eve@example.org}\n  joe: {}\n  kim: {}\n" +
	"groups:\n  qa: [ann, bob, eve]\n  legal: [eve, joe]\napprovers: [ann, bob, eve]\nendgame:\n  - {phase: Build, freezes: [source], approvals: 2}\n---\n" +
	"## Build\n\n```sh {\"name\":\"compile\",\"budget\":\"10m\",\"out\":\"obj/**\"}\nmake\n```\n\n" +
	"```sh {\"name\":\"suite\",\"needs\":\"compile\",\"budget\":\"10m\",\"results\":\"r.xml\",\"again\":\"machine\"}\nmake check\n```\n\n" +
	"- [ ] **tested** (@eve, budget 1h, needs suite): the suite was read\n" +
	"- [ ] **licences** (@legal): licences\n" +
	"\n```yaml {\"name\":\"hold\",\"kind\":\"wait\",\"until\":\"ship-2d\",\"needs\":\"tested\"}\nembargo\n```\n\n" +
	"- [ ] **go** (@joe, needs hold): these bytes may become gold\n\n" +
	"## Gold master\n\n```sh {\"name\":\"gold\",\"needs\":\"suite\",\"in\":\"obj/a\",\"budget\":\"20m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake dist\n```\n\n" +
	"## Ship\n\n```yaml {\"name\":\"embargo\",\"kind\":\"wait\",\"until\":\"ship\",\"needs\":\"gold\"}\nembargo\n```\n\n" +
	"```sh {\"name\":\"upload\",\"kind\":\"publish\",\"needs\":\"embargo\",\"in\":\"dist/app\",\"budget\":\"5m\"}\nup\n```\n"

func parsed(tb failer, doc string) *runbook.Runbook {
	tb.Helper()
	r, err := runbook.Parse("RELEASE.md", []byte(doc), time.LoadLocation)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return r
}

// beginOf begins a release of a document.
func beginOf(tb failer, doc string) *game {
	tb.Helper()
	r := parsed(tb, doc)
	b := Begin(r, "4.2")
	b.Rules, b.Runbook, b.Named = RulesNow, r.Digest, r.Ship
	b.Source = Source{VCS: "git", Revision: "abc", Original: "sha256:src"}
	b.Machines = []Machine{{Role: "build", Blueprint: "sha256:bp", Sum: "sha256:sum"}}
	g := &game{tb: tb, s: Empty()}
	g.must(b)
	return g
}

func amendment(tb failer, doc string) Amended {
	tb.Helper()
	r := parsed(tb, doc)
	p := PlanOf(r)
	return Amended{What: []string{"runbook"}, Runbook: r.Digest, Items: p.Items, Endgame: p.Endgame, Approver: p.Approver, Team: p.Team, People: p.People, Ship: p.Ship, Budget: p.Budget, Reason: "r", By: "kim"}
}

// changes puts an amendment into force.
func (g *game) changes(b Amended) {
	g.tb.Helper()
	open := g.must(b)
	for _, who := range g.s.Approvers {
		if g.s.Amendment != nil && g.s.proposed(b, who) == "" {
			g.must(Agreed{Amendment: open, Person: who, Decision: Approve})
		}
	}
	if g.s.Amendment != nil {
		g.tb.Fatalf("the amendment is open")
	}
}

// edits amends the runbook by other words in it.
func (g *game) edits(doc string, oldnew ...string) string {
	g.tb.Helper()
	next := strings.NewReplacer(oldnew...).Replace(doc)
	if next == doc {
		g.tb.Fatalf("%q changes nothing", oldnew)
	}
	g.changes(amendment(g.tb, next))
	return next
}

func (g *game) another(revision, author string) {
	g.tb.Helper()
	g.changes(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: revision, Original: "sha256:" + revision, Author: author}, Reason: "r", By: "kim"})
}

func (g *game) rejects(item, person string) {
	g.tb.Helper()
	g.must(Signed{Item: item, Person: person, Decision: Reject, Reason: "no", Subject: g.s.Subject(g.s.Item(item))})
}

func (g *game) builds() {
	g.tb.Helper()
	g.run("compile", "a", "obj/a", "o")
	g.run("suite", "a", "", "")
}

func (g *game) confirms() {
	g.tb.Helper()
	g.run("gold", "a", "dist/app", "gold")
	g.must(Confirmed{Epoch: g.must(Granted{Item: "gold", Machine: "b", Confirm: true}), Verdict: Identical})
}

// finishes does all but shipping.
func (g *game) finishes() {
	g.tb.Helper()
	g.builds()
	g.sign("tested", "eve")
	g.sign("licences", "joe")
	g.must(Passed{Item: "hold"})
	g.sign("go", "joe")
	g.confirms()
	g.must(Passed{Item: "embargo"})
	g.run("upload", "a", "", "")
}

// TestApprovalsAreCounted: of each group as many as the sign-off asks for, each person once.
func TestApprovalsAreCounted(t *testing.T) {
	for _, c := range []struct {
		asks    string
		signs   string
		done    bool
		missing int
		left    string // who is asked for more
	}{
		{"@ann, @legal", "", false, 1, "ann eve joe"},
		{"@ann, @legal", "joe", true, 0, ""},
		{"2 of @qa", "ann", false, 1, "bob eve"},
		{"2 of @qa", "ann eve", true, 0, ""},
		{"2 of @qa, 1 of @legal", "ann bob", false, 1, "eve joe"},
		{"2 of @qa, 1 of @legal", "ann eve", false, 1, "bob joe"}, // eve is for one of the two
		{"2 of @qa, 1 of @legal", "eve joe", false, 1, "ann bob"},
		{"2 of @qa, 1 of @legal", "ann eve joe", true, 0, ""},
		{"2 of @qa, 1 of @legal", "bob ann eve", true, 0, ""}, // eve moves to legal
		{"1 of @legal, 1 of @qa", "eve bob", true, 0, ""},
		{"1 of @legal, 1 of @qa", "eve", false, 1, "joe ann bob"},
		{"1 of @joe, 2 of @legal, 1 of @qa", "joe eve", false, 2, ""}, // nobody's word is enough: see short
	} {
		if strings.Contains(c.asks, "1 of @joe") { // check refuses it
			continue
		}
		g := beginOf(t, strings.Replace(signoffs, "(@legal)", "("+c.asks+")", 1))
		for _, who := range strings.Fields(c.signs) {
			g.sign("licences", who)
		}
		x := g.s.Item("licences")
		h := g.s.statuses().heard(x)
		if done := g.s.Status(x) == Complete; done != c.done || x.Approvals-h.yes != c.missing || strings.Join(h.left, " ") != c.left || h.short {
			t.Errorf("(%s) signed by %q: done %v, %d missing, left %q, short %v", c.asks, c.signs, done, x.Approvals-h.yes, h.left, h.short)
		}
	}
	// With everybody's word it may be too few, and is not asked for in vain.
	g := beginOf(t, strings.Replace(signoffs, "(@legal)", "(2 of @qa, 2 of @legal)", 1))
	g.s.Source.Author = "eve@example.org"
	asks := g.s.Asks()
	if i := slices.IndexFunc(asks, func(a Ask) bool { return a.Item == "licences" }); asks[i].Type != "amend" || !strings.Contains(asks[i].What, "too few of its people") {
		t.Errorf("asks %+v", asks[i])
	}
}

// TestOnePersonCountsOnce: by address, by name, by key, also of an earlier runbook.
func TestOnePersonCountsOnce(t *testing.T) {
	quota := strings.Replace(signoffs, "(@legal)", "(2 of @qa)", 1)
	for _, c := range []struct {
		what string
		mix  func(g *game)
	}{
		{"an address", func(g *game) { g.s.People[1].Email = "ANN@example.org" }},
		{"a full name", func(g *game) { g.s.People[1].Full = "ann  a" }},
		{"a third name", func(g *game) { g.s.People[1].Email, g.s.People[1].Full = "eve@example.org", "Ann A" }}, // eve, bob, ann
		{"an earlier runbook", func(g *game) {
			g.edits(quota, "bob: {name: Bob B", "bob: {name: Ann A", "ann: {name: Ann A", "ann: {name: Ann Other")
		}},
	} {
		g := beginOf(t, quota)
		g.sign("licences", "ann")
		c.mix(g)
		g.refused(Signed{Item: "licences", Person: "bob", Decision: Approve, Subject: g.s.Subject(g.s.Item("licences"))}, "one person")
		g.status(map[string]Status{"licences": Ready})
		if h := g.s.statuses().heard(g.s.Item("licences")); slices.Contains(h.left, "bob") {
			t.Errorf("%s: bob is asked: %q", c.what, h.left)
		}
	}
	// They signed as two, and are one.
	g := beginOf(t, quota)
	g.sign("licences", "ann")
	g.sign("licences", "bob")
	g.status(map[string]Status{"licences": Complete})
	g.s.People[1].Email = "ann@example.org"
	g.status(map[string]Status{"licences": Ready})

	// One key is one person, whoever has it now.
	g = beginOf(t, quota)
	g.s.Signers = "sha256:signers"
	signed := func(person, key, nonce string) Signed {
		return Signed{Item: "licences", Person: person, Decision: Approve, Subject: g.s.Subject(g.s.Item("licences")), Statement: "s", Signature: "s", Nonce: nonce, Key: key}
	}
	g.refused(signed("ann", "", "one"), "which key")
	g.must(signed("ann", "SHA256:a", "one"))
	g.changes(Amended{What: []string{"signers"}, Signers: "sha256:others", Reason: "r", By: "kim"})
	g.refused(signed("bob", "SHA256:a", "two"), "one person")
	g.must(signed("bob", "SHA256:b", "three"))
	g.status(map[string]Status{"licences": Complete})
}

// TestDecisionsStay: a word is for a subject, until its person withdraws it.
func TestDecisionsStay(t *testing.T) {
	for _, c := range []struct {
		what  string
		first func(g *game)
		edit  []string
		want  Status
	}{
		{"a rejection, one more in the group", func(g *game) { g.rejects("licences", "joe") }, []string{"legal: [eve, joe]", "legal: [eve, joe, kim]"}, Stopped},
		{"a rejection, its person out of the group", func(g *game) { g.rejects("licences", "joe") }, []string{"legal: [eve, joe]", "legal: [eve, kim]"}, Stopped},
		{"an approval, one more in the group", func(g *game) { g.sign("licences", "joe") }, []string{"legal: [eve, joe]", "legal: [kim, eve, joe]"}, Complete},
		{"an approval, its person out of the group", func(g *game) { g.sign("licences", "joe") }, []string{"legal: [eve, joe]", "legal: [eve, kim]"}, Complete},
		{"an approval, another group is asked", func(g *game) { g.sign("licences", "joe") }, []string{"(@legal)", "(@qa)"}, Ready},
		{"an approval, a group that is theirs too", func(g *game) { g.sign("licences", "eve") }, []string{"(@legal)", "(@qa)"}, Complete},
		{"an approval, a budget", func(g *game) { g.sign("licences", "joe") }, []string{"(@legal)", "(@legal, budget 3h)"}, Complete},
		{"an approval, another heading", func(g *game) { g.sign("licences", "joe") }, []string{"## Build\n", "## Building\n", "phase: Build,", "phase: Building,"}, Complete},
		{"an approval, another text", func(g *game) { g.sign("licences", "joe") }, []string{": licences\n", ": licences and patents\n"}, Ready},
		{"a rejection, another text", func(g *game) { g.rejects("licences", "joe") }, []string{": licences\n", ": licences and patents\n"}, Ready},
		{"an approval, two are wanted", func(g *game) { g.sign("licences", "joe") }, []string{"(@legal)", "(2 of @legal)"}, Ready},
	} {
		g := beginOf(t, signoffs)
		c.first(g)
		g.edits(signoffs, c.edit...)
		if got := g.s.Status(g.s.Item("licences")); got != c.want {
			t.Errorf("%s: %s, not %s", c.what, got, c.want)
		}
		g.edits(strings.NewReplacer(c.edit...).Replace(signoffs), reverse(c.edit)...)
		before := beginOf(t, signoffs)
		c.first(before)
		if got, want := g.s.Status(g.s.Item("licences")), before.s.Status(before.s.Item("licences")); got != want {
			t.Errorf("%s, and back: %s, not %s", c.what, got, want)
		}
	}
	// A sign-off that was taken away and comes back.
	g := beginOf(t, signoffs)
	g.rejects("licences", "joe")
	without := g.edits(signoffs, "- [ ] **licences** (@legal): licences\n", "")
	g.edits(without, "\n```yaml {\"name\":\"hold\"", "- [ ] **licences** (@legal): licences\n\n```yaml {\"name\":\"hold\"")
	g.status(map[string]Status{"licences": Stopped})
	g.must(Withdrawn{Item: "licences", Person: "joe", Reason: "r"})
	g.status(map[string]Status{"licences": Ready})
}

func reverse(list []string) []string {
	list = slices.Clone(list)
	for i := 0; i+1 < len(list); i += 2 {
		list[i], list[i+1] = list[i+1], list[i]
	}
	return list
}

// TestSubject: whatever a sign-off relies on, directly or through other items, is part of
// what is signed; and nothing else is.
func TestSubject(t *testing.T) {
	again := func(g *game) {
		g.run("compile", "a", "obj/a", "o")
		g.run("suite", "a", "", "")
	}
	reads := func(g *game) {
		if g.s.Status(g.s.Item("tested")) != Complete {
			g.sign("tested", "eve")
		}
	}
	for _, c := range []struct {
		what    string
		changes func(g *game)
		asked   bool // anew, who read the suite and who relies on them
	}{
		{"nothing", func(*game) {}, false},
		{"the script", func(g *game) { g.edits(signoffs, "make check", "true"); g.run("suite", "a", "", "") }, true},
		{"the language", func(g *game) {
			g.edits(signoffs, "```sh {\"name\":\"suite\"", "```bash {\"name\":\"suite\"")
			g.run("suite", "a", "", "")
		}, true},
		{"the network", func(g *game) {
			g.edits(signoffs, "\"name\":\"suite\",", "\"name\":\"suite\",\"network\":\"true\",")
			g.run("suite", "a", "", "")
		}, true},
		{"the outputs", func(g *game) {
			g.edits(signoffs, "\nmake\n", "\nmake EXTRA=1\n")
			g.run("compile", "a", "obj/a", "others")
			g.run("suite", "a", "", "")
		}, true},
		{"the source", func(g *game) { g.another("def", ""); again(g) }, true},
		{"the source, there and back", func(g *game) {
			g.another("def", "")
			again(g)
			g.another("src", "")
			g.s.Source.Revision = "abc"
			again(g)
		}, false},
		{"the build server", func(g *game) {
			g.changes(Amended{What: []string{"machines"}, Machines: []Machine{{Role: "build", Blueprint: "sha256:bp2", Sum: "sha256:sum"}}, Reason: "r", By: "kim"})
			g.run("suite", "a", "", "")
		}, true},
		{"a failed test that was waived", func(g *game) {
			g.changes(Amended{What: []string{"machines"}, Machines: []Machine{{Role: "build", Blueprint: "sha256:bp2", Sum: "sha256:sum"}}, Reason: "r", By: "kim"})
			g.must(Finished{Item: "suite", Epoch: g.must(Granted{Item: "suite", Machine: "a"}), Failing: []string{"t"}})
			g.must(Waived{Item: "suite", Test: "t", Person: "ann", Reason: "r"})
		}, true},
		{"the exit status beside a failed test that was waived", func(g *game) {
			const name = "\"name\":\"suite\","
			for i, timeout := range []string{"1h", "2h"} {
				g.edits(signoffs, name, name+"\"timeout\":\""+timeout+"\",")
				g.must(Finished{Item: "suite", Epoch: g.must(Granted{Item: "suite", Machine: "a"}), Status: 1 + i, Failing: []string{"t"}})
				g.must(Waived{Item: "suite", Test: "t", Person: "ann", Reason: "r"})
				if i == 0 {
					g.sign("tested", "eve")
					g.sign("go", "joe")
				}
			}
		}, true},
		{"a timeout", func(g *game) {
			g.edits(signoffs, "\"name\":\"suite\",", "\"name\":\"suite\",\"timeout\":\"1h\",")
			g.run("suite", "b", "", "")
		}, false},
		{"who is asked", func(g *game) { g.edits(signoffs, "(@eve, budget 1h", "(@qa, budget 2h") }, false},
		{"the order of the document", func(g *game) {
			g.edits(signoffs, "- [ ] **licences** (@legal): licences\n", "", "## Gold master\n", "- [ ] **licences** (@legal): licences\n\n## Gold master\n")
		}, false},
	} {
		g := beginOf(t, signoffs)
		g.builds()
		g.sign("tested", "eve")
		g.must(Passed{Item: "hold"})
		g.sign("go", "joe")
		c.changes(g)
		want := Complete
		if c.asked {
			want = Ready
		}
		if got := g.s.Status(g.s.Item("tested")); got != want {
			t.Errorf("%s: who read the suite: %s, not %s", c.what, got, want)
		}
		reads(g)
		if got := g.s.Status(g.s.Item("go")); got != want {
			t.Errorf("%s: who relies on them: %s, not %s", c.what, got, want)
		}
	}
	// While a step runs again, nobody's word counts and nobody signs.
	g := beginOf(t, signoffs)
	g.builds()
	g.sign("tested", "eve")
	g.edits(signoffs, "\"name\":\"suite\",", "\"name\":\"suite\",\"timeout\":\"1h\",")
	g.status(map[string]Status{"suite": Ready, "tested": Pending})
	g.refused(Signed{Item: "tested", Person: "eve", Decision: Approve, Subject: g.s.Subject(g.s.Item("tested"))}, "not done")
}

// TestAuthorsDoNotDecide: not on what they wrote, whoever typed the proposal; by any
// address and name of theirs.
func TestAuthorsDoNotDecide(t *testing.T) {
	for _, author := range []string{"bob", "BOB", "bob@example.org", "Bob@Example.org", "Bob B", "bob b <other@example.org>", "Robert <bob@example.org>"} {
		g := beginOf(t, signoffs)
		g.s.Source.Author = author
		if !g.s.Wrote("bob") || g.s.Wrote("ann") || g.s.Wrote("joe") {
			t.Errorf("%q: bob wrote it %v, ann %v, joe %v", author, g.s.Wrote("bob"), g.s.Wrote("ann"), g.s.Wrote("joe"))
		}
		g.run("compile", "a", "obj/a", "o")
		g.must(Finished{Item: "suite", Epoch: g.must(Granted{Item: "suite", Machine: "a"}), Failing: []string{"t"}})
		if asks := g.s.Asks(); asks[0].Type != "waive" || !slices.Equal(asks[0].People, []string{"ann", "eve"}) {
			t.Errorf("%q: asks %+v", author, asks[0])
		}
		g.refused(Waived{Item: "suite", Test: "t", Person: "bob", Reason: "mine"}, "wrote what is released")
		g.must(Waived{Item: "suite", Test: "t", Person: "ann", Reason: "r"})
		g.run("gold", "a", "dist/app", "gold")
		g.must(Confirmed{Epoch: g.must(Granted{Item: "gold", Machine: "b", Confirm: true}), Verdict: Equivalent, Differences: []string{"d"}})
		g.refused(Excepted{Person: "bob", Differences: []string{"d"}, Reason: "mine"}, "wrote what is released")
		g.must(Excepted{Person: "ann", Differences: []string{"d"}, Reason: "r"})

		g = beginOf(t, signoffs)
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:def", Author: author}, Reason: "r", By: "ann"})
		if asks := g.s.Asks(); !slices.Equal(asks[len(asks)-1].People, []string{"eve"}) {
			t.Errorf("%q: asks %+v", author, asks[len(asks)-1])
		}
		g.refused(Agreed{Amendment: open, Person: "bob", Decision: Approve}, "wrote the source")
		g.refused(Agreed{Amendment: open, Person: "ann", Decision: Approve}, "proposed it")
		g.must(Agreed{Amendment: open, Person: "eve", Decision: Approve})
	}
	// What failed for another reason than its tests is no matter of waivers.
	failed := beginOf(t, signoffs)
	failed.run("compile", "a", "obj/a", "o")
	failed.must(Finished{Item: "suite", Epoch: failed.must(Granted{Item: "suite", Machine: "a"}), Exit: 1, Failing: []string{"t"}})
	failed.refused(Waived{Item: "suite", Test: "t", Person: "ann", Reason: "r"}, "no waiver of a test makes it done")
	// Two names of one approver are one approval.
	g := beginOf(t, signoffs)
	g.must(Granted{Item: "compile", Machine: "a"}) // the endgame asks for two
	open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def"}, Reason: "r", By: "kim"})
	g.must(Agreed{Amendment: open, Person: "ann", Decision: Approve})
	g.s.People[1].Full = "Ann A"
	g.refused(Agreed{Amendment: open, Person: "bob", Decision: Approve}, "has approved")
	// Nobody else may: they are told so, and what the rules then take.
	g = beginOf(t, strings.Replace(signoffs, "approvers: [ann, bob, eve]\nendgame:\n  - {phase: Build, freezes: [source], approvals: 2}\n", "approvers: [bob]\n", 1))
	g.s.Source.Author = "bob"
	g.run("compile", "a", "obj/a", "o")
	g.must(Finished{Item: "suite", Epoch: g.must(Granted{Item: "suite", Machine: "a"}), Failing: []string{"t"}})
	if asks := g.s.Asks(); asks[0].Type != "retry" || !strings.Contains(asks[0].What, "every approver wrote") {
		t.Errorf("asks %+v", asks[0])
	}
}

// TestClosedWords: what stands for none of the words that an event may have is refused.
func TestClosedWords(t *testing.T) {
	for _, d := range []Decision{"", "no", "rejected", "Reject", "approve ", ApproveExcept} {
		g := beginOf(t, signoffs)
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def"}, Reason: "r", By: "kim"})
		g.refused(Agreed{Amendment: open, Person: "bob", Decision: d}, "no decision")
		if d != ApproveExcept {
			g.refused(Signed{Item: "licences", Person: "joe", Decision: d, Reason: "r", Subject: g.s.Subject(g.s.Item("licences"))}, "no decision")
		}
	}
	source := &Source{VCS: "git", Revision: "def"}
	for why, b := range map[string]Amended{
		"nothing that an amendment": {What: []string{"source", "weather"}, Source: source},
		"names source twice":        {What: []string{"source", "source"}, Source: source},
		"and brings none":           {What: []string{"source", "machines"}, Source: source},
		"no version control":        {What: []string{"source"}, Source: &Source{VCS: "hg"}},
		"a part of a runbook":       {What: []string{"runbook"}, Runbook: "sha256:x"},
		"and changes":               {What: []string{"source"}, Source: source, Signers: "sha256:x"},
	} {
		b.Reason, b.By = "r", "kim"
		beginOf(t, signoffs).refused(b, why)
	}
	beginOf(t, signoffs).refused(Amended{What: []string{"source"}, Source: source, Reason: "r"}, "who proposes")

	for why, change := range map[string]func(b *Started){
		"a newer Trysail wrote": func(b *Started) { b.Rules = RulesNow + 1 },
		"goes by rules -1":      func(b *Started) { b.Rules = -1 },
		"no version control":    func(b *Started) { b.Source.VCS = "" },
		"no kind of item":       func(b *Started) { b.Items[0].Kind = "party" },
		"a second gold":         func(b *Started) { b.Items[0].Gold = true },
		"is to run again after": func(b *Started) { b.Items[1].Again = "always" },
		"says nothing of a":     func(b *Started) { b.Items[len(b.Items)-1].Lost = "shrug" },
		"the endgame freezes": func(b *Started) {
			b.Endgame = []runbook.Freeze{{Phase: "build", Freezes: []string{"weather"}, Approvals: 1}}
		},
		"asks for 0 approvals": func(b *Started) { b.Endgame = []runbook.Freeze{{Phase: "build", Freezes: []string{"source"}}} },
		"are not counted":      func(b *Started) { b.Items[2].Approvals = 0 },
	} {
		started := beginOf(t, signoffs).events[0]
		b := started.Body.(Started)
		b.Items = slices.Clone(b.Items)
		change(&b)
		started.Body = b
		if err := Empty().Apply(started); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("not refused for %q: %v", why, err)
		}
	}
}

// TestShips: not while it is held, nor with an open amendment; and who may is asked.
func TestShips(t *testing.T) {
	for _, c := range []struct {
		what  string
		first func(g *game)
		why   string // "" if it ships
	}{
		{"all is done", func(*game) {}, ""},
		{"it is held", func(g *game) { g.must(Held{Reason: "a hole"}) }, "held: a hole"},
		{"it was held", func(g *game) { g.must(Held{Reason: "a hole"}); g.must(Resumed{}) }, ""},
		{"signers are amended", func(g *game) {
			g.must(Amended{What: []string{"signers"}, Signers: "sha256:s", Reason: "r", By: "kim"})
		}, "is open"},
		{"an amendment was rejected", func(g *game) {
			open := g.must(Amended{What: []string{"signers"}, Signers: "sha256:s", Reason: "r", By: "kim"})
			g.must(Agreed{Amendment: open, Person: "ann", Decision: Reject})
		}, ""},
		{"a word is withdrawn", func(g *game) { g.must(Withdrawn{Item: "licences", Person: "joe"}) }, "not done"},
	} {
		g := beginOf(t, signoffs)
		g.finishes()
		c.first(g)
		asked := slices.ContainsFunc(g.s.Asks(), func(a Ask) bool { return a.Type == "ship" && slices.Equal(a.People, g.s.Approvers) })
		if asked != (c.why == "") {
			t.Errorf("%s: asked to ship %v", c.what, asked)
		}
		if c.why != "" {
			g.refused(Shipped{}, c.why)
		} else {
			g.must(Shipped{})
		}
	}
}

// TestSecondBuilds: what a comparison says is one of three things, and each build stays
// on record.
func TestSecondBuilds(t *testing.T) {
	for _, c := range []struct {
		verdict     Verdict
		differences []string
		why         string
	}{
		{Identical, nil, ""},
		{Identical, []string{"d"}, "with 1 differences"},
		{Equivalent, []string{"d"}, ""},
		{Equivalent, nil, "what differs is not"},
		{Different, nil, ""},
		{Different, []string{"d"}, ""},
		{"", nil, "no verdict"},
		{"Identical", nil, "no verdict"},
	} {
		g := beginOf(t, signoffs)
		g.builds()
		g.run("gold", "a", "dist/app", "gold")
		e := g.must(Granted{Item: "gold", Machine: "b", Confirm: true})
		r := Report{Finished: Finished{Item: "gold", Epoch: e}, Machine: "b", Compared: c.verdict, Differences: c.differences}
		b := g.s.Result(r)
		if c.why != "" {
			g.refused(Confirmed{Epoch: e, Verdict: c.verdict, Differences: c.differences}, c.why)
			if f, ok := b.(Finished); !ok || f.Exit == 0 || !strings.Contains(f.Why, c.why) {
				t.Errorf("%s with %q amounts to %+v", c.verdict, c.differences, b)
			}
		}
		g.must(b)
		if list := g.s.SecondBuilds(); len(list) != 1 || list[0].Machine != "b" || (list[0].Verdict == "") != (c.why != "") || c.why == "" && list[0].Verdict != c.verdict {
			t.Errorf("%s with %q: %+v", c.verdict, c.differences, list)
		}
	}
	g := beginOf(t, signoffs)
	g.builds()
	g.sign("tested", "eve")
	g.sign("licences", "joe")
	g.must(Passed{Item: "hold"})
	g.sign("go", "joe")
	g.run("gold", "a", "dist/app", "gold")
	g.must(Finished{Item: "gold", Epoch: g.must(Granted{Item: "gold", Machine: "b", Confirm: true}), Exit: 1, Why: "no space"})
	g.must(Retried{Item: "gold"})
	g.must(Confirmed{Epoch: g.must(Granted{Item: "gold", Machine: "c", Confirm: true}), Verdict: Identical})
	g.must(Passed{Item: "embargo"})
	g.run("upload", "a", "", "")
	if asks := g.s.Asks(); len(asks) != 1 || asks[0].Type != "ship" || !strings.Contains(asks[0].What, "the second build on b failed: no space, before one agreed") {
		t.Errorf("asks %+v", asks)
	}
	if list := g.s.SecondBuilds(); len(list) != 2 || list[0].Why != "no space" || list[1].Verdict != Identical {
		t.Errorf("second builds %+v", list)
	}
	r, err := Retrospect(g.events, time.LoadLocation)
	if err != nil || !slices.Equal(r.Disagreed, []string{"the second build on b failed: no space"}) || !strings.Contains(r.Markdown(), "On record: the second build on b failed: no space.") {
		t.Errorf("the report does not say so: %q (%v)", r.Disagreed, err)
	}
}

// TestStateSurvives: a state is what its stream says, whatever it holds.
func TestStateSurvives(t *testing.T) {
	g := beginOf(t, signoffs)
	g.finishes()
	var events []Event
	for _, e := range g.events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back Event
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatal(err)
		}
		events = append(events, back)
	}
	s, err := Fold(events)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(s)
	b, _ := json.Marshal(g.s)
	if string(a) != string(b) || fmt.Sprint(s.Statuses()) != fmt.Sprint(g.s.Statuses()) {
		t.Errorf("the stream folds to another state:\n%s\n%s", a, b)
	}
}
