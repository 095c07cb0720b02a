package evidence

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/ssh"

	"trysail/release"
)

// signOffs holds each against its signature, the rules of its moment, and its files.
func (c *check) signOffs(h *history, tree *Tree) {
	files, err := signOffFiles(h, tree)
	if err != nil {
		c.fail(eventsFile, "%v", err)
		return
	}
	want := map[string]string{}
	for name, data := range files {
		want[name] = sum(data)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch got := c.sums[name]; {
		case got == "":
			c.fail(name, "the ledger has this sign-off, and it is not there")
		case got != want[name]:
			c.fail(name, "is not the sign-off of the ledger")
		}
	}
	c.nothingElse(signOffDir, want)

	trusted := map[string]string{}
	for _, d := range h.signers {
		trusted[signersFile(d)] = ""
	}
	c.nothingElse(signersDir, trusted)
	for file, digest := range map[string]string{allowedFile: h.state.Signers, revokedFile: h.state.Revoked} {
		if got := c.sums[file]; digest == "" && got != "" || digest != "" && sha256Algorithm+":"+got != digest {
			c.fail(file, "is not the file that was in force at the end")
		}
	}
	m := Moment{State: release.Empty(), Stream: Stream(h.state.Started.Version), Log: c.log, Root: tree.Root}
	words := 0
	for _, e := range h.events {
		if b, ok := e.Body.(release.Personal); ok {
			key := ""
			_, off := b.(release.Signed)
			switch {
			case b.Signed() != nil:
				key = c.signature(&m, e, b)
			case c.trust.Signers != nil && (off || m.State.Started.Rules >= 4): // in releases of before, no decision but a sign-off could be signed
				c.fail(eventsFile, "event %d: the %s by %s has no signature, and --signers demands one", e.Seq, Title(b), b.Decider())
			}
			if x, ok := b.(release.Signed); ok {
				c.r.SignOffs = append(c.r.SignOffs, SignedOff{e.Seq, x.Item, x.Person, string(x.Decision), stamp(e), key})
				if b.Signed() == nil {
					words++
				}
			} else {
				c.r.Decisions = append(c.r.Decisions, Decided{e.Seq, e.Type, b.Decider(), release.Sentence(e), stamp(e), key})
				if b.Signed() == nil {
					c.r.Attention = append(c.r.Attention, fmt.Sprintf("event %d: control took this decision without a signature: %s", e.Seq, release.Sentence(e)))
				}
			}
		}
		if err := m.State.Apply(e); err != nil {
			return // it was folded before
		}
	}
	c.author(h)
	for _, a := range h.state.Earlier {
		c.r.Attention = append(c.r.Attention, fmt.Sprintf("an earlier start of this release was aborted by event %d, before it had gold: %s", a.Event, a.Why))
	}
	if words > 0 {
		c.r.Attention = append(c.r.Attention, fmt.Sprintf("%d sign-off(s) are a person's word to control, and no signature", words))
	}
}

// author says if it could not be seen who may not approve.
func (c *check) author(h *history) {
	s := h.state
	if s.Signers != "" && !slices.ContainsFunc(s.People, func(p release.Person) bool { return s.Wrote(p.Name) }) {
		c.r.Attention = append(c.r.Attention, fmt.Sprintf("nobody of the runbook is known as %q, who wrote the revision: whether its author approved it cannot be seen", s.Source.Author))
	}
}

func stamp(e release.Event) string { return e.Time.UTC().Format("2006-01-02T15:04:05Z") }

// signature holds one against its moment, and gives the fingerprint of its key.
func (c *check) signature(m *Moment, e release.Event, b release.Personal) string {
	name := signOffName(e, b) + ".json"
	allowed, revoked := c.trust.Signers, c.trust.Revoked
	var err error
	if allowed == nil {
		if allowed, err = c.blob(m.State.Signers, signersFile(m.State.Signers)); err != nil {
			c.fail(name, "%v", err)
			return ""
		}
	}
	if m.Signers, err = ParseSigners(allowedFile, allowed); err != nil {
		c.fail(name, "%v", err)
		return ""
	}
	then, err := c.blob(m.State.Revoked, signersFile(m.State.Revoked))
	if err != nil {
		c.fail(name, "%v", err)
		return ""
	}
	m.Revoked = nil
	for _, data := range [][]byte{then, revoked} {
		list, err := ParseRevoked(revokedFile, data)
		if err != nil {
			c.fail(name, "%v", err)
			return ""
		}
		m.Revoked = append(m.Revoked, list...)
	}
	m.At = e.Time
	by, err := m.Check(b)
	if err != nil {
		c.fail(name, "%v", err)
		return ""
	}
	return ssh.FingerprintSHA256(by.Key)
}
