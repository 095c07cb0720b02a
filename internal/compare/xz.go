package compare

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const maxDictionary = 256 << 20 // xz -9 uses 64 MiB

// xzReader reads the blocks of an xz file one by one, because each may ask for
// a dictionary of up to 4 GiB and only here can that be refused. Checksums are
// not verified: two files are compared, and their digests are known.
type xzReader struct {
	in    *bufio.Reader
	block io.Reader
	n     *counter // bytes of the block so far
	check int64    // size of each block's checksum
	begun bool
}

// XZ reads an xz file of any number of blocks and streams. A dictionary of more
// than 256 MiB is refused; checksums are not verified.
func XZ(r io.Reader) io.Reader { return &xzReader{in: bufio.NewReaderSize(r, 1<<16)} }

// counter counts the bytes of a block; it reads single bytes, so that the
// decoder takes no more than it needs.
type counter struct {
	r *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func (x *xzReader) Read(p []byte) (int, error) {
	for {
		for x.block == nil { // an empty stream has no block
			if err := x.next(); err != nil {
				return 0, err
			}
		}
		n, err := x.block.Read(p)
		if errors.Is(err, io.EOF) {
			x.block = nil
			if _, err := x.in.Discard(int((4-x.n.n%4)%4 + x.check)); err != nil {
				return n, io.ErrUnexpectedEOF
			}
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins a block, or a further stream after the end of one.
func (x *xzReader) next() error {
	if !x.begun {
		var h [12]byte
		if _, err := io.ReadFull(x.in, h[:]); err != nil || string(h[:6]) != "\xfd7zXZ\x00" {
			return errors.New("xz: no stream header")
		}
		sizes := []int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
		x.check, x.begun = sizes[h[7]&15], true
	}
	first, err := x.in.ReadByte()
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	if first == 0 {
		return x.end()
	}
	h := make([]byte, int(first)*4+3)
	if _, err := io.ReadFull(x.in, h); err != nil {
		return io.ErrUnexpectedEOF
	}
	flags, rest := h[0], h[1:]
	for _, bit := range []byte{0x40, 0x80} {
		if flags&bit != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return errors.New("xz: block header is torn")
			}
			rest = rest[n:]
		}
	}
	if flags&3 != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return errors.New("xz: only LZMA2 without other filters is read")
	}
	size := uint64(1<<32 - 1)
	if bits := rest[2]; bits < 40 {
		size = uint64(2|bits&1) << (bits/2 + 11)
	}
	if size > maxDictionary {
		return fmt.Errorf("xz: a dictionary of %d bytes is more than %d", size, maxDictionary)
	}
	x.n = &counter{r: x.in}
	x.block, err = lzma.Reader2Config{DictCap: int(max(x.needed(size), lzma.MinDictCap))}.NewReader2(x.n)
	return err
}

// needed is how much of a block's dictionary it can use, in bytes. A block refers to no
// more than it expands to, and a short one shows that in the sizes of its chunks; a file
// of many short blocks that each ask for the largest dictionary would take hours.
func (x *xzReader) needed(size uint64) uint64 {
	ahead, err := x.in.Peek(x.in.Size())
	if err != nil && !errors.Is(err, io.EOF) {
		return size
	}
	for total := uint64(0); len(ahead) > 0; {
		control := ahead[0]
		if control == 0 { // the end of the block
			return min(size, total)
		}
		header, n := 3, 0
		switch {
		case control >= 0xc0:
			header = 6
		case control >= 0x80:
			header = 5
		}
		if len(ahead) < header {
			return size
		}
		plain := int(ahead[1])<<8 | int(ahead[2])
		if n = plain + 1; header > 3 {
			plain |= int(control&0x1f) << 16
			n = int(ahead[3])<<8 | int(ahead[4]) + 1
		}
		total += uint64(plain) + 1
		ahead = ahead[min(header+n, len(ahead)):]
	}
	return size
}

// end passes over the index and footer, up to a further stream or the end.
func (x *xzReader) end() error {
	records, err := binary.ReadUvarint(x.in)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	n := int64(1) + uvarintSize(records)
	for range records {
		for range 2 {
			v, err := binary.ReadUvarint(x.in)
			if err != nil {
				return io.ErrUnexpectedEOF
			}
			n += uvarintSize(v)
		}
	}
	if _, err := x.in.Discard(int((4-n%4)%4 + 4 + 12)); err != nil {
		return io.ErrUnexpectedEOF
	}
	for {
		p, err := x.in.Peek(4)
		switch {
		case len(p) == 0 && errors.Is(err, io.EOF):
			return io.EOF
		case err != nil:
			return io.ErrUnexpectedEOF
		case string(p) != "\x00\x00\x00\x00":
			x.begun = false
			return nil
		}
		if _, err := x.in.Discard(4); err != nil {
			return err
		}
	}
}

func uvarintSize(v uint64) int64 {
	n := int64(1)
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
