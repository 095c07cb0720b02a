package drill

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

// Against refuses a scenario that is about another runbook: it waits for what the
// runbook does not hold, or does not say how somebody answers who has to sign.
func (p *Plan) Against(book *runbook.Runbook) error {
	ps := &parser{file: p.file, data: p.data, plan: p}
	for i, t := range p.Timed {
		if t.When.Item != "" && book.Item(t.When.Item) == nil {
			return ps.fail(fmt.Sprintf("method[%d].when", i), "trysail runbook show "+p.Release.Runbook+" lists its items",
				"%s waits for %q, and %s has no such item", p.Method[i].Name, t.When.Item, p.Release.Runbook)
		}
	}
	for _, x := range book.Items {
		for _, name := range x.Signers {
			if _, ok := p.People[name]; !ok {
				return ps.fail("people", fmt.Sprintf("{name: %s, responds: 1h..3h, spends: 30m}", name), "%s is to sign %s, and people does not say how they answer", name, x.Name)
			}
		}
	}
	return nil
}

// Draft is what a first scenario is made from.
type Draft struct {
	Name    string
	Version string
	Runbook string    // file
	Ship    time.Time // of the runbook's release, or of no release
	Book    *runbook.Runbook
}

// NoGoldError says that a runbook makes nothing that ships.
type NoGoldError struct{ Runbook string }

func (e *NoGoldError) Error() string {
	return e.Runbook + " has no gold step: there is nothing to ship, with or without faults"
}

// Hint says what to write.
func (e *NoGoldError) Hint() string {
	return `give the step that makes what ships "gold":"true"; docs/runbook.md has an example`
}

// Text writes a first scenario: both build servers of a runbook are lost. The first dies in
// the test that gold waits for (in another step before gold, if there is none; in gold, if
// that is the only one), the second with its disk while gold is built. Both are reached
// however short the release is: a date might pass after it has shipped.
func (d Draft) Text() ([]byte, error) {
	gold := d.Book.Gold()
	if gold == nil {
		return nil, &NoGoldError{d.Runbook}
	}
	first := gold
	if test := d.test(gold); test != nil {
		first = test
	}
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Both build servers are lost. Change what is not like your team: the people, the machines,")
	p("# the limits. docs/drills.md has every key.")
	p("drill: 1")
	p("name: %s", d.Name)
	p("hypothesis: %s", quote(fmt.Sprintf("the primary dies while %s runs%s, the backup dies with its disk while %s runs%s, and the release ships on time", first.Name, d.phase(first), gold.Name, d.phase(gold))))
	p("why: it has happened to others, a week and a day before the ship date")
	p("challenges: that a build server can be made again in time, by what is written down")
	p("clock: {ship: %q, begins: T-10d, mode: jump}", d.Ship.UTC().Format(time.RFC3339))
	p("release: {version: %s, runbook: %s}", quote(d.Version), quote(d.Runbook))
	p("world:")
	p("  controls: 1")
	p("  hosts: # two are lost, and gold is made on two of those that are left; each serves %s", strings.Join(d.roles(), ", "))
	plain, made := d.plain()
	for _, h := range [][2]string{{"primary", "primary"}, {"backup", "backup"}, {"blank", "spare"}, {"second", "spare"}} {
		if plain {
			p("    - {name: %s, rank: %s, disk: 4GB, plain: true}", h[0], h[1])
		} else {
			p("    - {name: %s, rank: %s, disk: 4GB}", h[0], h[1])
		}
	}
	if list := d.people(); len(list) > 0 {
		p("people: # as they are modelled; live: true asks at the terminal")
		for _, x := range list {
			p("  - {name: %s, responds: 1h..3h, spends: %s}", quote(x.name), x.spends)
		}
	}
	p("guards: {down_at_once: 2, within: 30m}")
	p("steady: [control-answers, hosts-up, ledger-copied]")
	when := first.Name + " running"
	if first == gold {
		when += " on primary"
	}
	p("method:")
	p("  - {name: primary-dies, when: %s, fault: machine-lost, host: primary}", quote(when))
	p("  - {name: backup-dies, when: %s, fault: disk-destroyed, host: backup}", quote(gold.Name+" running on backup"))
	p("expect:")
	p("  on_time: true")
	if d.Book.Budget > 0 {
		p("  on_budget: true")
	}
	p("  gold: identical")
	p("  faults:")
	p("    - {name: primary-dies, detected: 5s, moved: 10s}")
	p("    - {name: backup-dies, detected: 5s, moved: 10s}")
	reached := "primary-dies, backup-dies, gold, moved"
	if made {
		reached += ", rebuilt"
	}
	p("invariants: {always: [one-gold, rules-kept, acknowledged-kept], final: [shipped, gold-confirmed], reached: [%s]}", reached)
	return []byte(b.String()), nil
}

// plain tells whether steps run with the host's own programs, and whether some run in
// a server that is made from a blueprint.
func (d Draft) plain() (plain, made bool) {
	for _, x := range d.Book.Items {
		if x.Kind != runbook.Step && x.Kind != runbook.Publish {
			continue
		}
		if r := d.Book.Role(x.Role); r == nil || r.Blueprint == "" {
			plain = true
		} else {
			made = true
		}
	}
	return plain, made
}

// phase says in which phase of the runbook a step is; "" if it is in none.
func (d Draft) phase(x *runbook.Item) string {
	for _, p := range d.Book.Phases {
		if p.Slug == x.Phase {
			return " (" + p.Title + ")"
		}
	}
	return ""
}

// roles are those in which steps run.
func (d Draft) roles() []string {
	var list []string
	for _, x := range d.Book.Items {
		if (x.Kind == runbook.Step || x.Kind == runbook.Publish) && !slices.Contains(list, x.Role) {
			list = append(list, x.Role)
		}
	}
	return list
}

// test is the step before gold that is most like a test phase, or else the first one; nil if
// there is none. One during which no other runs is better: then it is on the primary.
func (d Draft) test(gold *runbook.Item) *runbook.Item {
	var list []*runbook.Item
	for i := range d.Book.Items {
		if x := &d.Book.Items[i]; x.Kind == runbook.Step && d.needs(gold, x.Name) {
			list = append(list, x)
		}
	}
	alone := func(x *runbook.Item) bool {
		return !slices.ContainsFunc(d.Book.Items, func(y runbook.Item) bool {
			return y.Kind == runbook.Step && y.Name != x.Name && !d.needs(x, y.Name) && !d.needs(&y, x.Name)
		})
	}
	kinds := []func(*runbook.Item) bool{
		func(x *runbook.Item) bool { return len(x.Results) > 0 },
		func(x *runbook.Item) bool { return strings.Contains(x.Name, "test") },
		func(x *runbook.Item) bool { return strings.Contains(x.Phase, "test") },
		func(*runbook.Item) bool { return true },
	}
	for _, is := range kinds {
		for _, by := range []func(*runbook.Item) bool{alone, func(*runbook.Item) bool { return true }} {
			if i := slices.IndexFunc(list, func(x *runbook.Item) bool { return is(x) && by(x) }); i >= 0 {
				return list[i]
			}
		}
	}
	return nil
}

// needs tells whether an item begins only after another, whatever is between.
func (d Draft) needs(x *runbook.Item, name string) bool {
	return slices.ContainsFunc(x.Needs, func(n string) bool { return n == name || d.needs(d.Book.Item(n), name) })
}

type drafted struct{ name, spends string }

// people are those who may be asked: who signs, and who approves. What a decision
// takes them is the most that the runbook gives them for one.
func (d Draft) people() []drafted {
	names := slices.Clone(d.Book.Approvers)
	spends := map[string]time.Duration{}
	for _, x := range d.Book.Items {
		for _, n := range x.Signers {
			names = append(names, n)
			spends[n] = max(spends[n], x.Budget)
		}
	}
	slices.Sort(names)
	var list []drafted
	for _, n := range slices.Compact(names) {
		s := cmp.Or(spends[n], 30*time.Minute).String() // 2h0m0s
		if t, ok := strings.CutSuffix(s, "m0s"); ok {
			s = t + "m"
		}
		if t, ok := strings.CutSuffix(s, "h0m"); ok {
			s = t + "h"
		}
		list = append(list, drafted{n, s})
	}
	return list
}

// quote writes a word so that YAML reads it back as text.
func quote(s string) string { return fmt.Sprintf("%q", s) }
