package release

import (
	"slices"
	"strings"
	"testing"
)

// TestEndgameStays: what is frozen stays so, whatever the runbook says later.
func TestEndgameStays(t *testing.T) {
	const rule = "endgame:\n  - {phase: Build, freezes: [source], approvals: 2}\n"
	for _, c := range []struct {
		what   string
		edit   []string
		source int
		more   int // for the runbook
	}{
		{"nothing", []string{"budget 1h", "budget 2h"}, 2, 1},
		{"the heading is renamed", []string{"## Build\n", "## Build and test\n", "phase: Build,", "phase: Build and test,"}, 2, 1},
		{"the rule is removed", []string{rule, ""}, 2, 1},
		{"the rule is weaker", []string{"approvals: 2", "approvals: 1"}, 2, 1},
		{"the rule is for another phase", []string{"phase: Build,", "phase: Ship,"}, 2, 1},
		{"what began moves to another phase", []string{"## Build\n\n", "## First\n\n", "```sh {\"name\":\"suite\"", "## Build\n\n```sh {\"name\":\"suite\""}, 2, 1},
		{"the rule is stricter", []string{"approvals: 2", "approvals: 3"}, 3, 1},
		{"a rule is added", []string{"freezes: [source]", "freezes: [source, runbook]"}, 2, 2},
		{"a rule is added for a phase that was renamed", []string{"## Build\n", "## Build and test\n", rule, "endgame:\n  - {phase: Build and test, freezes: [runbook], approvals: 3}\n"}, 2, 3},
		{"a rule is added for a phase to come", []string{rule, rule + "  - {phase: Ship, freezes: [runbook], approvals: 3}\n"}, 2, 1},
	} {
		g := beginOf(t, signoffs)
		if n := g.s.Frozen([]string{"source"}); n != 1 {
			t.Errorf("before it begins, %d", n)
		}
		g.run("compile", "a", "obj/a", "o")
		g.edits(signoffs, c.edit...)
		if n, more := g.s.Frozen([]string{"source"}), g.s.Frozen([]string{"runbook"}); n != c.source || more != c.more {
			t.Errorf("%s: a change of the source needs %d, and not %d; of the runbook %d, and not %d", c.what, n, c.source, more, c.more)
		}
		if n := g.s.Frozen([]string{"machines", "source"}); n != max(c.source, 1) {
			t.Errorf("%s: of both it needs %d", c.what, n)
		}
	}
}

// TestAfterGold: a release is postponed, and nothing else of it changes.
func TestAfterGold(t *testing.T) {
	ready := func() *game {
		g := beginOf(t, signoffs)
		g.builds()
		g.sign("tested", "eve")
		g.must(Passed{Item: "hold"})
		g.confirms()
		return g
	}
	for _, c := range []struct {
		what string
		edit []string
		ok   bool
	}{
		{"a later ship date", []string{"ship: 2026-12-01", "ship: 2026-12-04"}, true},
		{"a later wait", []string{"\"until\":\"ship\"", "\"until\":\"2026-12-01T08:00:00Z\"", "ship: 2026-12-01", "ship: 2026-12-02"}, false}, // it is earlier
		{"a wait of a later time", []string{"\"until\":\"ship\"", "\"until\":\"2026-12-02T08:00:00Z\"", "ship: 2026-12-01", "ship: 2026-12-02"}, true},
		{"an earlier ship date", []string{"ship: 2026-12-01", "ship: 2026-11-30"}, false},
		{"an earlier wait", []string{"\"until\":\"ship\"", "\"until\":\"ship-1d\""}, false},
		{"a wait that is over", []string{"\"until\":\"ship-2d\"", "\"until\":\"ship-1d\""}, false},
		{"a script too", []string{"ship: 2026-12-01", "ship: 2026-12-04", "\nup\n", "\nup again\n"}, false},
		{"who signs too", []string{"ship: 2026-12-01", "ship: 2026-12-04", "legal: [eve, joe]", "legal: [eve, joe, kim]"}, false},
		{"the approvers too", []string{"ship: 2026-12-01", "ship: 2026-12-04", "approvers: [ann, bob, eve]", "approvers: [ann, bob, eve, joe]"}, false},
		{"the endgame too", []string{"ship: 2026-12-01", "ship: 2026-12-04", "approvals: 2", "approvals: 1"}, false},
		{"prose alone", []string{"## Ship\n", "## Ship\n\nQuickly.\n"}, false},
	} {
		g := ready()
		gold := g.s.Runbook
		b := amendment(t, strings.NewReplacer(c.edit...).Replace(signoffs))
		if !c.ok {
			g.refused(b, "gold is committed")
			continue
		}
		g.changes(b)
		if !g.s.Ship.Equal(b.Ship) || g.s.Runbook != b.Runbook || g.s.Gold.Runbook != gold {
			t.Errorf("%s: ships %s, by %s, gold by %s", c.what, g.s.Ship, g.s.Runbook, g.s.Gold.Runbook)
		}
		g.status(map[string]Status{"gold": Complete, "tested": Complete, "embargo": Ready, "upload": Pending})
	}
	g := ready()
	g.refused(Amended{What: []string{"source"}, Source: &Source{VCS: "git"}, Reason: "r", By: "kim"}, "gold is committed")
	g.refused(Amended{What: []string{"machines"}, Machines: []Machine{{Role: "build"}}, Reason: "r", By: "kim"}, "gold is committed")
	both := amendment(t, strings.Replace(signoffs, "ship: 2026-12-01", "ship: 2026-12-04", 1))
	both.What, both.Signers = []string{"runbook", "signers"}, "sha256:s"
	g.changes(both)

	// The wait ends while its later time is decided on.
	g = ready()
	open := g.must(amendment(t, strings.NewReplacer("\"until\":\"ship\"", "\"until\":\"2026-12-02T08:00:00Z\"", "ship: 2026-12-01", "ship: 2026-12-02").Replace(signoffs)))
	g.must(Passed{Item: "embargo"})
	g.refused(Agreed{Amendment: open, Person: "ann", Decision: Approve}, "gold is committed")
	if asks := g.s.Asks(); !slices.ContainsFunc(asks, func(a Ask) bool { return a.Type == "refuse" }) {
		t.Errorf("asks %+v", asks)
	}
}
