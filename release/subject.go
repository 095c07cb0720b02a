package release

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/bits"
	"slices"

	"trysail/runbook"
)

// Subject is the digest of what a sign-off is about: of all that it relies on. Since
// rules 3 that is, beside what is asked, what each step that it needs, directly or
// through other items, runs and has made, and what others have signed before.
func (s *State) Subject(x *runbook.Item) string { return s.statuses().subject(x) }

func (a *statuses) subject(x *runbook.Item) string {
	if a.Started.Rules < 3 {
		return a.oldSubject(x)
	}
	if known, ok := a.about[x.Name]; ok {
		return known
	}
	q := struct {
		Release, Item, Text string
		Revision, Source    string `json:",omitempty"`
	}{Release: a.Started.Version, Item: x.Name, Text: x.Text}
	relies := sha256.New()
	for place, word := range a.behind(x) {
		for ; word != 0; word &= word - 1 {
			y := &a.Items[a.sorted[place*64+bits.TrailingZeros64(word)]]
			switch y.Kind {
			case runbook.Step, runbook.Publish:
				q.Revision, q.Source = a.Source.Revision, a.Source.Original
				relies.Write([]byte("step " + y.Name + " " + a.fact(y) + "\n"))
			case runbook.SignOff:
				relies.Write([]byte("sign-off " + y.Name + " " + a.subject(y) + "\n"))
			}
		}
	}
	a.about[x.Name] = digestOf(struct {
		Asked  any
		Relies []byte
	}{q, relies.Sum(nil)})
	return a.about[x.Name]
}

// behind is the set of all items that an item needs, directly or through others: a bit
// for each, in the order of their names, so that their order in the document says nothing.
func (a *statuses) behind(x *runbook.Item) []uint64 {
	if known, ok := a.needs[x.Name]; ok {
		return known
	}
	set := make([]uint64, (len(a.Items)+63)/64)
	for _, n := range x.Needs {
		rank := a.ranks[n]
		set[rank/64] |= 1 << (rank % 64)
		for i, word := range a.behind(a.Item(n)) {
			set[i] |= word
		}
	}
	a.needs[x.Name] = set
	return set
}

// fact is the digest of what a step runs, where, and what came of it.
func (a *statuses) fact(x *runbook.Item) string {
	if known, ok := a.facts[x.Name]; ok {
		return known
	}
	p := a.Progress[x.Name]
	q := struct {
		Script, Language, Role string
		In, Out, Results       []string `json:",omitempty"`
		Network, HostNetwork   bool
		Server, Root, Outputs  string
		Exit, Status           int
		Signal                 string   `json:",omitempty"`
		Failing                []string `json:",omitempty"`
		Waived                 []Waived `json:",omitempty"`
	}{
		Script: x.Script, Language: x.Language, Role: x.Role, In: x.In, Out: x.Out, Results: x.Results,
		Network: x.Network, HostNetwork: x.HostNetwork, Server: p.Server,
	}
	if m := a.Made(x.Name); m.Files > 0 {
		q.Outputs = m.Digest()
	}
	if r := p.Result; r != nil {
		q.Root, q.Exit, q.Status, q.Signal, q.Failing = r.Root, r.Exit, r.Status, r.Signal, r.Failing
	}
	for _, test := range slices.Sorted(maps.Keys(p.Waived)) {
		w := p.Waived[test]
		w.Proof = nil // what was waived counts, and not how it was signed
		q.Waived = append(q.Waived, w)
	}
	a.facts[x.Name] = digestOf(q)
	return a.facts[x.Name]
}

// oldSubject is that of the rules before: the bytes that the items it needs have made,
// and, where it stands on steps, the source of which they made them.
func (a *statuses) oldSubject(x *runbook.Item) string {
	type made struct {
		Item    string
		Outputs []Artifact
		Tree    string `json:",omitempty"`
	}
	q := struct {
		Release, Item, Text string
		Made                []made
		Source              string `json:",omitempty"`
	}{a.Started.Version, x.Name, x.Text, nil, ""}
	if a.Started.Rules >= 1 && a.stands(x) {
		q.Source = a.Source.Original
	}
	for _, n := range x.Needs {
		if m := a.Made(n); m.Files > 0 {
			y := made{Item: n, Tree: cmp.Or(m.Untimed, m.Tree)}
			for _, f := range m.Outputs {
				y.Outputs = append(y.Outputs, f.Untimed())
			}
			q.Made = append(q.Made, y)
		}
	}
	return digestOf(q)
}

func digestOf(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return "" // strings and numbers always marshal
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
