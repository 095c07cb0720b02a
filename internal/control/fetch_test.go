package control

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trysail/internal/ledger"
)

// TestFetchPastFrozen: a control that was frozen holds up no blob that another has, and
// of what none has it is asked once a look.
func TestFetchPastFrozen(t *testing.T) {
	c := station(t)
	blob := []byte("blob")
	dg := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
	over := make(chan struct{})
	var asked atomic.Int64
	frozen := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			asked.Add(1)
		}
		<-over
	}))
	defer frozen.Close()
	defer close(over)
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, dg) {
			http.NotFound(w, r)
			return
		}
		if _, err := w.Write(blob); err != nil {
			t.Error(err)
		}
	}))
	defer other.Close()
	members := []ledger.Member{{Name: "self:1", Votes: true}}
	for _, s := range []*httptest.Server{frozen, other} {
		members = append(members, ledger.Member{Name: s.Listener.Addr().String(), Votes: true, Leads: s == frozen})
	}
	c.o.Name, c.o.Cluster, c.o.Identity = "self:1", &crowd{members}, &Identity{client: frozen.Client()}
	c.silence = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	nowhere := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("another")))
	if missing := c.fetch(ctx, []string{nowhere, dg}); !slices.Equal(missing, []string{nowhere}) || !c.o.Depot.Has(dg) {
		t.Errorf("missing are %q", missing)
	}
	if n := asked.Load(); n != 1 || ctx.Err() != nil {
		t.Errorf("the frozen control was asked %d times: %v", n, ctx.Err())
	}
}
