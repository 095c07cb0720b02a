package drill

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"trysail/release"
)

// Value is what an axis comes to.
type Value string

// The values: unknown beats pass, and fail beats both.
const (
	Pass    Value = "pass"
	Unknown Value = "unknown"
	Fail    Value = "fail"
)

func worse(a, b Value) Value {
	order := []Value{Pass, Unknown, Fail}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// Axis is one of the three, with every reason that it is no pass.
type Axis struct {
	Value Value    `json:"value"`
	Why   []string `json:"why"`
}

func (a *Axis) say(v Value, format string, args ...any) {
	a.Value = worse(a.Value, v)
	a.Why = append(a.Why, fmt.Sprintf(format, args...))
}

// Measure is a number beside its limit.
type Measure struct {
	What    string  `json:"what"`
	Of      string  `json:"of,omitempty"`
	Seconds float64 `json:"seconds"`
	Limit   float64 `json:"limit_seconds,omitempty"`
	Met     *bool   `json:"met,omitempty"`
	How     string  `json:"how"` // measured, modelled
}

// Bite is a fault and what followed.
type Bite struct {
	Name     string        `json:"name"`
	Fault    Fault         `json:"fault"`
	Host     string        `json:"host,omitempty"`
	At       time.Duration `json:"at"` // real time since the drill began
	Clock    time.Time     `json:"clock"`
	Verified bool          `json:"verified"`
	Detected float64       `json:"detected_seconds,omitempty"` // after it bit
	Moved    float64       `json:"moved_seconds,omitempty"`
	To       string        `json:"moved_to,omitempty"`
	Wasted   float64       `json:"wasted_seconds,omitempty"` // work that is done again
	Slack    *float64      `json:"slack_seconds,omitempty"`  // left, once it was injected
	Undone   bool          `json:"undone"`
	ForGood  bool          `json:"for_good"`
}

// Verdict is what a history comes to.
type Verdict struct {
	Value   Value `json:"verdict"`
	System  Axis  `json:"system"`
	Harness Axis  `json:"harness"`
	Cleanup Axis  `json:"cleanup"`
	// Sentence is the answer for a person who reads no further.
	Sentence string    `json:"sentence"`
	Shipped  bool      `json:"shipped"`
	OnTime   *bool     `json:"on_time,omitempty"`
	OnBudget *bool     `json:"on_budget,omitempty"`
	Slack    float64   `json:"slack_seconds"` // left when it shipped
	Faults   []Bite    `json:"faults"`
	Measured []Measure `json:"measured"`
	// Machine is what machines took, all work added up; People what people did, in
	// hours, as modelled; Skipped is idle time that the drill's clock jumped over.
	Machine  float64  `json:"machine_seconds"`
	People   float64  `json:"person_hours"`
	Real     float64  `json:"real_seconds"` // from the first record to the last
	Skipped  float64  `json:"skipped_seconds"`
	Overhead float64  `json:"overhead_seconds"` // that is neither work nor a declared wait
	Modelled []Model  `json:"modelled"`
	Lost     []string `json:"lost"` // acknowledged facts that are gone
	Gold     string   `json:"gold,omitempty"`
}

// The invariants, by when they are asked.
func Always() []string {
	return []string{"one-gold", "rules-kept", "acknowledged-kept"}
}

// Final lists those of the end.
func Final() []string { return []string{"shipped", "gold-confirmed", "not-shipped"} }

// Reached lists what must have happened at some time, besides an action.
func Reached() []string { return []string{"moved", "rebuilt", "gold"} }

// judging is what a verdict is worked out from.
type judging struct {
	p      *Plan
	h      []Record
	events []release.Event
	seen   []Record // of each event: when it was seen
	v      *Verdict
}

// Judge gives the verdict on a history. It asks nothing but what was recorded.
func Judge(p *Plan, h []Record) *Verdict {
	j := &judging{p: p, h: h, v: &Verdict{
		System: Axis{Pass, []string{}}, Harness: Axis{Pass, []string{}}, Cleanup: Axis{Pass, []string{}},
		Faults: []Bite{}, Measured: []Measure{}, Modelled: append([]Model{}, p.Modelled...), Lost: []string{},
	}}
	for _, r := range h {
		if r.Kind == Happened && r.Event != nil {
			j.events, j.seen = append(j.events, *r.Event), append(j.seen, r)
		}
	}
	j.harness()
	j.faults()
	j.rules()
	j.outcome()
	j.rebuilt()
	j.steady()
	j.invariants()
	j.cleanup()
	j.times()
	v := j.v
	v.Value = worse(worse(v.System.Value, v.Harness.Value), v.Cleanup.Value)
	v.Sentence = j.sentence()
	return v
}

func (j *judging) all(kind Kind) []Record {
	var list []Record
	for _, r := range j.h {
		if r.Kind == kind {
			list = append(list, r)
		}
	}
	return list
}

func yes(ok *bool) bool { return ok != nil && *ok }

// harness: the drill ran to its end, and nothing stopped it.
func (j *judging) harness() {
	a := &j.v.Harness
	if len(j.all(Ended)) == 0 {
		a.say(Unknown, "the drill did not run to its end")
	}
	for _, r := range j.all(Stopped) {
		a.say(Unknown, "the drill was stopped: %s", r.Why)
	}
	for _, r := range j.all(Guarded) {
		a.say(Unknown, "a guard stopped the drill: %s", r.Why)
	}
	for _, r := range j.all(Done) {
		if !yes(r.OK) {
			a.say(Unknown, "%s could not be done: %s", r.Name, r.Why)
		}
	}
	if h := j.h[0].Header; h != nil {
		for _, b := range h.Broken {
			a.say(Unknown, "a defect was planted on purpose: %s", b)
		}
	}
	for _, act := range j.p.Method {
		reached := slices.ContainsFunc(j.h, func(r Record) bool { return r.Name == act.Name && (r.Kind == Injected || r.Kind == Done) })
		if !reached {
			a.say(Unknown, "%s was never reached: %s", act.Name, act.When)
		}
	}
}

// faults: each was seen to bite, and what followed.
func (j *judging) faults() {
	for i, act := range j.p.Method {
		if act.Fault == "" {
			continue
		}
		inj := slices.IndexFunc(j.h, func(r Record) bool { return r.Kind == Injected && r.Name == act.Name })
		if inj < 0 {
			continue // said already
		}
		r := j.h[inj]
		// It may bite from the moment on that its injector began.
		begun := slices.IndexFunc(j.h, func(r Record) bool { return r.Kind == Intended && r.Name == act.Name })
		if begun < 0 {
			j.v.Harness.say(Unknown, "%s: nothing says that its undo was on disk before", act.Name)
			begun = inj
		}
		b := Bite{Name: act.Name, Fault: act.Fault, Host: act.Host, At: j.h[begun].At, Clock: r.Clock, ForGood: j.p.Timed[i].For == 0}
		if r.Slack != nil {
			s := r.Slack.Seconds()
			b.Slack = &s
		}
		if !yes(r.OK) {
			j.v.Harness.say(Unknown, "%s was not injected: %s", act.Name, r.Why)
		}
		for _, p := range j.h[inj:] {
			if p.Name != act.Name {
				continue
			}
			switch p.Kind {
			case Probed:
				b.Verified = b.Verified || yes(p.OK)
			case Undone:
				b.Undone = yes(p.OK)
			}
		}
		if !b.Verified {
			j.v.Harness.say(Unknown, "%s: no probe saw that it bit", act.Name)
		}
		j.followed(&b, begun)
		j.v.Faults = append(j.v.Faults, b)
	}
	for _, l := range j.p.Expect.Faults {
		i := slices.IndexFunc(j.v.Faults, func(b Bite) bool { return b.Name == l.Name })
		if i < 0 {
			continue
		}
		b := j.v.Faults[i]
		j.limit("detected", l.Name, b.Detected, l.Detected)
		j.limit("moved", l.Name, b.Moved, l.Moved)
	}
}

// followed: when control noticed, where the work went, and what was done for nothing.
func (j *judging) followed(b *Bite, begun int) {
	at := j.h[begun].At
	for _, r := range j.h[begun:] {
		if r.Kind == Sighted && r.Host == b.Host && r.Why != "up" && b.Detected == 0 {
			b.Detected = (r.At - at).Seconds()
		}
	}
	lost := ""
	granted := map[string]Record{}
	for k, e := range j.events {
		r := j.seen[k]
		switch x := e.Body.(type) {
		case release.Granted:
			if x.Item == lost && r.At > at && x.Machine != b.Host && b.Moved == 0 {
				b.Moved, b.To = (r.At - at).Seconds(), x.Machine
			}
			granted[x.Item] = r
		case release.Lost:
			if x.Machine == b.Host && r.At > at && lost == "" {
				lost = x.Item
				b.Wasted = (r.At - granted[x.Item].At).Seconds()
				if d := (r.At - at).Seconds(); b.Detected == 0 || d < b.Detected {
					b.Detected = d
				}
			}
		}
	}
}

func (j *judging) limit(what, of string, seconds float64, limit string) {
	if limit == "" {
		return
	}
	d, _ := Duration(limit) // it was parsed before
	m := Measure{What: what, Of: of, Seconds: seconds, Limit: d.Seconds(), How: "measured"}
	met := seconds > 0 && seconds <= m.Limit
	m.Met = &met
	j.v.Measured = append(j.v.Measured, m)
	switch {
	case seconds == 0:
		j.v.System.say(Fail, "%s was never %s", of, what)
	case !met:
		j.v.System.say(Fail, "%s was %s after %.1f s, and %s is the limit", of, what, seconds, limit)
	}
}

// rules: the release's own, held against what was acknowledged.
func (j *judging) rules() {
	var acks []release.Ack
	for _, r := range j.all(Told) {
		if r.Ack != nil {
			acks = append(acks, *r.Ack)
		}
	}
	if len(j.events) == 0 {
		j.v.System.say(Unknown, "nothing is known of the release: it has no events")
		return
	}
	for _, wrong := range release.Check(j.events, release.History{}) {
		j.v.System.say(Fail, "%s", wrong)
	}
	for _, wrong := range release.CheckAcks(j.events, acks) {
		j.v.Lost = append(j.v.Lost, wrong)
		j.v.System.say(Fail, "%s", wrong)
	}
}

// outcome: shipped or not, on time, on budget, with which gold.
func (j *judging) outcome() {
	e := j.p.Expect
	var spent time.Duration
	var budget time.Duration
	for _, x := range j.events {
		switch b := x.Body.(type) {
		case release.Started:
			budget = b.Budget
		case release.Signed:
			spent += b.Spent
		case release.Confirmed:
			j.v.Gold = string(b.Verdict)
		case release.Shipped:
			j.v.Shipped = true
			onTime := !x.Time.After(j.p.Ship)
			j.v.OnTime, j.v.Slack = &onTime, j.p.Ship.Sub(x.Time).Seconds()
		}
	}
	j.v.People = spent.Hours()
	wanted := e.Ships == nil || *e.Ships
	switch {
	case wanted && !j.v.Shipped:
		j.v.System.say(Fail, "the release did not ship")
	case !wanted && j.v.Shipped:
		j.v.System.say(Fail, "the release shipped, and must not")
	}
	if budget > 0 {
		ok := spent <= budget
		j.v.OnBudget = &ok
		if e.OnBudget && !ok {
			j.v.System.say(Fail, "people spent %.1f hours, and %.1f is the budget", spent.Hours(), budget.Hours())
		}
	} else if e.OnBudget {
		j.v.System.say(Unknown, "the runbook has no budget of person-hours")
	}
	if e.OnTime && j.v.Shipped && !*j.v.OnTime {
		j.v.System.say(Fail, "it shipped %s after the ship date", (-time.Duration(j.v.Slack * float64(time.Second))).Round(time.Minute))
	}
	if e.Gold != "" && j.v.Gold != e.Gold && (j.v.Gold != "identical" || e.Gold != "equivalent") {
		j.v.System.say(Fail, "the second build of gold is %s, and not %s", cmp.Or(j.v.Gold, "not there"), e.Gold)
	}
}

// rebuilt: machines that became build servers.
func (j *judging) rebuilt() {
	for _, l := range j.p.Expect.Rebuilt {
		seconds := 0.0
		for _, r := range j.all(Warmed) {
			if r.Host == l.Host && r.Took > 0 {
				seconds = r.Took.Seconds()
			}
		}
		j.limit("rebuilt", l.Host, seconds, l.Within)
	}
}

// steady: the questions, before and after. A world that was not well before shows
// nothing about what was done to it.
func (j *judging) steady() {
	for _, q := range j.p.Steady {
		for kind, axis := range map[Kind]*Axis{Asked: &j.v.Harness, Asked2: &j.v.System} {
			list := slices.DeleteFunc(j.all(kind), func(r Record) bool { return r.Name != string(q) })
			when := map[Kind]string{Asked: "before", Asked2: "after"}[kind]
			switch {
			case len(list) == 0 || list[len(list)-1].OK == nil:
				axis.say(Unknown, "steady state %s: %s was not answered", when, q)
			case yes(list[len(list)-1].OK):
			case kind == Asked:
				axis.say(Unknown, "steady state before: %s is not so: %s", q, list[len(list)-1].Why)
			default:
				axis.say(Fail, "steady state after: %s is not so: %s", q, list[len(list)-1].Why)
			}
		}
	}
}

// invariants that the rest has not said already.
func (j *judging) invariants() {
	has := func(kind string) bool {
		return slices.ContainsFunc(j.events, func(e release.Event) bool { return e.Type == kind })
	}
	for _, x := range j.p.Invariants.Final {
		switch x {
		case "shipped":
			if !has("shipped") && (j.p.Expect.Ships != nil && !*j.p.Expect.Ships) {
				j.v.System.say(Fail, "in the end it is not shipped")
			}
		case "not-shipped":
			if has("shipped") {
				j.v.System.say(Fail, "in the end it is shipped")
			}
		case "gold-confirmed":
			if !has("confirmed") {
				j.v.System.say(Fail, "in the end gold is not confirmed by a second build")
			}
		}
	}
	for _, x := range j.p.Invariants.Reached {
		reached := false
		switch x {
		case "moved":
			reached = slices.ContainsFunc(j.v.Faults, func(b Bite) bool { return b.Moved > 0 })
		case "rebuilt":
			reached = slices.ContainsFunc(j.all(Warmed), func(r Record) bool { return r.Took > 0 })
		case "gold":
			reached = has("gold")
		default:
			reached = slices.ContainsFunc(j.h, func(r Record) bool { return r.Name == x && (r.Kind == Injected || r.Kind == Done) && yes(r.OK) })
		}
		if !reached {
			j.v.System.say(Unknown, "%s was never reached", x)
		}
	}
}

// cleanup: what was undone, and what is left on the host.
func (j *judging) cleanup() {
	a := &j.v.Cleanup
	for _, r := range j.all(Undone) {
		if !yes(r.OK) {
			a.say(Fail, "%s was not undone: %s", r.Name, r.Why)
		}
	}
	list := j.all(Cleaned)
	if len(list) == 0 {
		a.say(Unknown, "nobody looked at what is left")
		return
	}
	last := list[len(list)-1]
	if last.OK == nil {
		a.say(Unknown, "what is left could not be seen: %s", last.Why)
	}
	for _, x := range last.Left {
		a.say(Fail, "left behind: %s", x)
	}
	if last.OK != nil && !*last.OK && len(last.Left) == 0 {
		a.say(Fail, "%s", last.Why)
	}
}

// span of real time in which something went on.
type span struct{ from, to time.Duration }

// times: what machines took, and what of the drill's own time is neither work nor
// a wait.
func (j *judging) times() {
	v := j.v
	v.Real = j.h[len(j.h)-1].At.Seconds()
	var busy []span
	running := map[string]time.Duration{}
	stop := func(item string, at time.Duration) {
		if from, ok := running[item]; ok {
			v.Machine += (at - from).Seconds()
			busy = append(busy, span{from, at})
			delete(running, item)
		}
	}
	for k, e := range j.events {
		at := j.seen[k].At
		switch b := e.Body.(type) {
		case release.Granted:
			running[b.Item] = at
		case release.Lost:
			stop(b.Item, at)
		case release.Finished:
			stop(b.Item, at)
		case release.Committed:
			stop(b.Item, at)
		case release.Confirmed:
			for _, item := range slices.Sorted(maps.Keys(running)) {
				if running[item] > 0 {
					stop(item, at)
				}
			}
		}
	}
	for _, r := range j.h {
		switch {
		case r.Kind == Jumped:
			v.Skipped += r.Took.Seconds()
		case (r.Kind == Decided && r.Live || r.Kind == Warmed) && r.Took > 0:
			busy = append(busy, span{r.At - r.Took, r.At})
		}
	}
	// A fault is waited for until it is noticed: that is the system's time.
	for _, b := range v.Faults {
		if b.Detected > 0 {
			busy = append(busy, span{b.At, b.At + time.Duration(b.Detected*float64(time.Second))})
		}
	}
	v.Overhead = max(v.Real-union(busy).Seconds(), 0)
	v.Measured = append(v.Measured,
		Measure{What: "machine time", Seconds: v.Machine, How: "measured"},
		Measure{What: "people's time", Seconds: v.People * 3600, How: how(j.all(Decided))},
		Measure{What: "the drill's own time", Seconds: v.Overhead, How: "measured"})
}

func how(people []Record) string {
	if slices.ContainsFunc(people, func(r Record) bool { return !r.Live }) {
		return "modelled"
	}
	return "measured"
}

// union is the time that at least one span covers.
func union(list []span) time.Duration {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var sum, end time.Duration
	for _, s := range list {
		if s.to <= end {
			continue
		}
		sum += s.to - max(s.from, end)
		end = s.to
	}
	return sum
}

// sentence is the answer first.
func (j *judging) sentence() string {
	v := j.v
	lost := 0
	for _, b := range v.Faults {
		if b.Verified {
			lost++
		}
	}
	bit := map[bool]string{true: "1 fault bit", false: fmt.Sprintf("%d faults bit", lost)}[lost == 1]
	switch v.Value {
	case Pass:
		if !v.Shipped {
			return fmt.Sprintf("Rehearsed on one host: %s, and nothing shipped, as expected.", bit)
		}
		parts := []string{}
		if v.OnTime != nil && *v.OnTime {
			parts = append(parts, "on time, "+Human(time.Duration(v.Slack*float64(time.Second)))+" before the ship date")
		}
		if v.OnBudget != nil && *v.OnBudget {
			parts = append(parts, "on budget")
		}
		return fmt.Sprintf("Rehearsed on one host: %s, and the release shipped %s. Machines worked %s (measured); people %s (%s).", bit,
			strings.Join(parts, ", "), Human(time.Duration(v.Machine*float64(time.Second))), Human(time.Duration(v.People*float64(time.Hour))), how(j.all(Decided)))
	case Unknown:
		return "Not known: " + first(v.Harness, v.System, v.Cleanup) + "."
	}
	if v.System.Value != Fail {
		return "The drill left something behind: " + first(v.Cleanup) + "."
	}
	return "Not as you expect: " + first(v.System) + "."
}

// first is the reason that counts most.
func first(list ...Axis) string {
	for _, want := range []Value{Fail, Unknown} {
		for _, a := range list {
			if a.Value == want {
				return a.Why[0]
			}
		}
	}
	return "of no reason"
}

// Human writes a time as people say it.
func Human(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%s%.1f days", sign, d.Hours()/24)
	case d >= 100*time.Minute:
		return fmt.Sprintf("%s%.1f h", sign, d.Hours())
	case d >= 100*time.Second:
		return fmt.Sprintf("%s%dm%02ds", sign, int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%s%.1f s", sign, d.Seconds())
}
