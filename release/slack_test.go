package release

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/runbook"
)

// duty is a release of one sign-off: of ann, bob and eve, who work 09:00 to 17:00
// in Berlin, New York and Kathmandu unless told otherwise.
func duty(t *testing.T, approvals int, budget time.Duration, change func(p map[string]*runbook.Hours)) *State {
	t.Helper()
	hours := func(zone string) runbook.Hours {
		return runbook.Hours{Zone: zone, Days: []string{"mon", "tue", "wed", "thu", "fri"}, From: "09:00", To: "17:00"}
	}
	b := Started{
		Version: "1", Ship: time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC), Team: hours("UTC"),
		People: []Person{{Name: "ann", Hours: hours("Europe/Berlin")}, {Name: "bob", Hours: hours("America/New_York")}, {Name: "eve", Hours: hours("Asia/Kathmandu")}},
		Items: []runbook.Item{
			{Name: "build", Kind: runbook.Step, Budget: time.Hour},
			{Name: "tried", Kind: runbook.SignOff, Budget: budget, Approvals: approvals, Signers: []string{"ann", "bob", "eve"}, Needs: []string{"build"}},
		},
	}
	if change != nil {
		p := map[string]*runbook.Hours{"": &b.Team}
		for i := range b.People {
			p[b.People[i].Name] = &b.People[i].Hours
		}
		change(p)
	}
	s := Empty()
	e := New(at(0), "test", b)
	e.Seq = 1
	if err := s.Apply(e); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWorkingHours: a sign-off ends when as many people as it wants can have
// worked for its budget, the fastest first. The build before it takes an hour.
func TestWorkingHours(t *testing.T) {
	alone := func(who string) func(map[string]*runbook.Hours) { // the others do not work that year
		return func(p map[string]*runbook.Hours) {
			for name, h := range p {
				if name != who {
					h.Off = []string{"2026-01-01..2027-01-31"}
				}
			}
		}
	}
	with := func(first, then func(map[string]*runbook.Hours)) func(map[string]*runbook.Hours) {
		return func(p map[string]*runbook.Hours) { first(p); then(p) }
	}
	for _, c := range []struct {
		name      string
		now       string
		approvals int
		budget    time.Duration
		change    func(map[string]*runbook.Hours)
		ends      string
	}{
		// Ann is at work until 16:00 UTC, Bob from 14:00 to 22:00, Eve from 03:15 to 11:15.
		{"any: who is at work is first", "2026-11-24T09:00:00Z", 1, 2 * time.Hour, nil, "2026-11-24T12:00:00Z"},
		{"two of three: the second fastest", "2026-11-24T09:00:00Z", 2, 2 * time.Hour, nil, "2026-11-24T16:00:00Z"},
		{"three of three: the last", "2026-11-24T09:00:00Z", 3, 2 * time.Hour, nil, "2026-11-25T04:00:00Z"},
		{"the night of one is the day of another", "2026-11-24T17:00:00Z", 1, time.Hour, nil, "2026-11-24T19:00:00Z"},
		{"over a weekend", "2026-11-27T13:00:00Z", 1, 4 * time.Hour, alone("ann"), "2026-11-30T10:00:00Z"},
		{"on a Saturday", "2026-11-28T10:00:00Z", 1, time.Hour, alone("ann"), "2026-11-30T09:00:00Z"},
		{"no budget: when somebody is there", "2026-11-28T10:00:00Z", 1, 0, alone("ann"), "2026-11-30T08:00:00Z"},
		{"over holidays and a weekend", "2026-12-23T14:00:00Z", 1, 2 * time.Hour, with(alone("ann"), func(p map[string]*runbook.Hours) {
			p["ann"].Off = []string{"2026-12-24..2026-12-26"}
		}), "2026-12-28T09:00:00Z"},
		{"into summer time, over the weekend", "2026-03-27T14:00:00Z", 1, 2 * time.Hour, alone("ann"), "2026-03-30T08:00:00Z"},
		{"out of it", "2026-10-23T13:00:00Z", 1, 2 * time.Hour, alone("ann"), "2026-10-26T09:00:00Z"},
		{"the night that is an hour short", "2026-03-28T23:00:00Z", 1, 3 * time.Hour, with(alone("ann"), func(p map[string]*runbook.Hours) {
			p["ann"].Days, p["ann"].From, p["ann"].To = []string{"sun"}, "01:00", "09:00"
		}), "2026-03-29T03:00:00Z"},
		{"nobody works for years", "2026-11-24T09:00:00Z", 1, time.Hour, func(p map[string]*runbook.Hours) {
			for _, h := range p {
				h.Off = []string{"2026-01-01..2039-12-31"}
			}
		}, "2031-11-24T10:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		s := duty(t, c.approvals, c.budget, c.change)
		o, err := s.Outlook(now, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Ends.UTC().Format(time.RFC3339); got != c.ends || o.Slack != s.Started.Ship.Sub(o.Ends) {
			t.Errorf("%s: ends %s, not %s; slack %s", c.name, got, c.ends, o.Slack)
		}
	}
}

// TestSignedAlready: who has said yes is not waited for; who is in no calendar has
// the team's, and time passes where there is none.
func TestSignedAlready(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	ends := func(s *State, want string) {
		t.Helper()
		o, err := s.Outlook(now, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Ends.UTC().Format(time.RFC3339); got != want {
			t.Errorf("ends %s, not %s", got, want)
		}
	}
	s := duty(t, 2, 2*time.Hour, nil)
	s.Progress["build"].Result = &Finished{Outputs: out("a", "one")}
	sign := func(who string, d Decision) {
		s.Progress["tried"].Words = append(s.Progress["tried"].Words, Signature{Signed: Signed{Person: who, Decision: d, Subject: s.Subject(s.Item("tried"))}})
	}
	ends(s, "2026-11-24T11:00:00Z") // ann and eve, side by side
	sign("ann", Approve)
	ends(s, "2026-11-24T11:00:00Z") // eve
	sign("bob", Reject)
	ends(s, "2026-11-24T11:00:00Z")
	s.Progress["build"].Result = &Finished{Outputs: out("a", "two")}
	s.People[0].Hours.Off = []string{"2026-11-24"}
	ends(s, "2026-11-24T16:00:00Z") // other bytes: eve and bob, since ann is away

	s = duty(t, 1, 2*time.Hour, func(p map[string]*runbook.Hours) {
		p[""].From, p[""].To = "12:00", "13:30"
	})
	s.People = nil
	ends(s, "2026-11-25T12:30:00Z")
	s.Team = runbook.Hours{}
	ends(s, "2026-11-24T12:00:00Z")
}

// TestWithoutBudget: what has no budget is named wherever it stands, and is in the chain
// that it lengthens.
func TestWithoutBudget(t *testing.T) {
	step := func(name string, budget time.Duration, needs ...string) runbook.Item {
		return runbook.Item{Name: name, Kind: runbook.Step, Budget: budget, Needs: needs}
	}
	for _, c := range []struct {
		name           string
		items          []runbook.Item
		chain, unknown []string
	}{
		{"all have one", []runbook.Item{step("a", time.Minute), step("b", time.Minute, "a")}, []string{"a", "b"}, nil},
		{"none has, in any order", []runbook.Item{step("c", 0, "b"), step("a", 0), step("b", 0, "a")}, []string{"a", "b", "c"}, []string{"c", "a", "b"}},
		{"beside the chain", []runbook.Item{step("quick", time.Minute), step("long", 0), step("longer", 0, "long")}, []string{"quick"}, []string{"long", "longer"}},
		{"at the end of it", []runbook.Item{step("a", time.Minute), step("b", 0, "a"), step("c", 0)}, []string{"a", "b"}, []string{"b", "c"}},
		{"a sign-off and a wait", []runbook.Item{
			{Name: "s", Kind: runbook.SignOff, Approvals: 1, Signers: []string{"ann"}}, {Name: "w", Kind: runbook.Wait, Until: runbook.Moment{Before: 24 * time.Hour}},
		}, []string{"w"}, []string{"s"}},
	} {
		s := Empty()
		e := New(at(0), "test", Started{Version: "1", Ship: time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC), Items: c.items})
		e.Seq = 1
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
		o, err := s.Outlook(at(0), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(o.Chain, c.chain) || !slices.Equal(o.Unknown, c.unknown) {
			t.Errorf("%s: hangs on %q, no budget for %q", c.name, o.Chain, o.Unknown)
		}
	}
}

// TestOpenHours: each of those who must say yes still has a sign-off's budget to work.
func TestOpenHours(t *testing.T) {
	s := duty(t, 3, 2*time.Hour, nil)
	s.Started.Rules = RulesNow
	s.Progress["build"].Result = &Finished{Outputs: out("a", "one")}
	tried := s.Item("tried")
	for _, c := range []struct {
		who  string
		says Decision
		want time.Duration
	}{{"", "", 6 * time.Hour}, {"ann", Approve, 4 * time.Hour}, {"bob", Reject, 4 * time.Hour}, {"eve", ApproveExcept, 2 * time.Hour}} {
		if c.who != "" {
			s.Progress["tried"].Words = append(s.Progress["tried"].Words, Signature{Signed: Signed{Person: c.who, Decision: c.says, Subject: s.Subject(tried)}})
		}
		o, err := s.Outlook(at(0), time.LoadLocation)
		if err != nil || o.Open != c.want {
			t.Errorf("%s says %s: %s to come, not %s; %v", c.who, c.says, o.Open, c.want, err)
		}
	}
	s.Progress["build"].Result = &Finished{Outputs: out("a", "two")} // other bytes
	if o, err := s.Outlook(at(0), time.LoadLocation); err != nil || o.Open != 6*time.Hour {
		t.Errorf("of other bytes: %s to come; %v", o.Open, err)
	}
}

// TestHoursInEvents: hours come back from the disk as they were, hours that cannot
// be read are refused, and streams without any are read.
func TestHoursInEvents(t *testing.T) {
	old := `{"seq":1,"time":"2026-11-24T09:00:00Z","actor":"a","type":"started","body":{"version":"1","runbook":"","items":[{"name":"x","kind":"step","phase":"","line":1}],"ship":"2026-12-01T09:00:00Z","source":{"vcs":"git","revision":"r","original":"o"},"machines":null}}`
	var e Event
	if err := json.Unmarshal([]byte(old), &e); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(e); err != nil || string(again) != old {
		t.Errorf("it comes back as %s: %v", again, err)
	}
	if _, err := Fold([]Event{e}); err != nil {
		t.Error(err)
	}
	g := begin(t)
	line, err := json.Marshal(g.events[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := `"team":{"zone":"UTC","days":["mon","tue","wed","thu","fri"],"from":"09:00","to":"17:00"},"people":[{"name":"ann","groups":["qa"],"hours":{"zone":"UTC"`; !strings.Contains(string(line), want) {
		t.Errorf("no %s in %s", want, line)
	}
	bad := []Person{{Name: "ann", Hours: runbook.Hours{Zone: "UTC", Days: []string{"mon"}, From: "17:00", To: "09:00"}}}
	amended := Amended{What: []string{"runbook"}, Runbook: "sha256:two", Items: g.s.Items, Approver: g.s.Approvers, Reason: "r", By: "ann", People: bad}
	g.refused(amended, "working hours of ann")
	started := g.events[0].Body.(Started)
	started.Team = bad[0].Hours
	if err := Empty().Apply(Event{Seq: 1, Body: started}); err == nil || !strings.Contains(err.Error(), "working hours of the team") {
		t.Errorf("a team that ends before it begins: %v", err)
	}

	// An amended runbook has its own people.
	amended.Team, amended.People = g.s.Team, []Person{{Name: "eve", Hours: g.s.Team}}
	n := g.must(amended)
	if len(g.s.People) != 3 {
		t.Errorf("people before it is approved: %+v", g.s.People)
	}
	g.must(Agreed{Amendment: n, Person: "bob", Decision: Approve})
	if !slices.EqualFunc(g.s.People, amended.People, func(a, b Person) bool { return a.Name == b.Name }) {
		t.Errorf("people: %+v", g.s.People)
	}

	g.s.Team.Zone = "Mars/Olympus"
	if _, err := g.s.Outlook(at(0), time.LoadLocation); err == nil || !strings.Contains(err.Error(), "the team") {
		t.Errorf("a zone that is not known: %v", err)
	}
}
