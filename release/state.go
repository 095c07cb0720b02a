// Package release holds the rules of a release as pure code: what happened
// (events), what is therefore true (the state folded from them), and what may
// happen next.
//
// All state is a fold over one stream of events. [State.Apply] is the only thing
// that changes it, and it refuses every event that a rule forbids: a second
// gold, a result of a lease that is over, a signature for bytes that are no
// longer there, a step before what it needs. A writer folds to the head of the
// stream, asks for an event ([State.Finish], [State.Sign] and the like say which
// one a request amounts to), and appends it on condition that the head is still
// the one it saw. So concurrency cannot break a rule, and neither can a writer
// that is wrong: what it appends does not fold, for anybody.
//
// The rules:
//
//   - A step begins when all it needs is done, and never while it has a lease.
//   - The epoch of a lease is the number of the event that granted it. A result
//     counts only with the epoch of the lease in force; a late one is recorded
//     as refused and changes nothing.
//   - A step that is done never runs again, except after an approved amendment.
//   - Gold is committed once. Another machine then builds it again; what needs
//     gold waits for the comparison. Different bytes stop the release.
//   - A signature counts for the bytes that it was given for, and for no others; once;
//     and whoever wrote what is released does not sign for it.
//   - A failed test stops what needs its step, until a person waives it by name.
//   - From the phases that the endgame names on, a change of what is frozen
//     needs as many approvals as it says; the one who proposes is not counted.
//     After gold nothing changes any more.
//   - Publish steps begin after every sign-off and see only gold.
//
// Nothing here reads a clock: times come in as arguments.
package release

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// Phase of a release's life.
type Phase string

// The phases.
const (
	Running Phase = "running"
	Holding Phase = "held"
	Done    Phase = "shipped"
	Ended   Phase = "aborted"
)

// Status of an item.
type Status string

// The statuses. A sign-off or wait is never running or failed; a step is never
// rejected.
const (
	Pending    Status = "pending"    // something it needs is not done
	Ready      Status = "ready"      // may begin: a step wants a machine, a sign-off people
	InProgress Status = "running"    // has a lease
	Confirming Status = "confirming" // gold is committed, the second build is to come or runs
	Stopped    Status = "stopped"    // failed, rejected, or gold that differs: a person must act
	Complete   Status = "done"
)

// Lease is permission to run a step.
type Lease struct {
	Epoch   int64
	Machine string
	Since   time.Time
	Confirm bool
	// Blueprint is the role's when it was granted; an amendment may bring another.
	Blueprint string
}

// Signature is one person's word in force.
type Signature struct {
	Signed
	Seq    int64
	At     time.Time
	Groups []string `json:",omitempty"` // of the person then
}

// Progress is what is known of one item.
type Progress struct {
	Lease    *Lease
	Stopping *Lease    // the one before, if no result ended it: its machine may still be at it
	Result   *Finished // the last one, good or bad
	Machine  string    // where Result came from
	Failures int       // results that failed since the last retry
	Moves    int       // leases that were lost since the last result or retry
	Moved    string    // why the last of them was lost
	Why      string    // of the last failure, also of a second build of gold
	Ended    int64     // epoch of the last lease that ended with a result
	Passed   bool      // of a wait
	Waived   map[string]Waived
	Server   string      `json:",omitempty"` // blueprint of the build server that Result is from
	Words    []Signature // at most one of a person for a subject
}

// Gold is the build that ships.
type Gold struct {
	Seq     int64
	Machine string
	Outputs []Artifact // where they are few; see [Gold.Made]
	List
	Confirmed *Confirmed
	By        string // machine of the second build
	Exception *Excepted
	Runbook   string   // digest of the document that was in force
	Seconds   []Second `json:",omitempty"` // all second builds that ended
}

// Second is a second build of gold: Why it failed, or what its comparison says.
type Second struct {
	Epoch       int64
	Machine     string
	Why         string
	Verdict     Verdict
	Differences []string
	Log         string
}

func (b Second) String() string {
	if b.Verdict == "" {
		return "the second build on " + b.Machine + " failed: " + b.Why
	}
	return "the second build on " + b.Machine + " is " + string(b.Verdict)
}

// exit says with which exit status the script of a step ended whose tests failed; "" if it
// ended well.
func (s *State) exit(item string) string {
	if r := s.Progress[item].Result; r != nil && r.Status != 0 {
		return fmt.Sprintf(", whose script ended with exit status %d", r.Status)
	}
	return ""
}

// SecondBuilds are all second builds of gold that ended, in the order in which they did.
func (s *State) SecondBuilds() []Second {
	if s.Gold == nil {
		return nil
	}
	return s.Gold.Seconds
}

// Amendment is a change that waits for approvals.
type Amendment struct {
	Amended
	Seq      int64
	Needs    int // approvals, when it was proposed: the endgame may begin while it is open
	Approved []string
}

// MovesBeforeAsking is how many machines a step may lose before a person is
// asked: something about the step may be what kills them.
const MovesBeforeAsking = 8

// mayMove is how many machines an item may lose. One that publishes, and cannot be
// repeated safely, loses one.
func mayMove(x *runbook.Item) int {
	if x.Lost != "" {
		return 1
	}
	return MovesBeforeAsking
}

// State is a release at one moment.
type State struct {
	Head    int64
	Started Started
	Begun   time.Time
	// Gate is the last event by which a person decided, or gold was made: after it the
	// ledger is worth a witness.
	Gate      int64
	Changed   time.Time // of the last event
	Latest    time.Time // of any event: control's clock may have been put back
	Earlier   []Attempt `json:",omitempty"` // of the version, that were aborted
	Phase     Phase
	Runbook   string      // digest of the document in force
	Why       string      // of hold and abort
	HeldBy    string      `json:",omitempty"` // who holds it
	Backs     []ClockBack `json:",omitempty"` // events that are earlier than the one before them
	Items     []runbook.Item
	Endgame   []runbook.Freeze
	Approvers []string
	Team      runbook.Hours
	Ship      time.Time     // in force
	Named     time.Time     // that the document in force names; zero if it names none
	Budget    time.Duration // of people's time
	People    []Person
	Source    Source
	Machines  []Machine
	Signers   string // digest of the allowed_signers file in force; "": a word is enough
	Revoked   string
	Nonces    map[string]bool // of signatures that were given
	Progress  map[string]*Progress
	Gold      *Gold
	Amendment *Amendment
	Candidate int // from 1; each approved change of the source begins the next
	Refusals  []Refused
	Lost      int                      // leases that ended without a result
	Spent     map[string]time.Duration // people's time by person
	Reached   map[string]bool          // phases of which a step has begun, somebody signed, or a wait is over

	// Since rules 3. Began are the items of which that is so; Floor is how many approvals a
	// change of a thing needs at least, by the endgame of any runbook that was in force. Met
	// are people of earlier runbooks, Keys who has signed with a key.
	Began map[string]bool     `json:",omitempty"`
	Floor map[string]int      `json:",omitempty"`
	Met   []Person            `json:",omitempty"`
	Keys  map[string][]string `json:",omitempty"`
}

// RuleError says which rule forbids an event.
type RuleError struct {
	Type string
	What string
}

func (e *RuleError) Error() string { return e.What }

func forbid(b Body, format string, args ...any) error {
	return &RuleError{Type: b.kind(), What: fmt.Sprintf(format, args...)}
}

// Fold replays a stream.
func Fold(events []Event) (*State, error) {
	s := Empty()
	for _, e := range events {
		if err := s.Apply(e); err != nil {
			return nil, fmt.Errorf("event %d (%s): %w", e.Seq, e.Type, err)
		}
	}
	return s, nil
}

// Empty is the state before the first event.
func Empty() *State {
	return &State{
		Progress: map[string]*Progress{}, Nonces: map[string]bool{}, Spent: map[string]time.Duration{}, Reached: map[string]bool{},
		Began: map[string]bool{}, Floor: map[string]int{}, Keys: map[string][]string{},
	}
}

// Item finds an item by name.
func (s *State) Item(name string) *runbook.Item {
	for i := range s.Items {
		if s.Items[i].Name == name {
			return &s.Items[i]
		}
	}
	return nil
}

// Over tells whether the release has ended.
func (s *State) Over() bool { return s.Phase == Done || s.Phase == Ended }

// Unwaived lists the failing tests of a step's result that nobody waived.
func (s *State) Unwaived(x *runbook.Item) []string {
	p := s.Progress[x.Name]
	if p.Result == nil {
		return nil
	}
	var list []string
	for _, t := range p.Result.Failing {
		if _, ok := p.Waived[t]; !ok {
			list = append(list, t)
		}
	}
	return list
}

// Person finds somebody who signs; one who is only named, if the runbook says no more.
func (s *State) Person(name string) Person {
	i := slices.IndexFunc(s.People, func(p Person) bool { return p.Name == name })
	if i < 0 {
		return Person{Name: name}
	}
	return s.People[i]
}

// Made is what an item made; nothing before it is done.
func (s *State) Made(name string) Made {
	x, p := s.Item(name), s.Progress[name]
	switch {
	case x == nil || p == nil:
		return Made{}
	case x.Gold && s.Gold != nil:
		return s.Gold.Made()
	case p.Result == nil || p.Result.Exit != 0:
		return Made{}
	}
	return p.Result.Made()
}

// Take is what a step takes in of what one item made: the files that one of the globs
// matches, or that are in a directory that one names.
type Take struct {
	Item string   `json:"item"`
	Made Made     `json:"made"`
	In   []string `json:"in"`
}

// Picks tells whether a file is among them.
func (t Take) Picks(path string) bool {
	return slices.ContainsFunc(t.In, func(in string) bool {
		return in == path || match(in, path) || len(path) > len(in) && path[len(in)] == '/' && strings.HasPrefix(path, in)
	})
}

// Takes lists what a step takes in: each file from the one item whose out gives it,
// whatever else it needs may have made below the same path. What is published is gold's
// alone.
func (s *State) Takes(x *runbook.Item) []Take {
	var list []Take
	for _, n := range x.Needs {
		y := s.Item(n)
		if x.Kind == runbook.Publish && !y.Gold {
			continue
		}
		t := Take{Item: n, Made: s.Made(n), In: slices.DeleteFunc(slices.Clone(x.In), func(in string) bool { return !y.Makes(in) })}
		if t.Made.Files > 0 && len(t.In) > 0 {
			list = append(list, t)
		}
	}
	return list
}

// Inputs are the artifacts that a step takes in, of those that events name. What it takes
// of a list of files, [State.Takes] says.
func (s *State) Inputs(x *runbook.Item) []Artifact {
	var list []Artifact
	for _, t := range s.Takes(x) {
		for _, a := range t.Made.Outputs {
			if t.Picks(a.Path) {
				list = append(list, a)
			}
		}
	}
	return list
}

// Machine is what a role's steps run in.
func (s *State) Machine(role string) Machine {
	i := slices.IndexFunc(s.Machines, func(m Machine) bool { return m.Role == role })
	if i < 0 {
		return Machine{Role: role}
	}
	return s.Machines[i]
}

// Frozen tells how many approvals a change of such things needs now, one at
// least. After gold it is -1: none is enough, but for who may sign: a key that is lost
// is revoked whatever the hour. Since rules 3 [State.barred] says what of a runbook may
// change after gold.
func (s *State) Frozen(what []string) int {
	n := 1
	if s.Started.Rules >= 3 {
		for _, w := range what {
			if s.Gold != nil && w != "signers" && w != "runbook" {
				return -1
			}
			n = max(n, s.Floor[w])
		}
		return n
	}
	if s.Gold != nil && !slices.Equal(what, []string{"signers"}) {
		return -1
	}
	for _, f := range s.Endgame {
		if s.Reached[f.Phase] && slices.ContainsFunc(what, func(w string) bool { return slices.Contains(f.Freezes, w) }) {
			n = max(n, f.Approvals)
		}
	}
	return n
}

// approvals tells how many the open amendment needs now.
func (s *State) approvals() int {
	if s.Started.Rules < 2 {
		return s.Amendment.Needs
	}
	return max(s.Amendment.Needs, s.Frozen(s.Amendment.What))
}

// Clone copies what Apply changes, so that a caller may try an event.
func (s *State) Clone() *State {
	c := *s
	c.Progress = make(map[string]*Progress, len(s.Progress))
	for k, p := range s.Progress {
		q := *p
		q.Waived, q.Words = maps.Clone(p.Waived), slices.Clone(p.Words)
		c.Progress[k] = &q
	}
	c.Spent, c.Reached, c.Refusals, c.Nonces = maps.Clone(s.Spent), maps.Clone(s.Reached), slices.Clone(s.Refusals), maps.Clone(s.Nonces)
	c.Backs = slices.Clone(s.Backs)
	c.Began, c.Floor, c.Keys, c.Met = maps.Clone(s.Began), maps.Clone(s.Floor), maps.Clone(s.Keys), slices.Clone(s.Met)
	if s.Gold != nil {
		g := *s.Gold
		g.Seconds = slices.Clone(g.Seconds)
		c.Gold = &g
	}
	if s.Amendment != nil {
		a := *s.Amendment
		a.Approved = slices.Clone(a.Approved)
		c.Amendment = &a
	}
	return &c
}
