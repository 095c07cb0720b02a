package control

import (
	"bytes"
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
)

// wall is a wall clock that tests set.
type wall struct{ now time.Time }

func noon() *wall { return &wall{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)} }

// begin makes a control without a ledger or depot: enough to ask who may what.
func begin(t testing.TB, dir string, at *wall) *Control {
	t.Helper()
	c, err := New(Options{Dir: dir, Now: func() time.Time { return at.now }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func made(t testing.TB, c *Control, x token) (secret string) {
	t.Helper()
	secret, err := c.addToken(x)
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
	dir := t.TempDir()
	c := begin(t, dir, noon())
	first, err := c.LocalToken()
	if err != nil || !secretLike(first) {
		t.Fatalf("%q %v", first, err)
	}
	for name, again := range map[string]*Control{"again": c, "after a restart": begin(t, dir, noon())} {
		if s, err := again.LocalToken(); err != nil || s != first {
			t.Errorf("%s it is another: %v", name, err)
		}
		q, err := again.caller(bearer("Bearer " + first))
		if err != nil || *q != (caller{person: "*", role: Approver}) || q.name() != "root on control" {
			t.Errorf("%s it is %+v: %v", name, q, err)
		}
	}
	if other, err := begin(t, t.TempDir(), noon()).LocalToken(); err != nil || other == first {
		t.Errorf("another control has the same: %v", err)
	}
	if list, err := c.tokens(); err != nil || len(list) != 1 {
		t.Errorf("%d tokens: %v", len(list), err)
	}
	private(t, filepath.Join(dir, "token"))
	private(t, filepath.Join(dir, "tokens.json"))
}

// TestSecretsAreHashed: who reads tokens.json has no token.
func TestSecretsAreHashed(t *testing.T) {
	dir := t.TempDir()
	c := begin(t, dir, noon())
	local, err := c.LocalToken()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{local, made(t, c, token{Person: "ann", Role: Viewer}), made(t, c, token{Join: true, Expires: noon().now.Add(joinTime)})}
	if err := c.useJoin(made(t, c, token{Join: true, Expires: noon().now.Add(joinTime)}), noon().now); err != nil {
		t.Fatal(err)
	}
	private(t, c.tokensFile())
	data, err := os.ReadFile(c.tokensFile())
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range secrets {
		if bytes.Contains(data, []byte(s)) {
			t.Errorf("tokens.json holds secret %d in the clear", i)
		}
		if sum := sha256.Sum256([]byte(s)); !bytes.Contains(data, []byte(hex.EncodeToString(sum[:]))) {
			t.Errorf("tokens.json does not know secret %d", i)
		}
		if slices.Index(secrets, s) != i {
			t.Errorf("secret %d is made twice", i)
		}
	}
	list, err := c.tokens()
	if err != nil || len(list) != len(secrets) {
		t.Fatalf("%d tokens: %v", len(list), err)
	}
	for _, x := range list {
		if _, err := c.caller(bearer("Bearer " + x.Hash)); !denied(err) {
			t.Errorf("a hash is taken for a token: %v", err)
		}
	}
	if err := os.WriteFile(c.tokensFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = begin(t, dir, noon())
	if q, err := c.caller(bearer("Bearer " + local)); err == nil || denied(err) || !strings.Contains(err.Error(), "tokens.json") {
		t.Errorf("with a damaged tokens.json: %+v %v", q, err)
	}
	if _, err := c.addToken(token{Person: "bob", Role: Viewer}); err == nil {
		t.Error("a damaged tokens.json is written over")
	}
}

func TestJoinToken(t *testing.T) {
	at := noon()
	c := begin(t, t.TempDir(), at)
	begun := at.now
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
		if err := c.useJoin(secret, now); (err == nil) != x.taken || err != nil && !denied(err) {
			t.Errorf("%s: %v", x.name, err)
		}
		if err := c.useJoin(secret, now); !denied(err) {
			t.Errorf("%s, used again: %v", x.name, err)
		}
		if err := c.useJoin(other, now); err != nil {
			t.Errorf("%s, another: %v", x.name, err)
		}
	}
	person, join := made(t, c, token{Person: "ann", Role: Approver, Expires: begun.Add(joinTime)}), made(t, c, token{Join: true, Expires: begun.Add(joinTime)})
	for name, secret := range map[string]string{"nothing": "", "a guess": strings.Repeat("0", 48), "a person's token": person, "a token and more": join + "0", "its hash": hash(join)} {
		if err := c.useJoin(secret, begun); !denied(err) {
			t.Errorf("%s lets a machine join: %v", name, err)
		}
	}
	if _, err := c.caller(bearer("Bearer " + person)); err != nil {
		t.Errorf("the person's token is spent: %v", err)
	}
	if _, err := c.caller(bearer("Bearer " + join)); !denied(err) {
		t.Errorf("a join token is taken for a person's: %v", err)
	}
	var joined atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.useJoin(join, begun); err == nil {
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
	list, err := begin(t, c.o.Dir, at).tokens() // as the file has them
	for _, x := range list {
		if x.Person == "bob" {
			n++
		}
	}
	if err != nil || n != 8 {
		t.Errorf("%d of 8 tokens are kept that were made at once: %v", n, err)
	}
}

func TestCaller(t *testing.T) {
	at := noon()
	c := begin(t, t.TempDir(), at)
	ann := made(t, c, token{Person: "ann", Role: Viewer})
	bob := made(t, c, token{Person: "bob", Role: Operator, Expires: at.now.Add(time.Hour)})
	eve := made(t, c, token{Person: "eve", Role: Approver, Expires: at.now})
	c.members["m1"], c.members["m2"] = &member{}, &member{set: fleet.Retired}
	retired := &x509.Certificate{Subject: pkix.Name{CommonName: "m2", OrganizationalUnit: []string{"machine"}}}
	stranger := &x509.Certificate{Subject: pkix.Name{CommonName: "m3", OrganizationalUnit: []string{"machine"}}}
	machine := &x509.Certificate{Subject: pkix.Name{CommonName: "m1", OrganizationalUnit: []string{"machine"}}}
	other := &x509.Certificate{Subject: pkix.Name{CommonName: "m1"}}
	verified := func(x *x509.Certificate) *tls.ConnectionState {
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{x}, VerifiedChains: [][]*x509.Certificate{{x}}}
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
		{"a certificate that nobody verified", "", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{machine}}, nil, ""},
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
	c := begin(t, t.TempDir(), at)
	root, err := c.LocalToken()
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
		{"a machine's, for root", root, `{"join":true}`, 200, &token{Join: true, Expires: at.now.Add(joinTime)}},
		{"a machine's, for an approver", ann, `{"join":true}`, 200, &token{Join: true, Expires: at.now.Add(joinTime)}},
		{"a machine's names no person", ann, `{"join":true,"person":"*","role":"approver"}`, 200, &token{Join: true, Expires: at.now.Add(joinTime)}},
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
		before, err := c.tokens()
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/v1/tokens", strings.NewReader(x.body))
		if x.secret != "" {
			r.Header.Set("Authorization", "Bearer "+x.secret)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		after, err := c.tokens()
		if err != nil {
			t.Fatal(err)
		}
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
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || !secretLike(got.Secret) || got.Fingerprint != c.Fingerprint() {
			t.Errorf("%s: %s %v", x.name, w.Body, err)
		}
		x.want.Hash = hash(got.Secret)
		if len(after) != len(before)+1 || after[len(before)] != *x.want {
			t.Errorf("%s: now there is %+v", x.name, after)
		}
	}
}
