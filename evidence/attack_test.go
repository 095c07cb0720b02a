package evidence

import (
	"strings"
	"testing"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// TestAttackWordsForSignatures: who starts a release leaves the signers out of its runbook, so
// that control takes words for sign-offs. Somebody who verifies brings the keys of the team,
// to see that its people have signed: nobody has.
func TestAttackWordsForSignatures(t *testing.T) {
	x := newStory(t, "4.2")
	doc := strings.Replace(document, "signers: allowed_signers\n", "", 1)
	r, err := runbook.Parse("RELEASE.md", []byte(doc), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	b := x.started()
	b.Runbook, b.Signers, b.Items = x.blob(doc), "", r.Items
	x.must(b)
	x.run("compile", "a", "obj/a", "object")
	x.run("gold", "a", "dist/app", "the program")
	epoch := x.must(release.Granted{Item: "gold", Machine: "b", Confirm: true})
	x.must(release.Confirmed{Epoch: epoch, Verdict: release.Equivalent, Differences: []string{"a time"}, Log: x.blob("second log")})
	x.must(release.Excepted{Person: "bob", Differences: []string{"a time"}, Reason: "it is the time of the build"})
	for _, word := range []release.Signed{{Item: "tried", Person: "ann"}, {Item: "tried", Person: "bob"}, {Item: "legal", Person: "eve"}} {
		word.Decision, word.Subject = release.Approve, x.s.Subject(x.s.Item(word.Item))
		x.must(word)
	}
	x.must(release.Shipped{})
	bundle, trust := x.bundle(), x.trust()
	if r := Verify(bundle, trust); !r.Verified {
		t.Fatalf("without signers from elsewhere: %s", problems(r))
	}
	trust.Signers = []byte(x.allowed)
	got := Verify(bundle, trust)
	if got.Verified || len(got.Problems) != 4 {
		t.Errorf("verified: %v, %d problems: %s", got.Verified, len(got.Problems), problems(got))
	}
	for _, want := range []string{"exception for the second build by bob", "sign-off tried by ann", "sign-off tried by bob", "sign-off legal by eve"} {
		if !strings.Contains(problems(got), want) {
			t.Errorf("nothing is said of the %s: %s", want, problems(got))
		}
	}
}

// TestAttackWordsForAnEarlierStart: whoever runs control keeps a sign-off back that somebody gave
// it, aborts the release, and starts it again: no decision of the earlier start counts, and no
// word that was given for it is good for this one.
func TestAttackWordsForAnEarlierStart(t *testing.T) {
	x := newStory(t, "4.2")
	x.begin()
	kept := x.word("legal", "eve", release.Approve, NamespaceSignOff)
	x.decide(release.Aborted{Reason: "a hole", Person: "bob"})
	x.begin()
	if by, err := x.moment().Check(kept); err == nil || !strings.Contains(err.Error(), "started again") {
		t.Errorf("it is taken, as signed by %v: %v", by, err)
	}
	x.sign("legal", "eve", release.Approve)
}
