package release

import (
	"math/bits"
	"slices"
	"strings"

	"trysail/runbook"
)

// statuses answers a question about a release: each status is worked out once for it. What
// an item is hangs on all that it needs, many items may need the same, and to ask anew on
// every way to it takes for ever. Nothing is kept from one question to the next: who only
// looks at a state changes nothing in it.
type statuses struct {
	*State
	known  map[string]Status
	steps  map[string]bool   // whether an item stands on a step
	facts  map[string]string // what a step contributes to a subject
	about  map[string]string // subjects
	who    persons
	sorted []int               // places of the items, by name
	ranks  map[string]int      // their places in sorted
	needs  map[string][]uint64 // what each needs, directly or through others: see behind
}

func (s *State) statuses() *statuses {
	a := &statuses{
		State: s, known: map[string]Status{}, steps: map[string]bool{}, facts: map[string]string{}, about: map[string]string{},
		ranks: make(map[string]int, len(s.Items)), needs: map[string][]uint64{},
	}
	for i := range s.Items {
		a.sorted = append(a.sorted, i)
	}
	slices.SortFunc(a.sorted, func(i, j int) int { return strings.Compare(s.Items[i].Name, s.Items[j].Name) })
	for rank, i := range a.sorted {
		a.ranks[s.Items[i].Name] = rank
	}
	return a
}

// Item finds an item by name, of many.
func (a *statuses) Item(name string) *runbook.Item {
	rank, ok := a.ranks[name]
	if !ok {
		return nil
	}
	return &a.Items[a.sorted[rank]]
}

// Status of an item. Who asks for many asks for [State.Statuses].
func (s *State) Status(x *runbook.Item) Status { return s.statuses().of(x) }

// Statuses are those of all items, by name.
func (s *State) Statuses() map[string]Status {
	a := s.statuses()
	for i := range s.Items {
		a.of(&s.Items[i])
	}
	return a.known
}

// of is the status of an item.
func (a *statuses) of(x *runbook.Item) Status {
	status, ok := a.known[x.Name]
	if !ok {
		status = a.find(x)
		a.known[x.Name] = status
	}
	return status
}

// done tells whether what needs the item may begin.
func (a *statuses) done(x *runbook.Item) bool { return a.of(x) == Complete }

// settled tells whether all is done that a sign-off relies on, directly or through other
// items: a step that it stands on may run again while one after it goes on.
func (a *statuses) settled(x *runbook.Item) bool {
	for place, word := range a.behind(x) {
		for ; word != 0; word &= word - 1 {
			if !a.done(&a.Items[a.sorted[place*64+bits.TrailingZeros64(word)]]) {
				return false
			}
		}
	}
	return true
}

// needsDone tells whether all that an item needs is done.
func (a *statuses) needsDone(x *runbook.Item) bool {
	if x.Kind == runbook.SignOff && a.Started.Rules >= 3 {
		return a.settled(x)
	}
	return !slices.ContainsFunc(x.Needs, func(n string) bool { return !a.done(a.Item(n)) })
}

func (a *statuses) find(x *runbook.Item) Status {
	p := a.Progress[x.Name]
	switch {
	case x.Gold && a.Gold != nil:
		return a.goldStatus(p)
	case p.Lease != nil:
		return InProgress
	case p.Moves >= mayMove(x):
		return Stopped
	case x.Kind == runbook.Step || x.Kind == runbook.Publish:
		if p.Result == nil || (p.Result.Exit != 0 && p.Failures <= x.Retry) {
			break
		}
		if p.Result.Exit != 0 || len(a.Unwaived(x)) > 0 {
			return Stopped
		}
		return Complete
	case x.Kind == runbook.Wait && p.Passed:
		return Complete
	}
	switch {
	case !a.needsDone(x):
		return Pending
	case x.Kind == runbook.SignOff:
		return a.signStatus(x)
	}
	return Ready
}

func (s *State) goldStatus(p *Progress) Status {
	g := s.Gold
	switch {
	case g.Confirmed == nil && (p.Failures > 0 || p.Moves >= MovesBeforeAsking):
		return Stopped // the second build failed
	case g.Confirmed == nil:
		return Confirming
	case g.Confirmed.Verdict == Identical, g.Confirmed.Verdict == Equivalent && g.Exception != nil:
		return Complete
	}
	return Stopped
}

func (a *statuses) signStatus(x *runbook.Item) Status {
	switch h := a.heard(x); {
	case h.no:
		return Stopped
	case h.yes >= x.Approvals:
		return Complete
	}
	return Ready
}

// heard is what the people of a sign-off have said of it that counts, and who may still.
type heard struct {
	yes   int // of the approvals that it asks for
	no    bool
	left  []string // whose approval would be one more: nobody's who wrote what is released
	short bool     // with all of theirs it would be too few
	// fills tells, of one after the other, whether the approval of somebody in left would
	// still be one more; nil where each would.
	fills func(name string) bool
}

// heard tells whose word on a sign-off counts. While something that it needs is not done
// nobody's does: whatever was said was of other bytes.
func (a *statuses) heard(x *runbook.Item) heard {
	var h heard
	var yes []Signature
	if a.needsDone(x) {
		subject := a.subject(x)
		for _, w := range a.Progress[x.Name].Words {
			switch {
			case w.Subject != subject: // for other bytes
			case w.Decision == Reject:
				h.no = true
			case a.Started.Rules >= 1 && a.wrote(a.persons(), a.Source, w.Person): // the source came later
			default:
				yes = append(yes, w)
			}
		}
	}
	if a.Started.Rules >= 3 {
		a.count(x, yes, &h)
		return h
	}
	h.yes = len(yes)
	for _, who := range x.Signers {
		signed := slices.ContainsFunc(yes, func(w Signature) bool { return w.Person == who })
		if !a.authored(who) && !signed {
			h.left = append(h.left, who)
		}
	}
	h.short = len(h.left) < x.Approvals-h.yes
	return h
}

// persons are those of the release.
func (a *statuses) persons() persons {
	if a.who == nil {
		a.who = a.State.persons()
	}
	return a.who
}

// authored is [State.Wrote], for many.
func (a *statuses) authored(person string) bool { return a.wrote(a.persons(), a.Source, person) }

// count tells how many of its approvals a sign-off has: each person fills one place, in
// a group that was theirs when they signed or is theirs now.
func (a *statuses) count(x *runbook.Item, yes []Signature, h *heard) {
	who := a.persons()
	counts := map[string][]int{} // by person, the quotas that count them
	var came []string            // persons who approved, in the order in which they did
	may := func(person string, i int) {
		if !slices.Contains(counts[person], i) {
			counts[person] = append(counts[person], i)
		}
	}
	quotas := x.Counted()
	for i, q := range quotas {
		for _, name := range q.Of {
			may(who.of(name), i)
		}
		asked := x.Asked
		if q.Who != "" {
			asked = []string{q.Who}
		}
		for _, w := range yes {
			if slices.ContainsFunc(asked, func(name string) bool { return name == w.Person || slices.Contains(w.Groups, name) }) {
				may(who.of(w.Person), i)
			}
		}
	}
	for _, w := range yes {
		if p := who.of(w.Person); !slices.Contains(came, p) {
			came = append(came, p)
		}
	}
	places := runbook.PlacesOf(quotas)
	for _, p := range came {
		places.Give(p, counts)
	}
	h.yes = places.Filled()
	all, next := places.Clone(), places.Clone()
	h.fills = func(name string) bool { return next.Give(who.of(name), counts) }
	for _, name := range x.Signers {
		p := who.of(name)
		if slices.Contains(came, p) || a.wrote(who, a.Source, name) {
			continue
		}
		if places.Clone().Give(p, counts) {
			h.left = append(h.left, name)
		}
		all.Give(p, counts)
	}
	h.short = all.Filled() < x.Approvals
}

// stands tells whether an item needs a step, whatever is between.
func (a *statuses) stands(x *runbook.Item) bool {
	on, ok := a.steps[x.Name]
	if !ok {
		on = slices.ContainsFunc(x.Needs, func(n string) bool {
			y := a.Item(n)
			return y.Kind == runbook.Step || y.Kind == runbook.Publish || a.stands(y)
		})
		a.steps[x.Name] = on
	}
	return on
}

// Unfinished lists the items that are not done.
func (s *State) Unfinished() []string {
	var list []string
	a := s.statuses()
	for i := range s.Items {
		if !a.done(&s.Items[i]) {
			list = append(list, s.Items[i].Name)
		}
	}
	return list
}
