package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAt(t *testing.T) {
	const now = time.Minute
	for _, c := range []struct {
		name  string
		set   Condition
		heard time.Duration
		want  Condition
	}{
		{"heard just now", "", now, Up},
		{"heard a moment after the look", "", now + time.Millisecond, Up},
		{"a moment before it is lost", "", now - LostAfter + 1, Up},
		{"exactly LostAfter", "", now - LostAfter, Lost},
		{"heard long ago", "", 0, Lost},
		{"never heard", "", -1, Lost},
		{"draining", Draining, now, Draining},
		{"draining, and lost", Draining, now - LostAfter, Lost},
		{"draining, never heard", Draining, -1, Lost},
		{"proving", Proving, now, Proving},
		{"proving, and lost", Proving, now - LostAfter, Lost},
		{"retired", Retired, now, Retired},
		{"retired, and lost", Retired, now - LostAfter, Retired},
		{"retired, never heard", Retired, -1, Retired},
	} {
		m := Machine{Set: c.set, Heard: c.heard}
		if got := m.At(now); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
	never := Machine{Heard: -1}
	if got := never.At(0); got != Lost {
		t.Errorf("never heard, when control begins: %s", got)
	}
}

// TestFence: what ran on a machine has ended before its step begins elsewhere,
// and one report that gets lost ends nothing.
func TestFence(t *testing.T) {
	const (
		look = 50 * time.Millisecond  // how often the guard of internal/machine looks
		kill = 500 * time.Millisecond // to kill a process group, on a machine that is busy
	)
	if ended := FenceAfter + look + kill; ended > LostAfter {
		t.Errorf("a machine may still run a step after %s that begins elsewhere after %s", ended, LostAfter)
	}
	// Sent and lost, sent again, and answered within a beat.
	if answered := Beat + Beat + Beat; answered > FenceAfter {
		t.Errorf("the report after one that was lost is answered after %s, and the machine ends everything after %s", answered, FenceAfter)
	}
}

// place renders an answer: "step on machine", and "step: why".
func place(now time.Duration, machines []Machine, wants []Want) (placed, waiting []string) {
	p, w := Place(now, machines, wants)
	for _, x := range p {
		placed = append(placed, x.Key+" on "+x.Machine)
	}
	for _, x := range w {
		waiting = append(waiting, x.Key+": "+x.Why)
	}
	return placed, waiting
}

// TestPreference: of two machines, the one that is better in one thing gets the
// step, though it is worse in all that counts less.
func TestPreference(t *testing.T) {
	const now = time.Minute
	want := Want{Key: "s", Role: "build", Blueprint: "bp", Has: []string{"x", "y"}}
	plain := Want{Key: "s", Role: "build", Has: []string{"x", "y"}}
	var bp, all, one []string = []string{"other", "bp"}, []string{"x", "y", "z"}, []string{"y"}
	for _, c := range []struct {
		name          string
		want          Want
		better, worse Machine
	}{
		{"two losses before rank", want, Machine{Name: "z", Rank: Spare, Running: 1, Losses: 1}, Machine{Name: "a", Rank: Primary, Losses: 2, Warm: bp, Has: all}},
		{"four losses behind two", want, Machine{Name: "z", Rank: Spare, Running: 1, Losses: 3}, Machine{Name: "a", Rank: Primary, Losses: 4, Warm: bp, Has: all}},
		{"one loss is bad luck", want, Machine{Name: "z", Rank: Primary, Losses: 1, Running: 1}, Machine{Name: "a", Rank: Backup, Warm: bp, Has: all}},
		{"primary before backup, before warm", want, Machine{Name: "z", Rank: Primary, Running: 1}, Machine{Name: "a", Rank: Backup, Warm: bp, Has: all}},
		{"backup before spare, before warm", want, Machine{Name: "z", Rank: Backup, Running: 1}, Machine{Name: "a", Rank: Spare, Warm: bp, Has: all}},
		{"warm before artifacts", want, Machine{Name: "z", Rank: Primary, Warm: bp, Running: 1}, Machine{Name: "a", Rank: Primary, Warm: all, Has: all}},
		{"artifacts before load", want, Machine{Name: "z", Rank: Primary, Has: one, Running: 1}, Machine{Name: "a", Rank: Primary}},
		{"more artifacts before load", want, Machine{Name: "z", Rank: Primary, Has: all, Running: 1}, Machine{Name: "a", Rank: Primary, Has: one}},
		{"load before name", want, Machine{Name: "z", Rank: Primary, Running: 1}, Machine{Name: "a", Rank: Primary, Running: 2}},
		{"name", want, Machine{Name: "a", Rank: Primary}, Machine{Name: "z", Rank: Primary}},
		{"artifacts nobody asks for", want, Machine{Name: "a", Rank: Primary}, Machine{Name: "z", Rank: Primary, Has: []string{"p", "q"}}},
		{"a plain step: warm does not count", plain, Machine{Name: "a", Rank: Primary}, Machine{Name: "z", Rank: Primary, Warm: []string{"", "bp"}}},
		{"a plain step: artifacts do", plain, Machine{Name: "z", Rank: Primary, Has: one, Running: 1}, Machine{Name: "a", Rank: Primary}},
	} {
		for _, x := range []*Machine{&c.better, &c.worse} {
			x.Heard, x.Slots, x.Plain = now, 5, true
		}
		for _, machines := range [][]Machine{{c.better, c.worse}, {c.worse, c.better}} {
			placed, waiting := place(now, machines, []Want{c.want})
			if !slices.Equal(placed, []string{"s on " + c.better.Name}) || waiting != nil {
				t.Errorf("%s: %q, waiting %q", c.name, placed, waiting)
			}
		}
	}
}

func TestPlace(t *testing.T) {
	const now = time.Minute
	up := func(name string, slots int) Machine {
		return Machine{Name: name, Rank: Primary, Slots: slots, Heard: now}
	}
	with := func(m Machine, change func(*Machine)) Machine {
		change(&m)
		return m
	}
	step := func(key string) Want { return Want{Key: key, Role: "build", Blueprint: "bp"} }
	lost := func(m *Machine) { m.Heard = now - LostAfter }
	plain := func(m *Machine) { m.Plain = true }
	build := func(m *Machine) { m.Serves = []string{"docs", "build"} }
	docs := func(m *Machine) { m.Serves = []string{"docs"} }
	for _, c := range []struct {
		name     string
		machines []Machine
		wants    []Want
		placed   []string
		waiting  []string
	}{
		{"nothing", nil, nil, nil, nil},
		{"nothing to do", []Machine{up("a", 1)}, nil, nil, nil},
		{"no machine", nil, []Want{step("s")}, nil, []string{"s: no machine of the fleet serves role build"}},

		{"serves all", []Machine{up("a", 1)}, []Want{step("s")}, []string{"s on a"}, nil},
		{"serves its role", []Machine{with(up("a", 1), build)}, []Want{step("s")}, []string{"s on a"}, nil},
		{"serves another role", []Machine{with(up("a", 1), docs)}, []Want{step("s")}, nil, []string{"s: no machine of the fleet serves role build"}},
		{"one of two serves it", []Machine{with(up("a", 1), docs), with(up("b", 1), build)}, []Want{step("s")}, []string{"s on b"}, nil},
		{"a plain step", []Machine{up("a", 1), with(up("b", 1), plain)}, []Want{{Key: "s", Role: "build"}}, []string{"s on b"}, nil},
		{"a plain step, no plain machine", []Machine{up("a", 1)}, []Want{{Key: "s", Role: "build"}}, nil, []string{"s: no machine of the fleet runs role build plainly on its host (trysail agent --plain)"}},
		{"a blueprint, on a plain machine", []Machine{with(up("a", 1), plain)}, []Want{step("s")}, []string{"s on a"}, nil},

		{"lost", []Machine{with(up("a", 1), lost)}, []Want{step("s")}, nil, []string{"s: a is lost"}},
		{"never heard", []Machine{with(up("a", 1), func(m *Machine) { m.Heard = -1 })}, []Want{step("s")}, nil, []string{"s: a is lost"}},
		{"draining", []Machine{with(up("a", 1), func(m *Machine) { m.Set = Draining })}, []Want{step("s")}, nil, []string{"s: a is draining"}},
		{"proving", []Machine{with(up("a", 1), func(m *Machine) { m.Set = Proving })}, []Want{step("s")}, nil, []string{"s: a is proving"}},
		{"retired", []Machine{with(up("a", 1), func(m *Machine) { m.Set = Retired })}, []Want{step("s")}, nil, []string{"s: a is retired"}},
		{"lost, though it would be first", []Machine{with(up("a", 1), lost), with(up("b", 1), func(m *Machine) { m.Rank, m.Losses = Spare, 9 })}, []Want{step("s")}, []string{"s on b"}, nil},
		{"why one that does not serve the role is lost does not matter", []Machine{up("a", 0), with(with(up("b", 1), docs), lost)}, []Want{step("s"), step("t")}, []string{"s on a"}, []string{"t: a is busy"}},

		{"slots full", []Machine{with(up("a", 2), func(m *Machine) { m.Running = 2 })}, []Want{step("s")}, nil, []string{"s: a is busy"}},
		{"one slot free", []Machine{with(up("a", 2), func(m *Machine) { m.Running = 1 })}, []Want{step("s")}, []string{"s on a"}, nil},
		{"no slots said: one", []Machine{up("a", 0)}, []Want{step("s"), step("t")}, []string{"s on a"}, []string{"t: a is busy"}},

		{"not that machine", []Machine{up("a", 1), up("b", 1)}, []Want{{Key: "s", Role: "build", Blueprint: "bp", Not: "a"}}, []string{"s on b"}, nil},
		{"not that machine, and no other", []Machine{up("a", 1)}, []Want{{Key: "s", Role: "build", Blueprint: "bp", Not: "a"}}, nil, []string{"s: a second machine is needed beside a"}},
		{"not that machine, the other is lost", []Machine{up("a", 1), with(up("b", 1), lost)}, []Want{{Key: "s", Role: "build", Blueprint: "bp", Not: "a"}}, nil, []string{"s: b is lost"}},

		{"wants share slots", []Machine{up("a", 1), up("b", 2)}, []Want{step("1"), step("2"), step("3"), step("4")}, []string{"1 on a", "2 on b", "3 on b"}, []string{"4: b is busy"}},
		{"wants share load", []Machine{up("a", 5), up("b", 5)}, []Want{step("1"), step("2"), step("3"), step("4")}, []string{"1 on a", "2 on b", "3 on a", "4 on b"}, nil},
		{
			"one that waits keeps nobody waiting",
			[]Machine{with(up("a", 1), docs), up("b", 1)},
			[]Want{step("1"), step("2"), {Key: "3", Role: "docs", Blueprint: "bp"}},
			[]string{"1 on b", "3 on a"},
			[]string{"2: b is busy"},
		},
	} {
		before := slices.Clone(c.machines)
		placed, waiting := place(now, c.machines, c.wants)
		if !slices.Equal(placed, c.placed) || !slices.Equal(waiting, c.waiting) {
			t.Errorf("%s: %q, waiting %q", c.name, placed, waiting)
		}
		for i := range before {
			if c.machines[i].Running != before[i].Running {
				t.Errorf("%s: what was passed in has changed", c.name)
			}
		}
	}
}

func TestPasses(t *testing.T) {
	const now = time.Minute
	m := func(name string, set Condition, heard time.Duration, running int) Machine {
		return Machine{Name: name, Plain: true, Slots: 1, Set: set, Heard: heard, Running: running}
	}
	for _, c := range []struct {
		name string
		m    []Machine
		want bool
	}{
		{"busy", []Machine{m("a", "", now, 1)}, true},
		{"one busy, one lost", []Machine{m("a", "", now, 1), m("b", "", -1, 0)}, true},
		{"proves itself", []Machine{m("a", Proving, now, 0)}, true},
		{"lost", []Machine{m("a", "", -1, 0)}, false},
		{"draining", []Machine{m("a", Draining, now, 0)}, false},
		{"none", nil, false},
	} {
		_, waiting := Place(now, c.m, []Want{{Key: "s", Role: "r"}})
		if len(waiting) != 1 || Passes(waiting[0].Why) != c.want {
			t.Errorf("%s: %v", c.name, waiting)
		}
	}
}

// TestUrgent: which release's step gets the machine, and what the others are told.
func TestUrgent(t *testing.T) {
	ship := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	due := func(release string, slack time.Duration, days int) Due {
		return Due{release, slack, ship.AddDate(0, 0, days)}
	}
	month, hotfix := due("1.0", 600*time.Hour, 30), due("2.0-hotfix", 20*time.Minute, 0)
	want := func(d Due, step string) Want {
		return Want{Key: d.Release + " " + step, Role: "build", Blueprint: "b", Due: d}
	}
	free, busy := Machine{Name: "a", Slots: 1}, Machine{Name: "a", Slots: 1, Running: 1}
	runs := func(d Due) Machine { m := busy; m.Runs = []Due{d}; return m }
	for _, c := range []struct {
		what     string
		machines []Machine
		wants    []Want
		placed   string
		waiting  string // step: the release that goes first
	}{
		{"less slack goes first, whatever its name", []Machine{free}, []Want{want(month, "build"), want(hotfix, "build")}, "2.0-hotfix build", "1.0 build: 2.0-hotfix"},
		{"all its steps do", []Machine{free}, []Want{want(month, "build"), want(hotfix, "build"), want(hotfix, "check")}, "2.0-hotfix build", "2.0-hotfix check: , 1.0 build: 2.0-hotfix"},
		{"of equal slack the one that ships first", []Machine{free}, []Want{want(due("1", time.Hour, 9), "x"), want(due("2", time.Hour, 3), "x")}, "2 x", "1 x: 2"},
		{"of one ship date the name", []Machine{free}, []Want{want(due("2", time.Hour, 3), "x"), want(due("1", time.Hour, 3), "x")}, "1 x", "2 x: 1"},
		{"late beats all", []Machine{free}, []Want{want(hotfix, "x"), want(due("3", -time.Hour, 60), "x")}, "3 x", "2.0-hotfix x: 3"},
		{"a step that runs is not interrupted", []Machine{runs(month)}, []Want{want(hotfix, "build")}, "", "2.0-hotfix build: "},
		{"behind one that runs, and is more urgent", []Machine{runs(hotfix)}, []Want{want(month, "build")}, "", "1.0 build: 2.0-hotfix"},
		{"two machines, one each", []Machine{free, {Name: "b", Slots: 1}}, []Want{want(month, "build"), want(hotfix, "build")}, "2.0-hotfix build, 1.0 build", ""},
		{"what only another machine can run is not held up", []Machine{free, {Name: "win", Slots: 1, Serves: []string{"win"}}}, []Want{{Key: "1.0 sign", Role: "win", Blueprint: "w", Due: month}, want(hotfix, "a"), want(hotfix, "b")}, "2.0-hotfix a, 1.0 sign", "2.0-hotfix b: "},
		{"a release's own steps are in their order", []Machine{free}, []Want{want(month, "b"), want(month, "a")}, "1.0 b", "1.0 a: "},
	} {
		var placed, waiting []string
		a, b := Place(0, c.machines, c.wants)
		for _, x := range a {
			placed = append(placed, x.Key)
		}
		for _, x := range b {
			first := ""
			if x.First != nil {
				first = x.First.Release
			}
			waiting = append(waiting, x.Key+": "+first)
		}
		if got := strings.Join(placed, ", "); got != c.placed {
			t.Errorf("%s: %s", c.what, got)
		}
		if got := strings.Join(waiting, ", "); got != c.waiting {
			t.Errorf("%s: %s wait, and not %s", c.what, got, c.waiting)
		}
	}
}
