package release

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"trysail/runbook"
)

// TestPostpone: an amended runbook brings its ship date, if that is another than the one
// of the runbook before, and its budget. What waits for the ship date waits for the new one.
func TestPostpone(t *testing.T) {
	first, later, own := at(0).AddDate(0, 0, 7), at(0).AddDate(0, 0, 14), at(0).AddDate(0, 0, 9)
	for _, x := range []struct {
		what         string
		rules        int
		given, names time.Time // --ship, and the runbook's
		amended      time.Time
		ships        time.Time
	}{
		{"the runbook names another", 2, first, first, later, later},
		{"the runbook names an earlier one", 2, later, later, first, first},
		{"the runbook names the same", 2, first, first, first, first},
		{"it was given, and the runbook names what it did", 2, own, first, first, own},
		{"it was given, and the runbook names another", 2, own, first, later, later},
		{"it was given, and the runbook names it now", 2, own, first, own, own},
		{"it was given, and the runbook names one now", 2, own, time.Time{}, later, later},
		{"the runbook names none any more", 2, first, first, time.Time{}, first},
		{"by the rules of before", 1, first, first, later, first},
	} {
		g := &game{tb: t, s: Empty()}
		hold := runbook.Item{Name: "hold", Kind: runbook.Wait, Until: runbook.Moment{Before: 24 * time.Hour}}
		fixed := runbook.Item{Name: "fixed", Kind: runbook.Wait, Until: runbook.Moment{At: first}}
		up := runbook.Item{Name: "up", Kind: runbook.Step, Role: "build", Needs: []string{"hold"}}
		items := []runbook.Item{hold, fixed, up}
		g.must(Started{Version: "1", Rules: x.rules, Items: items, Approver: []string{"ann", "bob"}, Ship: x.given, Named: x.names, Budget: time.Hour})
		g.must(Passed{Item: "hold"})
		g.must(Passed{Item: "fixed"})
		g.run("up", "a", "", "")
		open := g.must(Amended{What: []string{"runbook"}, Runbook: "sha256:two", Items: items, Approver: []string{"ann", "bob"}, Ship: x.amended, Budget: 2 * time.Hour, Reason: "late", By: "ann"})
		moves := !x.ships.Equal(x.given)
		if asks := g.s.Asks(); len(asks) != 1 || strings.Contains(asks[0].What, "it would ship") != moves {
			t.Errorf("%s: before it is approved, it asks %+v", x.what, asks)
		}
		if !g.s.Ship.Equal(x.given) {
			t.Errorf("%s: it ships %s before that is approved", x.what, g.s.Ship)
		}
		g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
		if !g.s.Ship.Equal(x.ships) || (g.s.Budget == 2*time.Hour) != (x.rules >= 2) {
			t.Errorf("%s: it ships %s on a budget of %s", x.what, g.s.Ship, g.s.Budget)
		}
		_, next := g.s.Due(time.Time{})
		want := map[string]Status{"hold": Complete, "fixed": Complete, "up": Complete}
		if moves {
			want["hold"] = Ready
		}
		g.status(want)
		if moves != next.Equal(x.ships.Add(-24*time.Hour)) {
			t.Errorf("%s: the next wait ends %s", x.what, next)
		}
		o, err := g.s.Outlook(at(0), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if !o.Ends.Add(o.Slack).Equal(x.ships) {
			t.Errorf("%s: it ends %s with a slack of %s", x.what, o.Ends, o.Slack)
		}
		r, err := Retrospect(g.events, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if last := r.Changes[len(r.Changes)-1]; !r.Ship.Equal(x.ships) || r.Budget != g.s.Budget.Seconds() || strings.Contains(last.What, "it ships") != moves {
			t.Errorf("%s: looking back, it ships %s on a budget of %g: %s", x.what, r.Ship, r.Budget, last.What)
		}
	}
}

// TestAmendedBefore: an amendment that is in a ledger already comes back as it was.
func TestAmendedBefore(t *testing.T) {
	line := `{"seq":2,"time":"2026-11-24T09:00:00Z","actor":"a","type":"amended","body":{"what":["source"],"source":{"vcs":"git","revision":"r","original":"o"},"reason":"r","by":"ann"}}`
	var e Event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(e); err != nil || string(again) != line {
		t.Errorf("it comes back as %s: %v", again, err)
	}
}
