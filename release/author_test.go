package release

import (
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/runbook"
)

// TestAuthorsAreNotAsked: who wrote what is released may not sign for it, so they are not
// asked, nor waited for; and what nobody else may sign wants another plan.
func TestAuthorsAreNotAsked(t *testing.T) {
	now := at(0)
	begun := func(rules int, author string, approvals int, signers ...string) *game {
		g := &game{tb: t, s: Empty()}
		office := runbook.Hours{Zone: "UTC", Days: []string{"mon", "tue", "wed", "thu", "fri"}, From: "09:00", To: "17:00"}
		away := office
		away.Off = []string{"2026-11-24..2026-12-24"}
		g.must(Started{
			Version: "1", Rules: rules, Ship: now.AddDate(0, 0, 7), Source: Source{VCS: "git", Revision: "abc", Original: "one", Author: author},
			Team: office, People: []Person{{Name: "ann", Hours: office}, {Name: "bob", Hours: away}}, Approver: []string{"eve", "joe"},
			Items: []runbook.Item{
				{Name: "legal", Kind: runbook.SignOff, Signers: signers, Approvals: approvals, Budget: time.Hour, Text: "licences"},
				{Name: "after", Kind: runbook.Step, Role: "build", Needs: []string{"legal"}},
			},
		})
		return g
	}
	asked := func(what string, g *game, kind string, needed int, ends time.Time, people ...string) {
		t.Helper()
		asks := g.s.Asks()
		if len(asks) != 1 || asks[0].Type != kind || asks[0].Needed != needed || !slices.Equal(asks[0].People, people) || (kind == "sign") != (asks[0].What == "licences") {
			t.Errorf("%s: it asks %+v", what, asks)
		}
		o, err := g.s.Outlook(now, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if !o.Ends.Equal(ends) {
			t.Errorf("%s: it ends %s, and not %s", what, o.Ends, ends)
		}
	}
	back := time.Date(2026, 12, 25, 10, 0, 0, 0, time.UTC)
	asked("nobody's", begun(RulesNow, "", 1, "ann", "bob"), "sign", 1, at(60), "ann", "bob")
	asked("ann's", begun(RulesNow, "ann", 1, "ann", "bob"), "sign", 1, back, "bob")
	asked("ann's, by the first rules", begun(0, "ann", 1, "ann", "bob"), "sign", 1, back, "bob")
	asked("ann's, who alone signs", begun(RulesNow, "ann", 1, "ann"), "amend", 1, at(60), "eve", "joe")
	asked("ann's, of whom two are wanted", begun(RulesNow, "ann", 2, "ann", "bob"), "amend", 1, back, "eve", "joe")

	// She signed, and then wrote what is released.
	rewritten := func(rules int, signers ...string) *game {
		g := begun(rules, "", 1, signers...)
		g.sign("legal", "ann")
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "two", Author: "ann"}, Reason: "r", By: "eve"})
		g.must(Agreed{Amendment: open, Person: "joe", Decision: Approve})
		return g
	}
	asked("ann's, who has signed", rewritten(RulesNow, "ann", "bob"), "sign", 1, back, "bob")
	asked("ann's, who alone has signed", rewritten(RulesNow, "ann"), "amend", 1, at(60), "eve", "joe")
	if g := rewritten(0, "ann"); len(g.s.Asks()) != 0 || g.s.Status(g.s.Item("legal")) != Complete {
		t.Errorf("by the first rules her word counts: it asks %+v", g.s.Asks())
	}
}

// TestAuthorsAreKnownBeforeGold: a sign-off that nobody may give is known before its turn
// comes, while the plan can be changed.
func TestAuthorsAreKnownBeforeGold(t *testing.T) {
	g := begin(t)
	g.s.Source.Author = "bob"
	asks := g.s.Asks()
	if i := slices.IndexFunc(asks, func(a Ask) bool { return a.Item == "tried" }); i < 0 || asks[i].Type != "amend" || !strings.Contains(asks[i].What, "bob wrote") {
		t.Errorf("it asks %+v", asks)
	}
	g.run("compile", "a", "obj/a", "obj")
	g.run("test", "a", "", "")
	g.run("gold", "a", "dist/app", "gold")
	if asks = g.s.Asks(); len(asks) != 2 || asks[0].Item != "tried" || asks[0].Type != "abort" {
		t.Errorf("after gold it asks %+v", asks)
	}
}
