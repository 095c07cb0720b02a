package release_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"trysail/release"
	"trysail/runbook"
)

// game plays one history against the engine and the model.
type game struct {
	t        failer
	m        *model
	s        *release.State
	print    uint64 // of the state
	events   []release.Event
	past     []*plan           // runbooks that were in force
	first    *plan             // that of the first start
	subjects map[string]string // what the engine calls a subject, and the model
	digests  map[string]string // the other way round
	blobs    map[string]string
	signers  []string // allowed_signers files, by number: see key
	books    *books   // where the bundle of this one is made
	amended  int
	n        *counts
	readers  *readers
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// counts are what the histories came to.
type counts struct {
	histories, shipped, gold, events, accepted, again int
	refused                                           map[int]int
	kinds                                             map[string]int
	bundles                                           int
	keys                                              *keys
	seed                                              maphash.Seed
}

// readers keep runbooks that were read: many histories have the same.
type readers struct{ read map[string]*runbook.Runbook }

func (r *readers) parse(t failer, p *plan) *runbook.Runbook {
	text := p.markdown()
	if b := r.read[string(text)]; b != nil {
		return b
	}
	b, err := runbook.Parse("RELEASE.md", text, time.LoadLocation)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(r.read) > 200 {
		clear(r.read)
	}
	r.read[string(text)] = b
	return b
}

func (g *game) blob(data string) string {
	d := digest(data)
	g.blobs[d] = data
	return d
}

// holder is whose key somebody signs with: by one allowed_signers file everybody has their
// own, by another dot has that of ann, and by a third ann and bob have changed keys.
func (g *game) holder(who string) string {
	return holder(slices.Index(g.signers, g.s.Signers), who)
}

func holder(file int, who string) string {
	for _, h := range [][3]any{{1, "dot", "ann"}, {2, "ann", "bob"}, {2, "bob", "ann"}} {
		if h[0] == file && h[1] == who {
			return h[2].(string)
		}
	}
	return who
}

func (g *game) server(role string, n int) release.Machine {
	if g.m.plan.plain {
		return release.Machine{Role: role}
	}
	return release.Machine{Role: role, Blueprint: digest(fmt.Sprint(role, n)), Sum: digest(fmt.Sprint("sum of ", role, n))}
}

// bring puts a runbook into a proposal, as control does.
func (g *game) bring(p *plan, b *release.Amended) {
	p.host()
	q := release.PlanOf(g.readers.parse(g.t, p))
	b.Runbook, b.Items, b.Endgame, b.Approver, b.Team, b.People = digest(string(p.markdown())), q.Items, q.Endgame, q.Approver, q.Team, q.People
	b.Ship, b.Budget = q.Ship, q.Budget
	g.blobs[b.Runbook] = string(p.markdown())
}

func newGame(t failer, n *counts, r *readers) *game {
	g := &game{
		t: t, m: newModel(), s: release.Empty(), n: n, readers: r,
		subjects: map[string]string{}, digests: map[string]string{}, blobs: map[string]string{},
	}
	for i := range 3 {
		g.signers = append(g.signers, g.blob(n.keys.allowed(i)))
	}
	g.print = fingerprint(n.seed, g.s)
	return g
}

// start begins a release of a runbook.
func (g *game) start(p *plan, c *choices) {
	p.host()
	r := g.readers.parse(g.t, p)
	b := release.Begin(r, "4.2")
	b.Runbook, b.Named, b.Rules, b.Source = digest(string(p.markdown())), r.Ship, release.RulesNow, sources()[0]
	g.blobs[b.Runbook] = string(p.markdown())
	if c.yes(1, 2) {
		b.Source = pick(c.dice(), sources()...)
	}
	if g.m.life == "" {
		g.m.plan = p
	}
	for _, role := range p.roles {
		b.Machines = append(b.Machines, g.server(role, 0))
	}
	if p.signed {
		b.Signers = pick(c.dice(), g.signers...)
	}
	bad := b
	if c.yes(1, 10) {
		bad.Rules = pick(c.dice(), -1, release.RulesNow+1, 99)
		g.try(move{body: bad, plan: p})
	}
	if c.yes(1, 10) {
		bad = b
		bad.Source.VCS = pick(c.dice(), "", "hg", "Git")
		g.try(move{body: bad, plan: p})
	}
	g.try(move{body: b, plan: p})
	if g.m.life != "running" {
		g.fail("the release did not begin")
	}
}

func (g *game) fail(format string, args ...any) {
	g.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, format, args...)
	if g.m.plan != nil {
		fmt.Fprintf(&b, "\n\n%s\n", g.m.plan.markdown())
	}
	for _, e := range g.events {
		fmt.Fprintf(&b, "%3d %s\n", e.Seq, brief(e.Body))
	}
	g.t.Fatalf("%s", b.String())
}

func brief(body release.Body) string {
	switch b := body.(type) {
	case release.Started:
		return fmt.Sprintf("started, author %q, signers %.14s", b.Source.Author, b.Signers)
	case release.Amended:
		s := fmt.Sprintf("amended %q by %q: %q, runbook %.14s, machines %v, signers %.14s", b.What, b.By, b.Reason, b.Runbook, b.Machines, b.Signers)
		if b.Source != nil {
			s += fmt.Sprintf(", source %.8s by %q", b.Source.Revision[36:], b.Source.Author)
		}
		return s
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%T %.300s", body, text)
}

func (g *game) now() time.Time { return beginning().Add(time.Duration(g.m.head) * time.Minute) }

// try gives an event to both.
func (g *game) try(v move) {
	e := release.New(g.now(), "test", v.body)
	e.Seq = g.m.head + 1
	subject := ""
	if b, ok := v.body.(release.Signed); ok {
		if subject = g.subjects[b.Subject]; subject == "" {
			subject = g.named(b)
		}
	}
	if b, ok := v.body.(release.Personal); ok && g.books != nil && b.Signed() != nil && !g.books.takes(g, b) {
		return
	}
	want := g.m.allows(v.body, v.plan, subject)
	err := g.s.Apply(e)
	g.n.events++
	if (err == nil) != want.ok && !want.free {
		if v.plan != nil && g.m.plan != nil {
			g.fail("%s: the model says %+v, and the engine %v\nit brings\n%s", brief(v.body), want, err, v.plan.markdown())
		}
		g.fail("%s: the model says %+v, and the engine %v", brief(v.body), want, err)
	}
	if v.sure && err != nil {
		g.fail("of a report came an event that does not fold: %s: %v", brief(v.body), err)
	}
	now := fingerprint(g.n.seed, g.s)
	if err != nil {
		g.n.refused[want.rule]++
		if now != g.print {
			g.fail("%s was refused (%v) and changed the state", brief(v.body), err)
		}
		return
	}
	g.n.accepted++
	g.n.kinds[e.Type]++
	g.print = now
	g.events = append(g.events, e)
	if g.books != nil {
		g.books.add(g, e)
	}
	before := g.m.plan
	if len(g.events) == 1 {
		g.first = v.plan
	}
	g.m.take(v.body, v.plan, subject)
	if g.m.plan != before && before != nil {
		g.past = append(g.past, before)
	}
	switch v.body.(type) {
	case release.Started: // control refuses runbooks of an earlier start that name signers, where this one has none
		g.past = nil
	case release.Amended:
		g.amended++
	}
	g.compare(brief(v.body))
}

// named is the subject of a decision that the game has not seen yet, in the model's words.
// A key may show that two names are one person, whose word makes done what the sign-off
// needs: then its subject is there from this very decision on.
func (g *game) named(b release.Signed) string {
	if g.m.plan == nil {
		return "nothing"
	}
	if x := g.m.plan.item(b.Item); x != nil && x.kind == "sign-off" && b.Key != "" && b.Subject == g.s.Subject(g.s.Item(b.Item)) {
		if m := g.m.signing(b.Person, b.Key); !g.m.settled(x) && m.settled(x) {
			return m.subject(x)
		}
	}
	return "nothing"
}

// compare holds the engine's state against the model's.
func (g *game) compare(after string) {
	m := g.m
	if (m.open != nil) != (g.s.Amendment != nil) {
		g.fail("after %s: a change is open: the model says %v, and the engine %v", after, m.open != nil, g.s.Amendment != nil)
	}
	if len(g.s.Items) != len(m.plan.items) {
		g.fail("after %s: the engine has %d items", after, len(g.s.Items))
	}
	if !g.s.Ship.Equal(m.ship) {
		g.fail("after %s: it ships %s, and for the engine %s", after, m.ship, g.s.Ship)
	}
	if m.life == "shipped" || m.life == "aborted" {
		return
	}
	statuses := g.s.Statuses()
	for i := range m.plan.items {
		x := &m.plan.items[i]
		if want, got := m.status(x), statuses[x.name]; want != got {
			g.fail("after %s: %s is %s, and for the engine %s", after, x.name, want, got)
		}
	}
	for i := range m.plan.items {
		x := &m.plan.items[i]
		if x.kind != "sign-off" || !m.settled(x) {
			continue
		}
		mine := m.subject(x)
		switch g.events[len(g.events)-1].Body.(type) {
		case release.Signed, release.Withdrawn, release.Granted, release.Held, release.Resumed, release.Refused, release.Amended:
			if g.digests[mine] != "" && len(g.events)%4 > 0 { // seldom: it takes time
				continue
			}
		}
		theirs := g.s.Subject(g.s.Item(x.name))
		old, seen := g.subjects[theirs]
		if seen && old != mine {
			g.fail("after %s: the engine has one subject %s of %s for\n%s and\n%s", after, theirs, x.name, old, mine)
		}
		if d, seen := g.digests[mine]; seen && d != theirs {
			g.fail("after %s: the engine has two subjects of %s for\n%s", after, x.name, mine)
		}
		g.subjects[theirs], g.digests[mine] = mine, theirs
	}
	if m.gold != nil && len(g.s.SecondBuilds()) != m.gold.seconds {
		g.fail("after %s: gold was built again %d times, and for the engine %d", after, m.gold.seconds, len(g.s.SecondBuilds()))
	}
	g.asks(after)
	if may := m.shipping().ok; may || len(m.left()) == 0 || len(g.events)%16 == 0 {
		c := g.s.Clone()
		e := release.New(beginning(), "test", release.Shipped{})
		e.Seq = g.m.head + 1
		if err := c.Apply(e); (err == nil) != may {
			g.fail("after %s: it may ship: %v, and the engine says %v", after, may, err)
		}
	}
}

// asks holds whom the engine asks to ship, and to sign, against the model.
func (g *game) asks(after string) {
	m := g.m
	if len(m.left()) > 0 {
		return
	}
	may := m.shipping().ok
	i := slices.IndexFunc(g.s.Asks(), func(a release.Ask) bool { return a.Type == "ship" })
	if may != (i >= 0) {
		g.fail("after %s: it may ship: %v, and somebody is asked to ship it: %v", after, may, i >= 0)
	}
	if may && slices.ContainsFunc(g.s.Asks()[i].People, func(who string) bool { return !m.plan.approver(who) }) {
		g.fail("after %s: %v are asked to ship it", after, g.s.Asks()[i].People)
	}
}

// play plays one history.
func play(t failer, n *counts, r *readers, c *choices, moves []uint64) {
	g := newGame(t, n, r)
	p := newPlan(c)
	if c.yes(1, 40) { // one whose bundle is made, if it ships
		p.plain, g.books = true, newBooks(n.keys)
	}
	g.start(p, c)
	for i, seed := range moves {
		if g.m.life == "aborted" && g.m.gold == nil && i%2 == 0 {
			if p = newPlan(c); g.books != nil {
				p.plain = true
			}
			g.start(p, c)
			n.again++
		}
		if g.m.life == "aborted" {
			g.try(move{body: g.events[0].Body, plan: g.first}) // not after gold
		}
		if g.m.life == "shipped" || g.m.life == "aborted" {
			break
		}
		if seed != 0 {
			g.try(g.next(&dice{seed*0x9e3779b97f4a7c15 + uint64(i)}))
		}
	}
	n.histories++
	if g.m.life == "shipped" {
		n.shipped++
		if g.books != nil {
			g.books.bundle(g)
			n.bundles++
		}
	}
	if g.m.gold != nil {
		n.gold++
	}
}

func newCounts(t testing.TB) (*counts, *readers) {
	return &counts{refused: map[int]int{}, kinds: map[string]int{}, keys: newKeys(t), seed: maphash.MakeSeed()}, &readers{map[string]*runbook.Runbook{}}
}

// set gives a flag of rapid's another value while a test runs.
func set(t *testing.T, name, value string) {
	t.Helper()
	old := flag.Lookup(name).Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flag.Set(name, old); err != nil {
			t.Error(err)
		}
	})
}

// repeatable has a test play the same histories each time, so that a change is to blame for
// what it finds. make model looks for new ones.
func repeatable(t *testing.T) {
	t.Helper()
	if os.Getenv("TRYSAIL_MODEL") == "" && flag.Lookup("rapid.seed").Value.String() == "0" {
		set(t, "rapid.seed", "11")
	}
}

// TestModel plays histories against the engine and a model that was written from
// docs/runbook.md. TRYSAIL_MODEL is how many (make model).
func TestModel(t *testing.T) {
	checks := os.Getenv("TRYSAIL_MODEL")
	switch {
	case checks != "":
	case testing.Short():
		checks = "500"
	default:
		checks = "10000"
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	set(t, "rapid.checks", checks)
	repeatable(t)
	n, r := newCounts(t)
	rapid.Check(t, func(t *rapid.T) {
		c := &choices{seeds: rapid.SliceOfN(rapid.Uint64(), 48, 48).Draw(t, "runbook")}
		play(t, n, r, c, rapid.SliceOfN(rapid.Uint64(), 60, 120).Draw(t, "moves"))
	})
	t.Logf("%d histories, %d events, %d accepted; gold %d, shipped %d, bundles %d", n.histories, n.events, n.accepted, n.gold, n.shipped, n.bundles)
	for _, k := range slices.Sorted(maps.Keys(n.refused)) {
		t.Logf("rule %d refused %d events", k, n.refused[k])
	}
	for _, k := range slices.Sorted(maps.Keys(n.kinds)) {
		t.Logf("%s: %d", k, n.kinds[k])
	}
}

// TestModelCheck breaks runbooks, and holds what package runbook says of each against the
// model.
func TestModelCheck(t *testing.T) {
	refused := map[int]int{}
	repeatable(t)
	rapid.Check(t, func(t *rapid.T) {
		c := &choices{seeds: rapid.SliceOfN(rapid.Uint64(), 48, 48).Draw(t, "runbook")}
		p := newPlan(c)
		for range 2 {
			p.spoil(c.dice())
		}
		faults := p.faults()
		for _, rule := range faults {
			refused[rule]++
		}
		_, err := runbook.Parse("RELEASE.md", p.markdown(), time.LoadLocation)
		if err == nil && slices.Equal(slices.Compact(faults), []int{22}) {
			return // check does not refuse it yet
		}
		if (err != nil) != (len(faults) > 0) {
			t.Fatalf("by rules %v it is refused, and check says %v:\n%s", faults, err, p.markdown())
		}
	})
	t.Log("refused by rule:", refused)
}
