package evidence

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"trysail/internal/strict"
	"trysail/release"
)

// Signing makes a statement good once, for a time, and by somebody who saw the ledger.
type Signing struct {
	Signed  time.Time `json:"signed"`  // by the signer's clock
	Expires time.Time `json:"expires"` // the statement is worthless if it is not in the ledger by then
	Nonce   string    `json:"nonce"`
	// Checkpoint is how the ledger stood that the signer saw, signed by its control.
	Checkpoint string `json:"checkpoint"`
}

// SigningAt is a signing at a time, good for so long.
func SigningAt(at time.Time, lasts time.Duration, nonce, checkpoint string) Signing {
	at = at.UTC().Truncate(time.Second)
	return Signing{at, at.Add(lasts), nonce, checkpoint}
}

// Draft writes the statement of a sign-off or of a decision, for people to read and to sign.
func Draft(s *release.State, b release.Personal, g Signing) ([]byte, error) {
	if x, ok := b.(release.Signed); ok {
		return draftSignOff(s, x, g)
	}
	return draftDecision(s, b, g)
}

// ReadStatement reads any statement that a person signs: of which release it is, and what
// it says.
func ReadStatement(data []byte) (version string, b release.Personal, g Signing, err error) {
	var st Statement[json.RawMessage]
	if err := strict.JSON(data, maxStatement, &st); err != nil {
		return "", nil, g, fmt.Errorf("the statement cannot be read: %w", err)
	}
	if st.Type == statementType && st.PredicateType == decisionType {
		d, err := readStatement[Decision](data, decisionType)
		if err != nil {
			return "", nil, g, err
		}
		b, err := d.Predicate.event()
		return d.Predicate.Release, b, d.Predicate.Signing, err
	}
	s, err := readStatement[SignOff](data, signOffType)
	if err != nil {
		return "", nil, g, err
	}
	p := s.Predicate
	return p.Release, release.Signed{
		Item: p.Item, Person: p.Person, Decision: p.Decision, Subject: p.Question, Reason: p.Reason, Spent: time.Duration(math.Round(p.Spent * float64(time.Second))),
	}, p.Signing, nil
}

// readStatement reads one of a type, strictly.
func readStatement[P any](data []byte, kind string) (*Statement[P], error) {
	var s Statement[P]
	if err := strict.JSON(data, maxStatement, &s); err != nil {
		return nil, fmt.Errorf("the statement cannot be read: %w", err)
	}
	if s.Type != statementType || s.PredicateType != kind {
		return nil, fmt.Errorf("%q is not the type of a sign-off or a decision", s.PredicateType)
	}
	return &s, nil
}

// says reads what was signed, and refuses a statement that says something else than its event.
func says(s *release.State, b release.Personal) (Signing, error) {
	version, said, g, err := ReadStatement([]byte(b.Signed().Statement))
	if err != nil {
		return g, err
	}
	type same struct{ what, says, is string }
	list := []same{
		{"release", version, s.Started.Version},
		{"event", eventType(said), eventType(b)},
		{"person", said.Decider(), b.Decider()},
		{"nonce", g.Nonce, b.Signed().Nonce},
	}
	x, off := b.(release.Signed)
	if y, both := said.(release.Signed); off && both {
		list = append(list, []same{
			{"item", y.Item, x.Item},
			{"decision", string(y.Decision), string(x.Decision)},
			{"reason", y.Reason, x.Reason},
			{"question", y.Subject, x.Subject},
		}...)
	}
	for _, x := range list {
		if x.says != x.is {
			return g, fmt.Errorf("the statement says %s %q, and the event %q", x.what, x.says, x.is)
		}
	}
	return g, nil
}
