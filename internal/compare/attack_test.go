package compare

import (
	"bytes"
	"io"
	"os/exec"
	"testing"
	"time"
)

// TestAttackManyDictionaries: each of the blocks of a small xz file expands to one byte,
// and asks for a dictionary of 256 MiB.
func TestAttackManyDictionaries(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00")
	const blocks = 2000
	for range blocks {
		b.Write([]byte{2, 0, 0x21, 1, 32, 0, 0, 0, 0, 0, 0, 0}) // the header of a block
		b.Write([]byte{1, 0, 0, 'x', 0, 0, 0, 0})               // a chunk, the end, and three bytes to a multiple of four
	}
	begin := time.Now()
	n, err := io.Copy(io.Discard, XZ(&b))
	if took := time.Since(begin); n != blocks || took > 10*time.Second {
		t.Errorf("%d bytes come in %s (%v)", n, took, err)
	}
}

// TestDictionaryOfShortBlocks: what xz makes is read, whatever its blocks and chunks are.
func TestDictionaryOfShortBlocks(t *testing.T) {
	text := bytes.Repeat([]byte("the same line, and far away the same line again\n"), 20_000)
	noise := make([]byte, 300_000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	for _, data := range [][]byte{{}, []byte("x"), text, noise, append(append(bytes.Clone(noise), text...), noise...)} {
		for _, block := range []string{"--block-size=4096", "--block-size=100000", "-9"} {
			cmd := exec.Command("xz", "-c", "-T1", block)
			cmd.Stdin = bytes.NewReader(data)
			packed, err := cmd.Output()
			if err != nil {
				t.Skip("needs xz: ", err)
			}
			if got, err := io.ReadAll(XZ(bytes.NewReader(packed))); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes with %s come as %d (%v)", len(data), block, len(got), err)
			}
		}
	}
}

// TestAttackManyWindows: each member of an archive is a zstd stream of ten bytes that asks
// for a window of 256 MiB.
func TestAttackManyWindows(t *testing.T) {
	stream := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 9, 0, 0, 'x'}
	begin := time.Now()
	for range 500 {
		r, err := Zstd(bytes.NewReader(stream))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || string(data) != "x" {
			t.Fatalf("%q %v", data, err)
		}
		r.Close()
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("%s", took)
	}
}
