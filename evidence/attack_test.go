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

// TestAttackWordsForAnEarlierStart: a hostile control keeps a sign-off back, aborts the release,
// and starts it again. No decision or sign-off of the earlier start counts for the new one.
func TestAttackWordsForAnEarlierStart(t *testing.T) {
	x := newStory(t, "4.2")
	x.begin()
	kept := x.word("legal", "eve", release.Approve, NamespaceSignOff)
	x.decide(release.Aborted{Reason: "a hole", Person: "bob"})
	x.begin()
	if by, err := x.moment().Check(kept); err == nil || !strings.Contains(err.Error(), "earlier start of this release") {
		t.Errorf("it is taken, as signed by %v: %v", by, err)
	}
	x.sign("legal", "eve", release.Approve)
}

// TestAttackSignersOfNoRevision: who starts a release gives it keys of their own for those of the
// team, and says that the runbook is of the revision, and nothing of the keys. Somebody who
// compares the release with that revision is told that these cannot be compared.
func TestAttackSignersOfNoRevision(t *testing.T) {
	for _, c := range []struct {
		name   string
		origin func(b release.Started) release.Origin
		says   []string // of what
	}{
		{"all is named", func(b release.Started) release.Origin {
			return release.Origin{Revision: b.Source.Revision, Files: []release.File{{Path: "RELEASE.md", Digest: b.Runbook}, {Path: "allowed_signers", Digest: b.Signers}}}
		}, nil},
		{"the signers are left out", func(b release.Started) release.Origin {
			return release.Origin{Revision: b.Source.Revision, Files: []release.File{{Path: "RELEASE.md", Digest: b.Runbook}}}
		}, []string{"allowed_signers"}},
		{"everything is", func(release.Started) release.Origin { return release.Origin{} }, []string{"the runbook", "allowed_signers"}},
	} {
		x := newStory(t, "4.2")
		b := x.started()
		b.Origin = c.origin(b)
		x.must(b)
		x.run("compile", "a", "obj/a", "object")
		x.run("gold", "a", "dist/app", "the program")
		epoch := x.must(release.Granted{Item: "gold", Machine: "b", Confirm: true})
		x.must(release.Confirmed{Epoch: epoch, Verdict: release.Identical, Log: x.blob("second log")})
		x.signAll()
		x.must(release.Shipped{})
		r := Verify(x.bundle(), x.trust())
		if !r.Verified || len(r.Unnamed) != len(c.says) {
			t.Errorf("%s: %s, %q", c.name, problems(r), r.Unnamed)
		}
		for i, want := range c.says {
			if i < len(r.Unnamed) && !strings.Contains(r.Unnamed[i], want) {
				t.Errorf("%s: %q says nothing of %s", c.name, r.Unnamed[i], want)
			}
		}
	}
}
