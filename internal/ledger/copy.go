package ledger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"trysail/evidence"
)

// Copy is a stream on this machine's disk: one line an event, in a file that is
// only appended to. What Append acknowledged is synced.
type Copy struct {
	file *os.File
	Tree evidence.Tree
	path string
}

// TornError says that a copy is damaged, and from which line on.
type TornError struct {
	File string
	Line int64
	What string
}

func (e *TornError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.What) }

// Hint says what to do.
func (e *TornError) Hint() string {
	return "recover from another agent's copy, or remove this one: it is fetched again"
}

// OpenCopy opens the copy of a stream in a directory, made if need be. A last
// line without an end is what a power loss leaves behind: it was never
// acknowledged, and is cut off.
func OpenCopy(dir, stream string) (*Copy, error) {
	if err := checkName(stream); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := copyFile(dir, stream)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c := &Copy{file: f, path: path}
	lines, whole, err := readLines(f)
	if err == nil {
		for _, l := range lines {
			if err = c.Tree.Add(l); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = f.Truncate(whole)
	}
	if err == nil {
		_, err = f.Seek(whole, io.SeekStart)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("copy of the ledger: %w", err)
	}
	return c, nil
}

// readLines gives the whole lines of a file and where they end.
func readLines(f *os.File) (lines [][]byte, whole int64, err error) {
	r := bufio.NewReaderSize(f, 1<<16)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return lines, whole, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if len(line) > maxLine+1 {
			return nil, 0, &TornError{f.Name(), int64(len(lines)) + 1, "the line is too long for an event"}
		}
		lines, whole = append(lines, bytes.TrimSuffix(line, []byte("\n"))), whole+int64(len(line))
	}
}

// Append writes lines after the first n and syncs them. Lines before n that are
// given again are passed over, so that a lost acknowledgement does no harm.
func (c *Copy) Append(after int64, lines [][]byte) error {
	if after < 0 || after > c.Tree.Size() {
		return fmt.Errorf("copy of the ledger: event %d follows event %d", after+1, c.Tree.Size())
	}
	skip := min(c.Tree.Size()-after, int64(len(lines)))
	var buf bytes.Buffer
	for _, l := range lines[skip:] {
		if len(l) > maxLine || bytes.ContainsRune(l, '\n') {
			return fmt.Errorf("copy of the ledger: an event of %d bytes is no line of at most %d", len(l), maxLine)
		}
		buf.Write(l)
		buf.WriteByte('\n')
	}
	if buf.Len() == 0 {
		return nil
	}
	at, err := c.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	_, err = c.file.Write(buf.Bytes())
	if err == nil {
		err = c.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("copy of the ledger: %w", err), c.file.Truncate(at))
	}
	for _, l := range lines[skip:] {
		if err := c.Tree.Add(l); err != nil {
			return err
		}
	}
	return nil
}

// Size is the number of events that are safe here.
func (c *Copy) Size() int64 { return c.Tree.Size() }

// Close closes the file.
func (c *Copy) Close() error { return c.file.Close() }

// ReadCopy gives the lines of a copy.
func ReadCopy(dir, stream string) ([][]byte, error) {
	f, err := os.Open(copyFile(dir, stream))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines, _, err := readLines(f)
	return lines, err
}

// Copies lists the streams of which a directory holds copies.
func Copies(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if n, ok := strings.CutSuffix(e.Name(), ".jsonl"); ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
