package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
)

// served is a control that runs as a process of its own.
type served struct {
	t    *testing.T
	cmd  *exec.Cmd
	link api.Link
	at   string // its API
	peer string // its etcd, for other controls
}

// serveAlone starts trysail serve on ports of this machine's loopback.
func serveAlone(t *testing.T) *served {
	t.Helper()
	var free [2]string
	for i := range free {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		free[i] = l.Addr().String()
		l.Close()
	}
	s := &served{t: t, at: free[0], peer: free[1]}
	state := t.TempDir()
	s.cmd = exec.Command(filepath.Join(buildBinary(t), "trysail"), "--state", state, "--depot", filepath.Join(state, "depot"), "serve", "--listen", s.at, "--peer", s.peer)
	var out bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &out, &out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has no more to do
		_ = s.cmd.Wait()
		if t.Failed() {
			t.Logf("control said: %.4000s", out.String())
		}
	})
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if data, err := os.ReadFile(filepath.Join(state, "control", "link")); err == nil {
			if s.link, err = api.ParseLink(string(data)); err != nil {
				t.Fatal(err)
			}
			return s
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("control does not begin: %s", out.String())
		}
	}
}

// resident is the process's memory in bytes.
func (s *served) resident() int64 {
	s.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n << 10
		}
	}
	s.t.Fatal("no VmRSS")
	return 0
}

// machine enrols one, and gives a client that shows its certificate.
func (s *served) machine(name string) (client *api.Client, h *http.Client) {
	s.t.Helper()
	root := api.NewClient(s.link.Addresses(), s.link.Secret, api.TrustFingerprint(s.link.Fingerprint, time.Now))
	var token api.TokenMade
	if err := root.Do(s.t.Context(), http.MethodPost, "/tokens", api.Token{Join: true}, &token); err != nil {
		s.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		s.t.Fatal(err)
	}
	joins := api.NewClient(s.link.Addresses(), token.Secret, api.TrustFingerprint(s.link.Fingerprint, time.Now))
	var answer api.Enrolled
	if err := joins.Do(s.t.Context(), http.MethodPost, "/enrol", api.Enrol{Token: token.Secret, Name: name, Rank: fleet.Primary, Plain: true, Slots: 1, Request: request}, &answer); err != nil {
		s.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(answer.Certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		s.t.Fatal(err)
	}
	h, err = api.TrustAuthority(answer.Authority, func() (*tls.Certificate, error) { return &cert, nil }, time.Now)
	if err != nil {
		s.t.Fatal(err)
	}
	return api.NewClient(s.link.Addresses(), "", h), h
}

// longestSilence reports each second as an agent does, until ctx ends, and says for how
// long no report was answered: an agent ends its steps after [fleet.FenceAfter].
func longestSilence(ctx context.Context, c *api.Client) (longest time.Duration, last error) {
	heard := time.Now()
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, fleet.Beat)
		var answer api.BeatAnswer
		sent := time.Now()
		err := c.Do(within, http.MethodPost, "/beat", api.Beat{Holding: []api.Holding{}}, &answer)
		cancel()
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			longest, heard = max(longest, time.Since(heard)), sent
		} else {
			last = err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(sent.Add(fleet.Beat))):
		}
	}
	return max(longest, time.Since(heard)), last
}

// hello is what a client of TLS says first.
func hello() []byte {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		_ = tls.Client(far, &tls.Config{InsecureSkipVerify: true}).Handshake() // nobody answers
	}()
	b := make([]byte, 4<<10)
	n, _ := near.Read(b)
	return b[:n]
}

// flood opens connections and goes on with none of them. Kinds says how each begins.
func flood(t *testing.T, at string, n int, kinds []func(net.Conn) error) (opened int, end func()) {
	var mu sync.Mutex
	var all []net.Conn
	var wg sync.WaitGroup
	next := make(chan int)
	for range 200 {
		wg.Go(func() {
			for i := range next {
				// Some come from where the agents are, others from elsewhere.
				d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(i%5), 1)}}
				c, err := d.Dial("tcp", at)
				if err != nil {
					continue
				}
				mu.Lock()
				all = append(all, c)
				mu.Unlock()
				_ = c.SetDeadline(time.Now().Add(2 * time.Second))
				_ = kinds[i%len(kinds)](c) // whatever control thinks of it
				_ = c.SetDeadline(time.Time{})
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return len(all), func() {
		for _, c := range all {
			c.Close()
		}
	}
}

// overTLS sends something through TLS, and neither reads nor ends.
func overTLS(text string) func(net.Conn) error {
	return func(c net.Conn) error {
		x := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
		if err := x.Handshake(); err != nil {
			return err
		}
		_, err := io.WriteString(x, text)
		return err
	}
}

// TestAttackStrangersFloodControl is a peer without credentials that opens 10,000
// connections and goes on with none: it costs control little memory, and every agent's
// lease is renewed in time, on the connection that it has and on new ones.
func TestAttackStrangersFloodControl(t *testing.T) {
	first := hello()
	half := strings.Repeat(`{"name":"`+strings.Repeat("a", 1000), 100)
	for _, x := range []struct {
		name  string
		peer  bool
		kinds []func(net.Conn) error
	}{
		{"silent", false, []func(net.Conn) error{func(net.Conn) error { return nil }}},
		{"TLS begun", false, []func(net.Conn) error{
			func(c net.Conn) error { _, err := c.Write(first); return err },
			func(c net.Conn) error { _, err := c.Write(first[:20]); return err },
			overTLS(""),
		}},
		{"requests begun", false, []func(net.Conn) error{
			overTLS("GET /v1/releases HTTP/1.1\r\nHost: control\r\nX-A: " + strings.Repeat("a", 8<<10)),
			overTLS("POST /v1/enrol HTTP/1.1\r\nHost: control\r\nContent-Length: 8000000\r\n\r\n" + half),
			overTLS("POST /v1/controls HTTP/1.1\r\nHost: control\r\nContent-Length: 8000000\r\n\r\n" + half),
			overTLS("POST /v1/enrol HTTP/1.1\r\nHost: control\r\nAuthorization: Bearer no\r\nContent-Length: 8000000\r\n\r\n" + half),
			overTLS("PUT /v1/blobs/sha256:0 HTTP/1.1\r\nHost: control\r\nAuthorization: Bearer no\r\nContent-Length: 8000000\r\n\r\n" + half),
		}},
		{"the ledger's port", true, []func(net.Conn) error{
			func(net.Conn) error { return nil },
			func(c net.Conn) error { _, err := c.Write(first); return err },
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := serveAlone(t)
			kept, _ := s.machine("kept")
			anew, h := s.machine("anew")
			often := h.Transport.(*http.Transport)
			often.DisableKeepAlives = true
			// An agent that connects anew is told from strangers by its address.
			often.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, 1)}}).DialContext
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			for _, c := range []*api.Client{kept, anew} {
				wg.Go(func() {
					if silent, err := longestSilence(ctx, c); silent > fleet.FenceAfter {
						t.Errorf("a machine's lease was not renewed for %s: %v", silent, err)
					}
				})
			}
			time.Sleep(3 * time.Second) // it runs evenly
			before := s.resident()
			most := before
			wg.Go(func() {
				for ctx.Err() == nil {
					most = max(most, s.resident())
					time.Sleep(100 * time.Millisecond)
				}
			})
			to := s.at
			if x.peer {
				to = s.peer
			}
			begin := time.Now()
			opened, end := flood(t, to, 10_000, x.kinds)
			took := time.Since(begin)
			time.Sleep(5 * time.Second)
			stop()
			wg.Wait()
			end()
			t.Logf("%d connections in %s: %d MB, %d MB more than before", opened, took.Round(time.Millisecond), most>>20, (most-before)>>20)
			if cost := most - before; cost > 50<<20 {
				t.Errorf("%d connections cost %d MB", opened, cost>>20)
			}
		})
	}
}
