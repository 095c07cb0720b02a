package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/release"
	"trysail/runbook"
)

// Statement is one of in-toto's.
type Statement[P any] struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     P          `json:"predicate"`
}

// Resource is something that has a digest.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

func resource(name, digest string) Resource {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return Resource{Name: name, Digest: map[string]string{algorithm: hex}}
}

// SignOff is what a person says.
type SignOff struct {
	Release  string           `json:"release"`
	Item     string           `json:"item"`
	Asked    string           `json:"asked"`    // word for word
	Question string           `json:"question"` // digest of it, and of the bytes it is about
	Decision release.Decision `json:"decision"`
	Meaning  string           `json:"meaning"`
	Reason   string           `json:"reason,omitempty"`
	Person   string           `json:"person"`
	Name     string           `json:"name,omitempty"`
	Role     string           `json:"role,omitempty"` // the group that was asked
	Revision string           `json:"revision"`
	Runbook  string           `json:"runbook"`
	Evidence []Resource       `json:"evidence,omitempty"` // logs of what it is about
	Spent    float64          `json:"spent_seconds,omitempty"`
	Signed   time.Time        `json:"signed"`  // by the signer's clock
	Expires  time.Time        `json:"expires"` // the statement is worthless if it is not in the ledger by then
	Nonce    string           `json:"nonce"`
	// Checkpoint is how the ledger stood that the signer saw, signed by its control.
	Checkpoint string `json:"checkpoint"`
}

// Word is what a person decides, and when.
type Word struct {
	Item, Person string
	Decision     release.Decision
	Reason       string
	Spent        time.Duration
	Signed       time.Time
	Lasts        time.Duration
	Nonce        string
	Checkpoint   string
}

// Draft writes the statement for a word on a release, for people to read and to sign.
func Draft(s *release.State, w Word) ([]byte, error) {
	x := s.Item(w.Item)
	if x == nil || x.Kind != runbook.SignOff {
		return nil, &Error{fmt.Sprintf("release %s has no sign-off %s", s.Started.Version, w.Item), "trysail release status " + s.Started.Version}
	}
	who := s.Person(w.Person)
	p := SignOff{
		Release: s.Started.Version, Item: x.Name, Asked: x.Text, Question: s.Subject(x), Decision: w.Decision, Reason: w.Reason,
		Person: w.Person, Name: who.Full, Revision: s.Source.Revision, Runbook: s.Runbook, Spent: w.Spent.Seconds(),
		Signed: w.Signed.UTC().Truncate(time.Second), Nonce: w.Nonce, Checkpoint: w.Checkpoint,
	}
	p.Expires = p.Signed.Add(w.Lasts)
	if i := slices.IndexFunc(x.Asked, func(g string) bool { return slices.Contains(who.Groups, g) }); i >= 0 {
		p.Role = x.Asked[i]
	}
	p.Meaning = fmt.Sprintf("%s says %s to %q, for release %s", or(who.Full, w.Person), w.Decision, x.Text, p.Release)
	st := Statement[SignOff]{Type: statementType, PredicateType: signOffType, Predicate: p}
	for _, n := range x.Needs {
		for _, a := range s.Outputs(n) {
			if a.Digest != "" { // a link has none
				st.Subject = append(st.Subject, resource(a.Path, a.Digest))
			}
		}
		if r := s.Progress[n].Result; r != nil && r.Log != "" {
			st.Predicate.Evidence = append(st.Predicate.Evidence, resource("log of "+n, r.Log))
		}
	}
	if len(st.Subject) == 0 { // a statement is about something: the document that asks
		st.Subject = append(st.Subject, resource("runbook", s.Runbook))
	}
	return render(st)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// render writes JSON for people, in one way.
func render(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// ReadSignOff reads a statement strictly.
func ReadSignOff(data []byte) (*Statement[SignOff], error) {
	var s Statement[SignOff]
	if err := readStrict(data, maxStatement, &s); err != nil {
		return nil, fmt.Errorf("the statement cannot be read: %w", err)
	}
	if s.Type != statementType || s.PredicateType != signOffType {
		return nil, fmt.Errorf("%q is no statement of a sign-off", s.PredicateType)
	}
	return &s, nil
}

func readStrict(data []byte, most int, v any) error {
	if len(data) > most {
		return fmt.Errorf("it has more than %d bytes", most)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

// ClockSkew is by how much a signer's clock may be ahead of the ledger's.
const ClockSkew = 10 * time.Minute

// Moment is a release when somebody signs: what a signature is held against.
type Moment struct {
	State   *release.State // before it
	At      time.Time      // of the event
	Signers Signers
	Revoked []ssh.PublicKey
	Stream  string        // of the ledger
	Log     note.Verifier // with which its checkpoints are verified
	// Root is that of the stream's first n events.
	Root func(n int64) (tlog.Hash, error)
}

// Check says what is wrong with a signature: it is not of these bytes or not by this
// person, they say something else than the event does, or something else than was to be
// said, or they were for another time.
func (m *Moment) Check(b release.Signed) (*Signer, error) {
	fail := func(remedy, format string, args ...any) (*Signer, error) {
		return nil, &Error{fmt.Sprintf("sign-off %s by %s: %s", b.Item, b.Person, fmt.Sprintf(format, args...)), remedy}
	}
	const again = "sign again: trysail release sign"
	st, err := ReadSignOff([]byte(b.Statement))
	if err != nil {
		return fail(again, "%v", err)
	}
	p := st.Predicate
	for _, x := range []struct{ what, says, is string }{
		{"release", p.Release, m.State.Started.Version},
		{"item", p.Item, b.Item},
		{"person", p.Person, b.Person},
		{"decision", string(p.Decision), string(b.Decision)},
		{"reason", p.Reason, b.Reason},
		{"question", p.Question, b.Subject},
		{"nonce", p.Nonce, b.Nonce},
	} {
		if x.says != x.is {
			return fail(again, "the statement says %s %q, and the event %q", x.what, x.says, x.is)
		}
	}
	switch {
	case len(p.Nonce) < 16:
		return fail(again, "its nonce is too short")
	case p.Signed.After(m.At.Add(ClockSkew)):
		return fail("set the clock, and sign again", "it was signed at %s, which is to come", p.Signed.Format(time.RFC3339))
	case p.Expires.Sub(p.Signed) > longest || !p.Expires.After(p.Signed):
		return fail(again, "the statement is good until %s, and none is for longer than %s", p.Expires.Format(time.RFC3339), longest)
	case m.At.After(p.Expires):
		return fail(again, "the statement expired at %s", p.Expires.Format(time.RFC3339))
	}
	// What is signed is what this release asks, and nothing beside it.
	want, err := Draft(m.State, Word{
		Item: b.Item, Person: b.Person, Decision: b.Decision, Reason: b.Reason, Spent: b.Spent, Signed: p.Signed,
		Lasts: p.Expires.Sub(p.Signed), Nonce: b.Nonce, Checkpoint: p.Checkpoint,
	})
	if err != nil {
		return fail(again, "%v", err)
	}
	if string(want) != b.Statement {
		return fail(again, "the statement is not the one that this release asks for")
	}
	if err := m.witness(p.Checkpoint); err != nil {
		return fail(again, "%v", err)
	}
	const who = "who may sign stands in the runbook's signers file"
	at := m.At
	if m.State.Latest.After(at) { // a clock that was put back makes no key good again
		at = m.State.Latest
	}
	by, err := m.Signers.Verify([]byte(b.Statement), []byte(b.Signature), NamespaceSignOff, m.principals(b.Person), at, m.Revoked)
	if err != nil {
		return fail(who, "%v", err)
	}
	for _, other := range m.State.Item(b.Item).Signers {
		if other != b.Person && slices.ContainsFunc(m.Signers, func(x Signer) bool {
			return equal(x.Key, by.Key) && slices.ContainsFunc(x.Principals, func(p string) bool { return slices.Contains(m.principals(other), p) })
		}) {
			return fail(who, "its key is that of %s too, and one key is one person", other)
		}
	}
	return by, nil
}

// principals are the names by which a person may stand among the signers.
func (m *Moment) principals(person string) []string {
	who := []string{person}
	if e := m.State.Person(person).Email; e != "" {
		who = append(who, e)
	}
	return who
}

// witness holds the checkpoint that a signer saw against the ledger.
func (m *Moment) witness(text string) error {
	c, err := ReadNote([]byte(text), m.Log)
	if err != nil {
		return fmt.Errorf("the checkpoint that was seen: %w", err)
	}
	if c.Stream != m.Stream {
		return fmt.Errorf("the checkpoint that was seen is of %s", c.Stream)
	}
	if c.Size > m.State.Head {
		return fmt.Errorf("the signer saw %d events, and there were %d: some are gone", c.Size, m.State.Head)
	}
	root, err := m.Root(c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("the first %d events are not those that the signer saw: the ledger was changed", c.Size)
	}
	return nil
}
