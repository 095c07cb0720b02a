package witness

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
)

func TestStamp(t *testing.T) {
	data := sign(t, "4.2", 17, 'a')
	other := newRoot(t)
	for name, x := range map[string]struct {
		key      crypto.Signer
		settings string
	}{
		"ECDSA":                  {ecKey(t), ""},
		"RSA":                    {rsaKey(t), ""},
		"RSA, as in RFC 3161":    {rsaKey(t), "ess_cert_id_alg = sha1\n"},
		"SHA-512":                {rsaKey(t), "signer_digest = sha512\ness_cert_id_alg = sha512\n"},
		"to the microsecond":     {ecKey(t), "clock_precision_digits = 6\n"},
		"with the chain's names": {ecKey(t), "ess_cert_id_chain = yes\n"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t, x.key, usage(t, true, stamping()))
			a.settings = x.settings
			begun := time.Now().Truncate(time.Second)
			token, err := a.stamp(data)
			if err != nil {
				t.Fatal(err)
			}
			at, err := VerifyStamp(token, data, pool(a.root))
			if err != nil || at.Before(begun) || at.After(time.Now()) || at.Location() != time.UTC {
				t.Errorf("%v %v", at, err)
			}
			if at, err = VerifyStamp(token, data, pool(other, a.root)); err != nil || at.IsZero() {
				t.Error(err)
			}
			if out, err := a.openssl(token, data, a.root); err != nil || !strings.Contains(out, "Verification: OK") {
				t.Errorf("openssl: %s", out)
			}
			// Both refuse other bytes and other roots.
			refused(t, token, append(data, 'x'), pool(a.root), "about other bytes")
			refused(t, token, data, pool(other), "not an authority that is believed")
			refused(t, token, data, x509.NewCertPool(), "not an authority that is believed")
			refused(t, token, data, nil, "no authority is believed")
			if out, err := a.openssl(token, append(data, 'x'), a.root); err == nil {
				t.Errorf("openssl: %s", out)
			}
			if out, err := a.openssl(token, data, other); err == nil {
				t.Errorf("openssl: %s", out)
			}
		})
	}
}

// The authority's own certificate may stand below another that it sends along.
func TestStampThroughAnIntermediate(t *testing.T) {
	a := newAuthority(t, ecKey(t), usage(t, true, stamping()))
	between := issue(t, a.root, ecKey(t), func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = "Test intermediate", true, x509.KeyUsageCertSign
	})
	a.signer = issue(t, between, ecKey(t), usage(t, true, stamping()))
	token, err := a.stamp([]byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, token, []byte("data"), pool(a.root), "not an authority that is believed")
	a.chain = []*certificate{between}
	if token, err = a.stamp([]byte("data")); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyStamp(token, []byte("data"), pool(a.root)); err != nil {
		t.Error(err)
	}
	if out, err := a.openssl(token, []byte("data"), a.root); err != nil {
		t.Errorf("openssl: %s", out)
	}
}

func TestStampRefusesAnswers(t *testing.T) {
	data := []byte("data")
	write := func(w http.ResponseWriter, b []byte) {
		_, _ = w.Write(b) // the client may have gone
	}
	var old []byte
	for _, x := range []struct {
		name   string
		before func(*timestamp.Request)
		after  func(w http.ResponseWriter, answer []byte)
		what   string
	}{
		{"another nonce", func(q *timestamp.Request) { q.Nonce.Add(q.Nonce, big.NewInt(1)) }, nil, "the nonce is not the one that was sent"},
		{"no nonce", func(q *timestamp.Request) { q.Nonce = nil }, nil, "the nonce is not the one that was sent"},
		{"an old answer, kept", nil, func(w http.ResponseWriter, answer []byte) { old = answer; write(w, answer) }, ""},
		{"an old answer, again", nil, func(w http.ResponseWriter, _ []byte) { write(w, old) }, "the nonce is not the one that was sent"},
		{"another imprint", func(q *timestamp.Request) { q.HashedMessage[0] ^= 1 }, nil, "about other bytes"},
		{"another digest", func(q *timestamp.Request) {
			q.HashAlgorithm, q.HashedMessage = crypto.SHA512, make([]byte, 64)
		}, nil, "not SHA-256"},
		{"no certificate", func(q *timestamp.Request) { q.Certificates = false }, nil, "the certificate of its signer is not with it"},
		{"a policy it has not", func(q *timestamp.Request) { q.TSAPolicyOID = asn1.ObjectIdentifier{1, 2, 9} }, nil, "the requested TSA policy is not supported"},
		{"an error", nil, func(w http.ResponseWriter, _ []byte) { http.Error(w, "no", http.StatusServiceUnavailable) }, "answered 503"},
		{"a page", nil, func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Content-Type", "text/html")
			write(w, []byte("<p>"))
		}, `answered with "text/html"`},
		{"nothing", nil, func(http.ResponseWriter, []byte) {}, "this is no response of an authority"},
		{"half", nil, func(w http.ResponseWriter, answer []byte) { write(w, answer[:len(answer)/2]) }, "this is no response of an authority"},
		{"more", nil, func(w http.ResponseWriter, answer []byte) { write(w, append(answer, 0)) }, "1 bytes follow the response"},
		{"much", nil, func(w http.ResponseWriter, answer []byte) { write(w, append(answer, make([]byte, maxToken)...)) }, "more than 65536 bytes"},
		{"torn", nil, func(w http.ResponseWriter, answer []byte) {
			w.Header().Set("Content-Length", "9999")
			write(w, answer)
		}, "did not answer to the end"},
		{"a wrong signature", nil, func(w http.ResponseWriter, answer []byte) { answer[len(answer)-1] ^= 1; write(w, answer) }, "gave a token that is none"},
		{"rejection with a token", nil, func(w http.ResponseWriter, answer []byte) {
			// PKIStatusInfo is the first thing in it: 30 03 02 01 00.
			at := bytes.Index(answer, []byte{0x30, 3, 2, 1, 0})
			answer[at+4] = byte(timestamp.Rejection)
			write(w, answer)
		}, "the request is rejected"},
		{"a negative status", nil, func(w http.ResponseWriter, answer []byte) {
			at := bytes.Index(answer, []byte{0x30, 3, 2, 1, 0})
			answer[at+4] = 0xff
			write(w, answer)
		}, "unknown status: -1"},
		{"granted without a token", nil, func(w http.ResponseWriter, _ []byte) { write(w, []byte{0x30, 5, 0x30, 3, 2, 1, 0}) }, "there is no token"},
	} {
		a := newAuthority(t, ecKey(t), usage(t, true, stamping()))
		a.before, a.after = x.before, x.after
		token, err := a.stamp(data)
		if x.what == "" {
			if err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
			continue
		}
		var e *AuthorityError
		if !errors.As(err, &e) || token != nil || !strings.Contains(err.Error(), x.what) || e.Hint() == "" || !strings.HasPrefix(e.Host, "127.0.0.1:") {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// With modifications a token is one too, if it says what was asked.
func TestStampWithModifications(t *testing.T) {
	a := newAuthority(t, ecKey(t), usage(t, true, stamping()))
	a.after = func(w http.ResponseWriter, answer []byte) {
		answer[bytes.Index(answer, []byte{0x30, 3, 2, 1, 0})+4] = byte(timestamp.GrantedWithMods)
		if _, err := w.Write(answer); err != nil {
			t.Error(err)
		}
	}
	if _, err := a.stamp([]byte("data")); err != nil {
		t.Error(err)
	}
}

func TestStampCannotAsk(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	address := strings.Replace(s.URL, "http://", "http://ann:swordfish@", 1)
	for _, x := range []string{address + "/?key=swordfish", "tsa.example.com", "ftp://swordfish@tsa.example.com/", "http://[swordfish"} {
		var e *AuthorityError
		if _, err := Stamp(t.Context(), http.DefaultClient, x, nil); !errors.As(err, &e) || strings.Contains(err.Error(), "swordfish") || e.Hint() == "" {
			t.Errorf("%s: %v", x, err)
		}
	}
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer slow.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Stamp(ctx, slow.Client(), slow.URL, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
