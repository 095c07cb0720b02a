// Package fleet holds the rules about machines as pure code: who is alive at a
// time, and who gets a step.
//
// A machine sends a heartbeat each [Beat]. Control marks it lost after [LostAfter] without
// one; the machine itself, whose clock started when it *sent* its
// last answered report, ends everything it runs after [FenceAfter]. The second is
// shorter than the first by more than it takes to kill a process group, so what
// ran there has ended before its step begins elsewhere. Both use clocks that only
// go forward: a wall clock that is set changes neither.
//
// Placement prefers, in this order: machines of the right rank (primary, backup,
// spare), those that have the rebuilt server ready, those that have the artifacts
// a step takes in, the least loaded, and the name, so that it is the same every
// time. A machine that keeps losing steps is put behind the others.
//
// A machine that was drained or retired may have been repaired, so it comes back
// by looking at itself: its originals, its servers made anew, one build proved
// ([Readmit], [Findings.Back]).
//
// Nothing here reads a clock, and nothing is remembered but what is passed in.
package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// The times of failover. FenceAfter is measured on the machine, LostAfter on control.
const (
	Beat       = time.Second
	FenceAfter = 3 * time.Second
	LostAfter  = 4 * time.Second
)

// NoMember is why the leases of a machine end that people took out of the fleet: it says
// nothing of how the machine is.
const NoMember = "the machine does not belong to the fleet any more"

// Rank is what a machine is kept for.
type Rank string

// The ranks, best first.
const (
	Primary Rank = "primary"
	Backup  Rank = "backup"
	Spare   Rank = "spare"
)

// Ranks lists them, best first.
func Ranks() []Rank { return []Rank{Primary, Backup, Spare} }

// Condition of a machine.
type Condition string

// The conditions.
const (
	Up       Condition = "up"
	Lost     Condition = "lost"     // no heartbeat
	Draining Condition = "draining" // finishes what it runs, gets nothing new
	Retired  Condition = "retired"  // gone for good, or until it is readmitted
	Proving  Condition = "proving"  // readmitted, and looks at itself first
)

// Machine is what control knows of one.
type Machine struct {
	Name    string
	Rank    Rank
	Serves  []string      // roles; empty: all
	Plain   bool          // runs steps on its host, for roles without a blueprint
	Slots   int           // steps at once
	Set     Condition     // Draining, Retired or Proving by a person's word, else ""
	Heard   time.Duration // on control's monotonic clock; negative: never since control began
	Running int
	Losses  int      // leases lost since its last result
	Warm    []string // digests of blueprints whose server is ready
	Has     []string // digests of artifacts on its disk
	Runs    []Due    // the releases whose steps it runs
}

// Due is how much of a hurry a release is in.
type Due struct {
	Release string
	Slack   time.Duration
	Ship    time.Time
}

// Urgent orders releases: the one with less slack goes first, then the one that ships
// first, then the name. A step that runs is never interrupted for another.
func Urgent(a, b Due) int {
	return cmp.Or(cmp.Compare(a.Slack, b.Slack), a.Ship.Compare(b.Ship), strings.Compare(a.Release, b.Release))
}

// Standing orders machines as [Place] does, but for what they have ready: the lower is
// given steps first.
func (m *Machine) Standing() int { return m.Losses/2*len(Ranks()) + order(m.Rank) }

// At gives a machine's condition.
func (m *Machine) At(now time.Duration) Condition {
	switch {
	case m.Set == Retired:
		return Retired
	case m.Heard < 0 || now-m.Heard >= LostAfter:
		return Lost
	case m.Set == Draining, m.Set == Proving:
		return m.Set
	}
	return Up
}

// Want is a step that wants a machine.
type Want struct {
	Key       string // names the step in the answer
	Role      string
	Blueprint string // "": runs plainly on a host
	Not       string // machine that may not have it
	Has       []string
	Due       Due // of its release
}

// Placed is a step and its machine.
type Placed struct {
	Key, Machine string
}

// Reason says why a step has no machine. First is the more urgent release that has, or is
// to get, the machine that it could have; nil if there is none.
type Reason struct {
	Key, Why string
	First    *Due
}

// Place gives machines to steps: those of the most urgent release first, each release's in
// the order of the steps.
func Place(now time.Duration, machines []Machine, wants []Want) (placed []Placed, waiting []Reason) {
	running := map[string]int{}
	users := map[string][]Due{} // who has a machine, or waits for it
	for _, m := range machines {
		running[m.Name], users[m.Name] = m.Running, slices.Clone(m.Runs)
	}
	wants = slices.Clone(wants)
	slices.SortStableFunc(wants, func(a, b Want) int { return Urgent(a.Due, b.Due) })
	for _, w := range wants {
		var able []*Machine
		var first *Due
		var away, busy *Machine // why none can: that it is busy ends by itself, so it is the reason before others
		for i := range machines {
			m := &machines[i]
			switch {
			case len(m.Serves) > 0 && !slices.Contains(m.Serves, w.Role), w.Blueprint == "" && !m.Plain:
			case m.Name == w.Not, m.At(now) != Up:
				away = m
			case running[m.Name] >= max(m.Slots, 1):
				busy = m
				for _, d := range users[m.Name] {
					if d.Release != w.Due.Release && Urgent(d, w.Due) < 0 && (first == nil || Urgent(d, *first) < 0) {
						first = &d
					}
				}
				users[m.Name] = append(users[m.Name], w.Due)
			default:
				able = append(able, m)
			}
		}
		if len(able) == 0 {
			waiting = append(waiting, Reason{w.Key, why(now, &w, away, busy), first})
			continue
		}
		best := slices.MinFunc(able, func(a, b *Machine) int { return compare(a, b, &w, running) })
		running[best.Name]++
		users[best.Name] = append(users[best.Name], w.Due)
		placed = append(placed, Placed{w.Key, best.Name})
	}
	return placed, waiting
}

const isBusy = " is busy"

// Passes tells whether a [Reason] to wait ends by itself: a machine that could run
// the step runs another, or proves itself.
func Passes(why string) bool {
	return strings.HasSuffix(why, isBusy) || strings.HasSuffix(why, " is "+string(Proving))
}

func why(now time.Duration, w *Want, away, busy *Machine) string {
	switch {
	case busy != nil:
		return busy.Name + isBusy
	case away != nil && away.Name == w.Not:
		return "a second machine is needed beside " + w.Not
	case away != nil:
		return away.Name + " is " + string(away.At(now))
	case w.Blueprint == "":
		return "no machine of the fleet runs role " + w.Role + " plainly on its host (trysail agent --plain)"
	}
	return "no machine of the fleet serves role " + w.Role
}

// order of a rank; one that is not known comes last.
func order(r Rank) int {
	if i := slices.Index(Ranks(), r); i >= 0 {
		return i
	}
	return len(Ranks())
}

func compare(a, b *Machine, w *Want, running map[string]int) int {
	cold := func(m *Machine) int {
		if w.Blueprint == "" || slices.Contains(m.Warm, w.Blueprint) {
			return 0
		}
		return 1
	}
	missing := func(m *Machine) int {
		n := 0
		for _, d := range w.Has {
			if !slices.Contains(m.Has, d) {
				n++
			}
		}
		return n
	}
	return cmp.Or(
		cmp.Compare(a.Losses/2, b.Losses/2), // one loss is bad luck
		cmp.Compare(order(a.Rank), order(b.Rank)),
		cmp.Compare(cold(a), cold(b)),
		cmp.Compare(missing(a), missing(b)),
		cmp.Compare(running[a.Name], running[b.Name]),
		cmp.Compare(a.Name, b.Name),
	)
}
