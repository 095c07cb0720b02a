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

// Standby is the code of a problem with whom was asked: another control decides.
const Standby = "standby"

// Slow is the code of a problem with a request that did not come to its end in time:
// nothing was done.
const Slow = "slow"

// Problem is any error's body.
type Problem struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Status  int    `json:"-"`                // of HTTP
	Code    string `json:"code,omitempty"`   // rule, unknown, denied, not-found, usage, slow, damaged, full, doubted, standby
	Leader  string `json:"leader,omitempty"` // with standby: address of the control that decides
}

func (p *Problem) Error() string { return p.Message }

// Enrol asks for a certificate with a one-time token.
type Enrol struct {
	Token   string     `json:"token"`
	Name    string     `json:"name"`
	Rank    fleet.Rank `json:"rank"`
	Serves  []string   `json:"serves,omitempty"`
	Plain   bool       `json:"plain,omitempty"`
	Slots   int        `json:"slots"`
	Request []byte     `json:"request"` // a certificate request, DER
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
	Token string `json:"token"`
	Name  string `json:"name"` // the address (host:port) of its API
	Peer  string `json:"peer"` // where its etcd listens for the others
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
}

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
	Gold    []release.Artifact `json:"gold,omitempty"` // to compare with
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

// Report is the end of a lease.
type Report = release.Report

// Start asks for a release. Everything it names is in the depot already.
type Start struct {
	Started release.Started `json:"started"`
}

// Decide is a person's word.
type Decide struct {
	Item     string           `json:"item"`
	Person   string           `json:"person"`
	Decision release.Decision `json:"decision"`
	Subject  string           `json:"subject"`
	Reason   string           `json:"reason,omitempty"`
	Spent    time.Duration    `json:"spent,omitempty"`
	// What was signed and the SSH signature, where the release has allowed signers.
	Statement string `json:"statement,omitempty"`
	Signature string `json:"signature,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
}

// Step names a step, with a reason.
type Step struct {
	Item   string `json:"item"`
	Test   string `json:"test,omitempty"`
	Person string `json:"person,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Reason is why.
type Reason struct {
	Reason string `json:"reason"`
}

// Checkpoint is a signed word on how a release's ledger stands.
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
	Moved   string         `json:"moved,omitempty"`   // why it lost its machine last
	Waiting string         `json:"waiting,omitempty"` // why a ready step has no machine
	Log     string         `json:"log,omitempty"`
	Failed  string         `json:"failed,omitempty"` // why it failed
}

// Status is a release as people see it, in the order in which they ask.
type Status struct {
	Version string        `json:"version"`
	Phase   release.Phase `json:"phase"`
	Why     string        `json:"why,omitempty"`
	Head    int64         `json:"head"`
	// Will we ship on time?
	Ship    time.Time `json:"ship"`
	Ends    time.Time `json:"ends"`
	Slack   float64   `json:"slack_seconds"`
	Chain   []string  `json:"critical"`
	Unknown []string  `json:"without_budget,omitempty"`
	// Blocked is what is stopped: the slack is what is left if people mend it at once.
	Blocked []release.Block `json:"blocked"`
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

// Listed is one release in a list.
type Listed struct {
	Version string        `json:"version"`
	Phase   release.Phase `json:"phase"`
	Head    int64         `json:"head"`
	Changed time.Time     `json:"changed"`
	Ship    time.Time     `json:"ship"`
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
	Event       int64              `json:"event"`
	Machine     string             `json:"machine"`
	Outputs     []release.Artifact `json:"outputs"`
	Verdict     release.Verdict    `json:"verdict,omitempty"`
	By          string             `json:"confirmed_by,omitempty"`
	Differences []string           `json:"differences,omitempty"`
}

// MachineStatus is one machine as people see it.
type MachineStatus struct {
	Name      string          `json:"name"`
	Rank      fleet.Rank      `json:"rank"`
	Condition fleet.Condition `json:"condition"`
	Why       string          `json:"why,omitempty"` // it is so: a person's reason, or what it found of itself
	Serves    []string        `json:"serves,omitempty"`
	Plain     bool            `json:"plain,omitempty"`
	Slots     int             `json:"slots"`
	Heard     float64         `json:"heard_seconds_ago"` // negative: not since control began
	Running   []Holding       `json:"running"`
	Warm      []string        `json:"warm"`
	Events    int64           `json:"copied_events"`
	Skew      float64         `json:"clock_ahead_seconds"` // of control's, when it was last heard of; about, by what a report takes
}
