package release

import (
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"trysail/runbook"
)

func match(glob, path string) bool {
	ok, err := doublestar.Match(glob, path)
	return err == nil && ok
}

// Apply adds one event to the state, or says which rule forbids it and changes
// nothing.
func (s *State) Apply(e Event) error {
	if e.Seq != s.Head+1 {
		return forbid(e.Body, "event %d follows event %d", e.Seq, s.Head)
	}
	_, first := e.Body.(Started)
	switch {
	case first && s.Free(): // once more
	case first && s.Phase == Ended:
		return forbid(e.Body, "release %s was aborted after gold was committed, and its version is used up: start another version", s.Started.Version)
	case first && s.Head > 0:
		return forbid(e.Body, "release %s has been started already", s.Started.Version)
	case !first && s.Head == 0:
		return forbid(e.Body, "a stream begins with the start of its release")
	case s.Over():
		return forbid(e.Body, "release %s is %s", s.Started.Version, s.Phase)
	}
	if err := s.apply(e); err != nil {
		return err
	}
	if by := s.Changed.Sub(e.Time); s.Head > 0 && by >= backAtLeast {
		s.Backs = append(s.Backs, ClockBack{e.Seq, by})
	}
	s.Head, s.Changed = e.Seq, e.Time
	switch e.Body.(type) {
	case Started, Committed, Confirmed, Excepted, Waived, Signed, Withdrawn, Amended, Agreed, Aborted, Shipped:
		s.Gate = e.Seq
	}
	if b, ok := e.Body.(Personal); ok && b.Signed() != nil {
		s.Nonces[b.Signed().Nonce] = true
	}
	if e.Time.After(s.Latest) {
		s.Latest = e.Time
	}
	return nil
}

func (s *State) apply(e Event) error {
	if b, ok := e.Body.(Personal); ok {
		return s.decide(e, b)
	}
	return s.rule(e)
}

func (s *State) rule(e Event) error {
	switch b := e.Body.(type) {
	case Started:
		if s.Head > 0 {
			return s.again(e, b)
		}
		return s.start(e, b)
	case Granted:
		return s.grant(e, b)
	case Finished:
		return s.finish(b)
	case Committed:
		return s.commit(e, b)
	case Confirmed:
		return s.confirm(b)
	case Excepted:
		return s.except(b)
	case Lost:
		return s.lose(b)
	case Refused:
		s.Refusals = append(s.Refusals, b)
	case Retried:
		return s.retry(b)
	case Waived:
		return s.waive(b)
	case Passed:
		return s.pass(b)
	case Signed:
		return s.sign(e, b)
	case Withdrawn:
		return s.withdraw(b)
	case Amended:
		return s.amend(e, b)
	case Agreed:
		return s.agree(b)
	case Held:
		if s.Phase == Holding {
			return forbid(b, "the release is held already")
		}
		s.Phase, s.Why, s.HeldBy = Holding, b.Reason, e.Actor
	case Resumed:
		if s.Phase != Holding {
			return forbid(b, "the release is not held")
		}
		s.Phase, s.Why, s.HeldBy = Running, "", ""
	case Aborted:
		return s.abort(b)
	case Shipped:
		return s.ship(b)
	default:
		return forbid(e.Body, "an event of type %s has no rule", e.Type)
	}
	return nil
}

func (s *State) ship(b Shipped) error {
	left := s.Unfinished()
	switch {
	case len(left) > 0:
		return forbid(b, "not done: %s", strings.Join(left, ", "))
	case s.Gold == nil:
		return forbid(b, "there is no gold")
	case s.Started.Rules >= 3 && s.Phase == Holding:
		return forbid(b, "the release is held: %s", s.Why)
	case s.Started.Rules >= 3 && s.Amendment != nil:
		return forbid(b, "amendment %d is open: decide it first", s.Amendment.Seq)
	}
	s.Phase = Done
	return nil
}

func (s *State) start(e Event, b Started) error {
	switch err := runbook.CheckVersion(b.Version); {
	case b.Rules < 0 || b.Rules > RulesNow:
		return forbid(b, "release %s goes by rules %d, which a newer Trysail wrote; this one knows those up to %d: use the newer one", b.Version, b.Rules, RulesNow)
	case err != nil:
		return forbid(b, "%v", err)
	}
	if err := check(b, b.Items); err != nil {
		return err
	}
	if b.Rules >= 3 {
		if err := closed(b, b.Items, b.Endgame, &b.Source); err != nil {
			return err
		}
	}
	if err := checkHours(b, b.Team, b.People); err != nil {
		return err
	}
	s.Started, s.Begun, s.Phase, s.Candidate = b, e.Time, Running, 1
	s.Items, s.Source, s.Machines, s.Runbook = b.Items, b.Source, b.Machines, b.Runbook
	s.Endgame, s.Approvers, s.Team, s.People = b.Endgame, b.Approver, b.Team, b.People
	s.Signers, s.Revoked, s.Ship, s.Named, s.Budget = b.Signers, b.Revoked, b.Ship, b.Named, b.Budget
	for _, x := range b.Items {
		s.Progress[x.Name] = &Progress{}
	}
	return nil
}

// check refuses a plan that would hang: needs that nothing gives, or a circle. It looks at
// each need once: a hostile ledger may have a plan of any size.
func check(b Body, items []runbook.Item) error {
	places := make(map[string]int, len(items))
	for i, x := range items {
		if _, twice := places[x.Name]; twice {
			return forbid(b, "item %s stands twice", x.Name)
		}
		places[x.Name] = i
	}
	waits, next := make([]int, len(items)), make([][]int, len(items)) // by place: needs that are left, and who needs it
	var free []int
	for i, x := range items {
		for _, n := range x.Needs {
			place, ok := places[n]
			if !ok {
				return forbid(b, "item %s needs what the plan does not hold", x.Name)
			}
			waits[i]++
			next[place] = append(next[place], i)
		}
		if waits[i] == 0 {
			free = append(free, i)
		}
	}
	for n := 0; n < len(free); n++ {
		for _, i := range next[free[n]] {
			if waits[i]--; waits[i] == 0 {
				free = append(free, i)
			}
		}
	}
	if len(free) < len(items) {
		return forbid(b, "the plan's needs go in a circle")
	}
	return nil
}

// checkHours refuses working hours that cannot be read. Whether a zone exists is
// for who has its rules.
func checkHours(b Body, team runbook.Hours, people []Person) error {
	_, err := calendars(team, people, func(string) (*time.Location, error) { return time.UTC, nil })
	if err != nil {
		return forbid(b, "%v", err)
	}
	return nil
}

func (s *State) step(b Body, name string) (*runbook.Item, *Progress, error) {
	x := s.Item(name)
	if x == nil {
		return nil, nil, forbid(b, "release %s has no item %q", s.Started.Version, name)
	}
	return x, s.Progress[name], nil
}

func (s *State) grant(e Event, b Granted) error {
	x, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	status := s.Status(x)
	switch {
	case s.Phase == Holding:
		return forbid(b, "the release is held")
	case x.Kind != runbook.Step && x.Kind != runbook.Publish:
		return forbid(b, "%s is a %s, which no machine runs", b.Item, x.Kind)
	case p.Lease != nil:
		return forbid(b, "%s is running on %s", b.Item, p.Lease.Machine)
	case b.Confirm && (status != Confirming || b.Machine == s.Gold.Machine):
		return forbid(b, "%s is not to be built again on %s", b.Item, b.Machine)
	case !b.Confirm && status != Ready:
		return forbid(b, "%s is %s", b.Item, status)
	case s.Amendment != nil && x.Gold:
		return forbid(b, "an amendment is open: gold waits")
	}
	p.Lease = &Lease{Epoch: e.Seq, Machine: b.Machine, Since: e.Time, Confirm: b.Confirm, Blueprint: s.Machine(x.Role).Blueprint}
	s.reach(x)
	return nil
}

// reach notes that an item has begun, and with it its phase. What the endgame freezes
// from there on stays frozen.
func (s *State) reach(x *runbook.Item) {
	s.Reached[x.Phase] = true
	if s.Started.Rules >= 3 {
		s.Began[x.Name] = true
		s.freeze()
	}
}

func (s *State) freeze() {
	for _, f := range s.Endgame {
		if !s.Reached[f.Phase] {
			continue
		}
		for _, what := range f.Freezes {
			s.Floor[what] = max(s.Floor[what], f.Approvals)
		}
	}
}

// lease finds the lease in force that a result belongs to.
func (s *State) lease(b Body, item string, epoch int64, confirm bool) (*runbook.Item, *Progress, error) {
	x, p, err := s.step(b, item)
	if err != nil {
		return nil, nil, err
	}
	if p.Lease == nil || p.Lease.Epoch != epoch || p.Lease.Confirm != confirm {
		return nil, nil, forbid(b, "the lease %d of %s is not in force", epoch, item)
	}
	return x, p, nil
}

func (s *State) finish(b Finished) error {
	x, p, err := s.lease(b, b.Item, b.Epoch, false)
	var rule error
	if err != nil {
		// The second build of gold may fail too; it is compared by Confirmed.
		if _, p, rule = s.lease(b, b.Item, b.Epoch, true); rule != nil || b.Exit == 0 {
			return err
		}
		s.Gold.Seconds = append(s.Gold.Seconds, Second{Epoch: b.Epoch, Machine: p.Lease.Machine, Why: b.Why, Log: b.Log})
		p.Ended, p.Lease, p.Why = b.Epoch, nil, b.Why
		p.Failures++
		return nil
	}
	if x.Gold && b.Exit == 0 {
		return forbid(b, "%s is gold: its result is committed or refused", b.Item)
	}
	if what := b.wrong(); what != "" {
		return forbid(b, "%s: %s", b.Item, what)
	}
	p.Result, p.Machine, p.Server, p.Lease, p.Waived, p.Ended = &b, p.Lease.Machine, p.Lease.Blueprint, nil, nil, b.Epoch
	p.Why = b.Why
	if b.Exit != 0 {
		p.Failures++
	}
	return nil
}

func (s *State) lose(b Lost) error {
	_, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	if p.Lease == nil || p.Lease.Epoch != b.Epoch {
		return forbid(b, "the lease %d of %s is not in force", b.Epoch, b.Item)
	}
	p.Lease, p.Stopping, p.Moved = nil, p.Lease, b.Why
	p.Moves++
	s.Lost++
	return nil
}

func (s *State) retry(b Retried) error {
	x, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	if status := s.Status(x); status != Stopped || x.Kind == runbook.SignOff {
		return forbid(b, "%s is %s", b.Item, status)
	}
	if x.Gold && s.Gold != nil {
		if s.Gold.Confirmed != nil {
			return forbid(b, "the second build of gold differs: it is not tried until it agrees")
		}
		p.Failures, p.Moves, p.Why = 0, 0, ""
		return nil
	}
	p.Result, p.Failures, p.Moves, p.Waived, p.Why = nil, 0, 0, nil, ""
	return nil
}

func (s *State) waive(b Waived) error {
	x, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	switch {
	case !slices.Contains(s.Unwaived(x), b.Test):
		return forbid(b, "%s has no failing test %q to waive", b.Item, b.Test)
	case !slices.Contains(s.Approvers, b.Person):
		return forbid(b, "%s is not an approver", b.Person)
	case s.unsaid(b.Reason):
		return forbid(b, "a waiver needs a reason")
	case s.Started.Rules >= 3 && s.Wrote(b.Person):
		return forbid(b, "%s wrote what is released, and another waives its tests", b.Person)
	case s.Started.Rules >= 3 && p.Result.Exit != 0:
		return forbid(b, "%s failed, and no waiver of a test makes it done", b.Item)
	}
	w := map[string]Waived{b.Test: b}
	for k, v := range p.Waived {
		w[k] = v
	}
	p.Waived = w
	return nil
}

func (s *State) pass(b Passed) error {
	x, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	if x.Kind != runbook.Wait || s.Status(x) != Ready {
		return forbid(b, "%s is no wait that can end", b.Item)
	}
	p.Passed = true
	if s.Started.Rules >= 2 {
		s.reach(x)
	}
	return nil
}
