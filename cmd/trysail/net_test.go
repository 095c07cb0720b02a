package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"

	"trysail/blueprint"
)

// internet is what a script's build reaches: real servers on an address of
// this machine that is not a loopback's, by names that only a machine which
// reads $WORK/hosts knows, signed by an authority that only one which trusts
// $WORK/ca.pem does. Every secret that they give or want has "hunter2" in it.
type internet struct {
	address netlink.Addr
	lo      netlink.Link
	closers []io.Closer
	proxied atomic.Int64
	engine  string // a container engine's socket
	dongle  string // a device
	once    sync.Once
}

const internetName = "trysail.test"

// cmdInternet starts the servers, stops them, or counts what went through the
// proxy: internet start|stop|proxied N.
func cmdInternet(ts *testscript.TestScript, _ bool, args []string) {
	const key = "internet"
	if len(args) == 0 {
		ts.Fatalf("usage: internet start|stop|proxied N")
	}
	n, _ := ts.Value(key).(*internetHolder)
	if n == nil {
		ts.Fatalf("the script's set-up made no place for an internet")
	}
	switch args[0] {
	case "start":
		up, err := startInternet(ts.Getenv("WORK"))
		ts.Check(err)
		ts.Defer(func() { up.stop() })
		n.up = up
		ts.Setenv("INTERNET", up.address.IP.String())
		ts.Setenv("ENGINE", up.engine)
		ts.Setenv("DONGLE", up.dongle)
		ts.Setenv("NO_PROXY", strings.TrimPrefix(ts.Getenv("NO_PROXY")+",."+internetName, ","))
	case "stop":
		n.up.stop()
	case "proxied":
		if len(args) != 2 || (args[1] == "0") != (n.up.proxied.Load() == 0) {
			ts.Fatalf("%d requests and tunnels went through the proxy", n.up.proxied.Load())
		}
	default:
		ts.Fatalf("unknown: internet %s", args[0])
	}
}

// internetHolder is a script's place for its internet.
type internetHolder struct{ up *internet }

func (n *internet) stop() {
	n.once.Do(func() {
		for _, c := range n.closers {
			c.Close()
		}
		os.Remove(n.dongle)
		os.RemoveAll(filepath.Dir(n.engine))
		_ = netlink.AddrDel(n.lo, &n.address) // gone already, if a test before ended badly
	})
}

func startInternet(work string) (n *internet, err error) {
	n = &internet{}
	if n.lo, err = netlink.LinkByName("lo"); err != nil {
		return nil, err
	}
	// Of the addresses for documentation (RFC 5737), one that is free.
	ip := net.IPv4(198, 51, 100, 0)
	for i := 1; ; i++ {
		ip[15] = byte(os.Getpid()+i)%250 + 1
		n.address = netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}}
		if err = netlink.AddrAdd(n.lo, &n.address); err == nil {
			break
		}
		if !errors.Is(err, syscall.EEXIST) || i == 250 {
			return nil, fmt.Errorf("add an address to lo: %w", err)
		}
	}
	defer func() {
		if err != nil {
			n.stop()
		}
	}()
	hosts := ""
	for _, h := range []string{"web", "cdn", "git", "lic", "ssh"} {
		hosts += fmt.Sprintf("%s %s.%s\n", ip, h, internetName)
	}
	n.engine, n.dongle = fmt.Sprintf("/run/trysail-test-%d/docker.sock", ip[15]), fmt.Sprintf("/dev/trysail-test-%d", ip[15])
	if err := os.MkdirAll(filepath.Dir(n.engine), 0o755); err != nil {
		return nil, err
	}
	engine, err := net.Listen("unix", n.engine)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, engine)
	go func() {
		_ = http.Serve(engine, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "docker of the host") }))
	}()
	const zero = 1<<8 | 5 // the numbers of /dev/zero, by a name that no other machine knows
	if err := syscall.Mknod(n.dongle, syscall.S_IFCHR|0o666, zero); err != nil {
		return nil, fmt.Errorf("mknod %s: %w", n.dongle, err)
	}
	ca, certificate, err := testAuthority()
	if err != nil {
		return nil, err
	}
	// The host's own authorities stay: its package mirrors may need them.
	for _, f := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"} {
		if data, err := os.ReadFile(f); err == nil {
			ca = append(append(data, '\n'), ca...)
			break
		}
	}
	for name, data := range map[string][]byte{"hosts": []byte(hosts), "ca.pem": ca} {
		if err := os.WriteFile(filepath.Join(work, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	web := webHandler(work)
	for port, serve := range map[string]func(net.Listener){
		"80":   func(l net.Listener) { _ = http.Serve(l, web) },
		"443":  func(l net.Listener) { _ = (&http.Server{Handler: web, TLSConfig: certificate}).ServeTLS(l, "", "") },
		"3128": func(l net.Listener) { _ = http.Serve(l, n.proxy(ip.String())) },
		"22":   raw(func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-trysail\r\n"); _, _ = io.Copy(io.Discard, c) }),
		"27000": raw(func(c net.Conn) {
			line, _ := bufio.NewReader(c).ReadString('\n') // an empty line gets its answer too
			fmt.Fprintf(c, "licence for %s", line)
		}),
	} {
		l, err := net.Listen("tcp", net.JoinHostPort(ip.String(), port))
		if err != nil {
			return nil, err
		}
		n.closers = append(n.closers, l)
		go serve(l)
	}
	return n, nil
}

// raw serves a protocol that is no HTTP.
func raw(f func(net.Conn)) func(net.Listener) {
	return func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(c) }()
		}
	}
}

// proxy wants a password, and knows the names of this internet by itself.
func (n *internet) proxy(ip string) http.Handler {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:hunter2-proxy"))
	here := func(address string) string {
		host, port, err := net.SplitHostPort(address)
		if err == nil && strings.HasSuffix(host, "."+internetName) {
			return net.JoinHostPort(ip, port)
		}
		return address
	}
	forward := http.DefaultTransport.(*http.Transport).Clone()
	forward.DisableCompression = true
	dial := forward.DialContext
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Proxy-Authorization") != want {
			w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
			http.Error(w, "the proxy wants a password", http.StatusProxyAuthRequired)
			return
		}
		if q.Method != http.MethodConnect {
			if strings.HasSuffix(q.URL.Hostname(), "."+internetName) {
				n.proxied.Add(1)
				q.URL.Host = here(net.JoinHostPort(q.URL.Hostname(), "80"))
			}
			q.RequestURI = ""
			q.Header.Del("Proxy-Authorization")
			res, err := forward.RoundTrip(q)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer res.Body.Close()
			for k, v := range res.Header {
				w.Header()[k] = v
			}
			w.WriteHeader(res.StatusCode)
			_, _ = io.Copy(w, res.Body) // the client may go
			return
		}
		up, err := dial(q.Context(), "tcp", here(q.Host))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		n.proxied.Add(1)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			up.Close()
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { defer up.Close(); _, _ = io.Copy(up, c) }() // a tunnel ends when it ends
		go func() { defer c.Close(); _, _ = io.Copy(c, up) }()
	})
}

// webHandler serves $WORK/srv, and what builds ask of the web.
func webHandler(work string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/file", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Set-Cookie", "id=hunter2-cookie")
		http.ServeContent(w, q, "file.bin", time.Unix(1e9, 0), bytes.NewReader(bytes.Repeat([]byte("0123456789abcdef"), 1<<12)))
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, fmt.Sprintf("https://cdn.%s/signed?file=a&X-Amz-Date=%d&X-Amz-Signature=hunter2-signature", internetName, time.Now().UnixNano()), http.StatusFound)
	})
	mux.HandleFunc("/signed", func(w http.ResponseWriter, q *http.Request) {
		if !strings.HasPrefix(q.FormValue("X-Amz-Signature"), "hunter2") {
			http.Error(w, "not signed", http.StatusForbidden)
			return
		}
		fmt.Fprintln(w, "signed", q.FormValue("file"))
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"token_type":"bearer",`)
		w.(http.Flusher).Flush()
		fmt.Fprint(w, `"access_token":"hunter2-granted"}`)
	})
	mux.HandleFunc("/private", func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") != "Bearer hunter2-granted" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		fmt.Fprintln(w, "private")
	})
	mux.HandleFunc("/member", func(w http.ResponseWriter, q *http.Request) {
		if c, err := q.Cookie("id"); err != nil || c.Value != "hunter2-cookie" {
			http.Error(w, "no cookie", http.StatusForbidden)
			return
		}
		fmt.Fprintln(w, "member")
	})
	basic := func(password string, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if _, p, _ := q.BasicAuth(); p != password {
				w.Header().Set("Www-Authenticate", `Basic realm="members"`)
				http.Error(w, "who are you", http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, q)
		})
	}
	mux.Handle("/apt/", basic("hunter2-apt", http.FileServer(http.Dir(filepath.Join(work, "srv")))))
	mux.Handle("/git/", basic("hunter2-granted", &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend", Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(work, "srv/git"), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}))
	return mux
}

func testAuthority() (pemCA []byte, server *tls.Config, err error) {
	issue := func(t, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		if signer == nil {
			signer = key
		}
		t.SerialNumber, t.NotBefore, t.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
		return der, key, err
	}
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "Private authority of a test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, caKey, err := issue(ca, ca, nil)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: internetName}, DNSNames: []string{"*." + internetName}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, nil, err
	}
	der, key, err := issue(leaf, ca, caKey)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}

// cmdConfirm confirms a live dependency that a capture proposed, as a person
// does in an editor: confirm BLUEPRINT ADDRESS NAME OWNER EXPIRES FALLBACK.
func cmdConfirm(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 6 {
		ts.Fatalf("usage: confirm BLUEPRINT ADDRESS NAME OWNER EXPIRES FALLBACK")
	}
	file := filepath.Join(ts.MkAbs(args[0]), "blueprint.yaml")
	data, err := os.ReadFile(file)
	ts.Check(err)
	b, err := blueprint.Parse(file, data)
	ts.Check(err)
	for i := range b.LiveDependencies {
		l := &b.LiveDependencies[i]
		if l.Address != args[1] {
			continue
		}
		l.Name, l.Owner, l.Expires, l.Fallback, l.Proposed = args[2], args[3], args[4], args[5], false
		if data, err = b.Marshal(); err == nil {
			err = os.WriteFile(file, data, 0o644)
		}
		ts.Check(err)
		return
	}
	ts.Fatalf("%s is not among the live dependencies: %+v", args[1], b.LiveDependencies)
}
