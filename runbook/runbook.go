// Package runbook reads a team's release process: a Markdown document that
// people can follow with every tool gone, and that Trysail runs.
//
// # The dialect
//
// The document is GitHub-flavoured Markdown with YAML front matter. A heading of
// the second level begins a phase. A fenced block with a name is a step: after
// the language stands one line of flat JSON whose values are all strings, which
// is what Runme reads too. A task-list item with a bold name is a sign-off:
//
//   - [ ] **licences** (@legal, budget 2h): licence scan reviewed
//
// Everything else is prose. docs/runbook.md has every key.
//
// # Order
//
// Nothing is in order because it stands in order. A step, a wait or a sign-off
// begins when what it needs is done; `needs` names items or whole phases, `in`
// names what other steps make. What needs nothing begins at once. [Runbook.Plan]
// gives the order, what runs beside what, and the critical path.
//
// # Strictness
//
// A document that a Markdown reader, Runme and Trysail would read in three ways
// is worse than one that does not parse. [Parse] refuses what any of them would
// pass over in silence: text that Runme drops after a closing brace, a second
// step of one name, an unknown key, a checklist item nobody would ask for, a
// tick (a tick signs nothing: the ledger does), a fence that is never closed, a
// heading made by a line of dashes, letters that change the direction of text.
// All errors of a document are given at once, each with its line and remedy.
//
// The package is pure. Time zones come in through a function, since finding one
// reads files.
package runbook

import (
	"slices"
	"time"
)

// Kind tells what an item of a runbook is.
type Kind string

// The kinds.
const (
	Step    Kind = "step"     // runs on a machine
	Publish Kind = "publish"  // runs once everything is signed, and sees only gold
	Wait    Kind = "wait"     // until a date
	SignOff Kind = "sign-off" // until people have said yes
)

// Runbook is one document.
type Runbook struct {
	File    string
	Digest  string // sha256:… of its bytes
	Title   string
	Release string        // the version it is for; "" when start gives it
	Ship    time.Time     // zero when start gives it
	Budget  time.Duration // of people's time; 0: none set
	Team    Calendar      // working hours where a person has none of their own
	Roles   []Role
	People  []Person
	Groups  []Group
	// Approvers are people, groups expanded, who may waive a failed test, approve
	// a change of the running release and sign for a difference of gold.
	Approvers []string
	Endgame   []Freeze
	// Signers is the allowed_signers file, beside the document, with whose keys people
	// sign; Revoked lists keys that are not good any more. Without them a word is enough.
	Signers, Revoked string
	Phases           []Phase
	Items            []Item // as they stand
}

// Role is a kind of machine that steps ask for.
type Role struct {
	Name string
	// Blueprint is its directory in the repository; "" when steps run plainly
	// on the host, which no rebuild can prove.
	Blueprint string
}

// Person is somebody who signs.
type Person struct {
	Name  string // @name
	Full  string
	Email string
	Hours Calendar
}

// Group is people any of whom may sign.
type Group struct {
	Name    string
	Members []string
}

// Freeze is one rule of the endgame: from the beginning of a phase on, a change
// of what is frozen needs approvals.
type Freeze struct {
	Phase     string   `json:"phase"` // slug
	Freezes   []string `json:"freezes"`
	Approvals int      `json:"approvals"`
}

// Phase is a heading of the second level.
type Phase struct {
	Slug  string `json:"slug"`
	Title string `json:"title"`
	Line  int    `json:"line"`
}

// Item is one thing that must be done.
type Item struct {
	Name  string   `json:"name"`
	Kind  Kind     `json:"kind"`
	Phase string   `json:"phase"` // slug
	Line  int      `json:"line"`
	Needs []string `json:"needs,omitempty"` // names of items, sorted; phases are expanded
	// Budget is machine time of a step, people's time of a sign-off.
	Budget time.Duration `json:"budget,omitempty"`

	Language string        `json:"language,omitempty"` // of a step: sh, bash, python
	Script   string        `json:"script,omitempty"`
	Role     string        `json:"role,omitempty"`
	In       []string      `json:"in,omitempty"`  // paths relative to the workspace
	Out      []string      `json:"out,omitempty"` // globs relative to the workspace
	Timeout  time.Duration `json:"timeout,omitempty"`
	Retry    int           `json:"retry,omitempty"`
	Gold     bool          `json:"gold,omitempty"`
	// Network: it reaches others, but neither its machine nor control; HostNetwork: it has
	// its machine's own network.
	Network     bool `json:"network,omitempty"`
	HostNetwork bool `json:"host_network,omitempty"`
	// Secrets are names of environment variables whose values machines keep.
	Secrets []string `json:"secrets,omitempty"`
	// Results are globs of JUnit files: a failed test stops what needs the step
	// until a person waives it.
	Results []string `json:"results,omitempty"`
	// Again: "machine" when the step must run again after the machine it ran on
	// was made anew from another blueprint.
	Again string `json:"again,omitempty"`
	// Lost: "ask" when a person decides whether it runs again after its machine was lost.
	Lost string `json:"lost,omitempty"`

	Until Moment `json:"until,omitzero"` // of a wait
	Text  string `json:"text,omitempty"` // of a wait: why; of a sign-off: what is signed

	Approvals int      `json:"approvals,omitempty"` // of a sign-off: how many must say yes
	Signers   []string `json:"signers,omitempty"`   // people, groups expanded, who may
	Asked     []string `json:"asked,omitempty"`     // as written: people and groups
	// Quotas are what is asked of each group, where more than one is asked for a number
	// of approvals; Approvals is their sum.
	Quotas []Quota `json:"quotas,omitempty"`
}

// Moment is a date, fixed or relative to the ship date.
type Moment struct {
	At     time.Time     `json:"at,omitzero"`      // zero when relative
	Before time.Duration `json:"before,omitempty"` // before the ship date
}

// Time gives the moment for a ship date.
func (m Moment) Time(ship time.Time) time.Time {
	if !m.At.IsZero() {
		return m.At
	}
	return ship.Add(-m.Before)
}

// Item finds an item by name.
func (r *Runbook) Item(name string) *Item {
	i := slices.IndexFunc(r.Items, func(x Item) bool { return x.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Items[i]
}

// places maps each name to its place in Items, for who looks up many: with Item, a
// look for each need of each item takes as long as their number cubed.
func (r *Runbook) places() map[string]int {
	at := make(map[string]int, len(r.Items))
	for i, x := range r.Items {
		at[x.Name] = i
	}
	return at
}

// Gold is the step whose outputs ship; nil when there is none.
func (r *Runbook) Gold() *Item {
	i := slices.IndexFunc(r.Items, func(x Item) bool { return x.Gold })
	if i < 0 {
		return nil
	}
	return &r.Items[i]
}

// Role finds a role by name.
func (r *Runbook) Role(name string) *Role {
	i := slices.IndexFunc(r.Roles, func(x Role) bool { return x.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Roles[i]
}

// Person finds a person by name.
func (r *Runbook) Person(name string) *Person {
	i := slices.IndexFunc(r.People, func(x Person) bool { return x.Name == name })
	if i < 0 {
		return nil
	}
	return &r.People[i]
}
