package cli

import (
	"slices"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// TestUnplaced: a step that no machine can run is for people once its reason has
// lasted; one whose reason changes, or ends by itself, goes on.
func TestUnplaced(t *testing.T) {
	begun := time.Now()
	item := func(kind runbook.Kind, status release.Status, why string) api.ItemStatus {
		return api.ItemStatus{Name: "x", Kind: kind, Status: status, Waiting: why}
	}
	const none, lost = "no machine of the fleet serves role r", "a is lost"
	for _, c := range []struct {
		name         string
		before, now  api.ItemStatus
		after        time.Duration
		moving, open int
		stuck        []string
	}{
		{"runs", item(runbook.Step, release.Ready, ""), item(runbook.Step, release.InProgress, ""), lasting, 1, 0, nil},
		{"is done", item(runbook.Step, release.Ready, none), item(runbook.Step, release.Complete, ""), lasting, 0, 0, nil},
		{"is about to run", item(runbook.Step, release.Ready, ""), item(runbook.Step, release.Ready, ""), lasting, 1, 0, nil},
		{"is for people", item(runbook.SignOff, release.Ready, ""), item(runbook.SignOff, release.Ready, ""), lasting, 0, 1, nil},
		{"not for long", item(runbook.Step, release.Ready, none), item(runbook.Step, release.Ready, none), lasting - 1, 1, 0, []string{"x waits: " + none}},
		{"too long", item(runbook.Step, release.Ready, none), item(runbook.Step, release.Ready, none), lasting, 0, 1, []string{"x waits: " + none}},
		{"of a publishing step", item(runbook.Publish, release.Ready, none), item(runbook.Publish, release.Ready, none), lasting, 0, 1, []string{"x waits: " + none}},
		{"another reason", item(runbook.Step, release.Ready, none), item(runbook.Step, release.Ready, lost), lasting, 1, 0, []string{"x waits: " + lost}},
		{"busy", item(runbook.Step, release.Ready, "a is busy"), item(runbook.Step, release.Ready, "a is busy"), lasting, 1, 0, nil},
		{"busy before", item(runbook.Step, release.Ready, "a is busy"), item(runbook.Step, release.Ready, none), lasting, 1, 0, []string{"x waits: " + none}},
		{"gold, while an amendment is open", item(runbook.Step, release.Ready, ""), item(runbook.Step, release.Ready, "amendment 5 is open: gold waits"), 0, 0, 1, []string{"x waits: amendment 5 is open: gold waits"}},
		{"gold's second machine", item(runbook.Step, release.Confirming, none), item(runbook.Step, release.Confirming, none), lasting, 0, 1, []string{"x waits: " + none}},
	} {
		u := unplaced{}
		u.count([]api.ItemStatus{c.before}, begun)
		moving, open, stuck := u.count([]api.ItemStatus{c.now}, begun.Add(c.after))
		if moving != c.moving || open != c.open || !slices.Equal(stuck, c.stuck) {
			t.Errorf("%s: %d running, %d to come, %q", c.name, moving, open, stuck)
		}
	}
}
