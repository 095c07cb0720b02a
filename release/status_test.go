package release

import (
	"fmt"
	"testing"
	"time"

	"trysail/runbook"
)

// crowd is a release of many items that need each other: a chain of sign-offs, and phases
// each of whose steps and sign-offs needs the whole phase before.
func crowd(t *testing.T, chained, phases, wide int) *game {
	t.Helper()
	b := Started{Version: "1", Ship: at(0).AddDate(0, 0, 7), Rules: RulesNow, Source: Source{VCS: "git"}, Items: []runbook.Item{{Name: "build", Kind: runbook.Step, Role: "build"}}}
	before := []string{"build"}
	for i := range chained {
		x := runbook.Item{Name: fmt.Sprintf("s%d", i), Kind: runbook.SignOff, Signers: []string{"ann"}, Approvals: 1}
		if i > 0 {
			x.Needs = []string{fmt.Sprintf("s%d", i-1)}
		}
		b.Items = append(b.Items, x)
	}
	for i := range phases {
		var names []string
		for k := range wide {
			x := runbook.Item{Name: fmt.Sprintf("p%d-%d", i, k), Kind: runbook.SignOff, Signers: []string{"ann"}, Approvals: 1, Needs: before}
			names, b.Items = append(names, x.Name), append(b.Items, x)
		}
		before = names
	}
	g := &game{tb: t, s: Empty()}
	g.must(b)
	return g
}

// TestManyItems: what is asked of a large release is answered while somebody waits for it,
// also when all is signed. It ends, or it does not.
func TestManyItems(t *testing.T) {
	g := crowd(t, 200, 30, 8)
	look := func(asks, left int) {
		t.Helper()
		if n := len(g.s.Asks()); n != asks {
			t.Errorf("it asks %d times, not %d", n, asks)
		}
		if n := len(g.s.Unfinished()); n != left {
			t.Errorf("%d items are not done, and not %d", n, left)
		}
		if _, err := g.s.Outlook(at(0), time.LoadLocation); err != nil {
			t.Error(err)
		}
	}
	look(1, 441)
	g.run("build", "a", "", "")
	for i, x := range g.s.Items[1:] {
		if i%40 == 0 {
			look(map[bool]int{true: 9, false: 8}[i < 200], 440-i)
		}
		g.sign(x.Name, "ann")
	}
	look(0, 0)
	if _, err := Retrospect(g.events, time.LoadLocation); err != nil {
		t.Error(err)
	}
}
