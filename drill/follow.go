package drill

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"trysail/fleet"
	"trysail/release"
	"trysail/runbook"
)

// faults: each was seen to take effect, and what followed.
func (j *judging) faults() {
	followed := map[string]*follow{}
	for i, act := range j.p.Method {
		inj := j.index(0, Injected, act.Name)
		if act.Fault == "" || inj < 0 {
			continue // said already
		}
		r := j.h[inj]
		// It may take effect from the moment on that its injector began.
		begun := j.index(0, Intended, act.Name)
		switch {
		case !yes(r.OK):
			j.v.Harness.say(Unknown, "%s was not injected: %s", act.Name, r.Why)
			begun = inj
		case begun < 0 || begun > inj:
			j.v.Harness.say(Unknown, "%s: nothing says that its undo was on disk before", act.Name)
			begun = inj
		}
		b := Bite{Name: act.Name, Fault: act.Fault, Host: act.Host, At: j.h[begun].At, Clock: r.Clock, ForGood: j.p.Timed[i].For == 0}
		if r.Slack != nil {
			s := r.Slack.Seconds()
			b.Slack = &s
		}
		undone := j.undone(inj, act.Name)
		b.Undone = undone >= 0
		if undone < 0 {
			undone = len(j.h) - 1
		}
		b.Verified = yes(r.OK) && j.verified(act, begun, inj, undone)
		f := &follow{begun: begun, until: j.until(act, begun, undone)}
		j.followed(&b, f)
		followed[act.Name] = f
		j.v.Faults = append(j.v.Faults, b)
	}
	for _, l := range j.p.Expect.Faults {
		i := slices.IndexFunc(j.v.Faults, func(b Bite) bool { return b.Name == l.Name })
		if i < 0 {
			continue
		}
		b := j.v.Faults[i]
		f := followed[b.Name]
		j.limit("detected", b.Name, b.Detected, l.Detected, f.detectable(j, &b, l.Detected))
		j.limit("moved", b.Name, b.Moved, l.Moved, f.movable(j, &b, l.Moved))
		j.limit("recovered", b.Name, b.Recovered, l.Recovered, f.movable(j, &b, l.Recovered))
	}
}

// verified tells whether the fault was seen by a probe that is worth something: it said
// no before the fault was injected, and yes while it was in force.
func (j *judging) verified(act Action, begun, inj, undone int) bool {
	a := &j.v.Harness
	if act.Fault == "person-away" {
		// Its probe is the record itself: who is away decides nothing.
		for _, r := range j.h[inj:undone] {
			if r.Kind == Decided && r.Name == act.Of && r.OK != nil {
				a.say(Unknown, "%s: %s was to be away, and decided: %s", act.Name, act.Of, r.Why)
				return false
			}
		}
	} else {
		before := slices.IndexFunc(j.h[:begun], func(r Record) bool { return r.Kind == Probed && r.Name == act.Name && r.Before })
		switch {
		case before < 0:
			a.say(Unknown, "%s: its probe was not asked before it was injected, so its word shows nothing", act.Name)
			return false
		case j.h[before].OK == nil:
			a.say(Unknown, "%s: its probe had no answer before it was injected: %s", act.Name, j.h[before].Why)
			return false
		case *j.h[before].OK:
			a.say(Unknown, "%s: its probe said yes before it was injected, so its word shows nothing", act.Name)
			return false
		}
	}
	saw := "no probe saw it take effect"
	for _, r := range j.h[inj:undone] {
		if r.Kind == Probed && r.Name == act.Name && !r.Before {
			if yes(r.OK) {
				return true
			}
			if r.Why != "" {
				saw = "no probe saw it take effect; the last one answered: " + r.Why
			}
		}
	}
	a.say(Unknown, "%s: %s", act.Name, saw)
	return false
}

// follow is what a fault brought about, as places in the history.
type follow struct {
	begun, until int  // what is noticed between is the fault's doing
	ran          bool // work was on its machine when it began
	lost         bool // and was lost
}

// until is where a fault's doing ends: where it is undone, where the next one on its
// machine begins, which may be what is noticed from then on, or where somebody takes the
// machine out of the fleet.
func (j *judging) until(act Action, begun, undone int) int {
	for i := begun + 1; i < undone; i++ {
		switch r := j.h[i]; {
		case r.Kind == Intended && r.Name != act.Name && r.Host == act.Host, r.Kind == Done && act.Host != "" && j.retires(r.Name, act.Host):
			return i
		}
	}
	return undone
}

// retires tells whether an action is the command that takes a machine out of the fleet.
func (j *judging) retires(action, host string) bool {
	i := slices.IndexFunc(j.p.Method, func(a Action) bool { return a.Name == action })
	if i < 0 {
		return false
	}
	f := strings.Fields(j.p.Method[i].Do)
	return len(f) > 2 && f[0] == "fleet" && f[1] == "retire" && slices.Contains(f[2:], host)
}

// elapsed is how long it took from one record to another, as the release's people
// would have it: real time, and idle time that was skipped between.
func (j *judging) elapsed(from, to int) time.Duration {
	d := j.h[to].At - j.h[from].At
	for _, r := range j.h[from+1 : max(to, from+1)] {
		if r.Kind == Jumped {
			d += r.Took
		}
	}
	return d
}

// followed: when control noticed, where the work went, and what was done for nothing.
func (j *judging) followed(b *Bite, f *follow) {
	if b.Host == "" {
		return // nothing follows that a machine shows
	}
	noticed := -1
	for i := f.begun + 1; i < f.until; i++ {
		if r := j.h[i]; r.Kind == Sighted && r.Host == b.Host && r.Why == string(fleet.Lost) { // the other conditions are people's words
			noticed = i
			break
		}
	}
	leases := map[int64]int{} // by epoch: the event that granted it
	lost := map[string]int{}  // item: the record that says so
	var last int
	var to, moved []string
	for k, e := range j.events {
		at := j.seen[k]
		switch x := e.Body.(type) {
		case release.Granted:
			leases[e.Seq] = k
			if _, ok := lost[x.Item]; ok && x.Machine != b.Host && j.h[at].Kind == Happened {
				delete(lost, x.Item)
				last, to, moved = max(last, at), append(to, x.Machine), append(moved, x.Item)
			}
		case release.Lost:
			if k, ok := leases[x.Epoch]; ok && x.Machine == b.Host && x.Why != fleet.NoMember && at > f.begun && at < f.until && j.h[at].Kind == Happened {
				f.lost, f.ran = true, true
				lost[x.Item] = at
				if noticed < 0 || at < noticed {
					noticed = at
				}
				// What ran after it bit is no work: the machine was gone.
				b.Wasted += max(j.h[f.begun].At-j.h[j.seen[k]].At, 0).Seconds()
			}
			delete(leases, x.Epoch)
		case release.Finished:
			delete(leases, x.Epoch)
		case release.Committed:
			delete(leases, x.Epoch)
		case release.Confirmed:
			delete(leases, x.Epoch)
		}
		if at <= f.begun {
			f.ran = slices.ContainsFunc(slices.Collect(maps.Values(leases)), func(k int) bool { return j.events[k].Body.(release.Granted).Machine == b.Host })
		}
	}
	if noticed >= 0 {
		b.Detected = j.elapsed(f.begun, noticed).Seconds()
		j.dealt = append(j.dealt, span{j.h[f.begun].At, j.h[noticed].At})
	}
	if len(to) > 0 && len(lost) == 0 {
		b.Moved, b.To = j.elapsed(f.begun, last).Seconds(), names(to)
		j.dealt = append(j.dealt, span{j.h[f.begun].At, j.h[last].At})
		on := -1
		for _, item := range moved {
			at := j.goesOn(item, f.begun)
			if at < 0 {
				return
			}
			on = max(on, at)
		}
		b.Recovered = j.elapsed(f.begun, max(on, last)).Seconds()
	}
}

// goesOn is where an item that was lost after a place goes on: its machine has its build
// server, which it may have made for it. -1 if nobody saw that.
func (j *judging) goesOn(item string, after int) int {
	s := release.Empty()
	var machine, blueprint string
	epoch, granted := int64(0), -1
	warm := func(from, to int) int { // where the machine is seen to have its server
		for i := from; i <= to; i++ {
			if r := j.h[i]; r.Kind == Warmed && r.Host == machine {
				return i
			}
		}
		return -1
	}
	over := func(end int) int {
		switch made := warm(granted, end); {
		case made >= 0:
			return made
		case blueprint == "" || warm(0, granted) >= 0:
			return granted
		}
		return -1
	}
	lost := false
	for k, e := range j.events {
		at := j.seen[k]
		if s.Apply(e) != nil {
			return -1
		}
		done := int64(0)
		switch b := e.Body.(type) {
		case release.Granted:
			if b.Item == item && lost {
				machine, epoch, granted = b.Machine, e.Seq, at
				if x := s.Item(item); x != nil {
					blueprint = s.Machine(x.Role).Blueprint
				}
			}
		case release.Lost:
			if b.Item == item && at > after {
				if epoch > 0 && warm(granted, at) >= 0 {
					return warm(granted, at) // it had gone on, until another fault
				}
				lost, epoch = true, 0
			}
		case release.Finished:
			done = b.Epoch
		case release.Committed:
			done = b.Epoch
		case release.Confirmed:
			done = b.Epoch
		}
		if epoch > 0 && done == epoch {
			return over(at)
		}
	}
	if epoch > 0 {
		return over(len(j.h) - 1)
	}
	return -1
}

// detectable says why a fault that nobody noticed says nothing about who should have;
// "" if it does.
func (f *follow) detectable(j *judging, b *Bite, limit string) string {
	switch d, _ := Duration(limit); {
	case !b.Verified:
		return "nothing shows that it took effect"
	case b.Detected == 0 && j.blind:
		return "not every event was seen when it happened"
	case b.Detected == 0 && j.elapsed(f.begun, f.until) <= d:
		return "it lasted " + runbook.FormatDuration(j.elapsed(f.begun, f.until)) + " only"
	}
	return ""
}

// movable says why work that did not move says nothing.
func (f *follow) movable(j *judging, b *Bite, limit string) string {
	end := f.until
	if f.lost {
		end = len(j.h) - 1 // what was lost must go on elsewhere, whatever becomes of the machine
	}
	switch d, _ := Duration(limit); {
	case !b.Verified:
		return "nothing shows that it took effect"
	case b.Moved == 0 && j.blind:
		return "not every event was seen when it happened"
	case !f.ran:
		return "nothing ran on " + b.Host + " then"
	case b.Moved == 0 && j.elapsed(f.begun, end) <= d:
		return "it lasted " + runbook.FormatDuration(j.elapsed(f.begun, end)) + " only"
	}
	return ""
}

// limit holds a number against its limit; 0 is what did not happen. Where unknown is
// not empty, it says why nothing follows.
func (j *judging) limit(what, of string, seconds float64, limit, unknown string) {
	if limit == "" {
		return
	}
	d, _ := Duration(limit) // it was parsed before
	m := Measure{What: what, Of: of, Seconds: seconds, Limit: d.Seconds(), How: "measured"}
	if unknown == "" {
		met := seconds > 0 && seconds <= m.Limit
		m.Met = &met
	}
	j.v.Measured = append(j.v.Measured, m)
	switch {
	case unknown != "":
		j.v.System.say(Unknown, "whether %s is %s within %s is not known: %s", of, what, limit, unknown)
	case seconds == 0:
		j.v.System.say(Fail, "%s was never %s", of, what)
	case !*m.Met:
		j.v.System.say(Fail, "%s was %s after %s, and %s is the limit", of, what, runbook.FormatSeconds(seconds), limit)
	}
}

// rebuilt: machines that became build servers.
func (j *judging) rebuilt() {
	for _, l := range j.p.Expect.Rebuilt {
		seconds, unknown := 0.0, ""
		warm := slices.DeleteFunc(j.all(Warmed), func(r Record) bool { return r.Host != l.Host })
		for _, r := range warm {
			seconds = max(seconds, r.Took.Seconds())
		}
		switch {
		case seconds > 0:
		case len(warm) > 0:
			unknown = "it is one, and nobody saw it begin"
		case !j.ended:
			unknown = "the drill did not run to its end"
		}
		j.limit("rebuilt", l.Host, seconds, l.Within, unknown)
	}
}

// span of real time in which something went on.
type span struct{ from, to time.Duration }

// times: what machines took, and what of the drill's own time is neither work nor
// what is waited for.
func (j *judging) times() {
	v := j.v
	end := j.h[len(j.h)-1].At
	v.Real = end.Seconds()
	var busy []span
	type lease struct {
		machine string
		from    time.Duration
	}
	running := map[int64]lease{} // by epoch
	stop := func(epoch int64, at time.Duration, lost bool) {
		l, ok := running[epoch]
		if !ok {
			return
		}
		delete(running, epoch)
		busy = append(busy, span{l.from, at})
		var stood []span
		for _, b := range v.Faults { // a machine that is gone does not work
			switch {
			case !b.Verified || b.Host != l.machine || b.At >= at:
			case lost && b.At >= l.from && down(b.Fault):
				at = b.At
			case !lost && (b.Fault == "machine-lost" || b.Fault == "machine-hung"):
				if s := (span{max(b.At, l.from), min(j.over(b.Name), at)}); s.from < s.to {
					stood = append(stood, s)
				}
			}
		}
		v.Machine += (at - l.from - union(stood)).Seconds()
	}
	for k, e := range j.events {
		at := j.h[j.seen[k]].At
		switch b := e.Body.(type) {
		case release.Granted:
			running[e.Seq] = lease{b.Machine, at}
		case release.Lost:
			stop(b.Epoch, at, true)
		case release.Finished:
			stop(b.Epoch, at, false)
		case release.Committed:
			stop(b.Epoch, at, false)
		case release.Confirmed:
			stop(b.Epoch, at, false)
		}
	}
	for _, epoch := range slices.Sorted(maps.Keys(running)) {
		stop(epoch, end, true)
	}
	for _, r := range j.h {
		switch {
		case r.Kind == Jumped:
			v.Skipped += r.Took.Seconds()
		case (r.Kind == Decided && r.Live || r.Kind == Warmed) && r.Took > 0:
			busy = append(busy, span{r.At - r.Took, r.At})
		}
	}
	// Until a fault is noticed and its work is elsewhere, it is the system's time.
	busy = append(busy, j.dealt...)
	v.Overhead = max(v.Real-union(busy).Seconds(), 0)
	v.Measured = append(v.Measured,
		Measure{What: "machine time", Seconds: v.Machine, How: "measured"},
		Measure{What: "people's time", Seconds: v.People * 3600, How: how(j.all(Decided))},
		Measure{What: "the drill's own time", Seconds: v.Overhead, How: "measured"})
}

// undone is where a fault was taken back, from a place on; -1 if it was not. Where it could
// not be, it goes on.
func (j *judging) undone(from int, fault string) int {
	for i := from; i < len(j.h); i++ {
		if r := j.h[i]; r.Kind == Undone && r.Name == fault && yes(r.OK) {
			return i
		}
	}
	return -1
}

// over is when a fault was undone; the end, if it was not.
func (j *judging) over(fault string) time.Duration {
	if i := j.undone(0, fault); i >= 0 {
		return j.h[i].At
	}
	return j.h[len(j.h)-1].At
}

// down tells faults that take the machine away.
func down(f Fault) bool {
	return slices.ContainsFunc(Faults(), func(k FaultKind) bool { return k.Fault == f && k.Down })
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
