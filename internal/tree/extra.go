package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Records of an archive's headers for what tar itself has no field for. Other programs know
// the first (tar --xattrs) and pass over the second: they write zeros where holes were.
const (
	recordAttribute = "SCHILY.xattr."
	recordHoles     = "TRYSAIL.holes" // begin and length of each, in bytes
)

// kept tells the extended attributes that belong to a file, wherever it is: access lists,
// capabilities and those that users give it.
func kept(name string) bool {
	return strings.HasPrefix(name, "user.") || slices.Contains([]string{"security.capability", "system.posix_acl_access", "system.posix_acl_default"}, name)
}

// Records gives the records of a header for a file or directory that is walked.
func (e *Entry) Records() (map[string]string, error) {
	attributes, err := e.in.Attributes(e.name)
	if err != nil {
		return nil, err
	}
	records := make(map[string]string, len(attributes))
	for name, value := range attributes {
		records[recordAttribute+name] = string(value)
	}
	return records, nil
}

// Attributes gives the extended attributes of a file or directory, not of a link, that belong to
// it wherever it is.
func (d *Dir) Attributes(name string) (map[string][]byte, error) {
	var attributes map[string][]byte
	err := d.at("read the attributes of", name, func(dir int, base string) error {
		fd, err := openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		attributes, err = attributesOf(fd)
		return err
	})
	return attributes, err
}

// Attributes is [Dir.Attributes] of an open file.
func Attributes(f *os.File) (map[string][]byte, error) {
	attributes, err := attributesOf(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("read the attributes of %s: %w", f.Name(), err)
	}
	return attributes, nil
}

func attributesOf(fd int) (map[string][]byte, error) {
	at := fmt.Sprintf("/proc/self/fd/%d", fd) // fgetxattr refuses a descriptor of O_PATH
	names, err := attribute(func(b []byte) (int, error) { return unix.Listxattr(at, b) })
	if errors.Is(err, unix.EACCES) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var attributes map[string][]byte
	for name := range strings.SplitSeq(string(names), "\x00") {
		if !kept(name) {
			continue
		}
		value, err := attribute(func(b []byte) (int, error) { return unix.Getxattr(at, name, b) })
		if errors.Is(err, unix.EACCES) {
			continue // left out, as files are that the build's user may not read
		}
		if err != nil {
			return nil, err
		}
		if attributes == nil {
			attributes = map[string][]byte{}
		}
		attributes[name] = value
	}
	return attributes, nil
}

// attribute calls for a size and then for the bytes. A file system without attributes has none.
func attribute(get func([]byte) (int, error)) ([]byte, error) {
	n, err := get(nil)
	if n == 0 || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	n, err = get(b)
	return b[:max(n, 0)], err
}

// mostHoles keeps the record of a file in ten thousand pieces short.
const mostHoles = 10000

// Holes gives the record of a file's holes, "" if it has none. It leaves the file at its beginning.
func Holes(f *os.File, size int64) (key, record string, err error) {
	var list []string
	for at := int64(0); at < size && len(list) < mostHoles; {
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if err != nil {
			return "", "", fmt.Errorf("find the holes of %s: %w", f.Name(), err)
		}
		if hole >= size {
			break
		}
		data, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data = size
		} else if err != nil {
			return "", "", fmt.Errorf("find the holes of %s: %w", f.Name(), err)
		}
		list = append(list, fmt.Sprintf("%d %d", hole, data-hole))
		at = data
	}
	_, err = f.Seek(0, 0)
	return recordHoles, strings.Join(list, " "), err
}

// span is a part of a file.
type span struct{ begin, end int64 }

// parseHoles reads what [Holes] gave: parts of a file, in order.
func parseHoles(record string, size int64) (list []span, err error) {
	wrong := fmt.Errorf("%s says %q, which are no parts of a file of %d bytes", recordHoles, record[:min(len(record), 40)], size)
	var numbers []int64
	for word := range strings.FieldsSeq(record) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil || n < 0 || n > size {
			return nil, wrong
		}
		numbers = append(numbers, n)
	}
	at := int64(0)
	for pair := range slices.Chunk(numbers, 2) {
		if len(pair) < 2 || pair[0] < at || pair[1] > size-pair[0] {
			return nil, wrong
		}
		at = pair[0] + pair[1]
		list = append(list, span{pair[0], at})
	}
	return list, nil
}

// Sparse writes a file of this size with the holes of a header's records. Close it to give
// the file its size.
type Sparse struct {
	f     *os.File
	holes []span
	at    int64
}

// NewSparse begins to write a file.
func NewSparse(f *os.File, records map[string]string, size int64) (*Sparse, error) {
	holes, err := parseHoles(records[recordHoles], size)
	return &Sparse{f, holes, 0}, err
}

// Write leaves out what is in a hole.
func (s *Sparse) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		for len(s.holes) > 0 && s.holes[0].end <= s.at {
			s.holes = s.holes[1:]
		}
		part := p[done:]
		if len(s.holes) > 0 && s.at >= s.holes[0].begin {
			part = part[:min(int64(len(part)), s.holes[0].end-s.at)]
		} else {
			if len(s.holes) > 0 {
				part = part[:min(int64(len(part)), s.holes[0].begin-s.at)]
			}
			if n, err := s.f.WriteAt(part, s.at); err != nil {
				return done + n, err
			}
		}
		done, s.at = done+len(part), s.at+int64(len(part))
	}
	return len(p), nil
}

// Close gives the file the size of what was written.
func (s *Sparse) Close() error { return s.f.Truncate(s.at) }

// Kept gives those of a header's records that [Dir.SetRecords] knows, and nothing else of the header
// stays in memory for them.
func Kept(records map[string]string) map[string]string {
	var list map[string]string
	for key, value := range records {
		if attr, ok := strings.CutPrefix(key, recordAttribute); ok && kept(attr) {
			if list == nil {
				list = map[string]string{}
			}
			list[strings.Clone(key)] = strings.Clone(value)
		}
	}
	return list
}

// SetRecords gives a file or directory, not a link, the attributes of a header's records.
func (d *Dir) SetRecords(name string, records map[string]string) error {
	for key, value := range records {
		if attr, ok := strings.CutPrefix(key, recordAttribute); ok {
			if err := d.SetAttribute(name, attr, []byte(value)); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetAttribute gives a file or directory, not a link, an extended attribute. One of the kinds
// that [Dir.Attributes] leaves out is left out here too.
func (d *Dir) SetAttribute(name, attr string, value []byte) error {
	if !kept(attr) {
		return nil
	}
	return d.at("set the attribute "+attr+" of", name, func(dir int, base string) error {
		fd, err := openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", fd), attr, value, 0)
	})
}

// CopySparse writes an empty file, and leaves holes where blocks of zeros would be. It gives
// the number of bytes that it read.
func CopySparse(f *os.File, from io.Reader) (size int64, err error) {
	buf := make([]byte, 64*block)
	for {
		n, readErr := io.ReadFull(from, buf)
		for begin, end := range data(buf[:n]) {
			if _, err := f.WriteAt(buf[begin:end], size+int64(begin)); err != nil {
				return size, err
			}
		}
		size += int64(n)
		switch {
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF):
			return size, f.Truncate(size)
		case readErr != nil:
			return size, readErr
		}
	}
}

const block = 4096 // bytes: file systems make no smaller holes

// data gives begin and end of the parts of p between blocks of zeros.
func data(p []byte) iter.Seq2[int, int] {
	var zeros [block]byte
	return func(yield func(int, int) bool) {
		begin := 0
		for i := 0; i <= len(p); i += block {
			part := p[i:min(i+block, len(p))]
			if len(part) > 0 && !bytes.Equal(part, zeros[:len(part)]) {
				continue
			}
			if begin < i && !yield(begin, i) {
				return
			}
			begin = i + block
		}
		if begin < len(p) {
			yield(begin, len(p))
		}
	}
}
