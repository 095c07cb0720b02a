package sbom

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// tar looks at a tar archive, as a stream.
func (s *scan) tar(it item) error {
	tr := tar.NewReader(it.in)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return s.rest(it)
		}
		if err != nil {
			return err
		}
		if err := s.countMember(); err != nil {
			return err
		}
		if sparse(h) {
			s.note(it.at+"!"+h.Name, "a sparse member, which is not read")
			continue
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := s.member(it, h.Name, tr); err != nil {
			return err
		}
	}
}

// rest reads a stream to its end, where its checksum is.
func (s *scan) rest(it item) error {
	if it.whole != nil {
		return nil
	}
	_, err := io.Copy(io.Discard, it.in)
	return err
}

func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse") {
			return true
		}
	}
	return false
}

// limited refuses to read more than a number of bytes in all.
type limited struct {
	r    io.ReaderAt
	left int64
	what string
}

func (l *limited) ReadAt(p []byte, off int64) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errors.New(l.what)
	}
	return l.r.ReadAt(p, off)
}

// random gives a file's content for reading at random.
func (s *scan) random(it item, most int64) (content, func(), error) {
	if it.whole != nil {
		if it.whole.size > most {
			return content{}, func() {}, fmt.Errorf("it has more than %d bytes", most)
		}
		return *it.whole, func() {}, nil
	}
	return s.spool(it.in, most)
}

// zip looks at a zip archive, such as a jar or a wheel.
func (s *scan) zip(it item) error {
	c, done, err := s.random(it, 1<<62)
	defer func() { done() }()
	if err != nil {
		return err
	}
	table := &limited{c.ReaderAt, maxTable, "its table of members is too large"}
	z, err := zip.NewReader(table, c.size)
	if err != nil {
		return err
	}
	// What members hold is counted by the artifact's budget; what is read of
	// the file for them is bounded by the size of each.
	for _, f := range z.File {
		if err := s.countMember(); err != nil {
			return err
		}
		if strings.HasSuffix(f.Name, "/") && f.UncompressedSize64 == 0 {
			continue
		}
		at := it.at + "!" + text(f.Name)
		if f.Flags&1 != 0 {
			s.note(at, "it is encrypted")
			continue
		}
		table.left = int64(min(f.CompressedSize64, uint64(c.size))) + 1<<20
		r, err := f.Open()
		if err != nil {
			if err := s.refuse(at, err); err != nil {
				return err
			}
			continue
		}
		err = s.member(it, f.Name, &counted{s, r})
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// ar looks at a Debian package. Other ar archives are static libraries, which
// do not say what they are made of.
func (s *scan) ar(it item) error {
	br := bufio.NewReader(it.in)
	if _, err := br.Discard(8); err != nil {
		return io.ErrUnexpectedEOF
	}
	for n := 0; ; n++ {
		var h [60]byte
		if _, err := io.ReadFull(br, h[:]); err != nil {
			if errors.Is(err, io.EOF) && n > 0 {
				return nil
			}
			return err
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
		if err != nil || size < 0 || string(h[58:]) != "`\n" {
			return errors.New("its ar header is damaged")
		}
		if err := s.countMember(); err != nil {
			return err
		}
		name := strings.TrimRight(strings.TrimSpace(string(h[:16])), "/")
		if n == 0 && name != "debian-binary" {
			s.note(it.at, "a static library: it does not say what it is made of")
			return nil
		}
		body := io.LimitReader(br, size)
		switch {
		case strings.HasPrefix(name, "control.tar"):
			err = s.control(it, name, body)
		case strings.HasPrefix(name, "data.tar"):
			// The files of the package: its two tars are one archive to people.
			err = s.look(item{at: it.at, name: name, in: body, depth: it.depth, bare: true})
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
		if size%2 == 1 {
			if _, err := br.Discard(1); err != nil {
				return nil // the last one need not be padded
			}
		}
	}
}

// control finds a package's control file and reads it.
func (s *scan) control(it item, name string, r io.Reader) error {
	br := bufio.NewReader(r)
	head, _ := br.Peek(512)
	at := it.at + "!" + name
	in, done, err := expand(kindOf(head, ""), br)
	if err != nil {
		return s.refuse(at, err)
	}
	defer done()
	tr := tar.NewReader(&counted{s, in})
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			err = errors.New("it holds no control file")
		}
		if err != nil {
			return s.refuse(at, err)
		}
		if err := s.countMember(); err != nil {
			return s.refuse(at, err)
		}
		if h.Typeflag != tar.TypeReg || path.Clean(h.Name) != "control" || sparse(h) {
			continue
		}
		data, err := readBounded(tr)
		if err != nil {
			return s.refuse(at, err)
		}
		return s.debian(it, at, data)
	}
}

// readBounded reads a file of metadata.
func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxMetadata {
		return nil, fmt.Errorf("it has more than %d bytes", maxMetadata)
	}
	return data, nil
}
