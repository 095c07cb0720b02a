package drill

import (
	"slices"
	"strings"
	"testing"

	"trysail/release"
)

// A drill whose faults did not happen when the hypothesis says that they do shows nothing of
// it. In the rehearsal the primary dies 7 days before the ship date, and the backup 2 days.
func TestHypothesis(t *testing.T) {
	const first, second = "when: suite running, fault: machine-lost, host: primary", "when: gold running, fault: machine-hung, host: backup, for: 10m"
	for _, x := range []struct {
		name     string
		old, new string // in the scenario
		change   change
		why      string // "" if it passes
	}{
		{name: "it names no time"},
		{name: "within its time", old: first, new: first + ", within: T-8d..T-6d"},
		{name: "too early", old: first, new: first + ", within: T-5d..T-0", why: "primary-dies happened 7 days before the ship date, and by the hypothesis it happens in the last 5 days"},
		{name: "too late", old: second, new: second + ", within: T-7d..T-3d", why: "backup-hangs happened 47 h before the ship date, and by the hypothesis it happens between 7 days and 3 days before the ship date"},
		{name: "its words name a time, and it was so", old: "two servers are lost and it ships", new: "two servers are lost in the last week and it ships"},
		{name: "its words name a time, and it was not so", old: "two servers are lost and it ships", new: "two servers are lost in the last 3 days and it ships", why: "primary-dies happened 7 days before the ship date"},
		{name: "its words name another unit", old: "two servers are lost and it ships", new: "it all happens on the last day", why: "backup-hangs happened 47 h before the ship date"},
		{name: "its words name two times, and the wider is meant", old: "two servers are lost and it ships", new: "one is lost in the last week, and one within the last two days"},
		{name: "of one fault it is said more closely", old: first, new: first + ", within: T-8d..T-6d", change: func(_ testing.TB, h []Record) []Record { return h }},

		{name: "the step had ended", change: func(t testing.TB, h []Record) []Record {
			return move(t, h, "finished", "suite", find(t, h, Intended, "primary-dies", "primary"))
		}, why: "primary-dies was to happen while suite runs, and it did not run when it happened"},
		{name: "it ran on another machine", old: "when: suite running,", new: "when: suite running on backup,", why: "primary-dies was to happen while suite runs on backup"},
		{name: "it was to happen on that machine", old: "when: suite running,", new: "when: suite running on primary,"},
		{name: "days too late", old: "when: suite running,", new: "when: T-9d,", why: "primary-dies was to happen 9 days before the ship date, and happened 2 days later"},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, h := rehearsed(t, nil)
			if x.old != "" && !strings.Contains(rehearsal, x.old) {
				t.Fatalf("the scenario has no %q", x.old)
			}
			p := parsed(t, strings.Replace(rehearsal, x.old, x.new, 1))
			h[0].Header.Scenario = p.Digest
			if x.change != nil {
				h = renumber(x.change(t, h))
			}
			v := Judge(p, h)
			said := strings.Join(v.Harness.Why, "\n")
			if (v.Harness.Value == Pass) != (x.why == "") || !strings.Contains(said, x.why) {
				t.Errorf("%s: %s, and not %q", v.Harness.Value, said, x.why)
			}
			if x.why != "" && v.Value == Pass {
				t.Errorf("it passes: %s", v.Sentence)
			}
		})
	}
}

// move moves the end of an item's first lease to just before a place in the history. In the
// ledger, too, the end of a lease follows its grant.
func move(t testing.TB, h []Record, kind, item string, to int) []Record {
	t.Helper()
	// The lease on the primary ends well, instead of being lost; nothing follows it there.
	lost := slices.IndexFunc(h, func(r Record) bool {
		if r.Event == nil {
			return false
		}
		b, ok := r.Event.Body.(release.Lost)
		return ok && b.Item == item
	})
	if lost < 0 {
		t.Fatalf("%s of %s: nothing was lost", kind, item)
	}
	r := h[lost]
	b := r.Event.Body.(release.Lost)
	e := release.Event{Seq: r.Event.Seq, Time: r.Event.Time, Actor: "control", Type: "finished", Body: release.Finished{Item: item, Epoch: b.Epoch}}
	r.Event, r.Name = &e, "finished"
	r.At, r.Clock = h[to].At, h[to].Clock
	h = slices.Delete(slices.Clone(h), lost, lost+1)
	return slices.Insert(h, to, r)
}

// What a hypothesis may say of a fault's time is read strictly.
func TestWithin(t *testing.T) {
	for with, why := range map[string]string{
		"within: T-7d..T-0":              "",
		"within: T-7d..T-1d12h":          "",
		"within: T-7d":                   "is not when",
		"within: T-1d..T-7d":             "is not when",
		"within: soon..T-0":              "is not when",
		"within: 2026-11-24..2026-11-25": "is not when",
	} {
		_, err := Parse("drill.yaml", []byte(strings.Replace(rehearsal, "when: suite running,", "when: suite running, "+with+",", 1)))
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", with, err)
		}
	}
	for _, x := range [][3]string{
		{"when: suite running,", "when: T-8d, within: T-7d..T-0,", "which is not within"},
		{"do: fleet readmit backup", "do: fleet readmit backup, within: T-7d..T-0", "is no fault"},
	} {
		_, err := Parse("drill.yaml", []byte(strings.Replace(rehearsal, x[0], x[1], 1)))
		if err == nil || !strings.Contains(err.Error(), x[2]) {
			t.Errorf("%s: %v", x[1], err)
		}
	}
}

// Recovery ends when lost work goes on in a build server, and not when a machine is told to
// make one.
func TestRecovery(t *testing.T) {
	for _, x := range []struct {
		name    string
		limit   string // in the scenario
		change  change
		moved   bool
		seconds float64 // about
		of      string
		never   bool
		why     string
	}{
		{name: "the machine had to make its server", moved: true, seconds: 7, of: "backup-hangs recovered"},
		{name: "within its limit", limit: ", recovered: 8s", moved: true, seconds: 7, of: "backup-hangs recovered"},
		{name: "over its limit", limit: ", recovered: 5s", moved: true, seconds: 7, of: "backup-hangs recovered", why: "backup-hangs was recovered after 7 s, and 5s is the limit"},
		{name: "the machine has a server already", moved: true, seconds: 4, of: "backup-hangs moved", change: func(t testing.TB, h []Record) []Record {
			i := find(t, h, Warmed, "", "second")
			r := h[i]
			h = slices.Delete(slices.Clone(h), i, i+1)
			r.At, r.Clock = h[2].At, h[2].Clock
			return slices.Insert(h, 2, r)
		}},
		{name: "its server was never made", moved: true, never: true, change: func(t testing.TB, h []Record) []Record {
			return blueprinted(drop(Warmed, "", "second")(t, h))
		}},
		{name: "its server was never made, and it has a limit", limit: ", recovered: 8s", moved: true, never: true, why: "backup-hangs was never recovered", change: func(t testing.TB, h []Record) []Record {
			return blueprinted(drop(Warmed, "", "second")(t, h))
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, h := rehearsed(t, nil)
			const limits = "{name: backup-hangs, detected: 5s, moved: 6s"
			p := parsed(t, strings.Replace(rehearsal, limits, limits+x.limit, 1))
			h[0].Header.Scenario = p.Digest
			if x.change != nil {
				h = renumber(x.change(t, h))
			}
			v := Judge(p, h)
			b := v.Faults[1]
			if (b.Moved > 0) != x.moved {
				t.Errorf("moved after %g s", b.Moved)
			}
			if said := strings.Join(v.System.Why, "\n"); !strings.Contains(said, x.why) {
				t.Errorf("it says %s, and not %q", said, x.why)
			}
			s := Summary(p, h, v)
			switch {
			case s.Never != x.never:
				t.Errorf("never recovered: %v", s.Never)
			case x.never:
			case s.Recovery == nil || *s.Recovery < x.seconds-0.5 || *s.Recovery > x.seconds+0.5 || s.Of != x.of:
				t.Errorf("recovered: %s, and not about %g s (%s)", s.recovered(), x.seconds, x.of)
			}
		})
	}
}

// blueprinted gives every step of a history a role with a blueprint.
func blueprinted(h []Record) []Record {
	return rewrite(h, func(e *release.Event) {
		if b, ok := e.Body.(release.Started); ok {
			b.Machines = []release.Machine{{Blueprint: "sha256:b", Sum: "sha256:s"}}
			e.Body = b
		}
	})
}
