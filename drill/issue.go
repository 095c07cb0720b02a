package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/release"
)

// Issue is a reason that the verdict is no pass, as somebody's work.
type Issue struct {
	ID       string `json:"id"`
	What     string `json:"what"`
	Axis     string `json:"axis"`     // system, clean-up, harness
	Severity Value  `json:"severity"` // fail, unknown
	Owner    string `json:"owner"`    // of the scenario; "" if it names nobody
	Due      string `json:"due"`      // a day; "" if the scenario gives no time
}

// Issues are what [Verdict.Fix] lists, the worst first, with the scenario's owner
// and the day on which its time for them ends.
func Issues(p *Plan, h []Record, v *Verdict) []Issue {
	due := ""
	head := header(h)
	if d, ok := Duration(p.IssuesDue); ok && d > 0 && !head.Began.IsZero() {
		due = head.Began.UTC().Add(d).Format(time.DateOnly)
	}
	list := []Issue{}
	for _, value := range []Value{Fail, Unknown} {
		for _, a := range v.axes() {
			if a.Value != value {
				continue
			}
			for _, why := range a.Why {
				list = append(list, Issue{fmt.Sprintf("%s/%d", head.Run, len(list)+1), why, a.name, value, strings.TrimSpace(p.Owner), due})
			}
		}
	}
	return list
}

type namedAxis struct {
	name, means string
	Axis
}

// axes in the order in which somebody does something about them.
func (v *Verdict) axes() []namedAxis {
	return []namedAxis{
		{"system", "it did what is expected", v.System},
		{"clean-up", "everything was undone", v.Cleanup},
		{"harness", "the drill worked: every fault was seen to take effect", v.Harness},
	}
}

func header(h []Record) Header {
	if len(h) == 0 || h[0].Header == nil {
		return Header{}
	}
	return *h[0].Header
}

// deviations are where the drill did not go as its scenario says, and where a
// person overrode, halted or repeated something: an auditor asks by whom.
func deviations(p *Plan, h []Record) []string {
	var list []string
	say := func(r Record, format string, args ...any) {
		list = append(list, TMinus(p, r.Clock)+": "+fmt.Sprintf(format, args...))
	}
	for _, x := range header(h).Broken {
		list = append(list, "a defect was planted on purpose: "+x)
	}
	for _, r := range h {
		no := r.OK == nil || !*r.OK
		switch {
		case r.Kind == Guarded:
			say(r, "a guard stopped the drill: %s", r.Why)
		case r.Kind == Stopped:
			say(r, "the drill was stopped: %s", r.Why)
		case r.Kind == Injected && no:
			say(r, "%s could not be injected: %s", r.Name, r.Why)
		case r.Kind == Done && no:
			say(r, "%s could not be done: %s", r.Name, r.Why)
		case r.Kind == Undone && no:
			say(r, "%s could not be undone: %s", r.Name, r.Why)
		case r.Event != nil && r.Kind == Happened:
			switch r.Event.Body.(type) {
			case release.Held, release.Resumed, release.Aborted, release.Waived, release.Excepted, release.Amended, release.Retried, release.Withdrawn, release.Refused:
				say(r, "%s (by %s)", release.Sentence(*r.Event), r.Event.Actor)
			}
		}
	}
	for _, a := range p.Method {
		if !slices.ContainsFunc(h, func(r Record) bool { return r.Name == a.Name && (r.Kind == Injected || r.Kind == Done) }) {
			list = append(list, fmt.Sprintf("%s was never reached: %s", a.Name, a.When))
		}
	}
	return list
}
