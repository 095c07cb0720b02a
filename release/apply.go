package release

import (
	"cmp"
	"encoding/json"
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
	case first != (s.Head == 0):
		return forbid(e.Body, "a stream begins with the start of its release, once")
	case s.Over():
		return forbid(e.Body, "release %s is %s", s.Started.Version, s.Phase)
	}
	if err := s.apply(e); err != nil {
		return err
	}
	s.Head, s.Changed = e.Seq, e.Time
	switch e.Body.(type) {
	case Started, Committed, Confirmed, Excepted, Waived, Signed, Withdrawn, Amended, Agreed, Aborted, Shipped:
		s.Gate = e.Seq
	}
	if e.Time.After(s.Latest) {
		s.Latest = e.Time
	}
	return nil
}

func (s *State) apply(e Event) error {
	switch b := e.Body.(type) {
	case Started:
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
		s.Phase, s.Why = Holding, b.Reason
	case Resumed:
		if s.Phase != Holding {
			return forbid(b, "the release is not held")
		}
		s.Phase, s.Why = Running, ""
	case Aborted:
		s.Phase, s.Why = Ended, b.Reason
		for _, p := range s.Progress {
			p.Lease = nil // what still runs is stopped by its machine
		}
	case Shipped:
		if left := s.Unfinished(); len(left) > 0 {
			return forbid(b, "not done: %v", left)
		}
		if s.Gold == nil {
			return forbid(b, "there is no gold")
		}
		s.Phase = Done
	default:
		return forbid(e.Body, "an event of type %s has no rule", e.Type)
	}
	return nil
}

func (s *State) start(e Event, b Started) error {
	if !runbook.VersionRE().MatchString(b.Version) {
		return forbid(b, "%q is not a version", b.Version)
	}
	if err := check(b, b.Items); err != nil {
		return err
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

// check refuses a plan that would hang: needs that nothing gives, or a circle.
func check(b Body, items []runbook.Item) error {
	left := map[string][]string{}
	for _, x := range items {
		if _, twice := left[x.Name]; twice {
			return forbid(b, "item %s stands twice", x.Name)
		}
		left[x.Name] = x.Needs
	}
	for _, x := range items {
		if slices.ContainsFunc(x.Needs, func(n string) bool { _, ok := left[n]; return !ok }) {
			return forbid(b, "item %s needs what the plan does not hold", x.Name)
		}
	}
	for len(left) > 0 {
		before := len(left)
		for name, needs := range left {
			if !slices.ContainsFunc(needs, func(n string) bool { _, ok := left[n]; return ok }) {
				delete(left, name)
			}
		}
		if len(left) == before {
			return forbid(b, "the plan's needs go in a circle")
		}
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
	s.Reached[x.Phase] = true
	return nil
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
		p.Ended, p.Lease, p.Why = b.Epoch, nil, b.Why
		p.Failures++
		return nil
	}
	if x.Gold && b.Exit == 0 {
		return forbid(b, "%s is gold: its result is committed or refused", b.Item)
	}
	p.Result, p.Machine, p.Lease, p.Waived, p.Ended = &b, p.Lease.Machine, nil, nil, b.Epoch
	p.Why = b.Why
	if b.Exit != 0 {
		p.Failures++
	}
	return nil
}

func (s *State) commit(e Event, b Committed) error {
	x, p, err := s.lease(b, b.Item, b.Epoch, false)
	switch {
	case err != nil:
		return err
	case s.Gold != nil:
		return forbid(b, "gold is committed, by event %d", s.Gold.Seq)
	case !x.Gold || b.Exit != 0 || len(b.Outputs) == 0:
		return forbid(b, "%s gives no gold", b.Item)
	}
	s.Gold = &Gold{Seq: e.Seq, Machine: p.Lease.Machine, Outputs: b.Outputs}
	p.Result, p.Machine, p.Lease, p.Failures, p.Moves, p.Ended, p.Why = &b.Finished, p.Lease.Machine, nil, 0, 0, b.Epoch, ""
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
	s.Gold.By, s.Gold.Confirmed, p.Lease, p.Ended, p.Why = p.Lease.Machine, &b, nil, b.Epoch, ""
	return nil
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
	}
	s.Gold.Exception = &b
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
	case b.Reason == "":
		return forbid(b, "a waiver says why")
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
		s.Reached[x.Phase] = true
	}
	return nil
}

func (s *State) sign(e Event, b Signed) error {
	x, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	switch {
	case x.Kind != runbook.SignOff:
		return forbid(b, "%s is a %s, which nobody signs", b.Item, x.Kind)
	case !slices.Contains(x.Signers, b.Person):
		return forbid(b, "%s is not asked to sign %s", b.Person, b.Item)
	case b.Decision != Approve && b.Decision != ApproveExcept && b.Decision != Reject:
		return forbid(b, "%q is no decision", b.Decision)
	case b.Decision != Approve && b.Reason == "":
		return forbid(b, "a rejection says why, and so does an exception")
	case s.Signers != "" && (b.Statement == "" || b.Signature == "" || b.Nonce == ""):
		return forbid(b, "release %s has allowed signers: %s is signed with an SSH key", s.Started.Version, b.Item)
	case s.Signers == "" && (b.Statement != "" || b.Signature != "" || b.Nonce != ""):
		return forbid(b, "release %s has no allowed signers, so a signature says nothing", s.Started.Version)
	case s.Nonces[b.Nonce]:
		return forbid(b, "this signature was given before")
	case b.Decision != Reject && s.Wrote(b.Person):
		return forbid(b, "%s wrote what is released, and another signs for it", b.Person)
	case !s.statuses().needsDone(x):
		return forbid(b, "%s cannot be signed yet: what it needs is not done", b.Item)
	case b.Subject != s.Subject(x):
		return forbid(b, "what %s is about has changed since it was shown: look again", b.Item)
	case b.Spent < 0:
		return forbid(b, "time spent is negative")
	case slices.ContainsFunc(p.Words, func(w Signature) bool { return w.Person == b.Person && w.Subject == b.Subject }):
		return forbid(b, "%s has signed %s", b.Person, b.Item)
	}
	p.Words = slices.DeleteFunc(slices.Clone(p.Words), func(w Signature) bool { return w.Person == b.Person })
	p.Words = append(p.Words, Signature{b, e.Seq, e.Time})
	s.Spent[b.Person] += b.Spent
	if b.Nonce != "" {
		s.Nonces[b.Nonce] = true
	}
	s.Reached[x.Phase] = true
	return nil
}

func (s *State) withdraw(b Withdrawn) error {
	_, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.Words, func(w Signature) bool { return w.Person == b.Person })
	if i < 0 {
		return forbid(b, "%s has not signed %s", b.Person, b.Item)
	}
	p.Words = slices.Delete(slices.Clone(p.Words), i, i+1)
	return nil
}

func (s *State) amend(e Event, b Amended) error {
	needs := s.Frozen(b.What)
	switch {
	case needs < 0:
		return forbid(b, "gold is committed: what it was made of does not change any more; abort, and release another version")
	case s.Amendment != nil:
		return forbid(b, "amendment %d is open: decide it first", s.Amendment.Seq)
	case len(b.What) == 0 || b.Reason == "":
		return forbid(b, "an amendment says what changes and why")
	case slices.ContainsFunc(b.changes(), func(w string) bool { return !slices.Contains(b.What, w) }):
		return forbid(b, "the amendment says that it changes %s, and changes %s", strings.Join(b.What, ", "), strings.Join(b.changes(), ", "))
	case slices.Contains(b.What, "signers") && b.Signers == "":
		return forbid(b, "the amendment names no allowed signers")
	case needs > len(slices.DeleteFunc(slices.Clone(s.Approvers), func(p string) bool { return p == b.By })):
		return forbid(b, "%d approvals are needed, and there are fewer approvers beside %s", needs, b.By)
	}
	if b.Items != nil {
		if err := check(b, b.Items); err != nil {
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

func (s *State) agree(b Agreed) error {
	a := s.Amendment
	switch {
	case a == nil || a.Seq != b.Amendment:
		return forbid(b, "amendment %d is not open", b.Amendment)
	case !slices.Contains(s.Approvers, b.Person):
		return forbid(b, "%s is not an approver", b.Person)
	case b.Decision == Reject: // also whose it is, and who approved: it may need more now than there are
		s.Amendment = nil
		return nil
	case b.Person == a.By:
		return forbid(b, "%s proposed it, and another must approve", b.Person)
	case slices.Contains(a.Approved, b.Person):
		return forbid(b, "%s has approved it", b.Person)
	case s.Frozen(a.What) < 0:
		return forbid(b, "gold is committed: nothing changes any more")
	}
	a.Approved = append(slices.Clone(a.Approved), b.Person)
	if len(a.Approved) < s.approvals() {
		return nil
	}
	s.Amendment = nil
	s.change(a.Amended)
	return nil
}

// change puts an approved amendment into force. What it touches is done again:
// all steps after a change of the source, those that changed or whose machine
// changed otherwise, and whatever needs them.
func (s *State) change(b Amended) {
	old, postponed := s.Items, s.postpones(b)
	if b.Items != nil {
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
		runs := x.Kind == runbook.Step || x.Kind == runbook.Publish
		switch {
		case j < 0, !same(&old[j], x), runs && b.Source != nil:
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
			if !again[x.Name] && x.Kind != runbook.Wait && x.Kind != runbook.SignOff && slices.ContainsFunc(x.Needs, func(n string) bool { return again[n] }) {
				again[x.Name], grew = true, true
			}
		}
	}
	kept := map[string]*Progress{}
	for _, x := range s.Items {
		kept[x.Name] = s.Progress[x.Name]
		// A wait for the ship date waits for the one that is in force; nothing that began
		// after it begins again.
		over := postponed && x.Kind == runbook.Wait && x.Until.At.IsZero()
		if again[x.Name] || over || kept[x.Name] == nil {
			kept[x.Name] = &Progress{} // a lease in force is void with it: its result is refused
			if p := s.Progress[x.Name]; p != nil {
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
}

// postpones tells whether a change moves the ship date, to one before it perhaps: only
// where its runbook names another than the runbook in force does. One that was given at
// the start instead of the runbook's own stays until then.
func (s *State) postpones(b Amended) bool {
	return s.Started.Rules >= 2 && b.Items != nil && !b.Ship.IsZero() && !b.Ship.Equal(s.Named) && !b.Ship.Equal(s.Ship)
}

// same tells whether two versions of an item ask for the same.
func same(a, b *runbook.Item) bool {
	x, y := *a, *b
	x.Line, y.Line, x.Phase, y.Phase, x.Budget, y.Budget = 0, 0, "", "", 0, 0
	j, err := json.Marshal(x)
	k, kerr := json.Marshal(y)
	return err == nil && kerr == nil && string(j) == string(k)
}
