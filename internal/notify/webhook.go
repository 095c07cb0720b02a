package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"trysail/release"
)

// webhook is a target that is told over HTTP.
type webhook struct {
	url   *url.URL
	kinds []release.NoticeKind // empty: all
	key   []byte               // nil: not signed
	http  *http.Client
}

func newWebhook(u *url.URL, kinds []release.NoticeKind, key []byte, roots *x509.CertPool) *webhook {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
	// What is meant for one address, signed or not, does not go to another.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &webhook{u, kinds, key, &http.Client{Transport: t, CheckRedirect: stay}}
}

// Name tells webhooks of one host apart without giving their addresses away.
func (w *webhook) Name() string {
	sum := sha256.Sum256([]byte(w.url.String()))
	return "webhook " + w.url.Host + " " + hex.EncodeToString(sum[:4])
}

func (w *webhook) Wants(n release.Notice) bool {
	return len(w.kinds) == 0 || slices.Contains(w.kinds, n.Kind)
}

func (w *webhook) Send(ctx context.Context, m Message) error {
	body, err := m.JSON()
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	r.Header.Set("User-Agent", "trysail")
	sign(r.Header, m.key(), time.Now(), body, w.key)
	a, err := w.http.Do(r)
	if err != nil {
		var with *url.Error
		if errors.As(err, &with) {
			err = with.Err // without the address
		}
		return err
	}
	defer a.Body.Close()
	// Read a little, so that the connection can be used again.
	if _, err := io.CopyN(io.Discard, a.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) && a.StatusCode/100 != 2 {
		return err
	}
	switch {
	case a.StatusCode/100 == 2:
		return nil
	case a.StatusCode/100 == 5, a.StatusCode == http.StatusTooManyRequests, a.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("it answered %d", a.StatusCode)
	}
	return &RefusedError{fmt.Sprintf("it answered %d", a.StatusCode)}
}

// sign puts the headers of Standard Webhooks there; without a key, all but the
// signature.
func sign(h http.Header, id string, at time.Time, body, key []byte) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	if key == nil {
		return
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
