package agent

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trysail/internal/api"
	"trysail/internal/build"
	"trysail/internal/tree"
)

const (
	maxResults = 64 << 20 // bytes of one file
	maxFailing = 1000     // names; what fails more is broken as a whole
	maxName    = 400      // bytes of one: a person reads it, and the ledger keeps it for ever
	maxDepth   = 100      // elements in one another: a decoder remembers each
	maxAttrs   = 100      // attributes of one element: ten times as many bytes when they are read
)

// junit reads one file of test results in JUnit's format: how many tests there
// are and which failed. Suites may hold suites. A file that ends too early, or
// holds no test, is an error: results that cannot be read are not good ones.
func junit(r io.Reader) (tests int, failing []string, err error) {
	in := &frugal{in: bufio.NewReader(r)}
	d := xml.NewDecoder(in)
	name, depth, bad := "", 0, false
	for {
		in.begin()
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return 0, nil, errors.New("its elements are nested deeper than " + strconv.Itoa(maxDepth) + " deep")
			}
			switch t.Name.Local {
			case "testcase":
				name, bad = testName(t.Attr), false
			case "failure", "error":
				bad = true
			}
		case xml.EndElement:
			depth--
			if t.Name.Local == "testcase" {
				tests++
				if bad && !slices.Contains(failing, name) {
					if failing = append(failing, name); len(failing) > maxFailing {
						return 0, nil, errors.New("more than " + strconv.Itoa(maxFailing) + " tests failed: that is no test that a person can waive")
					}
				}
			}
		}
	}
	if depth != 0 || tests == 0 {
		return 0, nil, errors.New("it holds no test")
	}
	return tests, failing, nil
}

// frugal gives a decoder of XML its bytes, and no element with very many attributes. A decoder that
// can read single bytes takes those of one token and no more, or one more, the next "<".
type frugal struct {
	in    *bufio.Reader
	last  byte
	at    int  // bytes of the token
	tag   bool // it is an element
	quote byte // around the value that is read; 0: none
	attrs int
}

// begin says that the next token begins.
func (f *frugal) begin() {
	f.at, f.tag, f.quote, f.attrs = 0, f.last == '<', 0, 0
	if f.tag {
		f.at = 1
	}
}

func (f *frugal) ReadByte() (byte, error) {
	b, err := f.in.ReadByte()
	f.last, f.at = b, f.at+1
	switch {
	case err != nil:
		return 0, err
	case f.at == 1:
		f.tag = b == '<'
	case f.at == 2 && (b == '!' || b == '?'): // no element: a comment, say
		f.tag = false
	case f.tag && f.quote == 0 && (b == '"' || b == '\''):
		if f.quote, f.attrs = b, f.attrs+1; f.attrs > maxAttrs {
			return 0, errors.New("an element has more than " + strconv.Itoa(maxAttrs) + " attributes")
		}
	case b == f.quote:
		f.quote = 0
	}
	return b, nil
}

// Read is for the decoder's sake, which wants a reader.
func (f *frugal) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := f.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

func testName(attrs []xml.Attr) string {
	var class, name string
	for _, a := range attrs {
		switch a.Name.Local {
		case "classname":
			class = a.Value
		case "name":
			name = a.Value
		}
	}
	if class != "" {
		name = class + "." + name
	}
	name = strings.Join(strings.Fields(name), " ")
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}

// results are the files of test results that were there before a script began.
type results map[string]mark

// mark tells whether a file was written since.
type mark struct {
	inode   uint64
	changed syscall.Timespec // nobody can set it
}

func markOf(root *tree.Dir, name string) (mark, time.Time, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return mark{}, time.Time{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return mark{}, time.Time{}, fmt.Errorf("%s: the system says nothing of it", name)
	}
	return mark{st.Ino, st.Ctim}, info.ModTime(), nil
}

// seen finds what the globs match before the script begins: the source has it, or another
// step made it.
func seen(root *tree.Dir, dir string, globs []string) (results, error) {
	r := results{}
	if len(globs) == 0 {
		return r, nil
	}
	files, _, err := build.Outputs(dir, globs)
	var refused *build.OutputError
	if err != nil && !errors.As(err, &refused) { // what cannot be read then either fails the step
		return nil, err
	}
	for _, o := range files {
		m, _, err := markOf(root, o.Path)
		if err != nil {
			return nil, err
		}
		r[o.Path] = m
	}
	return r, nil
}

// old says why a file is none of this run; nil if it may be.
func (r results) old(root *tree.Dir, name string, begun time.Time) error {
	now, written, err := markOf(root, name)
	if err != nil {
		return err
	}
	if before, was := r[name]; was && before == now {
		return errors.New("it was there before the step began, and the step has not written it")
	}
	// Tools write times in whole seconds, archives in two.
	if written.Add(2 * time.Second).Before(begun) {
		return fmt.Errorf("its time is %s, and the step began at %s: another run wrote it, or the clock was put back meanwhile", written.UTC().Format(time.RFC3339), begun.UTC().Format(time.RFC3339))
	}
	return nil
}

// read reads what the globs match below a directory, written since the step began.
func (r results) read(dir string, globs []string, begun time.Time) (tests int, failing []string, err error) {
	files, unmatched, err := build.Outputs(dir, globs)
	if err != nil {
		return 0, nil, err
	}
	if len(unmatched) > 0 {
		return 0, nil, fmt.Errorf("no test results match %s", strings.Join(unmatched, ", "))
	}
	d, err := tree.Open(dir)
	if err != nil {
		return 0, nil, err
	}
	defer d.Close()
	for _, o := range files {
		if err := r.old(d, o.Path, begun); err != nil {
			return 0, nil, fmt.Errorf("test results %s: %w", o.Path, err)
		}
		f, err := d.Open(o.Path)
		if err != nil {
			return 0, nil, fmt.Errorf("test results %s: %w", o.Path, err)
		}
		n, bad, err := junit(io.LimitReader(f, maxResults))
		f.Close()
		if err != nil {
			return 0, nil, fmt.Errorf("test results %s: %w", o.Path, err)
		}
		tests += n
		failing = append(failing, bad...)
	}
	slices.Sort(failing)
	failing = slices.Compact(failing)
	if len(failing) > maxFailing {
		return 0, nil, fmt.Errorf("%d tests failed: that is no test that a person can waive", len(failing))
	}
	return tests, failing, nil
}

// tested reads the results of a step whose script has ended by itself. What they name is
// for a person to waive, whatever status a test program ends with when a test fails; the
// status is kept beside them. Results that cannot be read make the step fail, and so does
// a script that ended before its work was done.
func (s *step) tested(r *api.Report) {
	if len(s.as.Step.Results) == 0 {
		return
	}
	tests, failing, err := s.before.read(s.checkout, s.as.Step.Results, s.begun)
	r.Tests = tests
	switch {
	case err != nil && r.Exit == 0:
		r.Exit, r.Why = 1, err.Error()
	case err != nil:
		r.Why += "; " + err.Error()
	case cutShort(r.Exit) && len(failing) > 0:
		r.Why += fmt.Sprintf(", so its work was not done: its results name %d failing of %d tests, and no waiver makes up for that", len(failing), tests)
	case len(failing) > 0:
		r.Exit, r.Why, r.Failing = 0, "", failing
	}
}

// cutShort tells whether a script that ended so did not do all that it was to do: a shell
// ends with 126 or 127 where it could not run a command, and with 128 and more where a
// signal ended one.
func cutShort(status int) bool {
	return status == 126 || status == 127 || status > 128 && status <= 128+int(unix.SIGSYS)
}

// exitWhy is an exit status in words.
func exitWhy(status int) string {
	why := "exit status " + strconv.Itoa(status)
	switch {
	case status == 126:
		why += " (a command could not be run)"
	case status == 127:
		why += " (a command was not found)"
	case cutShort(status):
		why += " (a signal ended a command: " + syscall.Signal(status-128).String() + ")"
	}
	return why
}

// short cuts what a report says of a failure to what people read.
func short(why string) string {
	const most = 4000
	if len(why) > most {
		return strings.ToValidUTF8(why[:most], "") + "…"
	}
	return why
}
