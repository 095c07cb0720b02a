package cli

import (
	"testing"

	"trysail/evidence"
)

// TestAttackNothingToCompare: a release says of what it was made of nothing that could be held
// against a revision. Whoever asks for that gets no yes.
func TestAttackNothingToCompare(t *testing.T) {
	a := &app{}
	r := &evidence.Report{Verified: true, Unnamed: []string{"event 1: allowed_signers (sha256:0) is not among the files that it says it took from any revision"}}
	if err := a.compareSource(t.Context(), "", r); err != nil || !r.Verified {
		t.Errorf("nobody asked to compare: %v, %v", r.Problems, err)
	}
	if err := a.compareSource(t.Context(), t.TempDir(), r); err != nil || r.Verified || len(r.Problems) != 1 {
		t.Errorf("it verifies: %v, %v", r.Problems, err)
	}
}
