package release

import (
	"time"

	"trysail/runbook"
)

// Outlook says whether the release ships on time, by budgets and by what was
// measured; forecast says it with probabilities.
type Outlook struct {
	Ends  time.Time     // when the rest is done if everything takes its budget
	Slack time.Duration // ship date minus Ends; negative: late
	Chain []string      // the items that Ends hangs on
	// Unknown lists items of the chain that have no budget: the rest takes longer
	// by whatever they take.
	Unknown []string
	Spent   time.Duration // people's time so far
	Open    time.Duration // people's budgets of the sign-offs to come
}

// Outlook computes the slack at a time. Working gives the time at which somebody
// of a sign-off's people, beginning at t, has worked for so long.
func (s *State) Outlook(now time.Time, working func(x *runbook.Item, t time.Time, d time.Duration) time.Time) Outlook {
	var o Outlook
	end := map[string]time.Time{}
	before := map[string]string{}
	var visit func(x *runbook.Item) time.Time
	visit = func(x *runbook.Item) time.Time {
		if t, ok := end[x.Name]; ok {
			return t
		}
		if s.done(x) {
			end[x.Name] = time.Time{}
			return time.Time{}
		}
		begin := now
		for _, n := range x.Needs {
			if t := visit(s.Item(n)); t.After(begin) {
				begin, before[x.Name] = t, n
			}
		}
		end[x.Name] = s.until(x, begin, now, working)
		return end[x.Name]
	}
	o.Ends = now
	last := ""
	for i := range s.Items {
		x := &s.Items[i]
		if t := visit(x); t.After(o.Ends) || (last == "" && !s.done(x)) {
			o.Ends, last = t, x.Name
		}
		if x.Kind == runbook.SignOff && !s.done(x) {
			o.Open += x.Budget
		}
	}
	for n := last; n != ""; n = before[n] {
		o.Chain = append([]string{n}, o.Chain...)
		if x := s.Item(n); x.Budget == 0 && x.Kind != runbook.Wait {
			o.Unknown = append(o.Unknown, n)
		}
	}
	for _, d := range s.Spent {
		o.Spent += d
	}
	o.Slack = s.Started.Ship.Sub(o.Ends)
	return o
}

func (s *State) until(x *runbook.Item, begin, now time.Time, working func(*runbook.Item, time.Time, time.Duration) time.Time) time.Time {
	switch x.Kind {
	case runbook.Wait:
		if at := x.Until.Time(s.Started.Ship); at.After(begin) {
			return at
		}
		return begin
	case runbook.SignOff:
		return working(x, begin, x.Budget)
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
