package release

import (
	"strings"
	"testing"

	"trysail/runbook"
)

// TestEndgameBegins: what was proposed before the endgame began is approved by as many as
// it wants, and a wait that passes begins it as a step does. A stream of the rules before
// folds as it did.
func TestEndgameBegins(t *testing.T) {
	for _, x := range []struct {
		what   string
		rules  int
		begins func(g *game)
		needs  int
	}{
		{"a step", 1, func(g *game) { g.must(Granted{Item: "freeze", Machine: "a"}) }, 1},
		{"a step", 2, func(g *game) { g.must(Granted{Item: "freeze", Machine: "a"}) }, 3},
		{"a wait", 1, func(g *game) { g.must(Passed{Item: "thaw"}) }, 1},
		{"a wait", 2, func(g *game) { g.must(Passed{Item: "thaw"}) }, 3},
		{"nothing of it", 2, func(*game) {}, 1},
	} {
		four := []string{"ann", "bob", "eve", "joe"}
		g := &game{tb: t, s: Empty()}
		g.must(Started{
			Version: "1", Rules: x.rules, Approver: four, Source: Source{VCS: "git", Revision: "abc"},
			Endgame: []runbook.Freeze{{Phase: "Freeze", Freezes: []string{"source"}, Approvals: 3}},
			Items: []runbook.Item{
				{Name: "freeze", Kind: runbook.Step, Role: "build", Phase: "Freeze"},
				{Name: "thaw", Kind: runbook.Wait, Phase: "Freeze"},
			},
		})
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def"}, Reason: "r", By: "ann"})
		x.begins(g)
		for i, who := range four[1 : 1+x.needs] {
			if g.s.Amendment == nil || g.s.Source.Revision != "abc" {
				t.Errorf("rules %d, %s: %d approvals are enough, and not %d", x.rules, x.what, i, x.needs)
				break
			}
			asks := g.s.Asks()
			if n := asks[len(asks)-1].Needed; n != x.needs-i {
				t.Errorf("rules %d, %s: after %d approvals %d more are asked for, and not %d", x.rules, x.what, i, n, x.needs-i)
			}
			g.must(Agreed{Amendment: open, Person: who, Decision: Approve})
		}
		if g.s.Source.Revision != "def" {
			t.Errorf("rules %d, %s: it is not in force with %d approvals", x.rules, x.what, x.needs)
		}
	}
}

// TestNobodyLeftToApprove: a change that needs more approvals now than there are people is
// rejected, by whoever may: gold waits for it.
func TestNobodyLeftToApprove(t *testing.T) {
	for _, who := range []string{"ann", "bob"} {
		g := begin(t)
		g.s.Started.Rules, g.s.Endgame = RulesNow, []runbook.Freeze{{Phase: "build", Freezes: []string{"source"}, Approvals: 2}}
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def"}, Reason: "r", By: "ann"})
		g.must(Granted{Item: "compile", Machine: "a"})
		g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
		asks := g.s.Asks()
		if k := asks[len(asks)-1]; k.Type != "refuse" || k.Needed != 1 || len(k.People) != 2 || !strings.Contains(k.What, "refuse it") {
			t.Errorf("it asks %+v", k)
		}
		g.must(Agreed{Amendment: open, Person: who, Decision: Reject})
		if g.s.Amendment != nil {
			t.Errorf("%s rejects it, and it is open", who)
		}
	}
}
