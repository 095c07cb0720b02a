package release

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// What is said of a release as a whole needs what it is said from: reported times for "on
// budget", and a clock that went forward for "on time".

// backAtLeast is by how much an event is earlier than one before it until it is noticed: of
// two controls that follow each other the clocks differ by less.
const backAtLeast = time.Second

// ClockBack is an event that is earlier than one before it: control's clock was put back,
// or that of another control is behind.
type ClockBack struct {
	Event int64         `json:"event"`
	By    time.Duration `json:"by"`
}

// Seconds is by how much.
func (b ClockBack) Seconds() float64 { return b.By.Seconds() }

func (b ClockBack) String() string {
	return fmt.Sprintf("event %d is %s earlier than the event before it: control's clock went back", b.Event, runbook.FormatDuration(b.By))
}

// ClocksBack finds the events that are earlier than those before them.
func ClocksBack(events []Event) []ClockBack {
	var list []ClockBack
	for i := 1; i < len(events); i++ {
		if by := events[i-1].Time.Sub(events[i].Time); by >= backAtLeast {
			list = append(list, ClockBack{events[i].Seq, by})
		}
	}
	return list
}

// OnTime tells whether what happened at a time, by control's clock, was not after the ship
// date. Where that clock went back, it may have happened later by as much: nil if the ship
// date lies within that.
func OnTime(ship, at time.Time, backs []ClockBack) *bool {
	latest := at
	for _, b := range backs {
		latest = latest.Add(b.By)
	}
	if !at.After(ship) && latest.After(ship) {
		return nil
	}
	ok := !at.After(ship)
	return &ok
}

// Unreported lists the people who decided on sign-offs and did not say how long that took.
func Unreported(events []Event) []string {
	var list []string
	for _, e := range events {
		if b, ok := e.Body.(Signed); ok && b.Spent == 0 && !slices.Contains(list, b.Person) {
			list = append(list, b.Person)
		}
	}
	slices.Sort(list)
	return list
}

// OnBudget tells whether what people spent is within their budget: nil if there is none, or
// if it is so as far as they said, and some of them did not say.
func OnBudget(budget, spent time.Duration, unreported []string) *bool {
	if budget <= 0 || spent <= budget && len(unreported) > 0 {
		return nil
	}
	ok := spent <= budget
	return &ok
}

// NotReported says who did not say how long signing took.
func NotReported(people []string) string {
	return strings.Join(people, ", ") + " did not report the time that signing took"
}
