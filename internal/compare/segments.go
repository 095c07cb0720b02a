package compare

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
)

// segment is a part of a format that has a name. Segments cover the whole file
// and do not overlap, so that no byte is left out of a comparison.
type segment struct {
	name     string
	from, to int64
	cause    string // where nothing better is known
	whole    bool   // it varies as a whole, and follows from other content
}

const maxSegments = 10_000

// segmenter finds how both contents divide, by their first bytes.
func segmenter(a, b File) func(File) []segment {
	for _, f := range []struct {
		magic  string
		divide func(File) []segment
	}{{"\x7fELF", elfSegments}, {"\x89PNG\r\n\x1a\n", pngSegments}, {"%PDF-", pdfSegments}} {
		if bytes.HasPrefix(a.head(8), []byte(f.magic)) && bytes.HasPrefix(b.head(8), []byte(f.magic)) {
			return f.divide
		}
	}
	if pyc(a) && pyc(b) {
		return pycSegments
	}
	return nil
}

// segmented compares segment by segment; done is false if the two versions do
// not divide alike.
func (w *walker) segmented(path string, divide func(File) []segment, a, b File) (done bool, err error) {
	var x, y []segment
	err = guard(func() error { x, y = cover(divide(a), a.Size), cover(divide(b), b.Size); return nil })
	if err != nil || len(x) < 2 || !slices.EqualFunc(x, y, func(p, q segment) bool { return p.name == q.name && p.whole == q.whole }) {
		return false, nil
	}
	for i := range x {
		p, q := a.section(x[i].from, x[i].to-x[i].from), b.section(y[i].from, y[i].to-y[i].from)
		off, err := w.differ(p, q)
		if err != nil {
			return true, err
		}
		switch {
		case off < 0:
		case x[i].whole:
			t := w.leaf(path, x[i].name, x[i].cause)
			t.whole(p.Size, kindNamed, x[i].cause, "another value")
			t.end()
		default:
			if err := w.binary(path, x[i].name, x[i].cause, p, q); err != nil {
				return true, err
			}
		}
	}
	return true, nil
}

// cover sorts segments, drops what overlaps and names the gaps.
func cover(list []segment, size int64) []segment {
	if len(list) > maxSegments {
		return nil
	}
	slices.SortStableFunc(list, func(p, q segment) int { return cmp.Compare(p.from, q.from) })
	var out []segment
	names := map[string]int{}
	at := int64(0)
	add := func(s segment) {
		if names[s.name]++; names[s.name] > 1 {
			s.name = fmt.Sprintf("%s #%d", s.name, names[s.name])
		}
		out = append(out, s)
		at = s.to
	}
	for _, s := range list {
		if s.from < at || s.to > size || s.to <= s.from {
			continue
		}
		if s.from > at {
			before := "header"
			if at > 0 {
				before = "after " + out[len(out)-1].name
			}
			add(segment{name: before, from: at, to: s.from})
		}
		add(s)
	}
	if at < size && at > 0 {
		add(segment{name: "end", from: at, to: size})
	}
	return out
}

func elfSegments(f File) []segment {
	e, err := elf.NewFile(f)
	if err != nil {
		return nil
	}
	var list []segment
	for _, s := range e.Sections {
		if s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL || s.FileSize == 0 || s.Offset > uint64(f.Size) || s.FileSize > uint64(f.Size) {
			continue
		}
		g := segment{name: excerpt(s.Name), from: int64(s.Offset), to: int64(s.Offset + s.FileSize)}
		switch s.Name {
		case ".note.gnu.build-id", ".note.go.buildid":
			g.cause, g.whole = CauseBuildID, true
		}
		list = append(list, g)
	}
	return list
}

func pngSegments(f File) []segment {
	var list []segment
	for at := int64(8); at+12 <= f.Size && len(list) <= maxSegments; {
		h, err := f.section(at, 8).read()
		if err != nil {
			return nil
		}
		end := at + 12 + int64(binary.BigEndian.Uint32(h))
		g := segment{name: excerpt(string(h[4:8])), from: at, to: end}
		if g.name == "tIME" {
			g.cause, g.whole = CauseTime, true
		}
		list = append(list, g)
		at = end
	}
	return list
}

var pdfParts = regexp.MustCompile(`/(CreationDate|ModDate)\s*\([^)\\]{0,64}\)|/(ID)\s*\[[^\]]{0,512}\]`)

func pdfSegments(f File) []segment {
	if f.Size > maxWhole {
		return nil
	}
	data, err := f.read()
	if err != nil {
		return nil
	}
	var list []segment
	for _, m := range pdfParts.FindAllSubmatchIndex(data, maxSegments) {
		g := segment{from: int64(m[0]), to: int64(m[1])}
		if m[2] >= 0 {
			// The zone stays outside of the time stamp that varies.
			g.name, g.cause = string(data[m[2]:m[3]]), CauseTime
		} else {
			g.name, g.cause, g.whole = "ID", CauseRandom, true
		}
		list = append(list, g)
	}
	return list
}

// pyc tells compiled Python by its magic number, which ends in CR LF.
func pyc(f File) bool {
	h := f.head(16)
	return len(h) == 16 && h[2] == '\r' && h[3] == '\n' && h[1] >= 0x0c && h[1] <= 0x0f && binary.LittleEndian.Uint32(h[4:]) <= 3
}

func pycSegments(f File) []segment {
	h := f.head(16)
	list := []segment{{name: "header", from: 0, to: 8}}
	if binary.LittleEndian.Uint32(h[4:]) == 0 {
		return append(list, segment{name: "source time", from: 8, to: 12, cause: CauseTime, whole: true}, segment{name: "code", from: 12, to: f.Size})
	}
	return append(list, segment{name: "source hash", from: 8, to: 16, whole: true}, segment{name: "code", from: 16, to: f.Size})
}
