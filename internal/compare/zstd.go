package compare

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	maxWindow = 256 << 20 // zstd --ultra -22 uses 128 MiB
	// A stream that is so short in its file and expanded is read at once: the decoder
	// makes the whole window that a stream asks for, and an archive may hold very
	// many streams of a few bytes that each ask for the largest.
	shortStream = 64 << 10
	shortPlain  = 1 << 20
)

// Zstd reads a zstd stream. A window of more than 256 MiB is refused.
func Zstd(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, shortStream)
	options := []zstd.DOption{
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(1 << 40), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
	}
	if data, err := in.Peek(shortStream); errors.Is(err, io.EOF) {
		z, err := zstd.NewReader(nil, options...)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		if plain, err := z.DecodeAll(data, make([]byte, 0, shortPlain)); err == nil {
			return io.NopCloser(bytes.NewReader(plain)), nil
		}
	}
	z, err := zstd.NewReader(in, options...)
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}
