package release

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// History is what was seen of a release from outside of its ledger, to be held
// against it ([Check]).
type History struct {
	Acks      []Ack    // what somebody was told that had happened
	Runs      []Run    // what the runs of steps said of themselves
	Published []string // digests of what was found where publish steps put it
}

// Ack is an event that was acknowledged.
type Ack struct {
	Seq    int64  `json:"seq,omitempty"`    // its number; 0 where the answer did not tell
	Type   string `json:"type"`             // as [Event.Type]
	Item   string `json:"item,omitempty"`   // "" where the event is about none
	Person string `json:"person,omitempty"` // "" where it is nobody's word
}

// Run is one run of a step, by the clock of the machines' host.
type Run struct {
	Item, Name string
	Began      time.Time
	Alive      time.Time // when it last said so
}

// Check lists what is wrong with a release, whatever happened to its machines and
// controls: an empty list means that its rules held. It believes neither side: the
// events are folded again, and compared with what was seen.
func Check(events []Event, h History) []string {
	var list []string
	wrong := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if _, err := Fold(events); err != nil {
		wrong("the ledger does not fold: %v", err)
	}
	checkEvents(events, wrong)
	checkAcks(events, h.Acks, wrong)
	checkRuns(events, h.Runs, wrong)
	checkPublished(events, h.Published, wrong)
	return list
}

// checkEvents looks for what a wrong fold would let through.
func checkEvents(events []Event, wrong func(string, ...any)) {
	golds, epochs, good := 0, map[string]int64{}, map[string]int{}
	words := map[string]int{}
	for i, e := range events {
		if e.Seq != int64(i)+1 {
			wrong("event %d stands at place %d", e.Seq, i+1)
		}
		switch b := e.Body.(type) {
		case Granted:
			if e.Seq <= epochs[b.Item] {
				wrong("epoch %d of %s after %d", e.Seq, b.Item, epochs[b.Item])
			}
			epochs[b.Item] = e.Seq
		case Committed:
			golds++
		case Finished:
			if b.Epoch != epochs[b.Item] {
				wrong("event %d: a result of epoch %d of %s counts, and %d was granted last", e.Seq, b.Epoch, b.Item, epochs[b.Item])
			}
			if b.Exit == 0 {
				good[b.Item]++
			}
		case Signed:
			words[b.Item+" "+b.Person+" "+b.Subject]++
		case Withdrawn:
			maps.DeleteFunc(words, func(k string, _ int) bool { return strings.HasPrefix(k, b.Item+" "+b.Person+" ") })
		case Retried:
			delete(good, b.Item) // it ended well, and tests of it failed
		case Agreed:
			if b.Decision == Approve {
				clear(good) // an approved change lets steps run again
			}
		}
	}
	if golds > 1 {
		wrong("%d gold masters", golds)
	}
	for _, item := range slices.Sorted(maps.Keys(good)) {
		if n := good[item]; n > 1 {
			wrong("%s ended well %d times", item, n)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(words)) {
		if n := words[k]; n > 1 {
			wrong("signed %d times: %s", n, k)
		}
	}
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

// checkPublished traces every byte that went out to gold.
func checkPublished(events []Event, published []string, wrong func(string, ...any)) {
	gold := map[string]bool{}
	for _, e := range events {
		if b, ok := e.Body.(Committed); ok {
			for _, a := range b.Outputs {
				gold[a.Digest] = true
			}
		}
	}
	for _, dg := range published {
		if !gold[dg] {
			wrong("%s was published, and is not gold", dg)
		}
	}
}
