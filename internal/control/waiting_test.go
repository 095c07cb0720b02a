package control

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/release"
)

// TestStatusOfWhatPeopleKeep: a status says what waits for people's decision, what is
// stopped, and what they are asked for.
func TestStatusOfWhatPeopleKeep(t *testing.T) {
	at := &wall{time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}
	c, ask := working(t, at)
	started := written(t, c, "1", "---\nroles:\n  build: {plain: true}\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n## Test\n\n```sh {\"name\":\"build\",\"results\":\"r.xml\",\"timeout\":\"1m\"}\nmake check\n```\n\n"+
		"## Gold\n\n```sh {\"name\":\"gold\",\"timeout\":\"1m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake\n```\n")
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(started), nil); p != nil {
		t.Fatal(p)
	}
	epoch := granted(t, c, "1", "m")
	if _, err := c.update(t.Context(), "1", "test", func(s *release.State) (release.Body, error) {
		return s.Result(release.Report{Finished: release.Finished{Item: "build", Epoch: epoch, Failing: []string{"slow"}, Tests: 2}, Machine: "m"}), nil
	}); err != nil {
		t.Fatal(err)
	}
	source := started.Source
	source.Revision = "next"
	if p := ask(http.MethodPost, "/v1/releases/1/amend", api.Amend{What: []string{"source"}, Source: &source, Reason: "a bug", By: "ann"}, nil); p != nil {
		t.Fatal(p)
	}
	var s api.Status
	if p := ask(http.MethodGet, "/v1/releases/1", nil, &s); p != nil {
		t.Fatal(p)
	}
	if want := (release.Block{Code: release.BlockStopped, Item: "build", Why: "tests failed: slow"}); !slices.Contains(s.Blocked, want) {
		t.Errorf("blocked by %+v", s.Blocked)
	}
	if len(s.Asks) != 2 || s.Asks[0].Type != "waive" || !slices.Equal(s.Asks[0].Tests, []string{"slow"}) || s.Asks[1].Type != "agree" {
		t.Errorf("asks %+v", s.Asks)
	}
	if x := s.Items[1]; x.Name != "gold" || x.Status != release.Ready || !release.ForPeople(x.Waiting) || !strings.HasPrefix(x.Waiting, "amendment 4 ") {
		t.Errorf("gold: %+v", x)
	}
}
