package drill

import (
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/release"
	"trysail/runbook"
)

func TestInForce(t *testing.T) {
	p, _ := rehearsed(t, nil)
	other := *p
	other.Name = "mirror-gone"
	day := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	run := func(dir string, p *Plan, daysBefore int, blueprint string, broken ...string) Run {
		h := built(t, []release.Machine{{Role: "compiler", Blueprint: blueprint}}, true, release.Granted{Item: "compile", Machine: "a"}, release.Finished{Item: "compile", Epoch: 2})
		h[0].Header = &Header{Run: dir, Began: day.AddDate(0, 0, -daysBefore), Broken: broken}
		return Run{dir, p, h}
	}
	roles := []release.Machine{{Role: "build", Blueprint: "sha256:b"}, {Role: "sign", Blueprint: "sha256:s"}, {Role: "upload"}}
	for _, x := range []struct {
		what string
		runs []Run
		want []string
	}{
		{"none", nil, nil},
		{"the last of each scenario, the oldest first", []Run{run("old", p, 30, "sha256:b"), run("other", &other, 40, "sha256:s"), run("new", p, 2, "sha256:b"), run("older", p, 31, "sha256:b")}, []string{"other", "new"}},
		{"another server", []Run{run("strange", p, 2, "sha256:x"), run("plain", p, 2, "")}, nil},
		{"one of another server is newer", []Run{run("strange", p, 2, "sha256:x"), run("ours", p, 20, "sha256:b")}, []string{"ours"}},
		{"after the day", []Run{run("late", p, -1, "sha256:b"), run("before", p, 3, "sha256:b")}, []string{"before"}},
		{"with a planted defect", []Run{run("planted", p, 1, "sha256:b", "two golds"), run("real", p, 3, "sha256:b")}, []string{"real"}},
		{"killed before its release began", []Run{{"killed", p, run("", p, 1, "").History[:1]}}, nil},
	} {
		var got []string
		for _, r := range InForce(x.runs, roles, day) {
			got = append(got, r.Dir)
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, not %v", x.what, got, x.want)
		}
	}
}

// built is the history of a drill in which machine a made its server or did not, and what
// happened to the release.
func built(t *testing.T, machines []release.Machine, made bool, bodies ...release.Body) []Record {
	t.Helper()
	h := []Record{{Seq: 1, Kind: Began, Header: &Header{Run: "r"}}}
	bodies = append([]release.Body{release.Started{Version: "1", Machines: machines, Items: []runbook.Item{
		{Name: "compile", Kind: runbook.Step, Role: machines[0].Role},
		{Name: "other", Kind: runbook.Step, Role: "nothing"},
	}}}, bodies...)
	for i, b := range bodies {
		e := release.Event{Seq: int64(i) + 1, Body: b}
		h = append(h, Record{Seq: int64(len(h)) + 1, Kind: Happened, Event: &e})
		if _, ok := b.(release.Granted); ok && made {
			h = append(h, Record{Seq: int64(len(h)) + 1, Kind: Warmed, Host: "a", Took: time.Minute})
		}
	}
	return h
}

// TestCovers: a drill covers a build server if a machine made it from exactly that blueprint
// and a step ended well in it.
func TestCovers(t *testing.T) {
	two := []release.Machine{{Role: "compiler", Blueprint: "sha256:b"}, {Role: "win", Blueprint: "sha256:w"}}
	roles := []release.Machine{{Role: "build", Blueprint: "sha256:b"}, {Role: "sign", Blueprint: "sha256:w"}, {Role: "upload"}}
	begins := release.Granted{Item: "compile", Machine: "a"}
	for _, x := range []struct {
		what   string
		made   bool
		bodies []release.Body
		want   []string
	}{
		{"a step ended well in it", true, []release.Body{begins, release.Finished{Item: "compile", Epoch: 2}}, []string{"build"}},
		{"nothing ran", true, nil, nil},
		{"the step still ran", true, []release.Body{begins}, nil},
		{"the step failed", true, []release.Body{begins, release.Finished{Item: "compile", Epoch: 2, Exit: 1}}, nil},
		{"its machine was lost", true, []release.Body{begins, release.Lost{Item: "compile", Epoch: 2, Machine: "a", Why: "w"}}, nil},
		{"no machine made the server", false, []release.Body{begins, release.Finished{Item: "compile", Epoch: 2}}, nil},
		{"another machine made it", true, []release.Body{release.Granted{Item: "compile", Machine: "b"}, release.Finished{Item: "compile", Epoch: 2}}, nil},
		{"a step of a role without a server", true, []release.Body{release.Granted{Item: "other", Machine: "a"}, release.Finished{Item: "other", Epoch: 2}}, nil},
	} {
		if got := Covers(built(t, two, x.made, x.bodies...), roles); !slices.Equal(got, x.want) {
			t.Errorf("%s: covers %v, not %v", x.what, got, x.want)
		}
	}
}

// TestOnBudgetOfADrill: a drill in which somebody did not say what signing took was not
// seen to be on budget.
func TestOnBudgetOfADrill(t *testing.T) {
	for _, x := range []struct {
		what    string
		silent  string
		budget  time.Duration
		value   Value
		says    string
		onCount bool
	}{
		{"all said", "", 4 * time.Hour, Pass, "on budget", true},
		{"bob did not", "bob", 4 * time.Hour, Unknown, "whether it was on budget is not known: bob did not report", false},
		{"bob did not, and ann alone is over it", "bob", 10 * time.Minute, Fail, "people spent 0.5 hours, and 0.2 is the budget", true},
	} {
		p, h := rehearsed(t, nil)
		change := func(e *release.Event) {
			switch b := e.Body.(type) {
			case release.Started:
				b.Budget = x.budget
				e.Body = b
			case release.Signed:
				if b.Person == x.silent {
					b.Spent = 0
					e.Body = b
				}
			}
		}
		for i := range h {
			if h[i].Name == x.silent {
				h[i].Spent = 0
			}
			if h[i].Event != nil {
				change(h[i].Event)
			}
			for j := range h[i].Ledger {
				change(&h[i].Ledger[j])
			}
		}
		v := Judge(p, h)
		if v.Value != x.value || !strings.Contains(v.Sentence, x.says) || (v.OnBudget != nil) != x.onCount {
			t.Errorf("%s: %s: %s", x.what, v.Value, v.Sentence)
		}
	}
}
