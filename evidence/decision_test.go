package evidence

import (
	"strings"
	"testing"
	"time"

	"trysail/release"
)

// TestDecision: a decision that is signed says what its event says, to the last word, and a
// bundle holds it. Whatever is changed in it is found.
func TestDecision(t *testing.T) {
	candidate := &release.Source{VCS: "git", URL: "https://example.org/app.git", Revision: strings.Repeat("cd", 20)}
	for _, c := range []struct {
		name   string
		make   func(x *story) release.Personal
		says   []string // of its statement
		change func(b release.Personal) release.Personal
	}{
		{
			"amendment", func(x *story) release.Personal {
				x.begin()
				s := *candidate
				s.Original = x.blob("next source")
				return release.Amended{What: []string{"source"}, Source: &s, Reason: "a bug", By: "eve"}
			},
			[]string{`"event": "amended"`, `"reason": "a bug"`, `"name": "source"`, `"gitCommit": "cdcd`, "eve proposes to change source: a bug"},
			func(b release.Personal) release.Personal { x := b.(release.Amended); x.Reason = "none"; return x },
		},
		{
			"agreement", func(x *story) release.Personal {
				x.begin()
				s := *candidate
				s.Original = x.blob("next source")
				open := x.decide(release.Amended{What: []string{"source"}, Source: &s, Reason: "a bug", By: "eve"})
				return release.Agreed{Amendment: open, Person: "ann", Decision: release.Approve}
			},
			[]string{`"event": "agreed"`, `"amendment": 2`, `"decision": "approve"`, `"name": "source"`},
			func(b release.Personal) release.Personal {
				x := b.(release.Agreed)
				x.Decision = release.Reject
				return x
			},
		},
		{
			"withdrawal", func(x *story) release.Personal {
				x.begin()
				x.sign("legal", "eve", release.Reject)
				return release.Withdrawn{Item: "legal", Person: "eve", Reason: "mended"}
			},
			[]string{`"event": "withdrawn"`, `"item": "legal"`, `"name": "what legal is about"`},
			func(b release.Personal) release.Personal { x := b.(release.Withdrawn); x.Item = "tried"; return x },
		},
		{
			"abort", func(x *story) release.Personal {
				x.begin()
				return release.Aborted{Reason: "no time", Person: "bob"}
			},
			[]string{`"event": "aborted"`, `"reason": "no time"`, `"name": "runbook"`},
			func(b release.Personal) release.Personal { x := b.(release.Aborted); x.Reason = "a hole"; return x },
		},
	} {
		x := newStory(t, "4.2")
		b := x.draft(c.make(x), NamespaceSignOff)
		for _, want := range c.says {
			if !strings.Contains(b.Signed().Statement, want) {
				t.Errorf("%s: no %s in\n%s", c.name, want, b.Signed().Statement)
			}
		}
		if _, err := x.moment().Check(b); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		version, read, g, err := ReadStatement([]byte(b.Signed().Statement))
		if err != nil || version != "4.2" || Title(read) != Title(b) || read.Decider() != b.Decider() || g.Nonce != b.Signed().Nonce {
			t.Errorf("%s is read as %+v of %s: %v", c.name, read, version, err)
		}
		with := func(f func(p *release.Proof)) release.Personal {
			p := *b.Signed()
			f(&p)
			return b.Prove(&p)
		}
		for what, bad := range map[string]release.Personal{
			"the event is another": c.change(b),
			"it is not signed":     b.Prove(nil),
			"another's key": with(func(p *release.Proof) {
				p.Signature = x.proof([]byte(p.Statement), map[string]string{"eve": "ann", "ann": "eve", "bob": "eve"}[b.Decider()], NamespaceSignOff, p.Nonce).Signature
			}),
			"another namespace": with(func(p *release.Proof) {
				p.Signature = x.proof([]byte(p.Statement), b.Decider(), NamespaceBundle, p.Nonce).Signature
			}),
			"another nonce": with(func(p *release.Proof) { p.Nonce += "0" }),
			"another key":   with(func(p *release.Proof) { p.Key = "SHA256:other" }),
			"a longer time": with(func(p *release.Proof) {
				p.Statement = strings.Replace(p.Statement, `"signed": "2026`, `"signed": "2025`, 1)
			}),
			"a sign-off's statement": with(func(p *release.Proof) {
				p.Statement = x.word("legal", "eve", release.Approve, NamespaceSignOff).Statement
			}),
			"no statement": with(func(p *release.Proof) { p.Statement = "{}" }),
		} {
			if _, err := x.moment().Check(bad); err == nil {
				t.Errorf("%s: it is taken: %s", c.name, what)
			}
		}
		m := x.moment()
		m.At = x.now.Add(2 * time.Hour)
		if _, err := m.Check(b); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("%s: a statement that expired: %v", c.name, err)
		}
		x.must(b)
	}
}

// TestAbortedBefore: a bundle holds the starts of its version that were aborted, with who
// aborted them, and verify names them.
func TestAbortedBefore(t *testing.T) {
	x := newStory(t, "4.2")
	x.begin()
	x.sign("legal", "eve", release.Approve)
	x.decide(release.Aborted{Reason: "a hole", Person: "bob"})
	x.ship()
	b := x.bundle()
	r := Verify(b, x.trust())
	if !r.Verified || len(r.Decisions) != 1 || r.Decisions[0].Person != "bob" || r.Decisions[0].Key == "" || len(r.SignOffs) != 4 {
		t.Fatalf("%+v", r)
	}
	if text := strings.Join(r.Attention, "\n"); !strings.Contains(text, "aborted by event 3, before it had gold: a hole") {
		t.Errorf("the earlier start is not named: %s", text)
	}
	name := "signoffs/0003-aborted-bob.json"
	if b[name] == nil || b[name+".sig"] == nil {
		t.Fatalf("no %s", name)
	}
	b[name].Data = []byte(strings.Replace(string(b[name].Data), "a hole", "a mole", 1))
	if r := Verify(b, x.trust()); r.Verified {
		t.Error("another reason verifies")
	}
}
