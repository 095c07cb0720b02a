package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/machine"
)

// TestMain is the guard too: an agent starts its own program as one.
func TestMain(m *testing.M) {
	if os.Args[0] == machine.GuardName {
		os.Exit(machine.RunGuard())
	}
	os.Exit(m.Run())
}

// freezing is a control that takes a request and never answers it once it is frozen.
type freezing struct {
	*httptest.Server
	frozen atomic.Bool
	held   chan string // paths of what it took then
}

func newFreezing(t *testing.T, h http.HandlerFunc) *freezing {
	t.Helper()
	f, thaw := &freezing{held: make(chan string, 100)}, make(chan struct{})
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.frozen.Load() {
			f.held <- r.URL.Path
			<-thaw
			return
		}
		h(w, r)
	}))
	t.Cleanup(f.Close)
	t.Cleanup(func() { close(thaw) })
	return f
}

// joinedTo is an agent of some controls, with a guard and a depot.
func joinedTo(t *testing.T, controls ...*freezing) *Agent {
	t.Helper()
	d, err := depot.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, c := range controls {
		addresses = append(addresses, c.Listener.Addr().String())
	}
	a, err := New(Options{
		Client: api.NewClient(addresses, "", controls[0].Client()), Depot: d, Dir: t.TempDir(), Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.guard.Close(); err != nil && !errors.Is(err, os.ErrClosed) { // else Run has closed it
			t.Error(err)
		}
	})
	return a
}

// TestFrozenControlIsLeft: what was asked of a control that is frozen, and not thawed,
// ends once another answers reports, and is asked of that one.
func TestFrozenControlIsLeft(t *testing.T) {
	blob := bytes.Repeat([]byte("blob"), 1<<20) // more than a connection's buffers take
	for _, c := range []struct {
		name string
		do   func(a *Agent, dg string) error
		held string
	}{
		{"a blob is sent", func(a *Agent, dg string) error {
			if _, _, err := a.o.Depot.Put(t.Context(), bytes.NewReader(blob)); err != nil {
				return err
			}
			return again(t.Context(), func() error { return a.send(t.Context(), dg) })
		}, "/blobs/"},
		{"a blob is fetched", func(a *Agent, dg string) error { return a.fetch(t.Context(), dg) }, "/blobs/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sent atomic.Bool
			answers := func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead:
					w.WriteHeader(http.StatusNotFound)
				case r.Method == http.MethodPut:
					got, err := io.ReadAll(r.Body)
					sent.Store(err == nil && bytes.Equal(got, blob))
				case strings.Contains(r.URL.Path, "/blobs/"):
					_, _ = w.Write(blob)
				default:
					fmt.Fprint(w, "{}")
				}
			}
			first, second := newFreezing(t, answers), newFreezing(t, answers)
			a := joinedTo(t, first, second)
			if err := a.beat(t.Context(), machine.BootTime()); err != nil {
				t.Fatal(err)
			}
			src, err := depot.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			dg, err := src.PutBytes(t.Context(), blob)
			if err != nil {
				t.Fatal(err)
			}
			first.frozen.Store(true)
			done := make(chan error, 1)
			go func() { done <- c.do(a, dg) }()
			if path := <-first.held; !strings.Contains(path, c.held) {
				t.Fatalf("it took %s", path)
			}
			for a.beat(t.Context(), machine.BootTime()) != nil { // the frozen one is asked first
			}
			select {
			case err := <-done:
				if err != nil || !a.o.Depot.Has(dg) {
					t.Errorf("it ended: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it waits for the control that is frozen")
			}
			if c.name == "a blob is sent" && !sent.Load() {
				t.Error("the other control has it not")
			}
		})
	}
}

// TestSmallRequestsEnd: what is small is not waited for for ever, and asked again.
func TestSmallRequestsEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a *Agent) error
	}{
		{"a result", func(a *Agent) error {
			if a.tell(t.Context(), a.o.Log, "/report", struct{}{}) != nil {
				return fmt.Errorf("it was not told")
			}
			return nil
		}},
		{"a log", func(a *Agent) error {
			l, err := a.newLog(api.Holding{Release: "1", Item: "x", Epoch: 2}, filepath.Join(t.TempDir(), "log"), nil)
			if err != nil {
				return err
			}
			defer l.file.Close()
			if _, err := l.Write([]byte("a line\n")); err != nil {
				return err
			}
			l.finish()
			l.send(t.Context())
			_, err = l.store(t.Context())
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f *freezing
			kept := false
			f = newFreezing(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/keep"):
					kept = true
				case strings.Contains(r.URL.Path, "/logs/"):
					f.frozen.Store(true) // and its blob is to be made next
				case strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodHead:
					return // it has it by now
				}
				if err := json.NewEncoder(w).Encode(api.LogSize{Size: int64(len("a line\n"))}); err != nil {
					t.Error(err)
				}
			})
			a := joinedTo(t, f)
			a.patience = 200 * time.Millisecond
			f.frozen.Store(true)
			done := make(chan error, 1)
			go func() { done <- c.do(a) }()
			for range 2 {
				select {
				case <-f.held:
					f.frozen.Store(false)
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
					return
				case <-time.After(10 * time.Second):
					t.Fatal("it waits for the control that is frozen")
				}
			}
			if err := <-done; err != nil || kept {
				t.Errorf("it ended: %v; kept %t", err, kept)
			}
		})
	}
}

// TestFetchGoesOn: a blob whose control ended while it sent it is fetched again.
func TestFetchGoesOn(t *testing.T) {
	blob := bytes.Repeat([]byte("blob"), 1<<18)
	var asked atomic.Int32
	f := newFreezing(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		if asked.Add(1) == 1 {
			_, _ = w.Write(blob[:len(blob)/2])
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(blob)
	})
	a := joinedTo(t, f)
	dg := digest.FromBytes(blob).String()
	if err := a.fetch(t.Context(), dg); err != nil || !a.o.Depot.Has(dg) || asked.Load() != 2 {
		t.Errorf("after %d requests: %v", asked.Load(), err)
	}
}
