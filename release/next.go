package release

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// Want is a step that wants a machine.
type Want struct {
	Item    string
	Role    string
	Confirm bool
	// Not is a machine that may not run it: the one that made gold.
	Not string
	// Warm are digests of the artifacts it takes in, which some machine may have.
	Warm []string
	// After is a lease that ended without a result: nobody may begin before its machine
	// has stopped. nil if there is none.
	After *Lease
}

// Next lists the steps that want a machine now, as they stand.
func (s *State) Next() []Want {
	if s.Phase != Running {
		return nil
	}
	var list []Want
	statuses := s.statuses()
	for i := range s.Items {
		x := &s.Items[i]
		if x.Kind != runbook.Step && x.Kind != runbook.Publish {
			continue
		}
		w := Want{Item: x.Name, Role: x.Role, After: s.Progress[x.Name].Stopping}
		switch status := statuses.of(x); {
		case s.Progress[x.Name].Lease != nil:
			continue
		case s.Waits(x) != "":
			continue
		case status == Confirming:
			w.Confirm, w.Not = true, s.Gold.Machine
		case status != Ready:
			continue
		}
		for _, t := range s.Takes(x) {
			if t.Made.Tree != "" {
				w.Warm = append(w.Warm, t.Made.Tree)
			}
		}
		for _, a := range s.Inputs(x) {
			w.Warm = append(w.Warm, a.Digest)
		}
		list = append(list, w)
	}
	return list
}

const goldWaits = " is open: gold waits"

// Waits says what people must decide before a machine may begin a step that is ready;
// "" if there is nothing.
func (s *State) Waits(x *runbook.Item) string {
	if !x.Gold || s.Amendment == nil || s.Progress[x.Name].Lease != nil {
		return ""
	}
	if status := s.Status(x); status != Ready && status != Confirming {
		return ""
	}
	return fmt.Sprintf("amendment %d%s", s.Amendment.Seq, goldWaits)
}

// ForPeople tells whether a reason to wait is one that [State.Waits] gives: it ends when
// people decide, and not before.
func ForPeople(why string) bool { return strings.HasSuffix(why, goldWaits) }

// Due lists the waits that end by now, and when the next one does; zero if none.
func (s *State) Due(now time.Time) (passed []string, next time.Time) {
	if s.Over() {
		return nil, time.Time{}
	}
	statuses := s.statuses()
	for i := range s.Items {
		x := &s.Items[i]
		if x.Kind != runbook.Wait || statuses.of(x) != Ready {
			continue
		}
		at := x.Until.Time(s.Ship)
		if !now.Before(at) {
			passed = append(passed, x.Name)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return passed, next
}

// Ask is something that a person must do.
type Ask struct {
	Item   string
	What   string   // in words
	People []string // any of them
	Needed int      // how many still
	// Type is what is asked for: sign, withdraw, retry, waive, except, amend, agree,
	// refuse (an amendment), abort, ship.
	Type   string
	Tests  []string // to waive
	Change string   // what to amend: source, runbook
}

// Asks lists what people must do now.
func (s *State) Asks() []Ask {
	if s.Over() {
		return nil
	}
	var list []Ask
	statuses := s.statuses()
	for i := range s.Items {
		x := &s.Items[i]
		if _, ask, stopped := statuses.stop(x); stopped {
			list = append(list, ask)
		} else if x.Kind == runbook.SignOff && statuses.of(x) == Ready {
			h := statuses.heard(x)
			list = append(list, Ask{Item: x.Name, What: x.Text, People: h.left, Needed: x.Approvals - h.yes, Type: "sign"})
		}
	}
	if len(s.Items) > 0 && s.Phase == Running && s.ready(statuses) {
		ask := Ask{Item: "ship", What: "everything is done: ship it", People: s.Approvers, Needed: 1, Type: "ship"}
		for _, b := range s.SecondBuilds() {
			if b.Verdict == "" {
				ask.What += "; " + b.String() + ", before one agreed"
			}
		}
		list = append(list, ask)
	}
	if a := s.Amendment; a != nil {
		left := s.approvers(func(who string) bool {
			return s.proposed(a.Amended, who) != "" || slices.ContainsFunc(a.Approved, func(other string) bool { return s.Same(who, other) })
		})
		ask := Ask{Item: "amendment", What: a.Reason, People: left, Needed: s.approvals() - s.agreed(), Type: "agree"}
		if s.postpones(a.Amended) {
			ask.What += "; it would ship " + runbook.FormatTime(a.Ship, time.UTC) + ", and not " + runbook.FormatTime(s.Ship, time.UTC)
		}
		vain := ""
		switch {
		case s.barred(a.Amended) != "": // what made gold was under way when it was proposed
			vain = "gold was committed meanwhile"
		case ask.Needed > len(left):
			vain = "it needs more approvals now than there are approvers"
		}
		if vain != "" {
			ask.What += "; " + vain + ": refuse it"
			ask.People, ask.Needed, ask.Type = s.Approvers, 1, "refuse"
		}
		list = append(list, ask)
	}
	return list
}

// stop says why an item does not go on by itself, and what people do about it: only what
// the rules then take. A sign-off that its people cannot give is stopped before its turn
// comes: after gold nothing changes.
func (a *statuses) stop(x *runbook.Item) (why string, ask Ask, stopped bool) {
	p, g, status := a.Progress[x.Name], a.Gold, a.of(x)
	open := x.Kind == runbook.SignOff && (status == Ready || status == Pending)
	h := heard{}
	if open {
		h = a.heard(x)
	}
	var todo string
	ask = Ask{Item: x.Name, Needed: 1, Type: "retry"}
	switch {
	case open && h.short:
		why, todo = "too few of its people may sign", "; amend who signs"
		if wrote := slices.DeleteFunc(slices.Clone(x.Signers), func(who string) bool { return !a.authored(who) }); len(wrote) > 0 {
			why += ": " + strings.Join(wrote, " and ") + " wrote what is released"
		}
		ask.People, ask.Type, ask.Change = a.Approvers, "amend", "runbook"
		if g != nil {
			todo = "; gold does not change any more: abort, and release another version"
			ask.Type, ask.Change = "abort", ""
		}
	case status != Stopped:
		return "", Ask{}, false
	case x.Kind == runbook.SignOff && g == nil && a.stands(x):
		why, todo = "it was rejected", ": mend what is wrong and amend, have it withdrawn, or abort"
		ask.People, ask.Type, ask.Change = a.Approvers, "amend", "source"
	case x.Kind == runbook.SignOff:
		var no []string
		subject := a.subject(x)
		for _, w := range p.Words {
			if w.Subject == subject && w.Decision == Reject {
				no = append(no, w.Person)
			}
		}
		who := strings.Join(no, " and ")
		why, todo = "it was rejected", "; it stands on no step, so an amendment of the source does not ask again: "+who+" must withdraw once it is mended, or abort"
		if g != nil {
			todo = "; gold does not change any more: " + who + " must withdraw, or abort and release another version"
		}
		ask.People, ask.Type = slices.Clone(a.Approvers), "withdraw"
		for _, person := range no {
			if !slices.Contains(ask.People, person) {
				ask.People = append(ask.People, person)
			}
		}
	case x.Gold && g != nil && g.Confirmed != nil && g.Confirmed.Verdict == Equivalent:
		why, todo = "the second build differs in ways that the build differs from itself", ": sign for each difference, or abort"
		ask.People, ask.Type = a.deciders(), "except"
		if len(ask.People) == 0 {
			todo = ", and every approver wrote what is released: abort, or give another person the approval in a new release"
			ask.People, ask.Type = a.Approvers, "abort"
		}
	case x.Gold && g != nil && g.Confirmed != nil:
		why, todo = "the second build made other bytes", ": find out why, abort, and release another version"
		ask.People, ask.Type = a.Approvers, "abort"
	case x.Gold && g != nil && p.Moves < MovesBeforeAsking:
		why, todo = "the second build of gold failed: "+p.Why, "; see its log, then retry"
	case p.Moves >= mayMove(x) && x.Lost != "":
		why, todo = "it lost its machine while it may have published: "+p.Moved, ": look what it has done, then retry"
	case p.Moves >= MovesBeforeAsking:
		why, todo = "it lost its machine too often, last because "+p.Moved, ": find out whether the step is what kills them, then retry"
	case p.Result != nil && p.Result.Exit == 0:
		ask.People, ask.Type, ask.Tests = a.deciders(), "waive", a.Unwaived(x)
		why, todo = "tests failed: "+strings.Join(ask.Tests, ", "), "; waive each by name, or retry"
		if n := p.Result.Status; n != 0 {
			why += fmt.Sprintf(" (%d of %d; the script ended with exit status %d: see its log for what it did not do)", len(p.Result.Failing), p.Result.Tests, n)
		}
		if len(ask.People) == 0 {
			todo = "; every approver wrote what is released, so nobody waives them: retry, or amend the approvers"
			ask.Type, ask.Tests = "retry", nil
		}
	case g != nil:
		why, todo = "it failed", ": see its log, then retry; gold does not change any more"
	default:
		why, todo = "it failed", ": see its log, then retry or amend"
	}
	ask.What = why + todo
	return why, ask, true
}

// ready tells whether a release ships when somebody says so.
func (s *State) ready(a *statuses) bool {
	return s.Gold != nil && s.Amendment == nil && !slices.ContainsFunc(s.Items, func(x runbook.Item) bool { return !a.done(&x) })
}

// deciders are the approvers who may decide on what was made: nobody who wrote it.
func (a *statuses) deciders() []string {
	if a.Started.Rules < 3 {
		return a.Approvers
	}
	return a.approvers(a.authored)
}

// Report is what a machine says at the end of a lease.
type Report struct {
	Finished
	Machine string `json:"machine,omitempty"`
	// Stopped: the machine itself ended the step, because it could not know
	// whether its lease was still in force. It is lost, and has not failed.
	Stopped bool `json:"stopped,omitempty"`
	// Compared is the verdict on a second build of gold, with its differences.
	Compared    Verdict  `json:"compared,omitempty"`
	Differences []string `json:"differences,omitempty"`
}

// Result gives the event that a report amounts to: the result, gold, the
// comparison with gold, or a refusal if the lease is over.
func (s *State) Result(r Report) Body {
	refuse := func(why string) Body { return Refused{r.Item, r.Epoch, r.Machine, why} }
	x := s.Item(r.Item)
	if x == nil {
		return refuse("the release has no such item")
	}
	l := s.Progress[r.Item].Lease
	switch {
	case l == nil:
		return refuse("the lease is over")
	case l.Epoch != r.Epoch:
		return refuse("the step was given to another machine")
	case l.Machine != r.Machine:
		return refuse("the lease is another machine's")
	}
	if r.Stopped {
		return Lost{r.Item, r.Epoch, r.Machine, r.Why}
	}
	if why := s.Void(r.Item); why != "" {
		return Lost{r.Item, r.Epoch, r.Machine, why}
	}
	if why := r.unfinished(); why != "" {
		r.Finished = r.Without()
		r.Exit, r.Why = cmp.Or(r.Status, 1), why
	}
	var b Body = r.Finished
	switch {
	case x.Gold && r.Exit == 0 && len(r.Failing) > 0: // the linter refuses such a step; who started this has another one
		f := r.Without()
		f.Exit, f.Why = 1, fmt.Sprintf("%d of its tests failed, and gold has none to waive: %s", len(r.Failing), strings.Join(r.Failing[:min(len(r.Failing), 5)], ", "))
		b = f
	case l.Confirm && r.Exit == 0 && s.Started.Rules >= 3 && r.Compared.wrong(r.Differences) != "":
		f := r.Without()
		f.Exit, f.Why = 1, r.Compared.wrong(r.Differences)
		b = f
	case l.Confirm && r.Exit == 0:
		b = Confirmed{r.Epoch, r.Compared, r.Differences, r.Log, r.Took}
	case x.Gold && !l.Confirm && r.Exit == 0 && r.Made().Files == 0:
		f := r.Finished
		f.Exit, f.Why = 1, "it ended well and made none of its outputs"
		b = f
	case x.Gold && !l.Confirm && r.Exit == 0:
		b = Committed{r.Finished}
	}
	var rule *RuleError
	if err := s.Clone().apply(Event{Seq: s.Head + 1, Body: b}); errors.As(err, &rule) {
		return refuse(rule.What)
	}
	return b
}

// Void says why nothing comes of an item's lease, whatever its machine makes; "" while
// something may.
func (s *State) Void(item string) string {
	x, p := s.Item(item), s.Progress[item]
	if x == nil || !x.Gold || p.Lease == nil || p.Lease.Blueprint == s.Machine(x.Role).Blueprint {
		return ""
	}
	return "its build server was amended meanwhile" // and provenance names the one in force
}

// Leases lists the leases in force by item.
func (s *State) Leases() map[string]Lease {
	list := map[string]Lease{}
	for name, p := range s.Progress {
		if p.Lease != nil {
			list[name] = *p.Lease
		}
	}
	return list
}
