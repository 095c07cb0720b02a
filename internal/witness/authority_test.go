package witness

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
)

// certificate is one with its key.
type certificate struct {
	*x509.Certificate
	key crypto.Signer
}

// issue makes a certificate; a nil authority signs itself.
func issue(t testing.TB, by *certificate, key crypto.Signer, set func(*x509.Certificate)) *certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
	}
	set(c)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &certificate{made, key}
}

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRoot(t testing.TB) *certificate {
	t.Helper()
	return issue(t, nil, ecKey(t), func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = "Test root", true, x509.KeyUsageCertSign
	})
}

// usage is the extended key usage of a certificate. Go writes it as not critical.
func usage(t testing.TB, critical bool, ids ...asn1.ObjectIdentifier) func(*x509.Certificate) {
	t.Helper()
	value, err := asn1.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.Subject.CommonName = "Test TSA"
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value}}
	}
}

func stamping() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8} }

func clientAuth() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2} }

func pool(list ...*certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c.Certificate)
	}
	return p
}

// authority is a real time stamping authority: openssl ts, behind HTTP.
type authority struct {
	t      testing.TB
	dir    string
	root   *certificate
	signer *certificate
	// before changes what was asked, after what is answered.
	before func(*timestamp.Request)
	after  func(w http.ResponseWriter, answer []byte)
	// chain is sent along, and settings stand in openssl's configuration.
	chain    []*certificate
	settings string
}

func newAuthority(t testing.TB, key crypto.Signer, set func(*x509.Certificate)) *authority {
	t.Helper()
	root := newRoot(t)
	return &authority{t: t, dir: t.TempDir(), root: root, signer: issue(t, root, key, set)}
}

func certificates(list ...*certificate) string {
	var s bytes.Buffer
	for _, c := range list {
		s.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return s.String()
}

// reply lets openssl answer.
func (a *authority) reply(query []byte) []byte {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.signer.key)
	if err != nil {
		a.t.Fatal(err)
	}
	put(a.t, filepath.Join(a.dir, "tsa.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600)
	put(a.t, filepath.Join(a.dir, "tsa.pem"), certificates(a.signer), 0o644)
	put(a.t, filepath.Join(a.dir, "query"), string(query), 0o644)
	chain := ""
	if len(a.chain) > 0 {
		put(a.t, filepath.Join(a.dir, "chain.pem"), certificates(a.chain...), 0o644)
		chain = "certs = chain.pem\n"
	}
	put(a.t, filepath.Join(a.dir, "tsa.conf"), `[tsa]
default_tsa = here
[here]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
`+chain+a.settings, 0o644)
	must(a.t, a.dir, "openssl", "ts", "-reply", "-config", "tsa.conf", "-queryfile", "query", "-out", "reply")
	out, err := os.ReadFile(filepath.Join(a.dir, "reply"))
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
		a.t.Errorf("asked by %s %s: %v", r.Method, r.Header.Get("Content-Type"), err)
	}
	q, err := timestamp.ParseRequest(query)
	if err != nil || !q.Certificates || q.Nonce == nil || q.HashAlgorithm != crypto.SHA256 {
		a.t.Errorf("asked %+v: %v", q, err)
	}
	if a.before != nil {
		a.before(q)
		if query, err = q.Marshal(); err != nil {
			a.t.Error(err)
		}
	}
	answer := a.reply(query)
	w.Header().Set("Content-Type", "application/timestamp-reply")
	if a.after != nil {
		a.after(w, answer)
		return
	}
	if _, err := w.Write(answer); err != nil {
		a.t.Error(err)
	}
}

func (a *authority) stamp(data []byte) ([]byte, error) {
	a.t.Helper()
	s := httptest.NewServer(a)
	defer s.Close()
	return Stamp(a.t.Context(), s.Client(), s.URL, data)
}

// openssl verifies as anybody can.
func (a *authority) openssl(token, data []byte, root *certificate) (string, error) {
	a.t.Helper()
	put(a.t, filepath.Join(a.dir, "token"), string(token), 0o644)
	put(a.t, filepath.Join(a.dir, "data"), string(data), 0o644)
	put(a.t, filepath.Join(a.dir, "root.pem"), certificates(root), 0o644)
	return try(a.dir, "openssl", "ts", "-verify", "-token_in", "-in", "token", "-data", "data", "-CAfile", "root.pem")
}
