package compare

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// budgetError says that content expands beyond what may be used for it.
type budgetError struct{ limit int64 }

func (e *budgetError) Error() string {
	return fmt.Sprintf("its content expands beyond %d bytes", e.limit)
}

// spool expands a stream into memory, or an unlinked scratch file where it is long.
func (w *walker) spool(r io.Reader) (f File, done func(), err error) {
	done = func() {}
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(r, maxInMemory+1))
	if err != nil {
		return f, done, &notThis{err}
	}
	if n <= maxInMemory {
		if n > min(w.budget, w.work) {
			return f, done, &notThis{&budgetError{w.budget}}
		}
		w.budget -= n
		w.work -= n
		return Bytes(buf.Bytes()), func() { w.budget += n }, nil
	}
	t, err := os.CreateTemp(w.scratch, "compare-")
	if err != nil {
		return f, done, fmt.Errorf("scratch file: %w", err)
	}
	done = func() { t.Close() }
	if err := os.Remove(t.Name()); err != nil {
		done()
		return f, func() {}, err
	}
	if _, err := t.Write(buf.Bytes()); err != nil {
		done()
		return f, func() {}, fmt.Errorf("scratch file: %w", err)
	}
	torn := &reading{r: contextReader{w, r}}
	limit := max(0, min(w.budget, w.work))
	m, err := io.Copy(t, io.LimitReader(torn, max(0, limit-n)+1))
	w.work -= n + m
	switch {
	case torn.err != nil && w.ctx.Err() == nil:
		err = &notThis{torn.err}
	case err != nil:
		err = fmt.Errorf("scratch file: %w", err)
	case n+m > limit:
		err = &notThis{&budgetError{limit}}
	}
	if err != nil {
		done()
		return f, func() {}, err
	}
	w.budget -= n + m
	return File{t, n + m}, func() { t.Close(); w.budget += n + m }, nil
}

// reading tells an error of the source from one of the scratch file.
type reading struct {
	r   io.Reader
	err error
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

type contextReader struct {
	w *walker
	r io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.w.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// both expands two streams and compares what is in them.
func (w *walker) both(path string, a, b io.Reader, depth int) error {
	x, done, err := w.spool(a)
	defer func() { done() }()
	if err != nil {
		return err
	}
	y, doneY, err := w.spool(b)
	defer func() { doneY() }()
	if err != nil {
		return err
	}
	return w.content(path, x, y, depth+1)
}

// compressed compares what is in an xz, zstd or bzip2 stream.
func (w *walker) compressed(kind, path string, a, b File, depth int) error {
	x, closeX, err := expand(kind, a)
	if err != nil {
		return &notThis{err}
	}
	defer closeX()
	y, closeY, err := expand(kind, b)
	if err != nil {
		return &notThis{err}
	}
	defer closeY()
	if err := w.both(path, x, y, depth); err != nil {
		return err
	}
	// The first bytes say how it was compressed.
	n := map[string]int64{"xz": 12, "zstd": 5, "bzip2": 4}[kind]
	if p, q := a.head(n), b.head(n); !bytes.Equal(p, q) {
		w.field("", path, kind+" header", CauseCompression, string(q), fmt.Sprintf("compressed with other settings: %x instead of %x", q, p))
	}
	return nil
}

func expand(kind string, f File) (io.Reader, func(), error) {
	in := bufio.NewReaderSize(f.stream(), 1<<16)
	switch kind {
	case "xz":
		return &xzReader{in: in}, func() {}, nil
	case "zstd":
		r, err := Zstd(in)
		if err != nil {
			return nil, nil, err
		}
		return r, func() { r.Close() }, nil
	default:
		return bzip2.NewReader(in), func() {}, nil
	}
}

// gzip compares the headers of gzip members and what is in them.
func (w *walker) gzip(path string, a, b File, depth int) error {
	x, err := gzip.NewReader(bufio.NewReaderSize(a.stream(), 1<<16))
	if err != nil {
		return &notThis{err}
	}
	defer x.Close()
	y, err := gzip.NewReader(bufio.NewReaderSize(b.stream(), 1<<16))
	if err != nil {
		return &notThis{err}
	}
	defer y.Close()
	p, q := x.Header, y.Header
	// Headers of further members are in no place: two files of several members
	// whose content is the same differ in form.
	if err := w.both(path, x, y, depth); err != nil {
		return err
	}
	if !p.ModTime.Equal(q.ModTime) {
		w.field("", path, "gzip time", CauseTime, "", "gzip header: time "+stamp(q.ModTime)+" instead of "+stamp(p.ModTime))
	}
	if p.Name != q.Name {
		w.field("", path, "gzip name", nameCause(p.Name, q.Name), q.Name, "gzip header: name "+excerpt(q.Name)+" instead of "+excerpt(p.Name))
	}
	if p.Comment != q.Comment || !bytes.Equal(p.Extra, q.Extra) {
		w.field("", path, "gzip extra", "", q.Comment+"\x00"+string(q.Extra), "gzip header: other comment or extra field")
	}
	// Byte 8 tells the level, byte 9 the operating system.
	if h, k := a.head(10), b.head(10); len(h) == 10 && len(k) == 10 && (!bytes.Equal(h[8:], k[8:]) || h[3] != k[3]) {
		w.field("", path, "gzip settings", CauseCompression, string(k[3:4])+string(k[8:]), "compressed with other settings")
	}
	return nil
}

func nameCause(a, b string) string {
	switch {
	case masked([]byte(a)) == masked([]byte(b)):
		return CauseTime
	case strings.HasPrefix(a, "/") && strings.HasPrefix(b, "/"):
		return CausePath
	}
	return ""
}

func stamp(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return "none"
	}
	return t.UTC().Format("2006-01-02T15:04:05.999999999Z07:00")
}
