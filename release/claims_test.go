package release

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestOnTime: on time is known as far as control's clock can be believed.
func TestOnTime(t *testing.T) {
	ship := at(100)
	for _, c := range []struct {
		what  string
		at    time.Time
		backs []ClockBack
		want  string
	}{
		{"in time", at(90), nil, "yes"},
		{"to the second", at(100), nil, "yes"},
		{"late", at(101), nil, "no"},
		{"the clock went back, and the ship date is far", at(90), []ClockBack{{7, 5 * time.Minute}}, "yes"},
		{"the ship date lies within it", at(90), []ClockBack{{7, 11 * time.Minute}}, "not known"},
		{"within both of two", at(90), []ClockBack{{7, 6 * time.Minute}, {9, 6 * time.Minute}}, "not known"},
		{"just to the ship date", at(90), []ClockBack{{7, 10 * time.Minute}}, "yes"},
		{"late all the same", at(101), []ClockBack{{7, time.Hour}}, "no"},
	} {
		if got := said(OnTime(ship, c.at, c.backs)); got != c.want {
			t.Errorf("%s: on time: %s, not %s", c.what, got, c.want)
		}
	}
}

func said(ok *bool) string {
	switch {
	case ok == nil:
		return "not known"
	case *ok:
		return "yes"
	}
	return "no"
}

// TestClocksBack: an event that is earlier than the one before it is noticed, and what is
// only the difference of two controls is not.
func TestClocksBack(t *testing.T) {
	ledger := func(minutes ...float64) []Event {
		var list []Event
		for i, m := range minutes {
			list = append(list, Event{Seq: int64(i) + 1, Time: at(0).Add(time.Duration(m * float64(time.Minute)))})
		}
		return list
	}
	for _, c := range []struct {
		what   string
		events []Event
		want   []ClockBack
	}{
		{"nothing", nil, nil},
		{"forward", ledger(0, 1, 1, 50), nil},
		{"half a second back", ledger(0, 1, 1-0.5/60, 2), nil},
		{"once", ledger(0, 30, 10, 11), []ClockBack{{3, 20 * time.Minute}}},
		{"twice, and it stays behind", ledger(0, 30, 10, 11, 5, 40), []ClockBack{{3, 20 * time.Minute}, {5, 6 * time.Minute}}},
	} {
		if got := ClocksBack(c.events); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, not %v", c.what, got, c.want)
		}
	}
}

// TestOnBudget: who did not say what signing took keeps "on budget" from being known, unless
// what the others said is over it.
func TestOnBudget(t *testing.T) {
	signed := func(list ...Signed) []Event {
		var events []Event
		for _, b := range list {
			events = append(events, Event{Body: b})
		}
		return events
	}
	ann, bob, silent, no := Signed{Person: "ann", Spent: time.Hour}, Signed{Person: "bob", Spent: time.Hour}, Signed{Person: "bob"}, Signed{Person: "eve", Decision: Reject}
	for _, c := range []struct {
		what          string
		budget, spent time.Duration
		events        []Event
		silent        []string
		want          string
	}{
		{"all said", 2 * time.Hour, 2 * time.Hour, signed(ann, bob), nil, "yes"},
		{"all said, and it is over", 90 * time.Minute, 2 * time.Hour, signed(ann, bob), nil, "no"},
		{"nobody said", 16 * time.Hour, 0, signed(silent, no), []string{"bob", "eve"}, "not known"},
		{"one said twice, and once not", 16 * time.Hour, 2 * time.Hour, signed(ann, bob, silent), []string{"bob"}, "not known"},
		{"who rejected counts", 16 * time.Hour, time.Hour, signed(ann, no), []string{"eve"}, "not known"},
		{"over it without the others", 30 * time.Minute, time.Hour, signed(ann, silent), []string{"bob"}, "no"},
		{"no budget", 0, time.Hour, signed(ann), nil, "not known"},
		{"nobody signs", time.Hour, 0, nil, nil, "yes"},
	} {
		silent := Unreported(c.events)
		if got := said(OnBudget(c.budget, c.spent, silent)); got != c.want || !slices.Equal(silent, c.silent) {
			t.Errorf("%s: on budget: %s, not %s; %q did not say", c.what, got, c.want, silent)
		}
	}
}

// TestClaimsOfAReport: a report says what is not known, and why.
func TestClaimsOfAReport(t *testing.T) {
	g := lookedBack(t)
	g.must(Shipped{})
	for _, c := range []struct {
		what           string
		change         func(events []Event)
		onTime, budget string
		says           string
	}{
		{"all is known", func([]Event) {}, "yes", "yes", "before the ship date, on budget."},
		{"nobody said what it took", func(events []Event) {
			for i := range events {
				if b, ok := events[i].Body.(Signed); ok {
					b.Spent = 0
					events[i].Body = b
				}
			}
		}, "yes", "not known", "whether it was on budget is not known, since ann, bob, eve did not report"},
		{"the clock was put back before it shipped", func(events []Event) {
			for i := range events[:len(events)-1] {
				events[i].Time = events[i].Time.AddDate(0, 0, 20)
			}
		}, "not known", "yes", "whether it was on time is not known, since control's clock went back by 20 days"},
		{"the clock was put back a little", func(events []Event) {
			events[5].Time = events[5].Time.Add(10 * time.Minute)
		}, "yes", "yes", "before the ship date, on budget."},
	} {
		events := slices.Clone(g.events)
		c.change(events)
		r, err := Retrospect(events, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if said(r.OnTime) != c.onTime || said(r.OnBudget) != c.budget || !strings.Contains(r.Sentence(), c.says) {
			t.Errorf("%s: on time: %s; on budget: %s; %s", c.what, said(r.OnTime), said(r.OnBudget), r.Sentence())
		}
		if (len(r.Backs) > 0) != strings.Contains(r.Markdown(), "Times here are in doubt") || (len(r.Unreported) > 0) != strings.Contains(r.Markdown(), "more than is written here") {
			t.Errorf("%s: the report says\n%s", c.what, r.Markdown())
		}
	}
}
