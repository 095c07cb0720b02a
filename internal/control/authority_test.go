package control

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
)

func request(t testing.TB, q x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &q, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func authorityIn(t testing.TB, dir string, now time.Time) *authority {
	t.Helper()
	a, err := openAuthority(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthority(t *testing.T) {
	dir, now := t.TempDir(), noon().now
	a := authorityIn(t, dir, now)
	if b := authorityIn(t, dir, now.AddDate(1, 0, 0)); b.fingerprint() != a.fingerprint() || !bytes.Equal(b.pem, a.pem) || !b.key.Equal(a.key) {
		t.Errorf("opened again it is another: %s, was %s", b.fingerprint(), a.fingerprint())
	}
	if id, err := OpenIdentity(dir, nil, noon().time); err != nil || id.Fingerprint() != a.fingerprint() {
		t.Errorf("control has another: %v, not %s", err, a.fingerprint())
	}
	key, err := a.keyPEM()
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	for range 2 { // one that was interrupted begins again
		if err := AdoptAuthority(other, a.pem, key); err != nil {
			t.Fatal(err)
		}
	}
	private(t, filepath.Join(other, "authority.key"))
	if b := authorityIn(t, other, now); b.fingerprint() != a.fingerprint() || !b.key.Equal(a.key) {
		t.Error("a control that joins has another authority")
	}
	own := t.TempDir()
	authorityIn(t, own, now)
	var fleet *OwnFleetError
	if err := AdoptAuthority(own, a.pem, key); !errors.As(err, &fleet) || fleet.Hint() == "" {
		t.Errorf("a control with a fleet of its own joins another: %v", err)
	}
	if err := AdoptAuthority(t.TempDir(), a.pem, []byte("x")); err == nil {
		t.Error("an authority without its key is kept")
	}
	if sum := sha256.Sum256(a.cert.Raw); a.fingerprint() != hex.EncodeToString(sum[:]) {
		t.Errorf("fingerprint %s", a.fingerprint())
	}
	if other := authorityIn(t, t.TempDir(), now); other.fingerprint() == a.fingerprint() || other.cert.Subject.CommonName == a.cert.Subject.CommonName {
		t.Error("two authorities are the same")
	}
	keyFile, certFile := filepath.Join(dir, "authority.key"), filepath.Join(dir, "authority.pem")
	private(t, keyFile)
	key, err = os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(a.pem, []byte("PRIVATE")) {
		t.Error("the certificate comes with its key")
	}
	otherKey, err := os.ReadFile(filepath.Join(func() string { d := t.TempDir(); authorityIn(t, d, now); return d }(), "authority.key"))
	if err != nil {
		t.Fatal(err)
	}
	// With a key that is lost or damaged it does not quietly become another.
	for name, data := range map[string][]byte{"empty": {}, "damaged": key[:len(key)/2], "another's": otherKey, "lost": nil} {
		if err := os.Remove(keyFile); err != nil {
			t.Fatal(err)
		}
		if data != nil {
			if err := os.WriteFile(keyFile, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := openAuthority(dir, now); err == nil {
			t.Errorf("with its key %s it is opened: %s", name, b.fingerprint())
		}
		if now, err := os.ReadFile(certFile); err != nil || !bytes.Equal(now, a.pem) {
			t.Errorf("with its key %s its certificate has changed (%v)", name, err)
		}
		if err := os.WriteFile(keyFile, key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSign: a machine gets a certificate for the name that control gives it, to
// show to control and for nothing else.
func TestSign(t *testing.T) {
	now := noon().now
	a, other := authorityIn(t, t.TempDir(), now), authorityIn(t, t.TempDir(), now)
	pool, others := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(a.cert)
	others.AddCert(other.cert)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := ecKey(t)
	serials := map[string]bool{}
	for _, x := range []struct {
		name string
		q    x509.CertificateRequest
		key  crypto.Signer
	}{
		{"nothing asked", x509.CertificateRequest{}, key},
		{"the same name", x509.CertificateRequest{Subject: pkix.Name{CommonName: "m1"}}, key},
		{"another's name", x509.CertificateRequest{Subject: pkix.Name{CommonName: "m2", OrganizationalUnit: []string{"control", "root"}, Organization: []string{"o"}}}, key},
		{"control's name and addresses", x509.CertificateRequest{Subject: pkix.Name{CommonName: "trysail control"}, DNSNames: []string{"control"}, IPAddresses: []net.IP{{10, 0, 0, 1}}}, key},
		{"an authority", x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}}, key},
		{"another kind of key", x509.CertificateRequest{Subject: pkix.Name{CommonName: "m2"}}, edKey},
	} {
		out, _, err := a.sign(request(t, x.q, x.key), "m1", now)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		block, rest := pem.Decode(out)
		if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
			t.Fatalf("%s: %q", x.name, out)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		if s := cert.Subject; s.CommonName != "m1" || !slices.Equal(s.OrganizationalUnit, []string{"machine"}) || len(s.Names) != 2 {
			t.Errorf("%s: subject %s", x.name, s)
		}
		if len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses)+len(cert.URIs) > 0 || cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("%s: names %q %s, an authority: %t, usage %b", x.name, cert.DNSNames, cert.IPAddresses, cert.IsCA, cert.KeyUsage)
		}
		if public, ok := x.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
			t.Errorf("%s: it is for another key", x.name)
		}
		if serials[cert.SerialNumber.String()] || cert.SerialNumber.Sign() <= 0 {
			t.Errorf("%s: serial number %s", x.name, cert.SerialNumber)
		}
		serials[cert.SerialNumber.String()] = true
		for _, v := range []struct {
			name  string
			roots *x509.CertPool
			use   x509.ExtKeyUsage
			at    time.Time
			good  bool
		}{
			{"for control", pool, x509.ExtKeyUsageClientAuth, now, true},
			{"by a clock that is slow", pool, x509.ExtKeyUsageClientAuth, now.Add(-50 * time.Minute), true},
			{"a year later", pool, x509.ExtKeyUsageClientAuth, now.AddDate(1, 0, 0), true},
			{"two years later", pool, x509.ExtKeyUsageClientAuth, now.AddDate(2, 0, 0), false},
			{"as a server", pool, x509.ExtKeyUsageServerAuth, now, false},
			{"for another fleet", others, x509.ExtKeyUsageClientAuth, now, false},
		} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: v.roots, CurrentTime: v.at, KeyUsages: []x509.ExtKeyUsage{v.use}})
			if (err == nil) != v.good {
				t.Errorf("%s, %s: %v", x.name, v.name, err)
			}
		}
	}

	good := request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "m1"}}, key)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	renamed := bytes.Replace(good, []byte("m1"), []byte("m2"), 1)
	for name, garbage := range map[string][]byte{
		"nothing": nil, "text": []byte("please"), "a certificate": a.cert.Raw, "half a request": good[:len(good)/2], "a request and more": append(bytes.Clone(good), 0),
		"another signature": flipped, "what was not signed": renamed, "a request as text": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: good}),
	} {
		if out, _, err := a.sign(garbage, "m1", now); err == nil || out != nil {
			t.Errorf("%s is signed: %v", name, err)
		}
	}
}

// TestServer: control shows a certificate for its addresses, which is no machine's.
func TestServer(t *testing.T) {
	at := noon()
	c := begin(t, newDisk(t), at)
	conf := c.o.Identity.TLS()
	if conf.MinVersion != tls.VersionTLS13 || conf.ClientAuth != tls.RequestClientCert || conf.VerifyConnection == nil || conf.ClientCAs == nil {
		t.Errorf("version %x, client's certificate %s", conf.MinVersion, conf.ClientAuth)
	}
	shown, err := conf.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	chain := shown.Certificate
	if len(chain) != 2 || !bytes.Equal(chain[1], c.o.Identity.authority.cert.Raw) {
		t.Fatalf("%d certificates are shown: a machine that joins knows only the authority's", len(chain))
	}
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		use  x509.ExtKeyUsage
		good bool
	}{
		{"control.example", x509.ExtKeyUsageServerAuth, true},
		{"10.0.0.1", x509.ExtKeyUsageServerAuth, true},
		{"::1", x509.ExtKeyUsageServerAuth, true},
		{"10.0.0.2", x509.ExtKeyUsageServerAuth, false},
		{"other.example", x509.ExtKeyUsageServerAuth, false},
		{"control.example", x509.ExtKeyUsageClientAuth, true}, // to other controls,
	} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: conf.ClientCAs, DNSName: x.name, CurrentTime: at.now, KeyUsages: []x509.ExtKeyUsage{x.use}})
		if (err == nil) != x.good {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	r := bearer("")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert, c.o.Identity.authority.cert}}
	q, err := c.caller(r)
	if err != nil || *q != (caller{control: true}) || q.may(Viewer) {
		t.Errorf("control's own certificate is that of %+v: %v", q, err)
	}
}

// TestControlRenews: control runs for longer than a certificate lasts, and shows one
// that is in force, to machines and, in files, to the etcd of others.
func TestControlRenews(t *testing.T) {
	at := noon()
	dir := t.TempDir()
	id, err := OpenIdentity(dir, []string{"control.example"}, at.time)
	if err != nil {
		t.Fatal(err)
	}
	p, err := id.Peer("a", "10.0.0.1:2380", "a=https://10.0.0.1:2380")
	if err != nil {
		t.Fatal(err)
	}
	first, err := id.current()
	if err != nil {
		t.Fatal(err)
	}
	for day := range 5 * api.CertificateDays {
		at.now = noon().now.AddDate(0, 0, day)
		cert, err := id.TLS().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if left := cert.Leaf.NotAfter.Sub(at.now); left < api.CertificateDays*24*time.Hour/3 {
			t.Fatalf("on day %d it has %s left", day, left)
		}
	}
	last, err := id.current()
	if err != nil || last.Leaf.Equal(first.Leaf) || !last.Leaf.NotBefore.Before(time.Now()) {
		t.Errorf("the last is the first, or not yet in force by the kernel's clock: %v, from %s", err, last.Leaf.NotBefore)
	}
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil || !pair.Leaf.Equal(last.Leaf) {
		t.Errorf("etcd has another: %v", err)
	}
	private(t, p.Key)
	// A disk that takes nothing keeps what is good; what ends is not shown.
	at.now = last.Leaf.NotAfter.AddDate(0, 0, -10)
	if err := os.Remove(p.Key); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.Key, 0o700); err != nil { // what is renamed over it fails
		t.Fatal(err)
	}
	if cert, err := id.current(); err != nil || !cert.Leaf.Equal(last.Leaf) {
		t.Errorf("ten days before it ends: %v", err)
	}
	at.now = last.Leaf.NotAfter.AddDate(0, 0, 1)
	if cert, err := id.current(); err == nil {
		t.Errorf("one that has ended is shown: %v", cert.Leaf.NotAfter)
	}
	if err := os.Remove(p.Key); err != nil {
		t.Fatal(err)
	}
	if cert, err := id.current(); err != nil || api.EndsSoon(cert.Leaf, at.now) {
		t.Errorf("once the disk takes it: %v", err)
	}
}

// TestMachineRenews: a machine is certified anew under its own name, whatever it asks
// for; one that does not belong to the fleet is not.
func TestMachineRenews(t *testing.T) {
	at := noon()
	c := begin(t, newDisk(t), at)
	if err := c.enlist(t.Context(), membership{Joined: &enrolled{Name: "m1", Slots: 1}}); err != nil {
		t.Fatal(err)
	}
	key := ecKey(t)
	a := c.o.Identity.authority
	next := key // for which another certificate is asked
	ask := func(name string) (*httptest.ResponseRecorder, *x509.Certificate) {
		t.Helper()
		out, _, err := a.sign(request(t, x509.CertificateRequest{}, key), name, at.now)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(out)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(api.Renew{Request: request(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "other"}}, next)})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/v1/renew", bytes.NewReader(data))
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert, a.cert}}
		w := httptest.NewRecorder()
		c.Handler().ServeHTTP(w, r)
		return w, cert
	}
	at.now = at.now.AddDate(0, 0, 300)
	w, _ := ask("m1")
	var answer api.Enrolled
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	block, _ := pem.Decode(answer.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.Subject.CommonName != "m1" || !key.PublicKey.Equal(cert.PublicKey) || cert.NotAfter.Sub(at.now) != api.CertificateDays*24*time.Hour {
		t.Errorf("%+v, until %s: %v", cert.Subject, cert.NotAfter, err)
	}
	next = ecKey(t)
	if w, _ := ask("m1"); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "another key") {
		t.Errorf("for another key: %d %s", w.Code, w.Body)
	}
	next = key
	// Another disk has joined under the name since: this one was stolen, or thrown away.
	if err := c.enlist(t.Context(), membership{Joined: &enrolled{Name: "m1", Slots: 1, Key: "another"}}); err != nil {
		t.Fatal(err)
	}
	if w, _ := ask("m1"); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "another machine has joined") {
		t.Errorf("an earlier machine of the name: %d %s", w.Code, w.Body)
	}
	if w, _ := ask("m2"); w.Code != http.StatusForbidden {
		t.Errorf("a machine that does not belong to the fleet: %d %s", w.Code, w.Body)
	}
	r := bearer("")
	r.Method, r.URL.Path = http.MethodPost, "/v1/renew"
	w = httptest.NewRecorder()
	c.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("nobody: %d %s", w.Code, w.Body)
	}
}
