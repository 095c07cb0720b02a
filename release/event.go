package release

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"trysail/internal/strict"
	"trysail/runbook"
)

// Event is one fact. Its number is its place in the release's stream, from 1;
// the number of a [Granted] is the epoch of the lease that it grants.
type Event struct {
	Seq   int64     `json:"seq"`
	Time  time.Time `json:"time"` // by the clock of who appended it; rules never ask for it
	Actor string    `json:"actor"`
	Type  string    `json:"type"`
	Body  Body      `json:"body"`
}

// Body is what an event says: one of the structs of this file.
type Body interface{ kind() string }

// Artifact is one file that a step made, a link, or a directory that its files do not show: one
// with nothing in it, or with a mode of its own.
type Artifact struct {
	Path   string `json:"path"`
	Digest string `json:"digest"` // sha256:…; "" of a link and of a directory
	Size   int64  `json:"size"`
	Mode   string `json:"mode,omitempty"` // four octal digits, the setuid bits among them
	Link   string `json:"link,omitempty"`
	Dir    bool   `json:"dir,omitempty"`
	// Owner is "UID:GID" of what does not belong to the user whom the step ran as.
	Owner string `json:"owner,omitempty"`
	// HardLink is the path of an artifact before it that is the same file under another name.
	HardLink string `json:"hard_link,omitempty"`
	// Attributes are the extended attributes: access lists, capabilities, those of users.
	Attributes map[string][]byte `json:"attributes,omitempty"`
	// Modified is when the content last changed. It is no part of what people sign: a step
	// that runs again makes the same files at another time.
	Modified time.Time `json:"modified,omitzero"`
}

// Source is what is released, fixed at the start and kept in the depot.
type Source struct {
	VCS      string `json:"vcs"` // git, svn
	URL      string `json:"url,omitempty"`
	Revision string `json:"revision"`
	Original string `json:"original"`         // digest of the source's archive in the depot
	Author   string `json:"author,omitempty"` // who wrote the revision: e-mail, or the name that Subversion knows
}

// Origin says of which committed revision files are, by their paths below the root of the
// working copy.
type Origin struct {
	Revision string `json:"revision,omitempty"`
	Files    []File `json:"files,omitempty"`
	// Uncommitted are the files of the working copy that differed from the revision; what
	// they held is not part of the release.
	Uncommitted []string `json:"uncommitted,omitempty"`
}

// Differs says what of an origin cannot be, for a runbook of a revision; "" if all can. A ledger
// of before has none.
func (o Origin) Differs(revision, runbook string) string {
	switch {
	case o.Revision == "" && len(o.Files) == 0:
		return ""
	case revision != "" && o.Revision != revision:
		return "the runbook is of revision " + o.Revision + ", and the source of " + revision
	case runbook != "" && !slices.ContainsFunc(o.Files, func(f File) bool { return f.Digest == runbook }):
		return "the origin does not name the runbook"
	}
	return ""
}

// File is a file of a revision.
type File struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
}

// Machine is what a role's steps run in.
type Machine struct {
	Role string `json:"role"`
	// Blueprint is the digest of blueprint.yaml in the depot; "" for a role that
	// runs plainly on its host.
	Blueprint string `json:"blueprint,omitempty"`
	Sum       string `json:"sum,omitempty"` // digest of blueprint.sum in the depot
	Name      string `json:"name,omitempty"`
}

// Person is somebody who signs, and when they work.
type Person struct {
	Name   string        `json:"name"`
	Full   string        `json:"full,omitempty"`
	Email  string        `json:"email,omitempty"`
	Groups []string      `json:"groups,omitempty"`
	Hours  runbook.Hours `json:"hours"`
}

// People are those of a runbook.
func People(r *runbook.Runbook) []Person {
	var list []Person
	for _, p := range r.People {
		q := Person{Name: p.Name, Full: p.Full, Email: p.Email, Hours: p.Hours.Hours()}
		for _, g := range r.Groups {
			if slices.Contains(g.Members, p.Name) {
				q.Groups = append(q.Groups, g.Name)
			}
		}
		list = append(list, q)
	}
	return list
}

// Started begins a stream. It holds the runbook as it was read, so that a later
// parser cannot read a running release in another way.
type Started struct {
	Version  string           `json:"version"`
	Runbook  string           `json:"runbook"` // digest of the document in the depot
	Items    []runbook.Item   `json:"items"`
	Endgame  []runbook.Freeze `json:"endgame,omitempty"`
	Approver []string         `json:"approvers,omitempty"` // people who may approve late changes
	Team     runbook.Hours    `json:"team,omitzero"`       // for who is not among People
	People   []Person         `json:"people,omitempty"`
	Ship     time.Time        `json:"ship"`
	Budget   time.Duration    `json:"budget,omitempty"` // of people's time, nanoseconds
	Source   Source           `json:"source"`
	Machines []Machine        `json:"machines"`
	// Signers is the digest of the allowed_signers file in the depot: then a sign-off
	// is signed with one of its keys. Revoked is that of the keys that were theirs.
	Signers string `json:"signers,omitempty"`
	Revoked string `json:"revoked,omitempty"`
	// Named is the ship date that the runbook itself names; whoever starts may say another.
	// Control sets it.
	Named time.Time `json:"named,omitzero"`
	// Origin says from where in the source the runbook, the signers and the blueprints are.
	Origin Origin `json:"origin,omitzero"`
	// Forced is why the release starts with a ship date that is over, or with another than
	// its runbook names, or although something was found missing.
	Forced string `json:"forced,omitempty"`
	// Rules is by which of them the stream is folded: 0 are those of before
	// [RulesNow]. Control sets it.
	Rules int `json:"rules,omitempty"`
}

// RulesNow are the rules of a release that begins now. Since 1 a signature for what steps
// have made is for the source that they made it of too, and ends when another is
// released; and nobody's counts who wrote that. Since 2 a change needs the approvals that
// are wanted when it is approved, a wait that passes begins its phase, and a runbook that
// is amended brings its ship date and budget. Since 3 the rules of docs/runbook.md, "What
// a sign-off means here", hold. Since 4 decisions are signed as sign-offs are, an abort says
// why, and a version that was aborted before gold may start once more.
const RulesNow = 4

// Granted gives a machine the lease of a step. Confirm says that the step is the
// gold one and its outputs are to be compared with the gold that is committed.
type Granted struct {
	Item    string `json:"item"`
	Machine string `json:"machine"`
	Confirm bool   `json:"confirm,omitempty"`
}

// Finished is the result of a lease, of a step that is not gold or failed.
type Finished struct {
	Item  string `json:"item"`
	Epoch int64  `json:"epoch"`
	Exit  int    `json:"exit"`
	Why   string `json:"why,omitempty"` // of a failure
	// Status is how the script itself ended: its exit status, or 128 and the number of the
	// signal that ended it. Exit is 0 where it failed for its tests alone.
	Status  int        `json:"status,omitempty"`
	Signal  string     `json:"signal,omitempty"`
	Outputs []Artifact `json:"outputs,omitempty"` // where they are few; see [Finished.Made]
	List
	Failing []string      `json:"failing,omitempty"` // names of tests that failed
	Tests   int           `json:"tests,omitempty"`
	Log     string        `json:"log,omitempty"` // digest in the depot
	Took    time.Duration `json:"took"`
	Root    string        `json:"root,omitempty"` // digest of the rebuilt server it ran in
}

// Committed is gold: the outputs of the one build that ships. A stream holds at
// most one.
type Committed struct {
	Finished
}

// Confirmed is the second build of gold, on another machine.
type Confirmed struct {
	Epoch       int64         `json:"epoch"`
	Verdict     Verdict       `json:"verdict"`
	Differences []string      `json:"differences,omitempty"`
	Log         string        `json:"log,omitempty"`
	Took        time.Duration `json:"took"`
}

// Verdict compares two builds of gold.
type Verdict string

// The verdicts.
const (
	Identical  Verdict = "identical"
	Equivalent Verdict = "equivalent"
	Different  Verdict = "different"
)

// Excepted is a person's signature under the differences of an equivalent second build.
type Excepted struct {
	Person      string   `json:"person"`
	Differences []string `json:"differences"`
	Reason      string   `json:"reason"`
	Proof       *Proof   `json:"proof,omitempty"`
}

// Lost ends a lease without a result.
type Lost struct {
	Item    string `json:"item"`
	Epoch   int64  `json:"epoch"`
	Machine string `json:"machine"`
	Why     string `json:"why"`
}

// Refused records a result that came too late.
type Refused struct {
	Item    string `json:"item"`
	Epoch   int64  `json:"epoch"`
	Machine string `json:"machine"`
	Why     string `json:"why"`
}

// Same tells whether two refusals are of one lease.
func (r Refused) Same(o Refused) bool {
	return r.Item == o.Item && r.Epoch == o.Epoch && r.Machine == o.Machine
}

// Retried lets a failed step run again.
type Retried struct {
	Item   string `json:"item"`
	Reason string `json:"reason,omitempty"`
}

// Waived says that a failed test does not stop the release.
type Waived struct {
	Item   string `json:"item"`
	Test   string `json:"test"`
	Person string `json:"person"`
	Reason string `json:"reason"`
	Proof  *Proof `json:"proof,omitempty"`
}

// Passed ends a wait.
type Passed struct {
	Item string `json:"item"`
}

// Decision is what a person says of a sign-off.
type Decision string

// The decisions.
const (
	Approve       Decision = "approve"
	ApproveExcept Decision = "approve-with-exception" // whose reason says what is excepted
	Reject        Decision = "reject"
)

// Signed is one person's word on a sign-off, for exact bytes.
type Signed struct {
	Item     string        `json:"item"`
	Person   string        `json:"person"`
	Decision Decision      `json:"decision"`
	Subject  string        `json:"subject"` // digest of what was to be signed: see State.Subject
	Reason   string        `json:"reason,omitempty"`
	Spent    time.Duration `json:"spent,omitempty"`
	// What the person signed, byte for byte, and the SSH signature; a nonce that makes
	// it good once. They are there where the release has allowed signers.
	Statement string `json:"statement,omitempty"`
	Signature string `json:"signature,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
	// Key is the fingerprint of the key that signed, SHA256:…. Control sets it.
	Key string `json:"key,omitempty"`
}

// Withdrawn takes a person's word back.
type Withdrawn struct {
	Item   string `json:"item"`
	Person string `json:"person"`
	Reason string `json:"reason"`
	Proof  *Proof `json:"proof,omitempty"`
}

// Amended proposes another runbook, source or machine for the running release.
// It takes effect once enough people approved.
type Amended struct {
	What    []string       `json:"what"` // source, runbook, machines, signers
	Runbook string         `json:"runbook,omitempty"`
	Items   []runbook.Item `json:"items,omitempty"`
	// The rest of the runbook, in force together with its items.
	Endgame  []runbook.Freeze `json:"endgame,omitempty"`
	Approver []string         `json:"approvers,omitempty"`
	Team     runbook.Hours    `json:"team,omitzero"`
	People   []Person         `json:"people,omitempty"`
	Ship     time.Time        `json:"ship,omitzero"` // that the runbook names: see State.postpones
	Budget   time.Duration    `json:"budget,omitempty"`
	Source   *Source          `json:"source,omitempty"`
	Machines []Machine        `json:"machines,omitempty"`
	Signers  string           `json:"signers,omitempty"`
	Revoked  string           `json:"revoked,omitempty"`
	Origin   Origin           `json:"origin,omitzero"`
	Reason   string           `json:"reason"`
	By       string           `json:"by"`
	Proof    *Proof           `json:"proof,omitempty"`
}

// Agreed approves the open amendment, or not.
type Agreed struct {
	Amendment int64    `json:"amendment"` // number of the event that proposed it
	Person    string   `json:"person"`
	Decision  Decision `json:"decision"`
	Reason    string   `json:"reason,omitempty"`
	Proof     *Proof   `json:"proof,omitempty"`
}

// Held stops new work; Resumed goes on; Aborted and Shipped end the release.
type (
	Held struct {
		Reason string `json:"reason"`
	}
	Resumed struct{}
	Aborted struct {
		Reason string `json:"reason"`
		// Person is who aborts it. Releases of rules before 4 do not say.
		Person string `json:"person,omitempty"`
		Proof  *Proof `json:"proof,omitempty"`
	}
	Shipped struct{}
)

func (Started) kind() string   { return "started" }
func (Granted) kind() string   { return "granted" }
func (Finished) kind() string  { return "finished" }
func (Committed) kind() string { return "gold" }
func (Confirmed) kind() string { return "confirmed" }
func (Excepted) kind() string  { return "excepted" }
func (Lost) kind() string      { return "lost" }
func (Refused) kind() string   { return "refused" }
func (Retried) kind() string   { return "retried" }
func (Waived) kind() string    { return "waived" }
func (Passed) kind() string    { return "passed" }
func (Signed) kind() string    { return "signed" }
func (Withdrawn) kind() string { return "withdrawn" }
func (Amended) kind() string   { return "amended" }
func (Agreed) kind() string    { return "agreed" }
func (Held) kind() string      { return "held" }
func (Resumed) kind() string   { return "resumed" }
func (Aborted) kind() string   { return "aborted" }
func (Shipped) kind() string   { return "shipped" }

// New makes an event that has no number yet.
func New(at time.Time, actor string, b Body) Event {
	return Event{Time: at.UTC().Truncate(time.Millisecond), Actor: actor, Type: b.kind(), Body: b}
}

// maxEvent is the most that one event may have, in bytes: twice what the ledger takes. A plan
// in it is then one that people can wait for, and that fits into memory when it is folded.
const maxEvent = 2 << 20

func read[T Body](data []byte) (Body, error) {
	var v T
	err := strict.JSON(data, maxEvent, &v)
	return v, err
}

func readers() map[string]func([]byte) (Body, error) {
	return map[string]func([]byte) (Body, error){
		"started": read[Started], "granted": read[Granted], "finished": read[Finished], "gold": read[Committed],
		"confirmed": read[Confirmed], "excepted": read[Excepted], "lost": read[Lost], "refused": read[Refused],
		"retried": read[Retried], "waived": read[Waived], "passed": read[Passed], "signed": read[Signed],
		"withdrawn": read[Withdrawn], "amended": read[Amended], "agreed": read[Agreed], "held": read[Held],
		"resumed": read[Resumed], "aborted": read[Aborted], "shipped": read[Shipped],
	}
}

// UnmarshalJSON reads an event strictly: one that this program does not know
// must not be folded as if it had not happened, and one that another program may read in
// another way must not be folded at all.
func (e *Event) UnmarshalJSON(data []byte) error {
	var raw struct {
		Seq   int64           `json:"seq"`
		Time  time.Time       `json:"time"`
		Actor string          `json:"actor"`
		Type  string          `json:"type"`
		Body  json.RawMessage `json:"body"`
	}
	if err := strict.JSON(data, maxEvent, &raw); err != nil {
		return fmt.Errorf("event: %w", err)
	}
	parse, ok := readers()[raw.Type]
	if !ok {
		return fmt.Errorf("event %d: type %q is not known to this version of Trysail", raw.Seq, raw.Type)
	}
	body, err := parse(raw.Body)
	if err != nil {
		return fmt.Errorf("event %d (%s): %w", raw.Seq, raw.Type, err)
	}
	*e = Event{Seq: raw.Seq, Time: raw.Time, Actor: raw.Actor, Type: raw.Type, Body: body}
	return nil
}
