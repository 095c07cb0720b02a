package release_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// plan is a runbook as the model knows it. It is written as Markdown for the engine, which
// reads it with package runbook: what that reader makes of a sign-off is checked too.
type plan struct {
	ship      time.Time
	people    []human
	groups    []group
	approvers []string // people and groups
	rules     []freeze
	phases    []string // headings, in order
	items     []item
	roles     []string
	signed    bool // there is an allowed_signers file
	plain     bool // the roles have no blueprint

	direct, all map[string][]string // what each item needs itself, and through others
}

type human struct{ name, full, email string }

type group struct {
	name    string
	members []string
}

type freeze struct {
	phase     string
	freezes   []string
	approvals int
}

// item is a step, a sign-off or a wait.
type item struct {
	name, kind, phase string
	needs             []string // as written
	script, role      string
	in, out           []string
	results, network  bool
	gold, again, ask  bool
	retry             int
	timeout, budget   string
	fixed             time.Time // of a wait; or so many days before the ship date
	before            int
	text              string
	places            []place
	counted           bool // "2 of @qa": so many of each; otherwise one of anybody
	mixed             bool // with one more group, that has no number
	twice             bool // its budget is written twice
}

// place is how many must say yes, of whom.
type place struct {
	n   int
	who string
}

func (p *plan) item(name string) *item {
	for i := range p.items {
		if p.items[i].name == name {
			return &p.items[i]
		}
	}
	return nil
}

func (p *plan) clone() *plan {
	q := *p
	q.direct, q.all = nil, nil
	q.people, q.approvers, q.phases = slices.Clone(p.people), slices.Clone(p.approvers), slices.Clone(p.phases)
	q.groups, q.rules, q.items = slices.Clone(p.groups), slices.Clone(p.rules), slices.Clone(p.items)
	for i := range q.groups {
		q.groups[i].members = slices.Clone(q.groups[i].members)
	}
	for i := range q.rules {
		q.rules[i].freezes = slices.Clone(q.rules[i].freezes)
	}
	for i := range q.items {
		q.items[i].needs, q.items[i].places = slices.Clone(q.items[i].needs), slices.Clone(q.items[i].places)
	}
	return &q
}

// members are the people of a name: of a group, or of one person.
func (p *plan) members(who string) []string {
	for _, g := range p.groups {
		if g.name == who {
			return g.members
		}
	}
	if p.human(who) != nil {
		return []string{who}
	}
	return nil
}

func (p *plan) human(name string) *human {
	for i := range p.people {
		if p.people[i].name == name {
			return &p.people[i]
		}
	}
	return nil
}

// called are a person's name and groups.
func (p *plan) called(person string) []string {
	list := []string{person}
	for _, g := range p.groups {
		if slices.Contains(g.members, person) {
			list = append(list, g.name)
		}
	}
	return list
}

func (p *plan) approver(person string) bool {
	return slices.ContainsFunc(p.approvers, func(who string) bool { return slices.Contains(p.members(who), person) })
}

// needs are the items that one needs itself: what it says, phases written out, who makes
// what it takes in, and of what publishes every sign-off that does not come after it.
func (p *plan) needs(x *item) []string {
	if list, ok := p.direct[x.name]; ok {
		return list
	}
	set := map[string]bool{}
	for _, n := range x.needs {
		if p.item(n) != nil {
			set[n] = true
			continue
		}
		for _, y := range p.items {
			if slug(y.phase) == n && y.name != x.name {
				set[y.name] = true
			}
		}
	}
	for _, path := range x.in {
		for _, y := range p.items {
			if y.name != x.name && slices.ContainsFunc(y.out, func(o string) bool { return strings.HasPrefix(path, strings.TrimRight(o, "*")) }) {
				set[y.name] = true
			}
		}
	}
	if x.kind == "publish" {
		for i := range p.items {
			if y := &p.items[i]; y.kind == "sign-off" && !slices.Contains(y.needs, x.name) {
				set[y.name] = true
			}
		}
	}
	if p.direct == nil {
		p.direct, p.all = map[string][]string{}, map[string][]string{}
	}
	p.direct[x.name] = slices.Sorted(maps.Keys(set))
	return p.direct[x.name]
}

// below are the items that one needs itself or through others.
func (p *plan) below(x *item) []string {
	if list, ok := p.all[x.name]; ok {
		return list
	}
	set := map[string]bool{}
	var visit func(x *item)
	visit = func(x *item) {
		for _, n := range p.needs(x) {
			if !set[n] {
				set[n] = true
				visit(p.item(n))
			}
		}
	}
	visit(x)
	list := slices.Sorted(maps.Keys(set))
	if p.all != nil {
		p.all[x.name] = list
	}
	return list
}

// runs is what a step runs and how (rule 9).
func (x *item) runs() string {
	return fmt.Sprint(x.kind, x.script, x.in, x.out, x.results, x.role, x.network, x.gold)
}

func slug(title string) string { return strings.ReplaceAll(strings.ToLower(title), " ", "-") }

// markdown writes the document.
func (p *plan) markdown() []byte {
	var b strings.Builder
	f := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	f("---\n")
	if !p.ship.IsZero() {
		f("ship: %s\n", p.ship.Format(time.RFC3339))
	}
	if p.signed {
		f("signers: allowed_signers\n")
	}
	f("roles:\n")
	for _, r := range p.roles {
		if p.plain {
			f("  %s: {plain: true}\n", r)
		} else {
			f("  %s: {blueprint: %s}\n", r, r)
		}
	}
	f("people:\n")
	for _, h := range p.people {
		var about []string
		if h.full != "" {
			about = append(about, "name: "+h.full)
		}
		if h.email != "" {
			about = append(about, "email: "+h.email)
		}
		f("  %s: {%s}\n", h.name, strings.Join(about, ", "))
	}
	if len(p.groups) > 0 {
		f("groups:\n")
		for _, g := range p.groups {
			f("  %s: [%s]\n", g.name, strings.Join(g.members, ", "))
		}
	}
	if len(p.approvers) > 0 {
		f("approvers: [%s]\n", strings.Join(p.approvers, ", "))
	}
	if len(p.rules) > 0 {
		f("endgame:\n")
		for _, r := range p.rules {
			f("  - {phase: %s, freezes: [%s], approvals: %d}\n", r.phase, strings.Join(r.freezes, ", "), r.approvals)
		}
	}
	f("---\n# A release\n")
	for _, phase := range p.phases {
		f("\n## %s\n", phase)
		for i := range p.items {
			if x := &p.items[i]; x.phase == phase {
				x.markdown(f)
			}
		}
	}
	return []byte(b.String())
}

// host makes no step of a plain plan run again after its blueprint changes: it has none.
func (p *plan) host() {
	for i := range p.items {
		p.items[i].again = p.items[i].again && !p.plain
	}
}

func (x *item) markdown(f func(format string, args ...any)) {
	if x.kind == "sign-off" {
		var parts []string
		for _, p := range x.places {
			if x.counted {
				parts = append(parts, fmt.Sprintf("%d of @%s", p.n, p.who))
			} else {
				parts = append(parts, "@"+p.who)
			}
		}
		if x.mixed {
			parts = append(parts, "@legal")
		}
		if x.budget != "" {
			parts = append(parts, "budget "+x.budget)
		}
		if x.twice {
			parts = append(parts, "budget 1h", "budget 2h")
		}
		if len(x.needs) > 0 {
			parts = append(parts, "needs "+strings.Join(x.needs, " "))
		}
		f("\n- [ ] **%s** (%s): %s\n", x.name, strings.Join(parts, ", "), x.text)
		return
	}
	attributes := fmt.Sprintf("%q:%q", "name", x.name)
	add := func(key, value string) {
		if value != "" && value != "0" {
			attributes += fmt.Sprintf(",%q:%q", key, value)
		}
	}
	add("needs", strings.Join(x.needs, ","))
	if x.kind == "wait" {
		add("kind", "wait")
		until := fmt.Sprintf("ship-%dd", x.before)
		if !x.fixed.IsZero() {
			until = x.fixed.Format(time.RFC3339)
		}
		add("until", until)
		f("\n```yaml {%s}\nreason: %s\n```\n", attributes, x.text)
		return
	}
	if x.kind == "publish" {
		add("kind", "publish")
	}
	add("role", x.role)
	add("in", strings.Join(x.in, ","))
	add("out", strings.Join(x.out, ","))
	add("timeout", x.timeout)
	add("budget", x.budget)
	add("retry", fmt.Sprint(x.retry))
	if x.gold {
		add("gold", "true")
	}
	if x.network {
		add("network", "true")
	}
	if x.results {
		add("results", "r.xml")
	}
	if x.again {
		add("again", "machine")
	}
	if x.ask {
		add("lost", "ask")
	}
	f("\n```sh {%s}\n%s\n```\n", attributes, x.script)
}

// faults says by which rules of docs/runbook.md the document is refused.
func (p *plan) faults() (list []int) {
	add := func(rule int) { list = append(list, rule) }
	for _, f := range []func(h human) string{func(h human) string { return h.email }, func(h human) string { return h.full }} {
		seen := map[string]bool{}
		for _, h := range p.people {
			v := strings.ToLower(f(h))
			if v != "" && seen[v] {
				add(3)
			}
			seen[v] = true
		}
	}
	gold := 0
	for i := range p.items {
		x := &p.items[i]
		if x.gold {
			gold++
		}
		if x.kind == "sign-off" && x.mixed && x.counted {
			add(1)
		}
		if x.kind == "sign-off" && (!p.enough(x) || x.twice) {
			add(4)
		}
	}
	approvers := 0
	for _, h := range p.people {
		if p.approver(h.name) {
			approvers++
		}
	}
	for _, r := range p.rules { // whoever proposes a change does not approve it
		if r.approvals > approvers || r.approvals == approvers && len(p.people) == approvers {
			add(20)
		}
	}
	if gold == 0 || len(p.approvers) == 0 {
		add(22)
	}
	return list
}

// enough tells whether different people can fill all places of a sign-off.
func (p *plan) enough(x *item) bool {
	if !x.counted {
		return slices.ContainsFunc(x.places, func(q place) bool { return len(p.members(q.who)) > 0 })
	}
	var seats []string
	for _, q := range x.places {
		for range q.n {
			seats = append(seats, q.who)
		}
	}
	people := map[string][]string{}
	for _, h := range p.people {
		people[h.name] = p.called(h.name)
	}
	return filled(seats, people)
}

// filled tells whether each seat can have a person of its own. A person sits where one of
// their names and groups is asked. There are few of both, so it tries every order.
func filled(seats []string, people map[string][]string) bool {
	if len(seats) == 0 {
		return true
	}
	for name, called := range people {
		if slices.Contains(called, seats[0]) {
			rest := maps.Clone(people)
			delete(rest, name)
			if filled(seats[1:], rest) {
				return true
			}
		}
	}
	return false
}
