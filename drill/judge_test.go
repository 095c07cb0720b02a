package drill

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trysail/release"
)

func near(a, b float64) bool { return math.Abs(a-b) < 0.02 }

func TestGoodHistory(t *testing.T) {
	p, h := rehearsed(t, nil)
	v := Judge(p, h)
	if v.Value != Pass || len(v.System.Why)+len(v.Harness.Why)+len(v.Cleanup.Why) > 0 {
		t.Fatalf("%+v", v)
	}
	want := "Rehearsed on one host: 3 faults took effect, and the release shipped on time, 43.8 h before the ship date, on budget. Machines worked 28 s (measured); people 2.5 h (modelled)."
	if v.Sentence != want {
		t.Errorf("the sentence is\n%s\nand not\n%s", v.Sentence, want)
	}
	if !v.Shipped || v.OnTime == nil || !*v.OnTime || v.OnBudget == nil || !*v.OnBudget || v.Gold != "identical" || !near(v.People, 2.5) {
		t.Errorf("%+v", v)
	}
	// 2 compile, 1 + 5 suite, 1 + 9 gold, 4 second build, 6 docs beside it; a machine
	// that is gone does not work until that is noticed.
	if !near(v.Machine, 28) {
		t.Errorf("machine time %f", v.Machine)
	}
	if got := v.Skipped; !near(got, (72*time.Hour + time.Hour + 120*time.Hour + 10*time.Minute + time.Hour + 2*time.Hour).Seconds()) {
		t.Errorf("skipped %f", got)
	}
	if v.Overhead < 0.01 || v.Overhead > 0.2 { // a millisecond for each record between
		t.Errorf("overhead %f", v.Overhead)
	}
	for i, want := range []Bite{
		{Name: "primary-dies", Detected: 4, Moved: 4, To: "backup", Wasted: 1, ForGood: true},
		{Name: "backup-hangs", Detected: 4, Moved: 4, To: "second", Wasted: 1, Undone: true},
		{Name: "ann-away", Undone: true},
	} {
		b := v.Faults[i]
		if b.Name != want.Name || !b.Verified || !near(b.Detected, want.Detected) || !near(b.Moved, want.Moved) || b.To != want.To || !near(b.Wasted, want.Wasted) || b.Undone != want.Undone || b.ForGood != want.ForGood || b.Slack == nil {
			t.Errorf("%+v, and not %+v", b, want)
		}
	}
	for _, m := range v.Measured {
		if m.Limit > 0 && (m.Met == nil || !*m.Met) {
			t.Errorf("%+v", m)
		}
	}
}

// find gives the place of a record.
func find(t testing.TB, h []Record, kind Kind, name, host string) int {
	t.Helper()
	i := slices.IndexFunc(h, func(r Record) bool {
		return r.Kind == kind && (name == "" || r.Name == name) && (host == "" || r.Host == host)
	})
	if i < 0 {
		t.Fatalf("there is no %s %s %s", kind, name, host)
	}
	return i
}

// change is one way in which a history differs from the good one.
type change func(t testing.TB, h []Record) []Record

func drop(kind Kind, name, host string) change {
	return func(t testing.TB, h []Record) []Record {
		i := find(t, h, kind, name, host)
		return slices.Delete(h, i, i+1)
	}
}

func edit(kind Kind, name, host string, f func(r *Record)) change {
	return func(t testing.TB, h []Record) []Record {
		f(&h[find(t, h, kind, name, host)])
		return h
	}
}

func no(why string) func(*Record) {
	return func(r *Record) {
		ok := false
		r.OK, r.Why = &ok, why
	}
}

func nobody(r *Record) { r.OK, r.Why = nil, "no answer" }

// add puts a record behind another.
func add(kind Kind, name, host string, r Record) change {
	return func(t testing.TB, h []Record) []Record {
		i := find(t, h, kind, name, host)
		r.At, r.Clock = h[i].At, h[i].Clock
		return slices.Insert(h, i+1, r)
	}
}

// slower makes all from a record on later in real time.
func slower(kind Kind, name, host string, d time.Duration) change {
	return func(t testing.TB, h []Record) []Record {
		for i := find(t, h, kind, name, host); i < len(h); i++ {
			h[i].At += d
		}
		return h
	}
}

// cutShort ends a history behind a record, as a drill that is killed does.
func cutShort(kind Kind, name, host string, more ...Record) change {
	return func(t testing.TB, h []Record) []Record {
		i := find(t, h, kind, name, host)
		h = h[:i+1]
		for _, r := range more {
			r.At, r.Clock = h[i].At, h[i].Clock
			h = append(h, r)
		}
		return h
	}
}

// ledger changes what is read in the end.
func ledger(f func(l []release.Event) []release.Event) change {
	return edit(Reread, "", "", func(r *Record) { r.Ledger = f(slices.Clone(r.Ledger)) })
}

func both(list ...change) change {
	return func(t testing.TB, h []Record) []Record {
		for _, f := range list {
			h = f(t, h)
		}
		return h
	}
}

func TestJudge(t *testing.T) {
	yes := true
	for _, x := range []struct {
		name                     string
		old, new                 string // of the scenario
		differ                   func(*story)
		change                   change
		system, harness, cleanup Value  // "" is pass
		why                      string // "" if it passes
	}{
		// The axes, and what beats what.
		{name: "the end is missing", change: drop(Ended, "", ""), harness: Unknown, why: "did not run to its end"},
		{name: "stopped", change: add(Asked2, "hosts-up", "", Record{Kind: Stopped, Why: "interrupted"}), harness: Unknown, why: "was stopped: interrupted"},
		{name: "a guard", change: add(Asked2, "hosts-up", "", Record{Kind: Guarded, Why: "it took longer than 20m"}), harness: Unknown, why: "a guard stopped"},
		{name: "fail beats unknown", change: both(drop(Ended, "", ""), edit(Undone, "backup-hangs", "", no("rule left"))), harness: Unknown, cleanup: Fail, why: "backup-hangs was not undone: rule left"},
		{name: "planted", change: edit(Began, "", "", func(r *Record) { r.Header.Broken = []string{"two golds"} }), harness: Unknown, why: "planted on purpose"},

		// The history itself.
		{name: "another scenario", old: "within: 20m", new: "within: 21m", change: edit(Began, "", "", func(r *Record) { r.Header.Scenario = "sha256:0" }), harness: Unknown, why: "another scenario: sha256:0"},
		{name: "another release", change: func(_ testing.TB, h []Record) []Record {
			for i := range h {
				for k := range h[i].Ledger {
					if s, ok := h[i].Ledger[k].Body.(release.Started); ok {
						s.Ship = s.Ship.Add(time.Hour)
						h[i].Ledger[k].Body = s
					}
				}
				if h[i].Event != nil && h[i].Event.Seq == 1 {
					s := h[i].Event.Body.(release.Started)
					s.Ship = s.Ship.Add(time.Hour)
					e := *h[i].Event
					e.Body = s
					h[i].Event = &e
				}
			}
			return h
		}, harness: Unknown, why: "and not the scenario's"},
		{name: "time goes back", change: edit(Ended, "", "", func(r *Record) { r.At = 1 }), harness: Unknown, why: "not in order"},

		// Faults, probes and actions.
		{name: "its probe says no", change: both(edit(Probed, "primary-dies", "", func(r *Record) { *r = Record{Kind: Probed, Name: "primary-dies", OK: new(bool), Before: true} }), func(t testing.TB, h []Record) []Record {
			for i := range h {
				if h[i].Kind == Probed && h[i].Name == "primary-dies" && !h[i].Before {
					no("it still runs")(&h[i])
				}
			}
			return h
		}), system: Unknown, harness: Unknown, why: "primary-dies: no probe saw it take effect"},
		{name: "no probe", change: func(t testing.TB, h []Record) []Record {
			return slices.DeleteFunc(h, func(r Record) bool { return r.Kind == Probed && r.Name == "backup-hangs" && !r.Before })
		}, system: Unknown, harness: Unknown, why: "backup-hangs: no probe saw it take effect"},
		{name: "a probe that always says yes", change: edit(Probed, "primary-dies", "", func(r *Record) { r.OK = &yes }), system: Unknown, harness: Unknown, why: "said yes before it was injected"},
		{name: "a probe without an answer before", change: edit(Probed, "primary-dies", "", nobody), system: Unknown, harness: Unknown, why: "had no answer before"},
		{name: "a probe that was not asked before", change: drop(Probed, "primary-dies", ""), system: Unknown, harness: Unknown, why: "not asked before"},
		{name: "not injected", change: both(edit(Injected, "primary-dies", "", no("no cgroup")), drop(Intended, "primary-dies", "")), system: Unknown, harness: Unknown, why: "primary-dies was not injected: no cgroup"},
		{name: "its undo was not on disk", change: drop(Intended, "primary-dies", ""), harness: Unknown, why: "undo was on disk"},
		{name: "a fault that was never reached", change: func(t testing.TB, h []Record) []Record {
			return slices.DeleteFunc(h, func(r Record) bool { return r.Name == "ann-away" })
		}, harness: Unknown, why: "ann-away was never reached: gold confirming"},
		{name: "an action that was never reached", change: drop(Done, "readmit", ""), harness: Unknown, system: Unknown, why: "readmit was never reached"},
		{name: "an action that failed", change: edit(Done, "readmit", "", no("no such machine")), harness: Unknown, system: Unknown, why: "readmit could not be done: no such machine"},
		{name: "who is away decides", change: add(Probed, "ann-away", "", Record{Kind: Decided, Name: "ann", OK: &yes, Why: "approve: tried"}), harness: Unknown, why: "ann was to be away, and decided"},

		// Limits.
		{name: "noticed too late", change: func(t testing.TB, h []Record) []Record {
			i := find(t, h, Probed, "primary-dies", "") + 3
			for ; i+1 < len(h); i++ {
				h[i+1].At += 3 * time.Second
			}
			return h
		}, system: Fail, why: "primary-dies was detected after 7 s, and 5s is the limit"},
		{name: "a jump before it is noticed counts", change: add(Injected, "primary-dies", "", Record{Kind: Jumped, Took: time.Hour}), system: Fail, why: "primary-dies was detected after 60m04s"},
		{name: "moved too late", old: "moved: 6s}\n  - {name: backup", new: "moved: 2s}\n  - {name: backup", system: Fail, why: "primary-dies was moved after 4 s, and 2s is the limit"},
		{name: "a jump before it moves counts", change: func(t testing.TB, h []Record) []Record {
			i := slices.IndexFunc(h, func(r Record) bool { return r.Event != nil && r.Event.Type == "lost" })
			return slices.Insert(h, i+1, Record{Kind: Jumped, Took: 24 * time.Hour, At: h[i].At})
		}, system: Fail, why: "primary-dies was moved after 24 h"},
		{name: "never noticed", change: func(t testing.TB, h []Record) []Record {
			h = slices.DeleteFunc(h, func(r Record) bool { return r.Kind == Sighted && r.Host == "primary" })
			return rewrite(h, func(e *release.Event) {
				if b, ok := e.Body.(release.Lost); ok && b.Machine == "primary" {
					b.Machine = "other"
					e.Body = b
				}
			})
		}, system: Fail, why: "primary-dies was never detected"},
		{name: "never noticed, and soon undone", change: both(func(t testing.TB, h []Record) []Record {
			h = slices.DeleteFunc(h, func(r Record) bool {
				return r.Kind == Sighted && r.Host == "backup" && r.Why != "up" || r.Kind == Undone && r.Name == "backup-hangs"
			})
			i := find(t, h, Done, "readmit", "")
			h = slices.Insert(h, i, Record{Kind: Undone, Name: "backup-hangs", OK: &yes, At: h[i].At})
			return h
		}), system: Unknown, why: "whether backup-hangs is detected within 5s is not known: it lasted 0 s only"},
		{name: "a later loss is not its doing", old: "fault: machine-lost, host: primary", new: "fault: disk-full, host: primary, for: 1h", change: both(
			func(t testing.TB, h []Record) []Record {
				i := find(t, h, Probed, "primary-dies", "") + 3 // the probe while it is in force
				if h[i].Kind != Probed || h[i].Before {
					t.Fatalf("%+v", h[i])
				}
				return slices.Insert(h, i+1, Record{Kind: Undone, Name: "primary-dies", OK: &yes, At: h[i].At})
			}), system: Unknown, why: "whether primary-dies is detected within 5s is not known: it lasted"},
		{name: "nothing ran there", change: nothingRan, system: Unknown, why: "whether primary-dies is moved within 6s is not known: nothing ran on primary then"},
		{name: "rebuilt too late", change: edit(Warmed, "", "second", func(r *Record) { r.Took = 6 * time.Second }), system: Fail, why: "second was rebuilt after 6 s, and 5s is the limit"},
		{name: "never rebuilt", change: drop(Warmed, "", "second"), system: Fail, why: "second was never rebuilt"},
		{name: "rebuilt, and nobody saw it begin", change: edit(Warmed, "", "second", func(r *Record) { r.Took = 0 }), system: Unknown, why: "nobody saw it begin"},

		// What becomes of the release.
		{name: "late", differ: func(s *story) { s.late = 60 * time.Hour }, system: Fail, why: "after the ship date"},
		{name: "late, as expected", old: "  on_time: true\n", new: "", differ: func(s *story) { s.late = 60 * time.Hour }},
		{name: "over budget", differ: func(s *story) { s.spent = 5 * time.Hour }, system: Fail, why: "people spent 5.5 hours, and 4.0 is the budget"},
		{name: "what nobody took was spent too", change: add(Asked2, "hosts-up", "", Record{Kind: Decided, Name: "ann", OK: new(bool), Why: "approve: tried: gone", Spent: 2 * time.Hour}), system: Fail, why: "people spent 4.5 hours"},
		{name: "no budget", change: func(t testing.TB, h []Record) []Record {
			return rewrite(h, func(e *release.Event) {
				if b, ok := e.Body.(release.Started); ok {
					b.Budget = 0
					e.Body = b
				}
			})
		}, system: Unknown, why: "the runbook has no budget"},
		{name: "over budget, as expected", old: "  on_budget: true\n", new: "", differ: func(s *story) { s.spent = 5 * time.Hour }},
		{name: "it does not ship", differ: func(s *story) {
			s.end = func(s *story) { s.add(Record{Kind: Stuck, Why: "tried: installed"}) }
		}, system: Fail, why: "the release did not ship: tried: installed"},
		{name: "it does not ship, as expected", old: "  on_time: true\n  on_budget: true\n", new: "  ships: false\n", differ: func(s *story) {
			s.end = func(s *story) { s.add(Record{Kind: Stuck, Why: "tried: installed"}) }
		}},
		{name: "it ships, and must not", old: "  on_time: true\n  on_budget: true\n", new: "  ships: false\n", system: Fail, why: "shipped, and must not"},
		{name: "aborted", differ: func(s *story) {
			s.end = func(s *story) { s.happened(release.Aborted{Reason: "a defect"}) }
		}, system: Fail, why: "aborted: a defect"},
		{name: "whether it would have shipped is not known", change: cutShort(Happened, "gold", "", Record{Kind: Stopped, Why: "interrupted"}), system: Unknown, harness: Unknown, cleanup: Unknown, why: "interrupted"},
		{name: "gold differs", differ: func(s *story) {
			s.verdict = release.Different
			s.end = func(s *story) { s.add(Record{Kind: Stuck, Why: "gold: the second build made other bytes"}) }
		}, system: Fail, why: "the release did not ship: gold: the second build made other bytes"},
		{name: "gold differs, and that is all that is asked", old: "  on_time: true\n  on_budget: true\n  gold: identical\n", new: "  ships: false\n", differ: func(s *story) {
			s.verdict = release.Different
			s.end = func(s *story) { s.add(Record{Kind: Stuck, Why: "gold"}) }
		}, system: Fail, why: "the second build of gold made other bytes"},
		{name: "nobody signs for what differs", old: "  on_time: true\n  on_budget: true\n  gold: identical\n", new: "  ships: false\n  gold: equivalent\n", differ: func(s *story) {
			s.verdict = release.Equivalent
			s.end = func(s *story) { s.add(Record{Kind: Stuck, Why: "gold"}) }
		}, system: Fail, why: "nobody signed for the differences"},
		{name: "no second build", old: "  on_time: true\n  on_budget: true\n  gold: identical\n", new: "  ships: false\n", change: func(t testing.TB, h []Record) []Record {
			at := find(t, h, Happened, "confirmed", "")
			n := h[at].Event.Seq
			h = slices.DeleteFunc(h, func(r Record) bool {
				return r.Event != nil && r.Event.Seq >= n || r.Kind == Told && r.Ack.Seq >= n || r.Kind == Told && r.Ack.Type == "shipped"
			})
			return ledger(func(l []release.Event) []release.Event { return l[:n-1] })(t, h)
		}, system: Fail, why: "in the end gold is not confirmed by a second build"},
		{name: "identical is equivalent", old: "gold: identical", new: "gold: equivalent"},

		// The rules, and what was acknowledged.
		{name: "an acknowledged event is gone", change: ledger(func(l []release.Event) []release.Event { return l[:len(l)-1] }), system: Fail, why: "was seen, and the ledger ends at"},
		{name: "acknowledged, and never there", change: both(ledger(func(l []release.Event) []release.Event { return l[:len(l)-1] }), func(t testing.TB, h []Record) []Record {
			return slices.DeleteFunc(h, func(r Record) bool { return r.Event != nil && r.Event.Type == "shipped" })
		}), system: Fail, why: "was acknowledged, and the ledger ends at"},
		{name: "the ledger says otherwise", change: ledger(func(l []release.Event) []release.Event {
			l[1].Actor = "somebody else"
			return l
		}), system: Fail, why: "in the end the ledger says otherwise"},
		{name: "nobody read it again", change: drop(Reread, "", ""), system: Unknown, why: "not read again in the end"},
		{name: "it could not be read again", change: edit(Reread, "", "", no("control is gone")), system: Unknown, why: "control is gone"},
		{name: "an event that was not seen", change: func(t testing.TB, h []Record) []Record {
			return slices.DeleteFunc(h, func(r Record) bool { return r.Event != nil && r.Event.Type == "shipped" })
		}, harness: Unknown, why: "(shipped) was not seen when it happened"},
		{name: "nothing was acknowledged", change: func(t testing.TB, h []Record) []Record {
			return slices.DeleteFunc(h, func(r Record) bool { return r.Kind == Told })
		}, system: Unknown, why: "nothing was acknowledged"},
		{name: "two golds", change: secondGold, system: Fail, why: "the ledger does not fold: event 19 (gold)"},
		{name: "no events", change: func(t testing.TB, h []Record) []Record {
			h = slices.DeleteFunc(h, func(r Record) bool { return r.Kind == Happened })
			h[find(t, h, Reread, "", "")].Ledger = nil
			return h
		}, system: Fail, why: "nothing is known of the release"},

		// Steady state.
		{name: "not steady before", change: edit(Asked, "hosts-up", "", no("spare is lost")), harness: Unknown, why: "steady state before: hosts-up is not so: spare is lost"},
		{name: "not answered before", change: drop(Asked, "hosts-up", ""), harness: Unknown, why: "before: hosts-up was not answered"},
		{name: "not steady after", change: edit(Asked2, "hosts-up", "", no("spare is lost")), system: Fail, why: "steady state after: hosts-up is not so: spare is lost"},
		{name: "not answered after", change: edit(Asked2, "hosts-up", "", nobody), system: Unknown, why: "after: hosts-up was not answered: no answer"},
		{name: "asked too late", change: func(t testing.TB, h []Record) []Record {
			i, k := find(t, h, Asked, "hosts-up", ""), find(t, h, Undone, "ann-away", "")
			r := h[i]
			r.At = h[k].At
			return slices.Delete(slices.Insert(h, k+1, r), i, i+1)
		}, harness: Unknown, why: "before: hosts-up was not answered"},

		// Invariants.
		{name: "never moved", old: "  faults:\n  - {name: primary-dies, detected: 5s, moved: 6s}\n  - {name: backup-hangs, detected: 5s, moved: 6s}\n", change: func(t testing.TB, h []Record) []Record {
			return rewrite(h, func(e *release.Event) {
				if b, ok := e.Body.(release.Lost); ok {
					b.Machine = "other"
					e.Body = b
				}
			})
		}, system: Unknown, why: "moved was never reached"},
		{name: "never rebuilt, and only to be reached", old: "  rebuilt:\n  - {host: second, within: 5s}\n", change: drop(Warmed, "", "second"), system: Unknown, why: "rebuilt was never reached"},

		// Clean-up.
		{name: "not undone", change: edit(Undone, "backup-hangs", "", no("it still has an effect")), cleanup: Fail, why: "backup-hangs was not undone: it still has an effect"},
		{name: "nothing says it was undone", change: drop(Undone, "backup-hangs", ""), cleanup: Unknown, why: "nothing says that backup-hangs was undone"},
		{name: "left behind", change: edit(Cleaned, "", "", func(r *Record) { r.OK, r.Left = new(bool), []string{"nft drill-in"} }), cleanup: Fail, why: "left behind: nft drill-in"},
		{name: "left behind, whatever it says", change: edit(Cleaned, "", "", func(r *Record) { r.Left = []string{"loop7"} }), cleanup: Fail, why: "left behind: loop7"},
		{name: "the clean-up failed", change: edit(Cleaned, "", "", no("busy")), cleanup: Fail, why: "busy"},
		{name: "nobody looked", change: drop(Cleaned, "", ""), cleanup: Unknown, why: "nobody looked"},
		{name: "it could not be seen", change: edit(Cleaned, "", "", nobody), cleanup: Unknown, why: "could not be seen: no answer"},
		{name: "something was made afterwards", change: add(Cleaned, "", "", Record{Kind: Made, Host: "third"}), cleanup: Unknown, why: "nobody looked"},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, h := rehearsed(t, x.differ)
			if x.old != "" && !strings.Contains(rehearsal, x.old) {
				t.Fatalf("the scenario has no %q", x.old)
			}
			text := strings.Replace(rehearsal, x.old, x.new, 1)
			if strings.Contains(text, "ships: false") {
				text = strings.Replace(text, "final: [shipped,", "final: [not-shipped,", 1)
			}
			p := parsed(t, text)
			h[0].Header.Scenario = p.Digest
			if x.change != nil {
				h = renumber(x.change(t, h))
			}
			v := Judge(p, h)
			or := func(v Value) Value {
				if v == "" {
					return Pass
				}
				return v
			}
			if v.System.Value != or(x.system) || v.Harness.Value != or(x.harness) || v.Cleanup.Value != or(x.cleanup) {
				t.Errorf("system %+v\nharness %+v\nclean-up %+v", v.System, v.Harness, v.Cleanup)
			}
			if want := worse(worse(or(x.system), or(x.harness)), or(x.cleanup)); v.Value != want {
				t.Errorf("the verdict is %s, and not %s", v.Value, want)
			}
			all := strings.Join(slices.Concat(v.System.Why, v.Harness.Why, v.Cleanup.Why), "\n")
			if !strings.Contains(all, x.why) || (x.why == "") != (all == "") {
				t.Errorf("the reasons are\n%s\nand not %q", all, x.why)
			}
			if (v.Value == Pass) != strings.HasPrefix(v.Sentence, "Rehearsed on one host") {
				t.Errorf("%s: %s", v.Value, v.Sentence)
			}
			if again := Judge(p, h); again.Sentence != v.Sentence {
				t.Errorf("judged again: %s", again.Sentence)
			}
		})
	}
}

// rewrite changes events, where they were seen and where they were read again.
func rewrite(h []Record, f func(e *release.Event)) []Record {
	for i := range h {
		if h[i].Event != nil {
			e := *h[i].Event
			f(&e)
			h[i].Event = &e
		}
		for k := range h[i].Ledger {
			f(&h[i].Ledger[k])
		}
	}
	return h
}

// secondGold lets another gold through, as a control whose ledger was put back would.
func secondGold(t testing.TB, h []Record) []Record {
	i := find(t, h, Happened, "gold", "")
	end := find(t, h, Reread, "", "")
	e := *h[i].Event
	e.Seq = int64(len(h[end].Ledger)) + 1
	h[end].Ledger = append(h[end].Ledger, e)
	return slices.Insert(h, end, Record{Kind: Happened, Name: "gold", Event: &e, At: h[end].At, Clock: h[end].Clock})
}

func TestLostIsNamed(t *testing.T) {
	p, h := rehearsed(t, nil)
	h = ledger(func(l []release.Event) []release.Event { return l[:len(l)-2] })(t, h)
	v := Judge(p, h)
	all := strings.Join(v.Lost, "\n")
	for _, want := range []string{"(signed) was seen, and the ledger ends at", "(signed tried) was acknowledged", "(shipped ) was acknowledged"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q does not name %q", all, want)
		}
	}
}

func TestNoHistory(t *testing.T) {
	if v := Judge(parsed(t, rehearsal), nil); v.Value != Unknown || v.Sentence != "Not known: nothing was recorded." {
		t.Errorf("%+v", v)
	}
}

// A step beside the second build of gold goes on when that ends.
func TestWorkBesideTheSecondBuild(t *testing.T) {
	p, h := rehearsed(t, nil)
	before := Judge(p, h)
	h = slower(Happened, "confirmed", "", 10*time.Second)(t, h) // both take longer
	after := Judge(p, h)
	if !near(after.Machine-before.Machine, 20) || !near(after.Overhead, before.Overhead) {
		t.Errorf("machines %f, then %f; overhead %f, then %f", before.Machine, after.Machine, before.Overhead, after.Overhead)
	}
}

// What the drill itself takes is its overhead, and nothing else is.
func TestOverhead(t *testing.T) {
	p, h := rehearsed(t, nil)
	before := Judge(p, h)
	for _, x := range []struct {
		name string
		from func(h []Record) int
		more float64
	}{
		{"the world takes longer to make", func(h []Record) int { return 3 }, 7},
		{"a person is waited for", func(h []Record) int { return find(t, h, Undone, "ann-away", "") }, 7},
		{"a step takes longer", func(h []Record) int { return find(t, h, Happened, "finished", "") }, 0},
		{"a fault is noticed later", func(h []Record) int { return find(t, h, Probed, "primary-dies", "") + 4 }, 0},
		{"the clean-up takes longer", func(h []Record) int { return find(t, h, Cleaned, "", "") }, 7},
	} {
		_, h := rehearsed(t, nil)
		for i := x.from(h); i < len(h); i++ {
			h[i].At += 7 * time.Second
		}
		if v := Judge(p, h); !near(v.Overhead-before.Overhead, x.more) || !near(v.Real-before.Real, 7) {
			t.Errorf("%s: overhead %f, and it was %f", x.name, v.Overhead, before.Overhead)
		}
	}
}

// A history with a hole is no evidence; and where somebody closed the hole, what the
// rest still shows is judged, never better than the whole.
func TestNothingIsWonByTakingOut(t *testing.T) {
	p, h := rehearsed(t, nil)
	needed := []Kind{Began, Asked, Intended, Injected, Done, Happened, Warmed, Undone, Reread, Asked2, Cleaned, Ended}
	rapid.Check(t, func(r *rapid.T) {
		i := rapid.IntRange(0, len(h)-1).Draw(r, "place")
		less := slices.Delete(slices.Clone(h), i, i+1)
		if v := Judge(p, less); v.Value == Pass {
			r.Fatalf("without record %d (%s %s) it passes", i+1, h[i].Kind, h[i].Name)
		}
		v := Judge(p, renumber(less))
		if v.Value == Pass && slices.Contains(needed, h[i].Kind) {
			r.Fatalf("without %s %s, and with other numbers, it passes", h[i].Kind, h[i].Name)
		}
	})
}

// What is bad makes no axis better, wherever it stands and whatever stood there.
func TestNothingIsWonByWhatIsBad(t *testing.T) {
	p, good := rehearsed(t, nil)
	order := []Value{Pass, Unknown, Fail}
	bad := func(kind Kind, name, host string) Record {
		return Record{Kind: kind, Name: name, Host: host, OK: new(bool), Why: "bad"}
	}
	yes := true
	list := []Record{
		bad(Undone, "backup-hangs", "backup"), bad(Done, "readmit", ""), bad(Asked, "hosts-up", ""), bad(Asked2, "hosts-up", ""), bad(Cleaned, "", ""),
		{Kind: Cleaned, OK: &yes, Left: []string{"loop7"}},
		{Kind: Stopped, Why: "bad"},
		{Kind: Guarded, Why: "bad"},
		{Kind: Probed, Name: "primary-dies", Host: "primary", OK: &yes, Before: true},
		bad(Injected, "primary-dies", "primary"), bad(Reread, "", ""),
		{Kind: Told, Ack: &release.Ack{Seq: 99, Type: "signed"}},
		{Kind: Stuck, Why: "bad"},
	}
	rapid.Check(t, func(r *rapid.T) {
		h := slices.Clone(good)
		for range rapid.IntRange(0, 3).Draw(r, "holes") {
			i := rapid.IntRange(0, len(h)-1).Draw(r, "hole")
			h = slices.Delete(h, i, i+1)
		}
		before := Judge(p, renumber(h))
		i := rapid.IntRange(1, len(h)).Draw(r, "place")
		x := rapid.SampledFrom(list).Draw(r, "bad")
		x.At, x.Clock = h[i-1].At, h[i-1].Clock
		after := Judge(p, renumber(slices.Insert(slices.Clone(h), i, x)))
		for _, a := range [][2]Value{{before.System.Value, after.System.Value}, {before.Harness.Value, after.Harness.Value}, {before.Cleanup.Value, after.Cleanup.Value}} {
			if slices.Index(order, a[1]) < slices.Index(order, a[0]) {
				r.Fatalf("%s %s at %d makes %v of %v", x.Kind, x.Name, i+1, a[1], a[0])
			}
		}
	})
}

// TestTheTester plants defects of the system, of the drill and of its probes; each
// must turn the verdict, on the axis that is about it.
func TestTheTester(t *testing.T) {
	yes := true
	killed, all := 0, 0
	for _, x := range []struct {
		name   string
		differ func(*story)
		plant  change
		axis   func(*Verdict) Axis
		value  Value
		why    string
	}{
		{"two golds are let through", nil, secondGold, func(v *Verdict) Axis { return v.System }, Fail, "the ledger does not fold: event 19 (gold)"},
		{"acknowledged before it is on disk, and gone", nil, both(
			func(t testing.TB, h []Record) []Record { // control died in between: nobody saw the event
				i := find(t, h, Happened, "shipped", "")
				return slices.Delete(h, i, i+1)
			}, ledger(func(l []release.Event) []release.Event { return l[:len(l)-1] })), func(v *Verdict) Axis { return v.System }, Fail, "was acknowledged"},
		{"seen before it is on disk, and replaced", nil, ledger(func(l []release.Event) []release.Event {
			l[len(l)-1] = release.Event{Seq: l[len(l)-1].Seq, Type: "aborted", Body: release.Aborted{Reason: "other"}}
			return l
		}), func(v *Verdict) Axis { return v.System }, Fail, "the ledger says otherwise"},
		{"an injector that does nothing", nil, func(t testing.TB, h []Record) []Record {
			for i := range h {
				if h[i].Kind == Probed && h[i].Name == "primary-dies" {
					no("it still runs")(&h[i])
				}
			}
			return h
		}, func(v *Verdict) Axis { return v.Harness }, Unknown, "no probe saw it take effect"},
		{"an undo that forgets a rule", nil, edit(Cleaned, "", "", func(r *Record) { r.OK, r.Left = new(bool), []string{"nft table drill-in"} }), func(v *Verdict) Axis { return v.Cleanup }, Fail, "left behind: nft table drill-in"},
		{"an undo that does nothing", nil, edit(Undone, "backup-hangs", "", no("it still has an effect")), func(v *Verdict) Axis { return v.Cleanup }, Fail, "it still has an effect"},
		{"a detector that always says yes", nil, edit(Probed, "primary-dies", "", func(r *Record) { r.OK = &yes }), func(v *Verdict) Axis { return v.Harness }, Unknown, "said yes before it was injected"},
		{"a time stamp in the build", func(s *story) {
			s.verdict = release.Different
			s.end = func(s *story) { s.add(Record{Kind: Stuck, Why: "gold: the second build made other bytes"}) }
		}, nil, func(v *Verdict) Axis { return v.System }, Fail, "different, and not identical"},
		{"a watch that sleeps", nil, drop(Happened, "finished", ""), func(v *Verdict) Axis { return v.Harness }, Unknown, "was not seen when it happened"},
		{"a history that somebody mended", nil, drop(Undone, "backup-hangs", ""), func(v *Verdict) Axis { return v.Cleanup }, Unknown, "nothing says that"},
	} {
		p, h := rehearsed(t, x.differ)
		if x.plant != nil {
			h = renumber(x.plant(t, h))
		}
		all++
		v := Judge(p, h)
		if a := x.axis(v); v.Value == Pass || a.Value != x.value || !strings.Contains(strings.Join(a.Why, "\n"), x.why) {
			t.Errorf("%s survives: %s: %+v", x.name, v.Value, a)
			continue
		}
		killed++
	}
	t.Logf("killed %d of %d", killed, all)
}

// nothingRan: no work was on the primary when it died, so none had to move.
func nothingRan(_ testing.TB, h []Record) []Record {
	return rewrite(h, func(e *release.Event) {
		switch b := e.Body.(type) {
		case release.Granted:
			if b.Machine == "primary" {
				b.Machine = "other"
				e.Body = b
			}
		case release.Lost:
			if b.Machine == "primary" {
				b.Machine = "other"
				e.Body = b
			}
		}
	})
}
