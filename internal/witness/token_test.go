package witness

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
)

// forge makes a token that openssl refuses to make.
func forge(t *testing.T, data []byte, at time.Time, by *certificate, set func(*timestamp.Timestamp)) []byte {
	t.Helper()
	sum := sha256.Sum256(data)
	s := &timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: at.UTC().Truncate(time.Second), Policy: asn1.ObjectIdentifier{1, 2, 3},
		Nonce: big.NewInt(1), AddTSACertificate: true,
	}
	if set != nil {
		set(s)
	}
	answer, err := s.CreateResponseWithOpts(by.Certificate, by.key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	token, err := granted(answer)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func refused(t *testing.T, token, data []byte, roots *x509.CertPool, what string) {
	t.Helper()
	at, err := VerifyStamp(token, data, roots)
	var e *TokenError
	if !errors.As(err, &e) || !at.IsZero() || !strings.Contains(err.Error(), what) || e.Hint() == "" {
		t.Errorf("not refused because of %q: %v %v", what, at, err)
	}
}

func TestForgeIsAccepted(t *testing.T) {
	root := newRoot(t)
	by := issue(t, root, ecKey(t), usage(t, true, stamping()))
	at := time.Now().Add(-time.Minute)
	if got, err := VerifyStamp(forge(t, []byte("data"), at, by, nil), []byte("data"), pool(root)); err != nil || !got.Equal(at.Truncate(time.Second)) {
		t.Errorf("what the next tests forge is not right but for their fault: %v %v", got, err)
	}
}

func TestCertificateIsNotForStamps(t *testing.T) {
	root := newRoot(t)
	data := []byte("data")
	for _, x := range []struct {
		name string
		set  func(*x509.Certificate)
		what string
	}{
		{"no usage", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, "is not for time stamping alone"},
		{"another usage", usage(t, true, clientAuth()), "is not for time stamping alone"},
		{"two usages", usage(t, true, stamping(), clientAuth()), "is not for time stamping alone"},
		{"an unknown usage more", usage(t, true, stamping(), asn1.ObjectIdentifier{1, 2, 3}), "is not for time stamping alone"},
		{"not critical", usage(t, false, stamping()), "does not say so critically"},
	} {
		refused(t, forge(t, data, time.Now(), issue(t, root, ecKey(t), x.set), nil), data, pool(root), x.what)
	}
	// Nor may the authority above it be for something else.
	between := issue(t, root, ecKey(t), func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	by := issue(t, between, ecKey(t), usage(t, true, stamping()))
	token := forge(t, data, time.Now(), by, func(s *timestamp.Timestamp) { s.Certificates = []*x509.Certificate{between.Certificate} })
	refused(t, token, data, pool(root), "incompatible key usage")
}

func TestCertificateHadExpired(t *testing.T) {
	data := []byte("data")
	expired := func(c *x509.Certificate) {
		usage(t, true, stamping())(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	a := newAuthority(t, ecKey(t), expired)
	s := httptest.NewServer(a)
	defer s.Close()
	// Whoever asks knows no roots, and the time that the signer states is signed.
	_, err := Stamp(t.Context(), s.Client(), s.URL, data)
	if err == nil || !strings.Contains(err.Error(), "is outside of certificate validity") {
		t.Errorf("%v", err)
	}
	query, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: make([]byte, 32), Certificates: true}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	token, err := granted(a.reply(query))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, token, data, pool(a.root), "is outside of certificate validity")
	// A stated time that is not that of the signature does not help, nor one before
	// there was a certificate.
	by := issue(t, a.root, ecKey(t), usage(t, true, stamping()))
	for _, at := range []time.Duration{-2 * time.Hour, 2 * time.Hour} {
		refused(t, forge(t, data, time.Now().Add(at), by, nil), data, pool(a.root), "a certificate was not valid when it was used")
	}
}

// TestSinceExpired reads a token of an authority whose certificate has run out since:
// that it was valid then is what counts. TRYSAIL_WRITE_EXPIRED=1 makes it anew, from
// a certificate for the next few seconds.
func TestSinceExpired(t *testing.T) {
	dir := filepath.Join("testdata", "since-expired")
	data := sign(t, "4.2", 17, 'a')
	if os.Getenv("TRYSAIL_WRITE_EXPIRED") != "" {
		root := issue(t, nil, ecKey(t), func(c *x509.Certificate) {
			c.Subject.CommonName, c.IsCA, c.KeyUsage, c.NotAfter = "Test root", true, x509.KeyUsageCertSign, time.Now().Add(10*time.Second)
		})
		a := &authority{t: t, dir: t.TempDir(), root: root}
		a.signer = issue(t, root, ecKey(t), func(c *x509.Certificate) {
			usage(t, true, stamping())(c)
			c.NotAfter = root.NotAfter
		})
		token, err := a.stamp(data)
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "token"), string(token), 0o644)
		put(t, filepath.Join(dir, "root.pem"), certificates(root), 0o644)
		time.Sleep(time.Until(root.NotAfter) + time.Second)
	}
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(dir, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(root)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !c.NotAfter.Before(time.Now()) {
		t.Fatalf("valid until %v: %v", c.NotAfter, err)
	}
	at, err := VerifyStamp(token, data, pool(&certificate{Certificate: c}))
	if err != nil || !at.Before(c.NotAfter) {
		t.Errorf("%v %v", at, err)
	}
}

func TestForgedTokens(t *testing.T) {
	root := newRoot(t)
	data := []byte("data")
	by := issue(t, root, ecKey(t), usage(t, true, stamping()))
	good := forge(t, data, time.Now(), by, nil)
	extended := func(s *timestamp.Timestamp) {
		s.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	}
	refused(t, forge(t, data, time.Now(), by, extended), data, pool(root), "a critical extension that is not known")
	bare := func(s *timestamp.Timestamp) { s.AddTSACertificate = false }
	refused(t, forge(t, data, time.Now(), by, bare), data, pool(root), "the certificate of its signer is not with it")
	refused(t, nil, data, pool(root), "cannot be read")
	refused(t, make([]byte, maxToken+1), data, pool(root), "too large")
	refused(t, append(bytes.Clone(good), 5, 0), data, pool(root), "2 bytes follow it")
	refused(t, []byte(strings.Repeat("\x30\x80", 1000)), data, pool(root), "no DER")
	// Another certificate of the same key, name and number is not the one that signed.
	second := by
	for second == by || len(second.Raw) != len(by.Raw) { // a signature has 70 to 72 bytes
		second = issue(t, root, by.key, func(c *x509.Certificate) {
			usage(t, true, stamping())(c)
			c.SerialNumber = by.SerialNumber
			c.NotAfter = by.NotAfter.Add(time.Second)
		})
	}
	refused(t, bytes.Replace(good, by.Raw, second.Raw, 1), data, pool(root), "signed with another certificate")
	refused(t, bytes.Replace(good, []byte{9, 16, 1, 4}, []byte{9, 16, 1, 5}, 1), data, pool(root), "what is signed is no time stamp")
}

func TestSHA1IsRefused(t *testing.T) {
	a := newAuthority(t, rsaKey(t), usage(t, true, stamping()))
	a.settings = "signer_digest = sha1\n"
	if _, err := a.stamp([]byte("data")); err == nil || !strings.Contains(err.Error(), "digest algorithm 1.3.14.3.2.26 is not") {
		t.Error(err)
	}
}

// TestTornAndFlipped: no beginning of a token is one, and none with a bit changed,
// wherever it is.
func TestTornAndFlipped(t *testing.T) {
	data := []byte("data")
	for _, key := range []crypto.Signer{ecKey(t), rsaKey(t)} {
		a := newAuthority(t, key, usage(t, true, stamping()))
		token, err := a.stamp(data)
		if err != nil {
			t.Fatal(err)
		}
		roots := pool(a.root)
		if _, err := VerifyStamp(token, data, roots); err != nil {
			t.Fatal(err)
		}
		for i := range token {
			if at, err := VerifyStamp(token[:i], data, roots); err == nil {
				t.Errorf("the first %d bytes are a token of %v", i, at)
			}
			for bit := range 8 {
				x := bytes.Clone(token)
				x[i] ^= 1 << bit
				var e *TokenError
				if at, err := VerifyStamp(x, data, roots); !errors.As(err, &e) {
					t.Errorf("byte %d of %d is %#x, not %#x, and it is a token of %v: %v", i, len(token), x[i], token[i], at, err)
				}
			}
		}
	}
}

func FuzzVerifyStamp(f *testing.F) {
	root := newRoot(f)
	a := &authority{t: f, dir: f.TempDir(), root: root}
	for _, key := range []crypto.Signer{ecKey(f), rsaKey(f)} {
		a.signer = issue(f, root, key, usage(f, true, stamping()))
		token, err := a.stamp([]byte("data"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
		f.Add(token[:len(token)/2])
	}
	f.Add([]byte(strings.Repeat("\x30\x80", 1000)))
	roots := pool(root)
	f.Fuzz(func(t *testing.T, token []byte) {
		var e *TokenError
		if _, err := VerifyStamp(token, []byte("other"), roots); !errors.As(err, &e) || e.Hint() == "" {
			t.Fatalf("%T %v", err, err)
		}
	})
}

func FuzzGranted(f *testing.F) {
	f.Add([]byte{0x30, 5, 0x30, 3, 2, 1, 0})
	for _, failure := range []timestamp.FailureInfo{timestamp.BadAlgorithm, timestamp.SystemFailure} {
		answer, err := timestamp.CreateErrorResponse(timestamp.Rejection, failure)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(answer)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		token, err := granted(answer)
		if (err == nil) != (len(token) > 0) || !bytes.Contains(answer, token) || (err != nil && len(fmt.Sprint(err)) > 8<<10) {
			t.Fatalf("%x %v", token, err)
		}
	})
}
