package release_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/release"
)

// dice make choices out of one number.
type dice struct{ seed uint64 }

// n is a number under k.
func (d *dice) n(k int) int {
	d.seed += 0x9e3779b97f4a7c15
	z := d.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) >> 1 % uint64(k))
}

// in tells whether something happens that happens once in k times.
func (d *dice) in(k int) bool { return d.n(k) == 0 }

func pick[T any](d *dice, list ...T) T { return list[d.n(len(list))] }

// some are so many of a list, at least; as they stand.
func some(d *dice, least int, list ...string) []string {
	for {
		var out []string
		for _, s := range list {
			if d.n(3) > 0 {
				out = append(out, s)
			}
		}
		if len(out) >= min(least, len(list)) {
			return out
		}
	}
}

// choices are dice of which each has its own number: one that is 0 makes the simplest
// choice, so that what rapid makes smaller is simpler.
type choices struct {
	seeds []uint64
	next  int
}

func (c *choices) take() uint64 {
	c.next++
	return c.seeds[c.next%len(c.seeds)]
}

func (c *choices) dice() *dice { return &dice{c.take() * 0x9e3779b97f4a7c15} }

// yes is said so many times of so many.
func (c *choices) yes(one, of int) bool {
	seed := c.take()
	return seed != 0 && (&dice{seed}).n(of) < one
}

func beginning() time.Time { return time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC) }

func everybody() []string { return []string{"ann", "bob", "cas", "dot", "eve"} }

// newPlan makes a runbook.
func newPlan(c *choices) *plan {
	p := &plan{
		ship: beginning().AddDate(0, 0, 7), roles: []string{"build"}, phases: []string{"Build", "Gold master", "Diligence", "Ship"},
		groups: []group{{"qa", []string{"ann", "bob"}}, {"legal", []string{"cas"}}}, approvers: []string{"ann", "bob", "cas"},
	}
	for _, n := range everybody() {
		h := human{name: n}
		if c.yes(2, 3) {
			h.email = n + "@example.org"
		}
		if c.yes(1, 2) {
			h.full = strings.ToUpper(n[:1]) + n[1:] + " Example"
		}
		p.people = append(p.people, h)
	}
	if c.yes(1, 2) {
		d := c.dice()
		p.groups[0].members, p.groups[1].members = some(d, 2, everybody()...), some(d, 1, everybody()...)
	}
	if c.yes(1, 2) {
		p.approvers = pick(c.dice(), []string{"qa", "cas"}, []string{"eve", "dot", "ann", "bob"}, []string{"legal", "bob", "dot"}, []string{"ann"}, []string{"ann", "bob"})
	}
	p.signed = c.yes(1, 3)
	if c.yes(1, 3) {
		p.roles = append(p.roles, "office")
	}
	office := p.roles[len(p.roles)-1]
	compile := item{name: "compile", kind: "step", phase: "Build", script: "make", role: "build", out: []string{"obj/**"}}
	suite := item{name: "suite", kind: "step", phase: "Build", script: "make check", role: office, needs: []string{"compile"}, results: true}
	gold := item{name: "gold", kind: "step", phase: "Gold master", script: "make dist", role: "build", in: []string{"obj/a"}, needs: []string{"suite"}, out: []string{"dist/*"}, gold: true}
	hold := item{name: "hold", kind: "wait", phase: "Ship", before: 3, text: "embargo"}
	upload := item{name: "upload", kind: "publish", phase: "Ship", script: "up", role: office, in: []string{"dist/app"}}
	if c.yes(1, 3) {
		compile.retry = 1
	}
	suite.again = c.yes(1, 2)
	compile.again = c.yes(1, 6)
	upload.ask = c.yes(1, 3)
	signOff := func(name, phase, text string, needs ...string) {
		x := item{name: name, kind: "sign-off", phase: phase, text: text, needs: needs, places: []place{{1, "ann"}}}
		x.whom(c.dice(), p)
		p.items = append(p.items, x)
	}
	p.items = append(p.items, compile, suite)
	if c.yes(1, 2) {
		signOff("read", "Build", "the results were read", pick(c.dice(), "suite", "compile", "build")) // build: the phase
		p.items[2].phase = "Diligence"
		if c.yes(1, 3) {
			gold.needs = pick(c.dice(), []string{"suite", "read"}, []string{"read"})
		}
	}
	holds := c.yes(1, 2)
	if holds {
		if c.yes(1, 3) {
			hold.needs = []string{pick(c.dice(), "compile", "suite")}
		}
		if c.yes(1, 3) {
			hold.fixed = beginning().AddDate(0, 0, 3)
		}
		p.items = append(p.items, hold)
		upload.needs = []string{"hold"}
		if c.yes(1, 4) {
			gold.needs = append(gold.needs, "hold")
		}
	}
	p.items = append(p.items, gold)
	signOff("tried", "Diligence", "installed and tried", pick(c.dice(), "gold", "gold", "suite"))
	if c.yes(1, 2) {
		needs := []string{"tried"}
		if p.item("read") != nil && c.yes(1, 2) {
			needs = []string{"read"}
		}
		if holds && c.yes(1, 2) {
			needs = append(needs, "hold")
		}
		signOff("go", "Diligence", "it may go", needs...)
	}
	if c.yes(1, 2) {
		signOff("legal-ok", "Diligence", "licences reviewed")
	}
	if c.yes(2, 3) {
		p.items = append(p.items, upload)
		if c.yes(1, 4) {
			signOff("seen", "Ship", "it was seen there", "upload")
		}
	}
	for range 2 {
		if c.yes(1, 2) {
			d := c.dice()
			p.rule(d)
		}
	}
	for len(p.faults()) > 0 { // too few people for a sign-off: all of them are in both groups
		p.groups = []group{{"qa", everybody()}, {"legal", everybody()}}
	}
	return p
}

// rule adds one to the endgame that some change can still satisfy.
func (p *plan) rule(d *dice) {
	most := 0
	for _, n := range everybody() {
		if p.approver(n) {
			most++
		}
	}
	if most == len(p.people) {
		most--
	}
	r := freeze{pick(d, p.phases...), some(d, 1, "source", "runbook", "machines", "signers"), 1 + d.n(max(min(most, 3), 1))}
	if !slices.ContainsFunc(p.rules, func(o freeze) bool { return o.phase == r.phase }) {
		p.rules = append(p.rules, r)
	}
}

// whom gives a sign-off its people.
func (x *item) whom(d *dice, p *plan) {
	x.counted = false
	switch d.n(8) {
	case 0:
		x.places = []place{{1, pick(d, everybody()...)}}
	case 1:
		x.places = []place{{1, "legal"}, {1, pick(d, everybody()...)}}
	case 2:
		x.places = []place{{1, "qa"}, {1, "legal"}}
	case 3:
		x.places = []place{{1, "qa"}}
	case 4, 5:
		x.places, x.counted = []place{{2, "qa"}}, true
	case 6:
		x.places, x.counted = []place{{2, "qa"}, {1, "legal"}}, true
	case 7:
		x.places, x.counted = []place{{1, "legal"}, {1, "qa"}}, true
	}
	if !p.enough(x) {
		x.places, x.counted = []place{{1, "qa"}}, false
	}
}

// change makes another runbook out of one; past are those that were there before. It is
// about some people more than about others: they have decided something.
func change(d *dice, p *plan, past []*plan, about []string, late bool) *plan {
	if len(past) > 0 && d.in(3) {
		return pick(d, past...).clone()
	}
	for {
		q := p.clone()
		for more := true; more; more = d.in(3) {
			if late {
				q.postpone(d)
			} else {
				q.mutate(d, about)
			}
		}
		late := func(x item) bool { return x.kind == "wait" && x.fixed.After(q.ship) } // no document says that
		if len(q.faults()) == 0 && !slices.ContainsFunc(q.items, late) {
			return q
		}
	}
}

func (p *plan) postpone(d *dice) {
	if d.in(2) {
		p.ship = p.ship.AddDate(0, 0, 1+d.n(7))
	}
	for i := range p.items {
		x := &p.items[i]
		switch {
		case x.kind != "wait" || d.in(2):
		case !x.fixed.IsZero():
			x.fixed = x.fixed.AddDate(0, 0, d.n(3))
		default:
			x.before = max(1, x.before-d.n(2))
		}
	}
}

// mutate changes one thing.
func (p *plan) mutate(d *dice, about []string) {
	x := &p.items[d.n(len(p.items))]
	step := p.item(pick(d, "compile", "suite", "gold"))
	switch d.n(21) {
	case 16, 19, 20: // an address moves
		a, b := &p.people[d.n(len(p.people))], &p.people[d.n(len(p.people))]
		if a.email, b.email = b.email, a.email; d.in(2) {
			b.email = ""
		}
	case 0, 1, 17, 18: // who is in a group
		g := &p.groups[d.n(len(p.groups))]
		who := pick(d, everybody()...)
		if len(about) > 0 && d.n(3) > 0 { // leaves
			who = pick(d, about...)
			if i := slices.IndexFunc(p.groups, func(g group) bool { return slices.Contains(g.members, who) }); i >= 0 {
				g = &p.groups[i]
			}
		}
		if i := slices.Index(g.members, who); i < 0 {
			g.members = slices.Insert(g.members, d.n(len(g.members)+1), who)
		} else if len(g.members) > 1 {
			g.members = slices.Delete(g.members, i, i+1)
		}
	case 2: // what a step runs
		step.script = pick(d, "make", "make check", "true", "make dist")
	case 3:
		step.retry, step.again = d.n(3), d.in(2)
		p.item("suite").results = d.in(2)
		p.item("compile").network = d.in(2)
	case 4: // a heading, with its rule or without
		i := d.n(len(p.phases))
		old, name := p.phases[i], p.phases[i]+" again"
		if s, ok := strings.CutSuffix(old, " again"); ok {
			name = s
		}
		if slices.ContainsFunc(p.items, func(x item) bool { return slices.Contains(x.needs, slug(old)) }) {
			return
		}
		p.phases[i] = name
		for j := range p.items {
			if p.items[j].phase == old {
				p.items[j].phase = name
			}
		}
		keep := d.n(3) > 0
		p.rules = slices.DeleteFunc(p.rules, func(r freeze) bool { return r.phase == old && !keep })
		for j := range p.rules {
			if p.rules[j].phase == old {
				p.rules[j].phase = name
			}
		}
	case 5: // an item stands elsewhere
		if !slices.ContainsFunc(p.items, func(y item) bool { return slices.Contains(y.needs, slug(x.phase)) }) {
			x.phase = pick(d, p.phases[1:]...)
		}
	case 6: // the endgame
		if len(p.rules) > 0 && d.in(2) {
			p.rules = p.rules[:len(p.rules)-1]
		} else {
			p.rule(d)
		}
	case 7, 8:
		p.postpone(d)
	case 9:
		p.ship = p.ship.AddDate(0, 0, -d.n(2))
	case 10: // who decides
		p.approvers = some(d, 2, everybody()...)
		p.rules = slices.DeleteFunc(p.rules, func(r freeze) bool { return r.approvals >= len(p.approvers) })
	case 11: // what is signed
		if x.kind == "sign-off" {
			x.text = pick(d, "installed and tried", "something else", "it may go")
		}
	case 12: // and by whom
		if x.kind == "sign-off" {
			x.whom(d, p)
		}
	case 13: // what people do not sign
		switch {
		case x.kind == "wait":
		case d.in(2): // but it runs again
			y := p.item(pick(d, "suite", "suite", "compile"))
			y.timeout = pick(d, "", "3h", "4h")
		default:
			x.budget = pick(d, "", "1h", "30m")
		}
	case 14: // a sign-off goes, or comes
		name := pick(d, "legal-ok", "legal-ok", "seen", "extra")
		i := slices.IndexFunc(p.items, func(y item) bool { return y.name == name })
		switch {
		case i >= 0:
			p.items = slices.Delete(p.items, i, i+1)
		case name == "extra":
			x := item{name: name, kind: "sign-off", phase: "Build", text: "one more look", needs: some(d, 0, "compile", "suite"), places: []place{{1, "ann"}}}
			if !slices.Contains(p.phases, x.phase) || slices.ContainsFunc(p.items, func(y item) bool { return slices.Contains(y.needs, "build") }) {
				x.phase = p.phases[2]
			}
			x.whom(d, p)
			p.items = append(p.items, x)
		}
	case 15: // what a sign-off needs
		if y := p.item(pick(d, "read", "extra")); y != nil && !slices.Contains(y.needs, "build") {
			y.needs = some(d, 1, "compile", "suite")
		}
	}
}

func sources() []release.Source {
	list := []release.Source{}
	for i, author := range []string{"", "ann@example.org", "Bob Example <bob@example.org>", "cas", "DOT", "someone@example.net", "EVE@example.org"} {
		list = append(list, release.Source{VCS: "git", URL: "https://example.org/app.git", Revision: fmt.Sprintf("%040x", i+1), Original: digest(fmt.Sprint("source ", i)), Author: author})
	}
	return list
}

// spoil breaks one thing of a runbook, or leaves it as it is.
func (p *plan) spoil(d *dice) {
	a, b := &p.people[0], &p.people[1+d.n(4)]
	x := &p.items[d.n(len(p.items))]
	switch d.n(10) {
	case 0:
		a.email, b.email = "one@example.org", pick(d, "one@example.org", "ONE@example.org", "two@example.org")
	case 1:
		a.full, b.full = "One Example", pick(d, "One Example", "one example", "Two Example")
	case 2:
		p.approvers = nil
		p.rules = nil
	case 3:
		if x.kind == "sign-off" {
			x.places, x.counted = []place{{d.n(5) + 1, "qa"}, {d.n(3) + 1, "legal"}}, true
		}
	case 4:
		x.mixed = x.kind == "sign-off" && !slices.Contains(x.places, place{1, "legal"})
	case 5:
		x.twice = x.kind == "sign-off" && x.budget == ""
	case 6:
		p.groups[d.n(2)].members = []string{pick(d, everybody()...)}
	case 7:
		if len(p.rules) > 0 {
			p.rules[0].approvals = 1 + d.n(5)
		}
	case 8:
		if y := p.item("gold"); p.item("upload") == nil && !slices.ContainsFunc(p.items, func(x item) bool { return slices.Contains(x.needs, "gold") }) {
			y.gold = false
		}
	}
}
