package control

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/release"
)

// TestStartRefuses: control starts no release with a ship date that nobody can mean, or with a
// runbook that is of another revision than the source.
func TestStartRefuses(t *testing.T) {
	at := &wall{time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}
	for _, c := range []struct {
		name, ship string // in the runbook
		change     func(*release.Started)
		want       string
	}{
		{"as it should be", "", func(*release.Started) {}, ""},
		{"it is over", "", func(s *release.Started) { s.Ship = at.now.Add(-time.Hour) }, "the ship date Tue 24 Nov 2026 08:00 UTC is over"},
		{"it is now", "", func(s *release.Started) { s.Ship = at.now }, "is over"},
		{"it is over and forced", "", func(s *release.Started) { s.Ship, s.Forced = at.now.Add(-time.Hour), "an audit" }, ""},
		{"the runbook names another", "ship: 2026-12-01T09:00:00Z\n", func(*release.Started) {}, "is not the one that the runbook names, Tue 1 Dec 2026 09:00 UTC"},
		{"the runbook names it", "ship: 2026-12-01T09:00:00Z\n", func(s *release.Started) { s.Ship = s.Ship.Add(6*24*time.Hour + 23*time.Hour) }, ""},
		{"a runbook of another revision", "", func(s *release.Started) {
			s.Source.Revision = "b"
			s.Origin = release.Origin{Revision: "a", Files: []release.File{{Path: "RELEASE.md", Digest: s.Runbook}}}
		}, "the runbook is of revision a, and the source of b"},
		{"an origin without the runbook", "", func(s *release.Started) {
			s.Source.Revision, s.Origin = "b", release.Origin{Revision: "b", Files: []release.File{{Path: "RELEASE.md", Digest: s.Source.Original}}}
		}, "the origin does not name the runbook"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctl, ask := working(t, at)
			st := written(t, ctl, "1", "---\n"+c.ship+"roles:\n  build: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Gold\n\n```sh {\"name\":\"gold\",\"timeout\":\"1m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake\n```\n")
			c.change(&st)
			p := ask(http.MethodPost, "/v1/releases", api.StartOf(st), nil)
			if (p != nil) != (c.want != "") || p != nil && !strings.Contains(p.Message, c.want) {
				t.Errorf("%v, and not %q", p, c.want)
			}
		})
	}
}
