package compare

import (
	"encoding/binary"
	"fmt"
	"math"
)

// leaf compares the content of one file, member or section.
type leaf struct {
	w       *walker
	path    string // with the section in brackets
	section bool
	cause   string // where nothing better is known
	mine    *place
	itself  *place
}

// leaf begins a comparison of content. A label names a part of it.
func (w *walker) leaf(path, label, cause string) *leaf {
	if label != "" {
		path += " [" + label + "]"
	}
	return &leaf{w: w, path: path, section: label != "", cause: cause, mine: w.keep(path), itself: w.itself[path]}
}

func (t *leaf) end() { t.mine.sort() }

func (t *leaf) span(s span) {
	if len(t.mine.spans) < maxRuns {
		t.mine.spans = append(t.mine.spans, s)
	} else {
		t.mine.opaque = true
	}
}

func (t *leaf) note(field, cause string, excused bool, what func() string) {
	if cause == "" {
		cause = t.cause
	}
	t.w.note(group{path: t.path, field: field, cause: cause, excused: excused, unclear: !excused && t.itself != nil && t.itself.opaque}, what)
}

// open notes a difference that cannot be told apart; it excuses nothing.
func (t *leaf) open(from, to int64, what string) {
	t.mine.opaque = true
	t.span(span{from: from, to: to, kind: kindOpen})
	if why := t.w.unopened[t.path]; why != "" {
		what += " (it cannot be opened: " + excerpt(why) + ")"
	}
	t.note("open", "", false, func() string { return what })
}

// order notes that the same lines stand in another order.
func (t *leaf) order(what string) {
	t.w.field("", t.path, "order", CauseOrder, "", what)
}

// whole notes that a part which is known to vary as a whole does.
func (t *leaf) whole(size int64, k kind, cause, what string) {
	t.span(span{from: 0, to: size, kind: k})
	t.note("whole", cause, within(t.itself, 0, size, func(s span) bool { return s.kind == k }), func() string { return what })
}

// line compares two lines that correspond.
func (t *leaf) line(a line, b []byte) {
	for _, u := range units(a.text, b) {
		excused := t.unit(u, a.off, a.text, b)
		t.note("line", u.cause, excused, func() string {
			return fmt.Sprintf("line %d: %s instead of %s", a.n, around(b, u.bfrom, u.bto), around(a.text, u.from, u.to))
		})
	}
}

// unit remembers a unit of two strings, of which the first stands at an offset,
// and tells if it is excused.
func (t *leaf) unit(u unit, off int64, a, b []byte) bool {
	const most = 512
	s := span{from: off + int64(u.from), to: off + int64(u.to), kind: u.kind}
	if u.kind == kindRegion {
		if s.texts = (&[2]string{string(a[u.from:u.to]), string(b[u.bfrom:u.bto])}); max(len(s.texts[0]), len(s.texts[1])) > most {
			s.kind, s.texts, t.mine.opaque = kindOpen, nil, true
		}
	}
	t.span(s)
	if u.also[0] >= 0 && u.also[1] > 0 {
		t.span(span{from: off + int64(u.also[0]), to: off + int64(u.also[1]), kind: u.kind})
	}
	return within(t.itself, s.from, s.to, func(s span) bool { return s.allows(u, b[u.bfrom:u.bto]) })
}

// around shows a unit with the little text before it that says what it is.
func around(line []byte, from, to int) string {
	const before, most = 24, 40
	from, to = min(from, len(line)), min(to, len(line))
	start, dots := from-before, "…"
	if start <= 0 {
		start, dots = 0, ""
	}
	end, tail := to, ""
	if end-from > most {
		end, tail = from+most, "…"
	}
	return "“" + dots + excerptAll(line[start:end]) + tail + "”"
}

func excerptAll(p []byte) string {
	q := fmt.Sprintf("%q", p)
	return q[1 : len(q)-1]
}

// run is an interval of differing bytes.
type run struct {
	from, to int64
	text     bool
	lo, hi   int64 // the printable string around it
}

const nearby = 8 // bytes: runs this close to each other are one thing

// binary compares content byte by byte. With the label "form", all that was
// understood is equal, and cause says what remains.
func (w *walker) binary(path, label, cause string, a, b File) error {
	off, err := w.differ(a, b)
	if err != nil || off < 0 {
		return err
	}
	t := w.leaf(path, label, cause)
	defer t.end()
	if label == "form" {
		t.whole(a.Size, kindNamed, cause, fmt.Sprintf("the content is the same, its form is not, from byte %d", off))
		return nil
	}
	if done, err := t.random(a, b); done || err != nil {
		return err
	}
	if a.Size != b.Size {
		return t.pieces(a, b, off)
	}
	runs, all, err := w.runs(a, b)
	if err != nil {
		return err
	}
	if !all {
		t.open(off, a.Size, fmt.Sprintf("bytes differ throughout, from offset %d", off))
		return nil
	}
	return t.sameSize(a, b, runs)
}

// random handles small contents that are random throughout, such as signatures.
func (t *leaf) random(a, b File) (bool, error) {
	const least, most = 48, 4096
	if t.section || min(a.Size, b.Size) < least || max(a.Size, b.Size) > most {
		return false, nil
	}
	x, err := a.read()
	if err != nil {
		return false, err
	}
	y, err := b.read()
	if err != nil || !looksRandom(x) || !looksRandom(y) {
		return false, err
	}
	t.whole(a.Size, kindRandom, CauseRandom, fmt.Sprintf("%d bytes of random data", b.Size))
	return true, nil
}

// looksRandom measures whether all byte values are about equally frequent.
func looksRandom(p []byte) bool {
	if len(p) == 0 {
		return false
	}
	var n [256]int
	printable := 0
	for _, c := range p {
		n[c]++
		if c >= ' ' && c < 0x7f {
			printable++
		}
	}
	var h float64
	for _, k := range n {
		if k > 0 {
			f := float64(k) / float64(len(p))
			h -= f * math.Log2(f)
		}
	}
	return h > 0.88*math.Log2(float64(min(len(p), 256))) && printable*3 < len(p)*2
}

// runs collects the intervals in which two contents of one size differ.
func (w *walker) runs(a, b File) (list []run, all bool, err error) {
	const chunk = 1 << 16
	x, y := make([]byte, chunk), make([]byte, chunk)
	for off := int64(0); off < a.Size; off += chunk {
		if err := w.ctx.Err(); err != nil {
			return nil, false, err
		}
		k := min(chunk, a.Size-off)
		if err := readFull(a, x[:k], off); err != nil {
			return nil, false, err
		}
		if err := readFull(b, y[:k], off); err != nil {
			return nil, false, err
		}
		for i := range k {
			if x[i] == y[i] {
				continue
			}
			at := off + i
			if n := len(list); n > 0 && list[n-1].to == at {
				list[n-1].to++
			} else if n == maxRuns {
				return nil, false, nil
			} else {
				list = append(list, run{from: at, to: at + 1})
			}
		}
	}
	return list, true, nil
}

// sameSize tells strings and numbers apart in contents of one size.
func (t *leaf) sameSize(a, b File, runs []run) error {
	const reach = 512
	for i := range runs {
		r := &runs[i]
		lo, hi := max(0, r.from-reach), min(a.Size, r.to+reach)
		if r.to-r.from > reach {
			continue
		}
		x, err := a.section(lo, hi-lo).read()
		if err != nil {
			return err
		}
		y, err := b.section(lo, hi-lo).read()
		if err != nil {
			return err
		}
		f, e := r.from-lo, r.to-lo
		both := func(i int64) bool { return printable(x[i]) && printable(y[i]) }
		r.text = true
		for j := f; j < e; j++ {
			r.text = r.text && both(j)
		}
		if !r.text {
			continue
		}
		for f > 0 && both(f-1) {
			f--
		}
		for e < int64(len(x)) && both(e) {
			e++
		}
		r.lo, r.hi = lo+f, lo+e
		r.text = e-f >= 4
	}
	// A few printable bytes amid others are no string.
	for i := 1; i < len(runs); i++ {
		if !runs[i-1].text && runs[i].from-runs[i-1].to <= nearby {
			runs[i].text = false
		}
	}
	for i := len(runs) - 2; i >= 0; i-- {
		if !runs[i+1].text && runs[i+1].from-runs[i].to <= nearby {
			runs[i].text = false
		}
	}
	for i := 0; i < len(runs); {
		j := i + 1
		if runs[i].text {
			lo, hi := runs[i].lo, runs[i].hi
			for j < len(runs) && runs[j].text && runs[j].from < hi {
				hi = max(hi, runs[j].hi)
				j++
			}
			if err := t.text(a, b, lo, hi, runs[i:j]); err != nil {
				return err
			}
		} else {
			for j < len(runs) && !runs[j].text && runs[j].from-runs[j-1].to <= nearby {
				j++
			}
			t.bytes(a, b, runs[i:j])
		}
		i = j
	}
	return nil
}

func printable(c byte) bool { return c >= ' ' && c < 0x7f || c == '\t' }

// text compares a string within binary content.
func (t *leaf) text(a, b File, lo, hi int64, runs []run) error {
	x, err := a.section(lo, hi-lo).read()
	if err != nil {
		return err
	}
	y, err := b.section(lo, hi-lo).read()
	if err != nil {
		return err
	}
	for _, u := range units(x, y) {
		excused := t.unit(u, lo, x, y)
		if !excused {
			// A string by chance, amid bytes that vary.
			held, all := 0, 0
			for _, r := range runs {
				if r.from < lo+int64(u.to) && r.to > lo+int64(u.from) {
					all++
					if ok, _ := t.holds(r, nil); ok {
						held++
					}
				}
			}
			excused = all > 0 && held == all
		}
		t.note("bytes", u.cause, excused, func() string {
			return fmt.Sprintf("offset %d: %s instead of %s", lo+int64(u.from), around(y, u.bfrom, u.bto), around(x, u.from, u.to))
		})
	}
	return nil
}

// bytes notes runs that stand close together as one thing.
func (t *leaf) bytes(a, b File, runs []run) {
	from, to := runs[0].from, runs[len(runs)-1].to
	n := int64(0)
	for _, r := range runs {
		n += r.to - r.from
	}
	s := span{from: from, to: to, kind: kindBytes}
	stamps, cause := binaryStamps(a, b, from, to), ""
	switch {
	case len(stamps) > 0:
		for _, s := range stamps {
			t.span(s)
			if s.from%4 == 0 {
				cause = CauseTime // elsewhere it may be one, but most numbers there are not
			}
		}
	case to-from > 4096:
		s.kind, t.mine.opaque = kindOpen, true
	case to-from >= 8 && n*4 >= (to-from)*3:
		// The ends of random data may be equal by chance.
		if x, _ := a.section(from, to-from).read(); looksRandom(x) {
			if y, _ := b.section(from, to-from).read(); looksRandom(y) {
				cause = CauseRandom
			}
		}
		s.from, s.to = max(0, from-3), min(a.Size, to+3)
	case to-from > 1:
		s.from, s.to = from&^3, min(a.Size, (to+3)&^3)
	}
	if len(stamps) == 0 {
		t.span(s)
	}
	excused := true
	for _, r := range runs {
		ok, k := t.holds(r, &b)
		excused = excused && ok
		if ok && k == kindBinary {
			cause = CauseTime
		}
	}
	t.note("bytes", cause, excused, func() string {
		if cause == CauseTime {
			return fmt.Sprintf("a time as a number at offset %d", from)
		}
		x, _ := a.section(from, min(8, to-from)).read()
		y, _ := b.section(from, min(8, to-from)).read()
		return fmt.Sprintf("%d bytes from offset %d: %x instead of %x", to-from, from, y, x)
	})
}

// holds tells if bytes that differ lie where the captured machine's own differ,
// and in what kind of place.
func (t *leaf) holds(r run, b *File) (ok bool, k kind) {
	ok = within(t.itself, r.from, r.to, func(s span) bool {
		k = s.kind
		switch s.kind {
		case kindBytes, kindNamed:
			return true
		case kindBinary:
			if b == nil {
				return false
			}
			n, ok := seconds(*b, s.from, s.sub)
			return ok && recent(n)
		}
		return false
	})
	return ok, k
}

// recent accepts the years 2014 to 2046: a smaller range than for times that
// are written out, since any four bytes are a number.
func recent(n int64) bool { return n >= 1_400_000_000 && n < 2_400_000_000 }

// The ways in which a time stands as a number: width, order, and how many to a second.
type encoding struct {
	width  int64
	order  binary.ByteOrder
	second uint64
}

func encodings() []encoding {
	le, be := binary.ByteOrder(binary.LittleEndian), binary.ByteOrder(binary.BigEndian)
	return []encoding{{8, le, 1e9}, {8, be, 1e9}, {8, le, 1e6}, {8, be, 1e6}, {8, le, 1e3}, {8, be, 1e3}, {4, le, 1}, {4, be, 1}}
}

func seconds(f File, at int64, sub int8) (int64, bool) {
	e := encodings()[sub]
	if at < 0 || at+e.width > f.Size {
		return 0, false
	}
	p, err := f.section(at, e.width).read()
	if err != nil {
		return 0, false
	}
	var n uint64
	if e.width == 8 {
		n = e.order.Uint64(p)
	} else {
		n = uint64(e.order.Uint32(p))
	}
	n /= e.second
	return int64(n & math.MaxInt64), n < math.MaxInt64
}

// binaryStamps lists the ways to read the bytes around an interval as two times
// within a week of each other.
func binaryStamps(a, b File, from, to int64) []span {
	const week = 7 * 24 * 3600
	var list []span
	for i, e := range encodings() {
		if to-from > e.width {
			continue
		}
		for at := max(0, to-e.width); at <= from; at++ {
			if e.width == 8 && at%4 != 0 {
				continue
			}
			x, okA := seconds(a, at, int8(i))
			y, okB := seconds(b, at, int8(i))
			if okA && okB && recent(x) && recent(y) && x-y < week && y-x < week {
				list = append(list, span{from: at, to: at + e.width, kind: kindBinary, sub: int8(i)})
			}
		}
	}
	return list
}

// pieces compares contents of different size by the strings in them, if they
// have as many of them and the same between them.
func (t *leaf) pieces(a, b File, off int64) error {
	what := fmt.Sprintf("bytes differ from offset %d; %d bytes instead of %d", off, b.Size, a.Size)
	if a.Size > maxWhole || b.Size > maxWhole {
		t.open(off, a.Size, what)
		return nil
	}
	x, err := a.read()
	if err != nil {
		return err
	}
	y, err := b.read()
	if err != nil {
		return err
	}
	p, q := splitStrings(x), splitStrings(y)
	if len(p) != len(q) {
		t.open(off, a.Size, what)
		return nil
	}
	for i := range p {
		s, u := x[p[i][0]:p[i][1]], y[q[i][0]:q[i][1]]
		switch {
		case string(s) == string(u):
		case i%2 == 0 && i > 0 && zeros(s) && zeros(u) && p[i][0]-p[i-1][0] != q[i][0]-q[i-1][0]:
			// After a string of another length, zeros fill up to the next thing.
		case i%2 == 1 && len(s) <= maxLine && len(u) <= maxLine:
			t.strings(int64(p[i][0]), s, u)
		default:
			t.open(int64(p[i][0]), a.Size, what)
			return nil
		}
	}
	return nil
}

func (t *leaf) strings(at int64, s, u []byte) {
	for _, x := range units(s, u) {
		excused := t.unit(x, at, s, u)
		t.note("bytes", x.cause, excused, func() string {
			return fmt.Sprintf("offset %d: %s instead of %s", at+int64(x.from), around(u, x.bfrom, x.bto), around(s, x.from, x.to))
		})
	}
}

// splitStrings divides content into what is no string and what is, in turn.
func splitStrings(p []byte) [][2]int {
	const least = 4
	var list [][2]int
	from := 0
	for i := 0; i < len(p); {
		j := i
		for j < len(p) && printable(p[j]) {
			j++
		}
		if j-i >= least {
			list = append(list, [2]int{from, i}, [2]int{i, j})
			from = j
		}
		i = max(j, i+1)
	}
	return append(list, [2]int{from, len(p)})
}

func zeros(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}
