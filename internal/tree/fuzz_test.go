package tree

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzNames resolves names through links with any target, with openat2 and without:
// both give the same file, and never one outside.
func FuzzNames(f *testing.F) {
	for _, s := range [][2]string{{"l", "../secret"}, {"l/secret", ".."}, {"d/../l", "/secret"}, {"/l//x", "d/."}, {"l", "l"}, {"../../secret", ""}, {"l/l/l/file", "."}, {"d/up/../../secret", "/../.."}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, name, target string) {
		top := t.TempDir()
		dir := filepath.Join(top, "root")
		write(t, filepath.Join(top, "secret"), "outside")
		write(t, filepath.Join(dir, "d", "file"), "inside")
		link(t, "../..", filepath.Join(dir, "d", "up"))
		if target != "" && !strings.ContainsRune(target, 0) && len(target) < 4000 {
			_ = os.Symlink(target, filepath.Join(dir, "l"))
		}
		for _, r := range []rule{noLinks, inRoot} {
			fast, ferr := opened(t, dir, r, false).ReadFile(name, 100)
			slow, serr := opened(t, dir, r, true).ReadFile(name, 100)
			if string(fast) == "outside" || string(slow) == "outside" {
				t.Fatalf("%q with a link to %q leaves the directory", name, target)
			}
			if string(fast) != string(slow) || (ferr == nil) != (serr == nil) {
				t.Fatalf("%q with a link to %q: %q %v with openat2, %q %v without", name, target, fast, ferr, slow, serr)
			}
		}
	})
}

// FuzzHoles writes a file with the holes that a header claims. What is written outside of them
// is there, they are zeros, and no record makes a part that begins after its end.
func FuzzHoles(f *testing.F) {
	f.Add("0 10 20 5", int64(40), 7)
	f.Add("9223372036854775807 9223372036854775807", int64(math.MaxInt64), 1)
	f.Add("5 5 3 1", int64(10), 3)
	f.Add("1", int64(10), 3)
	f.Fuzz(func(t *testing.T, record string, size int64, chunk int) {
		list, err := parseHoles(record, size)
		at := int64(0)
		for _, x := range list {
			if x.begin < at || x.end < x.begin || x.end > size {
				t.Fatalf("%q of a file of %d bytes has the hole %v", record, size, x)
			}
			at = x.end
		}
		if err != nil || size < 0 || size > 1<<16 || chunk < 1 {
			return
		}
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		s, err := NewSparse(file, map[string]string{recordHoles: record}, size)
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(bytes.Repeat([]byte("x"), int(size)), chunk) {
			if n, err := s.Write(part); err != nil || n != len(part) {
				t.Fatalf("%d of %d bytes: %v", n, len(part), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("x"), int(size))
		for _, x := range list {
			clear(want[x.begin:x.end])
		}
		if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q of %d bytes: %q, not %q: %v", record, size, got, want, err)
		}
	})
}
