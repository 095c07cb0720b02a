package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"trysail/internal/api"
)

const (
	maxLog   = 256 << 20 // bytes kept of one step's log
	logChunk = 1 << 20   // bytes sent at once
)

// logSink takes a step's output. It never makes the step wait for the network:
// what is written goes to a file on this disk, and from there to control.
type logSink struct {
	a    *Agent
	h    api.Holding
	file *os.File

	mu      sync.Mutex
	masker  *masker
	size    int64 // kept
	dropped int64 // past the limit
	closed  bool
	grown   chan struct{}
}

// newLog makes a log in which some values are hidden.
func (a *Agent) newLog(h api.Holding, path string, secrets map[string]string) (*logSink, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &logSink{a: a, h: h, file: f, masker: newMasker(secrets), grown: make(chan struct{}, 1)}, nil
}

// Write keeps what fits. It reports everything as written: a step must not fail
// because it says too much.
func (l *logSink) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.keep(l.masker.write(p)); err != nil {
		return 0, err
	}
	l.wake()
	return len(p), nil
}

func (l *logSink) keep(text []byte) error {
	fits := max(min(int64(len(text)), maxLog-l.size), 0)
	l.dropped += int64(len(text)) - fits
	n, err := l.file.WriteAt(text[:fits], l.size)
	l.size += int64(n)
	return err
}

func (l *logSink) wake() {
	select {
	case l.grown <- struct{}{}:
	default:
	}
}

// finish says that nothing more comes.
func (l *logSink) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.keep(l.masker.end()); err != nil {
		l.a.o.Log.Error("log", "step", l.h.Item, "err", err)
	}
	if l.dropped > 0 {
		note := fmt.Sprintf("\n[trysail: %d bytes more were not kept: a step's log holds %d]\n", l.dropped, maxLog)
		if n, err := l.file.WriteAt([]byte(note), l.size); err == nil {
			l.size += int64(n)
		}
	}
	l.closed = true
	l.wake()
}

// send ends when everything was sent, when control takes no more, or with ctx.
func (l *logSink) send(ctx context.Context) {
	var sent int64
	for wait := 100 * time.Millisecond; ; {
		l.mu.Lock()
		size, closed := l.size, l.closed
		l.mu.Unlock()
		if sent < size {
			n := min(size-sent, logChunk)
			path := fmt.Sprintf("/releases/%s/logs/%s/%d?offset=%d", l.h.Release, l.h.Item, l.h.Epoch, sent)
			res, err := l.a.o.Client.Open(ctx, http.MethodPost, path, io.NewSectionReader(l.file, sent, n), nil)
			if err == nil {
				res.Body.Close()
				sent += n
				wait = 100 * time.Millisecond
				continue
			}
			var p *api.Problem
			if ctx.Err() != nil || (errors.As(err, &p) && p.Code == "denied") {
				return
			}
			l.a.o.Log.Warn("log", "step", l.h.Item, "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, time.Second)
			continue
		}
		if closed {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-l.grown:
		}
	}
}
