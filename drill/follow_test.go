package drill

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/release"
	"trysail/runbook"
)

// TestPeoplesWords: what a person's own command brings about shows nothing of who noticed
// a fault, nor of where its work went.
func TestPeoplesWords(t *testing.T) {
	draining := func(_ testing.TB, h []Record) []Record {
		for i := range h {
			if h[i].Kind == Sighted && h[i].Why == "retired" {
				h[i].Why = "draining"
			}
		}
		return h
	}
	for _, x := range []struct {
		name, do string
		change   change
		system   Value
		why      string
	}{
		{"retired before it is noticed", "fleet retire backup", retiredFirst, Unknown, "whether backup-hangs is detected within 5s is not known: it lasted"},
		{"retired before that, and lost long after", "fleet retire backup", both(retiredFirst, add(Warmed, "", "second", Record{Kind: Sighted, Host: "backup", Why: "lost"})), Unknown, "whether backup-hangs is detected within 5s is not known: it lasted"},
		{"another one is retired", "fleet retire spare", retiredFirst, Fail, "backup-hangs was never detected; backup-hangs was never moved"},
		{"drained, and nobody notices", "fleet drain backup", both(retiredFirst, draining), Fail, "backup-hangs was never detected"},
		{"drained, and noticed", "fleet drain backup", add(Done, "readmit", "", Record{Kind: Sighted, Host: "backup", Why: "draining"}), Pass, ""},
		{"noticed, and retired after that", "fleet retire backup", func(t testing.TB, h []Record) []Record {
			i := find(t, h, Done, "readmit", "")
			done := h[i]
			h = slices.Delete(h, i, i+1)
			i = find(t, h, Warmed, "", "second")
			done.At = h[i].At
			return slices.Insert(h, i+1, done)
		}, Pass, ""},
	} {
		_, h := rehearsed(t, nil)
		p := parsed(t, strings.Replace(rehearsal, "do: fleet readmit backup", "do: "+x.do, 1))
		h[0].Header.Scenario = p.Digest
		v := Judge(p, renumber(x.change(t, h)))
		if v.System.Value != x.system || v.Harness.Value != Pass || !strings.Contains(strings.Join(v.System.Why, "; "), x.why) {
			t.Errorf("%s: %v %v", x.name, v.System, v.Harness)
		}
	}
}

// retiredFirst: somebody retires the backup before control notices that it hangs, and
// its lease ends for that.
func retiredFirst(t testing.TB, h []Record) []Record {
	i := slices.IndexFunc(h, func(r Record) bool { return r.Kind == Sighted && r.Host == "backup" && r.Why == "lost" })
	done := find(t, h, Done, "readmit", "")
	if i < done {
		t.Fatal("it is noticed before")
	}
	h[i].Why = "retired"
	h = rewrite(h, func(e *release.Event) {
		if b, ok := e.Body.(release.Lost); ok && b.Machine == "backup" {
			b.Why = fleet.NoMember
			e.Body = b
		}
	})
	// Control is quicker than the command that told it.
	d := h[done]
	d.At = h[i].At
	return slices.Insert(slices.Delete(h, done, done+1), i, d)
}

// TestWorked: what ran on a machine that came back in time is work, but for the time in
// which the machine itself stood.
func TestWorked(t *testing.T) {
	for _, x := range []struct {
		name, fault string
		lasts       time.Duration // 0: for good
		lost        bool
		worked      float64
	}{
		{"hung, and back in time", "machine-hung", 3 * time.Second, false, 7},
		{"restarted in time", "machine-lost", 3 * time.Second, false, 7},
		{"hung, and longer than the work", "machine-hung", time.Minute, false, 2},
		{"cut off, and back in time", "partition", 3 * time.Second, false, 10},
		{"cut off for good, and done all the same", "partition-in", 0, false, 10},
		{"hung, and its work is lost", "machine-hung", 3 * time.Second, true, 2},
		{"cut off, and its work is lost", "partition", 3 * time.Second, true, 2},
		{"its disk is full", "disk-full", 3 * time.Second, false, 10},
		{"its disk is full, and its work is lost", "disk-full", 3 * time.Second, true, 10},
	} {
		text := strings.Replace(rehearsal, "fault: machine-lost, host: primary", "fault: "+x.fault+", host: primary", 1)
		s := &story{t: t, p: parsed(t, text), s: release.Empty()}
		s.happened(release.Started{Version: "4.2", Ship: s.p.Ship, Items: []runbook.Item{{Name: "suite", Kind: runbook.Step}}})
		e := s.happened(release.Granted{Item: "suite", Machine: "primary"})
		s.at += 2 * time.Second
		s.inject("primary-dies", "primary")
		back := x.lasts > 0 && x.lasts < 8*time.Second
		if back {
			s.at += x.lasts
			s.ok(Undone, "primary-dies", "primary", true)
		}
		s.at += 8 * time.Second
		if back {
			s.at -= x.lasts
		}
		if x.lost {
			s.happened(release.Lost{Item: "suite", Epoch: e, Machine: "primary", Why: "no heartbeat"})
		} else {
			s.happened(release.Finished{Item: "suite", Epoch: e})
		}
		if v := Judge(s.p, s.h); math.Abs(v.Machine-x.worked) > 0.05 {
			t.Errorf("%s: %.2f s, and not %.2f", x.name, v.Machine, x.worked)
		}
	}
}
