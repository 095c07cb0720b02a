package recorder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// serve answers one request of the build.
func (r *Recorder) serve(w http.ResponseWriter, q *http.Request) {
	m, _ := q.Context().Value(meantKey{}).(meant)
	if q.Method == http.MethodConnect {
		r.tunnel(w, q, m.deep+1)
		return
	}
	if !r.requests.take(q.Context()) {
		return // whoever asked is gone
	}
	defer r.requests.give()
	r.active.Add(1)
	defer r.active.Done()
	u := address(q, m)
	if r.o.Replay != nil {
		r.replay(w, q, u)
		return
	}
	r.record(w, q, u)
}

// address is the whole address that a request means. The host is the one that
// the client names; the port is the one it connected to.
func address(q *http.Request, m meant) *url.URL {
	u := *q.URL
	if u.Host != "" && u.Scheme != "" {
		return &u // a request to a proxy
	}
	u.Scheme = "http"
	if m.tls || q.TLS != nil {
		u.Scheme = "https"
	}
	u.Host = q.Host
	if u.Host == "" {
		u.Host = m.host
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		host, port = u.Host, m.port
	}
	u.Host = strings.ToLower(host)
	if (u.Scheme == "http" && port != "80") || (u.Scheme == "https" && port != "443") {
		u.Host = net.JoinHostPort(strings.ToLower(host), port)
	}
	return &u
}

// tunnel serves a build that has a proxy of its own set: what comes through the
// tunnel is sorted like any other connection.
func (r *Recorder) tunnel(w http.ResponseWriter, q *http.Request, deep int) {
	if deep > mostTunnels {
		http.Error(w, "a tunnel in a tunnel in a tunnel leads nowhere", http.StatusLoopDetected)
		return
	}
	host, port, err := net.SplitHostPort(q.Host)
	if err != nil {
		http.Error(w, "CONNECT needs host:port", http.StatusBadRequest)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		c.Close()
		return
	}
	r.wg.Go(func() {
		r.track(c, true)
		defer r.track(c, false)
		if err := r.sortFor(c, rw.Reader, meant{host: strings.ToLower(host), port: port, raw: q.Host, deep: deep}); err != nil {
			r.o.Log.Debug("tunnel", "err", err)
			c.Close()
		}
	})
}

// hopByHop are headers that belong to one connection.
func hopByHop(h http.Header) {
	for _, k := range strings.Split(h.Get("Connection"), ",") {
		if k = strings.TrimSpace(k); k != "" {
			h.Del(k)
		}
	}
	for _, k := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		h.Del(k)
	}
}

// digested reads a request's body, which must be known before it can be matched.
func digested(q *http.Request) (digest string, err error) {
	if q.Body == nil || q.Body == http.NoBody {
		return "", nil
	}
	h := sha256.New()
	n, err := io.Copy(h, q.Body)
	if err != nil || n == 0 {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// spool is digested, and keeps the body so that it can be sent on.
func (r *Recorder) spool(q *http.Request) (body *spool, digest string, err error) {
	if q.Body == nil || q.Body == http.NoBody {
		return nil, "", nil
	}
	f, err := newSpool(&r.spooled)
	if err != nil {
		return nil, "", err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), q.Body)
	if err != nil {
		f.Close()
		return nil, "", err
	}
	if n == 0 {
		f.Close()
		return nil, "", nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, "", err
	}
	return f, "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// asked is the part of an exchange that a request decides.
func asked(q *http.Request, u *url.URL, digest string) Exchange {
	x := Exchange{Method: q.Method, URL: cleanURL(u), Accept: q.Header.Get("Accept"), Encoding: q.Header.Get("Accept-Encoding"), Range: q.Header.Get("Range"), Request: digest}
	if x.Condition = q.Header.Get("If-None-Match"); x.Condition == "" {
		x.Condition = q.Header.Get("If-Modified-Since")
	}
	return x
}

// record asks upstream and keeps the answer.
func (r *Recorder) record(w http.ResponseWriter, q *http.Request, u *url.URL) {
	body, digest, err := r.spool(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	x := asked(q, u, digest)
	// A client that goes away early does not make the record less whole.
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Minute)
	defer cancel()
	if p, err := r.o.Upstream(u); err == nil && p != nil {
		ctx = context.WithValue(ctx, proxiedKey{}, true)
	}
	out := q.Clone(ctx)
	out.URL, out.RequestURI, out.Host = u, "", q.Host
	out.Body = http.NoBody
	if body != nil {
		defer body.Close()
		info, err := body.Stat()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		out.Body, out.ContentLength, out.TransferEncoding = body, info.Size(), nil
	} else {
		out.ContentLength = 0
	}
	hopByHop(out.Header)
	res, err := r.tr.RoundTrip(out)
	if err != nil {
		r.o.Log.Warn("download failed", "method", q.Method, "url", x.URL, "err", err)
		r.refuse(w, http.StatusBadGateway, fmt.Sprintf("trysail: %s %s: %v", q.Method, x.URL, err))
		return
	}
	defer res.Body.Close()
	hopByHop(res.Header)
	x.Status, x.Header = res.StatusCode, cleanHeader(res.Header)
	maps.Copy(w.Header(), res.Header)
	for k := range res.Trailer {
		w.Header().Add("Trailer", k)
	}
	w.WriteHeader(res.StatusCode)
	in := io.Reader(res.Body)
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		// The page of a redirect repeats its address, signature and all.
		if _, err := io.Copy(&client{w: w}, io.LimitReader(in, 1<<20)); err != nil {
			panic(http.ErrAbortHandler)
		}
		in = http.NoBody
		delete(x.Header, "Content-Length")
	} else if mayGrant(res) {
		if in, err = granted(w, res, x.Header); err != nil {
			r.o.Log.Info("download failed", "url", x.URL, "err", err)
			panic(http.ErrAbortHandler)
		}
	} else {
		in = io.TeeReader(in, &client{w: w})
	}
	got, n, err := r.o.Store.Put(ctx, in)
	if err != nil {
		var upstream *net.OpError
		if !errors.As(err, &upstream) && !errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil {
			r.fail(fmt.Errorf("keep %s: %w", x.URL, err))
		}
		panic(http.ErrAbortHandler) // the client must not take half a body for a whole one
	}
	maps.Copy(w.Header(), res.Trailer)
	if n > 0 {
		x.Body, x.Size = got, n
	}
	if len(res.Trailer) > 0 {
		x.Trailer = cleanHeader(res.Trailer)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.text += x.text(); r.text > mostText {
		if r.err == nil {
			r.err = fmt.Errorf("the build's downloads have more than %d bytes of addresses and headers: they are not all recorded", mostText)
		}
		return
	}
	x.Seq = len(r.rec.Exchanges)
	r.rec.Exchanges = append(r.rec.Exchanges, x)
	r.bytes += n
}

// client writes to a client that may have gone, and forgets what it cannot write.
type client struct {
	w    http.ResponseWriter
	gone bool
}

func (c *client) Write(p []byte) (int, error) {
	if !c.gone {
		if _, err := c.w.Write(p); err != nil {
			c.gone = true
		} else if f, ok := c.w.(http.Flusher); ok {
			f.Flush()
		}
	}
	return len(p), nil
}

// granted passes a JSON answer on, and gives what may be kept of it. One that
// turns out to be long is no token.
func granted(w http.ResponseWriter, res *http.Response, kept map[string][]string) (io.Reader, error) {
	data, err := io.ReadAll(io.LimitReader(res.Body, mostToken))
	if err != nil {
		return nil, err
	}
	to := &client{w: w}
	_, _ = to.Write(data) // never fails
	if len(data) == mostToken {
		return io.MultiReader(bytes.NewReader(data), io.TeeReader(res.Body, to)), nil
	}
	data, changed := withoutTokens(data, res.Header.Get("Content-Encoding"))
	if changed {
		for _, k := range []string{"Content-Encoding", "Content-Length", "Content-Md5", "Digest", "Etag"} {
			delete(kept, k)
		}
	}
	return bytes.NewReader(data), nil
}

func (r *Recorder) refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // the client may be gone
}

// replay answers from the recording.
func (r *Recorder) replay(w http.ResponseWriter, q *http.Request, u *url.URL) {
	digest, err := digested(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	wanted := asked(q, u, digest)
	clean := wanted.URL
	r.mu.Lock()
	x := r.index.find(&wanted)
	r.mu.Unlock()
	if x == nil {
		r.block(q.Method + " " + clean)
		r.refuse(w, http.StatusGatewayTimeout, "trysail: no recorded answer for "+q.Method+" "+clean)
		return
	}
	h := w.Header()
	for k, v := range x.Header {
		if strings.EqualFold(k, "Content-Length") {
			continue
		}
		h[http.CanonicalHeaderKey(k)] = v
	}
	if notModified(q, x) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if x.Body == "" {
		if n := first(x.Header["Content-Length"]); n != "" && q.Method == http.MethodHead {
			h.Set("Content-Length", n)
		}
		w.WriteHeader(x.Status)
		return
	}
	in, err := r.o.Store.Get(q.Context(), x.Body)
	if err != nil {
		r.fail(fmt.Errorf("recorded answer of %s: %w", clean, err))
		r.refuse(w, http.StatusBadGateway, "trysail: "+err.Error())
		return
	}
	defer in.Close()
	status, start, length := x.Status, int64(0), x.Size
	if rng := q.Header.Get("Range"); rng != "" && x.Range == "" && x.Status == http.StatusOK {
		if s, n, ok := cut(rng, x.Size); ok {
			status, start, length = http.StatusPartialContent, s, n
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s, s+n-1, x.Size))
		}
	}
	h.Set("Content-Length", fmt.Sprint(length))
	for k := range x.Trailer {
		h.Del("Content-Length")
		h.Add("Trailer", k)
	}
	w.WriteHeader(status)
	if q.Method != http.MethodHead {
		if _, err := io.CopyN(io.Discard, in, start); err == nil {
			_, err = io.CopyN(w, in, length)
			if err == nil && start+length == x.Size {
				// One more read, so that the digest of the whole is checked.
				_, err = in.Read(make([]byte, 1))
			}
			if err != nil && !errors.Is(err, io.EOF) {
				if q.Context().Err() == nil {
					r.fail(fmt.Errorf("recorded answer of %s: %w", clean, err))
				}
				panic(http.ErrAbortHandler)
			}
		}
	}
	for k, v := range x.Trailer {
		h[k] = v
	}
	r.mu.Lock()
	r.bytes += length
	r.mu.Unlock()
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// notModified answers conditional requests from the recorded validators.
func notModified(q *http.Request, x *Exchange) bool {
	if x.Status != http.StatusOK || (q.Method != http.MethodGet && q.Method != http.MethodHead) {
		return false
	}
	etag := first(x.Header["Etag"])
	if want := q.Header.Get("If-None-Match"); want != "" {
		for _, w := range strings.Split(want, ",") {
			w = strings.TrimPrefix(strings.TrimSpace(w), "W/")
			if w == "*" || (etag != "" && w == strings.TrimPrefix(etag, "W/")) {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(q.Header.Get("If-Modified-Since"))
	if err != nil {
		return false
	}
	modified, err := http.ParseTime(first(x.Header["Last-Modified"]))
	return err == nil && !modified.After(since)
}

// cut reads one byte range of a body of the given size.
func cut(rng string, size int64) (start, length int64, ok bool) {
	spec, ok := strings.CutPrefix(rng, "bytes=")
	if !ok || strings.Contains(spec, ",") || size == 0 {
		return 0, 0, false
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return 0, 0, false
	}
	var a, b int64
	if from == "" {
		if _, err := fmt.Sscan(to, &b); err != nil || b <= 0 {
			return 0, 0, false
		}
		b = min(b, size)
		return size - b, b, true
	}
	if _, err := fmt.Sscan(from, &a); err != nil || a < 0 || a >= size {
		return 0, 0, false
	}
	b = size - 1
	if to != "" {
		if _, err := fmt.Sscan(to, &b); err != nil || b < a {
			return 0, 0, false
		}
		b = min(b, size-1)
	}
	return a, b - a + 1, true
}
