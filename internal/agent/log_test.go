package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"trysail/internal/api"
)

// TestLogGoesOn: whatever control lost of a log in the meantime, it has all of it
// in the end, and nothing twice.
func TestLogGoesOn(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(request int, have []byte) []byte
	}{
		{"nothing lost", func(_ int, have []byte) []byte { return have }},
		{"all lost", func(n int, have []byte) []byte {
			if n == 3 {
				return nil
			}
			return have
		}},
		{"some lost, twice", func(n int, have []byte) []byte {
			if n == 2 || n == 5 {
				return have[:len(have)/2]
			}
			return have
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var have []byte
			requests := 0
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				requests++
				have = c.lose(requests, have)
				at, err := strconv.Atoi(r.URL.Query().Get("offset"))
				if err != nil {
					t.Error(err)
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				if at <= len(have) {
					have = append(have[:at], body...)
				}
				if err := json.NewEncoder(w).Encode(api.LogSize{Size: int64(len(have))}); err != nil {
					t.Error(err)
				}
			}))
			defer srv.Close()
			a := &Agent{o: Options{Client: api.NewClient([]string{srv.Listener.Addr().String()}, "", srv.Client()), Log: slog.New(slog.DiscardHandler)}}
			l, err := a.newLog(api.Holding{Release: "1", Item: "x", Epoch: 2}, filepath.Join(t.TempDir(), "log"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.file.Close()
			var want bytes.Buffer
			for i := range 700_000 {
				fmt.Fprintln(&want, i)
			}
			var sender sync.WaitGroup
			sender.Go(func() { l.send(t.Context()) })
			for chunk := range bytes.Lines(want.Bytes()) {
				if _, err := l.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			l.finish()
			sender.Wait()
			if !bytes.Equal(have, want.Bytes()) {
				t.Errorf("control has %d bytes of %d after %d requests", len(have), want.Len(), requests)
			}
		})
	}
}
