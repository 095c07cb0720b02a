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

// Covers lists the roles of a release whose build server a run rehearsed: a machine made it
// from exactly that blueprint during the drill, and a step ended well in it. Roles are held
// against each other by what their servers are made of: a name is not a machine.
func Covers(h []Record, roles []release.Machine) []string {
	ran := worked(h)
	var covered []string
	for _, m := range roles {
		if m.Blueprint != "" && ran[m.Blueprint] {
			covered = append(covered, m.Role)
		}
	}
	return covered
}

// worked finds the blueprints whose server a machine made in a drill and ran a step in.
func worked(h []Record) map[string]bool {
	made := map[string]bool{} // machines that made a server: none has one when a drill begins
	for _, r := range h {
		if r.Kind == Warmed && r.Took > 0 {
			made[r.Host] = true
		}
	}
	type lease struct{ machine, blueprint string }
	leases, ran := map[int64]lease{}, map[string]bool{}
	s := release.Empty()
	for _, r := range h {
		if r.Event == nil || r.Kind != Happened {
			continue
		}
		e := *r.Event
		if err := s.Apply(e); err != nil {
			return ran // what does not fold shows nothing more
		}
		ended := int64(0)
		switch b := e.Body.(type) {
		case release.Granted:
			if x := s.Item(b.Item); x != nil {
				leases[e.Seq] = lease{b.Machine, s.Machine(x.Role).Blueprint}
			}
		case release.Finished:
			if b.Exit == 0 {
				ended = b.Epoch
			}
		case release.Committed:
			ended = b.Epoch
		case release.Confirmed:
			ended = b.Epoch
		}
		if l, ok := leases[ended]; ok && l.blueprint != "" && made[l.machine] {
			ran[l.blueprint] = true
		}
	}
	return ran
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
