package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Client speaks to control.
type Client struct {
	URL   string // https://host:port
	Token string // of a person or script; "" for an agent
	HTTP  *http.Client
}

// UnreachableError says that control does not answer.
type UnreachableError struct {
	URL string
	Err error
}

func (e *UnreachableError) Error() string {
	return "control at " + e.URL + " does not answer: " + e.Err.Error()
}

// Hint says what to type.
func (e *UnreachableError) Hint() string {
	return "is it running? trysail serve starts it; --control names another address"
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// TrustAuthority makes a client that trusts one authority, with a machine's
// certificate or none.
func TrustAuthority(authority []byte, cert *tls.Certificate) (*http.Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("the authority's certificate is not readable")
	}
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return &http.Client{Transport: transport(c)}, nil
}

// TrustFingerprint makes a client that trusts the authority whose certificate
// has a digest: all that a machine knows before it joined.
func TrustFingerprint(fingerprint string) *http.Client {
	c := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // the connection is verified below, against the fingerprint
	c.VerifyConnection = func(s tls.ConnectionState) error {
		for _, root := range s.PeerCertificates {
			sum := sha256.Sum256(root.Raw)
			if hex.EncodeToString(sum[:]) != fingerprint {
				continue
			}
			pool := x509.NewCertPool()
			pool.AddCert(root)
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: s.ServerName})
			return err
		}
		return errors.New("control shows another authority than the join token names: this is not the control that made it")
	}
	return &http.Client{Transport: transport(c)}
}

func transport(c *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: c, TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: 8,
	}
}

// Do sends a request and reads the answer into out, which may be nil.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	res, err := c.Open(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return &UnreachableError{c.URL, fmt.Errorf("the answer is cut short: %w", err)}
	}
	return nil
}

// Open sends a request whose answer the caller reads and closes. An answer that
// is no success is a [Problem].
func (c *Client) Open(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.URL+Version+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		r.Header[k] = v
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	res, err := c.HTTP.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, &UnreachableError{c.URL, err}
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	p := &Problem{Status: res.StatusCode}
	data, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if json.Unmarshal(data, p) != nil || p.Message == "" {
		p.Message = res.Status
	}
	return nil, p
}

// GetBlob fetches a blob; whoever stores it checks its digest.
func (c *Client) GetBlob(ctx context.Context, digest string) (io.ReadCloser, error) {
	res, err := c.Open(ctx, http.MethodGet, "/blobs/"+digest, nil, nil)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// HasBlob asks whether control's depot has a blob.
func (c *Client) HasBlob(ctx context.Context, digest string) (bool, error) {
	res, err := c.Open(ctx, http.MethodHead, "/blobs/"+digest, nil, nil)
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, res.Body.Close()
}

// PutBlob stores a blob under its digest, which control checks.
func (c *Client) PutBlob(ctx context.Context, digest string, r io.Reader) error {
	res, err := c.Open(ctx, http.MethodPut, "/blobs/"+digest, r, http.Header{"Content-Type": {"application/octet-stream"}})
	if err != nil {
		return err
	}
	return res.Body.Close()
}
