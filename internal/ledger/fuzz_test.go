package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzCopy opens a copy of a stream that a disk or a stranger left behind. What is read of
// it are its whole lines, and it goes on after them.
func FuzzCopy(f *testing.F) {
	f.Add([]byte("{\"seq\":1}\n{\"seq\":2}\n"))
	f.Add([]byte("{\"seq\":1}\n{\"seq\":2"))
	f.Add([]byte("\n\n\x00\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		file := filepath.Join(dir, "r.jsonl")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		lines, err := ReadCopy(dir, "r")
		if err != nil {
			return
		}
		_, _ = checkedCopy(dir, "r", func(string, []byte) error { return nil }, nil)
		c, err := OpenCopy(dir, "r")
		if err != nil {
			t.Fatalf("%q is read, and not opened: %v", data, err)
		}
		defer c.Close()
		if c.Size() != int64(len(lines)) || c.Size() != int64(bytes.Count(data, []byte("\n"))) {
			t.Errorf("%q has %d lines, and %d", data, len(lines), c.Size())
		}
		if err := c.Append(c.Size(), [][]byte{[]byte("next")}); err != nil {
			t.Fatal(err)
		}
		want := append(bytes.Clone(data[:bytes.LastIndexByte(data, '\n')+1]), "next\n"...)
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q becomes %q: %v", data, got, err)
		}
	})
}
