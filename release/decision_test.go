package release

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// decisions are one of each kind, which the rules allow in the situation that it makes.
func decisions() map[string]func(g *game) Personal {
	return map[string]func(g *game) Personal{
		"withdraw": func(g *game) Personal {
			g.must(Signed{Item: "legal", Person: "eve", Decision: Reject, Subject: g.s.Subject(g.s.Item("legal")), Reason: "r", Statement: "s", Signature: "s", Nonce: "n", Key: "SHA256:eve"})
			return Withdrawn{Item: "legal", Person: "eve", Reason: "mended"}
		},
		"waive": func(g *game) Personal {
			g.run("compile", "a", "obj/a", "obj")
			epoch := g.must(Granted{Item: "test", Machine: "a"})
			g.must(Finished{Item: "test", Epoch: epoch, Tests: 2, Failing: []string{"t1"}})
			return Waived{Item: "test", Test: "t1", Person: "ann", Reason: "flaky"}
		},
		"amend": func(g *game) Personal {
			return Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:2"}, Reason: "r", By: "eve"}
		},
		"agree": func(g *game) Personal {
			open := g.must(decisions()["amend"](g))
			return Agreed{Amendment: open, Person: "ann", Decision: Approve}
		},
		"refuse a change": func(g *game) Personal {
			open := g.must(decisions()["amend"](g))
			return Agreed{Amendment: open, Person: "ann", Decision: Reject}
		},
		"abort": func(g *game) Personal { return Aborted{Reason: "a hole", Person: "bob"} },
	}
}

// TestDecisionsAreSigned: where the release has allowed signers, nobody decides by a word
// alone; where it has none, a signature says nothing; before rules 4 nothing changed.
func TestDecisionsAreSigned(t *testing.T) {
	good := Proof{Statement: "s", Signature: "s", Nonce: "this one", Key: "SHA256:key"}
	but := func(f func(p *Proof)) *Proof { p := good; f(&p); return &p }
	for what, make := range decisions() {
		for _, c := range []struct {
			name, signers string
			rules         int
			proof         *Proof
			want          string
		}{
			{"signed", "sha256:keys", 4, &good, ""},
			{"a word", "sha256:keys", 4, nil, "sign the decision with an SSH key"},
			{"no statement", "sha256:keys", 4, but(func(p *Proof) { p.Statement = "" }), "is incomplete"},
			{"no signature", "sha256:keys", 4, but(func(p *Proof) { p.Signature = "" }), "is incomplete"},
			{"no nonce", "sha256:keys", 4, but(func(p *Proof) { p.Nonce = "" }), "is incomplete"},
			{"no key", "sha256:keys", 4, but(func(p *Proof) { p.Key = "" }), "is incomplete"},
			{"given before", "sha256:keys", 4, but(func(p *Proof) { p.Nonce = "before" }), "was used before"},
			{"a word, of a release without signers", "", 4, nil, ""},
			{"signed, of a release without signers", "", 4, &good, "takes no signed decisions"},
			{"a word, by older rules", "sha256:keys", 3, nil, ""},
			{"signed, by older rules", "sha256:keys", 3, &good, "takes no signed decisions"},
		} {
			if what == "withdraw" && c.signers == "" {
				continue // what was signed stays so
			}
			g := begin(t)
			g.s.Signers = "sha256:keys"
			b := make(g)
			g.s.Signers, g.s.Started.Rules = c.signers, c.rules
			g.s.Nonces["before"] = true
			before, _ := json.Marshal(g.s)
			err := g.bare(b.Prove(c.proof))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s, %s: %v", what, c.name, err)
			}
			if after, _ := json.Marshal(g.s); err != nil && string(after) != string(before) {
				t.Errorf("%s, %s: a refused event changed the state", what, c.name)
			}
			if err == nil && c.proof != nil && !g.s.Nonces["this one"] {
				t.Errorf("%s: its signature is good a second time", what)
			}
		}
	}
}

// TestKeyOfADecision: the key of a decision tells who decides, before the rules are asked.
func TestKeyOfADecision(t *testing.T) {
	g := begin(t)
	g.s.Signers = "sha256:keys"
	proof := func(key, nonce string) *Proof { return &Proof{"s", "s", nonce, key} }
	open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:2"}, Reason: "r", By: "ann", Proof: proof("SHA256:a", "1")})
	g.refused(Agreed{Amendment: open, Person: "bob", Decision: Approve, Proof: proof("SHA256:a", "2")}, "bob proposed it")
	if len(g.s.Keys["SHA256:a"]) != 1 {
		t.Errorf("a refused decision is remembered: %q", g.s.Keys)
	}
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve, Proof: proof("SHA256:b", "2")})
	if g.s.Amendment != nil {
		t.Error("the change is open")
	}
}

// TestAbort: an abort needs a reason; it frees the version, unless there is gold.
func TestAbort(t *testing.T) {
	g := begin(t)
	g.refused(Aborted{Person: "ann"}, "needs a reason")
	g.refused(Aborted{Reason: "  "}, "needs a reason")
	g.s.Signers = "sha256:keys"
	g.refused(Aborted{Reason: "r", Person: "nobody"}, `names no person "nobody"`)
	g.must(Aborted{Reason: "r", Person: "eve"})
	if !g.s.Free() {
		t.Error("the version is not free")
	}
	g = begin(t)
	g.s.Started.Rules = 3
	g.must(Aborted{}) // as it was
	g = begin(t)
	g.run("compile", "a", "obj/a", "obj")
	g.run("test", "a", "", "")
	g.run("gold", "a", "dist/app", "gold")
	g.must(Aborted{Reason: "r"})
	g.refused(g.s.Started, "its version is used up")
}

// TestStartedAgain: nothing of an earlier start counts, and nothing of it is lost.
func TestStartedAgain(t *testing.T) {
	g := begin(t)
	start := g.s.Started
	g.refused(start, "started already")
	g.s.Signers = "sha256:keys"
	sign := func(nonce string) Signed {
		return Signed{Item: "legal", Person: "eve", Decision: Approve, Subject: g.s.Subject(g.s.Item("legal")), Statement: "s", Signature: "s", Nonce: nonce, Key: "SHA256:e"}
	}
	word := sign("one")
	g.must(word)
	epoch := g.must(Granted{Item: "compile", Machine: "a"})
	g.must(Held{Reason: "a hole"})
	g.must(Aborted{Reason: "a hole", Person: "ann"})
	head := g.s.Head

	other := start
	other.Version = "4.3"
	g.refused(other, "the stream is that of release 4.2")
	old := start
	old.Rules = 3
	g.refused(old, "by rules 4 and later")
	bad := start
	bad.Source.VCS = "hg"
	g.refused(bad, "no version control")
	start.Signers = "sha256:keys"
	g.must(start)
	g.status(map[string]Status{"legal": Ready, "compile": Ready})
	if g.s.Head != head+1 || g.s.Phase != Running || g.s.Candidate != 1 || len(g.s.Spent) != 0 || len(g.s.Keys) != 0 || len(g.s.Began) != 0 {
		t.Errorf("something of the earlier start is left: %+v", g.s)
	}
	if len(g.s.Earlier) != 1 || g.s.Earlier[0].Event != head || g.s.Earlier[0].Why != "a hole" {
		t.Errorf("the earlier start is forgotten: %+v", g.s.Earlier)
	}
	g.refused(Finished{Item: "compile", Epoch: epoch}, "not in force")
	g.refused(word, "used before")
	g.must(sign("two"))
	r, err := Retrospect(unsigned(g.events), time.LoadLocation)
	if err != nil || len(r.Earlier) != 1 || len(r.Timeline) != 1 || len(r.Holds) != 0 || !strings.Contains(r.Markdown(), "and aborted at") {
		t.Errorf("the report: %+v, %v", r, err)
	}
	if list := LastAttempt(g.events); list[0].Seq != head+1 || len(list) != int(g.s.Head-head) {
		t.Errorf("the last attempt has %d events, from %d", len(list), list[0].Seq)
	}
}

// unsigned are the events up to the last start, as they are where nobody has allowed signers.
func unsigned(events []Event) []Event {
	var list []Event
	for _, e := range events {
		if b, ok := e.Body.(Personal); ok {
			e.Body = b.Prove(nil)
		}
		if b, ok := e.Body.(Started); ok {
			b.Signers = ""
			e.Body = b
			if e.Seq > 1 {
				return append(list, e)
			}
		}
		list = append(list, e)
	}
	return list
}
