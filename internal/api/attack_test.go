package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
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
