package control

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"trysail/internal/api"
)

// maxLog bounds the log of one lease on control's disk. An agent keeps a little
// less, so that its word about what was left out fits.
const maxLog = 257 << 20

// logFile names the log of one lease; the release and the step must exist.
func (c *Control) logFile(r *http.Request) (string, int64, error) {
	version, item := r.PathValue("version"), r.PathValue("item")
	st := c.state(version)
	if st == nil {
		return "", 0, &NotFoundError{"release " + version}
	}
	if st.Item(item) == nil {
		return "", 0, &NotFoundError{"step " + item + " in release " + version}
	}
	epoch, err := strconv.ParseInt(r.PathValue("epoch"), 10, 64)
	if err != nil || epoch < 1 {
		return "", 0, &NotFoundError{"run " + r.PathValue("epoch") + " of " + item}
	}
	return filepath.Join(c.o.Dir, "logs", version, fmt.Sprintf("%s.%d.log", item, epoch)), epoch, nil
}

func offsetOf(r *http.Request) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// ownLog names the log of a lease that the machine which asks holds.
func (c *Control) ownLog(q *caller, r *http.Request) (string, error) {
	file, epoch, err := c.logFile(r)
	if err != nil {
		return "", err
	}
	if !c.holds(q.machine, api.Holding{Release: r.PathValue("version"), Item: r.PathValue("item"), Epoch: epoch}) {
		return "", &DeniedError{"the lease is over: its log takes nothing more", "the step runs elsewhere"}
	}
	return file, nil
}

// keepLog makes a blob of a log that was sent, so that it need not be sent again.
// The depot refuses it if the agent, which has the original, knows another digest.
func (c *Control) keepLog(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.LogDigest](r)
	if err != nil {
		return nil, err
	}
	name, err := c.ownLog(q, r)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{"log of " + r.PathValue("item")}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, err = c.o.Depot.PutExpected(ctx, c.limitToDiskSpace(f), b.Digest)
	return nil, err
}

// appendLog adds to the log of a lease. The offset says where the bytes belong:
// an agent sends again what was not acknowledged, and nothing stands twice. The
// answer says how much there is; the agent goes on from there, also where control
// has less than it had, because it lost its disk.
func (c *Control) appendLog(_ context.Context, q *caller, r *http.Request) (any, error) {
	file, err := c.ownLog(q, r)
	if err != nil {
		return nil, err
	}
	if err := c.checkDiskSpace(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at := offsetOf(r)
	if at > info.Size() || at >= maxLog {
		return api.LogSize{Size: min(info.Size(), maxLog)}, nil
	}
	if at == 0 {
		// A machine that started again begins its step, and the log, anew.
		if err := f.Truncate(0); err != nil {
			return nil, err
		}
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(r.Body, maxLog-at))
	if err != nil {
		return nil, err
	}
	c.logGrew()
	return api.LogSize{Size: at + n}, nil
}

// readLog answers with a log from an offset on; with follow, until the lease ends, or
// whoever reads may not any more.
func (c *Control) readLog(w http.ResponseWriter, r *http.Request) {
	err := c.mayReadLogs(r)
	var file string
	var epoch int64
	if err == nil {
		file, epoch, err = c.logFile(r)
	}
	var s *stream
	if err == nil {
		s, err = c.stream(r.PathValue("version"))
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	at, follow := offsetOf(r), r.URL.Query().Get("follow") == "true"
	for {
		s.mu.Lock()
		news := s.news.next()
		s.mu.Unlock()
		grown := c.moreLog()
		ended := !c.leased(r.PathValue("version"), r.PathValue("item"), epoch)
		size, err := sizeOf(file)
		if err == nil {
			err = c.mayReadLogs(r) // after the size: what came since then is asked for again
		}
		var n int64
		if err == nil {
			n, err = copyFrom(w, file, at, size)
		}
		at += n
		if err != nil {
			c.o.Log.Debug("log", "file", file, "err", err)
			return
		}
		if !follow || ended {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case <-r.Context().Done():
			return
		case <-c.over:
			return
		case <-grown:
		case <-news:
		case <-time.After(5 * time.Second):
		}
	}
}

// mayReadLogs refuses whoever may not.
func (c *Control) mayReadLogs(r *http.Request) error {
	q, err := c.caller(r)
	if err == nil && !q.may(Viewer) {
		err = &DeniedError{q.name() + " may not read logs", "use a token"}
	}
	return err
}

func (c *Control) leased(version, item string, epoch int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.leases.of[version][item]
	return ok && l.Epoch == epoch
}

// sizeOf is how much of a log there is.
func sizeOf(file string) (int64, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // nothing was written yet
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// copyFrom copies a part of a log: a step may write faster than a reader takes it.
func copyFrom(w io.Writer, file string, at, end int64) (int64, error) {
	if at >= end {
		return 0, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(w, io.LimitReader(f, end-at))
}

// linesOf are a stream's after some event; those of releases are folded, and here.
func (c *Control) linesOf(ctx context.Context, name string, after int64) ([][]byte, error) {
	s := c.streamOf(name)
	if s == nil {
		return c.o.Ledger.Read(ctx, name, after)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[min(int(after), len(s.lines)):], nil
}

// readStream gives a stream's lines after some event, for a copy of the ledger.
func (c *Control) readStream(w http.ResponseWriter, r *http.Request) {
	q, err := c.caller(r)
	if err == nil && q.machine == "" && !q.may(Operator) {
		err = &DeniedError{q.name() + " may not copy the ledger", "use a token with role operator"}
	}
	var lines [][]byte
	var signed []byte
	if err == nil {
		after, aerr := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
		if aerr != nil || after < 0 {
			after = 0
		}
		lines, err = c.linesOf(r.Context(), r.PathValue("stream"), after)
		if err == nil {
			signed, err = c.signCopy(r.Context(), r.PathValue("stream"), after+int64(len(lines)))
		}
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	if signed != nil {
		w.Header().Set(api.CheckpointHeader, base64.StdEncoding.EncodeToString(signed))
	}
	for _, l := range lines {
		if _, err := w.Write(append(slices.Clip(l), '\n')); err != nil {
			return
		}
	}
}
