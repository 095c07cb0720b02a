package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"trysail/release"
)

// Client speaks to control. Of several controls one decides: the client finds it
// among those it knows, and learns of others from their answers. It is safe for
// concurrent use.
type Client struct {
	token string // of a person or script; "" for an agent
	http  *http.Client

	mu        sync.Mutex
	addresses []string // host:port of every control that it knows; the first is asked
}

// NewClient makes a client of the controls at some addresses (host:port).
func NewClient(addresses []string, token string, h *http.Client) *Client {
	return &Client{token: token, http: h, addresses: slices.Clone(addresses)}
}

// Address is that of the control that is asked next.
func (c *Client) Address() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addresses[0]
}

// Addresses are those of all controls that it knows, the one asked next first.
func (c *Client) Addresses() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.addresses)
}

// Learn says which controls there are, and tells whether that is new. The one that
// is asked stays the first, also if it is reached by another name than its own.
func (c *Client) Learn(addresses []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, first := c.addresses, c.addresses[0]
	c.addresses = append([]string{first}, slices.DeleteFunc(slices.Clone(addresses), func(a string) bool { return a == first })...)
	return !slices.Equal(old, c.addresses)
}

// pass goes on to another control, after one at an address did not answer, or
// said who decides instead.
func (c *Client) pass(from, leader string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.addresses[0] != from {
		return // somebody has gone on already
	}
	if leader != "" {
		c.addresses = append([]string{leader}, slices.DeleteFunc(c.addresses, func(a string) bool { return a == leader })...)
		return
	}
	c.addresses = append(c.addresses[1:], from)
}

// UnreachableError says that control does not answer.
type UnreachableError struct {
	Address string
	Sent    bool  // it may have done what was asked
	Err     error // a [Problem] if it answers that it does not decide ([Standby]), or has not been asked ([Slow], [Busy])
}

func (e *UnreachableError) Error() string {
	return "control at " + e.Address + " does not answer: " + e.Err.Error()
}

// Hint says what to type.
func (e *UnreachableError) Hint() string {
	if e.Sent {
		return "it may have done what was asked: look first, then ask again"
	}
	return "is it running? trysail serve starts it; --control gives another link"
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// TrustAuthority makes a client that trusts one authority, with a machine's
// certificate or none, by the clock that says now.
func TrustAuthority(authority []byte, cert func() (*tls.Certificate, error), now func() time.Time) (*http.Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("the authority's certificate is not readable")
	}
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, Time: now}
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert() }
	}
	return pinned(c), nil
}

// EndsSoon tells whether a certificate is to be renewed: less than a third is left of
// the time that the authority gives one. A machine that was off for the rest of it
// joins again.
func EndsSoon(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < CertificateDays*24*time.Hour/3
}

// CertificateDays is for how long the authority certifies a machine.
const CertificateDays = 400

// TrustFingerprint makes a client that trusts the authority whose certificate
// has a digest: all that a machine knows before it joined.
func TrustFingerprint(fingerprint string, now func() time.Time) *http.Client {
	c := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // the connection is verified below, against the fingerprint
	c.VerifyConnection = func(s tls.ConnectionState) error {
		for _, root := range s.PeerCertificates {
			sum := sha256.Sum256(root.Raw)
			if hex.EncodeToString(sum[:]) != fingerprint {
				continue
			}
			pool := x509.NewCertPool()
			pool.AddCert(root)
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: s.ServerName, CurrentTime: now()})
			return err
		}
		return errors.New("control shows another authority than the join token names: this is not the control that made it")
	}
	return pinned(c)
}

// pinned speaks to control alone. Control sends nobody to another address: one that does
// would have its clients ask servers that only they can reach.
func pinned(c *tls.Config) *http.Client {
	return &http.Client{Transport: transport(c), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Dialer connects to control. A control whose machine is gone sends nothing, not even
// that the connection is over: whoever waits for its answer asks the kernel to look.
func Dialer() *net.Dialer {
	return &net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 3}}
}

func transport(c *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:     Dialer().DialContext,
		TLSClientConfig: c, TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: 8, WriteBufferSize: 64 << 10, // of logs and blobs: whole records of TLS
	}
}

// maxAnswer and maxLedger are the most that control may answer, in bytes: it may be on a drill's
// host, which is somebody else's. A release of a thousand steps has a few megabytes of either.
const (
	maxAnswer = 64 << 20
	maxLedger = 256 << 20
)

// Do sends a request and reads the answer into out, which may be nil.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var data []byte
	if in != nil {
		var err error
		if data, err = json.Marshal(in); err != nil {
			return err
		}
	}
	res, err := c.elsewhere(ctx, func() (*http.Response, error) {
		if in == nil {
			return c.once(ctx, method, path, nil, nil)
		}
		return c.once(ctx, method, path, bytes.NewReader(data), nil)
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
		return err
	}
	text := &io.LimitedReader{R: res.Body, N: maxAnswer}
	if err := json.NewDecoder(text).Decode(out); text.N <= 0 {
		return &Problem{Status: res.StatusCode, Message: fmt.Sprintf("control at %s answers more than %d MB", res.Request.URL.Host, maxAnswer>>20)}
	} else if err != nil {
		return &UnreachableError{res.Request.URL.Host, true, fmt.Errorf("the answer is cut short: %w", err)}
	}
	return nil
}

// Open sends a request whose answer the caller reads and closes. An answer that
// is no success is a [Problem].
func (c *Client) Open(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	if body != nil {
		return c.once(ctx, method, path, body, header) // it can be read once only
	}
	return c.elsewhere(ctx, func() (*http.Response, error) { return c.once(ctx, method, path, nil, header) })
}

// The times of an election: for how long a client asks around, and how often.
const (
	electing = 5 * time.Second
	asking   = 100 * time.Millisecond
)

// elsewhere asks, of several controls, the next where one does not answer, unless
// that one may have done already what is asked. While they elect another to decide
// it asks around.
func (c *Client) elsewhere(ctx context.Context, ask func() (*http.Response, error)) (*http.Response, error) {
	begun := time.Now()
	var said error // what one that lives said: it tells more than that another does not answer
	for n := 1; ; n++ {
		res, err := ask()
		var away *UnreachableError
		several := len(c.Addresses())
		if !errors.As(err, &away) || away.Sent || several < 2 {
			return res, err
		}
		var p *Problem
		if errors.As(err, &p) {
			said = err
		}
		if time.Since(begun) > electing {
			return nil, cmp.Or(said, err)
		}
		if n%several != 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(asking):
		}
	}
}

func (c *Client) once(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	address := c.Address()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+address+Version+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		r.Header[k] = v
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(r)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			c.pass(address, "") // whoever asked gave up by themselves else
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		var op *net.OpError
		sent := !errors.As(err, &op) || op.Op != "dial"
		return nil, &UnreachableError{address, sent && method != http.MethodGet && method != http.MethodHead, err}
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
	if p.Code == "" && res.StatusCode == http.StatusServiceUnavailable {
		p.Code = Standby // the answer to a HEAD has no words; nor has a control that is about to begin
	}
	if p.Code == Standby {
		c.pass(address, p.Leader)
		return nil, &UnreachableError{address, false, p}
	}
	if p.Code == Slow || p.Code == Busy {
		return nil, &UnreachableError{address, false, p} // as if it had never been asked
	}
	return nil, p
}

// GetBlob fetches a blob; whoever stores it checks its digest. One that is cut short is
// an [UnreachableError], as if nothing had come.
func (c *Client) GetBlob(ctx context.Context, digest string) (io.ReadCloser, error) {
	res, err := c.Open(ctx, http.MethodGet, "/blobs/"+digest, nil, nil)
	if err != nil {
		return nil, err
	}
	return &blobBody{res.Body, res.Request.URL.Host}, nil
}

type blobBody struct {
	io.ReadCloser
	address string
}

func (b *blobBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &UnreachableError{b.address, false, fmt.Errorf("the blob is cut short: %w", err)}
	}
	return n, err
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

// MissingBlobs tells which of some blobs control's depot has not. A control of before
// cannot say: then it is all of them.
func (c *Client) MissingBlobs(ctx context.Context, digests []string) ([]string, error) {
	var missing []string
	for part := range slices.Chunk(digests, MostBlobs) {
		var answer Blobs
		err := c.Do(ctx, http.MethodPost, "/blobs", Blobs{part}, &answer)
		var p *Problem
		if errors.As(err, &p) && (p.Status == http.StatusNotFound || p.Status == http.StatusMethodNotAllowed) {
			answer.Digests, err = part, nil
		}
		if err != nil {
			return nil, err
		}
		missing = append(missing, answer.Digests...)
	}
	return missing, nil
}

// Files are those that a step made, from the list in control's depot where they are many.
func (c *Client) Files(ctx context.Context, m release.Made) (list []release.Artifact, err error) {
	err = m.Each(func(digest string) (io.ReadCloser, error) { return c.GetBlob(ctx, digest) }, func(a release.Artifact) error {
		list = append(list, a)
		return nil
	})
	return list, err
}
