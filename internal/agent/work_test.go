package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/machine"
)

// TestFinal: a result is dropped only where control has said no to it for good.
func TestFinal(t *testing.T) {
	problem := func(code string) error { return &api.Problem{Code: code, Message: "m"} }
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"cut off", &api.UnreachableError{Err: errors.New("reset"), Sent: true}, false},
		{"another decides", &api.UnreachableError{Err: problem(api.Standby)}, false},
		{"too late", context.DeadlineExceeded, false},
		{"it broke", problem(""), false},
		{"it does not know", problem("unknown"), false},
		{"in doubt", problem(api.Doubted), false},
		{"full", problem(api.Full), false},
		{"a rule", problem("rule"), true},
		{"not asked so", fmt.Errorf("report: %w", problem("usage")), true},
	} {
		if got := final(c.err); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// agentOf is an agent whose control is a handler.
func agentOf(t *testing.T, h http.HandlerFunc) *Agent {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	client := api.NewClient([]string{srv.Listener.Addr().String()}, "", srv.Client())
	return &Agent{o: Options{Client: client, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}, behind: make(chan api.BeatAnswer)}
}

// TestTellOutlastsAnElection: a result that no control takes while they elect one
// is told until one does.
func TestTellOutlastsAnElection(t *testing.T) {
	var asked atomic.Int32
	a := agentOf(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			if err := json.NewEncoder(w).Encode(api.Problem{Code: api.Standby, Message: "another decides"}); err != nil {
				t.Error(err)
			}
			return
		}
		fmt.Fprint(w, "{}")
	})
	if a.tell(t.Context(), a.o.Log, "/report", struct{}{}) != nil || asked.Load() != 3 {
		t.Errorf("not told, after %d requests", asked.Load())
	}
}

// TestPollLeavesAFrozenControl: work that was asked of a frozen control while the one
// that decides did not answer for a moment is asked of that one, once it does.
func TestPollLeavesAFrozenControl(t *testing.T) {
	answers := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/work") {
			fmt.Fprint(w, "[]")
			return
		}
		fmt.Fprint(w, "{}")
	}
	first, second := newFreezing(t, answers), newFreezing(t, answers)
	a := joinedTo(t, first, second)
	beat := func() error { return a.beat(t.Context(), machine.BootTime()) }
	first.frozen.Store(true)
	for beat() != nil { // the first is asked first
	}
	second.frozen.Store(true)
	if beat() == nil {
		t.Fatal("a frozen control answers")
	}
	for a.o.Client.Address() != first.Listener.Addr().String() {
		_ = beat()
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.poll(t.Context())
		done <- err
	}()
	for path := range first.held {
		if strings.HasSuffix(path, "/work") {
			break
		}
	}
	second.frozen.Store(false)
	for beat() != nil {
	}
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the control that is frozen")
	}
}
