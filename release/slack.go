package release

import (
	"cmp"
	"fmt"
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
	// Blocked lists what does not go on by itself, now or once its turn comes: Ends holds
	// if people mend all of it at once.
	Blocked []Block
	// Assumed lists roles whose build server some machine must make first, where nobody
	// has measured how long that takes: [AssumedRebuild] is counted.
	Assumed []string
	Spent   time.Duration // people's time so far
	Open    time.Duration // people's budgets of the sign-offs to come
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

// Outlook computes the slack at a time, with as many machines as it wants. A machine works
// when it is asked, people within their hours.
func (s *State) Outlook(now time.Time, zones Zones) (Outlook, error) {
	return s.OutlookOn(nil, now, zones)
}

// OutlookOn computes the slack at a time on the machines that there are.
func (s *State) OutlookOn(fleet *Fleet, now time.Time, zones Zones) (Outlook, error) {
	var o Outlook
	hours, err := calendars(s.Team, s.People, zones)
	if err != nil {
		return o, err
	}
	statuses := s.statuses()
	x := newSimulation(statuses, fleet, now, hours)
	x.run()
	o.Ends = now
	last := ""
	for i := range s.Items {
		it := &s.Items[i]
		if t := x.end[it.Name]; t.After(o.Ends) || t.Equal(o.Ends) && x.long[it.Name] > x.long[last] {
			o.Ends, last = t, it.Name
		}
		status := statuses.of(it)
		if status != Complete && it.Budget == 0 && it.Kind != runbook.Wait {
			o.Unknown = append(o.Unknown, it.Name)
		}
		if status != Complete && it.Kind == runbook.SignOff {
			o.Open += it.Budget * time.Duration(max(it.Approvals-statuses.heard(it).yes, 0))
		}
	}
	for n := last; n != "" && len(o.Chain) < len(s.Items); n = x.before[n] { // a wrong chain must not stop control
		o.Chain = append([]string{n}, o.Chain...)
	}
	if !s.Over() {
		o.Blocked, o.Assumed = append(statuses.blocks(), x.blocked...), x.assumed
	}
	for _, d := range s.Spent {
		o.Spent += d
	}
	o.Slack = s.Ship.Sub(o.Ends)
	return o, nil
}

// worked is when a person who begins at a time has worked for so long. Who does
// not work for years is not waited for any longer than that.
func worked(who string, begin time.Time, budget time.Duration, hours map[string]runbook.Calendar) (end time.Time, never bool) {
	c, known := hours[who]
	if !known {
		c, known = hours[""]
	}
	if !known {
		return begin.Add(budget), false
	}
	if end := c.Add(begin, budget); !end.IsZero() {
		return end, false
	}
	return begin.AddDate(5, 0, 0), true
}
