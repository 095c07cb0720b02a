// Package compare says where two files differ, and why.
//
// It answers two questions. The first is a person's: the digests of what two
// builds made differ, so which member of which archive, which section of which
// program is it, and is it a time stamp? [Files] opens archives and
// compressions as deep as they go and gives a short list.
//
// The second is the proof's: does a rebuilt machine differ only where the
// captured machine differs from itself? There are then three versions of each
// output: what the captured machine made first (a), what it made again (b), and
// what the rebuilt machine made (c). The verdict equivalent needs that c
// differs from a in no other way than b does. The rule is this:
//
//   - Everything is measured on a, so that both comparisons speak about the
//     same places. A place is a field of an archive member (its time, owner,
//     mode …), the order of an archive's members or of a text's lines, or an
//     interval of the content of a member, section or file.
//   - A place of a and b is as wide as the thing that varies and no wider: a
//     whole time stamp and not only its seconds, a whole hexadecimal token,
//     else one run of digits or letters. The time zone of a time stamp is not
//     part of it, nor is anything else in its line: those are other places.
//   - Each place in which c differs from a must lie within a place in which b
//     differs from a, and must be of the same kind: where a and b have two time
//     stamps, c must have a time stamp.
//   - Fields that do not vary freely (owner, mode, format) must have the value
//     that a or b had.
//   - What cannot be looked into excuses nothing. Where a and b are opaque and
//     differ throughout (other length, encrypted, torn, too many places), the
//     rebuilt machine could hide anything there, so the verdict is different.
//     Small random data, such as a signature of up to 4 KiB, is let pass.
//   - What follows from other content is not compared again: checksums, sizes,
//     and the compressed stream around content that differs (but its settings
//     are). Every byte of content is in some place.
//
// The second build of gold is judged by the same rule. There the machine that
// built twice is the second one, and gold is the third version.
//
// So a false "equivalent" needs a difference of the machine inside the very
// token that also varies without it. A false "different" needs something that
// varies but happened to be equal in the two builds of the captured machine,
// such as a date without a time; there the verdict names the place, and a
// person decides.
//
// Inputs may be hostile: torn archives, bombs, members without end. What cannot
// be opened is compared as bytes; expanded content goes to unlinked scratch
// files within a budget; depth, members and places are limited.
package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"trysail/blueprint"
)

// The causes of a difference; the empty cause is an unknown one.
const (
	CauseTime        = "time stamp"
	CausePath        = "path"
	CauseOrder       = "order"
	CauseBuildID     = "build id"
	CauseOwner       = "owner"
	CauseMode        = "mode"
	CauseCompression = "compression"
	CauseRandom      = "random data"
)

// The limits that keep a comparison finite.
const (
	maxDepth       = 8       // archives in archives
	maxMembers     = 200_000 // of one archive
	maxPlaces      = 400_000 // of one comparison
	maxRuns        = 50_000  // differing runs of bytes of one content
	maxInMemory    = 1 << 20 // of expanded content; more goes to a scratch file
	maxWhole       = 16 << 20
	maxDifferences = 200
)

// File is one version of a file.
type File struct {
	io.ReaderAt
	Size int64
}

// Bytes makes a File of bytes.
func Bytes(data []byte) File { return File{bytes.NewReader(data), int64(len(data))} }

func (f File) section(off, n int64) File { return File{io.NewSectionReader(f, off, n), n} }

func (f File) stream() io.Reader { return io.NewSectionReader(f, 0, f.Size) }

// read reads the whole of a small file.
func (f File) read() ([]byte, error) {
	data := make([]byte, f.Size)
	n, err := f.ReadAt(data, 0)
	if n == len(data) {
		return data, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// head reads up to n bytes of the beginning.
func (f File) head(n int64) []byte {
	data, err := f.section(0, min(n, f.Size)).read()
	if err != nil {
		return nil
	}
	return data
}

// Options say how to compare.
type Options struct {
	// Scratch is a directory for expanded content; "" is the system's.
	Scratch string
	// Itself is the comparison of the first file with what the same machine
	// made again; nil if that is not known.
	Itself *Report
	Budget int64 // bytes of expanded content; 0: by the size of the files
}

// Report is the result of one comparison.
type Report struct {
	// Differences lists every place, in a deterministic order, with like places
	// put together, and at most 200 of them.
	Differences []blueprint.Difference
	// Beyond lists those that Options.Itself does not excuse, in the same way.
	// It is empty if the files are equal or differ in no other way.
	Beyond []blueprint.Difference
	// Excused lists the others.
	Excused []blueprint.Difference
	places  map[string]*place
	full    bool // more places than are kept
}

// Files compares two versions of one file. An error is a failure to read them;
// content that cannot be understood is compared as bytes.
func Files(ctx context.Context, name string, a, b File, o Options) (*Report, error) {
	w := &walker{ctx: ctx, scratch: o.Scratch, budget: o.Budget, rep: &Report{places: map[string]*place{}}, groups: map[string]*group{}, unopened: map[string]string{}}
	if o.Itself != nil {
		w.known, w.itself, w.itselfFull = true, o.Itself.places, o.Itself.full
	}
	if w.budget == 0 {
		w.budget = min(256<<20+200*(a.Size+b.Size), 64<<30)
	}
	w.work = 8 * w.budget
	if w.scratch == "" {
		w.scratch = os.TempDir()
	}
	if err := w.content(name, a, b, 0); err != nil {
		return nil, fmt.Errorf("compare %s: %w", name, err)
	}
	w.finish(name)
	return w.rep, nil
}

// walker is one comparison under way.
type walker struct {
	ctx        context.Context
	scratch    string
	budget     int64 // of expanded content that is kept at once
	work       int64 // of expanded content in all
	itself     map[string]*place
	itselfFull bool
	known      bool // itself is
	rep        *Report
	groups     map[string]*group
	unopened   map[string]string // why, by path
	order      []*group
	found      int // differences so far
	// dropped differences are in groups that are not kept any more.
	dropped, droppedBeyond int
}

// notThis says that content is not in the format that it looked like.
type notThis struct{ err error }

func (e *notThis) Error() string { return e.err.Error() }

func (e *notThis) Unwrap() error { return e.err }

// content compares two contents of any kind.
func (w *walker) content(path string, a, b File, depth int) error {
	off, err := w.differ(a, b)
	if err != nil || off < 0 {
		return err
	}
	if depth < maxDepth {
		if open := opener(a, b); open != nil {
			before := w.found
			mark := w.mark()
			err := guard(func() error { return open(w, path, a, b, depth) })
			var not *notThis
			switch {
			case err == nil && w.found > before:
				return nil
			case err == nil:
				// All that was understood is equal: the difference is in the form.
				cause := CauseCompression
				if k := kindOf(a); k == "tar" || k == "ar" {
					cause = ""
				}
				return w.binary(path, "form", cause, a, b)
			case !errors.As(err, &not):
				return err
			}
			w.rollback(mark)
			w.unopened[path] = not.Error()
		}
	}
	if segments := segmenter(a, b); segments != nil {
		done, err := w.segmented(path, segments, a, b)
		if done || err != nil {
			return err
		}
	}
	if done, err := w.text(path, a, b); done || err != nil {
		return err
	}
	return w.binary(path, "", "", a, b)
}

// guard turns a panic of a parser on hostile input into its refusal.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &notThis{fmt.Errorf("not readable: %v", r)}
		}
	}()
	return f()
}

// differ gives the offset of the first difference, or -1.
func (w *walker) differ(a, b File) (int64, error) {
	const chunk = 1 << 16
	x, y := make([]byte, chunk), make([]byte, chunk)
	n := min(a.Size, b.Size)
	for off := int64(0); off < n; off += chunk {
		if err := w.ctx.Err(); err != nil {
			return 0, err
		}
		k := min(chunk, n-off)
		if err := readFull(a, x[:k], off); err != nil {
			return 0, err
		}
		if err := readFull(b, y[:k], off); err != nil {
			return 0, err
		}
		if bytes.Equal(x[:k], y[:k]) {
			continue
		}
		for i := range k {
			if x[i] != y[i] {
				return off + i, nil
			}
		}
	}
	if a.Size != b.Size {
		return n, nil
	}
	return -1, nil
}

func readFull(f File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// opener finds how to open both contents, by their first bytes.
func opener(a, b File) func(*walker, string, File, File, int) error {
	k := kindOf(a)
	if k == "" || k != kindOf(b) {
		return nil
	}
	switch k {
	case "gzip":
		return (*walker).gzip
	case "xz", "zstd", "bzip2":
		return func(w *walker, path string, a, b File, depth int) error { return w.compressed(k, path, a, b, depth) }
	case "zip":
		return (*walker).zip
	case "ar":
		return (*walker).ar
	case "tar":
		return (*walker).tar
	}
	return nil
}

func kindOf(f File) string {
	h := f.head(512)
	for _, m := range []struct{ magic, kind string }{
		{"\x1f\x8b\x08", "gzip"},
		{"\xfd7zXZ\x00", "xz"},
		{"\x28\xb5\x2f\xfd", "zstd"},
		{"BZh", "bzip2"},
		{"PK\x03\x04", "zip"},
		{"PK\x05\x06", "zip"},
		{"!<arch>\n", "ar"},
	} {
		if bytes.HasPrefix(h, []byte(m.magic)) {
			return m.kind
		}
	}
	if len(h) == 512 && (string(h[257:262]) == "ustar" || oldTar(h)) {
		return "tar"
	}
	return ""
}
