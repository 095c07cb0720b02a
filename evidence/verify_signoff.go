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
		switch e.Body.(type) {
		case release.Waived, release.Excepted, release.Withdrawn, release.Amended, release.Agreed:
			c.r.Attention = append(c.r.Attention, fmt.Sprintf("event %d is a word to control, and no signature: %s", e.Seq, release.Sentence(e)))
		case release.Started:
			c.author(h)
		}
		if b, ok := e.Body.(release.Signed); ok {
			if b.Statement == "" {
				words++
				c.r.SignOffs = append(c.r.SignOffs, SignedOff{e.Seq, b.Item, b.Person, string(b.Decision), stamp(e), ""})
			} else {
				c.signOff(&m, e, b)
			}
		}
		if err := m.State.Apply(e); err != nil {
			return // it was folded before
		}
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

func (c *check) signOff(m *Moment, e release.Event, b release.Signed) {
	name := signOffName(e, b) + ".json"
	allowed, revoked := c.trust.Signers, c.trust.Revoked
	var err error
	if allowed == nil {
		if allowed, err = c.blob(m.State.Signers, signersFile(m.State.Signers)); err != nil {
			c.fail(name, "%v", err)
			return
		}
	}
	if m.Signers, err = ParseSigners(allowedFile, allowed); err != nil {
		c.fail(name, "%v", err)
		return
	}
	then, err := c.blob(m.State.Revoked, signersFile(m.State.Revoked))
	if err != nil {
		c.fail(name, "%v", err)
		return
	}
	m.Revoked = nil
	for _, data := range [][]byte{then, revoked} {
		list, err := ParseRevoked(revokedFile, data)
		if err != nil {
			c.fail(name, "%v", err)
			return
		}
		m.Revoked = append(m.Revoked, list...)
	}
	m.At = e.Time
	by, err := m.Check(b)
	if err != nil {
		c.fail(name, "%v", err)
		return
	}
	c.r.SignOffs = append(c.r.SignOffs, SignedOff{e.Seq, b.Item, b.Person, string(b.Decision), stamp(e), ssh.FingerprintSHA256(by.Key)})
}
