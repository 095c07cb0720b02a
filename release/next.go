package release

import (
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
		case status == Confirming:
			w.Confirm, w.Not = true, s.Gold.Machine
		case status != Ready, x.Gold && s.Amendment != nil:
			continue
		}
		for _, a := range s.Inputs(x) {
			w.Warm = append(w.Warm, a.Digest)
		}
		list = append(list, w)
	}
	return list
}

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
	Type   string   // next command's word: sign, retry, waive, except, agree
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
		p := s.Progress[x.Name]
		switch status := statuses.of(x); {
		case x.Kind == runbook.SignOff && (status == Ready || status == Pending):
			switch h := statuses.heard(x); {
			case len(h.left) < x.Approvals-h.yes:
				list = append(list, s.askOthers(x))
			case status == Ready:
				list = append(list, Ask{x.Name, x.Text, h.left, x.Approvals - h.yes, "sign"})
			}
		case status != Stopped:
		case x.Kind == runbook.SignOff:
			list = append(list, Ask{x.Name, "it was rejected: mend what is wrong and amend, have it withdrawn, or abort", s.Approvers, 1, "amend"})
		case x.Gold && s.Gold != nil && s.Gold.Confirmed != nil && s.Gold.Confirmed.Verdict == Equivalent:
			list = append(list, Ask{x.Name, "the second build differs in ways that the build differs from itself: sign for each difference, or abort", s.Approvers, 1, "except"})
		case x.Gold && s.Gold != nil && s.Gold.Confirmed != nil:
			list = append(list, Ask{x.Name, "the second build made other bytes: find out why, abort, and release another version", s.Approvers, 1, "abort"})
		case x.Gold && s.Gold != nil && p.Moves < MovesBeforeAsking:
			list = append(list, Ask{x.Name, "the second build of gold failed: " + p.Why + "; see its log, then retry", nil, 1, "retry"})
		case p.Moves >= MovesBeforeAsking:
			list = append(list, Ask{x.Name, "it lost its machine too often, last because " + p.Moved + ": find out whether the step is what kills them, then retry", nil, 1, "retry"})
		case p.Result != nil && p.Result.Exit == 0:
			list = append(list, Ask{x.Name, "tests failed: " + strings.Join(s.Unwaived(x), ", ") + "; waive each by name, or retry", s.Approvers, 1, "waive"})
		default:
			list = append(list, Ask{x.Name, "it failed: see its log, then retry or amend", nil, 1, "retry"})
		}
	}
	if a := s.Amendment; a != nil {
		var left []string
		for _, who := range s.Approvers {
			if who != a.By && !slices.Contains(a.Approved, who) {
				left = append(left, who)
			}
		}
		ask := Ask{"amendment", a.Reason, left, s.approvals() - len(a.Approved), "agree"}
		if s.postpones(a.Amended) {
			ask.What += "; it would ship " + a.Ship.UTC().Format(time.RFC3339) + ", and not " + s.Ship.UTC().Format(time.RFC3339)
		}
		if ask.Needed > len(left) {
			ask.What += "; it needs more approvals now than there are approvers: refuse it"
			ask.People, ask.Needed = s.Approvers, 1
		}
		list = append(list, ask)
	}
	return list
}

// askOthers asks for an amendment of a sign-off that its people cannot give. It is asked
// before the sign-off's turn comes: after gold nothing changes.
func (s *State) askOthers(x *runbook.Item) Ask {
	why := "too few of its people may sign"
	if wrote := slices.DeleteFunc(slices.Clone(x.Signers), func(who string) bool { return !s.Wrote(who) }); len(wrote) > 0 {
		why += ": " + strings.Join(wrote, " and ") + " wrote what is released"
	}
	if s.Gold != nil {
		return Ask{x.Name, why + "; gold does not change any more: abort, and release another version", s.Approvers, 1, "abort"}
	}
	return Ask{x.Name, why + "; amend who signs", s.Approvers, 1, "amend"}
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
	var b Body = r.Finished
	switch {
	case x.Gold && r.Exit == 0 && len(r.Failing) > 0: // the linter refuses such a step; who started this has another one
		f := r.Finished
		f.Exit, f.Failing, f.Outputs, f.Why = 1, nil, nil, fmt.Sprintf("%d of its tests failed, and gold has none to waive: %s", len(r.Failing), strings.Join(r.Failing[:min(len(r.Failing), 5)], ", "))
		b = f
	case l.Confirm && r.Exit == 0:
		b = Confirmed{r.Epoch, r.Compared, r.Differences, r.Log, r.Took}
	case x.Gold && !l.Confirm && r.Exit == 0 && len(r.Outputs) == 0:
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
