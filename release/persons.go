package release

import (
	"slices"
	"strings"
)

// persons tells which names are one person: those that have an e-mail address or a full
// name in common, or a key that signed, in any runbook of the release.
type persons map[string]string // towards the sign of a person: see find

func (s *State) persons() persons {
	p := persons{}
	for _, list := range [][]Person{s.Met, s.People} {
		for _, q := range list {
			p.join(nameSign(q.Name), mailSign(q.Email))
			p.join(nameSign(q.Name), fullSign(q.Full))
		}
	}
	for key, names := range s.Keys {
		for _, name := range names {
			p.join(nameSign(name), keySign(key))
		}
	}
	return p
}

func nameSign(s string) string { return sign("name ", s) }
func mailSign(s string) string { return sign("mail ", s) }
func fullSign(s string) string { return sign("full ", s) }

// keySign takes a fingerprint, in which upper and lower case are two letters.
func keySign(s string) string {
	if s == "" {
		return ""
	}
	return "key " + s
}

// sign is "" where there is nothing to know a person by.
func sign(kind, s string) string {
	s = strings.ToLower(strings.Join(strings.Fields(s), " "))
	if s == "" {
		return ""
	}
	return kind + s
}

// find gives the sign that stands for a person. It leads those on the way there at once: a runbook
// may name thousands of people who are one.
func (p persons) find(sign string) string {
	last := sign
	for next := p[last]; next != ""; next = p[last] {
		last = next
	}
	for next := p[sign]; next != "" && next != last; next = p[sign] {
		p[sign] = last
		sign = next
	}
	return last
}

func (p persons) join(a, b string) {
	if a, b = p.find(a), p.find(b); a != b && a != "" && b != "" {
		p[b] = a
	}
}

// of gives the sign of the person who has a name.
func (p persons) of(name string) string { return p.find(nameSign(name)) }

func (p persons) same(a, b string) bool { return p.of(a) == p.of(b) }

// Same tells whether two names are one person.
func (s *State) Same(a, b string) bool {
	if s.Started.Rules < 3 {
		return a == b
	}
	return s.persons().same(a, b)
}

// Wrote tells whether a person wrote the revision that is released: by any e-mail address
// and name of theirs.
func (s *State) Wrote(person string) bool { return s.wrote(s.persons(), s.Source, person) }

func (s *State) wrote(p persons, source Source, person string) bool {
	if s.Started.Rules < 3 {
		author := source.Author
		return author != "" && (strings.EqualFold(author, person) || strings.EqualFold(author, s.Person(person).Email))
	}
	who := p.of(person)
	return slices.ContainsFunc(authorSigns(source.Author), func(sign string) bool { return sign != "" && p.find(sign) == who })
}

// authorSigns are those of an author as version control knows them: Name <address>, an
// address, or a name.
func authorSigns(author string) []string {
	name, mail, both := strings.Cut(author, "<")
	if !both {
		return []string{nameSign(author), mailSign(author), fullSign(author)}
	}
	return []string{nameSign(name), fullSign(name), mailSign(strings.TrimSuffix(strings.TrimSpace(mail), ">"))}
}

// approvers lists who may decide on something: an approver whom no is not true of, each
// person once.
func (s *State) approvers(no func(name string) bool) []string {
	p, there := s.persons(), map[string]bool{}
	var list []string
	for _, who := range s.Approvers {
		twice := s.Started.Rules >= 3 && there[p.of(who)]
		if !twice && !no(who) {
			list, there[p.of(who)] = append(list, who), true
		}
	}
	return list
}
