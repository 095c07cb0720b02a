package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
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
	var has atomic.Int64 // events of each stream
	has.Store(2)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() && strings.HasSuffix(r.URL.Path, "/one") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, strings.Repeat("{}\n", int(max(has.Load()-after, 0))))
	}))
	defer srv.Close()
	var log bytes.Buffer // of the copy loop alone, which is at rest when it is read
	a := &Agent{
		o:      Options{Client: api.NewClient([]string{srv.Listener.Addr().String()}, "", srv.Client()), Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))},
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
	log.Reset() // it says what did not answer
	a.behind <- api.BeatAnswer{Mark: "c.3"}
	says("c.3", 4)
	// More came than an answer named, and an older answer is read after it: nothing is
	// lost, and nobody is told so.
	has.Store(3)
	a.behind <- api.BeatAnswer{Mark: "c.4", Streams: []api.Copied{{Stream: "two", Events: 3}}}
	says("c.4", 5)
	a.behind <- api.BeatAnswer{Mark: "c.3", Streams: []api.Copied{{Stream: "two", Events: 2}}}
	says("c.3", 5)
	if log.Len() != 0 {
		t.Errorf("it says %s", log.String())
	}
	// Control has less than this disk: it is not said to be copied.
	has.Store(1)
	a.behind <- api.BeatAnswer{Mark: "c.4", Streams: []api.Copied{{Stream: "two", Events: 1}}}
	broken.Store(true)
	a.behind <- api.BeatAnswer{Mark: "c.5", Streams: []api.Copied{{Stream: "one", Events: 5}}} // the one before is done with
	cancel()
	<-ended
	says("c.3", 5)
	if !strings.Contains(log.String(), "control lost some") {
		t.Errorf("of what is lost it says %q", log.String())
	}
}
