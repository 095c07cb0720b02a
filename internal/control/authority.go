package control

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"trysail/internal/api"
	"trysail/internal/ledger"
	"trysail/internal/limit"
)

// authority gives every machine of the fleet its certificate, and control its
// own. Its key is a file that only its owner reads.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

const authorityYears = 20

func openAuthority(dir string, now time.Time) (*authority, error) {
	certFile, keyFile := filepath.Join(dir, "authority.pem"), filepath.Join(dir, "authority.key")
	certPEM, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(certFile, keyFile, now)
	}
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an ECDSA key", keyFile)
	}
	return &authority{pair.Leaf, key, certPEM}, nil
}

func newAuthority(certFile, keyFile string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Trysail fleet " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := renameio.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(certFile, certPEM, 0o600); err != nil {
		return nil, err
	}
	return &authority{cert, key, certPEM}, nil
}

func serialNumber() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] |= 0x40
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b), nil
}

// fingerprint is what a join token carries, so that an agent trusts this
// authority and no other from the first byte.
func (a *authority) fingerprint() string {
	sum := sha256.Sum256(a.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// maxRequest is the most bytes of a certificate request; that of an agent has some 200.
const maxRequest = 4 << 10

// sign answers a machine's certificate request, and gives a digest of its key. The
// name is control's decision, whatever the request says.
func (a *authority) sign(request []byte, name string, now time.Time) (cert []byte, key string, err error) {
	// The time that a signature of a key of RSA takes grows with the square of its size.
	if len(request) > maxRequest {
		return nil, "", fmt.Errorf("the certificate request has %d bytes, and the limit is %d", len(request), maxRequest)
	}
	q, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	if err := q.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, "", err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{"machine"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, api.CertificateDays),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, q.PublicKey, a.key)
	if err != nil {
		return nil, "", err
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, "", err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyDigest(made), nil
}

// keyDigest names the key that a certificate is of.
func keyDigest(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// controlUnit and controlName are in the certificates of controls, and in no
// machine's: a machine's name has no space.
const (
	controlUnit = "control"
	controlName = "trysail control"
)

// server makes control's own certificate for the addresses that it is reached by.
// Controls also show it to each other. It holds by the kernel's clock too, whatever
// control's own says: between controls etcd speaks TLS, and knows that one only.
func (a *authority) server(names []string, now time.Time) (*tls.Certificate, error) {
	from := now
	if real := time.Now(); real.Before(now) {
		from = real
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: controlName, OrganizationalUnit: []string{controlUnit}},
		NotBefore: from.Add(-time.Hour), NotAfter: now.AddDate(0, 0, api.CertificateDays),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, err
}

// Identity is the authority of a fleet, which each of its controls holds, and
// this control's certificate, which is made anew in time.
type Identity struct {
	dir       string
	authority *authority
	names     []string
	client    *http.Client // to other controls
	now       func() time.Time

	mu   sync.Mutex
	cert *tls.Certificate
	peer bool // etcd reads it from files, with each connection
}

// OpenIdentity reads the authority in control's directory, or makes one, and
// makes a certificate for the names and addresses that this control is reached by.
func OpenIdentity(dir string, names []string, now func() time.Time) (*Identity, error) {
	begun := now()
	if real := time.Now(); real.Before(begun) {
		begun = real // as in server
	}
	a, err := openAuthority(dir, begun)
	if err != nil {
		return nil, err
	}
	i := &Identity{dir: dir, authority: a, names: names, now: now}
	if _, err := i.current(); err != nil {
		return nil, err
	}
	i.client, err = api.TrustAuthority(a.pem, i.current, now)
	return i, err
}

// current gives control's certificate: control may run for longer than one lasts.
func (i *Identity) current() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert != nil && !api.EndsSoon(i.cert.Leaf, i.now()) {
		return i.cert, nil
	}
	cert, err := i.authority.server(i.names, i.now())
	if err == nil && i.peer {
		err = i.writePeer(cert)
	}
	if err != nil {
		if i.cert != nil && i.now().Before(i.cert.Leaf.NotAfter) {
			return i.cert, nil // it is good yet, and Tend says what is wrong
		}
		return nil, err
	}
	i.cert = cert
	return cert, nil
}

// tending is how often control looks whether its certificate ends soon. Months are
// left when it does.
const tending = time.Hour

// RenewCertificate ends when ctx does. It renews control's certificate, also where nobody connects.
func (i *Identity) RenewCertificate(ctx context.Context, log *slog.Logger) error {
	t := time.NewTicker(tending)
	defer t.Stop()
	for {
		cert, err := i.current()
		if err == nil && api.EndsSoon(cert.Leaf, i.now()) {
			err = errors.New("it cannot be written")
		}
		if err != nil {
			log.Warn("control's certificate is not renewed", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// AdoptAuthority keeps another control's authority, of whose fleet this one is to be.
func AdoptAuthority(dir string, certPEM, keyPEM []byte) error {
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return fmt.Errorf("the authority of the fleet: %w", err)
	}
	certFile, keyFile := filepath.Join(dir, "authority.pem"), filepath.Join(dir, "authority.key")
	if old, err := os.ReadFile(certFile); err == nil && !bytes.Equal(old, certPEM) {
		return &OwnFleetError{dir}
	}
	if err := renameio.WriteFile(keyFile, keyPEM, 0o600); err != nil {
		return err
	}
	return renameio.WriteFile(certFile, certPEM, 0o600)
}

// OwnFleetError says that this control has a fleet of its own.
type OwnFleetError struct{ Dir string }

func (e *OwnFleetError) Error() string { return "this machine is control of another fleet already" }

// Hint says what to do.
func (e *OwnFleetError) Hint() string { return "give another --state, or move " + e.Dir + " away" }

// Fingerprint of the authority, in hex.
func (i *Identity) Fingerprint() string { return i.authority.fingerprint() }

// TLS is how control's listener speaks: machines and other controls show a
// certificate of its authority, people a token.
func (i *Identity) TLS() *tls.Config {
	return limit.Certificates(&tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.current() },
		ClientAuth:     tls.VerifyClientCertIfGiven, ClientCAs: i.pool(), MinVersion: tls.VersionTLS13, Time: i.now,
	}, nil)
}

func (i *Identity) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(i.authority.cert)
	return pool
}

// Peer gives the files with which this control's etcd speaks to that of others.
func (i *Identity) Peer(name, address, cluster string) (*ledger.Peer, error) {
	p := &ledger.Peer{
		Name: name, Address: address, Cluster: cluster, CommonName: controlName,
		Cert: filepath.Join(i.dir, "peer.pem"), Key: filepath.Join(i.dir, "peer.key"), Authority: filepath.Join(i.dir, "authority.pem"),
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.peer = true
	return p, i.writePeer(i.cert)
}

// writePeer writes what etcd shows to other controls. The lock is held.
func (i *Identity) writePeer(cert *tls.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(i.dir, "peer.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(i.dir, "peer.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600)
}

// keyPEM is the authority's key, for a control that joins.
func (a *authority) keyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
