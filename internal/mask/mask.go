// Package mask hides secrets in a stream, also where they are written in another form.
//
// A value is looked for line by line: as it is, in base64 (both alphabets, wherever it
// stands in what was encoded), in hex (either case, with the separators of od and xxd -p),
// escaped for URLs, for JSON and C, and quoted for a shell; each also split over lines, as
// fold and base64 do. It does this by reading the stream in several ways at once: a decoder
// undoes an escape, a fold drops what a form leaves free, and an automaton (Aho and
// Corasick's) finds every value in one pass. What may still become a match is held back,
// and no more, so it makes no difference where the stream is cut.
//
// It helps against accidents: a tool that prints its environment, a URL, a request. It is
// no wall. Whoever writes a step can show its secrets in a form that is not listed here
// (compressed, encrypted, reversed, encoded twice, letter by letter), and a value of fewer
// than [Least] bytes is in everything and not looked for. Of a base64 text that holds a
// value, the characters at its ends that hold bits of other bytes too are left: up to four
// bits of the value's first byte and of its last.
package mask

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
)

const (
	// Least is the shortest value, in bytes, that is looked for.
	Least = 4
	// Text is what stands where a secret was.
	Text = "[secret]"

	piece  = 256 // bytes of a pattern; longer values are several
	enough = 8   // bytes of a value that is looked for between any blanks
	// gap is how many bytes a form may leave free (line breaks and what indents a line)
	// between two of a value.
	gap = 256
)

// Mask knows some values. It is immutable; nil knows none.
type Mask struct {
	runs    []run
	longest int
}

// run is one way to read the stream.
type run struct {
	decode func(*decoder, byte, int64)
	lead   byte // with which an escape begins
	fold   *fold
	find   *automaton
}

// New makes a mask of some values.
func New(values []string) *Mask {
	var lines []string
	for _, v := range values {
		for line := range strings.Lines(v) {
			for part := range slices.Chunk([]byte(strings.TrimSpace(line)), piece) {
				if len(part) >= Least {
					lines = append(lines, string(part))
				}
			}
		}
	}
	m := &Mask{}
	if len(lines) == 0 {
		return m
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	folded := func(list []string, f *fold) *automaton {
		a := newAutomaton()
		for _, s := range list {
			var p []byte
			for i := range len(s) {
				if f.free[s[i]] != free {
					p = append(p, f.to[s[i]])
				}
			}
			if len(p) >= Least {
				a.add(p)
				m.longest = max(m.longest, len(p))
			}
		}
		a.link()
		return a
	}
	var long, in64, inHex []string
	for _, s := range lines {
		if len(s) >= enough {
			long = append(long, s)
		}
		in64 = append(in64, base64Forms(s)...)
		inHex = append(inHex, hex.EncodeToString([]byte(s)))
	}
	whole, bare, indented, shell, plus, sixtyFour, inBytes := breaks(), breaks(), breaks(), breaks(), breaks(), breaks(), breaks()
	bare.set(free, " \t")
	indented.set(indents, " \t")
	shell.set(free, "'\"\\")
	shell.set(indents, " \t")
	plus.to['+'] = ' '
	sixtyFour.to['-'], sixtyFour.to['_'] = '+', '/'
	sixtyFour.set(indents, " \t")
	inBytes.set(free, " \t:,-\\x")
	for c := byte('A'); c <= 'F'; c++ {
		inBytes.to[c] = c + 'a' - 'A'
	}
	raw, coded := folded(lines, whole), folded(in64, sixtyFour)
	m.runs = []run{
		{plain, 0, whole, raw},
		{plain, 0, bare, folded(long, bare)},
		{backslash, '\\', indented, raw},
		{percent, '%', plus, folded(lines, plus)},
		{plain, 0, shell, folded(lines, shell)},
		{plain, 0, inBytes, folded(inHex, inBytes)},
		{backslash, '\\', sixtyFour, coded},
		{percent, '%', sixtyFour, coded},
	}
	return m
}

// base64Forms are the characters that a value alone decides, for each place that it may
// have in three bytes.
func base64Forms(s string) []string {
	var list []string
	for before := range 3 {
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), s...))
		begin, end := (before*8+5)/6, (before+len(s))*8/6
		list = append(list, text[begin:end])
	}
	return list
}

// String masks a text.
func (m *Mask) String(s string) string {
	x := m.Stream()
	return string(x.Write([]byte(s))) + string(x.End())
}

// Stream masks one stream from its beginning.
func (m *Mask) Stream() *Stream {
	if m == nil {
		m = &Mask{}
	}
	x := &Stream{m: m}
	ring := 1
	for ring <= m.longest {
		ring *= 2
	}
	for range m.runs {
		x.readers = append(x.readers, reader{from: make([]int64, ring), after: -1})
	}
	return x
}

// Stream is a stream whose secrets are masked. It is not safe for concurrent use.
type Stream struct {
	m       *Mask
	readers []reader
	at      int64  // bytes that were written to it
	held    []byte // the last of them, from which nothing was given yet
	spans   []span // matches that begin in what is held, or before
	masked  int64  // what comes before is masked, and given
}

type span struct{ from, to int64 }

// reader is the state of one run.
type reader struct {
	decoder decoder
	state   int32
	count   int64   // bytes that counted
	from    []int64 // a ring: where each of them began
	after   int64   // where the last of them ended
	broken  bool    // a line began, and nothing but what indents it came since
}

// Write gives what may be shown now of what was written until now. The result is valid
// until the next call.
func (x *Stream) Write(p []byte) []byte {
	if len(x.m.runs) == 0 {
		return p
	}
	for i := range x.readers {
		x.read(&x.readers[i], &x.m.runs[i], p)
	}
	x.held = append(x.held, p...)
	x.at += int64(len(p))
	safe := x.at
	for i := range x.readers {
		safe = min(safe, x.readers[i].begun(x.m.runs[i].find))
	}
	return x.give(safe)
}

// End gives what was held back. The stream takes nothing more.
func (x *Stream) End() []byte { return x.give(x.at) }

// read reads more in one way.
func (x *Stream) read(r *reader, as *run, p []byte) {
	for i, b := range p {
		at := x.at + int64(i)
		if r.decoder.n == 0 && b != as.lead {
			x.match(r, as, decoded{b, at, at + 1})
			continue
		}
		r.decoder.out = r.decoder.out[:0]
		as.decode(&r.decoder, b, at)
		for _, d := range r.decoder.out {
			x.match(r, as, d)
		}
	}
}

func (x *Stream) match(r *reader, as *run, d decoded) {
	switch as.fold.free[d.c] {
	case free:
		r.broken = r.broken || d.c == '\n' || d.c == '\r'
		return
	case indents:
		if r.broken {
			return
		}
	}
	r.broken = false
	c := as.fold.to[d.c]
	if r.state == 0 && as.find.root[c] == 0 {
		return
	}
	if r.state != 0 && d.from-r.after > gap {
		r.state = 0
	}
	r.state = as.find.next(r.state, c)
	mask := int64(len(r.from) - 1)
	r.from[r.count&mask] = d.from
	r.count++
	r.after = d.to
	if n := as.find.nodes[r.state].found; n > 0 {
		x.spans = append(x.spans, span{r.from[(r.count-int64(n))&mask], d.to})
	}
}

// begun is where what may become a match began.
func (r *reader) begun(a *automaton) int64 {
	at := int64(1<<63 - 1)
	if n := int64(a.nodes[r.state].depth); n > 0 {
		at = r.from[(r.count-n)&int64(len(r.from)-1)]
	}
	if r.decoder.n > 0 {
		at = min(at, r.decoder.from)
	}
	return at
}

// give gives what stands before safe, matches masked.
func (x *Stream) give(safe int64) []byte {
	slices.SortFunc(x.spans, func(a, b span) int { return int(min(max(a.from-b.from, -1), 1)) })
	var out []byte
	begin := x.at - int64(len(x.held))
	for len(x.spans) > 0 && x.spans[0].from < safe {
		s := x.spans[0]
		x.spans = x.spans[1:]
		if s.from >= x.masked {
			if s.from > max(begin, x.masked) {
				out = append(out, x.held[max(begin, x.masked)-begin:s.from-begin]...)
			}
			out = append(out, Text...)
		}
		x.masked = max(x.masked, s.to)
	}
	x.spans = slices.Clone(x.spans)
	if from := max(begin, x.masked); from < safe {
		out = append(out, x.held[from-begin:safe-begin]...)
	}
	if keep := max(safe, min(x.masked, x.at)); keep > begin {
		x.held = slices.Clone(x.held[keep-begin:])
	}
	return out
}
