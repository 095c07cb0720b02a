package control

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"trysail/internal/api"
)

// TestRevoke: a person's tokens are worthless once they were revoked, all of them;
// others' and root's are not, and what is made afterwards is good.
func TestRevoke(t *testing.T) {
	c, ask := working(t, &wall{time.Now()})
	make := func(person string) string {
		t.Helper()
		var made api.TokenMade
		if p := ask(http.MethodPost, "/v1/tokens", api.Token{Person: person, Role: "approver"}, &made); p != nil {
			t.Fatal(p)
		}
		return made.Secret
	}
	good := func(secret string) bool {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/v1/fleet", nil)
		r.Header.Set("Authorization", "Bearer "+secret)
		_, err := c.caller(r)
		var denied *DeniedError
		if err != nil && !errors.As(err, &denied) {
			t.Fatal(err)
		}
		return err == nil
	}
	one, two, bob := make("ann"), make("ann"), make("bob")
	for _, x := range []struct {
		person string
		status int
	}{{"", http.StatusBadRequest}, {"*", http.StatusBadRequest}, {"carol", http.StatusNotFound}} {
		if p := ask(http.MethodPost, "/v1/tokens/revoke", api.Revoke{Person: x.person}, nil); p == nil || p.Status != x.status {
			t.Errorf("revoke %q: %v", x.person, p)
		}
	}
	if !good(one) || !good(two) || !good(bob) {
		t.Fatal("tokens are not good before any was revoked")
	}
	if p := ask(http.MethodPost, "/v1/tokens/revoke", api.Revoke{Person: "ann"}, nil); p != nil {
		t.Fatal(p)
	}
	if good(one) || good(two) {
		t.Error("a revoked token is good")
	}
	if !good(bob) || !good(make("ann")) {
		t.Error("another's token, or one made afterwards, is not good")
	}
	// A control that takes over reads the same from the ledger.
	again := New(c.o)
	if err := again.refreshAccess(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = again
	if good(one) || !good(bob) {
		t.Error("another control holds other tokens for good")
	}
	// Only root on control takes tokens back.
	_, err := c.revoke(t.Context(), &caller{person: "bob", role: Approver}, httptest.NewRequest(http.MethodPost, "/", sent(t, api.Revoke{Person: "ann"})))
	var denied *DeniedError
	if !errors.As(err, &denied) {
		t.Errorf("bob revokes: %v", err)
	}
}
