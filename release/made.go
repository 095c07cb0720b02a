package release

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The limits of one result. A step whose result is over one of them fails.
const (
	mostAttributes = 64 << 10 // bytes of one file's, as much as a file system keeps

	MostFiles   = 1_000_000
	MostBytes   = 1_000_000_000_000 // of all files
	MostFailing = 10_000            // characters of the names of failing tests
	MostPath    = 4000              // bytes of one path
	MostList    = 512 << 20         // bytes of the list of files
)

// Few is how many files an event names one by one, and fewBytes how long their list may be.
// Where there are more, the depot keeps the list and the event has its digest.
const (
	Few      = 200
	fewBytes = 64 << 10
	firstFew = 5
)

// List is what an event says of a list of files in the depot ([WriteList]).
type List struct {
	Tree string `json:"tree,omitempty"` // digest of the list; "" where an event names the files
	// Untimed is the digest of the list without times, which is what people sign; "": it has none.
	Untimed string   `json:"untimed,omitempty"`
	Files   int      `json:"files,omitempty"`
	Bytes   int64    `json:"bytes,omitempty"` // of them all
	First   []string `json:"first,omitempty"` // some of their paths, for people
}

// Made is what a step made: its files, or the list of its files.
type Made struct {
	Outputs []Artifact `json:"outputs,omitempty"`
	List
}

// Made is what the step made.
func (f Finished) Made() Made { return made(f.Outputs, f.List) }

// Made is what ships.
func (g Gold) Made() Made { return made(g.Outputs, g.List) }

func made(files []Artifact, l List) Made {
	if l.Tree != "" {
		return Made{List: l}
	}
	m := Made{Outputs: files, List: List{Files: len(files)}}
	for _, a := range files {
		m.Bytes += a.Size
	}
	return m
}

// FitsEvent tells whether files are few enough, and their names short enough, to stand in an
// event. The list of more is written to the depot ([WriteList]).
func FitsEvent(list []Artifact) bool {
	size := 0
	for i := 0; i < len(list) && i <= Few && size <= fewBytes; i++ {
		size += len(list[i].Path) + len(list[i].Link) + len(list[i].HardLink) + 150
		for name, value := range list[i].Attributes {
			size += len(name) + 4*len(value)/3 + 8
		}
	}
	return len(list) <= Few && size <= fewBytes
}

// WriteList writes the list of files, a line each, sorted by path. What it gives is what an
// event keeps of them.
func WriteList(w io.Writer, list []Artifact) (Made, error) {
	byPath := func(a, b Artifact) int { return strings.Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(list, byPath) {
		list = slices.SortedFunc(slices.Values(list), byPath)
	}
	m, sum, size := Made{}, newSums(), int64(0)
	out := bufio.NewWriter(w)
	for _, a := range list {
		line, err := sum.add(a)
		if err != nil {
			return m, err
		}
		if size += int64(len(line)); size > MostList {
			return m, &LimitError{fmt.Sprintf("the list of its %d files has more than %d MB: their names are too long", len(list), MostList>>20)}
		}
		if _, err := out.Write(line); err != nil {
			return m, err
		}
		m.count(a)
	}
	m.Tree, m.Untimed = sum.digests()
	return m, out.Flush()
}

// sums are the digests of a list of files, with times and without.
type sums struct {
	all, same hash.Hash
	timed     bool
}

func newSums() *sums { return &sums{all: sha256.New(), same: sha256.New()} }

// add counts a file in, and gives its line.
func (s *sums) add(a Artifact) ([]byte, error) {
	line, err := a.line()
	s.all.Write(line)
	if err != nil || a.Modified.IsZero() {
		s.same.Write(line)
		return line, err
	}
	s.timed = true
	untimed, err := a.Untimed().line()
	s.same.Write(untimed)
	return line, err
}

// digests gives the second only where a file has a time.
func (s *sums) digests() (all, same string) {
	if all = digest(s.all); s.timed {
		same = digest(s.same)
	}
	return all, same
}

// Untimed is the artifact without its time.
func (a Artifact) Untimed() Artifact {
	a.Modified = time.Time{}
	return a
}

func (m *Made) count(a Artifact) {
	m.Files++
	m.Bytes += a.Size
	if len(m.First) < firstFew {
		m.First = append(m.First, a.Path)
	}
}

func digest(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// line is an artifact in the list: one line of JSON, written in one way.
func (a Artifact) line() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(a)
	return b.Bytes(), err
}

// Digest is that of the list of files without times, whether an event names them or the list:
// one for the same files.
func (m Made) Digest() string {
	if m.Tree == "" {
		n, err := WriteList(io.Discard, m.Outputs)
		if err != nil {
			return "" // strings and numbers always marshal
		}
		m = n
	}
	if m.Untimed != "" {
		return m.Untimed
	}
	return m.Tree
}

// unfinished says why a result is that of a step which ended before its work was done, so
// that no waiver of a test makes it good; "" if it is not.
func (f Finished) unfinished() string {
	switch {
	case f.Exit != 0:
		return ""
	case f.Signal != "":
		return "it ended by a signal: " + f.Signal
	case f.Status != 0 && len(f.Failing) == 0:
		return fmt.Sprintf("exit status %d, and its results name no failing test", f.Status)
	}
	return ""
}

// Without is the result without what it made and which tests failed: that of a failure for
// another reason.
func (f Finished) Without() Finished {
	f.Outputs, f.List, f.Failing = nil, List{}, nil
	return f
}

// wrong says why no event can have such a result.
func (f Finished) wrong() string {
	m, list := f.Made(), f.Outputs
	switch {
	case f.unfinished() != "":
		return f.unfinished()
	case m.Tree == "":
		return ""
	case !digestRE.MatchString(m.Tree):
		return fmt.Sprintf("%q is no digest of a list of files", m.Tree)
	case m.Untimed != "" && !digestRE.MatchString(m.Untimed):
		return fmt.Sprintf("%q is no digest of a list of files", m.Untimed)
	case len(list) > 0:
		return "it names its files and a list of them"
	case m.Files < 1 || m.Bytes < 0 || len(m.First) > firstFew:
		return "it counts the files of its list in a way that no list has"
	}
	return ""
}

// LimitError says which limit a result is over.
type LimitError struct{ What string }

func (e *LimitError) Error() string { return e.What }

// Over says which limit a result is over; nil if none. Each file is checked too where the
// result names them; [ReadList] checks those of a list.
func (f Finished) Over() error {
	m, names := f.Made(), 0
	for _, t := range f.Failing {
		names += utf8.RuneCountInString(t)
	}
	switch {
	case m.Files > MostFiles:
		return &LimitError{fmt.Sprintf("it made %d files, and %d is the most: let it make an archive of them", m.Files, MostFiles)}
	case m.Bytes > MostBytes:
		return &LimitError{fmt.Sprintf("it made %d GB, and %d GB is the most", m.Bytes/1_000_000_000, MostBytes/1_000_000_000)}
	case names > MostFailing:
		return &LimitError{fmt.Sprintf("%d tests failed, and their names have %d characters, of which %d is the most: that is no test that a person can waive", len(f.Failing), names, MostFailing)}
	}
	var c checker
	for _, a := range m.Outputs {
		if err := c.next(a); err != nil {
			return err
		}
	}
	return nil
}

var (
	digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	modeRE   = regexp.MustCompile(`^[0-7]{4}$`)
)

// NameError says why a name cannot be handed on.
type NameError struct{ Path, What string }

func (e *NameError) Error() string { return fmt.Sprintf("the name %s %s", quoted(e.Path), e.What) }

// Hint says what to do.
func (e *NameError) Hint() string { return "let the step give it another name" }

// quoted is a name on one line, cut where it is too long for a message.
func quoted(name string) string {
	if len(name) > 200 {
		return fmt.Sprintf("%q…", name[:200])
	}
	return fmt.Sprintf("%q", name)
}

// CheckPath refuses a name that no list and no bundle can hold. What a file system and tar
// can hold is taken, if it is UTF-8: JSON and checksum files hold nothing else.
func CheckPath(name string) error {
	switch {
	case !utf8.ValidString(name):
		return &NameError{name, "is not UTF-8"}
	case len(name) > MostPath:
		return &NameError{name, fmt.Sprintf("has %d bytes, and %d is the most", len(name), MostPath)}
	case name == "" || name == "." || strings.ContainsRune(name, 0) || path.IsAbs(name) || path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../"):
		return &NameError{name, "leaves its directory, or is written in another way than usual"}
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > 255 {
			return &NameError{name, "has a part of more than 255 bytes, which no file system holds"}
		}
	}
	return nil
}

// Belongs gives the numbers of the user whom the artifact belongs to, if that is another than
// the user whom the step ran as.
func (a Artifact) Belongs() (uid, gid int, other bool) {
	user, group, _ := strings.Cut(a.Owner, ":")
	u, uerr := strconv.ParseUint(user, 10, 32)
	g, gerr := strconv.ParseUint(group, 10, 32)
	const nobody = 1<<32 - 1 // chown takes it for "leave it as it is"
	if uerr != nil || gerr != nil || u == nobody || g == nobody || a.Owner != fmt.Sprintf("%d:%d", u, g) {
		return 0, 0, false
	}
	return int(u), int(g), true
}

// check refuses an artifact that is none.
func (a Artifact) check() error {
	if err := CheckPath(a.Path); err != nil {
		return err
	}
	file, link, dir := a.Digest != "", a.Link != "", a.Dir
	_, _, belongs := a.Belongs()
	what := ""
	switch {
	case file && (link || dir) || link && dir || !file && !link && !dir:
		what = "is to be a file, a link or a directory"
	case file && !digestRE.MatchString(a.Digest):
		what = fmt.Sprintf("has %q for a digest", a.Digest)
	case a.Size < 0 || a.Size > MostBytes:
		what = fmt.Sprintf("has %d bytes", a.Size)
	case a.Mode != "" && !modeRE.MatchString(a.Mode), a.Mode == "" && !link:
		what = fmt.Sprintf("has the mode %q", a.Mode)
	case len(a.Link) > 4096 || !utf8.ValidString(a.Link) || strings.ContainsRune(a.Link, 0):
		what = fmt.Sprintf("leads to %s, which no link can", quoted(a.Link))
	case a.Owner != "" && !belongs:
		what = fmt.Sprintf("belongs to %s, which is no UID:GID", quoted(a.Owner))
	case a.HardLink != "" && (!file || a.HardLink >= a.Path || CheckPath(a.HardLink) != nil):
		what = fmt.Sprintf("has the hard link %s, which is no earlier path", quoted(a.HardLink))
	case len(a.Attributes) > 0 && link:
		what = "has attributes, which no link has"
	case a.Modified.Location() != time.UTC && !a.Modified.IsZero():
		what = "has a time that is not in UTC"
	}
	size := 0
	for name, value := range a.Attributes {
		size += len(name) + len(value)
		if name == "" || len(name) > 255 || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
			what = fmt.Sprintf("has an attribute with the invalid name %s", quoted(name))
		}
	}
	if size > mostAttributes {
		what = fmt.Sprintf("has attributes of %d bytes, and the limit is %d", size, mostAttributes)
	}
	if what != "" {
		return &NameError{a.Path, what}
	}
	return nil
}

// checker holds artifacts against those before them.
type checker struct {
	last string
	open []string // paths that the last one begins with
}

func (c *checker) next(a Artifact) error {
	if err := a.check(); err != nil {
		return err
	}
	if a.Path <= c.last {
		return &NameError{a.Path, fmt.Sprintf("follows %s: files are sorted, and stand once", quoted(c.last))}
	}
	for len(c.open) > 0 && !strings.HasPrefix(a.Path, c.open[len(c.open)-1]) {
		c.open = c.open[:len(c.open)-1]
	}
	for _, p := range c.open {
		if a.Path[len(p)] == '/' {
			return &NameError{a.Path, fmt.Sprintf("is below %s, which has nothing below it", quoted(p))}
		}
	}
	if c.last = a.Path; !a.Dir {
		c.open = append(c.open, a.Path)
	}
	return nil
}

// ReadList reads a list of files line by line, and refuses one that is not written as
// [WriteList] does: another order or spelling, a name twice, a file below a file. It keeps
// nothing but what it counts.
func ReadList(r io.Reader, each func(Artifact) error) (Made, error) {
	m, sum, c := Made{}, newSums(), checker{}
	in := bufio.NewReaderSize(io.LimitReader(r, MostList+1), 64<<10)
	var size int64
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			m.Tree, m.Untimed = sum.digests()
			return m, nil
		}
		size += int64(len(line))
		fail := func(err error) (Made, error) {
			return m, fmt.Errorf("line %d of the list of files: %w", m.Files+1, err)
		}
		switch {
		case errors.Is(err, io.EOF):
			return fail(errors.New("it has no end"))
		case err != nil:
			return m, err
		case size > MostList || m.Files >= MostFiles:
			return fail(&LimitError{fmt.Sprintf("a list has at most %d files and %d MB", MostFiles, MostList>>20)})
		}
		var a Artifact
		if err := json.Unmarshal(line, &a); err != nil {
			return fail(err)
		}
		again, err := sum.add(a)
		if err != nil {
			return fail(err)
		}
		if !bytes.Equal(again, line) {
			return fail(errors.New("it is not written as a list of files is"))
		}
		if err := c.next(a); err != nil {
			return fail(err)
		}
		m.count(a)
		if err := each(a); err != nil {
			return m, err
		}
	}
}

// Is says how a list that was read differs from what an event says of it; nil if not.
func (m Made) Is(said Made) error {
	switch {
	case m.Tree != said.Tree:
		return fmt.Errorf("the list of files is %s, and not %s", m.Tree, said.Tree)
	case m.Untimed != said.Untimed:
		return fmt.Errorf("the list of files without times is %s, and not %s", m.Untimed, said.Untimed)
	case m.Files != said.Files, m.Bytes != said.Bytes:
		return fmt.Errorf("the list has %d files of %d bytes, and not %d of %d", m.Files, m.Bytes, said.Files, said.Bytes)
	case !slices.Equal(m.First, said.First):
		return errors.New("the list begins with other files")
	}
	return nil
}

// Each visits what a step made. open gives the list of a digest, where there is one: a list
// that is another than the event says is an error, after its files were visited.
func (m Made) Each(open func(digest string) (io.ReadCloser, error), visit func(Artifact) error) error {
	if m.Tree == "" {
		for _, a := range m.Outputs {
			if err := visit(a); err != nil {
				return err
			}
		}
		return nil
	}
	r, err := open(m.Tree)
	if err != nil {
		return fmt.Errorf("the list of files: %w", err)
	}
	defer r.Close()
	got, err := ReadList(r, visit)
	if err != nil {
		return err
	}
	return got.Is(m)
}
