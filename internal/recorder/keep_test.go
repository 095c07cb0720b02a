package recorder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What is kept, and what a replay makes of it.

// hunters are handlers that give secrets away in every way they can.
func hunters(mux *http.ServeMux) {
	mux.HandleFunc("/chunked-token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprint(w, `{"token_type":"bearer",`)
		w.(http.Flusher).Flush()
		fmt.Fprint(w, `"access_token":"hunter2-chunked","n":12345678901234567890}`)
	})
	mux.HandleFunc("/lfs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
		fmt.Fprint(w, `{"objects":[{"oid":"1","actions":{"download":{"href":"https://a.example.com/signed?file=b&X-Amz-Signature=hunter2-lfs","header":{"Authorization":"Basic hunter2-lfs"}}}}]}`)
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range map[string]string{
			"Set-Cookie": "a=hunter2", "X-Auth-Token": "hunter2", "X-Amz-Security-Token": "hunter2", "Private-Token": "hunter2", "X-Session-Id": "hunter2", "Authorization": "hunter2",
			"Link": `<https://a.example.com/page?page=2&access_token=hunter2>; rel="next"`, "Refresh": "0;url=https://me:hunter2@a.example.com/", "Content-Location": "/x?sig=hunter2&a=1", "X-Kept": "kept",
		} {
			w.Header().Set(k, v)
		}
		fmt.Fprint(w, "headers")
	})
	mux.HandleFunc("/challenge", func(w http.ResponseWriter, q *http.Request) {
		if _, password, _ := q.BasicAuth(); password != "hunter2-basic" {
			w.Header().Set("Www-Authenticate", `Basic realm="x"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "private")
	})
	mux.HandleFunc("/zip-or-not", func(w http.ResponseWriter, q *http.Request) {
		if strings.Contains(q.Header.Get("Accept-Encoding"), "br") {
			w.Header().Set("Content-Encoding", "br")
			fmt.Fprint(w, "brotli, so to speak")
			return
		}
		fmt.Fprint(w, "plain")
	})
}

func TestKept(t *testing.T) {
	slow := `python3 -c 'import socket,ssl,time
s=socket.create_connection(("a.example.com",443)); time.sleep(1.2)
s=ssl.create_default_context().wrap_socket(s,server_hostname="a.example.com")
s.sendall(b"GET /signed?file=slow HTTP/1.0\r\nHost: a.example.com\r\n\r\n")
print(s.makefile().read().split()[-1])'`
	for _, c := range []struct{ name, script, want string }{
		{"headers", "curl -sSi https://a.example.com/headers | tr -d '\\r' | grep -E '^(x-kept|headers)'", "x-kept: kept\nheaders"},
		{"granted signatures", `curl -sS https://a.example.com/lfs | grep -o 'a.example.com/signed.file=b' && curl -sS 'https://a.example.com/signed?file=b&X-Amz-Signature=hunter2-'$$`, "a.example.com/signed?file=b\nsigned b"},
		{"unanswered challenge is passed over", "curl -sSo f https://a.example.com/challenge; curl -sS -u me:hunter2-basic https://a.example.com/challenge", "private"},
		{"two encodings", "curl -sS -H 'Accept-Encoding: br' https://a.example.com/zip-or-not; curl -sS https://a.example.com/zip-or-not", "brotli, so to speakplain"},
		{"conditional only", `curl -sSo f -w '%{http_code}' -H 'If-None-Match: "v1"' https://a.example.com/file`, "304"},
		{"client that is slow to speak", slow, "slow"},
		{"name of the own loopback", "getent ahostsv4 own.example.com | head -1 | cut -d' ' -f1", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			got, rec := w.both(t, c.script)
			if got != c.want {
				t.Errorf("%s = %.300q, want %q", c.script, got, c.want)
			}
			if len(rec.Connections) > 0 {
				t.Errorf("not recorded: %+v", rec.Connections)
			}
		})
	}
}

// Answers in parallel come in any order: each request gets one that fits it.
func TestFind(t *testing.T) {
	x := func(status int, f func(*Exchange)) Exchange {
		e := Exchange{Method: "GET", URL: "https://h/x", Status: status, Body: fmt.Sprint(status)}
		if f != nil {
			f(&e)
		}
		return e
	}
	same := func(*Exchange) {}
	for _, c := range []struct {
		name     string
		recorded []Exchange
		ask      func(*Exchange)
		want     string // statuses of three answers in a row
	}{
		{"in order, the last again", []Exchange{x(201, nil), x(202, nil)}, same, "201 202 202"},
		{"304 only to who asks", []Exchange{x(304, func(e *Exchange) { e.Condition = "v1" }), x(200, nil)}, same, "200 200 200"},
		{"304 to who asks", []Exchange{x(200, nil), x(304, func(e *Exchange) { e.Condition = "v1" })}, func(e *Exchange) { e.Condition = "v1" }, "304 304 304"},
		{"another condition", []Exchange{x(200, nil), x(304, func(e *Exchange) { e.Condition = "v1" })}, func(e *Exchange) { e.Condition = "v0" }, "200 200 200"},
		{"challenge and answer", []Exchange{x(401, nil), x(200, nil), x(401, nil)}, same, "200 200 200"},
		{"challenge only", []Exchange{x(401, nil)}, same, "401 401 401"},
		{"range of its own", []Exchange{x(200, nil), x(206, func(e *Exchange) { e.Range = "bytes=0-1" })}, func(e *Exchange) { e.Range = "bytes=0-1" }, "206 206 206"},
		{"range of a whole", []Exchange{x(200, nil)}, func(e *Exchange) { e.Range = "bytes=0-1" }, "200 200 200"},
		{"whole of a range", []Exchange{x(206, func(e *Exchange) { e.Range = "bytes=0-1" })}, same, "- - -"},
		{"what the client cannot decode", []Exchange{x(200, func(e *Exchange) { e.Encoding, e.Header = "gzip", map[string][]string{"Content-Encoding": {"gzip"}} })}, same, "- - -"},
		{"head of a get", []Exchange{x(200, nil)}, func(e *Exchange) { e.Method = "HEAD" }, "200 200 200"},
		{"post is no get", []Exchange{x(200, nil)}, func(e *Exchange) { e.Method = "POST" }, "- - -"},
		{"another body", []Exchange{x(200, nil)}, func(e *Exchange) { e.Request = "sha256:other" }, "- - -"},
	} {
		ix := newIndex(&Recording{Exchanges: c.recorded})
		var got []string
		for range 3 {
			q := Exchange{Method: "GET", URL: "https://h/x"}
			c.ask(&q)
			if e := ix.find(&q); e != nil {
				got = append(got, fmt.Sprint(e.Status))
			} else {
				got = append(got, "-")
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

// TestIgnoredQuery: parameters that a person named do not count; all others do.
func TestIgnoredQuery(t *testing.T) {
	recorded := []Exchange{
		{Method: "GET", URL: "https://h/x?v=1&_=100", Status: 201},
		{Method: "GET", URL: "https://h/x?v=2&_=100", Status: 202},
		{Method: "GET", URL: "https://h/y?ts=5", Status: 203},
		{Method: "GET", URL: "https://h/z", Status: 204},
	}
	for _, c := range []struct {
		url    string
		ignore []string
		want   int
	}{
		{"https://h/x?v=1&_=100", nil, 201},
		{"https://h/x?v=1&_=999", nil, 0},
		{"https://h/x?v=1&_=999", []string{"_"}, 201},
		{"https://h/x?_=999&v=2", []string{"_"}, 202},
		{"https://h/x?v=3&_=100", []string{"_"}, 0},
		{"https://h/x?v=1&_=1&w=1", []string{"_"}, 0},
		{"https://h/y?ts=6", []string{"_", "ts"}, 203},
		{"https://h/y?tss=6", []string{"ts"}, 0},
		{"https://h/z", []string{"ts"}, 204},
		{"https://h/z?ts=1", []string{"ts"}, 204},
	} {
		got := 0
		if e := newIndex(&Recording{Exchanges: recorded}, c.ignore...).find(&Exchange{Method: "GET", URL: c.url}); e != nil {
			got = e.Status
		}
		if got != c.want {
			t.Errorf("%s without %q: %d, and not %d", c.url, c.ignore, got, c.want)
		}
	}
}

// A token serves the client, however its answer is sent, and is not kept.
func TestGrantedInPieces(t *testing.T) {
	w := newWorld(t)
	r, err := Start(context.Background(), w.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := in(t, r, "curl -sS https://a.example.com/chunked-token"); !strings.Contains(got, "hunter2-chunked") {
		t.Errorf("the client got %q", got)
	}
	if _, err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, b := range w.store.blobs {
		if strings.Contains(string(b), "hunter2") || !strings.Contains(string(b), "12345678901234567890") {
			t.Errorf("kept: %s", b)
		}
	}
	if len(w.store.blobs) != 1 {
		t.Errorf("%d answers kept", len(w.store.blobs))
	}
}

func TestWithoutTokens(t *testing.T) {
	for in, want := range map[string]string{
		`{"token":"x","n":1}`:                               `{"n":1,"token":"` + redacted + `"}`,
		`{"grammar":{"token":"id"}}`:                        ``,
		`{"auth":{"client_token":"x"}}`:                     `{"auth":{"client_token":"` + redacted + `"}}`,
		`{"home":"https://h/x?a=1#readme"}`:                 ``,
		`["https://h/x?a=1&sig=s&se=3"]`:                    `["https://h/x?a=1"]`,
		`{"url":"https://me:secret@h/x","who":"git+ssh@h"}`: `{"url":"https://h/x","who":"git+ssh@h"}`,
		`{"token":""}`:                                      ``,
		`not json`:                                          ``,
	} {
		got, changed := withoutTokens([]byte(in), "")
		if want == "" {
			want = in
		}
		if s := strings.TrimSpace(string(got)); s != want || changed != (want != in) {
			t.Errorf("%s: %s", in, s)
		}
	}
}

// disk is a store that keeps what it is given on disk, as a depot does.
type disk struct{ dir string }

func (d disk) Put(_ context.Context, r io.Reader) (string, int64, error) {
	f, err := os.CreateTemp(d.dir, "new-")
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), r)
	if err != nil {
		return "", 0, err
	}
	name := hex.EncodeToString(h.Sum(nil))
	return "sha256:" + name, n, os.Rename(f.Name(), filepath.Join(d.dir, name))
}

func (d disk) Get(_ context.Context, digest string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(d.dir, strings.TrimPrefix(digest, "sha256:")))
}

// A large body streams through the recorder, up and down, recording and on
// replay: what is held at any time does not grow with it.
func TestLargeBodyIsNotHeld(t *testing.T) {
	const size, most = 200 << 20, 32 << 20
	w := newWorld(t)
	o := w.options(nil)
	store := disk{t.TempDir()}
	o.Store = store
	script := fmt.Sprintf("curl -sS 'https://a.example.com/zeros?n=%d' | wc -c; head -c %d /dev/zero | curl -sS -T - https://a.example.com/length", size, size)
	measure := func(o Options) *Recording {
		t.Helper()
		r, err := Start(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC() // what earlier tests held does not let this one's garbage grow
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		done := make(chan bool)
		peak := make(chan uint64)
		go func() {
			var most uint64
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					peak <- most
					return
				case <-tick.C:
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapInuse)
				}
			}
		}()
		if got, want := in(t, r, script), fmt.Sprintf("%d\n%d", size, size); got != want {
			t.Errorf("the client counted %q, want %q", got, want)
		}
		close(done)
		if p := <-peak; p > before.HeapInuse+most {
			t.Errorf("%d MiB in use at once for a body of %d", p>>20, size>>20)
		}
		rec, err := r.Stop()
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	rec := measure(o)
	o = w.options(rec)
	o.Store = store
	measure(o)
}
