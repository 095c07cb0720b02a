package evidence

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func root(t testing.TB, x *Tree, n int64) tlog.Hash {
	t.Helper()
	h, err := x.Root(n)
	if err != nil {
		t.Fatalf("root of %d lines: %v", n, err)
	}
	return h
}

// TestKnownRoots: the tree is that of RFC 6962, with the values that every
// implementation of it is tested with.
func TestKnownRoots(t *testing.T) {
	x := &Tree{}
	roots := []string{
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	for i, line := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"} {
		data, err := hex.DecodeString(line)
		if err == nil {
			err = x.Add(data)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := root(t, x, x.Size()); hex.EncodeToString(got[:]) != roots[i] {
			t.Errorf("root of %d lines: %x", i+1, got)
		}
	}
}

// TestTree: whoever has a root and a proof, and Go's checksum database's own
// code, can check that lines are there and that none was changed.
func TestTree(t *testing.T) {
	const n = 20
	lines := events(1, n, "x")
	x := &Tree{}
	roots := []tlog.Hash{root(t, x, 0)}
	seen := map[tlog.Hash]int64{roots[0]: 0}
	for _, line := range lines {
		if err := x.Add(line); err != nil {
			t.Fatal(err)
		}
		h := root(t, x, x.Size())
		if size, ok := seen[h]; ok {
			t.Fatalf("%d lines have the root of %d", x.Size(), size)
		}
		seen[h], roots = x.Size(), append(roots, h)

		size := x.Size()
		for old := int64(1); old <= size; old++ {
			if root(t, x, old) != roots[old] {
				t.Errorf("the root of %d lines has changed when there were %d", old, size)
			}
			p, err := x.Extends(old)
			if err != nil {
				t.Fatalf("%d lines extend %d: %v", size, old, err)
			}
			if err := tlog.CheckTree(p, size, h, old, roots[old]); err != nil {
				t.Errorf("%d lines extend %d: %v", size, old, err)
			}
			if err := tlog.CheckTree(p, size, h, old, roots[old-1]); err == nil {
				t.Errorf("%d lines extend another tree of %d", size, old)
			}
			r, err := x.Includes(old - 1)
			if err != nil {
				t.Fatalf("line %d of %d: %v", old, size, err)
			}
			if err := tlog.CheckRecord(r, size, h, old-1, tlog.RecordHash(lines[old-1])); err != nil {
				t.Errorf("line %d of %d: %v", old, size, err)
			}
			if err := tlog.CheckRecord(r, size, h, old-1, tlog.RecordHash(lines[old%n])); err == nil {
				t.Errorf("line %d of %d is proved to be another", old, size)
			}
		}
	}

	// One byte of one line.
	for i := range lines {
		changed := make([][]byte, n)
		copy(changed, lines)
		changed[i] = append([]byte(nil), lines[i]...)
		changed[i][len(changed[i])/2] ^= 1
		y := tree(t, changed)
		for size := range int64(n + 1) {
			if same, want := root(t, y, size) == roots[size], size <= int64(i); same != want {
				t.Errorf("line %d has another byte: the same root for %d lines: %t", i+1, size, same)
			}
		}
		r, err := y.Includes(int64(i))
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(r, n, roots[n], int64(i), tlog.RecordHash(changed[i])); err == nil {
			t.Errorf("line %d with another byte is in the tree", i+1)
		}
		p, err := y.Extends(int64(i) + 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(p, n, root(t, y, n), int64(i)+1, roots[i+1]); err == nil {
			t.Errorf("with another byte in line %d it extends what was", i+1)
		}
	}

	// What is not there.
	for _, size := range []int64{n + 1, n + 12, 1 << 40} {
		if h, err := x.Root(size); err == nil {
			t.Errorf("root of %d lines of %d: %s", size, n, h)
		}
	}
	for _, old := range []int64{-1, 0, n + 1} {
		if p, err := x.Extends(old); err == nil {
			t.Errorf("%d lines extend %d: %v", n, old, p)
		}
	}
	for _, line := range []int64{-1, n, n + 1} {
		if p, err := x.Includes(line); err == nil {
			t.Errorf("line %d of %d: %v", line, n, p)
		}
	}
}

func TestCheckpoint(t *testing.T) {
	x := tree(t, events(1, 3, "x"))
	for _, c := range []Checkpoint{
		{"release.4.2", 3, root(t, x, 3)},
		{"fleet", 0, root(t, x, 0)},
		{"a stream", 1<<63 - 1, tlog.Hash{}},
	} {
		want := fmt.Sprintf("trysail ledger %s\n%d\n%s\n", c.Stream, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
		if c.Text() != want {
			t.Errorf("%+v is %q", c, c.Text())
		}
		if got, err := ParseCheckpoint(c.Text()); err != nil || got != c {
			t.Errorf("%q is read as %+v: %v", c.Text(), got, err)
		}
	}

	const hash = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	good := "trysail ledger fleet\n7\n" + hash + "\n"
	if c, err := ParseCheckpoint(good); err != nil || c.Size != 7 || c.Root[31] != 31 {
		t.Fatalf("%+v %v", c, err)
	}
	for _, text := range []string{
		"", "\n", "\n\n\n", "\n7\n" + hash + "\n",
		strings.TrimSuffix(good, "\n"), good + "\n", "\n" + good, good + good, " " + good, good + " ", good + "\n— trysail AAAA\n", // too little, too much
		strings.ReplaceAll(good, "\n", "\r\n"), strings.Replace(good, "\n", "\n\n", 1), strings.Replace(good, "\n", " ", 1),
		strings.Replace(good, "trysail", "Trysail", 1), strings.Replace(good, "trysail ", "", 1), strings.Replace(good, "fleet", "", 1), // the stream
		"trysail ledger\n7\n" + hash + "\n", "go.sum database tree\n7\n" + hash + "\n",
		strings.Replace(good, "7", "", 1), strings.Replace(good, "7", "-7", 1), strings.Replace(good, "7", "+7", 1), strings.Replace(good, "7", "07", 1), // the size
		strings.Replace(good, "7", " 7", 1), strings.Replace(good, "7", "7 ", 1), strings.Replace(good, "7", "7.0", 1), strings.Replace(good, "7", "0x7", 1),
		strings.Replace(good, "7", "1_000", 1), strings.Replace(good, "7", "9223372036854775808", 1), strings.Replace(good, "7", "seven", 1),
		strings.Replace(good, hash, "", 1), strings.Replace(good, hash, "AAEC", 1), strings.Replace(good, hash, hash[:43], 1), // the root
		strings.Replace(good, hash, "AAEC"+hash, 1), strings.Replace(good, hash, hash[:43]+"!", 1), strings.Replace(good, hash, hash[:42]+"9=", 1),
		strings.Replace(good, hash, hash+" ", 1), strings.Replace(good, hash, hash[:20]+"\r"+hash[20:], 1),
		strings.Replace(good, hash, strings.Repeat("0", 64), 1), strings.Replace(good, hash, strings.Repeat("__8", 14)+"_8=", 1),
	} {
		if c, err := ParseCheckpoint(text); err == nil || c != (Checkpoint{}) {
			t.Errorf("%q is read as %+v: %v", text, c, err)
		} else if len(err.Error()) > 400 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}

// FuzzParseCheckpoint: what is read renders back to the same text, so that two
// texts never stand for one checkpoint.
func FuzzParseCheckpoint(f *testing.F) {
	good := Checkpoint{"release.1", 7, tlog.RecordHash([]byte("x"))}.Text()
	f.Add(good)
	for _, line := range strings.SplitAfter(good, "\n") {
		f.Add(strings.Replace(good, line, "", 1))
		f.Add(strings.Replace(good, line, line+line, 1))
	}
	f.Add(strings.Replace(good, "7", "+07", 1))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCheckpoint(text)
		if err != nil {
			if c != (Checkpoint{}) {
				t.Fatalf("%q is refused, and read as %+v", text, c)
			}
			return
		}
		if c.Text() != text || c.Stream == "" || c.Size < 0 {
			t.Fatalf("%q is read as %+v, which is %q", text, c, c.Text())
		}
	})
}

// events are the first to the last of a stream; what tells one history from another.
func events(first, last int, what string) [][]byte {
	var list [][]byte
	for i := first; i <= last; i++ {
		list = append(list, fmt.Appendf(nil, `{"seq":%d,"what":%q}`, i, what))
	}
	return list
}

// tree is the tree over lines.
func tree(t testing.TB, lines [][]byte) *Tree {
	t.Helper()
	x := &Tree{}
	for _, l := range lines {
		if err := x.Add(l); err != nil {
			t.Fatal(err)
		}
	}
	return x
}
