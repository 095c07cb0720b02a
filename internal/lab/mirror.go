package lab

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// What a mirror can be told to do wrong, and how many bytes a second a slow one sends.
const (
	troubleShort = "short"
	troubleSlow  = "slow"
	slowRate     = 1 << 10
)

// Mirror serves the files of a directory over HTTP until ctx is done. What it does
// wrong stands in the file trouble, which is read with each request; there need be
// none.
func Mirror(ctx context.Context, l net.Listener, dir, trouble string) error {
	files := http.FileServer(http.Dir(dir))
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(trouble)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		switch strings.TrimSpace(string(data)) {
		case troubleShort:
			w = &shortWriter{ResponseWriter: w}
		case troubleSlow:
			w = &slowWriter{w, r.Context()}
		}
		files.ServeHTTP(w, r)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(s.Close(), ctx.Err())
	}
}

// shortWriter breaks the connection off half-way, as a server does that dies.
type shortWriter struct {
	http.ResponseWriter
	sent int64
}

func (w *shortWriter) Write(p []byte) (int, error) {
	whole, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	if err != nil {
		whole = int64(len(p))
	}
	if left := whole/2 - w.sent; int64(len(p)) > left {
		_, _ = w.ResponseWriter.Write(p[:max(left, 0)]) // the connection ends either way
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// slowWriter takes a second for each kilobyte.
type slowWriter struct {
	http.ResponseWriter
	ctx context.Context
}

func (w *slowWriter) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		n, err := w.ResponseWriter.Write(p[:min(len(p), slowRate/10)])
		sent += n
		if err == nil {
			err = http.NewResponseController(w.ResponseWriter).Flush()
		}
		if err != nil {
			return sent, err
		}
		p = p[n:]
		select {
		case <-w.ctx.Done():
			return sent, io.ErrClosedPipe
		case <-time.After(100 * time.Millisecond):
		}
	}
	return sent, nil
}
