package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// Limits on what an archive may make us hold in memory.
const (
	maxControl     = 64 << 20 // the largest real control archive is 5 MB
	maxControlFile = 32 << 20
	maxLines       = 4 << 20   // of the control files that are taken apart; the largest real one has 0.1 MB
	maxWindow      = 128 << 20 // of zstd: dpkg's own library takes no larger one
)

// Deb is a .deb archive that is being read: its control part is in memory, its
// data is still in the stream.
type Deb struct {
	Package  *Package
	Control  []ControlFile // in the archive's order
	dataName string
	data     io.Reader
	rest     io.Reader // the whole stream, to its end
}

// ControlFile is one member of the control archive: preinst, md5sums, triggers…
type ControlFile struct {
	Name string
	Mode int64
	Data []byte
}

// ArchiveError says what is wrong with an archive and in which member.
type ArchiveError struct {
	Package, Member, What string
}

func (e *ArchiveError) Error() string {
	at := e.Package
	if e.Member != "" {
		at += ": " + e.Member
	}
	return "package archive " + at + ": " + e.What
}

// Hint says what to do.
func (e *ArchiveError) Hint() string {
	return "the archive is damaged or hostile: trysail depot verify tells whether it is still the captured one"
}

// ReadDeb reads the archive up to the beginning of its data.
func ReadDeb(ctx context.Context, name string, r io.Reader) (*Deb, error) {
	return openDeb(ctx, name, r, nil)
}

// ReadDebAgain opens an archive whose control part is known from an earlier
// ReadDeb of the same bytes: decompressing it again would take a process.
func ReadDebAgain(ctx context.Context, name string, r io.Reader, known *Deb) (*Deb, error) {
	return openDeb(ctx, name, r, known)
}

func openDeb(ctx context.Context, name string, r io.Reader, known *Deb) (*Deb, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic := make([]byte, 8)
	if _, err := io.ReadFull(br, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, &ArchiveError{name, "", "not an ar archive"}
	}
	d := &Deb{}
	if known != nil {
		d.Package, d.Control = known.Package, known.Control
	}
	for {
		member, size, err := arHeader(br)
		if err != nil {
			return nil, &ArchiveError{name, "", err.Error()}
		}
		switch {
		case member == "debian-binary":
			v, err := br.Peek(int(min(size, 2)))
			if err != nil || string(v) != "2." {
				return nil, &ArchiveError{name, member, "format version is not 2.x"}
			}
		case strings.HasPrefix(member, "control.tar") && known == nil:
			if size > maxControl {
				return nil, &ArchiveError{name, member, fmt.Sprintf("%d bytes are too many", size)}
			}
			raw := make([]byte, size)
			if _, err := io.ReadFull(br, raw); err != nil {
				return nil, &ArchiveError{name, member, "truncated"}
			}
			if err := d.readControl(ctx, name, member, raw); err != nil {
				return nil, err
			}
			size = size & 1
			if _, err := io.CopyN(io.Discard, br, size); err != nil {
				return nil, &ArchiveError{name, member, "truncated"}
			}
			continue
		case strings.HasPrefix(member, "data.tar"):
			if d.Package == nil {
				return nil, &ArchiveError{name, member, "stands before control.tar"}
			}
			d.dataName, d.data, d.rest = member, &exactReader{r: br, n: size}, br
			return d, nil
		}
		if _, err := io.CopyN(io.Discard, br, size+size&1); err != nil {
			return nil, &ArchiveError{name, member, "truncated"}
		}
	}
}

// exactReader gives n bytes, and an error where the stream has fewer.
type exactReader struct {
	r io.Reader
	n int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if errors.Is(err, io.EOF) && e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// limitedReader fails where a stream has more than n bytes.
type limitedReader struct {
	r io.Reader
	n int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p[:min(int64(len(p)), l.n+1)])
	if l.n -= int64(n); l.n < 0 {
		return n, fmt.Errorf("its decompressed size is over the limit of %d MB", maxControl>>20)
	}
	return n, err
}

func arHeader(r io.Reader) (name string, size int64, err error) {
	h := make([]byte, 60)
	if _, err := io.ReadFull(r, h); err != nil {
		return "", 0, errors.New("truncated, or no data.tar in it")
	}
	if h[58] != '`' || h[59] != '\n' {
		return "", 0, errors.New("damaged ar header")
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
	if err != nil || size < 0 {
		return "", 0, errors.New("damaged ar size")
	}
	return strings.TrimRight(strings.TrimSpace(string(h[:16])), "/"), size, nil
}

func (d *Deb) readControl(ctx context.Context, name, member string, raw []byte) error {
	rd, err := decompress(ctx, member, bytes.NewReader(raw))
	if err != nil {
		return &ArchiveError{name, member, err.Error()}
	}
	defer rd.Close()
	lr := &limitedReader{r: rd, n: maxControl}
	tr := tar.NewReader(lr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &ArchiveError{name, member, err.Error()}
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		file := path.Clean(h.Name)
		if file != path.Base(file) || file == ".." || file == "." || file == "/" {
			return &ArchiveError{name, member, fmt.Sprintf("member %.60q is not a plain name", h.Name)}
		}
		if d.File(file) != nil {
			return &ArchiveError{name, member, fmt.Sprintf("member %.60q stands twice", h.Name)}
		}
		if h.Size > maxControlFile || h.Size > maxLines && (file == "control" || file == "conffiles" || file == "triggers") {
			return &ArchiveError{name, member, fmt.Sprintf("member %.60q has %d bytes, which are too many", h.Name, h.Size)}
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return &ArchiveError{name, member, err.Error()}
		}
		d.Control = append(d.Control, ControlFile{file, h.Mode & 0o777, data})
	}
	// The decompressor's checksum is at the end.
	if _, err := io.Copy(io.Discard, lr); err != nil {
		return &ArchiveError{name, member, err.Error()}
	}
	c := d.File("control")
	if c == nil {
		return &ArchiveError{name, member, "holds no control file"}
	}
	if d.Package, err = parseParagraph(name+":control", 1, c.Data); err != nil {
		return err
	}
	return nil
}

// File finds a member of the control archive, or nil.
func (d *Deb) File(name string) *ControlFile {
	for i := range d.Control {
		if d.Control[i].Name == name {
			return &d.Control[i]
		}
	}
	return nil
}

// Conffiles lists the package's configuration files.
func (d *Deb) Conffiles() []string {
	f := d.File("conffiles")
	if f == nil {
		return nil
	}
	var list []string
	for _, l := range strings.Split(string(f.Data), "\n") {
		// "remove-on-upgrade /path" names a file the package does not ship.
		if strings.HasPrefix(l, "/") {
			list = append(list, strings.TrimSpace(l))
		}
	}
	return list
}

// decompress opens a member by the ending of its name. The xz program is twice
// as fast as any xz in Go and runs on another core, so it is used where it is.
func decompress(ctx context.Context, member string, r io.Reader) (io.ReadCloser, error) {
	switch path.Ext(member) {
	case ".tar":
		return io.NopCloser(r), nil
	case ".gz":
		return gzip.NewReader(r)
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(1<<30), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".xz":
		if xzPath, err := exec.LookPath("xz"); err == nil {
			return startFilter(ctx, r, xzPath, "-dc", "--memlimit-decompress=1GiB")
		}
		z, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(z), nil
	default:
		return nil, fmt.Errorf("compression %q is not known (gz, xz, zst)", path.Ext(member))
	}
}

// filter is a program that reads from one stream and writes another.
type filter struct {
	io.ReadCloser
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  bool
}

func startFilter(ctx context.Context, r io.Reader, argv ...string) (io.ReadCloser, error) {
	f := &filter{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	f.cmd.Stdin, f.cmd.Stderr = r, &f.stderr
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if file, ok := out.(*os.File); ok {
		if c, err := file.SyscallConn(); err == nil {
			// Fewer switches between the two programs; a refusal costs speed only.
			_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
		}
	}
	f.ReadCloser = out
	return f, f.cmd.Start()
}

// Read reports the program's failure at the end of its output.
func (f *filter) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) && !f.ended {
		f.ended = true
		if werr := f.cmd.Wait(); werr != nil {
			return n, fmt.Errorf("%s: %w: %s", path.Base(f.cmd.Path), werr, strings.TrimSpace(f.stderr.String()))
		}
	}
	return n, err
}

// Close ends the program if it still runs.
func (f *filter) Close() error {
	if f.ended {
		return nil
	}
	f.ended = true
	f.ReadCloser.Close()
	_ = f.cmd.Process.Kill()
	_ = f.cmd.Wait() // killed: its status says nothing
	return nil
}

// StatusEntry is the paragraph dpkg keeps for a package that was unpacked and
// not yet configured.
func (d *Deb) StatusEntry() []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(controlOf(d.Package)) {
		b.Write(line)
		if bytes.HasPrefix(bytes.ToLower(line), []byte("package:")) {
			b.WriteString("Status: install ok unpacked\n")
		}
	}
	if c := d.Conffiles(); len(c) > 0 {
		b.WriteString("Conffiles:\n")
		for _, f := range c {
			b.WriteString(" " + f + " newconffile\n")
		}
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// Trigger is one interest of a package.
type Trigger struct {
	Name  string // a path or a name
	Await bool
}

// Interests lists the triggers the package wants to hear of.
func (d *Deb) Interests() []Trigger {
	f := d.File("triggers")
	if f == nil {
		return nil
	}
	return ParseTriggers(f.Data)
}

// ParseTriggers reads the interests in a package's triggers file.
func ParseTriggers(data []byte) []Trigger {
	var list []Trigger
	for _, line := range strings.Split(string(data), "\n") {
		w := strings.Fields(line)
		if len(w) != 2 || strings.HasPrefix(w[0], "#") {
			continue
		}
		switch w[0] {
		case "interest", "interest-await":
			list = append(list, Trigger{w[1], true})
		case "interest-noawait":
			list = append(list, Trigger{w[1], false})
		}
	}
	return list
}
