package release

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStopped: what stops a release is in its outlook, and people are asked for what the
// rules take. The number stays what it is when they mend it at once.
func TestStopped(t *testing.T) {
	candidate := Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:src2"}, Reason: "mended", By: "eve"}
	toGold := []func(*State) Body{
		always(Granted{Item: "compile", Machine: "a"}), done("compile", makes("obj/a", "1")), always(Granted{Item: "test", Machine: "a"}), done("test", Report{}),
		always(Granted{Item: "gold", Machine: "a"}), done("gold", makes("dist/app", "g")), always(Granted{Item: "gold", Machine: "b", Confirm: true}),
	}
	after := func(more ...func(*State) Body) []func(*State) Body { return append(slices.Clone(toGold), more...) }
	for _, c := range []struct {
		name     string
		events   []func(*State) Body
		item     string
		why      string
		final    bool
		asks     string // for what
		says     string
		people   string
		answer   Body // what is asked for is taken
		answered Status
		vain     Body // what is not asked for, and why not
		refusal  string
	}{
		{"gold differs", after(compared(Different)), "gold", "the second build made other bytes", true, "abort", "release another version", "ann bob", Aborted{Reason: "r"}, Stopped, Retried{Item: "gold"}, "not tried until it agrees"},
		{
			"gold is equivalent", after(compared(Equivalent)), "gold", "the second build differs in ways that the build differs from itself", false, "except", "sign for each", "ann bob",
			Excepted{Person: "ann", Differences: []string{"d"}, Reason: "r"},
			Complete,
			Excepted{Person: "ann"},
			"names each difference",
		},
		{"the second build fails", after(done("gold", failed(1))), "gold", "the second build of gold failed: exit status", false, "retry", "see its log, then retry", "", Retried{Item: "gold"}, Confirming, nil, ""},
		{
			"a step fails",
			[]func(*State) Body{always(Granted{Item: "compile", Machine: "a"}), done("compile", failed(1)), always(Granted{Item: "compile", Machine: "a"}), done("compile", failed(1))},
			"compile", "it failed", false, "retry", "retry or amend", "", candidate, Stopped, nil, "",
		},
		{
			"a step fails after gold", after(compared(Identical), say("tried", "ann", Approve, ""), say("tried", "bob", Approve, ""), say("legal", "eve", Approve, ""), always(Passed{Item: "hold"}), always(Granted{Item: "upload", Machine: "a"}), done("upload", failed(1))),
			"upload", "it failed", false, "retry", "then retry; gold does not change any more", "",
			Retried{Item: "upload"},
			Ready, candidate, "gold is committed",
		},
		{
			"tests fail",
			[]func(*State) Body{always(Granted{Item: "compile", Machine: "a"}), done("compile", makes("obj/a", "1")), always(Granted{Item: "test", Machine: "a"}), done("test", Report{Finished: Finished{Failing: []string{"it is slow"}, Tests: 9}})},
			"test", "tests failed: it is slow", false, "waive", "waive each by name", "ann bob",
			Waived{Item: "test", Test: "it is slow", Person: "ann", Reason: "known"},
			Complete,
			Waived{Item: "test", Test: "it is slow", Person: "ann"},
			"a waiver needs a reason",
		},
		{
			"rejected, of no step",
			[]func(*State) Body{say("legal", "eve", Reject, "GPL")},
			"legal", "it was rejected", false, "withdraw", "eve must withdraw once it is mended", "ann bob eve",
			Withdrawn{Item: "legal", Person: "eve"},
			Ready, nil, "",
		},
		{
			"rejected after gold", after(compared(Identical), say("tried", "bob", Reject, "it hangs")), "tried", "it was rejected", false, "withdraw", "gold does not change any more: bob must withdraw", "ann bob",
			Withdrawn{Item: "tried", Person: "bob"},
			Ready, candidate, "gold is committed",
		},
	} {
		g := begin(t)
		now := at(50)
		for _, e := range c.events {
			g.must(e(g.s))
		}
		o, err := g.s.Outlook(now, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if want := []Block{{Code: BlockStopped, Item: c.item, Why: c.why, Final: c.final}}; !slices.Equal(o.Blocked, want) {
			t.Errorf("%s: blocked by %+v", c.name, o.Blocked)
		}
		asks := g.s.Asks()
		i := slices.IndexFunc(asks, func(a Ask) bool { return a.Item == c.item })
		if a := asks[i]; a.Type != c.asks || strings.Join(a.People, " ") != c.people || !strings.HasPrefix(a.What, c.why) || !strings.Contains(a.What, c.says) || (a.Type == "waive") != slices.Equal(a.Tests, []string{"it is slow"}) {
			t.Errorf("%s: asks %+v", c.name, a)
		}
		if c.vain != nil {
			g.refused(c.vain, c.refusal)
		}
		g.must(c.answer)
		g.status(map[string]Status{c.item: c.answered})
		if again, err := g.s.Outlook(now, time.LoadLocation); err != nil || (c.answered != Stopped) != (len(again.Blocked) == 0) && !g.s.Over() || g.s.Over() && again.Blocked != nil {
			t.Errorf("%s: blocked by %+v once it is answered; %v", c.name, again.Blocked, err)
		}
	}
}

// TestRejectedCandidate: what stands on a step is asked again of the next candidate, what
// stands on none is not.
func TestRejectedCandidate(t *testing.T) {
	for _, c := range []struct {
		item, person, asks string
		then               Status
	}{{"tried", "bob", "amend", Pending}, {"legal", "eve", "withdraw", Stopped}} {
		g := begin(t)
		g.s.Started.Rules = RulesNow
		g.s.Item("tried").Needs = []string{"compile"}
		g.run("compile", "a", "obj/a", "obj")
		g.must(say(c.item, c.person, Reject, "no")(g.s))
		asks := g.s.Asks()
		if i := slices.IndexFunc(asks, func(a Ask) bool { return a.Item == c.item }); asks[i].Type != c.asks {
			t.Errorf("%s: asks %+v", c.item, asks[i])
		}
		open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:src2"}, Reason: "mended", By: "eve"})
		g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
		g.status(map[string]Status{c.item: c.then})
	}
}

// TestGoldWaitsForPeople: while an amendment is open gold begins nowhere, also for the second
// time, and says so. One that gold was faster than is refused, for nothing else is taken.
func TestGoldWaitsForPeople(t *testing.T) {
	source := Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:src2"}, Reason: "a bug", By: "eve"}
	waits := func(g *game, want string) {
		t.Helper()
		if got := g.s.Waits(g.s.Item("gold")); got != want || want != "" && !ForPeople(got) {
			t.Errorf("gold waits: %q, not %q", got, want)
		}
		if next := slices.ContainsFunc(g.s.Next(), func(w Want) bool { return w.Item == "gold" }); next == (want != "") {
			t.Errorf("gold is given to a machine: %v", next)
		}
	}
	g := begin(t)
	g.run("compile", "a", "obj/a", "obj")
	g.run("test", "a", "", "")
	waits(g, "")
	open := g.must(source)
	waits(g, "amendment 6 is open: gold waits")
	if got := g.s.Waits(g.s.Item("legal")); got != "" {
		t.Errorf("a sign-off waits: %q", got)
	}
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Reject})
	waits(g, "")
	epoch := g.must(Granted{Item: "gold", Machine: "a"})
	open = g.must(source)
	before := g.s.Clone()
	g.must(Committed{Finished{Item: "gold", Epoch: epoch, Outputs: out("dist/app", "gold")}})
	waits(g, "amendment 9 is open: gold waits")
	asks := g.s.Asks()
	if a := asks[len(asks)-1]; a.Type != "refuse" || !strings.Contains(a.What, "a bug; gold was committed meanwhile: refuse it") || !slices.Equal(a.People, []string{"ann", "bob"}) {
		t.Errorf("asks %+v", a)
	}
	told := Notices(before, g.events[len(g.events)-1], g.s)
	if n := told[len(told)-1]; n.Kind != ActionWanted || n.Item != "amendment" || !strings.Contains(n.What, "eve proposes to change source: a bug; gold was committed meanwhile") {
		t.Errorf("told %+v", n)
	}
	g.refused(Agreed{Amendment: open, Person: "bob", Decision: Approve}, "does not change any more")
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Reject})
	waits(g, "")
}

// TestTooFewMaySign: a sign-off that its people cannot give stops the release before it is
// asked for, and for good once there is gold.
func TestTooFewMaySign(t *testing.T) {
	g := begin(t)
	g.s.Source.Author = "eve"
	check := func(final bool, asks, change string) {
		t.Helper()
		o, err := g.s.Outlook(at(50), time.LoadLocation)
		if want := []Block{{Code: BlockStopped, Item: "legal", Why: "too few of its people may sign: eve wrote what is released", Final: final}}; err != nil || !slices.Equal(o.Blocked, want) {
			t.Errorf("blocked by %+v; %v", o.Blocked, err)
		}
		list := g.s.Asks()
		if i := slices.IndexFunc(list, func(a Ask) bool { return a.Item == "legal" }); list[i].Type != asks || list[i].Change != change {
			t.Errorf("asks %+v", list[i])
		}
	}
	check(false, "amend", "runbook")
	g.run("compile", "a", "obj/a", "obj")
	g.run("test", "a", "", "")
	g.run("gold", "a", "dist/app", "gold")
	check(true, "abort", "")
}
