package drill

import (
	"slices"
	"time"

	"trysail/release"
)

// started is how the rehearsal's release began; nil if it did not.
func started(h []Record) *release.Started {
	for _, r := range h {
		if r.Event == nil {
			continue
		}
		if b, ok := r.Event.Body.(release.Started); ok {
			return &b
		}
	}
	return nil
}

// Covers lists the roles of a release whose build server a run rehearsed. Roles are held
// against each other by what their servers are made of: a name is not a machine.
func Covers(h []Record, roles []release.Machine) []string {
	b := started(h)
	if b == nil {
		return nil
	}
	var covered []string
	for _, m := range roles {
		if m.Blueprint != "" && slices.ContainsFunc(b.Machines, func(x release.Machine) bool { return x.Blueprint == m.Blueprint }) {
			covered = append(covered, m.Role)
		}
	}
	return covered
}

// Run is a run as it was recorded.
type Run struct {
	Dir     string
	Plan    *Plan
	History []Record
}

// InForce picks the runs that stand for a release on its day: of each scenario the last
// one before it that rehearsed a build server of the release, whatever it came to. A
// drill of yesterday that failed takes the place of one that passed last month. Runs
// with defects that were planted on purpose say nothing about a release.
func InForce(runs []Run, roles []release.Machine, day time.Time) []Run {
	last := map[string]Run{}
	for _, r := range runs {
		x := r.History[0].Header
		if len(Covers(r.History, roles)) == 0 || len(x.Broken) > 0 || x.Began.After(day) {
			continue
		}
		if old, ok := last[r.Plan.Name]; !ok || x.Began.After(old.History[0].Header.Began) {
			last[r.Plan.Name] = r
		}
	}
	var list []Run
	for _, r := range last {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Run) int { return a.History[0].Header.Began.Compare(b.History[0].Header.Began) })
	return list
}
