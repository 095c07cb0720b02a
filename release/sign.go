package release

import (
	"slices"

	"trysail/runbook"
)

func (s *State) sign(e Event, b Signed) error {
	x, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	who := s.persons()
	who.join(nameSign(b.Person), keySign(b.Key)) // the key of this signature tells too
	switch {
	case x.Kind != runbook.SignOff:
		return forbid(b, "%s is a %s, which nobody signs", b.Item, x.Kind)
	case !slices.Contains(x.Signers, b.Person):
		return forbid(b, "%s is not asked to sign %s", b.Person, b.Item)
	case b.Decision != Approve && b.Decision != ApproveExcept && b.Decision != Reject:
		return forbid(b, "%q is no decision", b.Decision)
	case b.Decision != Approve && s.unsaid(b.Reason):
		return forbid(b, "a rejection and an exception need a reason")
	case s.Signers != "" && (b.Statement == "" || b.Signature == "" || b.Nonce == ""):
		return forbid(b, "release %s has allowed signers: %s is signed with an SSH key", s.Started.Version, b.Item)
	case s.Signers == "" && (b.Statement != "" || b.Signature != "" || b.Nonce != ""):
		return forbid(b, "release %s has no allowed signers, so a signature says nothing", s.Started.Version)
	case s.Nonces[b.Nonce]:
		return forbid(b, "this signature was used before: sign again")
	case b.Decision != Reject && s.wrote(who, s.Source, b.Person):
		return forbid(b, "%s wrote what is released, and another signs for it", b.Person)
	case !s.statuses().needsDone(x):
		return forbid(b, "%s cannot be signed yet: what it needs is not done", b.Item)
	case b.Subject != s.Subject(x):
		return forbid(b, "what %s is about has changed since it was shown: look again", b.Item)
	case b.Spent < 0:
		return forbid(b, "time spent is negative")
	case s.Started.Rules >= 3 && s.Signers != "" && b.Key == "":
		return forbid(b, "which key signed %s is not said", b.Item)
	case (s.Signers == "" || s.Started.Rules < 3) && b.Key != "":
		return forbid(b, "release %s asks for no key", s.Started.Version)
	}
	for _, w := range p.Words {
		switch {
		case w.Subject != b.Subject:
		case w.Person == b.Person:
			return forbid(b, "%s has signed %s", b.Person, b.Item)
		case s.Started.Rules >= 3 && who.same(w.Person, b.Person):
			return forbid(b, "%s and %s are one person, who has signed %s", w.Person, b.Person, b.Item)
		}
	}
	word := Signature{Signed: b, Seq: e.Seq, At: e.Time}
	if s.Started.Rules >= 3 {
		word.Groups = s.Person(b.Person).Groups
		p.Words = append(slices.Clone(p.Words), word)
	} else {
		p.Words = append(slices.DeleteFunc(slices.Clone(p.Words), func(w Signature) bool { return w.Person == b.Person }), word)
	}
	s.Spent[b.Person] += b.Spent
	s.reach(x)
	return nil
}

func (s *State) withdraw(b Withdrawn) error {
	_, p, err := s.step(b, b.Item)
	if err != nil {
		return err
	}
	if s.Started.Rules >= 3 {
		who := s.persons()
		left := slices.DeleteFunc(slices.Clone(p.Words), func(w Signature) bool { return who.same(w.Person, b.Person) })
		if len(left) == len(p.Words) {
			return forbid(b, "%s has not signed %s", b.Person, b.Item)
		}
		p.Words = left
		return nil
	}
	i := slices.IndexFunc(p.Words, func(w Signature) bool { return w.Person == b.Person })
	if i < 0 {
		return forbid(b, "%s has not signed %s", b.Person, b.Item)
	}
	p.Words = slices.Delete(slices.Clone(p.Words), i, i+1)
	return nil
}
