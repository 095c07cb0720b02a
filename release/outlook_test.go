package release

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/runbook"
)

// planned is a release as it begins: of items, with the build server of role build, and role
// office without one.
func planned(t *testing.T, items ...runbook.Item) *game {
	t.Helper()
	day := runbook.Hours{Zone: "UTC", Days: []string{"mon", "tue", "wed", "thu", "fri"}, From: "09:00", To: "17:00"}
	late := day
	late.From = "13:00"
	g := &game{tb: t, s: Empty()}
	g.must(Started{
		Version: "1", Rules: RulesNow, Ship: at(24 * 60), Items: items, Approver: []string{"ann", "bob"}, Team: day,
		Machines: []Machine{{Role: "build", Blueprint: "sha256:b"}, {Role: "office"}},
		People:   []Person{{Name: "ann", Hours: day}, {Name: "bob", Hours: day}, {Name: "eve", Hours: late}},
		Source:   Source{VCS: "git", Revision: "r", Original: "sha256:s"},
	})
	return g
}

// TestOutlookOn: when the rest is done on the machines that there are, and what is missing.
// It is 09:00, and all that is missing comes at once.
func TestOutlookOn(t *testing.T) {
	step := func(name, role string, hours int, needs ...string) runbook.Item {
		return runbook.Item{Name: name, Kind: runbook.Step, Role: role, Budget: time.Duration(hours) * time.Hour, Needs: needs}
	}
	gold := runbook.Item{Name: "gold", Kind: runbook.Step, Role: "build", Budget: time.Hour, Gold: true, Out: []string{"dist/*"}}
	signOff := func(name string, approvals int, signers ...string) runbook.Item {
		return runbook.Item{Name: name, Kind: runbook.SignOff, Budget: 4 * time.Hour, Approvals: approvals, Signers: signers}
	}
	var eight, six []runbook.Item
	for i := range 8 {
		eight = append(eight, step(fmt.Sprintf("s%d", i), "build", 8))
	}
	for i := range 6 {
		six = append(six, signOff(fmt.Sprintf("o%d", i), 1, "ann"))
	}
	warm := func(name string) Host { return Host{Name: name, Slots: 1, Warm: []string{"sha256:b"}} }
	with := func(h Host, change func(*Host)) Host { change(&h); return h }
	const h = time.Hour
	for _, c := range []struct {
		what    string
		items   []runbook.Item
		events  []Body
		hosts   []Host
		rebuild map[string]time.Duration
		ends    time.Duration // from now
		blocked string        // code of item, +later
		why     string
		chain   string
		assumed string
	}{
		{"one machine, one after the other", eight, nil, []Host{warm("a")}, nil, 64 * h, "", "", "s0 s1 s2 s3 s4 s5 s6 s7", ""},
		{"two machines, side by side", eight, nil, []Host{warm("a"), warm("b")}, nil, 32 * h, "", "", "s0 s2 s4 s6", ""},
		{"one machine that runs four at once", eight, nil, []Host{with(warm("a"), func(h *Host) { h.Slots = 4 })}, nil, 16 * h, "", "", "s0 s4", ""},
		{"no machine at all", eight[:2], nil, nil, nil, 16*h + AssumedRebuild, "no-machine s0", "no machine for role build", "s0 s1", "build"},
		{"no machine of a role whose turn comes later", []runbook.Item{step("a", "build", 1), step("sign-exe", "office", 1, "a")}, nil, []Host{warm("m")}, nil, 2 * h, "no-machine sign-exe later", "no machine for role office", "a sign-exe", ""},
		{"one that serves another role", []runbook.Item{step("a", "office", 1)}, nil, []Host{with(warm("m"), func(h *Host) { h.Serves, h.Plain = []string{"build"}, true })}, nil, h, "no-machine a", "no machine for role office", "a", ""},
		{"one that runs nothing on its host", []runbook.Item{step("a", "office", 1)}, nil, []Host{warm("m")}, nil, h, "no-machine a", "no machine for role office", "a", ""},
		{"one that does", []runbook.Item{step("a", "office", 1)}, nil, []Host{with(warm("m"), func(h *Host) { h.Plain = true })}, nil, h, "", "", "a", ""},
		{"those that there are are away", []runbook.Item{step("a", "build", 1)}, nil, []Host{with(warm("m"), func(h *Host) { h.Away = "lost" }), with(warm("n"), func(h *Host) { h.Away = "draining" })}, nil, h + AssumedRebuild, "no-machine a", "no machine for role build: n is draining, m is lost", "a", "build"},
		{"a cold machine, as it was measured", []runbook.Item{step("a", "build", 1), step("b", "build", 1)}, nil, []Host{{Name: "m"}}, map[string]time.Duration{"sha256:b": 40 * time.Minute}, 2*h + 40*time.Minute, "", "", "a b", ""},
		{"a cold machine, as it is assumed", []runbook.Item{step("a", "build", 1)}, nil, []Host{{Name: "m"}}, nil, h + AssumedRebuild, "", "", "a", "build"},
		{"the better machine that is cold, as control would", []runbook.Item{step("a", "build", 1)}, nil, []Host{with(warm("m"), func(h *Host) { h.Rank = 1 }), {Name: "n"}}, map[string]time.Duration{"sha256:b": 40 * time.Minute}, h + 40*time.Minute, "", "", "a", ""},
		{"one that is busy with another release", []runbook.Item{step("a", "build", 1)}, nil, []Host{with(warm("m"), func(h *Host) { h.Busy = []time.Time{at(120)} })}, nil, 3 * h, "", "", "a", ""},
		{"gold on two machines", []runbook.Item{gold}, nil, []Host{warm("a"), warm("b")}, nil, 2 * h, "", "", "gold", ""},
		{"gold, and a second machine that is cold", []runbook.Item{gold}, nil, []Host{warm("a"), {Name: "b", Rank: 1}}, map[string]time.Duration{"sha256:b": 40 * time.Minute}, 2*h + 40*time.Minute, "", "", "gold", ""},
		{"gold on one machine", []runbook.Item{gold}, nil, []Host{warm("a")}, nil, 2*h + AssumedRebuild, "second-machine gold later", "gold needs a second machine, beside a", "gold", "build"},
		{"gold is made, and the second machine is gone", []runbook.Item{gold}, []Body{Granted{Item: "gold", Machine: "a"}, Committed{Finished: Finished{Item: "gold", Epoch: 2, Outputs: out("dist/x", "x")}}}, []Host{warm("a"), with(warm("b"), func(h *Host) { h.Away = "lost" })}, nil, h + AssumedRebuild, "second-machine gold", "gold needs a second machine, beside a: b is lost", "gold", "build"},
		{"the second build runs", []runbook.Item{gold}, []Body{Granted{Item: "gold", Machine: "a"}, Committed{Finished: Finished{Item: "gold", Epoch: 2, Outputs: out("dist/x", "x")}}, Granted{Item: "gold", Machine: "b", Confirm: true}}, []Host{warm("a"), warm("b")}, nil, h, "", "", "gold", ""},
		{"a step that runs keeps its machine", []runbook.Item{step("a", "build", 2), step("b", "build", 1)}, []Body{Granted{Item: "a", Machine: "m"}}, []Host{warm("m")}, nil, 3 * h, "", "", "a b", ""},
		{"a step whose machine makes the server", []runbook.Item{step("a", "build", 2)}, []Body{Granted{Item: "a", Machine: "m"}}, []Host{{Name: "m"}}, map[string]time.Duration{"sha256:b": 30 * time.Minute}, 2*h + 30*time.Minute, "", "", "a", ""},
		// Ann has eight hours a day, from Tuesday at 09:00: six sign-offs of four hours take three days.
		{"six sign-offs of one person", six, nil, nil, nil, 2*24*h + 8*h, "", "", "o0 o1 o2 o3 o4 o5", ""},
		{"two people share them", []runbook.Item{signOff("x", 1, "ann", "bob"), signOff("y", 1, "ann", "bob"), signOff("z", 1, "ann", "bob")}, nil, nil, nil, 8 * h, "", "", "x z", ""},
		{"one of ann and bob, and one of eve, who comes at 13:00", []runbook.Item{{Name: "x", Kind: runbook.SignOff, Budget: h, Approvals: 2, Signers: []string{"ann", "bob", "eve"}, Quotas: []runbook.Quota{{Who: "qa", Of: []string{"ann", "bob"}, Approvals: 1}, {Who: "legal", Of: []string{"eve"}, Approvals: 1}}}}, nil, nil, nil, 5 * h, "", "", "x", ""},
		{"two approvals each, of the same two", []runbook.Item{signOff("x", 2, "ann", "bob"), signOff("y", 2, "ann", "bob")}, nil, nil, nil, 8 * h, "", "", "x y", ""},
		{"held", []runbook.Item{step("a", "build", 1)}, []Body{Held{Reason: "a hole"}}, []Host{warm("m")}, nil, h, "held ", "it is held by test: a hole", "a", ""},
		{"an open change, and gold waits", []runbook.Item{gold}, []Body{Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "x", Original: "sha256:x"}, Reason: "r", By: "ann"}}, []Host{warm("a"), warm("b")}, nil, 2 * h, "amendment amendment", "the change of source that ann proposed is open", "gold", ""},
		{"an open change, and a step runs before gold", []runbook.Item{step("a", "build", 1), func() runbook.Item { g := gold; g.Needs = []string{"a"}; return g }()}, []Body{Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "x", Original: "sha256:x"}, Reason: "r", By: "ann"}}, []Host{warm("a"), warm("b")}, nil, 3 * h, "amendment amendment later", "is open", "a gold", ""},
	} {
		g := planned(t, c.items...)
		for _, b := range c.events {
			e := New(at(0), "test", b)
			e.Seq = g.s.Head + 1
			if err := g.s.Apply(e); err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
		}
		o, err := g.s.OutlookOn(&Fleet{Hosts: c.hosts, Rebuild: c.rebuild}, at(0), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Ends.Sub(at(0)); got != c.ends || o.Slack != 24*time.Hour-c.ends {
			t.Errorf("%s: ends after %s, not %s", c.what, got, c.ends)
		}
		blocked, why := "", ""
		for _, b := range o.Blocked {
			blocked, why = string(b.Code)+" "+b.Item+map[bool]string{true: " later"}[b.Later], b.Why
		}
		if len(o.Blocked) > 1 || blocked != c.blocked || !strings.HasPrefix(why, c.why) && !strings.HasSuffix(strings.TrimSuffix(why, ": gold and shipping wait for it"), c.why) {
			t.Errorf("%s: blocked by %+v, and not %q", c.what, o.Blocked, c.blocked)
		}
		if got := strings.Join(o.Chain, " "); got != c.chain || strings.Join(o.Assumed, " ") != c.assumed {
			t.Errorf("%s: hangs on %q, and the servers of %q are assumed", c.what, got, o.Assumed)
		}
	}
}

// TestOutlookOfAbsentSigners: who is away is waited for, and who never comes back is named.
func TestOutlookOfAbsentSigners(t *testing.T) {
	for _, c := range []struct {
		what, away string
		ends       time.Time
		blocked    []BlockCode
	}{
		{"at work", "", at(4 * 60), nil},
		{"away for a week", "2026-11-24..2026-11-30", time.Date(2026, 12, 1, 13, 0, 0, 0, time.UTC), nil},
		{"away for good", "2026-11-24..2039-12-31", at(0).AddDate(5, 0, 0), []BlockCode{BlockNobodyWorks}},
	} {
		g := planned(t, runbook.Item{Name: "x", Kind: runbook.SignOff, Budget: 4 * time.Hour, Approvals: 1, Signers: []string{"ann"}})
		if c.away != "" {
			g.s.People[0].Hours.Off = []string{c.away}
		}
		o, err := g.s.OutlookOn(&Fleet{}, at(0), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		var codes []BlockCode
		for _, b := range o.Blocked {
			codes = append(codes, b.Code)
		}
		if !o.Ends.Equal(c.ends) || !slices.Equal(codes, c.blocked) {
			t.Errorf("%s: ends %s, and not %s; blocked by %v", c.what, o.Ends, c.ends, o.Blocked)
		}
	}
}

// TestOutlookOfMany: a queue of many steps for one machine is worked out while somebody waits.
func TestOutlookOfMany(t *testing.T) {
	var items []runbook.Item
	for i := range 400 {
		items = append(items, runbook.Item{Name: fmt.Sprintf("s%d", i), Kind: runbook.Step, Role: "build", Budget: time.Minute})
	}
	g := planned(t, items...)
	o, err := g.s.OutlookOn(&Fleet{Hosts: []Host{{Name: "a", Warm: []string{"sha256:b"}}}}, at(0), time.LoadLocation)
	if err != nil || o.Ends.Sub(at(0)) != 400*time.Minute || len(o.Chain) != 400 {
		t.Errorf("ends after %s, %d in the chain; %v", o.Ends.Sub(at(0)), len(o.Chain), err)
	}
}

// What needs only steps that run is looked at once, and begins when they end.
func TestOutlookWhileAStepRuns(t *testing.T) {
	step := func(name string, needs ...string) runbook.Item {
		return runbook.Item{Name: name, Kind: runbook.Step, Role: "build", Budget: time.Hour, Needs: needs}
	}
	word := func(name string, needs ...string) runbook.Item {
		return runbook.Item{Name: name, Kind: runbook.SignOff, Budget: time.Hour, Approvals: 1, Signers: []string{"ann"}, Needs: needs}
	}
	for _, c := range []struct {
		items []runbook.Item
		chain string
	}{
		{[]runbook.Item{step("a"), word("o", "a")}, "a o"},
		{[]runbook.Item{step("a"), word("o", "a"), word("p", "a"), word("q", "o", "p")}, "a o p q"},
		{[]runbook.Item{step("a"), step("b", "a"), step("c", "b"), word("o", "c")}, "a b c o"},
	} {
		for _, fleet := range []*Fleet{nil, {Hosts: []Host{{Name: "m", Plain: true}}}} {
			s := Empty()
			for i, b := range []Body{
				Started{Version: "1", Rules: RulesNow, Items: c.items, Source: Source{VCS: "git"}, Machines: []Machine{{Role: "build"}}, Ship: at(10000)},
				Granted{Item: "a", Machine: "m"},
			} {
				e := New(at(0), "x", b)
				e.Seq = int64(i + 1)
				if err := s.Apply(e); err != nil {
					t.Fatal(err)
				}
			}
			o, err := s.OutlookOn(fleet, at(30), time.LoadLocation)
			if err != nil || strings.Join(o.Chain, " ") != c.chain {
				t.Errorf("%v (%v), want %s", o.Chain, err, c.chain)
			}
		}
	}
}
