package ledger

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/evidence"
)

func openCopy(t testing.TB, dir, stream string) *Copy {
	t.Helper()
	c, err := OpenCopy(dir, stream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// tree is the tree over lines.
func tree(t testing.TB, lines [][]byte) *evidence.Tree {
	t.Helper()
	x := &evidence.Tree{}
	for _, l := range lines {
		if err := x.Add(l); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// keeps says what a copy holds, in memory and on the disk.
func keeps(t testing.TB, c *Copy, want [][]byte) {
	t.Helper()
	n := int64(len(want))
	a, err := c.Tree.Root(c.Size())
	b, err2 := tree(t, want).Root(n)
	if c.Size() != n || a != b || errors.Join(err, err2) != nil {
		t.Errorf("the copy has %d events with root %s, not %d with %s (%v)", c.Size(), a, n, b, errors.Join(err, err2))
	}
	text := append(bytes.Join(want, []byte("\n")), '\n')
	if n == 0 {
		text = nil
	}
	if got, err := os.ReadFile(c.path); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the file holds %.300q, not %.300q (%v)", got, text, err)
	}
}

func TestCopy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "ledger")
	if names, err := Copies(dir); err != nil || len(names) != 0 {
		t.Errorf("copies in a directory that is not there: %q %v", names, err)
	}
	all := events(1, 9, "x")
	c := openCopy(t, dir, "release.1")
	keeps(t, c, nil)
	for _, step := range []struct {
		name        string
		first, last int // of the lines that come
		size        int // after it
		gap         bool
	}{
		{"nothing", 1, 0, 0, false},
		{"a gap before the first", 2, 3, 0, true},
		{"two lines", 1, 2, 2, false},
		{"one more", 3, 3, 3, false},
		{"the same again", 3, 3, 3, false},
		{"all again", 1, 3, 3, false},
		{"some of them again", 2, 2, 3, false},
		{"a gap", 5, 5, 3, true},
		{"nothing, after a gap", 9, 8, 3, true},
		{"two again, and two more", 2, 5, 5, false},
		{"nothing again", 2, 1, 5, false},
		{"the rest", 6, 9, 9, false},
	} {
		err := c.Append(int64(step.first)-1, all[step.first-1:step.last])
		if (err != nil) != step.gap {
			t.Errorf("%s: %v", step.name, err)
		}
		keeps(t, c, all[:step.size])
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openCopy(t, dir, "release.1")
	keeps(t, c, all)
	ten := append(slices.Clone(all), nil, []byte("not JSON \x00\xff\r"))
	if err := c.Append(9, ten[9:]); err != nil {
		t.Error(err)
	}
	keeps(t, c, ten)
	if got, err := ReadCopy(dir, "release.1"); err != nil || !same(got, ten) {
		t.Errorf("read back: %q %v", got, err)
	}
	keeps(t, openCopy(t, dir, "release.1"), ten)

	if got, err := ReadCopy(dir, "release.2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy that is not there: %q %v", got, err)
	}
	openCopy(t, dir, "fleet")
	if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := Copies(dir); err != nil || !slices.Equal(names, []string{"fleet", "release.1"}) {
		t.Errorf("copies %q %v", names, err)
	}
	for name, want := range map[string]fs.FileMode{".": 0o700, "fleet.jsonl": 0o600, "release.1.jsonl": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != want {
			t.Errorf("%s has mode %s", name, info.Mode())
		}
	}
}

// TestTornCopy: what a power loss leaves of the last line was never acknowledged.
func TestTornCopy(t *testing.T) {
	lines := events(1, 3, "x")
	whole := string(lines[0]) + "\n" + string(lines[1]) + "\n"
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"half a line":              {whole + `{"seq":3,"wh`, 2},
		"a line without its end":   {whole + string(lines[2]), 2},
		"one byte":                 {whole + "{", 2},
		"zeroes":                   {whole + strings.Repeat("\x00", 4096), 2},
		"longer than any event":    {whole + strings.Repeat("x", maxLine+10), 2},
		"half of the first":        {string(lines[0][:5]), 0},
		"nothing":                  {"", 0},
		"nothing, after two lines": {whole, 2},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "r.jsonl")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadCopy(dir, "r"); err != nil || !same(got, lines[:c.want]) {
			t.Errorf("%s: read as %d lines: %v", name, len(got), err)
		}
		if after, err := os.ReadFile(file); err != nil || string(after) != c.text {
			t.Errorf("%s: reading changed the file (%v)", name, err)
		}
		x := openCopy(t, dir, "r")
		keeps(t, x, lines[:c.want])
		if err := x.Append(int64(c.want), lines[c.want:]); err != nil {
			t.Errorf("%s: append after it: %v", name, err)
		}
		keeps(t, x, lines)
		keeps(t, openCopy(t, dir, "r"), lines)
	}
}

// TestLongLine: a line that no event can be is damage, and is left as it is.
func TestLongLine(t *testing.T) {
	fit := bytes.Repeat([]byte("x"), maxLine)
	for _, c := range []struct {
		name  string
		lines [][]byte
		torn  int64
	}{
		{"the longest event", [][]byte{[]byte("1"), fit, []byte("3")}, 0},
		{"one byte more", [][]byte{[]byte("1"), []byte("2"), append([]byte("x"), fit...), []byte("4")}, 3},
		{"the first", [][]byte{append(fit, fit...)}, 1},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "r.jsonl")
		text := append(bytes.Join(c.lines, []byte("\n")), "\ntorn"...)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		read, rerr := ReadCopy(dir, "r")
		x, err := OpenCopy(dir, "r")
		if c.torn == 0 {
			if rerr != nil || !same(read, c.lines) || err != nil {
				t.Errorf("%s: %d lines %v %v", c.name, len(read), rerr, err)
				continue
			}
			keeps(t, x, c.lines)
			x.Close()
			continue
		}
		for _, err := range []error{rerr, err} {
			var torn *TornError
			if !errors.As(err, &torn) || torn.File != file || torn.Line != c.torn || torn.Hint() == "" {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, text) {
			t.Errorf("%s: the damaged copy was changed: %d bytes of %d (%v)", c.name, len(after), len(text), err)
		}
	}
}
