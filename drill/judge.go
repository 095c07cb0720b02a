package drill

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// judging is what a verdict is worked out from.
type judging struct {
	p      *Plan
	h      []Record
	events []release.Event
	seen   []int  // of each event: the record in which it was seen first
	dealt  []span // real time in which the system dealt with a fault
	blind  bool   // not every event was seen when it happened, so its time is not known
	ended  bool   // the drill ran to its end, so what has not happened will not
	v      *Verdict
}

// Judge gives the verdict on a history. It asks nothing but what was recorded, and
// believes that what is not recorded was not done.
func Judge(p *Plan, h []Record) *Verdict {
	j := &judging{p: p, h: h, v: &Verdict{
		System: Axis{Pass, []string{}}, Harness: Axis{Pass, []string{}}, Cleanup: Axis{Pass, []string{}},
		Faults: []Bite{}, Measured: []Measure{}, Modelled: append([]Model{}, p.Modelled...), Lost: []string{},
	}}
	v := j.v
	if len(h) == 0 {
		for _, a := range []*Axis{&v.System, &v.Harness, &v.Cleanup} {
			a.say(Unknown, "nothing was recorded")
		}
	} else {
		j.ended = len(j.all(Ended)) > 0
		j.whole()
		j.harness()
		j.ledger()
		j.faults()
		j.hypothesis()
		j.rules()
		j.outcome()
		j.rebuilt()
		j.steady()
		j.invariants()
		j.cleanup()
		j.times()
	}
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

// index finds the first record of a kind and name from a place on; -1 if none.
func (j *judging) index(from int, kind Kind, name string) int {
	for i := from; i < len(j.h); i++ {
		if j.h[i].Kind == kind && j.h[i].Name == name {
			return i
		}
	}
	return -1
}

func yes(ok *bool) bool { return ok != nil && *ok }

// absent is what it comes to that something has not happened: a failure at the end,
// and not known if the drill was cut short.
func (j *judging) absent() Value {
	if j.ended {
		return Fail
	}
	return Unknown
}

// whole: nothing was taken out of the history, and it is of this scenario.
func (j *judging) whole() {
	a := &j.v.Harness
	for i, r := range j.h {
		if r.Seq != int64(i)+1 {
			a.say(Unknown, "the history is not whole: record %d stands at place %d", r.Seq, i+1)
			break
		}
	}
	for i, r := range j.h[1:] {
		if r.At < j.h[i].At {
			a.say(Unknown, "the history is not in order: record %d is earlier than the one before it", r.Seq)
			break
		}
	}
	switch h := j.h[0].Header; {
	case h == nil:
		a.say(Unknown, "the history does not say which drill it is of")
	case h.Scenario != j.p.Digest:
		a.say(Unknown, "the history is of another scenario: %s, and not %s", cmp.Or(h.Scenario, "none"), j.p.Digest)
	default:
		for _, b := range h.Broken {
			a.say(Unknown, "a defect was planted on purpose: %s", b)
		}
	}
}

// harness: the drill ran to its end, nothing stopped it, and each action was tried.
func (j *judging) harness() {
	a := &j.v.Harness
	if !j.ended {
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
	for _, act := range j.p.Method {
		kind := Injected
		if act.Do != "" {
			kind = Done
		}
		if j.index(0, kind, act.Name) < 0 {
			a.say(Unknown, "%s was never reached: %s%s", act.Name, act.When, j.tooShort(act.Name))
		}
	}
}

// tooShort says so of a step that has run, and was over before anybody saw it run.
func (j *judging) tooShort(action string) string {
	i := slices.IndexFunc(j.p.Method, func(a Action) bool { return a.Name == action })
	w := j.p.Timed[i].When
	if w.Status != "running" {
		return ""
	}
	for _, r := range j.h {
		if r.Event == nil {
			continue
		}
		if f, ok := r.Event.Body.(release.Finished); ok && f.Item == w.Item && w.Host == "" {
			return " (it ran for less time than it takes to see it; a machine that makes its server takes longer: HOST rebuilding)"
		}
	}
	return ""
}

// ledger finds what happened to the release: the ledger as it was read again in the
// end. What was seen of it before must still be there.
func (j *judging) ledger() {
	var live []release.Event
	var at []int
	for i, r := range j.h {
		if r.Kind == Happened && r.Event != nil {
			live, at = append(live, *r.Event), append(at, i)
		}
	}
	// What was read is not unread by a later reading that failed: it still shows what
	// nobody saw happen.
	last, again, why := -1, false, "nobody did"
	for i, r := range j.h {
		switch {
		case r.Kind != Reread:
		case yes(r.OK):
			last, again = i, true
		default:
			again, why = false, r.Why
		}
	}
	if !again {
		j.v.System.say(Unknown, "the ledger was not read again in the end, so what was acknowledged may be gone: %s", why)
	}
	if last < 0 {
		j.events, j.seen = live, at
		return
	}
	j.events = j.h[last].Ledger
	j.seen = make([]int, len(j.events))
	for i := range j.seen {
		j.seen[i] = -1
	}
	text := func(e release.Event) string {
		data, err := json.Marshal(e)
		if err != nil {
			return "" // what was read can be written
		}
		return string(data)
	}
	texts := make([]string, len(j.events)) // written once, however often somebody says to have seen it
	for k, e := range live {
		i := int(e.Seq) - 1
		if i >= 0 && i < len(texts) && texts[i] == "" {
			texts[i] = text(j.events[i])
		}
		switch {
		case i < 0 || i >= len(j.events):
			if at[k] < last {
				j.lose("event %d (%s) was seen, and the ledger ends at %d", e.Seq, e.Type, len(j.events))
			}
		case texts[i] == "" || texts[i] != text(e):
			j.lose("event %d (%s) was seen, and in the end the ledger says otherwise (%s)", e.Seq, e.Type, j.events[i].Type)
			j.seen[i] = at[k]
		case j.seen[i] < 0:
			j.seen[i] = at[k]
		}
	}
	for i, s := range j.seen {
		if s < 0 {
			j.seen[i], j.blind = last, true
			j.v.Harness.say(Unknown, "event %d (%s) was not seen when it happened", j.events[i].Seq, j.events[i].Type)
		}
	}
}

func (j *judging) lose(format string, args ...any) {
	j.v.Lost = append(j.v.Lost, fmt.Sprintf(format, args...))
	j.v.System.say(Fail, format, args...)
}

// rules: the release's own, and what was acknowledged is there.
func (j *judging) rules() {
	if len(j.events) == 0 {
		j.v.System.say(Unknown, "nothing is known of the release: it has no events")
		return
	}
	if s, ok := j.events[0].Body.(release.Started); ok && (!s.Ship.Equal(j.p.Ship) || s.Version != j.p.Release.Version) {
		j.v.Harness.say(Unknown, "the release that ran is %s for %s, and not the scenario's", s.Version, runbook.FormatTime(s.Ship, time.UTC))
	}
	for _, wrong := range release.Check(j.events, release.History{}) {
		j.v.System.say(Fail, "%s", wrong)
	}
	reread := slices.ContainsFunc(j.h, func(r Record) bool { return r.Kind == Reread && yes(r.OK) })
	var acks []release.Ack
	for _, r := range j.all(Told) {
		// The end of what was only watched may be missing without being lost.
		if r.Ack != nil && (reread || r.Ack.Seq > 0 && r.Ack.Seq <= int64(len(j.events))) {
			acks = append(acks, *r.Ack)
		}
	}
	for _, wrong := range release.CheckAcks(j.events, acks) {
		j.lose("%s", wrong)
	}
}

// outcome: shipped or not, on time, on budget, with which gold.
func (j *judging) outcome() {
	e, v := j.p.Expect, j.v
	var budget time.Duration
	aborted := ""
	for k, x := range j.events {
		switch b := x.Body.(type) {
		case release.Started:
			budget = b.Budget
		case release.Confirmed:
			v.Gold = string(b.Verdict)
		case release.Aborted:
			aborted = b.Reason
		case release.Shipped:
			v.Shipped = true
			// By the drill's clock: control's own may be what the scenario sets wrong.
			at := j.h[j.seen[k]].Clock
			onTime := !at.After(j.p.Ship)
			v.OnTime, v.Slack = &onTime, j.p.Ship.Sub(at).Seconds()
		}
	}
	spent := j.people()
	v.People = spent.Hours()
	wanted := e.Ships == nil || *e.Ships
	switch {
	case wanted && !v.Shipped && aborted != "":
		v.System.say(Fail, "the release was aborted: %s", aborted)
	case wanted && !v.Shipped:
		why := ""
		for _, r := range j.all(Stuck) {
			why = ": " + r.Why
		}
		v.System.say(j.absent(), "the release did not ship%s", why)
	case !wanted && v.Shipped:
		v.System.say(Fail, "the release shipped, and must not")
	}
	silent := release.Unreported(j.events)
	v.OnBudget = release.OnBudget(budget, spent, silent)
	if budget > 0 && v.OnBudget == nil {
		v.Unreported = silent
	}
	switch {
	case !e.OnBudget:
	case budget <= 0:
		v.System.say(Unknown, "the runbook has no budget of person-hours")
	case v.OnBudget == nil:
		v.System.say(Unknown, "whether it was on budget is not known: %s", release.NotReported(silent))
	case !*v.OnBudget:
		v.System.say(Fail, "people spent %.1f hours, and %.1f is the budget", spent.Hours(), budget.Hours())
	}
	if e.OnTime && v.Shipped && !*v.OnTime {
		v.System.say(Fail, "it shipped %s after the ship date", runbook.FormatSeconds(-v.Slack))
	}
	if e.Gold != "" && v.Gold != e.Gold && (v.Gold != "identical" || e.Gold != "equivalent") {
		value := Fail
		if v.Gold == "" {
			value = j.absent()
		}
		v.System.say(value, "the second build of gold is %s, and not %s", cmp.Or(v.Gold, "not there"), e.Gold)
	}
}

// people is what people spent: the time under their signatures, and that of words
// which are none (an exception, an approval) or which nobody took.
func (j *judging) people() time.Duration {
	signed, decided := map[string]time.Duration{}, map[string]time.Duration{}
	for _, x := range j.events {
		if b, ok := x.Body.(release.Signed); ok {
			signed[b.Person] += b.Spent
		}
	}
	for _, r := range j.all(Decided) {
		decided[r.Name] += r.Spent
	}
	var sum time.Duration
	for name, d := range decided {
		sum += max(d, signed[name])
	}
	for name, d := range signed {
		if _, ok := decided[name]; !ok {
			sum += d
		}
	}
	return sum
}

// steady: the questions, before the first fault and after the last. A world that was
// not well before shows nothing about what was done to it.
func (j *judging) steady() {
	begin, end := len(j.h), -1
	for i, r := range j.h {
		if r.Kind == Intended || r.Kind == Injected || r.Kind == Done {
			begin, end = min(begin, i), i
		}
	}
	answer := func(list []Record, kind Kind, q Steady) *Record {
		for _, r := range slices.Backward(list) {
			if r.Kind == kind && r.Name == string(q) {
				return &r
			}
		}
		return nil
	}
	for _, q := range j.p.Steady {
		if q == NothingLeft {
			continue // cleanup answers it
		}
		switch r := answer(j.h[:begin], Asked, q); {
		case r == nil || r.OK == nil:
			j.v.Harness.say(Unknown, "steady state before: %s was not answered%s", q, because(r))
		case !*r.OK:
			j.v.Harness.say(Unknown, "steady state before: %s is not so%s", q, because(r))
		}
		switch r := answer(j.h[end+1:], Asked2, q); {
		case r == nil || r.OK == nil:
			j.v.System.say(Unknown, "steady state after: %s was not answered%s", q, because(r))
		case !*r.OK:
			j.v.System.say(Fail, "steady state after: %s is not so%s", q, because(r))
		}
	}
}

func because(r *Record) string {
	if r == nil || r.Why == "" {
		return ""
	}
	return ": " + r.Why
}

// invariants that the rest has not said already. Those of every moment are in rules.
func (j *judging) invariants() {
	has := func(kind string) bool {
		return slices.ContainsFunc(j.events, func(e release.Event) bool { return e.Type == kind })
	}
	for _, x := range j.p.Invariants.Always {
		if x == "acknowledged-kept" && len(j.all(Told)) == 0 {
			j.v.System.say(Unknown, "nothing was acknowledged to anybody, so nothing shows that it is kept")
		}
	}
	for _, x := range j.p.Invariants.Final {
		switch x {
		case "shipped", "not-shipped": // outcome has said it: Parse holds them to expect.ships
		case "gold-confirmed":
			switch g := j.v.Gold; {
			case g == "":
				j.v.System.say(j.absent(), "in the end gold is not confirmed by a second build")
			case g == string(release.Different):
				j.v.System.say(Fail, "the second build of gold made other bytes")
			case g == string(release.Equivalent) && !has("excepted"):
				j.v.System.say(j.absent(), "nobody signed for the differences of the second build of gold")
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
	for i, act := range j.p.Method {
		inj := j.index(0, Injected, act.Name)
		if act.Fault != "" && j.p.Timed[i].For > 0 && inj >= 0 && yes(j.h[inj].OK) && j.index(inj, Undone, act.Name) < 0 {
			a.say(Unknown, "nothing says that %s was undone", act.Name)
		}
	}
	last := len(j.h) - 1
	for last >= 0 && j.h[last].Kind != Cleaned {
		last--
	}
	if last < 0 || slices.ContainsFunc(j.h[last:], func(r Record) bool { return r.Kind == Intended || r.Kind == Injected || r.Kind == Made }) {
		a.say(Unknown, "nobody looked at what is left")
		return
	}
	r := j.h[last]
	if r.OK == nil {
		a.say(Unknown, "what is left could not be seen: %s", r.Why)
	}
	for _, x := range r.Left {
		a.say(Fail, "left behind: %s", x)
	}
	if r.OK != nil && !*r.OK && len(r.Left) == 0 {
		a.say(Fail, "%s", cmp.Or(r.Why, "the clean-up failed"))
	}
}

// names writes some names as one.
func names(list []string) string {
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ", ")
}
