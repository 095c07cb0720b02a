// Package api is the messages between control, agents, the command line and
// scripts, and the paths that they are sent to: JSON over HTTPS, all in one
// place, so that no two sides can differ about them.
//
// Agents speak with a certificate that control gave them when they joined;
// people and scripts with a token. Agents ask and control answers: nothing
// listens on an agent. Work is fetched by a poll that control holds open until
// there is some. Blobs are named by their digest and checked by whoever reads
// them. An error is a [Problem], with what to do next.
//
// openapi.yaml describes the same paths, and control serves it; tests hold the
// three together.
package api

import (
	"fmt"
	"math"
	"strings"
	"time"

	"trysail/fleet"
	"trysail/release"
	"trysail/runbook"
)

// Version is in every path.
const Version = "/v1"

// Damaged is the code of a problem with a blob whose bytes are not those of its
// digest: it may be had again once somebody has sent it anew.
const Damaged = "damaged"

// Full is the code of a problem with control's disk: it takes nothing large until
// there is room.
const Full = "full"

// Doubted is the code of a problem with the ledger: a machine's copy says
// otherwise, so nothing is appended until a person has looked.
const Doubted = "doubted"

// Unfit is the code of a problem with what was sent: no ledger can hold it, however often it
// is sent.
const Unfit = "unfit"

// Standby is the code of a problem with whom was asked: another control decides.
const Standby = "standby"

// Slow is the code of a problem with a request that did not come to its end in time:
// nothing was done.
const Slow = "slow"

// Busy is the code for a caller that has too many requests open.
// Nothing was done.
const Busy = "busy"

// Moved is the code of a problem with a release that went on since the caller looked at
// it: nothing was done.
const Moved = "moved"

// Problem is any error's body.
type Problem struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Status  int    `json:"-"`                // of HTTP
	Code    string `json:"code,omitempty"`   // rule, moved, unknown, denied, not-found, usage, unfit, slow, busy, damaged, full, doubted, standby
	Leader  string `json:"leader,omitempty"` // with standby: address of the control that decides
}

func (p *Problem) Error() string { return p.Message }

// Enrol asks for a certificate with a one-time token.
type Enrol struct {
	Token   string     `json:"token"` // also as the request's bearer token, which control looks at first
	Name    string     `json:"name"`
	Rank    fleet.Rank `json:"rank"`
	Serves  []string   `json:"serves,omitempty"`
	Plain   bool       `json:"plain,omitempty"`
	Slots   int        `json:"slots"`
	Request []byte     `json:"request"` // a certificate request, DER
}

// Terms are what a machine of the fleet is for. A machine asks for those that it names, and
// is answered with all of them.
type Terms struct {
	Rank   fleet.Rank `json:"rank,omitempty"`
	Serves *[]string  `json:"serves,omitempty"` // none: every role
	Plain  *bool      `json:"plain,omitempty"`
	Slots  int        `json:"slots,omitempty"`
}

// Enrolled is the answer.
type Enrolled struct {
	Certificate []byte `json:"certificate"` // PEM
	Authority   []byte `json:"authority"`   // PEM
}

// Renew asks for another certificate for the machine that asks, before its own ends.
type Renew struct {
	Request []byte `json:"request"` // a certificate request, DER
}

// JoinControl asks to become one of several controls, with a one-time token.
type JoinControl struct {
	Token string `json:"token"` // also as the request's bearer token, which control looks at first
	Name  string `json:"name"`  // the address (host:port) of its API
	Peer  string `json:"peer"`  // where its etcd listens for the others
}

// ControlJoined is the answer: all that it needs to begin, and to decide one day.
// It is as secret as the authority's key, which it holds.
type ControlJoined struct {
	Cluster      string `json:"cluster"`       // members, as etcd writes them
	Authority    []byte `json:"authority"`     // PEM
	AuthorityKey []byte `json:"authority_key"` // PEM
	Secret       string `json:"secret"`        // token of who is root there
}

// ControlStatus is one control as people see it.
type ControlStatus struct {
	Name    string `json:"name"` // address of its API; "" before it has begun
	Peer    string `json:"peer"`
	Leads   bool   `json:"leads"`
	Votes   bool   `json:"votes"` // false while it fetches what the others have
	Answers bool   `json:"answers"`
}

// Holding is a lease that an agent works on.
type Holding struct {
	Release string `json:"release"`
	Item    string `json:"item"`
	Epoch   int64  `json:"epoch"`
}

// Beat is what an agent reports each second.
type Beat struct {
	Holding []Holding `json:"holding"`
	Warm    []string  `json:"warm,omitempty"` // digests of blueprints whose server is ready
	Has     []string  `json:"has,omitempty"`  // digests of artifacts that it made or fetched lately
	// Copied is the mark of the last answer whose streams are safe on its disk.
	Copied string     `json:"copied,omitempty"`
	Events int64      `json:"events"`          // that are safe there, of all streams
	Clock  *time.Time `json:"clock,omitempty"` // its wall clock
	// Control is the run of control that was told of all copies on its disk; Copies
	// are those that grew since, or all of them.
	Control string `json:"control,omitempty"`
	Copies  []Copy `json:"copies,omitempty"`
}

// Copy is what a machine has of a stream, for control to hold against its own.
type Copy struct {
	Stream string `json:"stream"`
	Events int64  `json:"events"`
	Root   []byte `json:"root"` // of the Merkle tree over them
	// Signature is control's of the checkpoint of these events, as a note has it: a proof
	// that control had them, where it has them no more. "": an older Trysail copied them.
	Signature string `json:"signature,omitempty"`
}

// CheckpointHeader is that of an answer with a stream's lines: the signed checkpoint, a
// note in base64, of all the events up to the last of them.
const CheckpointHeader = "Trysail-Checkpoint"

// Copied says how many events of a stream there are, to copy to the agent's disk.
type Copied struct {
	Stream string `json:"stream"`
	Events int64  `json:"events"`
}

// BeatAnswer says which of the leases are in force; all others must end at once.
type BeatAnswer struct {
	Renewed []Holding `json:"renewed"`
	// Streams are those that moved since the answer whose mark the report bears.
	Streams []Copied `json:"streams"`
	Mark    string   `json:"mark"`
	Control string   `json:"control"` // this run of control: no two have the same
	// Want are digests that control lost: whoever has one sends it.
	Want []string `json:"want,omitempty"`
	// Controls are the addresses of all controls.
	Controls []string `json:"controls,omitempty"`
}

// Assignment is one lease with all that its step needs.
type Assignment struct {
	Holding
	Confirm bool               `json:"confirm,omitempty"`
	Step    runbook.Item       `json:"step"`
	Source  release.Source     `json:"source"`
	Machine release.Machine    `json:"machine"`
	Inputs  []release.Artifact `json:"inputs,omitempty"`
	Lists   []release.Take     `json:"lists,omitempty"` // what it takes in besides, of lists in the depot
	Gold    []release.Artifact `json:"gold,omitempty"`  // to compare with
	// GoldList is gold where the depot has the list of its files.
	GoldList *release.Made `json:"gold_list,omitempty"`
	// Keep are digests of what the release is made of and the step has no use for: the
	// machine keeps them in its depot, for a control that loses its disk.
	Keep []string `json:"keep,omitempty"`
	// Check stands alone: it is no lease, but what a machine that comes back is asked.
	Check *Check `json:"check,omitempty"`
}

// Check asks a machine to look at itself: to verify its depot, to make these
// servers anew from originals, and to prove the first of them.
type Check struct {
	Event   int64             `json:"event"` // of the fleet's stream: the answer names it
	Servers []release.Machine `json:"servers"`
}

// Checked is what it found.
type Checked struct {
	Event int64          `json:"event"`
	Found fleet.Findings `json:"found"`
}

// CheckMachineName says what of a machine's name is not allowed, and what is.
func CheckMachineName(s string) error {
	if s == "" || len(s) > 64 || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	}) {
		return fmt.Errorf("%q is not a name for a machine: use 1 to 64 of the letters A-Z and a-z, digits and . _ -, and do not begin with -", s)
	}
	return nil
}

// Told says which people control tells that they are asked.
type Told struct {
	People []string `json:"people"`
}

// SetMachine drains, retires or readmits a machine.
type SetMachine struct {
	Reason       string `json:"reason"`
	WithoutProof bool   `json:"without_proof,omitempty"` // readmit at once
}

// LogSize is how much control has of a log.
type LogSize struct {
	Size int64 `json:"size"`
}

// LogDigest names the whole log that control is to keep as a blob.
type LogDigest struct {
	Digest string `json:"digest"`
}

// Blobs names blobs, at most [MostBlobs]: to ask which of them control has not, and the answer.
type Blobs struct {
	Digests []string `json:"digests"`
}

// MostBlobs is how many blobs one request may ask for.
const MostBlobs = 1000

// Report is the end of a lease.
type Report = release.Report

// Start asks for a release. Everything it names is in the depot already.
// What the release is to do, control reads in the runbook.
type Start struct {
	Version  string            `json:"version"`
	Ship     time.Time         `json:"ship"`
	Runbook  string            `json:"runbook"` // digest
	Source   release.Source    `json:"source"`
	Machines []release.Machine `json:"machines"`
	Signers  string            `json:"signers,omitempty"` // digests of who may sign, and whose keys are revoked
	Revoked  string            `json:"revoked,omitempty"`
	Origin   release.Origin    `json:"origin,omitzero"`
	Forced   string            `json:"forced,omitempty"` // why it starts although something speaks against it
}

// StartOf asks for a release as it would start.
func StartOf(b release.Started) Start {
	return Start{b.Version, b.Ship, b.Runbook, b.Source, b.Machines, b.Signers, b.Revoked, b.Origin, b.Forced}
}

// Replay asks a control in a lab for a release of the past once more: with the plan of its
// ledger, whose runbook another program may read in another way.
type Replay struct {
	Started release.Started `json:"started"`
}

// Amend proposes a change of a release. What another runbook says, control reads in it.
type Amend struct {
	What     []string          `json:"what"`              // source, runbook, machines, signers
	Runbook  string            `json:"runbook,omitempty"` // digest
	Source   *release.Source   `json:"source,omitempty"`
	Machines []release.Machine `json:"machines,omitempty"`
	Signers  string            `json:"signers,omitempty"`
	Revoked  string            `json:"revoked,omitempty"`
	Origin   release.Origin    `json:"origin,omitzero"`
	Reason   string            `json:"reason"`
	By       string            `json:"by"`
	Proof    *release.Proof    `json:"proof,omitempty"`
}

// AmendOf asks for an amendment.
func AmendOf(b release.Amended) Amend {
	return Amend{b.What, b.Runbook, b.Source, b.Machines, b.Signers, b.Revoked, b.Origin, b.Reason, b.By, b.Proof}
}

// Amended is the event of it, without the plan of its runbook.
func (b Amend) Amended() release.Amended {
	return release.Amended{What: b.What, Runbook: b.Runbook, Source: b.Source, Machines: b.Machines, Signers: b.Signers, Revoked: b.Revoked, Origin: b.Origin, Reason: b.Reason, By: b.By, Proof: b.Proof}
}

// Decide is a person's word.
type Decide struct {
	Item     string           `json:"item"`
	Person   string           `json:"person"`
	Decision release.Decision `json:"decision"`
	Subject  string           `json:"subject"`
	Reason   string           `json:"reason,omitempty"`
	Spent    float64          `json:"spent_seconds,omitempty"`
	// What was signed and the SSH signature, where the release has allowed signers.
	Statement string `json:"statement,omitempty"`
	Signature string `json:"signature,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
}

// DecideOf is the request that says a sign-off.
func DecideOf(b release.Signed) Decide {
	return Decide{
		Item: b.Item, Person: b.Person, Decision: b.Decision, Subject: b.Subject, Reason: b.Reason, Spent: b.Spent.Seconds(),
		Statement: b.Statement, Signature: b.Signature, Nonce: b.Nonce,
	}
}

// Spent gives a time of so many seconds.
func Spent(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

// Step names a step, with a reason.
type Step struct {
	Item   string `json:"item"`
	Test   string `json:"test,omitempty"`
	Person string `json:"person,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Proof is the person's signature, where the release has allowed signers.
	Proof *release.Proof `json:"proof,omitempty"`
}

// Abort ends a release without shipping it.
type Abort struct {
	Reason string         `json:"reason"`
	Person string         `json:"person,omitempty"`
	Proof  *release.Proof `json:"proof,omitempty"`
}

// Reason is why.
type Reason struct {
	Reason string `json:"reason"`
}

// Ship ends a release.
type Ship struct {
	// Head is the number of events that the ledger had when the evidence was made and
	// verified: if it has more, nothing is done. 0: control's own look is enough.
	Head   int64  `json:"head,omitempty"`
	Reason string `json:"reason,omitempty"` // is of no account; older programs send it
}

// Checkpoint is the signed head of a release's ledger.
type Checkpoint struct {
	Note string `json:"note"` // a signed note (golang.org/x/mod/sumdb/note)
	Key  string `json:"key"`  // that it is verified with
	// Proof that the ledger of as many events as were asked for is the beginning of
	// this one: hashes (golang.org/x/mod/sumdb/tlog).
	Proof [][]byte `json:"proof,omitempty"`
}

// ItemStatus is one item as people see it.
type ItemStatus struct {
	Name    string         `json:"name"`
	Kind    runbook.Kind   `json:"kind"`
	Phase   string         `json:"phase"`
	Status  release.Status `json:"status"`
	Machine string         `json:"machine,omitempty"`
	Epoch   int64          `json:"epoch,omitempty"`
	Since   *time.Time     `json:"since,omitempty"`
	Took    float64        `json:"seconds,omitempty"`
	Budget  float64        `json:"budget_seconds,omitempty"`
	Moves   int            `json:"moves,omitempty"`
	Moved   string         `json:"moved,omitempty"`         // why it lost its machine last
	Waiting string         `json:"waiting,omitempty"`       // why a ready step has no machine
	Making  bool           `json:"making_server,omitempty"` // its machine makes the build server first
	Until   *time.Time     `json:"until,omitempty"`         // of a wait that is not over
	Log     string         `json:"log,omitempty"`
	Failed  string         `json:"failed,omitempty"` // why it failed
}

// Status is a release as people see it, in the order in which they ask.
type Status struct {
	Version string        `json:"version"`
	Phase   release.Phase `json:"phase"`
	Why     string        `json:"why,omitempty"`
	// Signed tells whether people sign what they decide with SSH keys.
	Signed bool  `json:"signed,omitempty"`
	Head   int64 `json:"head"`
	// Will we ship on time?
	Ship    time.Time `json:"ship"`
	Zone    string    `json:"zone,omitempty"` // of the team, whose clock dates are read by
	Ends    time.Time `json:"ends"`
	Slack   float64   `json:"slack_seconds"`
	Chain   []string  `json:"critical"`
	Unknown []string  `json:"without_budget,omitempty"`
	// Blocked is what does not go on by itself: the slack is what is left if people mend
	// all of it at once.
	Blocked []release.Block `json:"blocked"`
	HeldBy  string          `json:"held_by,omitempty"`
	// Assumed are roles whose build server is to be made, for a time that nobody measured.
	Assumed []string `json:"assumed_rebuild,omitempty"`
	// Who must do what now?
	Asks []Ask `json:"asks"`
	// What runs where?
	Items []ItemStatus `json:"items"`
	Gold  *Gold        `json:"gold,omitempty"`
	// What went wrong?
	Trouble   []string          `json:"trouble,omitempty"` // of control itself
	Doubts    []string          `json:"doubts,omitempty"`  // those of it that are a copy which says otherwise
	Refused   []release.Refused `json:"refused"`
	Budget    float64           `json:"budget_hours,omitempty"`
	Spent     float64           `json:"spent_hours"`
	Open      float64           `json:"open_hours"`
	Amendment int64             `json:"amendment,omitempty"` // the open one
	Candidate int               `json:"candidate"`
}

// Zone finds a time zone by its name; nil, which is read as UTC, where this machine has none of
// that name.
func Zone(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil
	}
	return zone
}

// Listed is one release in a list.
type Listed struct {
	Version string        `json:"version"`
	Phase   release.Phase `json:"phase"`
	Head    int64         `json:"head"`
	Changed time.Time     `json:"changed"`
	Ship    time.Time     `json:"ship"`
	Zone    string        `json:"zone,omitempty"`  // of the team
	Error   string        `json:"error,omitempty"` // its stream does not fold
}

// Token asks for a token: for a machine or a control to join with, or for a person.
type Token struct {
	Join    bool   `json:"join,omitempty"`
	Control bool   `json:"control,omitempty"` // with Join: a control joins
	Person  string `json:"person,omitempty"`
	Role    string `json:"role,omitempty"`
}

// Revoke asks that all tokens of a person be worthless, and the join tokens they made.
type Revoke struct {
	Person string `json:"person"`
}

// TokenMade is a secret, and whom it is for.
type TokenMade struct {
	Secret      string `json:"secret"`
	Fingerprint string `json:"fingerprint"`
}

// Ask is something a person must do, with the bytes it is about.
type Ask struct {
	Item    string   `json:"item"`
	What    string   `json:"what"`
	People  []string `json:"people"`
	Needed  int      `json:"needed"`
	Type    string   `json:"type"`
	Tests   []string `json:"tests,omitempty"`  // to waive
	Change  string   `json:"change,omitempty"` // what to amend: source, runbook
	Subject string   `json:"subject,omitempty"`
}

// Gold as people see it.
type Gold struct {
	Event   int64              `json:"event"`
	Machine string             `json:"machine"`
	Outputs []release.Artifact `json:"outputs"`
	release.List
	Verdict     release.Verdict `json:"verdict,omitempty"`
	By          string          `json:"confirmed_by,omitempty"`
	Differences []string        `json:"differences,omitempty"`
	// SecondBuilds are those that failed, in words.
	SecondBuilds []string `json:"failed_second_builds,omitempty"`
}

// MachineStatus is one machine as people see it.
type MachineStatus struct {
	Name      string          `json:"name"`
	Rank      fleet.Rank      `json:"rank"`
	Condition fleet.Condition `json:"condition"`
	Why       string          `json:"why,omitempty"` // it is so: a person's reason, or what it found of itself
	Serves    []string        `json:"serves"`        // roles; none: every role
	Plain     bool            `json:"plain"`         // steps may run on it outside of a rebuilt server
	Slots     int             `json:"slots"`
	Heard     float64         `json:"heard_seconds_ago"` // negative: not since control began
	Running   []Holding       `json:"running"`
	Warm      []string        `json:"warm"`
	Events    int64           `json:"copied_events"`
	Skew      float64         `json:"clock_ahead_seconds"` // of control's, when it was last heard of; about, by what a report takes
}
