package drill

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"trysail/internal/strict"
	"trysail/runbook"
)

const (
	maxSize    = 1 << 20 // bytes of a scenario
	maxActions = 100
	seeDocs    = "docs/drills.md has every key, with an example; trysail drill init writes a whole scenario"
)

// Parse reads a scenario strictly and understands its words. The runbook is not
// looked at: whether a step exists is for who has it ([Plan.Against]).
func Parse(file string, data []byte) (*Plan, error) {
	if err := strict.Text(file, data, maxSize, seeDocs); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	p := &parser{file: file, data: data, plan: &Plan{Digest: "sha256:" + hex.EncodeToString(sum[:]), People: map[string]Response{}, file: file, data: data}}
	if err := strict.YAML(file, data, &p.plan.Scenario, seeDocs); err != nil {
		return nil, err
	}
	for _, check := range []func() *strict.Error{p.head, p.clock, p.world, p.people, p.method, p.expect, p.names} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return p.plan, nil
}

type parser struct {
	file string
	data []byte
	plan *Plan
}

func (p *parser) fail(at, remedy, format string, args ...any) *strict.Error {
	return &strict.Error{File: p.file, Line: strict.Line(p.data, at), What: fmt.Sprintf(format, args...), Remedy: remedy}
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,40}$`)

func (p *parser) head() *strict.Error {
	s := &p.plan.Scenario
	switch {
	case s.Format != 1:
		return p.fail("drill", "write drill: 1", "version %d of the format is not known", s.Format)
	case !name.MatchString(s.Name):
		return p.fail("name", "small letters, digits, dots and hyphens", "%q is no name of a drill", s.Name)
	case strings.TrimSpace(s.Hypothesis) == "":
		return p.fail("hypothesis", "say in a sentence what you believe will happen", "a drill without a hypothesis shows nothing")
	case s.Release.Version == "" || s.Release.Runbook == "":
		return p.fail("release", "release: {version: \"4.2\", runbook: RELEASE.md}", "the release has no version or no runbook")
	}
	if s.IssuesDue != "" {
		if _, err := runbook.ParsePeriod(s.IssuesDue); err != nil {
			return p.fail("issues_due", "issues_due: 14d", "how long there is to mend what is found: %v", err)
		}
	}
	for i, f := range s.Frameworks {
		if f.Control == "" || f.How == "" {
			return p.fail(fmt.Sprintf("frameworks[%d]", i), `{control: "SOC 2 A1.3", how: "recovery is tested"}`, "control and how go together")
		}
	}
	for i, r := range s.Report {
		if !slices.Contains([]string{"html", "md", "json"}, r) {
			return p.fail(fmt.Sprintf("report[%d]", i), "html, md, json", "%q is no format of a report", r)
		}
	}
	return nil
}

func (p *parser) clock() *strict.Error {
	c := p.plan.Clock
	var err error
	if p.plan.Ship, err = runbook.ParseTime(c.Ship); err != nil {
		return p.fail("clock.ship", "ship: 2026-12-01T09:00:00Z", "%v", err)
	}
	before, ok := tMinus(c.Begins)
	if !ok || before <= 0 {
		return p.fail("clock.begins", "begins: T-10d", "%q is no time before the ship date", c.Begins)
	}
	p.plan.Begins = p.plan.Ship.Add(-before)
	if c.Mode != "jump" {
		return p.fail("clock.mode", "mode: jump", "%q is not how a drill's clock goes: idle time is skipped, work is not scaled", c.Mode)
	}
	return nil
}

func (p *parser) world() *strict.Error {
	w := p.plan.World
	if w.Controls != 1 && w.Controls != 3 {
		return p.fail("world.controls", "controls: 1, or controls: 3", "%d controls", w.Controls)
	}
	seen := map[string]bool{"desk": true} // the drill's own place in the network
	if len(w.Hosts) == 0 || len(w.Hosts) > 20 {
		return p.fail("world.hosts", "name each build machine, up to 20", "%d hosts", len(w.Hosts))
	}
	for i, h := range w.Hosts {
		at := fmt.Sprintf("world.hosts[%d]", i)
		switch {
		case !name.MatchString(h.Name):
			return p.fail(at+".name", "small letters, digits, dots and hyphens", "%q is no name of a host", h.Name)
		case seen[h.Name] || strings.HasPrefix(h.Name, "control"):
			return p.fail(at+".name", "give it another name", "the name %s is taken", h.Name)
		case !slices.Contains([]string{"primary", "backup", "spare"}, h.Rank):
			return p.fail(at+".rank", "primary, backup or spare", "%q is no rank", h.Rank)
		}
		if size, ok := Bytes(h.Disk); !ok || size < 256<<20 {
			return p.fail(at+".disk", "disk: 4GB (at least 256MB)", "%q is no size of a disk", h.Disk)
		}
		if h.Without != "" && h.Without != "runc" {
			return p.fail(at+".without", "without: runc", "%q is nothing that a machine can be without", h.Without)
		}
		seen[h.Name] = true
	}
	if err := p.services(seen); err != nil {
		return err
	}
	if g := p.plan.Guards; g.DownAtOnce < 1 {
		return p.fail("guards.down_at_once", "guards: {down_at_once: 2, within: 30m}", "no limit on what may be down at once")
	}
	var err error
	if p.plan.Within, err = runbook.ParseDuration(p.plan.Guards.Within); err != nil {
		return p.fail("guards.within", "within: 30m", "how long the drill may take: %v", err)
	}
	return nil
}

// services have names of their own, and something to give.
func (p *parser) services(seen map[string]bool) *strict.Error {
	if n := len(p.plan.World.Services); n > 10 {
		return p.fail("world.services", "up to 10", "%d services", n)
	}
	vcs := ""
	for i, s := range p.plan.World.Services {
		at := fmt.Sprintf("world.services[%d]", i)
		switch {
		case !name.MatchString(s.Name):
			return p.fail(at+".name", "small letters, digits, dots and hyphens", "%q is no name of a host", s.Name)
		case seen[s.Name] || strings.HasPrefix(s.Name, "control"):
			return p.fail(at+".name", "give it another name", "the name %s is taken", s.Name)
		case !slices.Contains([]OfHosts{Mirror, Registry, Git}, s.Kind):
			return p.fail(at+".kind", "mirror, registry or git", "%q is no kind of service", s.Kind)
		case s.Kind == Git && s.From != "":
			return p.fail(at+".from", "leave it out", "a git host holds the repository of the working copy")
		case s.Kind == Git && vcs != "":
			return p.fail(at+".kind", "one git host", "the release cannot be started from both %s and %s", vcs, s.Name)
		case s.Kind != Git && !filepath.IsLocal(s.From):
			return p.fail(at+".from", "from: a directory of the working copy", "%q is nothing that a %s can give", s.From, s.Kind)
		}
		if s.Kind == Git {
			vcs = s.Name
		}
		seen[s.Name] = true
	}
	return nil
}

func (p *parser) people() *strict.Error {
	for i, x := range p.plan.Scenario.People {
		at := fmt.Sprintf("people[%d]", i)
		if _, twice := p.plan.People[x.Name]; twice || x.Name == "" {
			return p.fail(at+".name", "name each person of the runbook once", "%q", x.Name)
		}
		r := Response{Live: x.Live}
		if !x.Live {
			least, most, ok := spread(x.Responds)
			if !ok {
				return p.fail(at+".responds", "responds: 1h..3h", "%q is not how long %s takes to answer", x.Responds, x.Name)
			}
			r.Least, r.Most = least, most
			spends, err := runbook.ParseDelay(x.Spends)
			if err != nil {
				return p.fail(at+".spends", "spends: 30m", "what a decision takes %s: %v", x.Name, err)
			}
			r.Spends = spends
		}
		for j, a := range x.Away {
			from, to, two := strings.Cut(a, "..")
			begin, ok := tMinus(from)
			end, ok2 := tMinus(to)
			if !two || !ok || !ok2 || begin <= end {
				return p.fail(fmt.Sprintf("%s.away[%d]", at, j), "away: [T-5d..T-2d]", "%q is not when %s is away", a, x.Name)
			}
			r.Away = append(r.Away, Span{p.plan.Ship.Add(-begin), p.plan.Ship.Add(-end)})
		}
		slices.SortFunc(r.Away, func(a, b Span) int { return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To)) })
		p.plan.People[x.Name] = r
	}
	return nil
}

func (p *parser) method() *strict.Error {
	known := map[string]bool{}
	if len(p.plan.Method) == 0 {
		return p.fail("method", "give at least one fault; trysail rehearse proves a machine without any", "nothing happens")
	}
	if n := len(p.plan.Method); n > maxActions {
		return p.fail("method", fmt.Sprintf("%d are the most: what is more is another drill", maxActions), "there are %d actions", n)
	}
	for i, a := range p.plan.Method {
		at := fmt.Sprintf("method[%d]", i)
		switch {
		case !name.MatchString(a.Name):
			return p.fail(at+".name", "small letters, digits, dots and hyphens", "%q is no name of an action", a.Name)
		case known[a.Name]:
			return p.fail(at+".name", "give each action a name of its own", "the name %s is taken", a.Name)
		case slices.Contains(Reached(), a.Name):
			return p.fail(at+".name", "give it another name", "%s is what invariants.reached may name already", a.Name)
		}
		when, ok := p.plan.when(a.When, known)
		if !ok {
			return p.fail(at+".when", `when: T-7d · "gold running" · "gold running on backup" · "blank rebuilding" · "after NAME"`, "%q is no time, and nothing that happens", a.When)
		}
		t := Timed{When: when}
		if err := p.action(a, at); err != nil {
			return err
		}
		if a.For != "" {
			d, err := runbook.ParseDuration(a.For)
			if err != nil {
				return p.fail(at+".for", "for: 30s; without it a fault is for good", "%v", err)
			}
			t.For = d
		}
		if a.Within != "" {
			from, to, two := strings.Cut(a.Within, "..")
			begin, ok := tMinus(from)
			end, ok2 := tMinus(to)
			switch {
			case a.Fault == "":
				return p.fail(at+".within", "leave it out", "%s is no fault, of which a hypothesis says when it happens", a.Name)
			case !two || !ok || !ok2 || begin <= end:
				return p.fail(at+".within", "within: T-7d..T-0", "%q is not when %s happens", a.Within, a.Name)
			}
			t.Within = &Span{p.plan.Ship.Add(-begin), p.plan.Ship.Add(-end)}
			if !t.When.At.IsZero() && (t.When.At.Before(t.Within.From) || t.When.At.After(t.Within.To)) {
				return p.fail(at+".within", "within: a time that holds "+a.When, "%s happens at %s, which is not within %s", a.Name, a.When, a.Within)
			}
		}
		known[a.Name] = true
		p.plan.Timed = append(p.plan.Timed, t)
	}
	return p.disks()
}

// disks refuses faults on a disk that is gone by then for certain.
func (p *parser) disks() *strict.Error {
	for i, a := range p.plan.Method {
		for k, gone := range p.plan.Method {
			if a.Fault.OnDisk() && gone.Fault == "disk-destroyed" && gone.Host == a.Host && p.plan.follows(i, k) {
				return p.fail(fmt.Sprintf("method[%d].fault", i), "another host, or a time before "+gone.Name, "%s comes after %s, and %s has no disk then", a.Name, gone.Name, a.Host)
			}
		}
	}
	return nil
}

// follows tells whether an action comes after another whatever happens; their times say
// so, or one that it waits for does.
func (p *Plan) follows(i, k int) bool {
	x, y := p.Timed[i].When, p.Timed[k].When
	if x.After != "" {
		before := slices.IndexFunc(p.Method, func(a Action) bool { return a.Name == x.After })
		return before == k || p.follows(before, k)
	}
	return !x.At.IsZero() && !y.At.IsZero() && (x.At.After(y.At) || x.At.Equal(y.At) && i > k)
}

func (p *parser) action(a Action, at string) *strict.Error {
	if (a.Fault == "") == (a.Do == "") {
		return p.fail(at, "one of the two", "%s is neither a fault nor something to do, or both", a.Name)
	}
	if a.Do != "" {
		if f := strings.Fields(a.Do); len(f) < 2 || !slices.Contains([]string{"fleet", "release", "control"}, f[0]) {
			return p.fail(at+".do", `do: "fleet readmit primary"`, "%q is no command of trysail fleet or release, nor control recover HOST", a.Do)
		}
		for _, word := range strings.Fields(a.Do) {
			if flag, _, _ := strings.Cut(word, "="); strings.HasPrefix(flag, "-") && !slices.Contains(doFlags(), flag) {
				return p.fail(at+".do", "use only these flags: "+strings.Join(doFlags(), ", "), "%s uses the flag %s, which no scenario may use: it could reach another fleet, or files of the person who runs the drill", a.Name, flag)
			}
		}
		if a.Host != "" || a.Of != "" || a.For != "" {
			return p.fail(at, "leave host, of and for out: they are a fault's", "%s is something to do, and no fault", a.Name)
		}
		return nil
	}
	i := slices.IndexFunc(Faults(), func(k FaultKind) bool { return k.Fault == a.Fault })
	if i < 0 {
		return p.fail(at+".fault", "trysail drill faults lists them", "%q is no fault", a.Fault)
	}
	k := Faults()[i]
	switch {
	case k.On == nil && a.Host != "":
		return p.fail(at+".host", "leave it out", "%s is not about a host", a.Fault)
	case k.On != nil && p.plan.hosts()[a.Host] == "":
		return p.fail(at+".host", "one of world.hosts or world.services, control, or with three of them control2 and control3", "%q is no host of this drill", a.Host)
	case k.On != nil && !slices.Contains(k.On, p.plan.hosts()[a.Host]):
		return p.fail(at+".host", "it happens to: "+k.Where(), "%s cannot happen to %s, a %s", a.Fault, a.Host, p.plan.hosts()[a.Host])
	case k.Of != (a.Of != ""):
		return p.fail(at+".of", "of names what the fault is about, where it is about something", "%s, and of is %q", a.Fault, a.Of)
	case !k.Undone && a.For != "":
		return p.fail(at+".for", "leave it out: it is for good", "%s cannot be undone", a.Fault)
	}
	if a.Fault == "person-away" || a.Fault == "key-revoked" {
		if _, ok := p.plan.People[a.Of]; !ok {
			return p.fail(at+".of", "one of people", "%q is nobody of this drill", a.Of)
		}
	}
	if a.Fault == "clock-skew" {
		if _, err := runbook.ParseDuration(strings.TrimPrefix(a.Of, "-")); err != nil {
			return p.fail(at+".of", "of: 1h, or of: -1h", "how wrong a clock is: %v", err)
		}
	}
	return nil
}

// doFlags are the flags of commands that a scenario may use. The command runs with the rights of
// the person who runs the drill. So no flag of the list names another control, a key, or a file to write.
func doFlags() []string {
	return []string{
		"--allow-dirty", "--as", "--difference", "--force", "--json", "--machines", "--no", "--reason", "--role", "--runbook", "--ship", "--signers", "--source",
		"--spent", "--with-exception", "--without-proof", "--yes",
	}
}

// builds tells whether a name is that of a build machine.
func (p *Plan) builds(host string) bool {
	return slices.ContainsFunc(p.World.Hosts, func(h Host) bool { return h.Name == host })
}

// Machines names the controls and the build machines, in their order.
func (p *Plan) Machines() []string {
	list := []string{"control"}
	for n := 2; n <= p.World.Controls; n++ {
		list = append(list, "control"+strconv.Itoa(n))
	}
	for _, h := range p.World.Hosts {
		list = append(list, h.Name)
	}
	return list
}

// Services names the hosts that neither control nor build.
func (p *Plan) Services() []string {
	var list []string
	for _, s := range p.World.Services {
		list = append(list, s.Name)
	}
	return list
}

// hosts are the names that a fault's host may have.
func (p *Plan) hosts() map[string]OfHosts {
	known := map[string]OfHosts{}
	for _, name := range p.Machines() {
		known[name] = Machine
	}
	for _, s := range p.World.Services {
		known[s.Name] = s.Kind
	}
	return known
}

// when understands the time of an action; those before it are known by name.
func (p *Plan) when(s string, known map[string]bool) (When, bool) {
	if before, ok := tMinus(s); ok {
		at := p.Ship.Add(-before)
		return When{At: at}, !at.Before(p.Begins)
	}
	s, host, on := strings.Cut(s, " on ")
	a, b, two := strings.Cut(s, " ")
	switch {
	case !two || on && (!p.builds(host) || b != "running"):
		return When{}, false
	case a == "after":
		return When{After: b}, known[b]
	case b == "rebuilding":
		return When{Host: a}, p.builds(a)
	case slices.Contains([]string{"running", "done", "stopped", "ready", "confirming"}, b):
		return When{Item: a, Status: b, Host: host}, a != ""
	}
	return When{}, false
}

func (p *parser) expect() *strict.Error {
	e := p.plan.Expect
	if e.Gold != "" && e.Gold != "identical" && e.Gold != "equivalent" {
		return p.fail("expect.gold", "identical or equivalent", "%q is not what a second build of gold should be", e.Gold)
	}
	ships := e.Ships == nil || *e.Ships
	switch final := p.plan.Invariants.Final; {
	case !ships && (e.OnTime || e.OnBudget):
		return p.fail("expect.ships", "leave on_time and on_budget out", "what does not ship is neither on time nor on budget")
	case !ships && slices.Contains(final, "shipped"), ships && slices.Contains(final, "not-shipped"):
		return p.fail("invariants.final", "expect: {ships: false} goes with not-shipped, and shipped with anything else", "expect.ships is %t, and the end is to be otherwise", ships)
	}
	for i, f := range e.Faults {
		at := fmt.Sprintf("expect.faults[%d]", i)
		of := slices.IndexFunc(p.plan.Method, func(a Action) bool { return a.Name == f.Name && a.Fault != "" })
		switch {
		case of < 0:
			return p.fail(at+".name", "one of method", "%q is no fault of this drill", f.Name)
		case f.Detected == "" && f.Moved == "" && f.Recovered == "":
			return p.fail(at, "detected: 5s, moved: 10s, recovered: 10m, or some of them", "nothing of %s is limited", f.Name)
		case !p.plan.builds(p.plan.Method[of].Host):
			return p.fail(at, "limits are for faults on a build machine", "nothing shows when %s is noticed", f.Name)
		}
		for _, x := range [][2]string{{"detected", f.Detected}, {"moved", f.Moved}, {"recovered", f.Recovered}} {
			if _, err := runbook.ParseDuration(x[1]); x[1] != "" && err != nil {
				return p.fail(at+"."+x[0], x[0]+": 5s", "%v", err)
			}
		}
	}
	for i, r := range e.Rebuilt {
		at := fmt.Sprintf("expect.rebuilt[%d]", i)
		if !p.plan.builds(r.Host) {
			return p.fail(at+".host", "one of world.hosts", "%q is no host of this drill", r.Host)
		}
		if _, err := runbook.ParseDuration(r.Within); err != nil {
			return p.fail(at+".within", "within: 5m", "%v", err)
		}
	}
	return nil
}

// names refuses questions and invariants that nobody would ask.
func (p *parser) names() *strict.Error {
	s := p.plan.Scenario
	var questions []string
	for _, q := range Questions() {
		questions = append(questions, string(q))
	}
	for i, q := range s.Steady {
		if !slices.Contains(Questions(), q) {
			return p.fail(fmt.Sprintf("steady[%d]", i), "the questions are "+strings.Join(questions, ", "), "%q is not asked", q)
		}
	}
	for _, x := range []struct {
		key         string
		named, asks []string
	}{{"always", s.Invariants.Always, Always()}, {"final", s.Invariants.Final, Final()}} {
		for i, n := range x.named {
			if !slices.Contains(x.asks, n) {
				return p.fail(fmt.Sprintf("invariants.%s[%d]", x.key, i), "they are "+strings.Join(x.asks, ", "), "%q is not watched", n)
			}
		}
	}
	for i, n := range s.Invariants.Reached {
		if slices.Contains(s.Invariants.Reached[:i], n) {
			return p.fail(fmt.Sprintf("invariants.reached[%d]", i), "name it once", "%q stands twice", n)
		}
		if !slices.ContainsFunc(s.Method, func(a Action) bool { return a.Name == n }) && !slices.Contains(Reached(), n) {
			return p.fail(fmt.Sprintf("invariants.reached[%d]", i), "an action's name, or one of "+strings.Join(Reached(), ", "), "%q is never reached", n)
		}
	}
	for i, m := range s.Modelled {
		if m.What == "" || m.Distribution == "" || m.Source == "" {
			return p.fail(fmt.Sprintf("modelled[%d]", i), `{what: answers, distribution: "1h..3h, even", source: "the last four releases"}`, "what, distribution and source go together")
		}
	}
	return nil
}

// tMinus reads T-7d: how long before the ship date.
func tMinus(s string) (time.Duration, bool) {
	before, ok := strings.CutPrefix(s, "T-")
	if !ok || before == "0" {
		return 0, ok
	}
	d, err := runbook.ParsePeriod(before)
	return d, err == nil
}

// Duration reads a time such as 30s, 2h or 3d, and 0s.
func Duration(s string) (time.Duration, bool) {
	d, err := runbook.ParseDelay(s)
	return d, err == nil
}

// spread reads 1h..3h, or 2h.
func spread(s string) (least, most time.Duration, ok bool) {
	a, b, two := strings.Cut(s, "..")
	if !two {
		b = a
	}
	least, ok = Duration(a)
	most, ok2 := Duration(b)
	return least, most, ok && ok2 && least <= most
}

var bytesForm = regexp.MustCompile(`^(\d{1,6})(MB|GB)$`)

// Bytes reads the size of a disk: 512MB, 4GB.
func Bytes(s string) (int64, bool) {
	m := bytesForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n << map[string]int{"MB": 20, "GB": 30}[m[2]], err == nil
}
