package compare

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	maxLine = 1 << 16
	// maxLines is how many lines are kept in memory to find a changed order or
	// added lines; longer texts are compared line by line only.
	maxLines = 200_000
)

// text compares two texts; done is false if one of them is none.
func (w *walker) text(path string, a, b File) (done bool, err error) {
	na, ok, err := w.lines(a)
	if err != nil || !ok {
		return false, err
	}
	nb, ok, err := w.lines(b)
	if err != nil || !ok {
		return false, err
	}
	t := w.leaf(path, "", "")
	defer t.end()
	if na <= maxLines && nb <= maxLines && a.Size <= maxWhole && b.Size <= maxWhole {
		x, err := a.read()
		if err != nil {
			return true, err
		}
		y, err := b.read()
		if err != nil {
			return true, err
		}
		t.align(splitLines(x), splitLines(y))
		return true, nil
	}
	if na != nb {
		off, err := w.differ(a, b)
		if err == nil {
			t.open(off, a.Size, fmt.Sprintf("%d lines instead of %d", nb, na))
		}
		return true, err
	}
	ra, rb := bufio.NewReaderSize(a.stream(), maxLine+1), bufio.NewReaderSize(b.stream(), maxLine+1)
	off := int64(0)
	for n := 1; ; n++ {
		if n%4096 == 0 && w.ctx.Err() != nil {
			return true, w.ctx.Err()
		}
		x, errA := ra.ReadSlice('\n')
		y, errB := rb.ReadSlice('\n')
		if !bytes.Equal(x, y) {
			t.line(line{n: n, off: off, text: x}, y)
		}
		off += int64(len(x))
		if errA != nil || errB != nil {
			if err := errors.Join(ended(errA), ended(errB)); err != nil {
				return true, err
			}
			return true, nil
		}
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// lines counts lines; ok is false for what is not text.
func (w *walker) lines(f File) (n int, ok bool, err error) {
	r := bufio.NewReaderSize(f.stream(), maxLine+1)
	for {
		p, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || bytes.IndexByte(p, 0) >= 0 || !utf8.Valid(p) {
			return 0, false, nil
		}
		if len(p) > 0 {
			n++
		}
		if errors.Is(err, io.EOF) {
			return n, true, nil
		}
		if err != nil {
			return 0, false, err
		}
		if n%4096 == 0 && w.ctx.Err() != nil {
			return 0, false, w.ctx.Err()
		}
	}
}

type line struct {
	n    int
	off  int64
	text []byte
}

func splitLines(data []byte) []line {
	var list []line
	off := int64(0)
	for n := 1; len(data) > 0; n++ {
		i := bytes.IndexByte(data, '\n') + 1
		if i == 0 {
			i = len(data)
		}
		list = append(list, line{n, off, data[:i]})
		off += int64(i)
		data = data[i:]
	}
	return list
}

// align finds which lines correspond, and compares those.
func (t *leaf) align(a, b []line) {
	for len(a) > 0 && len(b) > 0 && bytes.Equal(a[0].text, b[0].text) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && bytes.Equal(a[len(a)-1].text, b[len(b)-1].text) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	ma, mb := maskAll(a), maskAll(b)
	if len(a) == len(b) && !slices.Equal(ma, mb) {
		if x, y := sorted(a, ma), sorted(b, mb); slices.EqualFunc(x, y, func(i, j int) bool { return ma[i] == mb[j] }) {
			t.order(fmt.Sprintf("the same %d lines in another order, from line %d", len(a), a[0].n))
			for k := range x {
				if p, q := a[x[k]], b[y[k]]; !bytes.Equal(p.text, q.text) {
					t.line(p, q.text)
				}
			}
			return
		}
	}
	i, j := 0, 0
	for _, p := range append(anchors(ma, mb), [2]int{len(a), len(b)}) {
		t.hunk(a[i:p[0]], b[j:p[1]])
		if p[0] < len(a) && !bytes.Equal(a[p[0]].text, b[p[1]].text) {
			t.line(a[p[0]], b[p[1]].text)
		}
		i, j = p[0]+1, p[1]+1
	}
}

// hunk compares lines between two that correspond.
func (t *leaf) hunk(a, b []line) {
	if len(a) == len(b) {
		for i := range a {
			if !bytes.Equal(a[i].text, b[i].text) {
				t.line(a[i], b[i].text)
			}
		}
		return
	}
	switch {
	case len(a) == 0:
		t.open(-1, -1, fmt.Sprintf("line %d was added: %s", b[0].n, excerpt(trim(b[0].text))))
	case len(b) == 0:
		t.open(a[0].off, a[len(a)-1].off+int64(len(a[len(a)-1].text)), fmt.Sprintf("line %d is missing: %s", a[0].n, excerpt(trim(a[0].text))))
	default:
		t.open(a[0].off, a[len(a)-1].off+int64(len(a[len(a)-1].text)), fmt.Sprintf("%d lines instead of %d from line %d: %s instead of %s", len(b), len(a), a[0].n, excerpt(trim(b[0].text)), excerpt(trim(a[0].text))))
	}
}

func trim(p []byte) string { return strings.TrimRight(string(p), "\r\n") }

func maskAll(list []line) []uint64 {
	out := make([]uint64, len(list))
	for i, l := range list {
		h := fnv.New64a()
		_, _ = io.WriteString(h, masked(l.text)) // a hash takes everything
		out[i] = h.Sum64()
	}
	return out
}

// sorted gives the indexes of lines in the order of their masked and whole text.
func sorted(list []line, mask []uint64) []int {
	idx := make([]int, len(list))
	for i := range idx {
		idx[i] = i
	}
	sort.SliceStable(idx, func(x, y int) bool {
		i, j := idx[x], idx[y]
		if mask[i] != mask[j] {
			return mask[i] < mask[j]
		}
		return bytes.Compare(list[i].text, list[j].text) < 0
	})
	return idx
}

// anchors pairs lines that stand once in each text, in rising order (patience).
func anchors(a, b []uint64) [][2]int {
	type seen struct{ n, at int }
	count := func(list []uint64) map[uint64]seen {
		m := map[uint64]seen{}
		for i, h := range list {
			m[h] = seen{m[h].n + 1, i}
		}
		return m
	}
	ca, cb := count(a), count(b)
	var pairs [][2]int
	for i, h := range a {
		if ca[h].n == 1 && cb[h].n == 1 {
			pairs = append(pairs, [2]int{i, cb[h].at})
		}
	}
	// The longest rising sequence of the second index.
	var tails []int
	prev := make([]int, len(pairs))
	for i, p := range pairs {
		k := sort.Search(len(tails), func(k int) bool { return pairs[tails[k]][1] >= p[1] })
		prev[i] = -1
		if k > 0 {
			prev[i] = tails[k-1]
		}
		if k == len(tails) {
			tails = append(tails, i)
		} else {
			tails[k] = i
		}
	}
	var out [][2]int
	if len(tails) > 0 {
		for i := tails[len(tails)-1]; i >= 0; i = prev[i] {
			out = append(out, pairs[i])
		}
	}
	slices.Reverse(out)
	return out
}
