package control

import (
	"testing"
	"time"
)

// TestClockJumps: an hour either way, and no wait ends early.
func TestClockJumps(t *testing.T) {
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	c := steady{wall: start, boot: time.Hour}
	for _, x := range []struct {
		name   string
		passed time.Duration
		wall   time.Duration // what the wall clock says has passed
		want   time.Duration
	}{
		{"nothing happened", time.Minute, time.Minute, time.Minute},
		{"an hour forward", time.Minute, 61 * time.Minute, time.Minute},
		{"an hour back", time.Minute, -59 * time.Minute, -59 * time.Minute},
		{"the machine slept", 3 * time.Hour, 3 * time.Hour, 3 * time.Hour},
	} {
		if got := c.sure(start.Add(x.wall), time.Hour+x.passed); !got.Equal(start.Add(x.want)) {
			t.Errorf("%s: it is sure that %s has passed, not %s", x.name, got.Sub(start), x.want)
		}
	}
}
