package release

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"trysail/runbook"
)

// Outlook says whether the release ships on time, by budgets and by what was
// measured; forecast says it with probabilities.
type Outlook struct {
	Ends  time.Time     // when the rest is done if everything takes its budget
	Slack time.Duration // ship date minus Ends; negative: late
	Chain []string      // the items that Ends hangs on
	// Unknown lists steps and sign-offs to come that have no budget: whatever they
	// take is not counted.
	Unknown []string
	// Blocked lists what is stopped: Ends holds if people mend it at once.
	Blocked []Block
	Spent   time.Duration // people's time so far
	Open    time.Duration // people's budgets of the sign-offs to come
}

// Block is an item that does not go on by itself, and why.
type Block struct {
	Item  string `json:"item"`
	Why   string `json:"why"`
	Final bool   `json:"final,omitempty"` // nothing mends it: the release can only be aborted
}

// Zones finds a time zone by its name; finding one reads files.
type Zones func(name string) (*time.Location, error)

// calendars gives those of a release's people, and the team's as "". Who is in
// neither works whenever they are asked.
func calendars(team runbook.Hours, people []Person, zones Zones) (map[string]runbook.Calendar, error) {
	list := map[string]runbook.Calendar{}
	for _, p := range append([]Person{{Hours: team}}, people...) {
		if p.Hours.Zone == "" && len(p.Hours.Days) == 0 {
			continue // of an event that is older than hours are
		}
		c, err := p.Hours.Calendar(zones)
		if err != nil {
			return nil, fmt.Errorf("working hours of %s: %w", cmp.Or(p.Name, "the team"), err)
		}
		list[p.Name] = c
	}
	return list, nil
}

// Outlook computes the slack at a time. A machine works when it is asked, people
// within their hours.
func (s *State) Outlook(now time.Time, zones Zones) (Outlook, error) {
	var o Outlook
	hours, err := calendars(s.Team, s.People, zones)
	if err != nil {
		return o, err
	}
	statuses := s.statuses()
	end := map[string]time.Time{}
	before := map[string]string{}
	long := map[string]int{} // chains, in items: of two that end at once the longer one counts
	var visit func(x *runbook.Item) time.Time
	visit = func(x *runbook.Item) time.Time {
		if t, ok := end[x.Name]; ok {
			return t
		}
		if statuses.done(x) {
			end[x.Name] = time.Time{}
			return time.Time{}
		}
		begin := now
		for _, n := range x.Needs {
			if t := visit(s.Item(n)); t.After(begin) || t.Equal(begin) && long[n] > long[before[x.Name]] {
				begin, before[x.Name] = t, n
			}
		}
		long[x.Name] = long[before[x.Name]] + 1
		end[x.Name] = statuses.until(x, begin, now, hours)
		return end[x.Name]
	}
	o.Ends = now
	last := ""
	for i := range s.Items {
		x := &s.Items[i]
		if t := visit(x); t.After(o.Ends) || t.Equal(o.Ends) && long[x.Name] > long[last] {
			o.Ends, last = t, x.Name
		}
		status := statuses.of(x)
		if status != Complete && x.Budget == 0 && x.Kind != runbook.Wait {
			o.Unknown = append(o.Unknown, x.Name)
		}
		if why, ask, stopped := statuses.stop(x); stopped && !s.Over() {
			o.Blocked = append(o.Blocked, Block{x.Name, why, ask.Type == "abort"})
		}
		if status != Complete && x.Kind == runbook.SignOff {
			o.Open += x.Budget * time.Duration(max(x.Approvals-statuses.heard(x).yes, 0))
		}
	}
	for n := last; n != ""; n = before[n] {
		o.Chain = append([]string{n}, o.Chain...)
	}
	for _, d := range s.Spent {
		o.Spent += d
	}
	o.Slack = s.Ship.Sub(o.Ends)
	return o, nil
}

func (s *statuses) until(x *runbook.Item, begin, now time.Time, hours map[string]runbook.Calendar) time.Time {
	switch x.Kind {
	case runbook.Wait:
		if at := x.Until.Time(s.Ship); at.After(begin) {
			return at
		}
		return begin
	case runbook.SignOff:
		return s.signed(x, begin, hours)
	}
	left := x.Budget
	if l := s.Progress[x.Name].Lease; l != nil {
		left = max(left-now.Sub(l.Since), 0)
	}
	if x.Gold && s.Gold == nil {
		left += x.Budget // the second build
	}
	return begin.Add(left)
}

// signed is the earliest time at which as many of a sign-off's people as it still
// wants have worked for its budget, if all who may sign begin at once: any of them, or
// the m-th fastest where m must say yes.
func (s *statuses) signed(x *runbook.Item, begin time.Time, hours map[string]runbook.Calendar) time.Time {
	h := s.heard(x)
	if len(h.left) == 0 {
		return begin.Add(x.Budget) // an amendment brings others
	}
	var ends []time.Time
	for _, who := range h.left {
		ends = append(ends, worked(who, begin, x.Budget, hours))
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[min(max(x.Approvals-h.yes, 1), len(ends))-1]
}

// worked is when a person who begins at a time has worked for so long. Who does
// not work for years is not waited for any longer than that.
func worked(who string, begin time.Time, budget time.Duration, hours map[string]runbook.Calendar) time.Time {
	c, known := hours[who]
	if !known {
		c, known = hours[""]
	}
	if !known {
		return begin.Add(budget)
	}
	if end := c.Add(begin, budget); !end.IsZero() {
		return end
	}
	return begin.AddDate(5, 0, 0)
}
