package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/limit"
)

// pipes is a listener in memory: its connections have deadlines by the bubble's clock.
type pipes struct {
	conns chan net.Conn
	over  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.over); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// wire is one end of a connection in memory that takes what is written without waiting
// for who reads, as the kernel does: both ends of TLS say that they close.
type wire struct {
	net.Conn
	mu     sync.Mutex
	closed bool
	out    chan []byte
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c, out: make(chan []byte, 1<<12)}
	go func() {
		defer c.Close()
		for b := range w.out {
			if _, err := c.Write(b); err != nil {
				return // the other end is gone, or reads no more
			}
		}
	}()
	return w
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	w.out <- bytes.Clone(b)
	return len(b), nil
}

func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	w.closed = true
	close(w.out)
	return errors.Join(w.Conn.SetReadDeadline(time.Unix(1, 0)), w.Conn.SetWriteDeadline(time.Now().Add(time.Second)))
}

func (w *wire) SetWriteDeadline(time.Time) error { return nil }
func (w *wire) SetDeadline(t time.Time) error    { return w.SetReadDeadline(t) }

// doorway is a control behind its door, and somebody in front of it.
type doorway struct {
	c      *Control
	door   *Door
	client *http.Client
	secret string // of root
	http2  bool
	dials  int
}

// inFront runs a test against what trysail serve listens with, over TLS, in a bubble of
// time. The client shows the certificate of machine m1, or none.
func inFront(t *testing.T, http2, machine bool, test func(t *testing.T, d *doorway)) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		id, err := OpenIdentity(dir, []string{"control.example"}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		store, err := depot.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d := &doorway{door: &Door{}, secret: "root's", http2: http2}
		d.c = New(Options{Dir: dir, Depot: store, Identity: id, Log: slog.New(slog.DiscardHandler), Now: time.Now})
		root := rootToken()
		root.Hash = hash(d.secret)
		d.c.tokens, d.c.members["m1"] = []token{root}, &member{}
		d.door.open(d.c.Handler())

		l := &pipes{make(chan net.Conn), make(chan struct{})}
		srv := Server(d.door, id, slog.New(slog.DiscardHandler))
		served := make(chan error)
		go func() { served <- srv.ServeTLS(limit.Listen(l, limit.Defaults()), "", "") }()
		config := &tls.Config{RootCAs: id.pool(), ServerName: "control.example", Time: time.Now}
		if machine {
			key := ecKey(t)
			cert, _, err := id.authority.sign(request(t, x509.CertificateRequest{}, key), "m1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(cert)
			config.Certificates = []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}
		}
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2, DialContext: func(context.Context, string, string) (net.Conn, error) {
			d.dials++
			near, far := net.Pipe()
			l.conns <- newWire(far)
			return newWire(near), nil
		}}
		d.client = &http.Client{Transport: transport}
		test(t, d)
		transport.CloseIdleConnections()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		<-served
		time.Sleep(time.Minute) // until all connections have said that they close
	})
}

// ask sends the parts of a body, each some time after the one before, and ends it only if
// that is the whole. It gives the answer, and the time that it took.
func (d *doorway) ask(t *testing.T, method, path, secret string, every time.Duration, whole bool, parts ...string) (status int, answer string, took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	in, out := io.Pipe()
	defer in.Close()
	go func() {
		for i, p := range parts {
			if i > 0 {
				time.Sleep(every)
			}
			if _, err := io.WriteString(out, p); err != nil {
				return // nobody reads it any more
			}
		}
		if whole {
			out.Close()
		}
	}()
	r, err := http.NewRequestWithContext(ctx, method, "https://control.example"+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	begun := time.Now()
	res, err := d.client.Do(r)
	if err != nil {
		t.Errorf("%s %s: %v after %s", method, path, err, time.Since(begun))
		return 0, "", time.Since(begun)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	if (res.ProtoMajor == 2) != d.http2 {
		t.Errorf("%s %s: it was asked by %s", method, path, res.Proto)
	}
	return res.StatusCode, string(data), time.Since(begun)
}

// TestBodyThatNeverEnds: whoever begins a request and does not go on is done with soon,
// whatever they ask, and is not told that anything was done.
func TestBodyThatNeverEnds(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, x := range []struct {
			what, path string
			token      bool
			status     int
			code       string
		}{
			{"POST", "/v1/enrol", false, http.StatusRequestTimeout, api.Slow},
			{"POST", "/v1/controls", false, http.StatusRequestTimeout, api.Slow},
			{"POST", "/v1/releases", true, http.StatusRequestTimeout, api.Slow},
			{"POST", "/v1/tokens", false, http.StatusForbidden, "denied"},
			{"POST", "/v1/beat", false, http.StatusForbidden, "denied"},
			{"POST", "/v1/releases/1/logs/build/1", false, http.StatusForbidden, "denied"},
			{"PUT", "/v1/blobs/sha256:0", false, http.StatusForbidden, "denied"},
			{"GET", "/v1/openapi.yaml", false, http.StatusOK, ""},
			{"POST", "/nowhere", false, http.StatusForbidden, "denied"},
			{"POST", "/nowhere", true, http.StatusNotFound, ""},
		} {
			t.Run(fmt.Sprintf("%s %s http2=%v", x.what, x.path, http2), func(t *testing.T) {
				inFront(t, http2, false, func(t *testing.T, d *doorway) {
					secret := ""
					if x.token {
						secret = d.secret
					}
					status, answer, took := d.ask(t, x.what, x.path, secret, 0, false, "{")
					if status != x.status || took > bodyTime+time.Second {
						t.Errorf("%d after %s: %s", status, took, answer)
					}
					var p api.Problem
					if x.code != "" && (json.Unmarshal([]byte(answer), &p) != nil || p.Code != x.code || p.Message == "" || p.Hint == "") {
						t.Errorf("its answer is %q", answer)
					}
				})
			})
		}
	}
	t.Run("before it begins", func(t *testing.T) {
		inFront(t, false, false, func(t *testing.T, d *doorway) {
			d.door.in.Store(nil)
			if status, _, took := d.ask(t, "POST", "/v1/enrol", "", 0, false, "{"); status != http.StatusServiceUnavailable || took > bodyTime+time.Second {
				t.Errorf("%d after %s", status, took)
			}
		})
	})
}

// TestSlowUpload: a blob or a log of somebody who is known takes as long as it takes.
func TestSlowUpload(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			inFront(t, http2, true, func(t *testing.T, d *doorway) {
				logs := http.NewServeMux()
				d.c.handle(logs, route{pattern: "POST /v1/releases/{version}/logs/{item}/{epoch}", handler: func(_ context.Context, _ *caller, r *http.Request) (any, error) {
					n, err := io.Copy(io.Discard, r.Body)
					return api.LogSize{Size: n}, err
				}})
				logs.Handle("/", d.c.Handler())
				d.door.open(logs)
				parts := []string{"begun, ", "gone on, ", "ended"}
				text := strings.Join(parts, "")
				dg := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))
				if status, answer, _ := d.ask(t, "PUT", "/v1/blobs/"+dg, "", time.Minute, true, parts...); status != http.StatusCreated || !d.c.o.Depot.Has(dg) {
					t.Errorf("a blob: %d %s", status, answer)
				}
				status, answer, _ := d.ask(t, "POST", "/v1/releases/1/logs/build/1", "", time.Minute, true, parts...)
				var size api.LogSize
				if err := json.Unmarshal([]byte(answer), &size); err != nil || status != http.StatusOK || size.Size != int64(len(text)) {
					t.Errorf("a log: %d %s", status, answer)
				}
			})
		})
	}
}

// TestPollAfterBody: the bound is that of one body. It ends no answer that takes longer,
// to that request or to the next on its connection, and control still sees that whoever
// waits for one is gone.
func TestPollAfterBody(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			inFront(t, http2, true, func(t *testing.T, d *doorway) {
				ended := make(chan error, 1)
				waits := http.NewServeMux()
				d.c.handle(waits, route{pattern: "POST /waits", handler: func(ctx context.Context, _ *caller, r *http.Request) (any, error) {
					_, err := body[struct{}](r)
					if err == nil {
						select {
						case <-ctx.Done():
							err = ctx.Err()
						case <-time.After(6 * bodyTime):
						}
					}
					ended <- err
					return nil, err
				}})
				waits.Handle("/", d.c.Handler())
				d.door.open(waits)
				post := func(ctx context.Context, path, body string) (*http.Response, error) {
					r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://control.example"+path, strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					return d.client.Do(r)
				}
				end := func(what string, res *http.Response, err error, status int) {
					t.Helper()
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					data, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || res.StatusCode != status {
						t.Errorf("%s: %s %s %v", what, res.Status, data, err)
					}
				}
				res, err := post(t.Context(), "/v1/beat", `{"unheard-of":1}`)
				end("a beat", res, err, http.StatusBadRequest)
				begun := time.Now()
				res, err = d.client.Get("https://control.example/v1/work")
				end("a poll for work", res, err, http.StatusOK)
				if took := time.Since(begun); took < pollTime || took < bodyTime {
					t.Errorf("a poll for work ends after %s", took)
				}
				res, err = post(t.Context(), "/waits", `{}`)
				end("a request that is answered late", res, err, http.StatusOK)
				if err := <-ended; err != nil {
					t.Errorf("a request that is answered late: %v", err)
				}
				res, err = d.client.Get("https://control.example/v1/work")
				end("a poll after it", res, err, http.StatusOK)
				if d.dials != 1 {
					t.Errorf("that took %d connections", d.dials)
				}
				gone, cancel := context.WithTimeout(t.Context(), 2*bodyTime)
				defer cancel()
				if res, err := post(gone, "/waits", `{}`); err == nil {
					res.Body.Close()
					t.Error("who was gone is answered")
				}
				if err := <-ended; err == nil {
					t.Error("control does not see who is gone")
				}
			})
		})
	}
}
