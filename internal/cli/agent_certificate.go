package cli

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"

	"trysail/internal/api"
)

// certificate is a machine's own: of the key that it made when it joined, which never
// leaves its disk.
type certificate struct {
	dir  string
	now  func() time.Time
	cert atomic.Pointer[tls.Certificate]
}

// expiredError says that control takes this machine for nobody any more.
type expiredError struct{ since time.Time }

func (e *expiredError) Error() string {
	return "this machine's certificate has ended " + e.since.Format(time.DateOnly) + ": it was off for too long to renew it"
}

// Hint says what to type.
func (*expiredError) Hint() string {
	return "on control: trysail fleet token; here: sudo trysail agent --join LINK"
}

func openCertificate(dir string, now func() time.Time) (*certificate, error) {
	k := &certificate{dir: dir, now: now}
	if err := k.read(); err != nil {
		return nil, err
	}
	if end := k.cert.Load().Leaf.NotAfter; now().After(end) {
		return nil, &expiredError{end}
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
	own, err := os.ReadFile(filepath.Join(k.dir, "key.pem"))
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair(answer.Certificate, own); err != nil {
		return fmt.Errorf("what control answers is no certificate of this machine's key: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(k.dir, "cert.pem"), answer.Certificate, 0o600); err != nil {
		return err
	}
	return k.read()
}
