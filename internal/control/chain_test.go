package control

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"trysail/internal/api"
)

// longChain is what a stranger may send for a certificate: a leaf whose issuer any of a hundred
// others may be, each of a key that takes as long as a key may.
func longChain(t *testing.T) [][]byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := func(subject string, n int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: subject}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			IsCA: subject == "i", BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
	}
	// forge is a certificate of a key that nobody has, with a signature that nobody made.
	forge := func(tmpl *x509.Certificate, pub any, size int) []byte {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, template("i", 1), pub, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		sig := make([]byte, size)
		sig[size-1] = 2
		bits, err := asn1.Marshal(asn1.BitString{Bytes: sig, BitLength: 8 * size})
		if err != nil {
			t.Fatal(err)
		}
		algorithm := []byte{0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00}
		whole, err := asn1.Marshal(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: append(append(bytes.Clone(c.RawTBSCertificate), algorithm...), bits...)})
		if err != nil {
			t.Fatal(err)
		}
		return whole
	}
	chain := [][]byte{forge(template("leaf", 2), &key.PublicKey, 1024)}
	for i := range 99 {
		b := make([]byte, 1024)
		rand.Read(b)
		b[0] |= 0x80
		b[1023] |= 1
		chain = append(chain, forge(template("i", int64(10+i)), &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 1<<31 - 1}, 256))
	}
	return chain
}

// loopback is a connection, whose ends last for some seconds.
func loopback(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err == nil {
		server, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{client, server} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	return client, server
}

// TestAttackCertificateOfManyIssuers: a stranger shows a certificate whose issuer any of a
// hundred others may be. Control looks at one signature, and not at a hundred long ones.
func TestAttackCertificateOfManyIssuers(t *testing.T) {
	id, err := OpenIdentity(t.TempDir(), []string{"127.0.0.1"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	shown := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: longChain(t), PrivateKey: key}, nil
	}}
	a, b := loopback(t)
	began := make(chan time.Time, 1)
	inner := shown.GetClientCertificate
	shown.GetClientCertificate = func(q *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := inner(q)
		began <- time.Now()
		return c, err
	}
	go func() { _ = tls.Client(a, shown).Handshake(); a.Close() }()
	server := tls.Server(b, id.TLS())
	err = server.Handshake()
	if took := time.Since(<-began); err == nil || took > 2*time.Second {
		t.Errorf("a handshake takes control %s: %v", took, err)
	}
}

// TestAttackForgedCertificate: a peer shows a certificate with a machine's name that the
// fleet's authority did not sign, or does not vouch for any more, also to go on with a
// session that was good. No handshake comes to its end.
func TestAttackForgedCertificate(t *testing.T) {
	at := noon()
	id, err := OpenIdentity(t.TempDir(), []string{"127.0.0.1"}, at.time)
	if err != nil {
		t.Fatal(err)
	}
	other := authorityIn(t, t.TempDir(), at.now)
	key := ecKey(t)
	signed := func(a *authority) []byte {
		cert, _, err := a.sign(request(t, x509.CertificateRequest{}, key), "a", at.now)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(cert)
		return block.Bytes
	}
	own := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a", OrganizationalUnit: []string{"machine"}}, NotBefore: at.now, NotAfter: at.now.Add(time.Hour)}
	self, err := x509.CreateCertificate(rand.Reader, own, own, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	server := id.TLS()
	sessions := tls.NewLRUClientSessionCache(1)
	shake := func(chain ...[]byte) (resumed bool, err error) {
		a, b := loopback(t)
		client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, ServerName: "control", ClientSessionCache: sessions, Time: at.time, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: chain, PrivateKey: key}, nil // whatever the server asks for
		}})
		done := make(chan struct{})
		defer func() { <-done }()
		go func() {
			defer close(done)
			if client.Handshake() == nil {
				_, _ = client.Read(make([]byte, 1)) // the session comes with it
			}
		}()
		s := tls.Server(b, server)
		if err := s.Handshake(); err != nil {
			b.Close()
			return false, err
		}
		_, err = s.Write([]byte("x"))
		return s.ConnectionState().DidResume, err
	}
	good := signed(id.authority)
	for name, chain := range map[string][][]byte{"its own": {self}, "another fleet's": {signed(other)}, "another fleet's, with its authority": {signed(other), other.cert.Raw}, "the machine's, beside its own": {self, good, id.authority.cert.Raw}} {
		if _, err := shake(chain...); err == nil {
			t.Errorf("who shows %s is let in", name)
		}
	}
	if _, err := shake(good); err != nil {
		t.Fatal(err)
	}
	if resumed, err := shake(good); err != nil || !resumed {
		t.Errorf("the session does not go on (%t): %v", resumed, err)
	}
	at.now = at.now.AddDate(0, 0, api.CertificateDays+1)
	if _, err := shake(good); err == nil {
		t.Error("who shows a certificate that has ended is let in")
	}
}
