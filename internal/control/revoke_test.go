package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
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

// TestRevokedSeesNoMore: a stream that somebody follows ends once they may not read it
// any more, before anything that happened since.
func TestRevokedSeesNoMore(t *testing.T) {
	c := station(t, "a", "b")
	started(t, c, "1")
	epoch := granted(t, c, "1", "a")
	secret := made(t, c, token{Person: "ann", Role: Viewer})
	h := c.Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := r.Header.Get("Machine"); name != "" {
			cert := &x509.Certificate{Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{"machine"}}}
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	// follow reads up to some words, and gives the rest.
	follow := func(path, header, who, until string) io.Reader {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/releases/1/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(header, who)
		r.Header.Set("Accept", "text/event-stream")
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		var seen []byte
		for b := make([]byte, 1); !bytes.HasSuffix(seen, []byte(until)); seen = append(seen, b...) {
			if _, err := io.ReadFull(res.Body, b); err != nil {
				t.Fatalf("%s: %q: %v", path, seen, err)
			}
		}
		return res.Body
	}
	log := fmt.Sprintf("logs/build/%d", epoch)
	say := func(at int, line string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, fmt.Sprintf("/?offset=%d", at), strings.NewReader(line))
		r.SetPathValue("version", "1")
		r.SetPathValue("item", "build")
		r.SetPathValue("epoch", fmt.Sprint(epoch))
		if _, err := c.appendLog(t.Context(), &caller{machine: "a"}, r); err != nil {
			t.Fatal(err)
		}
	}
	say(0, "before\n")
	rest := map[string]io.Reader{
		"ann's events":          follow("events", "Authorization", "Bearer "+secret, "id: 2\n"),
		"ann's log":             follow(log+"?follow=true", "Authorization", "Bearer "+secret, "before\n"),
		"a retired machine's":   follow("events", "Machine", "b", "id: 2\n"),
		"a machine's that runs": follow("events", "Machine", "a", "id: 2\n"),
	}
	if err := c.record(t.Context(), access{Actor: "root", Revoked: "ann"}, func([]token) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.enlist(t.Context(), membership{Actor: "root", Name: "b", Set: fleet.Retired}); err != nil {
		t.Fatal(err)
	}
	say(len("before\n"), "after\n")
	if _, err := c.update(t.Context(), "1", "test", func(*release.State) (release.Body, error) {
		return release.Lost{Item: "build", Epoch: epoch, Machine: "a", Why: "after"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	for who, r := range rest {
		if who == "a machine's that runs" {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil || bytes.Contains(data, []byte("after")) {
			t.Errorf("%s goes on: %q, %v", who, data, err)
		}
	}
	var seen []byte
	for b := make([]byte, 1); !bytes.Contains(seen, []byte("id: 3\n")); seen = append(seen, b...) {
		if _, err := io.ReadFull(rest["a machine's that runs"], b); err != nil {
			t.Fatalf("of whom nothing was taken: %q, %v", seen, err)
		}
	}
}

// TestRevokeEndsInvitations: a join token is worth no more than whoever made it. One of a
// ledger that does not say who did is good until it expires.
func TestRevokeEndsInvitations(t *testing.T) {
	at := &wall{time.Now()}
	c, ask := working(t, at)
	ann, bob := &caller{person: "ann", role: Approver}, &caller{person: "bob", role: Approver}
	for _, q := range []*caller{ann, bob} {
		made(t, c, token{Person: q.person, Role: Approver})
	}
	invite := func(q *caller) (string, error) {
		answer, err := c.makeToken(t.Context(), q, httptest.NewRequest(http.MethodPost, "/", sent(t, api.Token{Join: true})))
		if err != nil {
			return "", err
		}
		return answer.(api.TokenMade).Secret, nil
	}
	links := map[string]string{"before": made(t, c, token{Join: true, Expires: at.now.Add(joinTime)})}
	for _, q := range []*caller{ann, bob, {person: "*", role: Approver}} {
		var err error
		if links[q.person], err = invite(q); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := c.o.Ledger.Read(t.Context(), AccessStream, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if bytes.Contains(line, []byte(hash(links["before"]))) && bytes.Contains(line, []byte(`"by"`)) {
			t.Errorf("one that nobody made is not as in ledgers of before: %s", line)
		}
	}
	if p := ask(http.MethodPost, "/v1/tokens/revoke", api.Revoke{Person: "ann"}, nil); p != nil {
		t.Fatal(p)
	}
	// A request of hers that was let in before makes none either.
	if _, err := invite(ann); !denied(err) {
		t.Errorf("who was revoked invites: %v", err)
	}
	again := New(c.o) // that takes over
	if err := again.refreshAccess(t.Context()); err != nil {
		t.Fatal(err)
	}
	for who, secret := range links {
		for _, x := range []*Control{c, again} {
			if err := x.joins(x.tokens, secret, false); (err == nil) != (who != "ann") {
				t.Errorf("a machine joins with the link of %s: %v", who, err)
			}
		}
	}
	if err := c.useJoin(t.Context(), "machine m", links["ann"], false); !denied(err) {
		t.Errorf("the link of who was revoked is used: %v", err)
	}
}
