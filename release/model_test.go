package release_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/release"
)

// model says what the rules of docs/runbook.md ("What a sign-off means here", "Gold",
// "Steps", "Sign-offs") allow. It is written from that document and shares no code with
// package release: it knows the runbook as the generator does, keeps every word that was
// ever said, and asks again, each time, what is true.
type model struct {
	version string
	plan    *plan
	ship    time.Time
	source  release.Source
	servers map[string]string // by role
	keys    bool              // there are allowed signers
	head    int64
	life    string // "", running, held, shipped, aborted
	steps   map[string]*run
	passed  map[string]bool
	words   []word
	nonces  map[string]bool
	marks   map[string]map[string]bool // of each name: addresses, full names and keys that it had, ever
	open    *proposal
	gold    *goldBuild
	begun   map[string]bool           // items that have begun
	phases  map[string]bool           // phases that have
	frozen  map[string]int            // approvals that a change needs, of each thing that is frozen
	memo    map[string]release.Status // until the next event
	about   map[string]string         // so are these: subjects
}

// run is what is known of a step.
type run struct {
	lease    *lease
	result   *release.Finished // that counts
	failed   *release.Finished // the last one that does not
	server   string            // that made it
	failures int
	moves    int
	lost     bool // its machine was lost, and a person must look
	waived   map[string]string
}

type lease struct {
	epoch   int64
	machine string
	server  string
	confirm bool
}

type word struct {
	item, person, subject string
	decision              release.Decision
	called                []string // the names and groups of its person when they signed
}

type proposal struct {
	release.Amended
	seq      int64
	plan     *plan
	approved []string
}

type goldBuild struct {
	machine     string
	seconds     int // builds that were compared or failed
	failed      bool
	verdict     release.Verdict
	differences []string
	excepted    bool
}

// answer is what the model says of an event: it is allowed, or refused by a rule; 0 is
// what the package's comment says of steps and leases. Of one that is free the document
// says only what follows from it.
type answer struct {
	ok   bool
	free bool
	rule int
	why  string
}

func yes() answer { return answer{ok: true} }

func no(rule int, format string, args ...any) answer {
	return answer{rule: rule, why: fmt.Sprintf(format, args...)}
}

func newModel() *model {
	return &model{
		steps: map[string]*run{}, passed: map[string]bool{}, nonces: map[string]bool{}, marks: map[string]map[string]bool{},
		begun: map[string]bool{}, phases: map[string]bool{}, frozen: map[string]int{}, servers: map[string]string{},
	}
}

func (m *model) run(name string) *run {
	r := m.steps[name]
	if r == nil {
		r = &run{waived: map[string]string{}}
		m.steps[name] = r
	}
	return r
}

func isStep(x *item) bool { return x != nil && (x.kind == "step" || x.kind == "publish") }

// mark notes what tells that a name is somebody's: whoever had it once is the same person
// to the end of the release (rule 3).
func (m *model) mark(name, what string) {
	if what == "" {
		return
	}
	if m.marks[name] == nil {
		m.marks[name] = map[string]bool{}
	}
	m.marks[name][what] = true
}

func (m *model) markPeople() {
	for _, h := range m.plan.people {
		m.mark(h.name, strings.ToLower(h.email))
		m.mark(h.name, strings.ToLower(h.full))
	}
}

// same tells whether two names are one person (rule 3).
func (m *model) same(a, b string) bool {
	if a == b {
		return true
	}
	group := map[string]bool{a: true}
	for grew := true; grew; {
		grew = false
		for n, marks := range m.marks {
			if !group[n] && anyOf(group, func(o string) bool { return anyOf(marks, func(s string) bool { return m.marks[o][s] }) }) {
				group[n], grew = true, true
			}
		}
	}
	return group[b]
}

// called are the names and groups that a person has now (rule 7).
func (m *model) called(person string) []string {
	list := m.plan.called(person)
	for _, h := range m.plan.people {
		if h.name != person && m.same(h.name, person) {
			list = append(list, m.plan.called(h.name)...)
		}
	}
	return list
}

func anyOf(set map[string]bool, f func(string) bool) bool {
	for n := range set {
		if f(n) {
			return true
		}
	}
	return false
}

// wrote tells whether a person is the author of a source (rules 13 and 14).
func (m *model) wrote(person, author string) bool {
	if author == "" {
		return false
	}
	full, mail, both := strings.Cut(strings.ToLower(strings.TrimSuffix(author, ">")), " <")
	is := func(name string) bool {
		marks := m.marks[name]
		return strings.EqualFold(name, author) || marks[strings.ToLower(author)] || both && (strings.EqualFold(name, full) || marks[full] || marks[mail])
	}
	if is(person) {
		return true
	}
	for n := range m.marks {
		if is(n) && m.same(n, person) {
			return true
		}
	}
	return false
}

// done tells whether an item is.
func (m *model) done(x *item) bool { return m.status(x) == release.Complete }

func (m *model) ready(x *item) bool {
	for _, n := range m.plan.needs(x) {
		if !m.done(m.plan.item(n)) {
			return false
		}
	}
	return true
}

// settled tells whether all is done that an item needs, directly or through others: only
// then somebody decides (rule 12).
func (m *model) settled(x *item) bool {
	for _, n := range m.plan.below(x) {
		if !m.done(m.plan.item(n)) {
			return false
		}
	}
	return true
}

func (m *model) status(x *item) release.Status {
	s, ok := m.memo[x.name]
	if !ok {
		if s = m.find(x); m.memo == nil {
			m.memo = map[string]release.Status{}
		}
		m.memo[x.name] = s
	}
	return s
}

func (m *model) find(x *item) release.Status {
	switch {
	case x.kind == "wait" && m.passed[x.name]:
		return release.Complete
	case x.kind == "sign-off" && m.settled(x):
		return m.signOff(x)
	case x.kind == "sign-off":
		return release.Pending
	case isStep(x):
		if s := m.step(x); s != "" {
			return s
		}
	}
	if m.ready(x) {
		return release.Ready
	}
	return release.Pending
}

// step is the status of a step that has run; "" of one that has not.
func (m *model) step(x *item) release.Status {
	r := m.steps[x.name]
	if r == nil {
		return ""
	}
	if x.gold && m.gold != nil {
		switch g := m.gold; {
		case g.verdict == release.Identical, g.verdict == release.Equivalent && g.excepted:
			return release.Complete
		case g.verdict != "", g.failed, r.moves >= release.MovesBeforeAsking:
			return release.Stopped
		}
		return release.Confirming
	}
	switch {
	case r.lease != nil:
		return release.InProgress
	case r.result != nil && len(m.unwaived(x)) > 0:
		return release.Stopped
	case r.result != nil:
		return release.Complete
	case r.failures > x.retry, r.moves >= release.MovesBeforeAsking, r.lost:
		return release.Stopped
	}
	return ""
}

// unwaived are the failed tests of a step that nobody waived.
func (m *model) unwaived(x *item) (list []string) {
	r := m.steps[x.name]
	if r == nil || r.result == nil {
		return nil
	}
	for _, t := range r.result.Failing {
		if r.waived[t] == "" {
			list = append(list, t)
		}
	}
	return list
}

// signOff is the status of a sign-off whose needs are done (rules 1 to 3 and 6 to 8).
func (m *model) signOff(x *item) release.Status {
	subject := m.subject(x)
	people := map[string][]string{}
	for _, w := range m.words {
		switch {
		case w.item != x.name || w.subject != subject:
			continue
		case w.decision == release.Reject:
			return release.Stopped
		case m.wrote(w.person, m.source.Author):
			continue
		}
		who := w.person
		for name := range people {
			if m.same(name, who) {
				who = name
			}
		}
		people[who] = append(append(people[who], w.called...), m.called(w.person)...)
	}
	seats := []string{""}
	if x.counted {
		seats = nil
		for _, p := range x.places {
			for range p.n {
				seats = append(seats, p.who)
			}
		}
	} else {
		for name, called := range people {
			if slices.ContainsFunc(x.places, func(p place) bool { return slices.Contains(called, p.who) }) {
				people[name] = append(called, "")
			}
		}
	}
	if filled(seats, people) {
		return release.Complete
	}
	return release.Ready
}

// subject is what a sign-off relies on (rules 9 and 11), written out. All that it needs
// is done.
func (m *model) subject(x *item) string {
	if s, ok := m.about[x.name]; ok {
		return s
	}
	var b strings.Builder
	fmt.Fprintf(&b, "{%s %s %q", m.version, x.name, x.text)
	stands := false
	for _, n := range m.plan.below(x) {
		switch y := m.plan.item(n); {
		case isStep(y):
			stands = true
			r := m.run(n)
			fmt.Fprintf(&b, " [%s %s on %q made %v status %d failed %q waived", n, y.runs(), r.server, r.result.Outputs, r.result.Status, r.result.Failing)
			for _, t := range r.result.Failing {
				fmt.Fprintf(&b, " %s", r.waived[t])
			}
			b.WriteString("]")
		case y.kind == "sign-off":
			b.WriteString(m.subject(y))
		}
	}
	if stands {
		fmt.Fprintf(&b, " of %s %s", m.source.Revision, m.source.Original)
	}
	if m.about == nil {
		m.about = map[string]string{}
	}
	m.about[x.name] = b.String() + "}"
	return m.about[x.name]
}

// left are the items that are not done.
func (m *model) left() (list []string) {
	for i := range m.plan.items {
		if x := &m.plan.items[i]; !m.done(x) {
			list = append(list, x.name)
		}
	}
	return list
}

// moment is when a wait ends.
func moment(x *item, ship time.Time) time.Time {
	if !x.fixed.IsZero() {
		return x.fixed
	}
	return ship.AddDate(0, 0, -x.before)
}

// ships is the date that a plan would bring (a ship date given at the start stays while the
// document's own stays as it is).
func (m *model) ships(p *plan) time.Time {
	if p.ship.IsZero() || p.ship.Equal(m.plan.ship) {
		return m.ship
	}
	return p.ship
}

// begins notes that an item has begun, and with it its phase (rule 20).
func (m *model) begins(name string) {
	m.begun[name] = true
	m.ratchet()
}

// ratchet raises what a change needs; nothing lowers it. A phase in which something stands
// that has begun has begun too, whatever it was called then.
func (m *model) ratchet() {
	for _, x := range m.plan.items {
		if m.begun[x.name] {
			m.phases[slug(x.phase)] = true
		}
	}
	for _, r := range m.plan.rules {
		if m.phases[slug(r.phase)] {
			for _, what := range r.freezes {
				m.frozen[what] = max(m.frozen[what], r.approvals)
			}
		}
	}
}

// approvals that a change of such things needs now.
func (m *model) approvals(what []string) int {
	n := 1
	for _, w := range what {
		n = max(n, m.frozen[w])
	}
	return n
}

// late tells whether a change may be made after gold (rule 21).
func (m *model) late(b *proposal) bool {
	for _, what := range b.What {
		if what != "signers" && what != "runbook" {
			return false
		}
	}
	return b.plan == nil || m.later(b.plan)
}

// later tells whether a plan moves waits that are not over, or the ship date, to a later
// time, and does nothing else.
func (m *model) later(p *plan) bool {
	ship := m.ships(p)
	if ship.Before(m.ship) {
		return false
	}
	moves := ship.After(m.ship)
	q := p.clone()
	q.ship = m.plan.ship
	for i := range q.items {
		x, y := &q.items[i], m.plan.item(q.items[i].name)
		if y == nil || x.kind != "wait" || x.before == y.before && x.fixed.Equal(y.fixed) {
			continue
		}
		before, after := moment(y, m.ship), moment(x, ship)
		if m.passed[x.name] || after.Before(before) {
			return false
		}
		moves = moves || after.After(before)
		x.fixed, x.before = y.fixed, y.before
	}
	return moves && string(q.release().markdown()) == string(m.plan.release().markdown())
}

// release is the plan without the headings below which there is nothing to do: they are no
// part of a release, only of its document.
func (p *plan) release() *plan {
	q := p.clone()
	q.phases = slices.DeleteFunc(q.phases, func(phase string) bool {
		return !slices.ContainsFunc(q.items, func(x item) bool { return x.phase == phase })
	})
	return q
}

// force puts an approved change in force.
func (m *model) force(b *proposal) {
	if b.plan != nil {
		old, ship := m.plan, m.ship
		m.ship = m.ships(b.plan)
		m.plan = b.plan
		m.markPeople()
		again := map[string]bool{}
		for i := range m.plan.items {
			x := &m.plan.items[i]
			y := old.item(x.name)
			switch {
			case y == nil, x.kind != "sign-off" && asks(old, y) != asks(m.plan, x):
				again[x.name] = true
			case x.kind == "wait" && !moment(x, m.ship).Equal(moment(y, ship)):
				delete(m.passed, x.name) // and steps that followed it do not run again
			}
		}
		m.again(again)
		for name := range m.steps {
			if m.plan.item(name) == nil {
				delete(m.steps, name)
			}
		}
	}
	if b.Machines != nil {
		again := map[string]bool{}
		for _, x := range m.plan.items {
			if isStep(&x) && x.again && m.servers[x.role] != blueprintOf(b.Machines, x.role) {
				again[x.name] = true
			}
		}
		for _, s := range b.Machines {
			m.servers[s.Role] = s.Blueprint
		}
		m.again(again)
	}
	if b.Source != nil {
		m.source = *b.Source
		m.steps = map[string]*run{}
	}
	if b.Signers != "" {
		m.keys = true
	}
	m.ratchet()
}

func blueprintOf(list []release.Machine, role string) string {
	for _, s := range list {
		if s.Role == role {
			return s.Blueprint
		}
	}
	return ""
}

// asks is all that a step or wait asks for: if an amendment changes that, it is done again.
func asks(p *plan, x *item) string {
	return fmt.Sprint(x.runs(), x.timeout, x.retry, x.again, x.ask, x.before, x.fixed, x.text, p.needs(x))
}

// again makes steps and waits begin again, and every step that needs such a step. A wait
// lets steps begin; those that have followed it do not run again.
func (m *model) again(set map[string]bool) {
	for grew := len(set) > 0; grew; {
		grew = false
		for i := range m.plan.items {
			x := &m.plan.items[i]
			if isStep(x) && !set[x.name] && slices.ContainsFunc(m.plan.needs(x), func(n string) bool { return set[n] && isStep(m.plan.item(n)) }) {
				set[x.name], grew = true, true
			}
		}
	}
	for name := range set {
		delete(m.steps, name)
		delete(m.passed, name)
	}
}

// approved counts those who approve a change: each person once, and none whose it is.
func (m *model) approved(b *proposal) (n int) {
	for i, who := range b.approved {
		if !m.theirs(b.Amended, who) && !slices.ContainsFunc(b.approved[:i], func(o string) bool { return m.same(who, o) }) {
			n++
		}
	}
	return n
}

// theirs tells whether a change is somebody's own (rule 14).
func (m *model) theirs(b release.Amended, who string) bool {
	return m.same(who, b.By) || b.Source != nil && m.wrote(who, b.Source.Author)
}
