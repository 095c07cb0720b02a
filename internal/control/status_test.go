package control

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/ledger"
	"trysail/release"
	"trysail/runbook"
)

// working makes a control with a ledger and a depot, and a way to ask it as root
// on its machine: the answer is read into out unless that is nil.
func working(t *testing.T, at *wall) (c *Control, ask func(method, path string, body, out any) *api.Problem) {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	l, err := ledger.Start(t.Context(), ledger.StartOptions{Dir: filepath.Join(dir, "etcd"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	d, err := depot.Open(filepath.Join(dir, "depot"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := OpenIdentity(dir, nil, at.time)
	if err != nil {
		t.Fatal(err)
	}
	c = New(Options{Ledger: l.Ledger, Depot: d, Dir: dir, Identity: id, Actor: "control", Log: log, Now: func() time.Time { return at.now }})
	secret, err := c.LocalToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := c.Handler()
	return c, func(method, path string, body, out any) *api.Problem {
		t.Helper()
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(method, path, bytes.NewReader(data))
		r.Header.Set("Authorization", "Bearer "+secret)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 300 {
			p := &api.Problem{Status: w.Code}
			if err := json.Unmarshal(w.Body.Bytes(), p); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
			return p
		}
		if out != nil {
			if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
		}
		return nil
	}
}

// TestSlackKnowsWeekends: what is asked for on a Friday evening is done on Monday.
func TestSlackKnowsWeekends(t *testing.T) {
	at := &wall{time.Date(2026, 11, 27, 19, 0, 0, 0, time.UTC)}
	c, ask := working(t, at)
	const doc = "---\nzone: Europe/Berlin\nhours: mon-fri 09:00-17:00\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n## Ship\n\n- [ ] **tried** (@ann, budget 2h): it\n"
	started := written(t, c, "1", doc)
	started.Ship = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	// A zone that only the sender knows.
	unknown, err := c.o.Depot.PutBytes(t.Context(), []byte(strings.Replace(doc, "Europe/Berlin", "Mars/Olympus", 1)))
	if err != nil {
		t.Fatal(err)
	}
	bad := started
	bad.Runbook, bad.Team.Zone = unknown, "Mars/Olympus"
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(bad), nil); p == nil || p.Status != http.StatusBadRequest || !strings.Contains(p.Message, "Mars/Olympus") {
		t.Errorf("a zone that is not known: %+v", p)
	}
	bad = started
	bad.Runbook = started.Source.Original
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(bad), nil); p == nil || p.Status != http.StatusBadRequest {
		t.Errorf("a runbook that is none: %+v", p)
	}
	bad = started
	bad.Machines = []release.Machine{{Role: "x"}}
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(bad), nil); p == nil || p.Status != http.StatusBadRequest || !strings.Contains(p.Message, "roles") || p.Hint == "" {
		t.Errorf("machines of no role: %+v", p)
	}
	// A team's control replays no release: it reads each plan in its runbook.
	if p := ask(http.MethodPost, "/v1/replays", api.Replay{Started: started}, nil); p == nil || p.Status != http.StatusForbidden {
		t.Errorf("a replay, outside of a lab: %+v", p)
	}
	c.o.Lab = true
	past := started
	past.Version, past.Approver = "0.9", []string{"ann"}
	if p := ask(http.MethodPost, "/v1/replays", api.Replay{Started: past}, nil); p != nil || !slices.Equal(c.state("0.9").Approvers, past.Approver) {
		t.Errorf("a release of the past, where one is made again: %+v", p)
	}
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(started), nil); p != nil {
		t.Fatal(p)
	}
	if st := c.state("1"); st.Started.Rules != release.RulesNow {
		t.Errorf("it goes by the rules %d", st.Started.Rules)
	}
	for what, b := range map[string]api.Amend{
		"Mars/Olympus": {What: []string{"runbook"}, Runbook: unknown},
		"roles":        {What: []string{"machines"}, Machines: []release.Machine{{Role: "x"}}},
	} {
		b.Reason, b.By = "r", "ann"
		if p := ask(http.MethodPost, "/v1/releases/1/amend", b, nil); p == nil || p.Status != http.StatusBadRequest || !strings.Contains(p.Message, what) {
			t.Errorf("an amendment for %s: %+v", what, p)
		}
	}
	var s api.Status
	if p := ask(http.MethodGet, "/v1/releases/1", nil, &s); p != nil {
		t.Fatal(p)
	}
	if want := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC); !s.Ends.Equal(want) || s.Slack != (2*time.Hour).Seconds() {
		t.Errorf("ends %s, slack %g s", s.Ends, s.Slack)
	}
}

// TestPostponed: the ship date that was given at the start stays until the runbook names
// another than it did, and everybody is told the one in force.
func TestPostponed(t *testing.T) {
	at := &wall{time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	c, ask := working(t, at)
	const doc = "---\nship: 2026-12-01T09:00:00Z\nbudget: 4 person-hours\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n## Ship\n\n- [ ] **tried** (@ann): it\n"
	started := written(t, c, "1", doc)
	started.Ship, started.Forced = time.Date(2026, 12, 3, 9, 0, 0, 0, time.UTC), "the fair moved"
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(started), nil); p != nil {
		t.Fatal(p)
	}
	for _, x := range []struct{ doc, ships string }{
		{strings.Replace(doc, "4 person", "5 person", 1), "2026-12-03T09:00:00Z"},
		{strings.Replace(doc, "12-01", "12-08", 1), "2026-12-08T09:00:00Z"},
	} {
		w := written(t, c, "1", x.doc)
		r, err := runbook.Parse("RELEASE.md", []byte(x.doc), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		b := api.Amend{What: []string{"runbook"}, Runbook: w.Runbook, Reason: "r", By: "ann"}
		if p := ask(http.MethodPost, "/v1/releases/1/amend", b, nil); p != nil {
			t.Fatal(p)
		}
		if p := ask(http.MethodPost, "/v1/releases/1/agree", release.Agreed{Amendment: c.state("1").Head, Person: "bob", Decision: release.Approve}, nil); p != nil {
			t.Fatal(p)
		}
		var s api.Status
		if p := ask(http.MethodGet, "/v1/releases/1", nil, &s); p != nil {
			t.Fatal(p)
		}
		if s.Ship.Format(time.RFC3339) != x.ships || s.Budget != r.Budget.Hours() || !s.Ends.Add(time.Duration(s.Slack*float64(time.Second))).Equal(s.Ship) {
			t.Errorf("it ships %s on a budget of %g h, and not %s; ends %s, slack %g s", s.Ship, s.Budget, x.ships, s.Ends, s.Slack)
		}
		var list []api.Listed
		if p := ask(http.MethodGet, "/v1/releases", nil, &list); p != nil || len(list) != 1 || !list[0].Ship.Equal(s.Ship) {
			t.Errorf("the list has %+v: %+v", list, p)
		}
	}
}
