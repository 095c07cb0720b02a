package runbook

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"trysail/internal/strict"
)

// VersionRE matches the name of a release: it becomes part of paths and of the
// ledger's keys.
func VersionRE() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$`) }

// CheckVersion says what of a version is not allowed, and what is.
func CheckVersion(version string) error {
	if VersionRE().MatchString(version) {
		return nil
	}
	return fmt.Errorf("%q is not a version: use 1 to 64 of the letters A-Z and a-z, digits and . + _ -, and begin with a letter or a digit", version)
}

// Unshippable lists why no release of a runbook could ship, or nobody could decide when
// something goes wrong; empty if neither is so.
func (r *Runbook) Unshippable() Errors {
	var list Errors
	if r.Gold() == nil {
		list = append(list, &strict.Error{File: r.File, What: "no step is gold: nothing can ship", Remedy: `mark the step that makes what ships with "gold":"true"`})
	}
	if len(r.Approvers) == 0 {
		list = append(list, &strict.Error{File: r.File, What: "nobody approves: a failed test or a late change would stop the release for good", Remedy: "add approvers: [ann] to the front matter"})
	}
	return list
}

// rules checks what items say of one another, and completes them.
func (p *parser) rules() {
	p.roles()
	p.people()
	p.anchors()
	p.needs()
	p.artifacts()
	p.goldRules()
	p.endgame()
	if len(p.errs) == 0 {
		p.cycles()
	}
}

func (p *parser) roles() {
	for i := range p.r.Items {
		x := &p.r.Items[i]
		if x.Kind != Step && x.Kind != Publish {
			continue
		}
		if x.Role == "" && len(p.r.Roles) == 1 {
			x.Role = p.r.Roles[0].Name
		}
		switch {
		case x.Role == "":
			p.fail(x.Line, `add "role":"build", and roles: in the front matter`, "step %s says no role", x.Name)
		case p.r.Role(x.Role) == nil:
			p.fail(x.Line, "add it under roles in the front matter", "role %s of step %s is not known", x.Role, x.Name)
		case x.Again != "" && p.front.Roles[x.Role].Plain:
			p.newly(x.Line, "leave again away", "step %s has the attribute again, but role %s is plain: it has no blueprint that could change", x.Name, x.Role)
		}
		if x.Timeout > 0 && x.Budget > x.Timeout {
			p.fail(x.Line, "raise the timeout", "step %s may take %s and is stopped after %s", x.Name, FormatDuration(x.Budget), FormatDuration(x.Timeout))
		}
	}
}

func (p *parser) people() {
	for i := range p.r.Items {
		x := &p.r.Items[i]
		for _, who := range x.Asked {
			names, ok := p.r.people(who)
			if !ok {
				p.fail(x.Line, "add them under people or groups in the front matter", "sign-off %s asks @%s, whom nobody knows", x.Name, who)
				continue
			}
			for _, n := range names {
				if !slices.Contains(x.Signers, n) {
					x.Signers = append(x.Signers, n)
				}
			}
		}
		for k := range x.Quotas {
			x.Quotas[k].Of, _ = p.r.people(x.Quotas[k].Who)
		}
		if x.Kind == SignOff && len(x.Signers) > 0 && x.Approvals > x.most() {
			p.fail(x.Line, "ask more people, or fewer approvals", "sign-off %s wants %d approvals of %d people, each of whom fills one place", x.Name, x.Approvals, len(x.Signers))
		}
	}
}

// most is how many of its approvals a sign-off can have: each person fills one place.
func (x *Item) most() int {
	counts := map[string][]int{}
	for i, q := range x.Counted() {
		for _, who := range q.Of {
			counts[who] = append(counts[who], i)
		}
	}
	places := PlacesOf(x.Counted())
	for _, who := range x.Signers {
		places.Give(who, counts)
	}
	return places.Filled()
}

// anchors replaces those of phases by their slugs, where the two differ.
func (p *parser) anchors() {
	slugs := map[string]string{}
	for _, f := range p.r.Phases {
		slugs[anchor(f.Title)] = f.Slug
	}
	for _, f := range p.r.Phases {
		slugs[f.Slug] = f.Slug
	}
	for _, x := range p.r.Items {
		delete(slugs, x.Name)
	}
	for _, x := range p.r.Items {
		for i, n := range x.Needs {
			if slug := slugs[n]; slug != "" {
				x.Needs[i] = slug
			}
		}
	}
}

// needs replaces phases by their items.
func (p *parser) needs() {
	at := p.r.places()
	members := map[string][]string{}
	for _, f := range p.r.Phases {
		members[f.Slug] = nil
	}
	for _, x := range p.r.Items {
		members[x.Phase] = append(members[x.Phase], x.Name)
	}
	for _, list := range members {
		slices.Sort(list) // once, and not for each item that needs them
	}
	total := 0
	for i := range p.r.Items {
		x := &p.r.Items[i]
		var list []string
		for _, n := range x.Needs {
			if total += max(len(members[n]), 1); total > maxNeeds {
				p.tooMany(x)
				return
			}
			_, item := at[n]
			_, phase := members[n]
			switch {
			case item && phase:
				p.fail(x.Line, "rename one of the two", "%s needs %s, which is a phase and an item", x.Name, n)
			case item:
				list = append(list, n)
			case phase:
				found := false
				for _, name := range members[n] {
					if name != x.Name {
						found = true
						list = append(list, name)
					}
				}
				if !found {
					p.fail(x.Line, "name a phase that holds a step or a sign-off", "%s needs phase %s, in which nothing is done", x.Name, n)
				}
			default:
				p.fail(x.Line, p.near(n), "%s needs %s, which nothing gives", x.Name, n)
			}
		}
		slices.Sort(list)
		for j := 1; j < len(list); j++ {
			if n := list[j]; n == list[j-1] {
				p.newly(x.Line, "leave one of the two away", "%s needs %s twice: by its name, and in phase %s", x.Name, n, p.r.Items[at[n]].Phase)
				break
			}
		}
		x.Needs = slices.Compact(list)
	}
}

// maxNeeds of all items together, phases expanded: a small document may say that each
// of very many items needs each of as many, which takes all of a machine's memory.
const maxNeeds = 4_000_000

func (p *parser) tooMany(x *Item) {
	p.fail(x.Line, "split the phases, or let one sign-off stand for what many need", "with those of %s, the needs of all items are more than %d", x.Name, maxNeeds)
}

// near proposes the name that was meant.
func (p *parser) near(name string) string {
	for _, y := range p.r.Items {
		if strings.Contains(y.Name, name) || strings.Contains(name, y.Name) {
			return "did you mean " + y.Name + "?"
		}
	}
	return "name a step, a sign-off, a wait or a phase of this document"
}

// Makes tells whether an item gives a path that stands under `in` of another.
func (x *Item) Makes(path string) bool {
	return slices.ContainsFunc(x.Out, func(glob string) bool {
		if glob == path {
			return true
		}
		ok, err := doublestar.Match(glob, path)
		return err == nil && ok
	})
}

// artifacts finds who makes what is taken in, which is then needed.
func (p *parser) artifacts() {
	made := map[string]*Item{}
	for i := range p.r.Items {
		x := &p.r.Items[i]
		for _, out := range x.Out {
			if old := made[out]; old != nil {
				p.fail(x.Line, "let one of them make it", "%s is made by %s and by %s", out, old.Name, x.Name)
			}
			made[out] = x
		}
	}
	for i := range p.r.Items {
		x := &p.r.Items[i]
		for _, in := range x.In {
			var makers []string
			for j := range p.r.Items {
				if y := &p.r.Items[j]; y.Name != x.Name && y.Makes(in) {
					makers = append(makers, y.Name)
				}
			}
			switch len(makers) {
			case 0:
				p.fail(x.Line, "add it to the out of the step that makes it", "%s takes %s in, an output no step makes", x.Name, in)
			case 1:
				if !slices.Contains(x.Needs, makers[0]) {
					x.Needs = append(x.Needs, makers[0])
					slices.Sort(x.Needs)
				}
			default:
				p.fail(x.Line, "write the out of each so that one alone matches", "%s, which %s takes in, may come from %s", in, x.Name, strings.Join(makers, " or "))
			}
		}
	}
}

// goldRules: one gold, which makes something; what is published comes from it
// alone and after everything that people sign.
func (p *parser) goldRules() {
	var gold *Item
	for i := range p.r.Items {
		x := &p.r.Items[i]
		if !x.Gold {
			continue
		}
		if gold != nil {
			p.fail(x.Line, "let one step make everything that ships", "there are two golds: %s and %s", gold.Name, x.Name)
			return
		}
		if x.Network || len(x.Secrets) > 0 {
			p.fail(x.Line, "fetch what it needs in a step before it, whose output it takes in", "gold step %s has the network or a secret: nobody could build it again", x.Name)
		}
		if len(x.Out) == 0 {
			p.fail(x.Line, `add "out":"dist/**"`, "gold step %s makes nothing", x.Name)
		}
		if len(x.Results) > 0 {
			p.fail(x.Line, "run the tests in a step of their own, before it or of what it makes", "gold step %s has results of tests: gold is committed once, and nobody can waive a failed test of it", x.Name)
		}
		gold = x
	}
	total := 0
	for i := range p.r.Items {
		x := &p.r.Items[i]
		if x.Lost != "" && x.Retry > 0 {
			p.fail(x.Line, "leave one of them away", "%s may fail %d times and begins again by itself, and a person is to decide that when its machine is lost", x.Name, x.Retry)
		}
		if total += len(x.Needs); x.Kind != Publish {
			continue
		}
		if gold == nil {
			p.fail(x.Line, `mark the step that makes what ships with "gold":"true"`, "%s publishes, and no step is gold", x.Name)
			continue
		}
		if len(x.In) == 0 {
			p.fail(x.Line, `add "in" with what it publishes`, "%s publishes nothing", x.Name)
		}
		for _, in := range x.In {
			if !gold.Makes(in) && p.madeBySome(in) {
				p.fail(x.Line, "publish what "+gold.Name+" makes", "%s publishes %s, which is not gold", x.Name, in)
			}
		}
		for j := range p.r.Items {
			y := &p.r.Items[j]
			if y.Kind != SignOff {
				continue
			}
			if _, confirms := slices.BinarySearch(y.Needs, x.Name); confirms {
				continue // what was published; a cycle otherwise
			}
			x.Needs = append(x.Needs, y.Name)
		}
		slices.Sort(x.Needs)
		x.Needs = slices.Compact(x.Needs)
		if total += len(x.Needs); total > maxNeeds {
			p.tooMany(x)
			return
		}
	}
}

func (p *parser) madeBySome(path string) bool {
	return slices.ContainsFunc(p.r.Items, func(y Item) bool { return y.Makes(path) })
}

func (p *parser) endgame() {
	for _, f := range p.r.Endgame {
		if !slices.ContainsFunc(p.r.Phases, func(x Phase) bool { return x.Slug == f.Phase }) {
			p.fail(1, "write the title of a heading", "endgame: there is no phase %s", f.Phase)
		}
	}
	for _, x := range p.r.Items {
		if x.Kind == Wait && !p.r.Ship.IsZero() && x.Until.Time(p.r.Ship).After(p.r.Ship) {
			p.fail(x.Line, "wait until an earlier time, or ship later", "wait %s ends after the release ships", x.Name)
		}
	}
}

// cycles names one circle of needs.
func (p *parser) cycles() {
	const (
		open = 1
		done = 2
	)
	at := p.r.places()
	state := make([]int, len(p.r.Items))
	var trail []string
	var visit func(place int) bool
	visit = func(place int) bool {
		x := &p.r.Items[place]
		switch state[place] {
		case done:
			return false
		case open:
			i := slices.Index(trail, x.Name)
			p.fail(x.Line, "remove one of these needs", "needs go in a circle: %s", strings.Join(append(slices.Clone(trail[i:]), x.Name), " needs "))
			return true
		}
		state[place] = open
		trail = append(trail, x.Name)
		for _, n := range x.Needs {
			if visit(at[n]) {
				return true
			}
		}
		trail = trail[:len(trail)-1]
		state[place] = done
		return false
	}
	for i := range p.r.Items {
		if visit(i) {
			return
		}
	}
}
