package drill

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// mayBeLate is by how much an action may come after its time by the drill's clock: work goes
// on meanwhile, and nobody skips that.
const mayBeLate = time.Hour

// lastTime finds what a hypothesis says of when its faults happen: "in the last week", "on
// the last day", "in the last 3 days".
var lastTime = regexp.MustCompile(`(?i)\b(?:in|on|within|during) the (?:last|final) (?:(\d{1,3}|two|three|four|five|six) )?(hour|day|week)s?\b`)

// said is the widest time that the hypothesis names for its faults: each of them may say more
// closely when it happens ([Action.Within]). nil if it names none.
func (p *Plan) said() *Span {
	widest := time.Duration(0)
	for _, m := range lastTime.FindAllStringSubmatch(p.Hypothesis, -1) {
		n := map[string]int{"": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}[strings.ToLower(m[1])]
		if k, err := strconv.Atoi(m[1]); err == nil {
			n = k
		}
		unit := map[string]time.Duration{"hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}[strings.ToLower(m[2])]
		widest = max(widest, time.Duration(n)*unit)
	}
	if widest == 0 {
		return nil
	}
	return &Span{p.Ship.Add(-widest), p.Ship}
}

// supposed is when a fault happens, by the scenario; nil if it does not say.
func (p *Plan) supposed(i int) *Span {
	if s := p.Timed[i].Within; s != nil {
		return s
	}
	for _, t := range p.Timed {
		if t.Within != nil {
			return nil // a scenario that gives some faults their time means those faults alone
		}
	}
	return p.said()
}

// hypothesis: each fault happened when the scenario says that it does. A drill in which it
// happened at another time shows nothing of what the scenario supposes.
func (j *judging) hypothesis() {
	a := &j.v.Harness
	for i, act := range j.p.Method {
		inj := j.index(0, Injected, act.Name)
		if act.Fault == "" || inj < 0 || !yes(j.h[inj].OK) {
			continue // said already
		}
		begun := j.index(0, Intended, act.Name)
		if begun < 0 || begun > inj {
			begun = inj
		}
		at, when := j.h[begun].Clock, j.p.Timed[i].When
		if s := j.p.supposed(i); s != nil && (at.Before(s.From) || at.After(s.To)) {
			a.say(Unknown, "%s happened %s, and by the hypothesis it happens %s", act.Name, j.before(at), j.between(*s))
		}
		if late := at.Sub(when.At); !when.At.IsZero() && late > mayBeLate {
			a.say(Unknown, "%s was to happen %s, and happened %s later", act.Name, j.before(when.At), runbook.FormatDuration(late))
		}
		if when.Item != "" && when.Status == "running" && len(j.events) > 0 && !j.ranWhen(when, begun, inj) {
			on := ""
			if when.Host != "" {
				on = " on " + when.Host
			}
			a.say(Unknown, "%s was to happen while %s runs%s, and it did not run when it happened", act.Name, when.Item, on)
		}
	}
}

// ranWhen tells whether a step ran when a fault began, and until it was there: a lease that
// was lost since it began is the fault's doing.
func (j *judging) ranWhen(w When, begun, inj int) bool {
	epoch, machine := int64(0), ""
	for k, e := range j.events {
		if j.seen[k] > inj {
			break
		}
		switch b := e.Body.(type) {
		case release.Granted:
			if b.Item == w.Item {
				epoch, machine = e.Seq, b.Machine
			}
		case release.Lost:
			if b.Epoch == epoch && j.seen[k] <= begun {
				epoch = 0
			}
		case release.Finished:
			if b.Epoch == epoch {
				epoch = 0
			}
		case release.Committed:
			if b.Epoch == epoch {
				epoch = 0
			}
		case release.Confirmed:
			if b.Epoch == epoch {
				epoch = 0
			}
		}
	}
	return epoch > 0 && (w.Host == "" || w.Host == machine)
}

// before says how long before the ship date a time is.
func (j *judging) before(at time.Time) string {
	if d := j.p.Ship.Sub(at); d < 0 {
		return runbook.FormatDuration(-d) + " after the ship date"
	}
	return runbook.FormatDuration(j.p.Ship.Sub(at)) + " before the ship date"
}

func (j *judging) between(s Span) string {
	if s.To.Equal(j.p.Ship) {
		return "in the last " + runbook.FormatDuration(j.p.Ship.Sub(s.From))
	}
	return "between " + runbook.FormatDuration(j.p.Ship.Sub(s.From)) + " and " + runbook.FormatDuration(j.p.Ship.Sub(s.To)) + " before the ship date"
}
