package release

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// History is what was seen of a release from outside of its ledger, to be held
// against it ([Check]).
type History struct {
	Acks      []Ack      // what somebody was told that had happened
	Runs      []Run      // what the runs of steps said of themselves
	Published []string   // digests of what was found where publish steps put it
	Gold      []Artifact // the files of gold, where an event names only the list of them
}

// Ack is an event that was acknowledged. Old records of drills spell its keys with capitals.
type Ack struct {
	Seq    int64  `json:"seq,omitempty,case:ignore"`    // its number; 0 where the answer did not tell
	Type   string `json:"type,case:ignore"`             // as [Event.Type]
	Item   string `json:"item,omitempty,case:ignore"`   // "" where the event is about none
	Person string `json:"person,omitempty,case:ignore"` // "" where it is nobody's word
}

// Run is one run of a step, by the clock of the machines' host.
type Run struct {
	Item, Name string
	Began      time.Time
	Alive      time.Time // when it last said so
}

// Check lists what is wrong with a release, whatever happened to its machines and
// controls: an empty list means that its rules held. It believes neither side: the
// events are folded again, which holds them against every rule, and compared with what
// was seen.
func Check(events []Event, h History) []string {
	var list []string
	wrong := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if _, err := Fold(events); err != nil {
		wrong("the ledger does not fold: %v", err)
	}
	checkAcks(events, h.Acks, wrong)
	checkRuns(events, h.Runs, wrong)
	checkPublished(events, h, wrong)
	return list
}

// Undemanded says what newer rules demand of a release and these do not, for the person who judges
// an old ledger; empty for the newest rules.
func Undemanded(rules int) []string {
	list := []string{
		"that an approval ends when another source is released, and that nobody's counts who wrote that source",
		"that a change has the approvals which are wanted when it is approved, and that an amended runbook brings its ship date",
		"that approvals are counted for each group, that a decision is for all that it relies on and ends for nothing else, that authors decide nothing about their own work, and that a held release does not ship",
		"that people sign their decisions with a key, beside sign-offs: changes, their approval, waivers, exceptions and withdrawals",
	}
	return list[min(max(rules, 0), len(list)):]
}

// CheckAcks lists acknowledged facts that are not among the events.
func CheckAcks(events []Event, acks []Ack) []string {
	var list []string
	checkAcks(events, acks, func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) })
	return list
}

func checkAcks(events []Event, acks []Ack, wrong func(string, ...any)) {
	for _, a := range acks {
		if a.Seq > int64(len(events)) {
			wrong("event %d (%s %s) was acknowledged, and the ledger ends at %d", a.Seq, a.Type, a.Item, len(events))
			continue
		}
		among := events
		if a.Seq > 0 {
			among = events[a.Seq-1 : a.Seq]
		}
		if !slices.ContainsFunc(among, func(e Event) bool { return a.is(e) }) {
			wrong("%s %s %s was acknowledged as event %d, and is not there", a.Type, a.Item, a.Person, a.Seq)
		}
	}
}

func (a Ack) is(e Event) bool {
	item, person := "", ""
	switch b := e.Body.(type) {
	case Signed:
		item, person = b.Item, b.Person
	case Retried:
		item = b.Item
	case Waived:
		item, person = b.Item, b.Person
	}
	return e.Type == a.Type && (a.Item == "" || a.Item == item) && (a.Person == "" || a.Person == person)
}

// checkRuns looks for two runs of a step at a time, and for runs that nobody
// granted.
func checkRuns(events []Event, runs []Run, wrong func(string, ...any)) {
	granted := map[string]time.Time{}
	for _, e := range events {
		if b, ok := e.Body.(Granted); ok && granted[b.Item].IsZero() {
			granted[b.Item] = e.Time
		}
	}
	byItem := map[string][]Run{}
	for _, r := range runs {
		byItem[r.Item] = append(byItem[r.Item], r)
	}
	for _, item := range slices.Sorted(maps.Keys(byItem)) {
		list := byItem[item]
		slices.SortFunc(list, func(a, b Run) int { return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Name, b.Name)) })
		// An agent that was killed and is back within its lease begins again, so one
		// grant may have several runs, one after the other.
		if first := granted[item]; first.IsZero() || list[0].Began.Before(first) {
			wrong("run %s of %s began before anybody granted it", list[0].Name, item)
		}
		for i := 1; i < len(list); i++ {
			if last := list[i-1]; !last.Alive.Before(list[i].Began) {
				wrong("two at once: run %s of %s was alive %s after run %s began", last.Name, item, last.Alive.Sub(list[i].Began), list[i].Name)
			}
		}
	}
}

// checkPublished traces every byte that went out to gold. The files of a list are believed
// if they make up the list that the event names.
func checkPublished(events []Event, h History, wrong func(string, ...any)) {
	gold := map[string]bool{}
	for _, e := range events {
		if b, ok := e.Body.(Committed); ok {
			list := b.Outputs
			if b.Tree != "" {
				list = h.Gold
			}
			got, err := WriteList(io.Discard, list)
			if b.Tree != "" && (err != nil || got.Tree != b.Tree) && len(h.Published) > 0 {
				wrong("gold is the list of %d files %s, and the files that were published were compared with the list %s", b.Files, b.Tree, got.Tree)
				return
			}
			for _, a := range list {
				gold[a.Digest] = true
			}
		}
	}
	for _, dg := range h.Published {
		if !gold[dg] {
			wrong("%s was published, and is not gold", dg)
		}
	}
}
