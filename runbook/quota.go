package runbook

import (
	"fmt"
	"maps"
	"slices"
)

// Quota is how many of a group must say yes.
type Quota struct {
	Who       string   `json:"who"`
	Of        []string `json:"of"` // people, the group expanded
	Approvals int      `json:"approvals"`
}

// Counted are the quotas of a sign-off, in one form for all.
func (x *Item) Counted() []Quota {
	if len(x.Quotas) > 0 {
		return x.Quotas
	}
	return []Quota{{Of: x.Signers, Approvals: x.Approvals}}
}

// Places are the approvals that quotas ask for. A person fills one, of a quota that
// counts them, and moves to another if somebody else then fits too.
type Places struct {
	free []int
	in   map[string]int
	came []string        // those who are in, in the order in which they came
	full map[string]bool // quotas by which nobody more finds a place: none is given back
}

// PlacesOf gives the places of quotas, empty.
func PlacesOf(quotas []Quota) *Places {
	p := &Places{in: map[string]int{}, full: map[string]bool{}}
	for _, q := range quotas {
		p.free = append(p.free, q.Approvals)
	}
	return p
}

// Clone copies them, so that a caller may try a person.
func (p *Places) Clone() *Places {
	return &Places{slices.Clone(p.free), maps.Clone(p.in), slices.Clone(p.came), maps.Clone(p.full)}
}

// Filled tells how many are.
func (p *Places) Filled() int { return len(p.in) }

// Give finds a place for a person, and tells whether there is one. counts has the quotas
// that count each person.
func (p *Places) Give(person string, counts map[string][]int) bool {
	by := fmt.Sprint(counts[person])
	if _, has := p.in[person]; has || p.full[by] {
		return false
	}
	seen := map[int]bool{}
	var find func(person string) bool
	find = func(person string) bool {
		for _, i := range counts[person] {
			if seen[i] {
				continue
			}
			seen[i] = true
			if p.free[i] > 0 {
				p.free[i]--
				p.in[person] = i
				return true
			}
			for _, other := range p.came {
				if p.in[other] == i && find(other) {
					p.in[person] = i
					return true
				}
			}
		}
		return false
	}
	if !find(person) {
		p.full[by] = true
		return false
	}
	p.came = append(p.came, person)
	return true
}
