// Package drill holds the rules of rehearsals with faults: what a scenario may
// say ([Parse]), what was seen while it ran ([Record]), and what follows from that
// ([Judge]).
//
// A drill is a release with faults, not a second engine: the release's own rules
// and checks judge its ledger (package release). Here is what a drill adds. The
// verdict has three axes that are never mixed: did the system do what the scenario
// expects of it, did the drill itself work (every fault must have been seen to take effect
// by a probe that is not its injector), and was everything undone. Each axis is
// pass, fail or unknown; unknown beats pass, and fail beats both. There is no
// score: an average lets nineteen good probes hide two gold masters.
//
// Idle time is skipped (a jump of the drill's clock), work is not: whatever takes
// machines' time is measured, and whatever people take is modelled and says so.
//
// The package is pure: a verdict follows from the recorded history alone, so
// anybody can judge a drill again.
package drill

import (
	"slices"
	"strings"
	"time"
)

// Scenario is one drill, as written.
type Scenario struct {
	Format     int         `yaml:"drill"`
	Name       string      `yaml:"name"`
	Hypothesis string      `yaml:"hypothesis"`
	Why        string      `yaml:"why"`        // this scenario was chosen
	Challenges string      `yaml:"challenges"` // the assumption of the plan that it tests
	Owner      string      `yaml:"owner"`      // of what it finds
	Frameworks []Framework `yaml:"frameworks"`
	Clock      Clock       `yaml:"clock"`
	Release    Release     `yaml:"release"`
	World      World       `yaml:"world"`
	People     []Person    `yaml:"people"`
	Guards     Guards      `yaml:"guards"`
	Steady     []Steady    `yaml:"steady"`
	Method     []Action    `yaml:"method"`
	Expect     Expect      `yaml:"expect"`
	Invariants Invariants  `yaml:"invariants"`
	Modelled   []Model     `yaml:"modelled"`
	Report     []string    `yaml:"report"`
	// IssuesDue is how long after the drill what it found is to be mended: 14d.
	IssuesDue string `yaml:"issues_due"`
}

// Framework names a control that the drill is evidence for.
type Framework struct {
	Control string `yaml:"control" json:"control"`
	How     string `yaml:"how" json:"how"`
}

// Clock is the drill's own.
type Clock struct {
	Ship   string `yaml:"ship"`   // RFC 3339: the ship date of the release
	Begins string `yaml:"begins"` // T-10d: where the drill begins
	Mode   string `yaml:"mode"`   // jump
}

// Release is what is released.
type Release struct {
	Version string `yaml:"version"`
	Runbook string `yaml:"runbook"` // in the working copy
}

// World is the machines.
type World struct {
	Controls int       `yaml:"controls"` // 1 or 3
	Hosts    []Host    `yaml:"hosts"`
	Services []Service `yaml:"services"`
}

// Host is one build machine.
type Host struct {
	Name string `yaml:"name" json:"name"`
	Rank string `yaml:"rank" json:"rank"` // primary, backup, spare
	Disk string `yaml:"disk" json:"disk"` // 4GB
	// Plain machines run steps of roles without a blueprint, with this host's programs.
	Plain bool `yaml:"plain" json:"plain,omitempty"`
	// Without names what the machine lacks: runc, without which it can make no build
	// server of itself.
	Without string `yaml:"without" json:"without,omitempty"`
}

// Service is what a release needs besides its machines, on a host of its own. The
// machines find it by its name.
type Service struct {
	Name string  `yaml:"name" json:"name"`
	Kind OfHosts `yaml:"kind" json:"kind"` // mirror, registry, git
	// From is a directory of the working copy: of a mirror its files, of a registry
	// REPOSITORY/TAG/FILE, each file a blob. A git host holds the working copy's own
	// repository, and the release is started from a clone of that.
	From string `yaml:"from" json:"from,omitempty"`
}

// Person is somebody of the runbook, as they are modelled.
type Person struct {
	Name     string   `yaml:"name"`
	Responds string   `yaml:"responds"` // 1h..3h: from being asked to deciding, evenly distributed
	Spends   string   `yaml:"spends"`   // 30m: of their own time, on each decision
	Away     []string `yaml:"away"`     // T-5d..T-2d: does not answer
	Live     bool     `yaml:"live"`     // is asked at the terminal
}

// Guards keep a drill from doing harm.
type Guards struct {
	DownAtOnce int    `yaml:"down_at_once"` // hosts that may be down together
	Within     string `yaml:"within"`       // 20m: of real time; then everything is undone
}

// Steady is a question with the answer yes, before and after.
type Steady string

// The questions.
const (
	ControlAnswers  Steady = "control-answers"
	HostsUp         Steady = "hosts-up"         // every host that no fault took away
	ReleaseMoves    Steady = "release-moves"    // it is not held, failed or stuck
	DepotWhole      Steady = "depot-whole"      // every blob in control's depot is what its name says
	LedgerCopied    Steady = "ledger-copied"    // every machine that is up has the whole ledger
	NothingLeft     Steady = "nothing-left"     // after: the host is as before
	LedgerUndoubted Steady = "ledger-undoubted" // no machine's copy says otherwise
	ServicesAnswer  Steady = "services-answer"  // every service that no fault took away
)

// Action is a fault, or something that a person or the drill does, at a time.
type Action struct {
	Name  string `yaml:"name"`
	When  string `yaml:"when"` // T-7d · gold running · gold running on backup · gold done · blank rebuilding · after NAME
	Fault Fault  `yaml:"fault"`
	Do    string `yaml:"do"`   // instead of a fault: a command of trysail, such as "fleet readmit primary"
	Host  string `yaml:"host"` // where
	// For is how long it lasts, in the drill's time; empty: for good.
	For string `yaml:"for"`
	// Of names what some faults are about: an artifact, a person.
	Of string `yaml:"of"`
	// Within is when it happens by the hypothesis: T-7d..T-1d.
	Within string `yaml:"within"`
}

// Expect is what the hypothesis comes down to.
type Expect struct {
	OnTime   bool           `yaml:"on_time"`
	OnBudget bool           `yaml:"on_budget"`
	Gold     string         `yaml:"gold"`  // identical, equivalent: the second build of gold
	Ships    *bool          `yaml:"ships"` // false: it must not
	Faults   []FaultLimit   `yaml:"faults"`
	Rebuilt  []RebuildLimit `yaml:"rebuilt"`
}

// FaultLimit bounds what follows a fault.
type FaultLimit struct {
	Name     string `yaml:"name"`
	Detected string `yaml:"detected"` // 5s
	Moved    string `yaml:"moved"`    // 10s
	// Recovered is until lost work goes on in a build server, which may have to be made.
	Recovered string `yaml:"recovered"` // 10m
}

// RebuildLimit wants a machine to be made a build server.
type RebuildLimit struct {
	Host   string `yaml:"host"`
	Within string `yaml:"within"`
}

// Invariants are what must hold: at all times, in the end, and at some time.
type Invariants struct {
	Always  []string `yaml:"always"`
	Final   []string `yaml:"final"`
	Reached []string `yaml:"reached"`
}

// Model is something that was not measured.
type Model struct {
	What         string `yaml:"what" json:"what"`
	Distribution string `yaml:"distribution" json:"distribution"`
	Source       string `yaml:"source" json:"source"`
}

// Plan is a scenario whose words were understood.
type Plan struct {
	Scenario
	Digest       string // sha256:… of the file
	Ship, Begins time.Time
	Timed        []Timed // of Method, in its order
	People       map[string]Response
	Within       time.Duration

	file string // where it stands, for what is wrong with it once the runbook is known
	data []byte
}

// Timed is when an action is due, and for how long it lasts.
type Timed struct {
	When   When
	For    time.Duration // 0: for good
	Within *Span         // nil: it is not said
}

// When is one of: a time, a step's status, a host that rebuilds, after another action.
type When struct {
	At     time.Time
	Item   string
	Status string // running, done, stopped, ready, confirming: as release status says
	Host   string // rebuilding; or, with Item, where it runs
	After  string // name of an action
}

// Response is a person as modelled.
type Response struct {
	Least, Most, Spends time.Duration
	Away                []Span
	Live                bool
}

// Span is a time from, to.
type Span struct{ From, To time.Time }

// Fault is a kind of fault.
type Fault string

// OnDisk tells faults that are made on a machine's disk, which has to be there for that.
func (f Fault) OnDisk() bool {
	switch f {
	case "disk-dead", "disk-full", "inodes-gone", "read-only", "artifact-corrupted", "original-corrupted", "ledger-rolled-back":
		return true
	}
	return false
}

// OfHosts is a kind of hosts: build machines with controls, or a kind of service.
type OfHosts string

// The kinds.
const (
	Machine  OfHosts = "machine"  // builds, or is control
	Mirror   OfHosts = "mirror"   // gives files away over HTTP
	Registry OfHosts = "registry" // a registry of OCI images
	Git      OfHosts = "git"      // the team's version control
)

// FaultKind says what a kind of fault needs.
type FaultKind struct {
	Fault  Fault     `json:"fault"`
	What   string    `json:"what"`
	On     []OfHosts `json:"on,omitempty"`   // what it happens to; nil: to no host
	Of     bool      `json:"of,omitempty"`   // names what it is about
	Undone bool      `json:"for,omitempty"`  // may be limited with for
	Down   bool      `json:"down,omitempty"` // takes the host away while it lasts
}

// Where names what it happens to.
func (k FaultKind) Where() string {
	if len(k.On) == 4 {
		return "any"
	}
	var s []string
	for _, on := range k.On {
		s = append(s, string(on))
	}
	return strings.Join(s, ", ")
}

// Faults lists the kinds.
func Faults() []FaultKind {
	machine, service := []OfHosts{Machine}, []OfHosts{Mirror, Registry, Git}
	all := slices.Concat(machine, service)
	return []FaultKind{
		{"machine-lost", "the machine is off, at once", all, false, true, true},
		{"machine-hung", "the machine stops, and may come back as if nothing had been", all, false, true, true},
		{"disk-destroyed", "the machine is off, and its disk is overwritten", all, false, false, true},
		{"disk-dead", "every access to the machine's disk is an I/O error", machine, false, false, true},
		{"disk-full", "the machine's disk has no room", machine, false, true, false},
		{"inodes-gone", "the machine's disk takes no further file", machine, false, true, false},
		{"read-only", "the machine's disk cannot be written to", machine, false, true, false},
		{"artifact-corrupted", "a byte of an artifact on the machine's disk is changed in silence", machine, true, false, false},
		{"original-corrupted", "a byte of an original in the machine's depot is changed in silence", machine, true, false, false},
		{"partition", "the machine is cut off, both ways", all, false, true, true},
		{"partition-out", "what the machine sends is lost", all, false, true, true},
		{"partition-in", "what is sent to the machine is lost", all, false, true, true},
		{"ledger-rolled-back", "control's ledger is put back to an earlier time", machine, false, false, false},
		{"person-away", "a person does not answer", nil, true, true, false},
		{"key-revoked", "a person's right to sign is taken away", nil, true, true, false},
		{"out-of-memory", "the machine has too little memory for its build", machine, false, true, false},
		{"clock-skew", "the machine's wall clock is wrong", machine, true, true, false},
		{"service-gone", "the service refuses every connection", service, false, true, false},
		{"mirror-short", "the mirror ends each download half-way", []OfHosts{Mirror}, false, true, false},
		{"mirror-slow", "the mirror sends a kilobyte a second", []OfHosts{Mirror}, false, true, false},
		{"mirror-wrong", "the mirror gives other bytes for a file", []OfHosts{Mirror}, true, true, false},
		{"tag-moved", "the registry's tag names something else", []OfHosts{Registry}, true, true, false},
		{"history-rewritten", "the branches have another history, and the old one is gone", []OfHosts{Git}, false, false, false},
	}
}

// Questions lists what steady may ask.
func Questions() []Steady {
	return []Steady{ControlAnswers, HostsUp, ReleaseMoves, DepotWhole, LedgerCopied, LedgerUndoubted, ServicesAnswer, NothingLeft}
}
