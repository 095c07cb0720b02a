package compare

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
)

func plainContent(f File) func() (File, func(), error) {
	return func() (File, func(), error) { return f, func() {}, nil }
}

// tar compares two tar archives.
func (w *walker) tar(path string, a, b File, depth int) error {
	x, endA, err := w.readTar(a)
	if err != nil {
		return &notThis{err}
	}
	y, endB, err := w.readTar(b)
	if err != nil {
		return &notThis{err}
	}
	if err := w.members(path, x, y, depth); err != nil {
		return err
	}
	if endA != endB {
		w.field("", path, "end", "", endB, "the archive ends in another way")
	}
	return nil
}

// counting counts what is read; it hides that its source can seek.
type counting struct {
	r    io.Reader
	n    int64
	kept bytes.Buffer
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.kept.Len() < 1<<16 {
		c.kept.Write(p[:n])
	}
	return n, err
}

func (w *walker) readTar(f File) (list []member, end string, err error) {
	off := int64(0)
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, "", err
		}
		// One reader for each member, so that the place of its content is known.
		in := &counting{r: io.NewSectionReader(f, off, f.Size-off)}
		h, err := tar.NewReader(in).Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, "", err
		}
		if len(list) == maxMembers {
			return nil, "", fmt.Errorf("more than %d members", maxMembers)
		}
		m := member{name: h.Name, fields: tarFields(h, in.kept.Bytes())}
		off += in.n
		switch h.Typeflag {
		case tar.TypeGNUSparse:
			return nil, "", errors.New("sparse members are not opened")
		case tar.TypeReg, tar.TypeCont, 0:
			for k := range h.PAXRecords {
				if strings.HasPrefix(k, "GNU.sparse") {
					return nil, "", errors.New("sparse members are not opened")
				}
			}
			if h.Size < 0 || h.Size > f.Size-off {
				return nil, "", io.ErrUnexpectedEOF
			}
			m.open = plainContent(f.section(off, h.Size))
			off += (h.Size + 511) &^ 511
		}
		list = append(list, m)
		if off > f.Size {
			off = f.Size
		}
	}
	if off > f.Size {
		off = f.Size
	}
	rest := f.section(off, f.Size-off)
	sum := sha256.New()
	if _, err := io.Copy(sum, rest.stream()); err != nil {
		return nil, "", err
	}
	return list, fmt.Sprintf("%d %x", rest.Size, sum.Sum(nil)), nil
}

func tarFields(h *tar.Header, raw []byte) []field {
	form, name, mtime := tarForm(raw)
	list := []field{
		{"type", string(rune(h.Typeflag)), ""},
		{"mode", fmt.Sprintf("%04o", h.Mode), CauseMode},
		{"owner", strconv.Itoa(h.Uid) + ":" + strconv.Itoa(h.Gid), CauseOwner},
		{"owner's name", h.Uname + ":" + h.Gname, CauseOwner},
		{"time", stamp(h.ModTime), CauseTime},
		{"form", form, ""},
	}
	if name != "" {
		list = append(list, field{"extended header's name", name, ""}, field{"extended header's time", mtime, CauseTime})
	}
	if !h.AccessTime.IsZero() {
		list = append(list, field{"access time", stamp(h.AccessTime), CauseTime})
	}
	if !h.ChangeTime.IsZero() {
		list = append(list, field{"change time", stamp(h.ChangeTime), CauseTime})
	}
	if h.Linkname != "" {
		list = append(list, field{"link", h.Linkname, ""})
	}
	if h.Devmajor != 0 || h.Devminor != 0 {
		list = append(list, field{"device", fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor), ""})
	}
	var keys []string
	for k := range h.PAXRecords {
		switch k {
		case "mtime", "atime", "ctime", "path", "linkpath", "uid", "gid", "uname", "gname", "size":
		default:
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		list = append(list, field{"record " + excerpt(k), h.PAXRecords[k], ""})
	}
	return list
}

// tarForm reads a member's header blocks without the values that are compared
// as fields: a digest of what is left, and the name and time of its extended
// header. The process id that some tars write into that name is left out.
func tarForm(raw []byte) (form, name, mtime string) {
	sum := sha256.New()
	for len(raw) >= 512 {
		b := slices.Clone(raw[:512])
		kind := b[156]
		size, _ := strconv.ParseInt(strings.Trim(string(b[124:136]), " \x00"), 8, 64)
		extended := kind == 'x' || kind == 'g' || kind == 'L' || kind == 'K'
		if extended {
			n, _, _ := bytes.Cut(b[:100], []byte{0})
			name += string(zeroDigits(n)) + "\n"
			mtime += strings.Trim(string(b[136:148]), " \x00") + " "
		}
		// What is left: the type, the magic number and how numbers are written.
		clear(b[:100])
		zeroDigits(b[100:156])
		for i := 100; i < 148; i++ {
			if b[i]&0x80 != 0 {
				clear(b[100:148]) // numbers in base 256
			}
		}
		clear(b[157:257])
		clear(b[265:])
		sum.Write(b)
		raw = raw[512:]
		if extended {
			skip := (size + 511) &^ 511
			if skip < 0 || skip > int64(len(raw)) {
				break
			}
			raw = raw[skip:]
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil)[:6]), name, mtime
}

func zeroDigits(p []byte) []byte {
	for i, c := range p {
		if c >= '0' && c <= '9' {
			p[i] = '0'
		}
	}
	return p
}

// oldTar recognises a tar of before ustar by the sum of its first header.
func oldTar(h []byte) bool {
	want, err := strconv.ParseInt(strings.Trim(string(h[148:156]), " \x00"), 8, 32)
	if err != nil || want == 0 {
		return false
	}
	sum := int64(8 * ' ')
	for i, c := range h {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	return sum == want
}

// ar compares two ar archives, such as static libraries and Debian packages.
func (w *walker) ar(path string, a, b File, depth int) error {
	x, err := readAr(a)
	if err != nil {
		return &notThis{err}
	}
	y, err := readAr(b)
	if err != nil {
		return &notThis{err}
	}
	return w.members(path, x, y, depth)
}

func readAr(f File) ([]member, error) {
	var list []member
	var names []byte // the table of long names
	for off := int64(8); off < f.Size; {
		h, err := f.section(off, 60).read()
		if err != nil {
			return nil, err
		}
		if string(h[58:60]) != "`\n" {
			return nil, errors.New("not an ar member")
		}
		text := func(i, j int) string { return strings.TrimRight(string(h[i:j]), " ") }
		size, err := strconv.ParseInt(text(48, 58), 10, 64)
		if err != nil || size < 0 || size > f.Size-off-60 {
			return nil, errors.New("ar member of an impossible size")
		}
		if len(list) == maxMembers {
			return nil, fmt.Errorf("more than %d members", maxMembers)
		}
		m := member{name: text(0, 16), open: plainContent(f.section(off+60, size))}
		switch {
		case m.name == "//" && size <= maxWhole:
			if names, err = f.section(off+60, size).read(); err != nil {
				return nil, err
			}
		case len(m.name) > 1 && m.name[0] == '/' && m.name[1] >= '0' && m.name[1] <= '9':
			if i, err := strconv.Atoi(m.name[1:]); err == nil && i < len(names) {
				n, _, _ := bytes.Cut(names[i:], []byte("\n"))
				m.name = strings.TrimSuffix(string(n), "/")
			}
		case m.name != "/":
			m.name = strings.TrimSuffix(m.name, "/")
		}
		mtime := text(16, 28)
		if n, err := strconv.ParseInt(mtime, 10, 64); err == nil {
			mtime = stamp(time.Unix(n, 0))
		}
		m.fields = []field{{"time", mtime, CauseTime}, {"owner", text(28, 34) + ":" + text(34, 40), CauseOwner}, {"mode", text(40, 48), CauseMode}}
		list = append(list, m)
		off += 60 + size + size&1
	}
	return list, nil
}

// limited refuses to read more than a number of bytes in all: the table of a
// zip archive is read before anything can be said about its size.
type limited struct {
	File
	left *int64
}

func (l limited) ReadAt(p []byte, off int64) (int, error) {
	if *l.left -= int64(len(p)); *l.left < 0 {
		return 0, errors.New("the table of members is too large")
	}
	return l.File.ReadAt(p, off)
}

// zip compares two zip archives, such as jars and wheels.
func (w *walker) zip(path string, a, b File, depth int) error {
	x, err := w.readZip(a)
	if err != nil {
		return &notThis{err}
	}
	y, err := w.readZip(b)
	if err != nil {
		return &notThis{err}
	}
	if err := w.members(path, x.members, y.members, depth); err != nil {
		return err
	}
	if x.comment != y.comment {
		w.field("", path, "comment", "", y.comment, "another comment")
	}
	if x.prefix != y.prefix {
		w.field("", path, "prefix", "", y.prefix, "other bytes before the first member")
	}
	if x.gaps != y.gaps {
		w.field("", path, "gaps", "", y.gaps, "other bytes between the members")
	}
	if x.order != y.order {
		w.field("", path, "layout", CauseOrder, y.order, "the members' data stand in another order")
	}
	return nil
}

type zipContent struct {
	members                      []member
	comment, prefix, order, gaps string
}

func (w *walker) readZip(f File) (*zipContent, error) {
	left := int64(96 << 20)
	r, err := zip.NewReader(limited{f, &left}, f.Size)
	if err != nil {
		return nil, err
	}
	if len(r.File) > maxMembers {
		return nil, fmt.Errorf("more than %d members", maxMembers)
	}
	z := &zipContent{comment: r.Comment}
	type placed struct {
		i    int
		data int64
	}
	places := make([]placed, len(r.File))
	for i, m := range r.File {
		left = 1 << 20
		at, err := m.DataOffset()
		if err != nil {
			return nil, err
		}
		if at < 0 || at > f.Size || int64(m.CompressedSize64) < 0 || int64(m.CompressedSize64) > f.Size-at {
			return nil, io.ErrUnexpectedEOF
		}
		places[i] = placed{i, at}
		raw := f.section(at, int64(m.CompressedSize64))
		e := member{name: m.Name, raw: raw, fields: zipFields("", &m.FileHeader)}
		if !strings.HasSuffix(m.Name, "/") || raw.Size > 0 {
			switch m.Method {
			case zip.Store:
				e.open = plainContent(raw)
			case zip.Deflate:
				e.open = func() (File, func(), error) { return w.spool(flate.NewReader(raw.stream())) }
			default:
				e.open = plainContent(raw)
			}
		}
		z.members = append(z.members, e)
	}
	slices.SortStableFunc(places, func(p, q placed) int { return int(min(max(p.data-q.data, -1), 1)) })
	end := int64(0)
	sum, gaps := sha256.New(), sha256.New()
	// A descriptor of up to 24 bytes follows data, and follows from it.
	between := func(p []byte, name string) {
		if len(p) > 24 {
			fmt.Fprintf(gaps, "%q %d ", masked([]byte(name)), len(p))
			gaps.Write(p)
		}
	}
	for n, p := range places {
		m := r.File[p.i]
		gap, err := f.section(end, min(max(0, p.data-end), 1<<18)).read()
		if err != nil {
			return nil, err
		}
		before, local := localHeader(gap)
		if n > 0 {
			between(before, m.Name)
		} else {
			z.prefix = string(before)
			if len(before) > 256 {
				z.prefix = fmt.Sprintf("%d %x", len(before), sha256.Sum256(before))
			}
		}
		if local != nil {
			z.members[p.i].fields = append(z.members[p.i].fields, zipFields("local ", local)...)
		}
		end = p.data + int64(m.CompressedSize64)
		fmt.Fprintf(sum, "%q\n", masked([]byte(m.Name)))
	}
	tail, err := f.section(min(end, f.Size), min(max(0, f.Size-end), 1<<20)).read()
	if err != nil {
		return nil, err
	}
	if i := bytes.Index(tail, []byte("PK\x01\x02")); i >= 0 {
		tail = tail[:i]
	} else if i := bytes.Index(tail, []byte("PK\x05\x06")); i >= 0 {
		tail = tail[:i]
	}
	between(tail, "")
	z.order, z.gaps = fmt.Sprintf("%x", sum.Sum(nil)[:8]), fmt.Sprintf("%x", gaps.Sum(nil)[:8])
	return z, nil
}

// localHeader finds the header that ends a gap between two members' data.
func localHeader(gap []byte) (before []byte, h *zip.FileHeader) {
	for i := 0; i+30 <= len(gap); i++ {
		if string(gap[i:i+4]) != "PK\x03\x04" {
			continue
		}
		p := gap[i:]
		n, e := int(binary.LittleEndian.Uint16(p[26:])), int(binary.LittleEndian.Uint16(p[28:]))
		if 30+n+e != len(p) {
			continue
		}
		h = &zip.FileHeader{ReaderVersion: binary.LittleEndian.Uint16(p[4:]), Flags: binary.LittleEndian.Uint16(p[6:]), Method: binary.LittleEndian.Uint16(p[8:]), Extra: p[30+n:]}
		//lint:ignore SA1019 the raw fields are what differs
		h.ModifiedTime, h.ModifiedDate = binary.LittleEndian.Uint16(p[10:]), binary.LittleEndian.Uint16(p[12:])
		return gap[:i], h
	}
	return gap, nil
}

func dosTime(h *zip.FileHeader) string {
	//lint:ignore SA1019 the raw fields are what differs
	t, d := h.ModifiedTime, h.ModifiedDate
	return fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:%02d", 1980+int(d>>9), d>>5&15, d&31, t>>11, t>>5&63, t&31*2)
}

func zipFields(where string, h *zip.FileHeader) []field {
	list := []field{
		{where + "time", dosTime(h), CauseTime},
		{where + "method", fmt.Sprintf("%d flags %#x", h.Method, h.Flags), CauseCompression},
		{where + "version", strconv.Itoa(int(h.ReaderVersion)), ""},
	}
	if where == "" {
		list = append(list, field{"mode", fmt.Sprintf("%#o", h.ExternalAttrs>>16), CauseMode}, field{"attributes", fmt.Sprintf("%#x", h.ExternalAttrs&0xffff), ""}, field{"creator", fmt.Sprintf("%#x", h.CreatorVersion), ""})
		if h.Comment != "" {
			list = append(list, field{"comment", h.Comment, ""})
		}
	}
	for n, extra := 0, h.Extra; len(extra) >= 4; n++ {
		id, size := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if size > len(extra)-4 {
			return append(list, field{where + "extra", fmt.Sprintf("%x", extra), ""})
		}
		cause := ""
		name := fmt.Sprintf("extra field %#04x", id)
		switch id {
		case 0x5455, 0x000a, 0x5855:
			cause, name = CauseTime, fmt.Sprintf("extra time %#04x", id)
		case 0x7855, 0x7875:
			cause, name = CauseOwner, fmt.Sprintf("extra owner %#04x", id)
		case 0x0001: // sizes
			extra = extra[4+size:]
			continue
		}
		list = append(list, field{where + name, fmt.Sprintf("%x", extra[4:4+size]), cause})
		extra = extra[4+size:]
	}
	return list
}
