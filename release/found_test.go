package release

import (
	"strings"
	"testing"
)

// These are histories that the model (model_test.go) refused and the rules allowed, or the
// other way round.

// TestReasonsSaySomething: a reason of blanks is none.
func TestReasonsSaySomething(t *testing.T) {
	for _, blank := range []string{"", " ", "\t\n"} {
		g := beginOf(t, signoffs)
		legal := g.s.Item("licences")
		for _, d := range []Decision{Reject, ApproveExcept} {
			g.refused(Signed{Item: "licences", Person: "joe", Decision: d, Subject: g.s.Subject(legal), Reason: blank}, "a reason")
		}
		g.refused(Amended{What: []string{"machines"}, Machines: []Machine{{Role: "build", Blueprint: "sha256:bp2", Sum: "sha256:sum"}}, Reason: blank, By: "kim"}, "what changes and why")
		g.run("compile", "a", "obj/a", "obj")
		epoch := g.must(Granted{Item: "suite", Machine: "a"})
		g.must(Finished{Item: "suite", Epoch: epoch, Status: 1, Tests: 2, Failing: []string{"t1"}})
		g.refused(Waived{Item: "suite", Test: "t1", Person: "ann", Reason: blank}, "a reason")
		g.must(Waived{Item: "suite", Test: "t1", Person: "ann", Reason: "flaky"})
		g.run("gold", "a", "dist/app", "gold")
		epoch = g.must(Granted{Item: "gold", Machine: "b", Confirm: true})
		g.must(Confirmed{Epoch: epoch, Verdict: Equivalent, Differences: []string{"d"}})
		g.refused(Excepted{Person: "ann", Differences: []string{"d"}, Reason: blank}, "a reason")
	}
}

// TestGoldOfAnotherServerDoesNotFold: whoever appends it, and whatever a writer made of the
// report.
func TestGoldOfAnotherServerDoesNotFold(t *testing.T) {
	for server, ok := range map[string]bool{"sha256:bp": true, "sha256:bp2": false} {
		doc := strings.Replace(signoffs, `,"again":"machine"`, "", 1)
		g := beginOf(t, doc)
		g.run("compile", "a", "obj/a", "obj")
		g.run("suite", "a", "", "")
		epoch := g.must(Granted{Item: "gold", Machine: "a"})
		g.changes(Amended{What: []string{"machines"}, Machines: []Machine{{Role: "build", Blueprint: server, Sum: "sha256:sum"}}, Reason: "r", By: "kim"})
		gold := Committed{Finished{Item: "gold", Epoch: epoch, Outputs: out("dist/app", "gold")}}
		if ok {
			g.must(gold)
		} else {
			g.refused(gold, "was amended after its lease began")
		}
	}
}

// TestMovedWaitRunsNothingAgain: what has followed a wait does not run again because the
// wait is moved, least of all what has published; and what was signed of it stays.
func TestMovedWaitRunsNothingAgain(t *testing.T) {
	for _, after := range []string{"compile", "suite", "gold"} {
		doc := strings.Replace(signoffs, `{"name":"`+after+`",`, `{"name":"`+after+`","needs":"early`+map[string]string{"compile": "", "suite": ",compile", "gold": ",suite"}[after]+`",`, 1)
		doc = strings.Replace(doc, `,"needs":"compile","budget"`, `,"budget"`, map[string]int{"suite": 1}[after])
		doc = strings.Replace(doc, `,"needs":"suite","in"`, `,"in"`, map[string]int{"gold": 1}[after])
		doc = strings.Replace(doc, "## Build\n", "## Build\n\n```yaml {\"name\":\"early\",\"kind\":\"wait\",\"until\":\"ship-5d\"}\nstart\n```\n", 1)
		g := beginOf(t, doc)
		g.must(Passed{Item: "early"})
		g.run("compile", "a", "obj/a", "obj")
		g.run("suite", "a", "", "")
		if after == "gold" {
			g.confirms()
			// The ship date moves, the wait begins anew, and then it moves too.
			doc = g.edits(doc, "ship: 2026-12-01", "ship: 2026-12-08")
		}
		g.edits(doc, "ship-5d", "ship-4d")
		g.status(map[string]Status{"early": Ready, after: Complete})
	}
}

// TestApprovalsOfOnePerson: two approvals of a change are one if it comes out before the
// third that both are one person's, or the proposer's.
func TestApprovalsOfOnePerson(t *testing.T) {
	for _, c := range []struct {
		key   string // with which ann signs
		open  bool
		asked int
	}{{"SHA256:ann", false, 0}, {"SHA256:bob", true, 1}, {"SHA256:kim", true, 1}} {
		doc := strings.Replace(signoffs, "legal: [eve, joe]", "legal: [ann, bob, kim, joe]", 1)
		doc = strings.Replace(doc, "approvals: 2", "approvals: 3", 1)
		doc = strings.Replace(doc, "approvers: [ann, bob, eve]", "approvers: [ann, bob, eve, joe]", 1)
		g := beginOf(t, strings.Replace(doc, "(@legal)", "(4 of @legal)", 1))
		g.s.Signers = "sha256:signers"
		sign := func(person, key string) {
			t.Helper()
			g.must(Signed{Item: "licences", Person: person, Decision: Approve, Subject: g.s.Subject(g.s.Item("licences")), Statement: "s", Signature: "s", Nonce: person + " signs once", Key: key})
		}
		sign("bob", "SHA256:bob")
		sign("kim", "SHA256:kim")
		g.run("compile", "a", "obj/a", "obj")
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:src2"}, Reason: "r", By: "kim"})
		g.must(Agreed{Amendment: open, Person: "ann", Decision: Approve})
		g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
		if c.key == "SHA256:ann" {
			sign("ann", c.key)
		} else {
			// By that key ann is somebody else too, of whom there is a word already.
			g.s.Keys[c.key] = append(g.s.Keys[c.key], "ann")
		}
		g.must(Agreed{Amendment: open, Person: "eve", Decision: Approve})
		if (g.s.Amendment != nil) != c.open {
			t.Errorf("ann signs with %s: the change is open: %v", c.key, g.s.Amendment != nil)
		}
		for _, a := range g.s.Asks() {
			if a.Item == "amendment" && a.Needed != c.asked {
				t.Errorf("ann signs with %s: %d approvals are asked for", c.key, a.Needed)
			}
		}
	}
}

// TestNobodySignsWhileAStepRunsAgain: gold has begun after a sign-off on the suite, which an
// amendment makes run again. What stands on gold stands on the suite too.
func TestNobodySignsWhileAStepRunsAgain(t *testing.T) {
	doc := strings.Replace(signoffs, `"needs":"suite","in"`, `"needs":"tested","in"`, 1)
	doc = strings.Replace(doc, "(@legal)", "(@legal, needs gold)", 1)
	g := beginOf(t, doc)
	g.builds()
	g.sign("tested", "eve")
	epoch := g.must(Granted{Item: "gold", Machine: "a"})
	g.edits(doc, "make check", "make check-all")
	g.must(Committed{Finished{Item: "gold", Epoch: epoch, Outputs: out("dist/app", "gold")}})
	g.must(Confirmed{Epoch: g.must(Granted{Item: "gold", Machine: "b", Confirm: true}), Verdict: Identical})
	g.status(map[string]Status{"suite": Ready, "tested": Pending, "gold": Complete, "licences": Pending})
	g.refused(Signed{Item: "licences", Person: "joe", Decision: Approve, Subject: g.s.Subject(g.s.Item("licences"))}, "is not done")
	g.run("suite", "a", "", "")
	g.status(map[string]Status{"licences": Pending})
	g.sign("tested", "eve")
	g.sign("licences", "joe")
	g.status(map[string]Status{"licences": Complete})
}
