package recorder

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"trysail/blueprint"
)

// memory is a store; the depot is tested with the whole program.
type memory struct {
	mu    sync.Mutex
	blobs map[string][]byte
}

func (m *memory) Put(_ context.Context, r io.Reader) (string, int64, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return "", 0, err
	}
	sum := sha256.Sum256(data)
	d := "sha256:" + hex.EncodeToString(sum[:])
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[d] = data
	return d, int64(len(data)), nil
}

func (m *memory) Get(_ context.Context, d string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blobs[d]
	if !ok {
		return nil, fmt.Errorf("no %s", d)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// world is an internet of real servers on the loopback of the host.
type world struct {
	store    *memory
	upstream *httptest.Server // https
	plain    *httptest.Server
	roots    *x509.CertPool
	raw      map[string]string // host:port -> real address
	proxy    *url.URL
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root")
	}
}

const large = 3 << 20

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func body(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16) }

func newWorld(t *testing.T) *world {
	t.Helper()
	needRoot(t)
	mux := http.NewServeMux()
	visits := 0
	var mu sync.Mutex
	mux.HandleFunc("/file", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Set-Cookie", "session=hunter2-cookie")
		http.ServeContent(w, q, "file", time.Unix(1e9, 0), bytes.NewReader(body(large)))
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, "/signed?file=a&X-Amz-Signature=hunter2-signature&X-Amz-Date="+fmt.Sprint(time.Now().UnixNano()), http.StatusFound)
	})
	mux.HandleFunc("/signed", func(w http.ResponseWriter, q *http.Request) { fmt.Fprint(w, "signed ", q.URL.Query().Get("file")) })
	mux.HandleFunc("/count", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		visits++
		fmt.Fprint(w, visits)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, q *http.Request) {
		data, err := io.ReadAll(q.Body)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		fmt.Fprintf(w, "%s %s %s", q.Method, q.Proto, data)
	})
	mux.HandleFunc("/auth", func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") != "Bearer hunter2-bearer" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "private")
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "27")
		fmt.Fprint(w, `{"token":"hunter2-granted"}`)
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, q *http.Request) {
		if !strings.Contains(q.Header.Get("Accept-Encoding"), "gzip") {
			fmt.Fprint(w, "plain")
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, "zipped")
		z.Close()
	})
	mux.HandleFunc("/zeros", func(w http.ResponseWriter, q *http.Request) {
		n, err := strconv.ParseInt(q.URL.Query().Get("n"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(n))
		_, _ = io.CopyN(w, zeros{}, n) // the client may go
	})
	mux.HandleFunc("/length", func(w http.ResponseWriter, q *http.Request) {
		n, err := io.Copy(io.Discard, q.Body)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		fmt.Fprint(w, n)
	})
	hunters(mux)
	w := &world{store: &memory{blobs: map[string][]byte{}}, raw: map[string]string{}}
	w.upstream = httptest.NewUnstartedServer(mux)
	w.upstream.EnableHTTP2 = true
	w.upstream.StartTLS()
	w.plain = httptest.NewServer(mux)
	t.Cleanup(w.upstream.Close)
	t.Cleanup(w.plain.Close)
	w.roots = x509.NewCertPool()
	w.roots.AddCert(w.upstream.Certificate())
	return w
}

func (w *world) options(replay *Recording) Options {
	return Options{
		Replay: replay, Store: w.store, Roots: w.roots,
		Upstream: func(*url.URL) (*url.URL, error) { return w.proxy, nil },
		Lookup: func(_ context.Context, name string) []net.IP {
			switch {
			case name == "own.example.com":
				return []net.IP{net.IPv4(127, 0, 0, 1)}
			case strings.HasSuffix(name, "example.com"):
				return []net.IP{net.IPv4(192, 0, 2, 1)}
			}
			return nil
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := w.raw[address]
			switch {
			case to != "":
			case w.proxy != nil && address == w.proxy.Host:
				to = address
			case strings.HasSuffix(address, ":443"):
				to = w.upstream.Listener.Addr().String()
			case strings.HasSuffix(address, ":80"):
				to = w.plain.Listener.Addr().String()
			default:
				return nil, fmt.Errorf("no route to %s", address)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, to)
		},
	}
}

// in runs a shell command inside the recorder's network and returns what it printed.
func in(t *testing.T, r *Recorder, script string) string {
	t.Helper()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	resolv := filepath.Join(dir, "resolv.conf")
	for f, data := range map[string][]byte{ca: r.CA(), resolv: r.ResolvConf()} {
		if err := os.WriteFile(f, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+r.NetNS(), "unshare", "--mount", "sh", "-c", "mount --bind "+resolv+" $(readlink -f /etc/resolv.conf) && "+script)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "CURL_CA_BUNDLE=" + ca, "SSL_CERT_FILE=" + ca, "GIT_SSL_CAINFO=" + ca, "NODE_EXTRA_CA_CERTS=" + ca, "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// both runs a script while recording and again on replay with the world gone,
// and demands the same answer.
func (w *world) both(t *testing.T, script string) (string, *Recording) {
	t.Helper()
	r, err := Start(context.Background(), w.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	first := in(t, r, script)
	rec, err := r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	data, err := rec.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "hunter2") {
		t.Errorf("the recording holds a secret:\n%s", data)
	}
	for d, b := range w.store.blobs {
		if strings.Contains(string(b), "hunter2") {
			t.Errorf("the store holds a secret in %s: %.80s", d, b)
		}
	}
	if rec, err = ParseRecording(data); err != nil {
		t.Fatal(err)
	}
	o := w.options(rec)
	o.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("on replay a connection was made to %s", address)
		return nil, fmt.Errorf("offline")
	}
	p, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	second := in(t, p, script)
	if _, err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Errorf("%s\nrecorded: %.300q\nreplayed: %.300q", script, first, second)
	}
	return first, rec
}

func TestRecordAndReplay(t *testing.T) {
	sum := sha256.Sum256(body(large))
	whole := hex.EncodeToString(sum[:])
	for _, c := range []struct{ name, script, want string }{
		{"https", "curl -sS https://a.example.com/file | sha256sum", whole + "  -"},
		{"http", "curl -sS http://a.example.com/file | sha256sum", whole + "  -"},
		{"other port", "curl -sS http://a.example.com:80/file | sha256sum", whole + "  -"},
		{"head", "curl -sSI https://a.example.com/file | tr -d '\\r' | grep -i ^content-length", "content-length: 3145728"},
		{"head after get", "curl -sSo /dev/null https://a.example.com/file; curl -sSI https://a.example.com/file | grep -ic etag", "1"},
		{"range", "curl -sS -r 16-31 https://a.example.com/file", "0123456789abcdef"},
		{"range of a whole", "curl -sSo f https://a.example.com/file; curl -sS -r 16-31 -w ' %{http_code}' https://a.example.com/file", "0123456789abcdef 206"},
		{"not modified", "curl -sSo f https://a.example.com/file; curl -sSo f -w '%{http_code}' -H 'If-None-Match: \"v1\"' https://a.example.com/file", "304"},
		{"redirect and signature", "curl -sSL https://a.example.com/moved", "signed a"},
		{"answers in order", "for i in 1 2 3; do curl -sS https://a.example.com/count; done", "123"},
		{"post", "curl -sS --http1.1 -d one https://a.example.com/echo; curl -sS --http1.1 -d two https://a.example.com/echo", "POST HTTP/2.0 onePOST HTTP/2.0 two"},
		{"gzip", "curl -sS --compressed https://a.example.com/gzip", "zipped"},
		{"http2 client", "curl -sSo /dev/null -w '%{http_version}' --http2 https://a.example.com/file", "2"},
		{"credentials", "curl -sS -H 'Authorization: Bearer hunter2-bearer' https://user:hunter2-password@a.example.com/auth?access_token=hunter2-query -H 'Authorization: Bearer hunter2-bearer' ", "private"},
		{"parallel", "for i in 1 2 3 4 5 6 7 8; do curl -sS https://a.example.com/file?n=$i | sha256sum & done | sort -u", whole + "  -"},
		{"proxy of its own", "curl -sS -x http://proxy.example.com:3128 https://a.example.com/file | sha256sum", whole + "  -"},
		{"node", `node -e 'fetch("https://a.example.com/file").then(r=>r.text()).then(t=>console.log(t.length))'`, "3145728"},
		{"python", `python3 -c 'import urllib.request; print(len(urllib.request.urlopen("https://a.example.com/file").read()))'`, "3145728"},
		{"name that is not there", "curl -sS https://nowhere.invalid/ 2>&1 | grep -o 'Could not resolve host'", "Could not resolve host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := newWorld(t).both(t, c.script); got != c.want {
				t.Errorf("%s = %.300q, want %q", c.script, got, c.want)
			}
		})
	}
}

// A token that a server grants serves the client, and is not kept.
func TestGrantedToken(t *testing.T) {
	w := newWorld(t)
	r, err := Start(context.Background(), w.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := in(t, r, "curl -sS https://a.example.com/token"); !strings.Contains(got, "hunter2-granted") {
		t.Errorf("the client got %q", got)
	}
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, b := range w.store.blobs {
		if strings.Contains(string(b), "hunter2") {
			t.Errorf("kept: %s", b)
		}
	}
}

// The user's own proxy, which wants a password, is what upstream goes through.
func TestUpstreamProxy(t *testing.T) {
	w := newWorld(t)
	asked := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:hunter2-proxy"))
		if q.Header.Get("Proxy-Authorization") != want {
			http.Error(rw, "who are you", http.StatusProxyAuthRequired)
			return
		}
		asked++
		up, err := net.Dial("tcp", w.upstream.Listener.Addr().String())
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(up, c) //nolint:errcheck // a tunnel ends when it ends
		go io.Copy(c, up) //nolint:errcheck // likewise
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "hunter2-proxy")
	w.proxy = u
	if got, _ := w.both(t, "curl -sS https://a.example.com/file | wc -c"); got != "3145728" || asked == 0 {
		t.Errorf("through the proxy (%d tunnels): %q", asked, got)
	}
}

func TestNotHTTP(t *testing.T) {
	w := newWorld(t)
	serve := func(f func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); f(c) }()
			}
		}()
		return l.Addr().String()
	}
	w.raw["git.example.com:22"] = serve(func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-test\r\n") })
	w.raw["lic.example.com:27000"] = serve(func(c net.Conn) { fmt.Fprint(c, "licence granted\n") })
	r, err := Start(context.Background(), w.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	py := func(host string, port int) string {
		return fmt.Sprintf(`python3 -c 'import socket; s=socket.create_connection(("%s",%d)); print(s.recv(100))'`, host, port)
	}
	if got := in(t, r, py("git.example.com", 22)+"; "+py("lic.example.com", 27000)); !strings.Contains(got, "SSH-2.0") || !strings.Contains(got, "granted") {
		t.Errorf("passed through: %q", got)
	}
	rec, err := r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.Connections) != 2 || rec.Connections[0].Why != "ssh" || rec.Connections[0].Address != "git.example.com:22" || rec.Connections[1].Why != "tcp" {
		t.Errorf("connections: %+v", rec.Connections)
	}
	// On replay nothing passes but what someone confirmed.
	o := w.options(rec)
	o.Live = []blueprint.LiveDependency{{Name: "LIC01", Kind: "tcp", Address: "lic.example.com:27000"}}
	if r, err = Start(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if got := in(t, r, py("lic.example.com", 27000)); !strings.Contains(got, "granted") {
		t.Errorf("a live dependency did not pass: %q", got)
	}
	in(t, r, py("git.example.com", 22)+" 2>/dev/null || true; python3 -c 'import socket; s=socket.create_connection((\"10.1.2.3\",9)); s.sendall(b\"hello there\\n\"); s.recv(100)' 2>/dev/null || true; python3 -c 'import socket; socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b\"x\",(\"10.1.2.3\",123))' 2>/dev/null || true; curl -sS https://other.example.com/ 2>/dev/null || true")
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := r.Stats().Blocked; n < 4 {
		t.Errorf("%d attempts blocked, want at least 4: %v", n, r.Unanswered())
	}
}

// A licence server that speaks UDP is reached by the name, and by the number,
// that somebody confirmed; nothing else is.
func TestLiveUDP(t *testing.T) {
	w := newWorld(t)
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(append([]byte("granted to "), buf[:n]...), from)
		}
	}()
	w.raw["lic.example.com:1947"], w.raw["10.9.8.7:1948"] = server.LocalAddr().String(), server.LocalAddr().String()
	o := w.options(&Recording{Version: recordingVersion})
	o.Live = []blueprint.LiveDependency{
		{Name: "LIC02", Kind: "udp", Address: "lic.example.com:1947"},
		{Name: "LIC03", Kind: "udp", Address: "10.9.8.7:1948"},
		{Name: "LIC04", Kind: "udp", Address: "10.9.8.6:1949", Proposed: true},
	}
	r, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(host string, port int) string {
		return fmt.Sprintf(`python3 -c '
import socket
for i in range(2):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    try:
        s.sendto(b"client%%d" %% i, ("%s", %d))
        print(s.recv(100).decode())
    except OSError:
        print("nothing")'`, host, port)
	}
	for _, c := range []struct {
		host string
		port int
		want string
	}{
		{"lic.example.com", 1947, "granted to client0\ngranted to client1"},
		{"10.9.8.7", 1948, "granted to client0\ngranted to client1"},
		{"10.9.8.6", 1949, "nothing\nnothing"},
		{"10.9.8.5", 1947, "nothing\nnothing"},
	} {
		if got := in(t, r, ask(c.host, c.port)); got != c.want {
			t.Errorf("%s:%d answers %q", c.host, c.port, got)
		}
	}
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := r.Stats().Blocked; n < 4 {
		t.Errorf("%d attempts blocked", n)
	}
	o.Live[0].Address = "lic.example.com"
	if r, err := Start(context.Background(), o); err == nil {
		_, _ = r.Stop()
		t.Error("an address without a port was taken")
	}
}

// A client that trusts other authorities only is named.
func TestPinned(t *testing.T) {
	w := newWorld(t)
	r, err := Start(context.Background(), w.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	in(t, r, "env -u SSL_CERT_FILE CURL_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt curl -sS https://a.example.com/file -o /dev/null 2>/dev/null; true")
	rec, err := r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.Connections) != 1 || rec.Connections[0].Why != "tls-refused" || rec.Connections[0].Address != "a.example.com:443" {
		t.Errorf("connections: %+v", rec.Connections)
	}
}

// The build's own servers on its loopback are its own.
func TestOwnLoopback(t *testing.T) {
	w := newWorld(t)
	got, rec := w.both(t, `python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 & for i in 1 2 3 4 5 6 7 8 9; do sleep 0.3; curl -sSo /dev/null -w '%{http_code}' http://127.0.0.1:8123/ 2>/dev/null && break; done | tail -c 3; kill $!`)
	if !strings.HasSuffix(got, "200") || len(rec.Exchanges) != 0 {
		t.Errorf("%q, %d exchanges", got, len(rec.Exchanges))
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		rng           string
		size          int64
		start, length int64
		ok            bool
	}{
		{"bytes=0-9", 100, 0, 10, true},
		{"bytes=90-", 100, 90, 10, true},
		{"bytes=-10", 100, 90, 10, true},
		{"bytes=-1000", 100, 0, 100, true},
		{"bytes=50-1000", 100, 50, 50, true},
		{"bytes=100-", 100, 0, 0, false},
		{"bytes=5-2", 100, 0, 0, false},
		{"bytes=0-1,5-6", 100, 0, 0, false},
		{"items=0-1", 100, 0, 0, false},
		{"bytes=", 100, 0, 0, false},
		{"bytes=-", 100, 0, 0, false},
	} {
		if s, n, ok := cut(c.rng, c.size); ok != c.ok || s != c.start || n != c.length {
			t.Errorf("cut(%q, %d) = %d %d %v", c.rng, c.size, s, n, ok)
		}
	}
}

func TestCleanURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://u:p@h/x":                                        "https://h/x",
		"https://h/x?b=2&a=1":                                    "https://h/x?b=2&a=1",
		"https://h/x?token=t&a=1":                                "https://h/x?a=1",
		"https://h/x?X-Amz-Signature=s&f=1":                      "https://h/x?f=1",
		"https://h/x?sig=s&se=2026&f=1":                          "https://h/x?f=1",
		"https://h/x?st=1&key=2":                                 "https://h/x?st=1&key=2",
		"https://h/x?Expires=1&Signature=2#frag":                 "https://h/x",
		"https://h/x?b=%2F&a=1;token=t":                          "https://h/x?b=%2F&a=1",
		"https://h/x?AWSAccessKeyId=k&Signature=2&Expires=1&f=1": "https://h/x?f=1",
		"https://h/x?api-key=t":                                  "https://h/x",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := cleanURL(u); got != want {
			t.Errorf("cleanURL(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestSniff(t *testing.T) {
	for in, want := range map[string]speech{
		"\x16\x03\x01\x02\x00": speaksTLS, "GET / HT": speaksHTTP, "PRI * HT": speaksOther, "SSH-2.0-": speaksOther, "": speaksOther, "PROPFIND": speaksHTTP, "GETX / ": speaksOther,
	} {
		if got := sniff([]byte(in)); got != want {
			t.Errorf("sniff(%q) = %d, want %d", in, got, want)
		}
	}
}

func FuzzParseRecording(f *testing.F) {
	good, err := (&Recording{Version: 1, Exchanges: []Exchange{{Method: "GET", URL: "https://h/x", Status: 200}}}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"exchanges":[{"url":"file:///etc/passwd"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecording(data)
		if err != nil {
			return
		}
		newIndex(r).find(&Exchange{Method: "GET", URL: "https://h/x", Range: "bytes=0-1"})
		if _, err := r.Marshal(); err != nil {
			t.Error(err)
		}
	})
}
