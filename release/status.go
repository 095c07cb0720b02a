package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"trysail/runbook"
)

// statuses answers a question about a release: each status is worked out once for it. What
// an item is hangs on all that it needs, many items may need the same, and to ask anew on
// every way to it takes for ever. Nothing is kept from one question to the next: who only
// looks at a state changes nothing in it.
type statuses struct {
	*State
	known map[string]Status
	steps map[string]bool // whether an item stands on a step
}

func (s *State) statuses() *statuses {
	return &statuses{s, map[string]Status{}, map[string]bool{}}
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

// needsDone tells whether all that an item needs is done.
func (a *statuses) needsDone(x *runbook.Item) bool {
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
	yes  int
	no   bool
	left []string // who may sign: nobody who has, or who wrote what is released
}

// heard tells whose word on a sign-off counts. While something that it needs is not done
// nobody's does: whatever was said was of other bytes.
func (a *statuses) heard(x *runbook.Item) heard {
	var h heard
	var yes []string
	if a.needsDone(x) {
		subject := a.subject(x)
		for _, w := range a.Progress[x.Name].Words {
			switch {
			case w.Subject != subject: // for other bytes
			case w.Decision == Reject:
				h.no = true
			case a.Started.Rules >= 1 && a.Wrote(w.Person): // the source came later
			default:
				yes = append(yes, w.Person)
			}
		}
	}
	h.yes = len(yes)
	for _, who := range x.Signers {
		if !a.Wrote(who) && !slices.Contains(yes, who) {
			h.left = append(h.left, who)
		}
	}
	return h
}

// Subject is the digest of what a sign-off is about: the item, what is asked,
// the bytes that the items it needs have made, and, where it stands on steps, the
// source of which they made them: a step that looks at it makes nothing.
func (s *State) Subject(x *runbook.Item) string { return s.statuses().subject(x) }

func (a *statuses) subject(x *runbook.Item) string {
	type made struct {
		Item    string
		Outputs []Artifact
	}
	q := struct {
		Release, Item, Text string
		Made                []made
		Source              string `json:",omitempty"`
	}{a.Started.Version, x.Name, x.Text, nil, ""}
	if a.Started.Rules >= 1 && a.stands(x) {
		q.Source = a.Source.Original
	}
	for _, n := range x.Needs {
		if out := a.Outputs(n); len(out) > 0 {
			q.Made = append(q.Made, made{n, out})
		}
	}
	data, err := json.Marshal(q)
	if err != nil {
		return "" // strings and numbers always marshal
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
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
