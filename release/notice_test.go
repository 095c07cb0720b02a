package release

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// tell appends and says which notices follow, as kind item people.
func (g *game) tell(b Body) []string {
	g.tb.Helper()
	before := g.s.Clone()
	g.must(b)
	var list []string
	for _, n := range Notices(before, g.events[len(g.events)-1], g.s) {
		if n.What == "" || !slices.Contains(NoticeKinds(), n.Kind) {
			g.tb.Errorf("notice %+v", n)
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", n.Kind, n.Item, strings.Join(n.People, ","))))
	}
	return list
}

// told is a table's line: an event and the notices that follow.
type told struct {
	body func(s *State) Body
	want []string
}

func always(b Body) func(*State) Body { return func(*State) Body { return b } }

func (g *game) play(name string, lines []told) {
	g.tb.Helper()
	for i, x := range lines {
		b := x.body(g.s)
		if got := g.tell(b); !slices.Equal(got, x.want) {
			g.tb.Errorf("%s, line %d (%s): told %q, not %q", name, i, b.kind(), got, x.want)
		}
	}
}

func say(item, person string, d Decision, why string) func(*State) Body {
	return func(s *State) Body {
		return Signed{Item: item, Person: person, Decision: d, Subject: s.Subject(s.Item(item)), Reason: why}
	}
}

// done is the result of the lease in force.
func done(item string, r Report) func(*State) Body {
	return func(s *State) Body {
		l := s.Progress[item].Lease
		r.Item, r.Epoch, r.Machine = item, l.Epoch, l.Machine
		return s.Result(r)
	}
}

func failed(exit int) Report { return Report{Finished: Finished{Exit: exit, Why: "exit status"}} }

func makes(path, bytes string) Report { return Report{Finished: Finished{Outputs: out(path, bytes)}} }

// compared is the verdict on the second build.
func compared(v Verdict) func(*State) Body {
	r := Report{Compared: v, Differences: []string{"d"}}
	if v == Identical {
		r.Differences = nil
	}
	return done("gold", r)
}

func TestNotices(t *testing.T) {
	toGold := []told{
		{always(Granted{Item: "compile", Machine: "a"}), nil},
		{done("compile", makes("obj/a", "1")), nil},
		{always(Granted{Item: "test", Machine: "a"}), nil},
		{done("test", Report{}), nil},
		{always(Granted{Item: "gold", Machine: "a"}), nil},
		{done("gold", makes("dist/app", "g")), []string{"gold-committed gold"}},
		{always(Granted{Item: "gold", Machine: "b", Confirm: true}), nil},
	}
	for _, x := range []struct {
		name  string
		lines []told
	}{
		{"a release ships", append(slices.Clone(toGold), []told{
			{compared(Identical), []string{"gold-confirmed gold", "sign-off-wanted tried ann,bob"}},
			{say("tried", "ann", Approve, ""), nil}, // bob knows
			{always(Withdrawn{Item: "tried", Person: "ann", Reason: "r"}), nil},
			{say("tried", "bob", Approve, ""), nil},
			{say("tried", "ann", Approve, ""), nil},
			{say("legal", "eve", Approve, ""), nil},
			{always(Passed{Item: "hold"}), nil},
			{always(Granted{Item: "upload", Machine: "a"}), nil},
			{done("upload", failed(7)), []string{"action-wanted upload"}},
			{always(Held{Reason: "r"}), nil},
			{always(Resumed{}), nil},
			{always(Retried{Item: "upload"}), nil},
			{always(Granted{Item: "upload", Machine: "a"}), nil},
			{done("upload", Report{}), []string{"action-wanted ship ann,bob"}},
			{always(Held{Reason: "r"}), nil},
			{always(Resumed{}), []string{"action-wanted ship ann,bob"}},
			{always(Shipped{}), []string{"shipped"}},
		}...)},
		{"a sign-off that is taken back is asked for again", append(slices.Clone(toGold), []told{
			{compared(Identical), []string{"gold-confirmed gold", "sign-off-wanted tried ann,bob"}},
			{say("legal", "eve", Approve, ""), nil},
			{always(Withdrawn{Item: "legal", Person: "eve", Reason: "r"}), []string{"sign-off-wanted legal eve"}},
			{say("tried", "bob", Reject, "no"), []string{"action-wanted tried ann,bob"}},
			{say("tried", "ann", Approve, ""), nil},
			{always(Withdrawn{Item: "tried", Person: "bob", Reason: "r"}), []string{"sign-off-wanted tried bob"}},
		}...)},
		{"a machine is lost", []told{
			{always(Granted{Item: "compile", Machine: "a"}), nil},
			{func(s *State) Body { return Lost{"compile", s.Head, "a", "silence"} }, []string{"machine-lost compile"}},
			{always(Granted{Item: "compile", Machine: "b"}), nil},
			{done("compile", failed(1)), nil}, // it is retried once
			{always(Granted{Item: "compile", Machine: "b"}), nil},
			{done("compile", failed(1)), []string{"action-wanted compile"}},
			{always(Refused{Item: "compile", Epoch: 2, Machine: "a", Why: "late"}), nil},
			{always(Aborted{Reason: "no time"}), []string{"aborted"}},
		}},
		{"tests fail", []told{
			{always(Granted{Item: "compile", Machine: "a"}), nil},
			{done("compile", makes("obj/a", "1")), nil},
			{always(Granted{Item: "test", Machine: "a"}), nil},
			{done("test", Report{Finished: Finished{Failing: []string{"p", "q"}, Tests: 9}}), []string{"action-wanted test ann,bob"}},
			{always(Waived{Item: "test", Test: "p", Person: "ann", Reason: "known"}), nil},
			{always(Retried{Item: "test"}), nil},
			{always(Granted{Item: "test", Machine: "a"}), nil},
			{done("test", Report{Finished: Finished{Failing: []string{"p"}, Tests: 9}}), []string{"action-wanted test ann,bob"}},
		}},
		{"gold differs", append(slices.Clone(toGold), told{compared(Different), []string{"gold-differs gold ann,bob"}})},
		{"gold differs as the build does", append(slices.Clone(toGold), []told{
			{compared(Equivalent), []string{"gold-differs gold ann,bob"}},
			{always(Excepted{Person: "ann", Differences: []string{"d"}, Reason: "r"}), []string{"gold-confirmed gold", "sign-off-wanted tried ann,bob"}},
		}...)},
		{"the second build fails", append(slices.Clone(toGold), told{done("gold", failed(1)), []string{"action-wanted gold"}})},
		{"an amendment", []told{
			{always(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:s2"}, Reason: "r", By: "ann"}), []string{"action-wanted amendment bob"}},
			{always(Held{Reason: "r"}), nil},
			{func(s *State) Body { return Agreed{Amendment: s.Amendment.Seq, Person: "bob", Decision: Reject} }, nil},
			{always(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:s2"}, Reason: "r", By: "bob"}), []string{"action-wanted amendment ann"}},
			{func(s *State) Body { return Agreed{Amendment: s.Amendment.Seq, Person: "ann", Decision: Approve} }, nil},
		}},
	} {
		begin(t).play(x.name, x.lines)
	}
}

// The first event asks too.
func TestNoticesOfTheStart(t *testing.T) {
	g := begin(t)
	list := Notices(Empty(), g.events[0], g.s)
	if len(list) != 1 || list[0].Kind != SignOffWanted || list[0].Item != "legal" || list[0].What != "legal wants 1 sign-off(s) of eve: licences" {
		t.Errorf("%+v", list)
	}
}

func TestSlackNotice(t *testing.T) {
	const day = 24 * time.Hour
	low := false
	for i, x := range []struct {
		slack time.Duration
		what  string // "": nothing is told
	}{
		{2 * day, ""},
		{day, ""},
		{day - time.Second, "slack is 24 h; it hangs on gold, tried"},
		{day - time.Hour, ""},
		{day + time.Hour, ""}, // above, and not by a tenth
		{day - time.Hour, ""},
		{day + day/10, ""},
		{day - time.Hour, "slack is 23 h; it hangs on gold, tried"},
		{-time.Hour, ""},
		{2 * day, ""},
		{-time.Hour, "the release is late by 1 h; it hangs on gold, tried"},
	} {
		n, again := SlackNotice(Outlook{Slack: x.slack, Chain: []string{"gold", "tried"}}, day, low)
		low = again
		if (n == nil) != (x.what == "") || n != nil && (n.What != x.what || n.Kind != SlackLow) {
			t.Errorf("line %d: %+v", i, n)
		}
	}
	for slack, want := range map[time.Duration]string{-25 * time.Second: "the release is late by 25 s", 25 * time.Second: "slack is 25 s", -time.Minute - time.Second: "the release is late by 61 s"} {
		if n, _ := SlackNotice(Outlook{Slack: slack}, day, false); n == nil || n.What != want {
			t.Errorf("%s: %+v", slack, n)
		}
	}
	// A limit of nothing: late is low.
	if n, low := SlackNotice(Outlook{Slack: -1}, 0, false); n == nil || !low {
		t.Error("late is not told")
	}
	if _, low := SlackNotice(Outlook{Slack: time.Second}, 0, true); !low {
		t.Error("a second is above")
	}
}
