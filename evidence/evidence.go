// Package evidence is what others can verify of a release: who signed off on which
// bytes, what was built of what, and that nothing was removed since. It is pure: bytes
// in, statements and reports out.
//
// A sign-off is an in-toto statement, signed by a person's own SSH key over its exact
// bytes ([SignOff]). Who may sign stands in an allowed_signers file ([Signers]), as
// ssh-keygen reads it, of which the ledger has the digest. A signature has no time of
// its own: it counts at the time of the event that holds it, by the file in force then.
// Each statement holds the ledger's checkpoint that its signer saw, so that every
// approver is a witness of what was there before.
//
// The bundle of a release ([Assemble]) holds nothing that only this program can read:
// checksums and their SSH signature, DSSE envelopes as Sigstore bundles, a signed note
// and the lines of the ledger as a transparency log ([Tree]). What the provenance says
// is a function of the ledger, so [Verify] makes it again and compares the bytes.
//
// A key that comes with a bundle proves nothing: its fingerprint is compared with one
// that came another way, by whoever verifies.
package evidence

import "time"

// The namespaces of SSH signatures, so that one given for one purpose is none for
// another.
const (
	NamespaceSignOff = "sign-off@trysail"
	NamespaceBundle  = "bundle@trysail"
	// NamespaceLogin is what a service asks somebody to sign who comes in: never a
	// sign-off.
	NamespaceLogin = "login@trysail"
)

// The types of statements.
const (
	statementType   = "https://in-toto.io/Statement/v1"
	signOffType     = "tag:trysail,2026:sign-off/v1"
	decisionType    = "tag:trysail,2026:decision/v1"
	provenanceType  = "https://slsa.dev/provenance/v1"
	summaryType     = "https://slsa.dev/verification_summary/v1"
	buildType       = "tag:trysail,2026:release/v1"
	payloadType     = "application/vnd.in-toto+json"
	maxStatement    = 16 << 20           // bytes
	longest         = 7 * 24 * time.Hour // that a statement is good
	maxSigners      = 1 << 20
	sha256Algorithm = "sha256"
)

// Error says what of evidence does not hold, and what to do about it.
type Error struct{ What, Remedy string }

func (e *Error) Error() string { return e.What }

// Hint says what to do.
func (e *Error) Hint() string { return e.Remedy }
