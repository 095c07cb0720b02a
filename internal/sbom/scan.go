package sbom

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"trysail/internal/compare"
)

// The limits of a scan. Real artifacts stay far below them.
const (
	maxDepth    = 3        // archives in archives
	maxInMemory = 4 << 20  // of one member; more goes to a scratch file
	maxMetadata = 4 << 20  // a package.json, a pom.xml …
	maxProgram  = 2 << 30  // a program
	maxTable    = 96 << 20 // the table of a zip archive
	maxFound    = 200_000  // packages
	maxNotes    = 100      // places that are named as unread; the rest is counted
	maxPlaces   = 20       // where one component was found; the rest is counted
)

// found is one package, as one place in an artifact says it.
type found struct {
	purl     purl
	group    string
	name     string
	digest   string // a module's h1:
	replaces string
	licences []string
	at       string
	own      bool
	program  bool // a .deb: what it is to the system, not a library
}

// program is one Go program in an artifact, with the modules in it.
type program struct {
	at, path, goVersion string
	main                purl
	revision, modified  string
	modules             []found
}

// scan looks into one artifact.
type scan struct {
	ctx     context.Context
	scratch string
	bytes   int64 // that archives may still expand to
	limit   int64
	members int // that archives may still have

	found    []found
	programs []program
	poms     map[string][]string // a pom.xml's licences, by its directory's place
	notes    []string
	more     int // notes that are not kept
	each     func(at string, r io.Reader) error
	end      string // where and why the scan stopped
	files    int
	noted    map[string]bool
}

// The reasons to stop looking into an artifact; each is noted where it arose.
var (
	errSpent   = errors.New("archives expand beyond their limit")
	errMembers = errors.New("archives have too many members")
	errFound   = errors.New("too many packages")
)

// scratchError is a failure of this machine, not of what is read.
type scratchError struct{ err error }

func (e *scratchError) Error() string { return "scratch file: " + e.err.Error() }
func (e *scratchError) Unwrap() error { return e.err }

// stops tells errors that end the scan of an artifact from those of one member.
func (s *scan) stops(err error) bool {
	var own *scratchError
	return s.ctx.Err() != nil || s.bytes < 0 || errors.As(err, &own) ||
		errors.Is(err, errSpent) || errors.Is(err, errMembers) || errors.Is(err, errFound)
}

// note says what could not be looked into.
func (s *scan) note(at, why string) {
	n := text(at) + ": " + text(why)
	switch {
	case s.noted[n]:
	case len(s.notes) >= maxNotes:
		s.more++
	default:
		s.noted[n] = true
		s.notes = append(s.notes, n)
	}
}

// refuse notes why a member was not read to its end, and gives an error only if
// the scan stops.
func (s *scan) refuse(at string, err error) error {
	if !s.stops(err) {
		s.note(at, err.Error())
		return nil
	}
	why := err.Error()
	if s.bytes < 0 {
		err, why = errSpent, fmt.Sprintf("archives expand beyond %d bytes", s.limit)
	}
	if s.end == "" {
		s.end = text(at) + ": " + why + ": what follows in the artifact was not looked into"
	}
	return err
}

// counted reads what an archive expands to, within the budget of the artifact.
type counted struct {
	s *scan
	r io.Reader
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if c.s.bytes -= int64(n); c.s.bytes < 0 {
		return 0, errSpent
	}
	return n, err
}

// content is bytes that can be read at random.
type content struct {
	io.ReaderAt
	size int64
}

// spool keeps a stream, in memory or in a scratch file without a name.
func (s *scan) spool(r io.Reader, most int64) (c content, done func(), err error) {
	done = func() {}
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(r, maxInMemory+1))
	if err != nil {
		return c, done, err
	}
	if n <= maxInMemory {
		return content{bytes.NewReader(buf.Bytes()), n}, done, nil
	}
	f, err := os.CreateTemp(s.scratch, "sbom-")
	if err != nil {
		return c, done, &scratchError{err}
	}
	done = func() { f.Close() }
	if err := os.Remove(f.Name()); err != nil {
		return c, done, &scratchError{err}
	}
	source := &reading{r: r}
	m, err := io.Copy(f, io.MultiReader(&buf, io.LimitReader(source, most-n+1)))
	switch {
	case source.err != nil:
		return c, done, source.err
	case err != nil:
		return c, done, &scratchError{err}
	case m > most:
		return c, done, fmt.Errorf("it has more than %d bytes", most)
	}
	return content{f, m}, done, nil
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

// guard turns a panic of a parser into its refusal.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not readable: %v", r)
		}
	}()
	return f()
}

// item is one file that is looked at: the artifact or a member.
type item struct {
	at     string // artifact!member!member
	name   string // in its archive
	in     io.Reader
	whole  *content // the same, if it can be read at random already
	depth  int      // how many archives are around it
	box    *box     // the archive it is in
	bare   bool     // the same file in another form: it is counted already
	packed bool     // it comes out of a compressed stream
}

// box is an archive while its members are looked at.
type box struct {
	at, name string
	maven    int // how many pom.properties it holds itself
}

// look finds out what a file is and what it says. It gives an error only if
// the scan of the artifact stops.
func (s *scan) look(it item) error {
	br := bufio.NewReaderSize(it.in, 4<<10)
	if !it.bare {
		s.files++
	}
	head, err := br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return s.refuse(it.at, err)
	}
	it.in = br
	kind := kindOf(head, it.name)
	err = guard(func() error {
		if s.each != nil && (kind == "" || kind == "program") {
			c, done, err := s.random(it, maxProgram)
			defer done()
			if err != nil {
				return err
			}
			if err := s.each(it.at, io.NewSectionReader(c, 0, c.size)); err != nil {
				return &scratchError{err} // theirs, and no fault of the artifact
			}
			it.in, it.whole = io.NewSectionReader(c, 0, c.size), &c
		}
		switch kind {
		case "gzip", "xz", "zstd", "bzip2":
			return s.compressed(kind, it)
		case "tar":
			return s.archive(it, s.tar)
		case "zip":
			return s.archive(it, s.zip)
		case "ar":
			return s.archive(it, s.ar)
		case "program":
			return s.executable(it)
		case "":
			return s.metadata(it)
		}
		s.note(it.at, kind)
		return nil
	})
	if err != nil {
		return s.refuse(it.at, err)
	}
	return nil
}

// kindOf knows formats by their first bytes; those that are named in words are
// not read.
func kindOf(h []byte, name string) string {
	for _, m := range []struct{ magic, kind string }{
		{"\x1f\x8b\x08", "gzip"},
		{"\xfd7zXZ\x00", "xz"},
		{"\x28\xb5\x2f\xfd", "zstd"},
		{"BZh", "bzip2"},
		{"PK\x03\x04", "zip"},
		{"PK\x05\x06", "zip"},
		{"!<arch>\n", "ar"},
		{"\x7fELF", "program"},
		{"\xfe\xed\xfa\xce", "program"},
		{"\xfe\xed\xfa\xcf", "program"},
		{"\xce\xfa\xed\xfe", "program"},
		{"\xcf\xfa\xed\xfe", "program"},
		{"\x00asm", "a WebAssembly module: it does not say what it is made of"},
		{"7z\xbc\xaf\x27\x1c", "a 7z archive, which is not read"},
		{"Rar!\x1a\x07", "a rar archive, which is not read"},
		{"\xed\xab\xee\xdb", "an RPM package, which is not read"},
		{"xar!", "a macOS package, which is not read"},
		{"hsqs", "a squashfs image, which is not read"},
		{"MSCF", "a cabinet archive, which is not read"},
		{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Microsoft compound file (such as .msi), which is not read"},
		{"070701", "a cpio archive, which is not read"},
		{"070702", "a cpio archive, which is not read"},
		{"\x04\x22\x4d\x18", "an lz4 stream, which is not read"},
		{"LZIP", "an lzip stream, which is not read"},
		{"\x1f\x9d", "a compress(1) stream, which is not read"},
	} {
		if bytes.HasPrefix(h, []byte(m.magic)) {
			return m.kind
		}
	}
	switch {
	case len(h) >= 64 && string(h[:2]) == "MZ":
		return "program"
	case len(h) >= 8 && string(h[:4]) == "\xca\xfe\xba\xbe" && h[4] == 0 && h[5] == 0 && h[6] == 0 && h[7] < 40:
		return "program" // a fat Mach-O; a Java class has its version there
	case len(h) == 512 && string(h[257:262]) == "ustar":
		return "tar"
	}
	// What has no mark of its own at its beginning: old tars, zips behind a script.
	switch strings.ToLower(path.Ext(name)) {
	case ".tar":
		return "tar"
	case ".zip", ".jar", ".war", ".ear", ".whl", ".pyz", ".pex":
		return "zip"
	case ".gz", ".tgz", ".xz", ".txz", ".zst", ".bz2", ".deb":
		return "by its name an archive, by its bytes none"
	case ".iso", ".img", ".dmg", ".qcow2", ".vmdk":
		return "a disk image, which is not read"
	}
	return ""
}

// compressed looks at what is in a compressed stream, which is the same file in
// another form; a stream compressed twice counts as an archive in an archive.
func (s *scan) compressed(kind string, it item) error {
	if it.packed {
		if it.depth++; it.depth > maxDepth {
			s.note(it.at, fmt.Sprintf("more than %d archives around it", maxDepth))
			return nil
		}
	}
	r, done, err := expand(kind, it.in)
	if err != nil {
		return err
	}
	defer done()
	name := it.name
	switch ext := strings.ToLower(path.Ext(name)); ext {
	case ".tgz", ".txz", ".tbz", ".tzst":
		name = strings.TrimSuffix(name, path.Ext(name)) + ".tar"
	case ".gz", ".xz", ".zst", ".bz2":
		name = name[:len(name)-len(ext)]
	}
	it.name, it.in, it.whole, it.bare, it.packed = name, &counted{s, r}, nil, true, true
	return s.look(it)
}

// expand opens a compressed stream; its memory is bounded.
func expand(kind string, r io.Reader) (io.Reader, func(), error) {
	switch kind {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case "xz":
		return compare.XZ(r), func() {}, nil
	case "zstd":
		z, err := compare.Zstd(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case "bzip2":
		return bzip2.NewReader(r), func() {}, nil
	}
	return r, func() {}, nil
}

// archive looks at the members of an archive.
func (s *scan) archive(it item, open func(item) error) error {
	if it.depth >= maxDepth {
		s.note(it.at, fmt.Sprintf("an archive in %d others is not opened", maxDepth))
		return nil
	}
	it.box = &box{at: it.at, name: it.name}
	if err := open(it); err != nil {
		return s.refuse(it.at, err)
	}
	if ext := strings.ToLower(path.Ext(it.name)); it.box.maven == 0 && slices.Contains([]string{".jar", ".war", ".ear"}, ext) {
		s.note(it.at, "a Java archive that does not name its Maven coordinates (META-INF/maven/*/*/pom.properties)")
	}
	return nil
}

// member counts a member and looks at it.
func (s *scan) member(it item, name string, r io.Reader) error {
	return s.look(item{at: it.at + "!" + text(name), name: name, in: r, depth: it.depth + 1, box: it.box})
}

func (s *scan) countMember() error {
	if s.members--; s.members < 0 {
		return errMembers
	}
	return s.ctx.Err()
}
