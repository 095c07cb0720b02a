package control

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
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
	dg, err := c.o.Depot.PutBytes(t.Context(), []byte("the runbook, and the source"))
	if err != nil {
		t.Fatal(err)
	}
	hours := runbook.Hours{Zone: "Europe/Berlin", Days: []string{"mon", "tue", "wed", "thu", "fri"}, From: "09:00", To: "17:00"}
	started := release.Started{
		Version: "1", Runbook: dg, Source: release.Source{Original: dg}, Ship: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), Team: hours, People: []release.Person{{Name: "ann", Hours: hours}}, Approver: []string{"ann", "bob"},
		Items: []runbook.Item{{Name: "tried", Kind: runbook.SignOff, Signers: []string{"ann"}, Approvals: 1, Budget: 2 * time.Hour}},
	}
	unknown := hours
	unknown.Zone = "Mars/Olympus"
	bad := started
	bad.Team = unknown
	if p := ask(http.MethodPost, "/v1/releases", api.Start{Started: bad}, nil); p == nil || p.Status != http.StatusBadRequest || !strings.Contains(p.Message, "Mars/Olympus") {
		t.Errorf("a zone that is not known: %+v", p)
	}
	if p := ask(http.MethodPost, "/v1/releases", api.Start{Started: started}, nil); p != nil {
		t.Fatal(p)
	}
	change := release.Amended{What: []string{"runbook"}, Items: started.Items, Team: unknown, Approver: started.Approver, Reason: "r", By: "ann"}
	if p := ask(http.MethodPost, "/v1/releases/1/amend", change, nil); p == nil || p.Status != http.StatusBadRequest {
		t.Errorf("an amendment with a zone that is not known: %+v", p)
	}
	var s api.Status
	if p := ask(http.MethodGet, "/v1/releases/1", nil, &s); p != nil {
		t.Fatal(p)
	}
	if want := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC); !s.Ends.Equal(want) || s.Slack != (2*time.Hour).Seconds() {
		t.Errorf("ends %s, slack %g s", s.Ends, s.Slack)
	}
}
