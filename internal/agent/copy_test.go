package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trysail/internal/api"
)

// TestCopiesSayWhenAllIsSafe: the mark of an answer is shown to control only once
// every stream that it named is on this disk.
func TestCopiesSayWhenAllIsSafe(t *testing.T) {
	var broken atomic.Bool
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() && strings.HasSuffix(r.URL.Path, "/one") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "{}\n{}\n")
	}))
	defer srv.Close()
	a := &Agent{
		o:      Options{Client: api.NewClient([]string{srv.Listener.Addr().String()}, "", srv.Client()), Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)},
		behind: make(chan api.BeatAnswer),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.keepCopies(ctx) }()
	says := func(mark string, events int64) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			a.mu.Lock()
			copied, safe := a.copied, a.events
			a.mu.Unlock()
			if copied == mark && safe == events {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("it says %q and %d events, not %q and %d", copied, safe, mark, events)
			}
		}
	}
	answer := api.BeatAnswer{Mark: "c.2", Streams: []api.Copied{{Stream: "one", Events: 2}, {Stream: "two", Events: 2}}}
	broken.Store(true)
	a.behind <- answer
	a.behind <- api.BeatAnswer{Mark: "", Streams: nil} // the one before is done with
	says("", 2)
	broken.Store(false)
	a.behind <- answer
	says("c.2", 4)
	a.behind <- api.BeatAnswer{Mark: "c.3"}
	says("c.3", 4)
	// Control has less than this disk: it is not said to be copied.
	a.behind <- api.BeatAnswer{Mark: "c.4", Streams: []api.Copied{{Stream: "two", Events: 1}}}
	cancel()
	<-ended
	says("c.3", 4)
}
