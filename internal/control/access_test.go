package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/ledger"
)

// wall is a wall clock that tests set.
type wall struct{ now time.Time }

func (w *wall) time() time.Time { return w.now }

func noon() *wall { return &wall{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)} }

// disk is what a control leaves behind: its directory, and its ledger.
type disk struct {
	dir   string
	store *ledger.Store
}

func newDisk(t testing.TB) *disk {
	t.Helper()
	sockets, err := os.MkdirTemp("", "c") // their names are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	s, err := ledger.Start(context.Background(), ledger.StartOptions{Dir: sockets, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &disk{t.TempDir(), s}
}

// begin makes a control without a depot: enough to ask who may what.
func begin(t testing.TB, d *disk, at *wall) *Control {
	t.Helper()
	id, err := OpenIdentity(d.dir, []string{"control.example", "10.0.0.1", "::1"}, at.time)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Dir: d.dir, Identity: id, Ledger: d.store.Ledger, Actor: "control", Now: func() time.Time { return at.now }, Log: slog.New(slog.DiscardHandler)})
	if err := c.load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c
}

func made(t testing.TB, c *Control, x token) (secret string) {
	t.Helper()
	secret, err := c.addToken(context.Background(), "root", x)
	if err != nil || !secretLike(secret) {
		t.Fatalf("token %q: %v", secret, err)
	}
	return secret
}

// secretLike tells whether a link could carry it.
func secretLike(s string) bool {
	_, err := api.ParseLink(api.Link{Address: "control:7440", Fingerprint: strings.Repeat("0", 64), Secret: s}.String())
	return err == nil
}

func private(t testing.TB, file string) {
	t.Helper()
	if info, err := os.Stat(file); err != nil {
		t.Error(err)
	} else if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %s", file, info.Mode())
	}
}

// denied tells whether an error refuses, and says what to do.
func denied(err error) bool {
	var d *DeniedError
	return errors.As(err, &d) && d.Hint() != ""
}

func bearer(header string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/releases", nil)
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	return r
}

func TestLocalToken(t *testing.T) {
	d := newDisk(t)
	c := begin(t, d, noon())
	first, err := c.LocalToken(context.Background())
	if err != nil || !secretLike(first) {
		t.Fatalf("%q %v", first, err)
	}
	for name, again := range map[string]*Control{"again": c, "after a restart": begin(t, d, noon())} {
		if s, err := again.LocalToken(context.Background()); err != nil || s != first {
			t.Errorf("%s it is another: %v", name, err)
		}
		q, err := again.caller(bearer("Bearer " + first))
		if err != nil || *q != (caller{person: "*", role: Approver}) || q.name() != "root on control" {
			t.Errorf("%s it is %+v: %v", name, q, err)
		}
	}
	if other, err := begin(t, newDisk(t), noon()).LocalToken(context.Background()); err != nil || other == first {
		t.Errorf("another control has the same: %v", err)
	}
	if len(c.tokens) != 1 {
		t.Errorf("%d tokens", len(c.tokens))
	}
	private(t, filepath.Join(d.dir, "token"))

	// The ledger was lost, and the token's file was not.
	lost := newDisk(t)
	lost.dir = d.dir
	again := begin(t, lost, noon())
	if s, err := again.LocalToken(context.Background()); err != nil || s != first {
		t.Errorf("with another ledger it is another: %v", err)
	}
	if _, err := again.caller(bearer("Bearer " + first)); err != nil {
		t.Errorf("another ledger does not know it: %v", err)
	}
}

// TestSecretsAreHashed: who reads the ledger, or an agent's copy, has no token.
func TestSecretsAreHashed(t *testing.T) {
	c := begin(t, newDisk(t), noon())
	local, err := c.LocalToken(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{local, made(t, c, token{Person: "ann", Role: Viewer}), made(t, c, token{Join: true, Expires: noon().now.Add(joinTime)})}
	if err := c.useJoin(context.Background(), "machine a", made(t, c, token{Join: true, Expires: noon().now.Add(joinTime)}), false); err != nil {
		t.Fatal(err)
	}
	lines, err := c.o.Ledger.Read(context.Background(), AccessStream, 0)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Join(lines, []byte("\n"))
	for i, s := range secrets {
		if bytes.Contains(data, []byte(s)) {
			t.Errorf("the ledger holds secret %d in the clear", i)
		}
		if sum := sha256.Sum256([]byte(s)); !bytes.Contains(data, []byte(hex.EncodeToString(sum[:]))) {
			t.Errorf("the ledger does not know secret %d", i)
		}
		if slices.Index(secrets, s) != i {
			t.Errorf("secret %d is made twice", i)
		}
	}
	if len(c.tokens) != len(secrets) {
		t.Fatalf("%d tokens", len(c.tokens))
	}
	for _, x := range c.tokens {
		if _, err := c.caller(bearer("Bearer " + x.Hash)); !denied(err) {
			t.Errorf("a hash is taken for a token: %v", err)
		}
	}
	if err := c.o.Ledger.Append(context.Background(), AccessStream, int64(len(lines)), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.addToken(context.Background(), "root", token{Person: "bob", Role: Viewer}); err == nil {
		t.Error("a damaged stream is written on")
	}
}

func TestJoinToken(t *testing.T) {
	at := noon()
	d := newDisk(t)
	c := begin(t, d, at)
	begun := at.now
	use := func(secret string, now time.Time, control bool) error {
		at.now = now
		return c.useJoin(context.Background(), "machine a", secret, control)
	}
	join := func(secret string, now time.Time) error { return use(secret, now, false) }
	for _, x := range []struct {
		name  string
		age   time.Duration
		taken bool
	}{
		{"at once", 0, true},
		{"just in time", joinTime, true},
		{"a moment late", joinTime + 1, false},
		{"a day late", 24 * time.Hour, false},
	} {
		secret, other := made(t, c, token{Join: true, Expires: begun.Add(joinTime)}), made(t, c, token{Join: true, Expires: begun.Add(48 * time.Hour)})
		now := begun.Add(x.age)
		if err := join(secret, now); (err == nil) != x.taken || err != nil && !denied(err) {
			t.Errorf("%s: %v", x.name, err)
		}
		if err := join(secret, now); !denied(err) {
			t.Errorf("%s, used again: %v", x.name, err)
		}
		if err := join(other, now); err != nil {
			t.Errorf("%s, another: %v", x.name, err)
		}
	}
	person, joiner := made(t, c, token{Person: "ann", Role: Approver, Expires: begun.Add(joinTime)}), made(t, c, token{Join: true, Expires: begun.Add(joinTime)})
	for name, secret := range map[string]string{"nothing": "", "a guess": strings.Repeat("0", 48), "a person's token": person, "a token and more": joiner + "0", "its hash": hash(joiner)} {
		if err := join(secret, begun); !denied(err) {
			t.Errorf("%s lets a machine join: %v", name, err)
		}
	}
	if _, err := c.caller(bearer("Bearer " + person)); err != nil {
		t.Errorf("the person's token is spent: %v", err)
	}
	if _, err := c.caller(bearer("Bearer " + joiner)); !denied(err) {
		t.Errorf("a join token is taken for a person's: %v", err)
	}
	other := made(t, c, token{Join: true, Control: true, Expires: begun.Add(joinTime)})
	if err := join(other, begun); !denied(err) {
		t.Errorf("a control's token lets a machine join: %v", err)
	}
	if err := use(joiner, begun, true); !denied(err) {
		t.Errorf("a machine's token lets a control join: %v", err)
	}
	if err := c.mayJoin(other, true); err != nil {
		t.Error(err)
	}
	if err := use(other, begun, true); err != nil {
		t.Error(err)
	}
	if err := c.mayJoin(other, true); !denied(err) {
		t.Errorf("a token that is spent: %v", err)
	}
	at.now = begun
	var joined atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.useJoin(context.Background(), "machine a", joiner, false); err == nil {
				joined.Add(1)
			} else if !denied(err) {
				t.Error(err)
			}
			if _, err := c.caller(bearer("Bearer " + person)); err != nil {
				t.Error(err)
			}
			made(t, c, token{Person: "bob", Role: Viewer})
		})
	}
	wg.Wait()
	if n := joined.Load(); n != 1 {
		t.Errorf("%d machines joined with one token", n)
	}
	n := 0
	list := begin(t, d, at).tokens // as the ledger has them
	for _, x := range list {
		if x.Person == "bob" {
			n++
		}
	}
	if n != 8 {
		t.Errorf("%d of 8 tokens are kept that were made at once", n)
	}
}

func TestCaller(t *testing.T) {
	at := noon()
	c := begin(t, newDisk(t), at)
	ann := made(t, c, token{Person: "ann", Role: Viewer})
	bob := made(t, c, token{Person: "bob", Role: Operator, Expires: at.now.Add(time.Hour)})
	eve := made(t, c, token{Person: "eve", Role: Approver, Expires: at.now})
	c.members["m1"], c.members["m2"] = &member{}, &member{set: fleet.Retired}
	retired := &x509.Certificate{Subject: pkix.Name{CommonName: "m2", OrganizationalUnit: []string{"machine"}}}
	stranger := &x509.Certificate{Subject: pkix.Name{CommonName: "m3", OrganizationalUnit: []string{"machine"}}}
	machine := &x509.Certificate{Subject: pkix.Name{CommonName: "m1", OrganizationalUnit: []string{"machine"}}}
	other := &x509.Certificate{Subject: pkix.Name{CommonName: "m1"}}
	verified := func(x *x509.Certificate) *tls.ConnectionState {
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{x}}
	}
	for _, x := range []struct {
		name, header string
		tls          *tls.ConnectionState
		want         *caller
		who          string
	}{
		{"no token", "", nil, nil, ""},
		{"an empty token", "Bearer ", nil, nil, ""},
		{"an unknown token", "Bearer " + strings.Repeat("0", 48), nil, nil, ""},
		{"another scheme", "Basic " + ann, nil, nil, ""},
		{"no scheme", ann, nil, nil, ""},
		{"a token and more", "Bearer " + ann + "0", nil, nil, ""},
		{"half a token", "Bearer " + ann[:24], nil, nil, ""},
		{"its hash", "Bearer " + hash(ann), nil, nil, ""},
		{"a known token", "Bearer " + ann, nil, &caller{person: "ann", role: Viewer}, "ann"},
		{"one that expires later", "Bearer " + bob, nil, &caller{person: "bob", role: Operator}, "bob"},
		{"one that expires now", "Bearer " + eve, nil, nil, ""},
		{"a machine", "", verified(machine), &caller{machine: "m1"}, "machine m1"},
		{"a machine with a token", "Bearer " + ann, verified(machine), &caller{machine: "m1"}, "machine m1"},
		{"a retired machine", "", verified(retired), nil, ""},
		{"a machine that never joined, with a token", "Bearer " + ann, verified(stranger), nil, ""},
		{"a certificate of no machine", "", verified(other), nil, ""},
		{"a certificate of no machine, and a token", "Bearer " + ann, verified(other), &caller{person: "ann", role: Viewer}, "ann"},
		{"TLS, and a token", "Bearer " + ann, &tls.ConnectionState{}, &caller{person: "ann", role: Viewer}, "ann"},
	} {
		r := bearer(x.header)
		r.TLS = x.tls
		q, err := c.caller(r)
		switch {
		case x.want == nil && (q != nil || !denied(err)):
			t.Errorf("%s: %+v %v", x.name, q, err)
		case x.want != nil && (err != nil || *q != *x.want || q.name() != x.who):
			t.Errorf("%s: %+v %v", x.name, q, err)
		case err != nil && (strings.Contains(err.Error(), ann) || strings.Contains(err.Error(), eve)):
			t.Errorf("%s: the error holds the secret", x.name)
		}
	}
	at.now = at.now.Add(time.Hour)
	if q, err := c.caller(bearer("Bearer " + bob)); !denied(err) {
		t.Errorf("a token that has expired: %+v %v", q, err)
	}
}

func TestMay(t *testing.T) {
	for _, x := range []struct {
		q    caller
		want string // of viewer, operator, approver
	}{
		{caller{person: "ann", role: Viewer}, "yes no no"},
		{caller{person: "ann", role: Operator}, "yes yes no"},
		{caller{person: "ann", role: Approver}, "yes yes yes"},
		{caller{person: "*", role: Approver}, "yes yes yes"},
		{caller{person: "ann"}, "no no no"},
		{caller{person: "ann", role: "root"}, "no no no"},
		{caller{machine: "m1"}, "no no no"},
		{caller{machine: "m1", role: Approver}, "no no no"},
	} {
		var got []string
		for _, r := range roles() {
			got = append(got, map[bool]string{true: "yes", false: "no"}[x.q.may(r)])
		}
		if s := strings.Join(got, " "); s != x.want {
			t.Errorf("%+v may %s", x.q, s)
		}
	}
}

func TestAs(t *testing.T) {
	for _, x := range []struct {
		q, named, want string // "": denied
	}{
		{"ann", "", "ann"},
		{"ann", "ann", "ann"},
		{"ann", "bob", ""},
		{"ann", "*", ""},
		{"ann", "Ann", ""},
		{"*", "ann", "ann"},
		{"*", "", ""},
	} {
		got, err := (&caller{person: x.q, role: Approver}).as(x.named)
		if got != x.want || (err == nil) != (x.want != "") || err != nil && !denied(err) {
			t.Errorf("%s, as %q: %q %v", x.q, x.named, got, err)
		}
	}
}

// TestMakeToken asks as people do: over the API, whose roles it holds to.
func TestMakeToken(t *testing.T) {
	at := noon()
	c := begin(t, newDisk(t), at)
	root, err := c.LocalToken(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ann, bob := made(t, c, token{Person: "ann", Role: Approver}), made(t, c, token{Person: "bob", Role: Operator})
	h := c.Handler()
	for _, x := range []struct {
		name, secret, body string
		status             int
		want               *token
	}{
		{"a machine's, for root", root, `{"join":true}`, 200, &token{Join: true, By: "*", Expires: at.now.Add(joinTime)}},
		{"a machine's, for an approver", ann, `{"join":true}`, 200, &token{Join: true, By: "ann", Expires: at.now.Add(joinTime)}},
		{"a machine's names no person", ann, `{"join":true,"person":"*","role":"approver"}`, 200, &token{Join: true, By: "ann", Expires: at.now.Add(joinTime)}},
		{"a control's, for root", root, `{"join":true,"control":true}`, 200, &token{Join: true, By: "*", Control: true, Expires: at.now.Add(joinTime)}},
		{"a control's, for an approver", ann, `{"join":true,"control":true}`, 403, nil},
		{"a machine's, for an operator", bob, `{"join":true}`, 403, nil},
		{"a machine's, for nobody", "", `{"join":true}`, 403, nil},
		{"a person's, for root", root, `{"person":"eve","role":"viewer"}`, 200, &token{Person: "eve", Role: Viewer}},
		{"a person's, for an approver", ann, `{"person":"eve","role":"viewer"}`, 403, nil},
		{"root's own", root, `{"person":"*","role":"approver"}`, 400, nil},
		{"nobody's", root, `{"role":"approver"}`, 400, nil},
		{"without a role", root, `{"person":"eve"}`, 400, nil},
		{"with another role", root, `{"person":"eve","role":"root"}`, 400, nil},
		{"with something unknown", root, `{"person":"eve","role":"viewer","admin":true}`, 400, nil},
		{"no JSON", root, `{`, 400, nil},
	} {
		before := c.tokens
		r := httptest.NewRequest(http.MethodPost, "/v1/tokens", strings.NewReader(x.body))
		if x.secret != "" {
			r.Header.Set("Authorization", "Bearer "+x.secret)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		after := c.tokens
		if w.Code != x.status {
			t.Errorf("%s: status %d: %s", x.name, w.Code, w.Body)
		}
		if x.want == nil {
			var p api.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Message == "" || len(after) != len(before) {
				t.Errorf("%s: %d tokens more, %s", x.name, len(after)-len(before), w.Body)
			}
			continue
		}
		var got api.TokenMade
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || !secretLike(got.Secret) || got.Fingerprint != c.o.Identity.Fingerprint() {
			t.Errorf("%s: %s %v", x.name, w.Body, err)
		}
		x.want.Hash = hash(got.Secret)
		if len(after) != len(before)+1 || after[len(before)] != *x.want {
			t.Errorf("%s: now there is %+v", x.name, after)
		}
	}
}
