package drill

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// Value is what an axis comes to.
type Value string

// The values: unknown beats pass, and fail beats both.
const (
	Pass    Value = "pass"
	Unknown Value = "unknown"
	Fail    Value = "fail"
)

func worse(a, b Value) Value {
	order := []Value{Pass, Unknown, Fail}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// Axis is one of the three, with every reason that it is no pass.
type Axis struct {
	Value Value    `json:"value"`
	Why   []string `json:"why"`
}

func (a *Axis) say(v Value, format string, args ...any) {
	a.Value = worse(a.Value, v)
	a.Why = append(a.Why, fmt.Sprintf(format, args...))
}

// Measure is a number beside its limit.
type Measure struct {
	What    string  `json:"what"`
	Of      string  `json:"of,omitempty"`
	Seconds float64 `json:"seconds"`
	Limit   float64 `json:"limit_seconds,omitempty"`
	Met     *bool   `json:"met,omitempty"`
	How     string  `json:"how"` // measured, modelled
}

// Bite is a fault and what followed.
type Bite struct {
	Name     string        `json:"name"`
	Fault    Fault         `json:"fault"`
	Host     string        `json:"host,omitempty"`
	At       time.Duration `json:"-"` // real time since the drill began; in JSON at_seconds
	Clock    time.Time     `json:"clock"`
	Verified bool          `json:"verified"`
	// Detected and Moved are after it took effect, by the drill's clock: idle time
	// that was skipped meanwhile counts. Moved is when all work that was lost is
	// elsewhere.
	Detected float64 `json:"detected_seconds,omitempty"`
	Moved    float64 `json:"moved_seconds,omitempty"`
	To       string  `json:"moved_to,omitempty"`
	// Recovered is when all work that was lost goes on in a build server: one that has to be
	// made for it is made by then.
	Recovered float64  `json:"recovered_seconds,omitempty"`
	Wasted    float64  `json:"wasted_seconds,omitempty"` // work until it bit, that is done again
	Slack     *float64 `json:"slack_seconds,omitempty"`  // left, once it was injected
	Undone    bool     `json:"undone"`
	ForGood   bool     `json:"for_good"`
}

// MarshalJSON writes it with its time in seconds, as every other.
func (b Bite) MarshalJSON() ([]byte, error) {
	type plain Bite
	return json.Marshal(struct {
		plain
		At float64 `json:"at_seconds"`
	}{plain(b), b.At.Seconds()})
}

// Verdict is what a history comes to.
type Verdict struct {
	Value   Value `json:"verdict"`
	System  Axis  `json:"system"`
	Harness Axis  `json:"harness"`
	Cleanup Axis  `json:"cleanup"`
	// Sentence is the answer for a person who reads no further.
	Sentence string `json:"sentence"`
	Shipped  bool   `json:"shipped"`
	OnTime   *bool  `json:"on_time,omitempty"`
	OnBudget *bool  `json:"on_budget,omitempty"`
	// Unreported are people who did not say what signing took, where OnBudget hangs on it.
	Unreported []string  `json:"time_not_reported,omitempty"`
	Slack      float64   `json:"slack_seconds"` // left when it shipped
	Faults     []Bite    `json:"faults"`
	Measured   []Measure `json:"measured"`
	// Machine is what machines took, all work added up; People what people did, in
	// hours; Skipped is idle time that the drill's clock jumped over.
	Machine  float64  `json:"machine_seconds"`
	People   float64  `json:"person_hours"`
	Real     float64  `json:"real_seconds"` // from its beginning to the last record
	Skipped  float64  `json:"skipped_seconds"`
	Overhead float64  `json:"overhead_seconds"` // that is neither machines' work nor what is waited for
	Modelled []Model  `json:"modelled"`
	Lost     []string `json:"lost"` // acknowledged facts that are gone
	Gold     string   `json:"gold,omitempty"`
}

// took is what was measured, in words: what has a limit and did not happen took no time.
func (m *Measure) took() string {
	switch {
	case m.Limit == 0 || m.Seconds > 0:
		return runbook.FormatSeconds(m.Seconds)
	case m.Met == nil:
		return "not known"
	}
	return "never"
}

// tried tells whether it is known that something was brought about within its limit or
// was not; with no limit there is nothing to try.
func (v *Verdict) tried(what, of string) bool {
	return slices.ContainsFunc(v.Measured, func(m Measure) bool { return m.What == what && m.Of == of && m.Met != nil })
}

// Always lists the invariants of every moment. All of them are checked in every drill,
// named or not; a scenario names those that its hypothesis is about.
func Always() []string {
	return []string{"one-gold", "rules-kept", "acknowledged-kept"}
}

// Final lists the invariants of the end.
func Final() []string { return []string{"shipped", "gold-confirmed", "not-shipped"} }

// Reached lists what must have happened at some time, besides an action.
func Reached() []string { return []string{"moved", "rebuilt", "gold"} }

// sentence is the answer first. It says nothing that the history does not show.
func (j *judging) sentence() string {
	v := j.v
	switch v.Value {
	case Pass:
		return "Rehearsed on " + header(j.h).where() + ": " + j.passed()
	case Unknown:
		return "Not known: " + first(v.Harness, v.System, v.Cleanup) + "."
	}
	if v.System.Value != Fail {
		return "The drill left something behind: " + first(v.Cleanup) + "."
	}
	return "Not as you expect: " + first(v.System) + "."
}

func (j *judging) passed() string {
	v := j.v
	bit := "no fault took effect"
	switch n := len(v.Faults); n { // in a drill that passes, each was seen to take effect
	case 0:
	case 1:
		bit = "1 fault took effect"
	default:
		bit = fmt.Sprintf("%d faults took effect", n)
	}
	if !v.Shipped {
		return bit + ", and nothing shipped, as expected."
	}
	parts := []string{}
	if slack := time.Duration(v.Slack * float64(time.Second)); *v.OnTime {
		parts = append(parts, "on time, "+runbook.FormatDuration(slack)+" before the ship date")
	} else {
		parts = append(parts, runbook.FormatDuration(-slack)+" after the ship date")
	}
	switch {
	case v.OnBudget != nil:
		parts = append(parts, map[bool]string{true: "on budget", false: "over budget"}[*v.OnBudget])
	case len(v.Unreported) > 0:
		parts = append(parts, "on budget or not is not known")
	}
	s := fmt.Sprintf("%s, and the release shipped %s. Machines worked %s (measured)", bit, strings.Join(parts, ", "), runbook.FormatSeconds(v.Machine))
	if v.People > 0 {
		s += fmt.Sprintf("; people %s (%s)", runbook.FormatDuration(time.Duration(v.People*float64(time.Hour))), how(j.all(Decided)))
	}
	return s + "."
}

// first is the reason that counts most.
func first(list ...Axis) string {
	for _, want := range []Value{Fail, Unknown} {
		for _, a := range list {
			if a.Value == want {
				return a.Why[0]
			}
		}
	}
	return "of no reason"
}
