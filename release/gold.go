package release

import (
	"fmt"
	"slices"

	"trysail/runbook"
)

func (s *State) commit(e Event, b Committed) error {
	x, p, err := s.lease(b, b.Item, b.Epoch, false)
	switch {
	case err != nil:
		return err
	case s.Gold != nil:
		return forbid(b, "gold is committed, by event %d", s.Gold.Seq)
	case s.Started.Rules >= 3 && p.Lease.Blueprint != s.Machine(x.Role).Blueprint:
		return forbid(b, "the build server of %s was amended after its lease began", b.Item)
	case !x.Gold || b.Exit != 0 || b.Made().Files == 0:
		return forbid(b, "%s gives no gold", b.Item)
	}
	if what := b.wrong(); what != "" {
		return forbid(b, "%s: %s", b.Item, what)
	}
	s.Gold = &Gold{Seq: e.Seq, Machine: p.Lease.Machine, Outputs: b.Outputs, List: b.List, Runbook: s.Runbook}
	p.Result, p.Machine, p.Server, p.Lease, p.Failures, p.Moves, p.Ended, p.Why = &b.Finished, p.Lease.Machine, p.Lease.Blueprint, nil, 0, 0, b.Epoch, ""
	return nil
}

func (s *State) confirm(b Confirmed) error {
	if s.Gold == nil {
		return forbid(b, "there is no gold to compare with")
	}
	name := s.goldItem().Name
	_, p, err := s.lease(b, name, b.Epoch, true)
	if err != nil {
		return err
	}
	if why := b.Verdict.wrong(b.Differences); why != "" && s.Started.Rules >= 3 {
		return forbid(b, "%s", why)
	}
	s.Gold.Seconds = append(s.Gold.Seconds, Second{Epoch: b.Epoch, Machine: p.Lease.Machine, Verdict: b.Verdict, Differences: b.Differences, Log: b.Log})
	s.Gold.By, s.Gold.Confirmed, p.Lease, p.Ended, p.Why = p.Lease.Machine, &b, nil, b.Epoch, ""
	return nil
}

// wrong says why a comparison is none; "" if it is one.
func (v Verdict) wrong(differences []string) string {
	switch {
	case v != Identical && v != Equivalent && v != Different:
		return fmt.Sprintf("%q is no verdict on a second build", v)
	case v == Identical && len(differences) > 0:
		return fmt.Sprintf("the second build is said to be identical, with %d differences", len(differences))
	case v == Equivalent && len(differences) == 0:
		return "the second build is said to be equivalent, and what differs is not"
	}
	return ""
}

func (s *State) goldItem() *runbook.Item {
	i := slices.IndexFunc(s.Items, func(x runbook.Item) bool { return x.Gold })
	if i < 0 {
		return nil
	}
	return &s.Items[i]
}

func (s *State) except(b Excepted) error {
	switch {
	case s.Gold == nil || s.Gold.Confirmed == nil || s.Gold.Confirmed.Verdict != Equivalent:
		return forbid(b, "gold has no difference that a person may sign for")
	case !slices.Contains(s.Approvers, b.Person):
		return forbid(b, "%s is not an approver", b.Person)
	case !slices.Equal(slices.Sorted(slices.Values(b.Differences)), slices.Sorted(slices.Values(s.Gold.Confirmed.Differences))):
		return forbid(b, "an exception names each difference, and these are not they")
	case s.Gold.Exception != nil:
		return forbid(b, "%s has signed for them", s.Gold.Exception.Person)
	case s.Started.Rules >= 3 && s.unsaid(b.Reason):
		return forbid(b, "an exception needs a reason")
	case s.Started.Rules >= 3 && s.Wrote(b.Person):
		return forbid(b, "%s wrote what is released, and another signs for its differences", b.Person)
	}
	s.Gold.Exception = &b
	return nil
}
