package control

import "time"

// steady tells a time that is never early. A wall clock can be set: by a person,
// by a machine that woke up with a dead battery, by a time server that is wrong.
// The machine's own time since it started cannot, so the time that is sure is
// the earlier of the two: a wait may then end late, until control is started
// again, and never too soon. Leases ask no wall clock at all.
type steady struct {
	wall time.Time
	boot time.Duration
}

func newSteady(now time.Time, boot time.Duration) steady { return steady{now.Round(0), boot} }

// sure is the earlier of what the wall clock says and what has passed.
func (c steady) sure(now time.Time, boot time.Duration) time.Time {
	passed := c.wall.Add(boot - c.boot)
	if now.Before(passed) {
		return now
	}
	return passed
}
