package evidence

import (
	"strings"
	"testing"
	"time"

	"trysail/release"
)

// TestClockOfALedger: an event that is earlier than the one before it is named to whoever
// verifies, and so is a ship date that lies within what the clock went back by.
func TestClockOfALedger(t *testing.T) {
	ship := func(back time.Duration) *Report {
		x := newStory(t, "4.2")
		x.now = x.now.Add(back)
		x.gold()
		x.sign("tried", "ann", release.Approve)
		x.sign("tried", "bob", release.ApproveExcept)
		x.sign("legal", "eve", release.Approve)
		x.now = x.now.Add(-back)
		x.must(release.Shipped{})
		return Verify(x.bundle(), x.trust())
	}
	for _, c := range []struct {
		what          string
		back          time.Duration
		event, onTime bool
	}{
		{"forward", 0, false, false},
		{"back by ten minutes, long before the ship date", 10 * time.Minute, true, false},
		{"back by a month", 30 * 24 * time.Hour, true, true},
	} {
		r := ship(c.back)
		said := strings.Join(r.Attention, "\n")
		if !r.Verified || strings.Contains(said, "control's clock went back") != c.event || strings.Contains(said, "whether it shipped on time is not known") != c.onTime {
			t.Errorf("%s: verified: %v %v\n%s", c.what, r.Verified, r.Problems, said)
		}
	}
}
