package drill

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// rehearsal is a scenario in which each kind of thing happens once.
const rehearsal = `drill: 1
name: rehearsal
hypothesis: two servers are lost and it ships
clock: {ship: "2026-12-01T09:00:00Z", begins: T-10d, mode: jump}
release: {version: "4.2", runbook: RELEASE.md}
world:
  controls: 1
  hosts:
  - {name: primary, rank: primary, disk: 4GB}
  - {name: backup, rank: backup, disk: 4GB}
  - {name: spare, rank: spare, disk: 4GB}
  - {name: second, rank: spare, disk: 4GB}
people:
- {name: ann, responds: 1h..3h, spends: 30m}
- {name: bob, responds: 1h, spends: 2h}
guards: {down_at_once: 2, within: 20m}
steady: [control-answers, hosts-up, nothing-left]
method:
- {name: primary-dies, when: suite running, fault: machine-lost, host: primary}
- {name: backup-hangs, when: gold running, fault: machine-hung, host: backup, for: 10m}
- {name: ann-away, when: gold confirming, fault: person-away, of: ann, for: 1h}
- {name: readmit, when: after backup-hangs, do: fleet readmit backup}
expect:
  on_time: true
  on_budget: true
  gold: identical
  faults:
  - {name: primary-dies, detected: 5s, moved: 6s}
  - {name: backup-hangs, detected: 5s, moved: 6s}
  rebuilt:
  - {host: second, within: 5s}
invariants:
  always: [one-gold, rules-kept, acknowledged-kept]
  final: [shipped, gold-confirmed]
  reached: [moved, rebuilt, gold, primary-dies, readmit]
modelled:
- {what: answers, distribution: 1h..3h, source: the last releases}
`

// story makes a history as the runner does.
type story struct {
	t      testing.TB
	p      *Plan
	h      []Record
	at     time.Duration
	jumped time.Duration
	s      *release.State
	events []release.Event

	// What may go another way than in the good one.
	verdict release.Verdict
	spent   time.Duration // by bob
	late    time.Duration // ann takes longer
	end     func(s *story)
}

func (s *story) clock() time.Time { return s.p.Begins.Add(s.at + s.jumped).UTC() }

func (s *story) add(r Record) {
	s.at += time.Millisecond
	r.Seq, r.At, r.Clock = int64(len(s.h))+1, s.at, s.clock()
	s.h = append(s.h, r)
}

func (s *story) ok(kind Kind, name, host string, ok bool) {
	r := Record{Kind: kind, Name: name, Host: host, OK: &ok}
	if !ok {
		r.Why = "no"
	}
	s.add(r)
}

// happened appends an event, which the rules must allow.
func (s *story) happened(b release.Body) int64 {
	s.t.Helper()
	e := release.New(s.clock(), "control", b)
	e.Seq = s.s.Head + 1
	if err := s.s.Apply(e); err != nil {
		s.t.Fatal(err)
	}
	s.events = append(s.events, e)
	s.add(Record{Kind: Happened, Name: e.Type, Event: &e})
	return e.Seq
}

func (s *story) jump(d time.Duration) {
	s.jumped += d
	s.add(Record{Kind: Jumped, Took: d, Why: "the next"})
}

func (s *story) inject(name, host string) {
	if host != "" {
		before := false
		s.add(Record{Kind: Probed, Name: name, Host: host, OK: &before, Before: true})
	}
	s.add(Record{Kind: Intended, Name: name, Host: host})
	ok, slack := true, 20*time.Hour
	s.add(Record{Kind: Injected, Name: name, Host: host, OK: &ok, Slack: &slack})
	s.ok(Probed, name, host, true)
}

func (s *story) signs(item, person string, after, spent time.Duration) {
	s.t.Helper()
	s.add(Record{Kind: Decided, Name: person, Why: "is asked: " + item})
	s.jump(after)
	seq := s.happened(release.Signed{Item: item, Person: person, Decision: release.Approve, Subject: s.s.Subject(s.s.Item(item)), Spent: spent})
	ok := true
	s.add(Record{Kind: Decided, Name: person, OK: &ok, Why: "approve: " + item, Spent: spent})
	s.add(Record{Kind: Told, Ack: &release.Ack{Seq: seq, Type: "signed", Item: item, Person: person}})
}

func parsed(t testing.TB, text string) *Plan {
	t.Helper()
	p, err := Parse("drill.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rehearsed is the history of the rehearsal, with what differs from the good one.
func rehearsed(t testing.TB, differ func(*story)) (*Plan, []Record) {
	t.Helper()
	p := parsed(t, rehearsal)
	s := &story{t: t, p: p, s: release.Empty(), verdict: release.Identical, spent: 2 * time.Hour}
	if differ != nil {
		differ(s)
	}
	s.add(Record{Kind: Began, Header: &Header{Run: "rehearsal-1", Tool: "trysail test", Scenario: p.Digest, Machine: "host", Source: "r1"}})
	for _, h := range p.World.Hosts {
		s.add(Record{Kind: Sighted, Host: h.Name, Why: "up"})
		s.add(Record{Kind: Made, Host: h.Name})
	}
	s.ok(Asked, "control-answers", "", true)
	s.ok(Asked, "hosts-up", "", true)
	s.happened(release.Started{
		Version: "4.2", Ship: p.Ship, Budget: 4 * time.Hour, Items: []runbook.Item{
			{Name: "compile", Kind: runbook.Step},
			{Name: "suite", Kind: runbook.Step, Needs: []string{"compile"}},
			{Name: "licences", Kind: runbook.SignOff, Needs: []string{"suite"}, Signers: []string{"bob"}, Approvals: 1},
			{Name: "gold", Kind: runbook.Step, Needs: []string{"licences"}, Gold: true, Out: []string{"app"}},
			{Name: "docs", Kind: runbook.Step, Needs: []string{"suite"}},
			{Name: "tried", Kind: runbook.SignOff, Needs: []string{"gold"}, Signers: []string{"ann"}, Approvals: 1},
		},
	})
	s.add(Record{Kind: Told, Ack: &release.Ack{Type: "started"}})
	e := s.happened(release.Granted{Item: "compile", Machine: "primary"})
	s.at += 2 * time.Second
	s.happened(release.Finished{Item: "compile", Epoch: e})
	s.jump(72 * time.Hour)

	e = s.happened(release.Granted{Item: "suite", Machine: "primary"})
	s.at += time.Second
	s.inject("primary-dies", "primary")
	s.at += 4 * time.Second
	s.add(Record{Kind: Sighted, Host: "primary", Why: "lost"})
	s.happened(release.Lost{Item: "suite", Epoch: e, Machine: "primary", Why: "no heartbeat"})
	e = s.happened(release.Granted{Item: "suite", Machine: "backup"})
	s.at += 5 * time.Second
	s.happened(release.Finished{Item: "suite", Epoch: e})
	s.signs("licences", "bob", time.Hour, s.spent)
	s.jump(120 * time.Hour)

	e = s.happened(release.Granted{Item: "gold", Machine: "backup"})
	s.at += time.Second
	s.inject("backup-hangs", "backup")
	s.ok(Done, "readmit", "", true)
	s.at += 4 * time.Second
	s.happened(release.Lost{Item: "gold", Epoch: e, Machine: "backup", Why: "no heartbeat"})
	s.add(Record{Kind: Sighted, Host: "backup", Why: "lost"})
	e = s.happened(release.Granted{Item: "gold", Machine: "second"})
	s.at += 3 * time.Second
	s.add(Record{Kind: Warmed, Host: "second", Took: 3 * time.Second})
	s.at += 6 * time.Second
	s.happened(release.Committed{Finished: release.Finished{Item: "gold", Epoch: e, Outputs: []release.Artifact{{Path: "app", Digest: "sha256:1"}}}})
	confirm := s.happened(release.Granted{Item: "gold", Machine: "spare", Confirm: true})
	docs := s.happened(release.Granted{Item: "docs", Machine: "second"})
	s.inject("ann-away", "")
	s.at += 4 * time.Second
	s.happened(release.Confirmed{Epoch: confirm, Verdict: s.verdict})
	s.at += 2 * time.Second
	s.happened(release.Finished{Item: "docs", Epoch: docs})
	s.jump(10 * time.Minute)
	s.ok(Probed, "backup-hangs", "backup", true)
	s.ok(Undone, "backup-hangs", "backup", true)
	s.jump(time.Hour)
	s.ok(Undone, "ann-away", "", true)
	if s.end != nil {
		s.end(s)
	} else {
		s.signs("tried", "ann", 2*time.Hour+s.late, 30*time.Minute)
		n := s.happened(release.Shipped{})
		s.add(Record{Kind: Told, Ack: &release.Ack{Seq: n, Type: "shipped"}})
	}
	yes := true
	s.add(Record{Kind: Reread, OK: &yes, Ledger: slices.Clone(s.events)})
	s.ok(Asked2, "control-answers", "", true)
	s.ok(Asked2, "hosts-up", "", true)
	s.ok(Cleaned, "", "", true)
	s.add(Record{Kind: Ended})
	return p, s.h
}

func renumber(h []Record) []Record {
	for i := range h {
		h[i].Seq = int64(i) + 1
	}
	return h
}

// lines writes a history as the runner does.
func lines(t testing.TB, h []Record) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, r := range h {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.Bytes()
}

// What is written and read again gives the same verdict.
func TestReadHistory(t *testing.T) {
	p, h := rehearsed(t, nil)
	data := lines(t, h)
	again, err := ReadHistory(data)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := verdict(t, p, h), verdict(t, p, again); a != b {
		t.Errorf("the verdict was %s, and is %s", a, b)
	}
	if torn, err := ReadHistory(data[:len(data)-3]); err != nil || len(torn) != len(h)-1 {
		t.Errorf("a torn end: %d records, %v", len(torn), err)
	}
	for _, x := range []struct{ name, text, what string }{
		{"nothing", "", "which drill"},
		{"a torn line", `{"seq":1`, "which drill"},
		{"no header", `{"seq":1,"at":1,"kind":"began"}` + "\n", "which drill"},
		{"no JSON", "seq 1\n", "line 1"},
		{"a torn line within", string(data[:40]) + "\n" + string(data), "line 1"},
		{"a line twice", string(data) + string(data), "bears the number 1"},
		{"a line taken out", string(append(slices.Clone(data[:bytes.IndexByte(data, '\n')+1]), lines(t, h[2:])...)), "line 2"},
		{"an event that is not known", strings.Replace(string(data), `"type":"granted"`, `"type":"granting"`, 1), "granting"},
	} {
		_, err := ReadHistory([]byte(x.text))
		var torn *TornError
		if !errors.As(err, &torn) || !strings.Contains(err.Error(), x.what) || torn.Hint() == "" {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

func verdict(t testing.TB, p *Plan, h []Record) string {
	t.Helper()
	data, err := json.Marshal(Judge(p, h))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What is accepted is read the same again, and can be judged and reported.
func FuzzReadHistory(f *testing.F) {
	p, h := rehearsed(f, nil)
	f.Add(lines(f, h))
	for _, r := range h[1:] { // short ones, which are soon changed
		f.Add(lines(f, renumber([]Record{h[0], r})))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ReadHistory(data)
		if err != nil {
			var torn *TornError
			if !errors.As(err, &torn) || torn.Hint() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		v := Judge(p, h)
		if v.Sentence == "" || Short(p, h, v) == "" || Markdown(p, h, v) == "" {
			t.Fatal("no words")
		}
		text := lines(t, h)
		again, err := ReadHistory(text)
		if err != nil || !bytes.Equal(lines(t, again), text) {
			t.Fatalf("read again: %v", err)
		}
	})
}
