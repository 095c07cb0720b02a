package release

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/runbook"
)

// shipped is a release that went well: one step, gold built twice, a signature.
func shipped(t *testing.T) ([]Event, History) {
	t.Helper()
	g := &game{tb: t, s: Empty()}
	g.must(Started{Version: "1", Ship: at(59), Items: []runbook.Item{
		{Name: "compile", Kind: runbook.Step, Phase: "Build"},
		{Name: "gold", Kind: runbook.Step, Phase: "Gold", Needs: []string{"compile"}, Gold: true, Out: []string{"app"}},
		{Name: "tried", Kind: runbook.SignOff, Needs: []string{"gold"}, Signers: []string{"ann"}, Approvals: 1},
	}})
	lost := g.must(Granted{Item: "compile", Machine: "a"})
	g.must(Lost{"compile", lost, "a", "gone"})
	e := g.must(Granted{Item: "compile", Machine: "b"})
	g.must(Finished{Item: "compile", Epoch: e})
	e = g.must(Granted{Item: "gold", Machine: "b"})
	g.must(Committed{Finished{Item: "gold", Epoch: e, Outputs: out("app", "1")}})
	e = g.must(Granted{Item: "gold", Machine: "c", Confirm: true})
	g.must(Confirmed{Epoch: e, Verdict: Identical})
	signed := g.must(Signed{Item: "tried", Person: "ann", Decision: Approve, Subject: g.s.Subject(g.s.Item("tried"))})
	g.must(Shipped{})
	return g.events, History{
		Acks: []Ack{{Seq: 1, Type: "started"}, {Seq: signed, Type: "signed", Item: "tried", Person: "ann"}, {Type: "shipped"}},
		Runs: []Run{
			{"compile", "r1", at(1), at(2)},
			{"compile", "r2", at(3), at(4)},
			{"gold", "r3", at(5), at(6)},
			{"gold", "r4", at(7), at(8)},
		},
		Published: []string{out("app", "1")[0].Digest},
	}
}

// TestCheck plants one defect at a time; the checker must name it.
func TestCheck(t *testing.T) {
	if got := Check(shipped(t)); len(got) != 0 {
		t.Fatalf("a release that went well: %q", got)
	}
	find := func(events []Event, kind string) int {
		return slices.IndexFunc(events, func(e Event) bool { return e.Type == kind })
	}
	for _, c := range []struct {
		name, want string
		plant      func(events []Event, h *History) []Event
	}{
		{"a second gold", "the ledger does not fold: event 12 (gold)", func(l []Event, _ *History) []Event {
			again := l[find(l, "gold")]
			again.Seq = int64(len(l)) + 1
			return append(l, again)
		}},
		{"an acknowledged event is lost", "was acknowledged as event", func(l []Event, _ *History) []Event {
			i := find(l, "signed")
			l[i] = Event{Seq: l[i].Seq, Type: "held", Body: Held{}}
			return l
		}},
		{"the end is lost", "the ledger ends at", func(l []Event, h *History) []Event {
			h.Acks[2].Seq = int64(len(l))
			return l[:len(l)-1]
		}},
		{"what was acknowledged is nowhere", "shipped   was acknowledged", func(l []Event, _ *History) []Event { return l[:len(l)-1] }},
		{"signed as somebody else", "was acknowledged as event", func(l []Event, h *History) []Event {
			h.Acks[1].Person = "bob"
			return l
		}},
		{"two runs at once", "two at once: run r1 of compile was alive", func(l []Event, h *History) []Event {
			h.Runs[0].Alive = at(3).Add(time.Millisecond)
			return l
		}},
		{"two runs touch", "two at once", func(l []Event, h *History) []Event {
			h.Runs[0].Alive = h.Runs[1].Began
			return l
		}},
		{"a run that nobody granted", "run r5 of docs began before anybody granted it", func(l []Event, h *History) []Event {
			h.Runs = append(h.Runs, Run{"docs", "r5", at(20), at(21)})
			return l
		}},
		{"a run before it was granted", "run r1 of compile began before", func(l []Event, h *History) []Event {
			h.Runs[0].Began = at(0).Add(-time.Hour)
			return l
		}},
		{"other bytes go out", "is not gold", func(l []Event, h *History) []Event {
			h.Published = append(h.Published, "sha256:0")
			return l
		}},
		{"a stale result counts", "the lease 2 of compile is not in force", func(l []Event, _ *History) []Event {
			b := l[find(l, "finished")].Body.(Finished)
			b.Epoch = 2
			l[find(l, "finished")].Body = b
			return l
		}},
		{"a step ends well twice", "the ledger does not fold: event 12 (finished)", func(l []Event, _ *History) []Event {
			again := l[find(l, "finished")]
			again.Seq = int64(len(l)) + 1
			return append(l, again)
		}},
		{"signed after the end", "release 1 is shipped", func(l []Event, _ *History) []Event {
			again := l[find(l, "signed")]
			again.Seq = int64(len(l)) + 1
			return append(l, again)
		}},
		{"an event is missing", "event 4 follows event 2", func(l []Event, _ *History) []Event { return slices.Delete(l, 2, 3) }},
	} {
		events, h := shipped(t)
		events = c.plant(events, &h)
		if got := strings.Join(Check(events, h), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: the checker says\n%s\nand not %q", c.name, got, c.want)
		}
	}
}

// TestCheckPublishedOfAList: what goes out is compared with the files of gold's list, if they
// are those of the list that the event names.
func TestCheckPublishedOfAList(t *testing.T) {
	list := func(n int) (files []Artifact, all []string) {
		for i := range n {
			a := Artifact{Path: fmt.Sprintf("dist/%05d", i), Digest: fmt.Sprintf("sha256:%064x", i), Size: 1, Mode: "0644"}
			files, all = append(files, a), append(all, a.Digest)
		}
		return files, all
	}
	files, digests := list(7000)
	m, err := WriteList(io.Discard, files)
	if err != nil {
		t.Fatal(err)
	}
	events := []Event{{Seq: 1, Type: "gold", Body: Committed{Finished{Item: "gold", List: List{Tree: m.Tree, Files: m.Files, Bytes: m.Bytes, First: m.First}}}}}
	for _, c := range []struct {
		name, want string
		h          History
	}{
		{"every file", "", History{Published: digests, Gold: files}},
		{"some files", "", History{Published: digests[6500:], Gold: files}},
		{"nothing is published", "", History{}},
		{"another file", "sha256:0 was published, and is not gold", History{Published: []string{digests[1], "sha256:0"}, Gold: files}},
		{"the files of gold are not given", "gold is the list of 7000 files " + m.Tree, History{Published: digests}},
		{"the files of another list", "gold is the list of 7000 files " + m.Tree, History{Published: digests[:1], Gold: files[:6999]}},
	} {
		var got []string
		checkPublished(events, c.h, func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) })
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%s: the checker says %q, and not %q", c.name, got, c.want)
		}
	}
}
