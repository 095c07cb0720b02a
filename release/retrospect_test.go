package release

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A release with a machine lost, a word that was withdrawn, a test waived and a hold:
// each event a minute after the one before.
func lookedBack(t *testing.T) *game {
	t.Helper()
	g := begin(t)                                                                                                     // 9:00
	first := g.must(Granted{Item: "compile", Machine: "a"})                                                           // 9:01
	g.must(Lost{Item: "compile", Epoch: first, Machine: "a", Why: "no heartbeat"})                                    // 9:02
	second := g.must(Granted{Item: "compile", Machine: "b"})                                                          // 9:03
	g.must(Finished{Item: "compile", Epoch: second, Outputs: out("obj/a", "obj"), Took: 50 * time.Second})            // 9:04
	epoch := g.must(Granted{Item: "test", Machine: "b"})                                                              // 9:05
	g.must(Finished{Item: "test", Epoch: epoch, Tests: 9, Failing: []string{"t1"}, Took: 20 * time.Minute})           // 9:06
	g.must(Waived{Item: "test", Test: "t1", Person: "ann", Reason: "flaky | <b>"})                                    // 9:07
	epoch = g.must(Granted{Item: "gold", Machine: "b"})                                                               // 9:08
	g.must(Committed{Finished{Item: "gold", Epoch: epoch, Outputs: out("dist/app", "gold"), Took: 40 * time.Second}}) // 9:09
	epoch = g.must(Granted{Item: "gold", Machine: "c", Confirm: true})                                                // 9:10
	g.must(Confirmed{Epoch: epoch, Verdict: Identical, Took: 30 * time.Second})                                       // 9:11
	g.sign("tried", "ann")                                                                                            // 9:12
	g.sign("tried", "bob")                                                                                            // 9:13
	g.must(Withdrawn{Item: "tried", Person: "bob", Reason: "wrong box"})                                              // 9:14
	g.sign("tried", "bob")                                                                                            // 9:15
	g.sign("legal", "eve")                                                                                            // 9:16
	g.must(Held{Reason: "fire drill"})                                                                                // 9:17
	g.must(Resumed{})                                                                                                 // 9:18
	g.must(Passed{Item: "hold"})                                                                                      // 9:19
	epoch = g.must(Granted{Item: "upload", Machine: "c"})                                                             // 9:20
	g.must(Finished{Item: "upload", Epoch: epoch, Took: 10 * time.Second})                                            // 9:21
	s := g.events[0].Body.(Started)
	s.Budget = 5 * time.Hour
	g.events[0].Body = s
	return g
}

func TestRetrospect(t *testing.T) {
	g := lookedBack(t)
	open, err := Retrospect(g.events, time.LoadLocation)
	if err != nil || open.Outcome != "under way" || open.OnTime != nil {
		t.Errorf("before it ships: %+v %v", open, err)
	}
	g.must(Shipped{}) // 9:22
	r, err := Retrospect(g.events, time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.01 {
			t.Errorf("%s: %f, not %f", what, got, want)
		}
	}
	if r.Version != "4.2" || r.Revision != "abc" || r.Outcome != "shipped" || r.Gold != "identical" || r.OnTime == nil || !*r.OnTime || r.OnBudget == nil || !*r.OnBudget {
		t.Errorf("%+v", r)
	}
	near("slack", r.Slack, r.Ship.Sub(at(22)).Seconds())
	near("people", r.People, 4*3600)
	near("machines", r.Machine, 50+20*60+40+30+10)
	near("again", r.Again, 60)
	near("working", r.Working, 6*60) // six leases of a minute each
	near("waiting", r.Waiting, 16*60)
	steps := map[string]StepRun{}
	for _, s := range r.Steps {
		steps[s.Item] = s
	}
	if s := steps["compile"]; s.Runs != 2 || s.On != "b" || s.Took != 50 || s.Within == nil || !*s.Within || s.Result != "ended well" {
		t.Errorf("compile: %+v", s)
	}
	if s := steps["test"]; s.Within == nil || *s.Within { // ten minutes were planned
		t.Errorf("test: %+v", s)
	}
	if s := steps["gold"]; !s.Gold || s.Runs != 2 || s.On != "b" || s.Took != 40 {
		t.Errorf("gold: %+v", s)
	}
	if len(r.Losses) != 1 || r.Losses[0].Recovered != "b" || r.Losses[0].After != 60 || r.Losses[0].Ran != 60 {
		t.Errorf("lost: %+v", r.Losses)
	}
	if s := r.SignOffs[0]; s.Item != "tried" || s.Outcome != "approved" || s.Waited != 4*60 || len(s.Words) != 3 || s.Spent != 3*3600 || !s.Asked.Equal(at(11)) {
		t.Errorf("tried: %+v", s)
	}
	if s := r.SignOffs[1]; s.Item != "legal" || s.Waited != 16*60 { // it was asked at once
		t.Errorf("legal: %+v", s)
	}
	if len(r.Holds) != 1 || r.Holds[0].To == nil || len(r.Changes) != 2 || len(r.Team) != 3 || r.Team[1].Name != "bob" || r.Team[1].Words != 2 {
		t.Errorf("holds %+v, changes %+v, people %+v", r.Holds, r.Changes, r.Team)
	}
	text := r.Markdown()
	for _, want := range []string{"Release 4.2 shipped", "on budget", "| gold \\(gold\\) |", "over its budget", "b, after 60 s", "flaky \\| &lt;b&gt;", "held the release for 60 s"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	page, err := r.HTML()
	if err != nil || !strings.Contains(string(page), "flaky | &lt;b&gt;") || strings.Contains(string(page), "<b>") || strings.Count(string(page), "<table>") < 5 {
		t.Errorf("the page: %v\n%s", err, page)
	}
	if _, err := Retrospect(g.events[1:], time.LoadLocation); err == nil {
		t.Error("a ledger without its beginning is looked back at")
	}
}

// Whatever happens in a release, no time is counted twice and none is lost.
func TestRetrospectAdds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := begin(rt)
		machines := []string{"a", "b"}
		for range rapid.IntRange(0, 40).Draw(rt, "events") {
			leases := g.s.Leases()
			for _, item := range slices.Sorted(maps.Keys(leases)) {
				l := leases[item]
				switch rapid.SampledFrom([]string{"lost", "ends", "fails", "goes on"}).Draw(rt, "lease") {
				case "lost":
					g.must(Lost{Item: item, Epoch: l.Epoch, Machine: l.Machine, Why: "w"})
				case "ends", "fails":
					r := Report{Machine: l.Machine, Compared: Identical}
					r.Item, r.Epoch, r.Took = item, l.Epoch, time.Minute
					if rapid.Bool().Draw(rt, "exit") {
						r.Exit, r.Why = 1, "w"
					}
					g.must(g.s.Result(r))
				}
				break
			}
			for _, w := range g.s.Next() {
				if m := rapid.SampledFrom(machines).Draw(rt, "machine"); m != w.Not {
					_ = g.try(Granted{Item: w.Item, Machine: m, Confirm: w.Confirm})
				}
				break
			}
			_ = g.try(Held{Reason: "r"})
			_ = g.try(Resumed{})
		}
		r, err := Retrospect(g.events, time.LoadLocation)
		if err != nil {
			rt.Fatal(err)
		}
		if all := r.Ended.Sub(r.Began).Seconds(); math.Abs(r.Working+r.Waiting-all) > 0.01 || r.Working < 0 || r.Waiting < 0 {
			rt.Fatalf("%f worked and %f waited of %f", r.Working, r.Waiting, all)
		}
		runs, losses := 0, 0
		for _, s := range r.Steps {
			runs += s.Runs
		}
		for _, e := range g.events {
			switch e.Body.(type) {
			case Granted:
				runs--
			case Lost:
				losses++
			}
		}
		if runs != 0 || losses != len(r.Losses) {
			rt.Fatalf("%d runs too many, %d losses and not %d", runs, len(r.Losses), losses)
		}
		if _, err := json.Marshal(r); err != nil {
			rt.Fatal(err)
		}
		if _, err := r.HTML(); err != nil {
			rt.Fatal(err)
		}
	})
}

// A waiver is on record with the exit status of the script whose test failed.
func TestReportOfAWaiver(t *testing.T) {
	for _, c := range []struct {
		status int
		want   string
	}{
		{0, "waived test t1 of suite"},
		{1, "waived test t1 of suite, whose script ended with exit status 1"},
		{2, "waived test t1 of suite, whose script ended with exit status 2"},
	} {
		g := beginOf(t, signoffs)
		g.run("compile", "a", "obj/a", "object")
		g.must(Finished{Item: "suite", Epoch: g.must(Granted{Item: "suite", Machine: "a"}), Status: c.status, Tests: 2, Failing: []string{"t1"}})
		g.must(Waived{Item: "suite", Test: "t1", Person: "ann", Reason: "flaky"})
		r, err := Retrospect(g.events, time.LoadLocation)
		if err != nil || len(r.Changes) != 1 || r.Changes[0].What != c.want {
			t.Errorf("status %d: %+v (%v)", c.status, r.Changes, err)
		}
	}
}
