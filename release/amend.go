package release

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"trysail/runbook"
)

func (s *State) amend(e Event, b Amended) error {
	now := s.Started.Rules >= 3
	needs, barred := s.Frozen(b.What), s.barred(b)
	mine := func(who string) bool { return s.proposed(b, who) != "" }
	switch {
	case s.Frozen(b.What) < 0:
		return forbid(b, "%s", barred)
	case s.Amendment != nil:
		return forbid(b, "amendment %d is open: decide it first", s.Amendment.Seq)
	case len(b.What) == 0 || s.unsaid(b.Reason):
		return forbid(b, "an amendment says what changes and why")
	case now && b.By == "":
		return forbid(b, "an amendment says who proposes it")
	case slices.ContainsFunc(b.changes(), func(w string) bool { return !slices.Contains(b.What, w) }):
		return forbid(b, "the amendment says that it changes %s, and changes %s", strings.Join(b.What, ", "), strings.Join(b.changes(), ", "))
	case slices.Contains(b.What, "signers") && b.Signers == "":
		return forbid(b, "the amendment names no allowed signers")
	case now && b.undone() != "":
		return forbid(b, "%s", b.undone())
	case barred != "":
		return forbid(b, "%s", barred)
	case needs > len(s.approvers(mine)):
		return forbid(b, "%d approvals are needed, and there are fewer approvers beside %s", needs, b.By)
	}
	if b.Items != nil {
		if err := check(b, b.Items); err != nil {
			return err
		}
	}
	if now {
		if err := closed(b, b.Items, b.Endgame, b.Source); err != nil {
			return err
		}
	}
	if err := checkHours(b, b.Team, b.People); err != nil {
		return err
	}
	s.Amendment = &Amendment{Amended: b, Seq: e.Seq, Needs: needs}
	return nil
}

// changes lists what an amendment changes, whatever it says: how many must approve hangs
// on it.
func (b Amended) changes() []string {
	var list []string
	for what, is := range map[string]bool{
		"runbook": b.Runbook != "" || b.Items != nil || b.Endgame != nil || b.Approver != nil || b.People != nil || !b.Ship.IsZero() || b.Budget != 0 || b.Team.Zone != "" || len(b.Team.Days) > 0,
		"source":  b.Source != nil, "machines": b.Machines != nil, "signers": b.Signers != "" || b.Revoked != "",
	} {
		if is {
			list = append(list, what)
		}
	}
	slices.Sort(list)
	return list
}

// undone says what an amendment names and does not change, or not as a whole; "" if there
// is no such thing.
func (b Amended) undone() string {
	for i, what := range b.What {
		switch {
		case !slices.Contains([]string{"source", "runbook", "machines", "signers"}, what):
			return fmt.Sprintf("%q is nothing that an amendment changes: source, runbook, machines, signers", what)
		case slices.Contains(b.What[:i], what):
			return "the amendment names " + what + " twice"
		case !slices.Contains(b.changes(), what):
			return "the amendment says that it changes " + what + ", and brings none"
		}
	}
	if slices.Contains(b.What, "runbook") && (b.Runbook == "" || len(b.Items) == 0 || len(b.Approver) == 0) {
		return "the amendment brings a part of a runbook: it needs all of it"
	}
	return ""
}

// proposed says why a person does not approve an amendment: it is theirs; "" if it is not.
func (s *State) proposed(b Amended, person string) string {
	switch {
	case s.Same(person, b.By):
		return person + " proposed it, and another must approve"
	case s.Started.Rules >= 3 && b.Source != nil && s.wrote(s.persons(), *b.Source, person):
		return person + " wrote the source that it brings, and another must approve"
	}
	return ""
}

// barred says why nothing makes an amendment possible, however many approve it; "" if
// something does. After gold, and since rules 3, that is all but other signers, and a
// later date for the release or for waits that are not over.
func (s *State) barred(b Amended) string {
	const over = "gold is committed: what it was made of does not change any more; abort, and release another version"
	switch {
	case s.Gold == nil:
		return ""
	case s.Frozen(b.What) < 0, s.Started.Rules >= 3 && (b.Source != nil || b.Machines != nil):
		return over
	case s.Started.Rules < 3 || b.Items == nil && b.Runbook == "":
		return ""
	}
	was := Plan{Items: slices.Clone(s.Items), Endgame: s.Endgame, Approver: s.Approvers, Team: s.Team, People: s.People, Budget: s.Budget}
	is := Plan{Items: slices.Clone(b.Items), Endgame: b.Endgame, Approver: b.Approver, Team: b.Team, People: b.People, Budget: b.Budget}
	ship := s.Ship
	if s.postpones(b) {
		ship = b.Ship
	}
	later := ship.After(s.Ship)
	if ship.Before(s.Ship) || len(b.Items) != len(s.Items) {
		return over
	}
	for i := range was.Items {
		x, y := &was.Items[i], &is.Items[i]
		if x.Kind == runbook.Wait && x.Until != y.Until {
			before, after := x.Until.Time(s.Ship), y.Until.Time(ship)
			if s.Progress[x.Name].Passed || after.Before(before) {
				return over
			}
			later = later || after.After(before)
			x.Until = y.Until
		}
		x.Line = y.Line
	}
	if !later || !same(was, is) {
		return over
	}
	return ""
}

func (s *State) agree(b Agreed) error {
	a := s.Amendment
	if a == nil || a.Seq != b.Amendment {
		return forbid(b, "amendment %d is not open", b.Amendment)
	}
	mine, barred := s.proposed(a.Amended, b.Person), s.barred(a.Amended)
	switch {
	case !slices.Contains(s.Approvers, b.Person):
		return forbid(b, "%s is not an approver", b.Person)
	case s.Started.Rules >= 3 && b.Decision != Approve && b.Decision != Reject:
		return forbid(b, "%q is no decision on an amendment: it is approved or rejected", b.Decision)
	case b.Decision == Reject: // also whose it is, and who approved: it may need more now than there are
		s.Amendment = nil
		return nil
	case mine != "":
		return forbid(b, "%s", mine)
	case slices.ContainsFunc(a.Approved, func(who string) bool { return s.Same(who, b.Person) }):
		return forbid(b, "%s has approved it", b.Person)
	case barred != "":
		return forbid(b, "%s", barred)
	}
	a.Approved = append(slices.Clone(a.Approved), b.Person)
	if s.agreed() < s.approvals() {
		return nil
	}
	s.Amendment = nil
	s.change(a.Amended)
	return nil
}

// agreed tells how many have approved the open amendment: each person once, and nobody whose
// it is, by what is known of them now.
func (s *State) agreed() int {
	a := s.Amendment
	if s.Started.Rules < 3 {
		return len(a.Approved)
	}
	n := 0
	for i, who := range a.Approved {
		if s.proposed(a.Amended, who) == "" && !slices.ContainsFunc(a.Approved[:i], func(other string) bool { return s.Same(who, other) }) {
			n++
		}
	}
	return n
}

// ran tells whether an item is one that a machine runs.
func ran(x *runbook.Item) bool { return x.Kind == runbook.Step || x.Kind == runbook.Publish }

// unsaid tells whether a reason is none.
func (s *State) unsaid(reason string) bool {
	return reason == "" || s.Started.Rules >= 3 && strings.TrimSpace(reason) == ""
}

// change puts an approved amendment into force. What it touches is done again:
// all steps after a change of the source, those that changed or whose machine
// changed otherwise, and whatever needs them.
func (s *State) change(b Amended) {
	old, postponed, now := s.Items, s.postpones(b), s.Started.Rules >= 3
	if b.Items != nil {
		if now {
			s.Met = append(slices.Clone(s.Met), s.People...)
		}
		s.Items, s.Runbook, s.Endgame, s.Approvers = b.Items, b.Runbook, b.Endgame, b.Approver
		s.Team, s.People = b.Team, b.People
		if s.Started.Rules >= 2 {
			s.Named, s.Budget = b.Ship, b.Budget
		}
	}
	if postponed {
		s.Ship = b.Ship
	}
	again := map[string]bool{}
	for i := range s.Items {
		x := &s.Items[i]
		j := slices.IndexFunc(old, func(y runbook.Item) bool { return y.Name == x.Name })
		runs := ran(x)
		switch {
		case now && x.Kind == runbook.SignOff && j >= 0 && old[j].Kind == runbook.SignOff:
			// its words are for subjects, and nothing else ends them
		case j < 0, !alike(&old[j], x), runs && b.Source != nil:
			again[x.Name] = true
		case runs && x.Again == "machine" && slices.ContainsFunc(b.Machines, func(m Machine) bool {
			return m.Role == x.Role && m.Blueprint != s.Machine(x.Role).Blueprint
		}):
			again[x.Name] = true
		}
	}
	for grew := true; grew; {
		grew = false
		for _, x := range s.Items {
			if !again[x.Name] && x.Kind != runbook.Wait && x.Kind != runbook.SignOff && slices.ContainsFunc(x.Needs, func(n string) bool { return again[n] && (!now || ran(s.Item(n))) }) {
				again[x.Name], grew = true, true
			}
		}
	}
	kept := map[string]*Progress{}
	for name, p := range s.Progress {
		if now && len(p.Words) > 0 { // also of a sign-off that the runbook has not any more: it may come back
			kept[name] = &Progress{Words: p.Words}
		}
	}
	for _, x := range s.Items {
		p := s.Progress[x.Name]
		// A wait for the ship date waits for the one that is in force; nothing that began
		// after it begins again.
		over := postponed && x.Kind == runbook.Wait && x.Until.At.IsZero()
		switch {
		case p != nil && !again[x.Name] && !over:
			kept[x.Name] = p
		case kept[x.Name] == nil:
			kept[x.Name] = &Progress{} // a lease in force is void with it: its result is refused
			fallthrough
		default:
			if p != nil {
				kept[x.Name].Stopping = cmp.Or(p.Lease, p.Stopping)
			}
		}
	}
	s.Progress = kept
	if b.Source != nil {
		s.Source = *b.Source
		s.Candidate++
	}
	if b.Machines != nil {
		s.Machines = b.Machines
	}
	if b.Signers != "" {
		s.Signers, s.Revoked = b.Signers, b.Revoked
	}
	if now {
		for _, x := range s.Items {
			if s.Began[x.Name] {
				s.Reached[x.Phase] = true
			}
		}
		s.freeze()
	}
}

// postpones tells whether a change moves the ship date, to one before it perhaps: only
// where its runbook names another than the runbook in force does. One that was given at
// the start instead of the runbook's own stays until then.
func (s *State) postpones(b Amended) bool {
	return s.Started.Rules >= 2 && b.Items != nil && !b.Ship.IsZero() && !b.Ship.Equal(s.Named) && !b.Ship.Equal(s.Ship)
}

// alike tells whether two versions of an item ask for the same.
func alike(a, b *runbook.Item) bool {
	x, y := *a, *b
	x.Line, y.Line, x.Phase, y.Phase, x.Budget, y.Budget = 0, 0, "", "", 0, 0
	return same(x, y)
}

func same(a, b any) bool {
	j, err := json.Marshal(a)
	k, kerr := json.Marshal(b)
	return err == nil && kerr == nil && string(j) == string(k)
}
