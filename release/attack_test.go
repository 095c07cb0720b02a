package release

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"trysail/runbook"
)

// TestAttackReportOnATerminal: a person gives a reason that moves the cursor and turns text
// around, and another one looks at report.md with cat.
func TestAttackReportOnATerminal(t *testing.T) {
	r := &Retrospective{Version: "4.2", Outcome: "aborted", Why: "\x1b]0;title\x07\x1b[2Jnever \u202emind | <b>\nnext"}
	for _, c := range r.Markdown() {
		if c != '\n' && (unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c)) {
			t.Fatalf("the report has %q", c)
		}
	}
	if page, err := r.HTML(); err != nil || strings.Contains(string(page), "<b>") {
		t.Errorf("%v: the page has tags that a person typed", err)
	}
}

// chain is a plan in which each item needs the one before it.
func chain(n int) []runbook.Item {
	items := make([]runbook.Item, n)
	for i := range items {
		items[i] = runbook.Item{Name: fmt.Sprint("w", i), Kind: runbook.Wait}
		if i > 0 {
			items[i].Needs = []string{items[i-1].Name}
		}
	}
	return items
}

// TestAttackPlanOfManyItems: the author of a ledger makes a plan so long that verify, or
// control, works on its first event for hours.
func TestAttackPlanOfManyItems(t *testing.T) {
	items := chain(60_000)
	at := time.Now()
	if err := check(Started{}, items); err != nil {
		t.Error(err)
	}
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("a plan of %d items takes %s to look at", len(items), took)
	}
	circle := chain(3)
	circle[0].Needs = []string{"w2"}
	itself := chain(3)
	itself[0].Needs = []string{"w0"}
	beside := append(chain(3), runbook.Item{Name: "x", Needs: []string{"y"}}, runbook.Item{Name: "y", Needs: []string{"w1", "x"}})
	twice := chain(3)
	twice[2].Needs = []string{"w1", "w1"}
	for _, x := range []struct {
		name  string
		items []runbook.Item
		what  string
	}{
		{"a circle", circle, "circle"},
		{"one that needs itself", itself, "circle"},
		{"a circle beside others", beside, "circle"},
		{"an item twice", append(chain(2), chain(1)...), "stands twice"},
		{"a need of nothing", chain(3)[1:], "does not hold"},
		{"a need twice", twice, ""},
		{"the other way round", func() []runbook.Item { list := chain(5); slices.Reverse(list); return list }(), ""},
		{"nothing", nil, ""},
	} {
		err := check(Started{}, x.items)
		if (err == nil) != (x.what == "") || err != nil && !strings.Contains(err.Error(), x.what) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// TestAttackEventWithoutEnd: an event has more than the ledger ever takes. What it says of a
// release, such as a plan of a million items, is not even read.
func TestAttackEventWithoutEnd(t *testing.T) {
	e := New(time.Now(), "ann", Held{Reason: strings.Repeat("x", 3<<20)})
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &e); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("an event of %d bytes is read: %v", len(line), err)
	}
}

// TestAttackPeopleOfOneName: the author of a runbook names thousands of people, who are all one.
// Control asks who is who whenever it looks at the release.
func TestAttackPeopleOfOneName(t *testing.T) {
	s := Empty()
	for i := range 30_000 {
		s.People = append(s.People, Person{Name: fmt.Sprint("p", i), Full: "Ann Example", Email: fmt.Sprintf("p%d@example.org", i)})
	}
	at := time.Now()
	who := s.persons()
	if !who.same("p0", "p29999") || who.same("p0", "somebody") || who.of("p7") != who.find(mailSign("p8@example.org")) {
		t.Error("they are not one person")
	}
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("who is who takes %s to find out", took)
	}
}

// TestAttackPeopleWhoSign: thousands of people may sign one item, of whom it wants half, in two
// groups. Control looks who still may whenever it looks at the release.
func TestAttackPeopleWhoSign(t *testing.T) {
	const n = 8000
	s := Empty()
	x := runbook.Item{Name: "s", Kind: runbook.SignOff, Approvals: n / 2, Asked: []string{"some", "all"}, Quotas: []runbook.Quota{{Who: "some", Approvals: n / 4}, {Who: "all", Approvals: n / 4}}}
	for i := range n {
		p := Person{Name: fmt.Sprint("p", i), Groups: []string{"all"}}
		if i%2 == 0 {
			p.Groups = append(p.Groups, "some")
			x.Quotas[0].Of = append(x.Quotas[0].Of, p.Name)
		}
		x.Quotas[1].Of = append(x.Quotas[1].Of, p.Name)
		s.People, x.Signers, s.Approvers = append(s.People, p), append(x.Signers, p.Name), append(s.Approvers, p.Name)
	}
	s.Started.Rules, s.Source.Author, s.Items, s.Progress["s"] = 4, "p7", []runbook.Item{x}, &Progress{}
	at := time.Now()
	if got := s.Statuses()["s"]; got != Ready {
		t.Errorf("it is %s", got)
	}
	if asks := s.Asks(); len(asks) != 1 || len(asks[0].People) != n-1 || asks[0].Needed != n/2 {
		t.Errorf("%d asks", len(asks))
	}
	s.Items[0].Approvals, s.Items[0].Quotas[0].Approvals = n*3/4+1, n/2+1
	if asks := s.Asks(); len(asks) != 1 || asks[0].Type != "amend" || !strings.Contains(asks[0].What, "p7 wrote") {
		t.Errorf("too few: %+.200v", asks)
	}
	if took := time.Since(at); took > 6*time.Second {
		t.Errorf("who may sign takes %s to find out", took)
	}
}
