package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"trysail/release"
	"trysail/runbook"
)

// Statement is one of in-toto's.
type Statement[P any] struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     P          `json:"predicate"`
}

// Resource is something that has a digest.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
	// Annotations are of a list of files.
	Annotations *Listed `json:"annotations,omitempty"`
}

// Listed says what is in a list of files.
type Listed struct {
	Files int      `json:"files"`
	Bytes int64    `json:"bytes"`
	First []string `json:"first"` // some of their paths
}

// listOf is the list of the files that an item made.
func listOf(item string, m release.Made) Resource {
	r := resource("list of the files of "+item, m.Digest())
	first := m.First
	for i := 0; m.Tree == "" && i < min(len(m.Outputs), 5); i++ {
		first = append(first, m.Outputs[i].Path)
	}
	r.Annotations = &Listed{m.Files, m.Bytes, first}
	return r
}

// named tells whether a statement names each file of what the items made that it is about:
// where they are many it names their lists.
func named(s *release.State, needs []string) bool {
	var all []release.Artifact
	for _, n := range needs {
		all = append(all, s.Made(n).Outputs...)
	}
	return s.Started.Rules < 3 || release.FitsEvent(all)
}

func resource(name, digest string) Resource {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return Resource{Name: name, Digest: map[string]string{algorithm: hex}}
}

// SignOff is what a person says.
type SignOff struct {
	Release  string           `json:"release"`
	Item     string           `json:"item"`
	Asked    string           `json:"asked"`    // word for word
	Question string           `json:"question"` // digest of it, and of the bytes it is about
	Decision release.Decision `json:"decision"`
	Meaning  string           `json:"meaning"`
	Reason   string           `json:"reason,omitempty"`
	Person   string           `json:"person"`
	Name     string           `json:"name,omitempty"`
	Role     string           `json:"role,omitempty"` // the group that was asked
	Revision string           `json:"revision"`
	Runbook  string           `json:"runbook"`
	Evidence []Resource       `json:"evidence,omitempty"` // logs of what it is about
	Spent    float64          `json:"spent_seconds,omitempty"`
	Signing
}

// draftSignOff writes the statement of a sign-off.
func draftSignOff(s *release.State, b release.Signed, g Signing) ([]byte, error) {
	x := s.Item(b.Item)
	if x == nil || x.Kind != runbook.SignOff {
		return nil, &Error{fmt.Sprintf("release %s has no sign-off %s", s.Started.Version, b.Item), "trysail release status " + s.Started.Version}
	}
	who := s.Person(b.Person)
	p := SignOff{
		Release: s.Started.Version, Item: x.Name, Asked: x.Text, Question: s.Subject(x), Decision: b.Decision, Reason: b.Reason,
		Person: b.Person, Name: who.Full, Revision: s.Source.Revision, Runbook: s.Runbook, Spent: b.Spent.Seconds(), Signing: g,
	}
	if i := slices.IndexFunc(x.Asked, func(g string) bool { return slices.Contains(who.Groups, g) }); i >= 0 {
		p.Role = x.Asked[i]
	}
	p.Meaning = fmt.Sprintf("%s says %s to %q, for release %s", or(who.Full, b.Person), b.Decision, x.Text, p.Release)
	st := Statement[SignOff]{Type: statementType, PredicateType: signOffType, Predicate: p}
	each := named(s, x.Needs)
	for _, n := range x.Needs {
		m := s.Made(n)
		if m.Tree != "" || !each && m.Files > 0 {
			st.Subject = append(st.Subject, listOf(n, m))
		} else {
			for _, a := range m.Outputs {
				if a.Digest != "" { // a link has none
					st.Subject = append(st.Subject, resource(a.Path, a.Digest))
				}
			}
		}
		if r := s.Progress[n].Result; r != nil && r.Log != "" {
			st.Predicate.Evidence = append(st.Predicate.Evidence, resource("log of "+n, r.Log))
		}
	}
	if len(st.Subject) == 0 { // a statement is about something: the document that asks
		st.Subject = append(st.Subject, resource("runbook", s.Runbook))
	}
	return render(st)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// render writes JSON for people, in one way.
func render(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}
