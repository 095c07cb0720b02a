package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/release"
	"trysail/runbook"
)

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
func (m *Moment) Check(b release.Personal) (*Signer, error) {
	person, proof := b.Decider(), b.Signed()
	again := "sign again: trysail release " + command(b)
	fail := func(remedy, format string, args ...any) (*Signer, error) {
		return nil, &Error{fmt.Sprintf("%s by %s: %s", Title(b), person, fmt.Sprintf(format, args...)), remedy}
	}
	if proof == nil {
		return fail(again, "it is not signed")
	}
	g, err := says(m.State, b)
	if err != nil {
		return fail(again, "%v", err)
	}
	switch {
	case len(g.Nonce) < 16:
		return fail(again, "its nonce is too short")
	case g.Signed.After(m.At.Add(ClockSkew)):
		return fail("set the clock, and sign again", "it was signed at %s, which is to come", runbook.FormatTime(g.Signed, nil))
	case g.Expires.Sub(g.Signed) > longest || !g.Expires.After(g.Signed):
		return fail(again, "the statement is good until %s, and none is for longer than %s", runbook.FormatTime(g.Expires, nil), runbook.FormatDuration(longest))
	case m.At.After(g.Expires):
		return fail(again, "the statement expired at %s", runbook.FormatTime(g.Expires, nil))
	}
	// What is signed is what this release asks, and nothing beside it.
	want, err := Draft(m.State, b, g)
	if err != nil {
		return fail(again, "%v", err)
	}
	if string(want) != proof.Statement {
		if sameJSON(want, []byte(proof.Statement)) {
			return fail("draft it again with --statement FILE, sign that file as it is and open it in no editor that writes it anew", "the statement was changed after it was drafted: it says the same in other bytes, as when an editor adds a line end or formats it")
		}
		return fail("draft it again: trysail release "+command(b)+" --statement FILE", "the statement is not the one that this release asks for: what it says was changed after it was drafted, or the release has gone on")
	}
	if err := m.witness(g.Checkpoint); err != nil {
		return fail(again, "%v", err)
	}
	const who = "who may sign stands in the runbook's signers file"
	at := m.At
	if m.State.Latest.After(at) { // a clock that was put back makes no key good again
		at = m.State.Latest
	}
	by, err := m.Signers.Verify([]byte(proof.Statement), []byte(proof.Signature), NamespaceSignOff, m.principals(person), at, m.Revoked)
	if err != nil {
		return fail(who, "%v", err)
	}
	for _, other := range m.others(b) {
		if other != person && slices.ContainsFunc(m.Signers, func(x Signer) bool {
			return equal(x.Key, by.Key) && slices.ContainsFunc(x.Principals, func(p string) bool { return slices.Contains(m.principals(other), p) })
		}) {
			return fail(who, "its key is that of %s too, and one key is one person", other)
		}
	}
	if print := ssh.FingerprintSHA256(by.Key); proof.Key != "" && proof.Key != print {
		return fail(again, "the event says that key %s signed, and it was %s", proof.Key, print)
	}
	return by, nil
}

// others are the people beside whom a person decides.
func (m *Moment) others(b release.Personal) []string {
	switch b := b.(type) {
	case release.Signed:
		return m.State.Item(b.Item).Signers
	case release.Withdrawn:
		if x := m.State.Item(b.Item); x != nil {
			return x.Signers
		}
	}
	return m.State.Approvers
}

// sameJSON tells whether two documents differ in nothing but how they are written.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
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
		return fmt.Errorf("the checkpoint belongs to the ledger of %s", c.Stream)
	}
	if c.Size > m.State.Head {
		return fmt.Errorf("the signer saw %d events, and there were %d: some are gone", c.Size, m.State.Head)
	}
	if n := len(m.State.Earlier); n > 0 && c.Size <= m.State.Earlier[n-1].Event {
		return fmt.Errorf("it was signed for an earlier start of this release, which event %d ended", m.State.Earlier[n-1].Event)
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
