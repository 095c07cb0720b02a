package runbook

import (
	"slices"
	"time"
)

// Plan is the order of a runbook.
type Plan struct {
	// Waves hold names: what stands in one wave needs nothing that stands in the
	// same or a later one, and so may be done beside it.
	Waves [][]string
	// Critical is the longest chain by budgets, first to last.
	Critical []string
	Length   time.Duration // of the critical chain
	Machines time.Duration // sum of the steps' budgets
	People   time.Duration // sum of the sign-offs' budgets, each as often as people must say yes
	Notes    []Note
}

// Note is something that is allowed, and that a reader should know.
type Note struct {
	Line int
	Text string
}

// Plan gives the order. The runbook is one that Parse gave: it has no cycle.
func (r *Runbook) Plan() *Plan {
	p := &Plan{}
	wave := map[string]int{}
	end := map[string]time.Duration{}
	before := map[string]string{}
	for _, x := range r.Order() {
		for _, n := range x.Needs {
			wave[x.Name] = max(wave[x.Name], wave[n]+1)
			if end[n] > end[x.Name] || before[x.Name] == "" {
				end[x.Name], before[x.Name] = end[n], n
			}
		}
		end[x.Name] += x.Budget
		for len(p.Waves) <= wave[x.Name] {
			p.Waves = append(p.Waves, nil)
		}
		p.Waves[wave[x.Name]] = append(p.Waves[wave[x.Name]], x.Name)
		if x.Kind == SignOff {
			p.People += x.Budget * time.Duration(max(x.Approvals, 1)) // each of them works for it
		} else {
			p.Machines += x.Budget
		}
	}
	last := ""
	for _, x := range r.Items {
		if last == "" || end[x.Name] >= end[last] {
			last = x.Name
		}
	}
	for n := last; n != ""; n = before[n] {
		p.Critical = append(p.Critical, n)
	}
	slices.Reverse(p.Critical)
	p.Length = end[last]
	p.Notes = r.notes(p)
	return p
}

// Order lists the items so that each stands after what it needs, else as written.
func (r *Runbook) Order() []*Item {
	var list []*Item
	at := r.places()
	seen := make([]bool, len(r.Items))
	var visit func(place int)
	visit = func(place int) {
		if seen[place] {
			return
		}
		seen[place] = true
		x := &r.Items[place]
		var before []int // in the order in which they are written
		for _, n := range x.Needs {
			if i, known := at[n]; known && !seen[i] {
				before = append(before, i)
			}
		}
		slices.Sort(before)
		for _, i := range before {
			visit(i)
		}
		list = append(list, x)
	}
	for i := range r.Items {
		visit(i)
	}
	return list
}

func (r *Runbook) notes(p *Plan) []Note {
	var list []Note
	note := func(line int, text string) { list = append(list, Note{line, text}) }
	if r.Budget > 0 && p.People > r.Budget {
		note(0, "people's budgets add up to "+p.People.String()+", more than the "+r.Budget.String()+" of the release")
	}
	at := r.places()
	for _, x := range r.Items {
		for _, n := range x.Needs {
			if y := &r.Items[at[n]]; y.Line > x.Line {
				note(x.Line, x.Name+" needs "+n+", which stands below it: who reads from top to bottom meets it too early")
			}
		}
		if x.Kind == Step && x.Timeout == 0 {
			note(x.Line, x.Name+" has no timeout: it may hang for ever")
		}
		if x.Kind == SignOff && len(x.Needs) == 0 {
			note(x.Line, x.Name+" needs nothing: it can be signed before anything is built")
		}
		if role := r.Role(x.Role); role != nil && role.Blueprint == "" {
			note(x.Line, x.Name+" runs plainly on its host: its rebuild is not proven")
		}
		if x.HostNetwork {
			note(x.Line, x.Name+" has its machine's own network: it can reach control and every service of that machine")
		}
		if x.Kind == Publish && !x.Network {
			note(x.Line, x.Name+` publishes without the network: add "network":"true" if it needs one`)
		}
	}
	return list
}
