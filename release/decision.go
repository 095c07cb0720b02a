package release

import (
	"slices"
	"time"

	"trysail/runbook"
)

// Proof is how a person signed what an event says: the statement, byte for byte, its SSH
// signature, and a nonce that makes it good once. It is nil where the release has no allowed
// signers, and in releases of rules before 4.
type Proof struct {
	Statement string `json:"statement"`
	Signature string `json:"signature"`
	Nonce     string `json:"nonce"`
	// Key is the fingerprint of the key that signed, SHA256:…. Control sets it.
	Key string `json:"key"`
}

// Personal is an event by which one person decides: a sign-off, or a decision on the release
// that may change what ships. Where the release has allowed signers, the person signs it.
type Personal interface {
	Body
	// Decider is the person.
	Decider() string
	// Signed is the proof; nil if there is none.
	Signed() *Proof
	// Prove gives the event with another proof, or with none.
	Prove(*Proof) Personal
}

// The events below implement [Personal].

func (b Signed) Decider() string    { return b.Person }
func (b Withdrawn) Decider() string { return b.Person }
func (b Waived) Decider() string    { return b.Person }
func (b Excepted) Decider() string  { return b.Person }
func (b Amended) Decider() string   { return b.By }
func (b Agreed) Decider() string    { return b.Person }
func (b Aborted) Decider() string   { return b.Person }

func (b Withdrawn) Signed() *Proof { return b.Proof }
func (b Waived) Signed() *Proof    { return b.Proof }
func (b Excepted) Signed() *Proof  { return b.Proof }
func (b Amended) Signed() *Proof   { return b.Proof }
func (b Agreed) Signed() *Proof    { return b.Proof }
func (b Aborted) Signed() *Proof   { return b.Proof }

func (b Withdrawn) Prove(p *Proof) Personal { b.Proof = p; return b }
func (b Waived) Prove(p *Proof) Personal    { b.Proof = p; return b }
func (b Excepted) Prove(p *Proof) Personal  { b.Proof = p; return b }
func (b Amended) Prove(p *Proof) Personal   { b.Proof = p; return b }
func (b Agreed) Prove(p *Proof) Personal    { b.Proof = p; return b }
func (b Aborted) Prove(p *Proof) Personal   { b.Proof = p; return b }

// Signed is the proof of a sign-off, whose event has the parts of it as fields of its own.
func (b Signed) Signed() *Proof {
	if p := (Proof{b.Statement, b.Signature, b.Nonce, b.Key}); p != (Proof{}) {
		return &p
	}
	return nil
}

// Prove gives the sign-off with a signature.
func (b Signed) Prove(p *Proof) Personal {
	if p == nil {
		p = &Proof{}
	}
	b.Statement, b.Signature, b.Nonce, b.Key = p.Statement, p.Signature, p.Nonce, p.Key
	return b
}

// With is an amendment with a plan: that of the runbook which it brings.
func (b Amended) With(p Plan) Amended {
	b.Items, b.Endgame, b.Approver, b.Team, b.People, b.Ship, b.Budget = p.Items, p.Endgame, p.Approver, p.Team, p.People, p.Ship, p.Budget
	return b
}

// Signs tells whether a person signs a decision with an SSH key.
func (s *State) Signs(b Personal) bool {
	_, off := b.(Signed)
	return s.Signers != "" && (off || s.Started.Rules >= 4)
}

// proved refuses a decision that is not signed where it must be, or signed where nothing says
// whose key that is. A sign-off has rules of its own: see [State.sign].
func (s *State) proved(b Personal) error {
	p := b.Signed()
	signs := s.Signs(b)
	switch {
	case signs && p == nil:
		return forbid(b, "release %s has allowed signers: sign the decision with an SSH key", s.Started.Version)
	case !signs && p != nil:
		return forbid(b, "release %s takes no signed decisions", s.Started.Version)
	case p == nil:
		return nil
	case p.Statement == "" || p.Signature == "" || p.Nonce == "" || p.Key == "":
		return forbid(b, "the signature is incomplete: it needs a statement, a nonce and a key")
	case s.Nonces[p.Nonce]:
		return forbid(b, "this signature was used before: sign again")
	}
	return nil
}

// decide applies a decision. Since rules 4 the key that signed it is known before the rules are
// asked: a key that two names use makes them one person, for this decision too.
func (s *State) decide(e Event, b Personal) error {
	if _, off := b.(Signed); !off {
		if err := s.proved(b); err != nil {
			return err
		}
	}
	p := b.Signed()
	if p == nil || p.Key == "" {
		return s.rule(e)
	}
	before := s.Keys[p.Key]
	after := before
	if !slices.Contains(before, b.Decider()) {
		after = append(slices.Clone(before), b.Decider())
	}
	if s.Started.Rules >= 4 {
		s.Keys[p.Key] = after
	}
	if err := s.rule(e); err != nil {
		if s.Keys[p.Key] = before; before == nil {
			delete(s.Keys, p.Key)
		}
		return err
	}
	s.Keys[p.Key] = after
	return nil
}

// abort ends the release. Its version is free again, unless gold was committed.
func (s *State) abort(b Aborted) error {
	if s.Started.Rules >= 4 {
		switch {
		case s.unsaid(b.Reason):
			return forbid(b, "an abort needs a reason")
		case s.Signers != "" && !s.knows(b.Person):
			return forbid(b, "the runbook names no person %q: a person of the runbook must abort", b.Person)
		}
	}
	s.Phase, s.Why = Ended, b.Reason
	for _, p := range s.Progress {
		p.Lease = nil // what still runs is stopped by its machine
	}
	return nil
}

// knows tells whether the runbook in force names a person.
func (s *State) knows(name string) bool {
	return slices.ContainsFunc(s.People, func(p Person) bool { return p.Name == name }) || slices.Contains(s.Approvers, name) ||
		slices.ContainsFunc(s.Items, func(x runbook.Item) bool { return slices.Contains(x.Signers, name) })
}

// Attempt is a start of the release that was aborted before gold was committed.
type Attempt struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	Event int64     `json:"event"` // that aborted it
	Why   string    `json:"why"`
}

// Free tells whether the version may be started once more: it was aborted, and no bytes are
// known as its gold.
func (s *State) Free() bool { return s.Phase == Ended && s.Gold == nil }

// again starts the version once more. Nothing of the attempt before counts: its words, keys
// and results were for another start. Its signatures do not become good a second time.
func (s *State) again(e Event, b Started) error {
	switch {
	case b.Rules < 4:
		return forbid(b, "a version starts again by rules 4 and later, and this start goes by rules %d", b.Rules)
	case b.Version != s.Started.Version:
		return forbid(b, "the stream is that of release %s, and not of %s", s.Started.Version, b.Version)
	}
	n := Empty()
	n.Head, n.Changed, n.Latest, n.Backs, n.Nonces = s.Head, s.Changed, s.Latest, s.Backs, s.Nonces
	n.Earlier = append(slices.Clone(s.Earlier), Attempt{Began: s.Begun, Ended: s.Changed, Event: s.Head, Why: s.Why})
	if err := n.start(e, b); err != nil {
		return err
	}
	*s = *n
	return nil
}

// LastAttempt are the events since the release began the last time.
func LastAttempt(events []Event) []Event {
	for i := len(events) - 1; i > 0; i-- {
		if _, ok := events[i].Body.(Started); ok {
			return events[i:]
		}
	}
	return events
}
