package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"trysail/internal/api"
	"trysail/internal/machine"
	"trysail/internal/mask"
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
	mask    *mask.Stream
	size    int64 // kept
	dropped int64 // past the limit
	closed  bool
	grown   chan struct{}
}

// newLog makes a log in which some values are hidden.
func (a *Agent) newLog(h api.Holding, path string, hidden *mask.Mask) (*logSink, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &logSink{a: a, h: h, file: f, mask: hidden.Stream(), grown: make(chan struct{}, 1)}, nil
}

// Write keeps what fits. It reports everything as written: a step must not fail
// because it says too much.
func (l *logSink) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.keep(l.mask.Write(p)); err != nil {
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
	if err := l.keep(l.mask.End()); err != nil {
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
// Once the step has ended it does not wait for ever: the log is kept as a blob too.
func (l *logSink) send(ctx context.Context) {
	var sent int64
	var since time.Duration // boot time at which the log was closed and control refused it
	for wait := 100 * time.Millisecond; ; {
		l.mu.Lock()
		size, closed := l.size, l.closed
		l.mu.Unlock()
		if sent >= size {
			if closed {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-l.grown:
			}
			continue
		}
		n, err := l.chunk(ctx, sent, min(size-sent, logChunk))
		if err == nil {
			sent, wait = n, 100*time.Millisecond
			continue
		}
		var p *api.Problem
		refused := errors.As(err, &p)
		if ctx.Err() != nil || (refused && p.Code == "denied") {
			return
		}
		l.a.o.Log.Warn("log", "step", l.h.Item, "err", err)
		if now := machine.BootTime(); closed && refused {
			if since == 0 {
				since = now
			}
			if now-since > healing {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}

// path is where control takes the log.
func (l *logSink) path() string {
	return fmt.Sprintf("/releases/%s/logs/%s/%d", l.h.Release, l.h.Item, l.h.Epoch)
}

// store puts the log into this machine's depot and control's. Control makes the
// blob from what was sent to it; whatever keeps it from that, the log is sent as
// any other blob is.
func (l *logSink) store(ctx context.Context) (string, error) {
	dg, _, err := l.a.o.Depot.PutFile(ctx, l.file.Name())
	if err != nil {
		return "", err
	}
	tried, cancel := l.a.briefly(ctx)
	defer cancel()
	if err := l.a.o.Client.Do(tried, http.MethodPost, l.path()+"/keep", api.LogDigest{Digest: dg}, nil); err != nil {
		l.a.o.Log.Debug("control does not keep the log that it has: it is sent again", "step", l.h.Item, "err", err)
	}
	return dg, again(ctx, func() error { return l.a.send(ctx, dg) })
}

// chunk sends some bytes and gives the offset to go on from.
func (l *logSink) chunk(ctx context.Context, at, n int64) (int64, error) {
	ctx, cancel := l.a.briefly(ctx)
	defer cancel()
	path := fmt.Sprintf("%s?offset=%d", l.path(), at)
	res, err := l.a.o.Client.Open(ctx, http.MethodPost, path, io.NewSectionReader(l.file, at, n), nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var has api.LogSize
	if err := json.NewDecoder(res.Body).Decode(&has); err != nil {
		return 0, &api.UnreachableError{Address: l.a.o.Client.Address(), Sent: true, Err: err}
	}
	if has.Size < 0 || has.Size > at+n {
		return 0, fmt.Errorf("control says that the log has %d bytes, and %d were sent", has.Size, at+n)
	}
	return has.Size, nil
}
