package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAttackControlSendsItsClientsElsewhere: a control sends an agent or a person to a
// server that only they can reach, such as one on their loopback, with what they send.
func TestAttackControlSendsItsClientsElsewhere(t *testing.T) {
	asked := 0
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer inner.Close()
	control := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner.URL, http.StatusTemporaryRedirect)
	}))
	defer control.Close()
	sum := sha256.Sum256(control.Certificate().Raw)
	c := NewClient([]string{control.Listener.Addr().String()}, "token", TrustFingerprint(hex.EncodeToString(sum[:]), time.Now))
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if err := c.Do(t.Context(), method, "/fleet", nil, nil); err == nil {
			t.Errorf("%s: the redirect is an answer", method)
		}
	}
	if asked > 0 {
		t.Errorf("the other server was asked %d times", asked)
	}
}

// TestAttackControlAnswersWithoutEnd: a control, as on the host of a drill, does not come to
// the end of its answer. Whoever asks does not take it for ever.
func TestAttackControlAnswersWithoutEnd(t *testing.T) {
	var sent atomic.Int64
	control := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 2 * maxAnswer / (1 << 20)
		begin, part := `["`, bytes.Repeat([]byte("x"), 1<<20)
		if strings.HasSuffix(r.URL.Path, "/events") {
			n, begin, part = 2*maxLedger/(1<<20), "", bytes.Repeat([]byte(" "), 1<<20)
		}
		_, err := io.WriteString(w, begin)
		for i := 0; i < n && err == nil; i++ {
			_, err = w.Write(part)
			sent.Add(1 << 20)
		}
	}))
	defer control.Close()
	c := NewClient([]string{control.Listener.Addr().String()}, "token", control.Client())
	var list []string
	if err := c.Do(t.Context(), http.MethodGet, "/releases", nil, &list); err == nil || !strings.Contains(err.Error(), "more than 64 MB") || sent.Load() > maxAnswer*3/2 {
		t.Errorf("%d MB are taken for an answer: %v", sent.Load()>>20, err)
	}
	sent.Store(0)
	if err := c.Do(t.Context(), http.MethodGet, "/releases", nil, nil); err != nil || sent.Load() > maxAnswer*3/2 {
		t.Errorf("%d MB are taken of an answer that nobody reads: %v", sent.Load()>>20, err)
	}
	sent.Store(0)
	if _, err := c.Events(t.Context(), "4.2"); err == nil || !strings.Contains(err.Error(), "more than 256 MB") || sent.Load() > maxLedger*3/2 {
		t.Errorf("%d MB are taken for a ledger: %v", sent.Load()>>20, err)
	}
}
