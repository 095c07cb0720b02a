package control

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/ledger"
)

// TestTakeOverAgain: a control of several that etcd does not answer while it takes
// over stands by, and begins when it does. What stays wrong ends it, and so it does
// one that is alone at a cluster of others.
func TestTakeOverAgain(t *testing.T) {
	d := newDisk(t)
	elects := &ledger.UnknownError{Stream: AccessStream, Err: errors.New("leader changed")}
	broken := errors.New("event 7 is missing")
	serve := func(o Options, answers ...error) (begun int, err error) {
		t.Helper()
		o.Dir, o.Actor, o.Log, o.Now = d.dir, "control", slog.New(slog.DiscardHandler), time.Now
		err = Serve(t.Context(), o, d.store, &Door{}, func(*Control) error {
			begun++
			return answers[begun-1]
		}, func() {})
		return begun, err
	}
	if n, err := serve(Options{Cluster: d.store}, elects, elects, broken); n != 3 || !errors.Is(err, broken) {
		t.Errorf("it began %d times: %v", n, err)
	}
	if n, err := serve(Options{}, elects, broken); n != 1 || !errors.Is(err, elects) {
		t.Errorf("one that is alone began %d times: %v", n, err)
	}
}

// TestLeaderless: what is said when no majority comes back is what may be done then;
// a ledger is not recovered where the old etcd lies.
func TestLeaderless(t *testing.T) {
	if hint := (&leaderless{3}).Hint(); !strings.Contains(hint, "move etcd") || strings.Index(hint, "move etcd") > strings.Index(hint, "--recover") {
		t.Error(hint)
	}
}

// TestDeposed: a control whose seat another took, and that does not know it yet,
// renews no lease and writes nothing, and sends whoever asks elsewhere.
func TestDeposed(t *testing.T) {
	d := newDisk(t)
	decides := func() *Control {
		t.Helper()
		term, err := d.store.Campaign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := term.End(); err != nil {
				t.Error(err)
			}
		})
		c := New(Options{Ledger: term.Ledger, Dir: d.dir, Actor: "control", Log: slog.New(slog.DiscardHandler), Now: time.Now})
		if err := c.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	beat := func(c *Control) error {
		_, err := c.beat(t.Context(), &caller{machine: "a"}, httptest.NewRequest(http.MethodPost, "/v1/beat", strings.NewReader(`{"holding":[]}`)))
		return err
	}
	join := func(c *Control, name string) error {
		return c.enlist(t.Context(), membership{Joined: &enrolled{Name: name, Slots: 1}})
	}
	first := decides()
	if err := errors.Join(join(first, "a"), beat(first)); err != nil {
		t.Fatal(err)
	}
	second := decides()
	if err := errors.Join(beat(second), join(second, "b")); err != nil {
		t.Fatal(err)
	}
	var deposed *ledger.DeposedError
	if err := join(first, "c"); !errors.As(err, &deposed) {
		t.Errorf("it writes: %v", err)
	}
	err := beat(first)
	var standby *standbyError
	if !errors.As(err, &standby) {
		t.Fatalf("it renews: %v", err)
	}
	w := httptest.NewRecorder()
	first.fail(w, httptest.NewRequest(http.MethodPost, "/v1/beat", nil), err)
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusServiceUnavailable || p.Code != api.Standby {
		t.Errorf("it answers %d %+v %v", w.Code, p, err)
	}
	if second.members["b"] == nil || second.members["c"] != nil {
		t.Errorf("members %v", second.members)
	}
}
