package cli

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"trysail/internal/api"
	"trysail/internal/tree"
)

// certificate is a machine's own: of the key that it made when it joined, which never
// leaves its disk.
type certificate struct {
	dir  string
	now  func() time.Time
	cert atomic.Pointer[tls.Certificate]
}

// openCertificate reads it. One that has ended is shown all the same: it may be this
// machine's clock that is wrong, and control decides.
func openCertificate(dir string, now func() time.Time, log *slog.Logger) (*certificate, error) {
	k := &certificate{dir: dir, now: now}
	if err := k.read(); err != nil {
		return nil, err
	}
	if end := k.cert.Load().Leaf.NotAfter; now().After(end) {
		log.Warn("this machine's certificate has ended by its clock. If the clock is right, join again: on control trysail fleet token, here trysail agent --join LINK", "ended", end)
	}
	return k, nil
}

func (k *certificate) read() error {
	cert, err := tls.LoadX509KeyPair(filepath.Join(k.dir, "cert.pem"), filepath.Join(k.dir, "key.pem"))
	if err != nil {
		return fmt.Errorf("this machine's certificate: %w", err)
	}
	k.cert.Store(&cert)
	return nil
}

func (k *certificate) current() (*tls.Certificate, error) { return k.cert.Load(), nil }

// renew asks control for another, if this one ends soon. The key stays, so that
// whatever happens meanwhile there is a certificate of it.
func (k *certificate) renew(ctx context.Context, c *api.Client) error {
	now := k.cert.Load()
	if !api.EndsSoon(now.Leaf, k.now()) {
		return nil
	}
	key, ok := now.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%s: not a key that signs", filepath.Join(k.dir, "key.pem"))
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	var answer api.Enrolled
	if err := c.Do(ctx, http.MethodPost, "/renew", api.Renew{Request: request}, &answer); err != nil {
		return err
	}
	own, err := tree.ReadFile(filepath.Join(k.dir, "key.pem"), maxDocument)
	if err != nil {
		return err
	}
	made, err := tls.X509KeyPair(answer.Certificate, own)
	if err != nil {
		return fmt.Errorf("what control answers is no certificate of this machine's key: %w", err)
	}
	if !made.Leaf.NotAfter.After(now.Leaf.NotAfter) {
		return fmt.Errorf("control gives a certificate until %s, and this machine has one until %s: is control's clock right?", made.Leaf.NotAfter.Format(time.DateOnly), now.Leaf.NotAfter.Format(time.DateOnly))
	}
	if err := tree.WriteFile(filepath.Join(k.dir, "cert.pem"), answer.Certificate, 0o600); err != nil {
		return err
	}
	return k.read()
}
