package compare

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"trysail/blueprint"
)

// place is everything in which two versions differ at one path and aspect: a
// field with its other value, or intervals of the first version's content.
type place struct {
	cause string
	value string // of the second version, where it does not vary freely
	spans []span // sorted
	// opaque: some of it cannot be told apart.
	opaque bool
}

// span is an interval of the first version's content, and what varies there.
type span struct {
	from, to int64
	kind     kind
	sub      int8       // how a binary time stamp is read
	texts    *[2]string // what the two versions have in a region
}

// kind is what varies in an interval, and so what may stand there instead.
type kind byte

const (
	kindStamp   kind = 's' // a time stamp, written out
	kindBinary  kind = 't' // a time stamp as a number
	kindUUID    kind = 'u'
	kindHex     kind = 'h' // hexadecimal digits, as many as before
	kindDigits  kind = 'd'
	kindLetters kind = 'l'
	kindToken   kind = 'x' // letters and digits whose pattern varies
	kindRegion  kind = 'r' // several tokens of one line
	kindBytes   kind = 'b'
	kindNamed   kind = 'n' // a part of a format that is known to vary as a whole
	kindRandom  kind = 'R' // a small content that is random throughout
	kindOpen    kind = '?' // cannot be told apart: excuses nothing
)

// group is like differences put together.
type group struct {
	path, container, field, cause string
	excused                       bool
	// unclear: the captured machine differs from itself here too, but what is
	// within that cannot be told.
	unclear bool
	count   int
	list    []blueprint.Difference
}

const maxGroups = 20_000

type mark struct{ found, dropped, droppedBeyond, groups int }

func (w *walker) mark() mark { return mark{w.found, w.dropped, w.droppedBeyond, len(w.order)} }

// rollback forgets the differences noted since m: their archive turned out to
// be torn further on, and is compared as bytes. Their places stay, which is
// safe: they are only looked up by who opens the same archive to its end.
func (w *walker) rollback(m mark) {
	for _, g := range w.order[m.groups:] {
		delete(w.groups, g.key())
	}
	w.order = w.order[:m.groups]
	w.found, w.dropped, w.droppedBeyond = m.found, m.dropped, m.droppedBeyond
}

func (g *group) key() string {
	at := g.container
	if at == "" {
		at = g.path
	}
	return fmt.Sprintf("%s\x00%s\x00%s\x00%t%t", at, g.field, g.cause, g.excused, g.unclear)
}

// note adds a difference to the list that people read.
func (w *walker) note(g group, what func() string) {
	w.found++
	have := w.groups[g.key()]
	if have == nil {
		if len(w.order) >= maxGroups {
			w.dropped++
			if !g.excused {
				w.droppedBeyond++
			}
			return
		}
		have = &g
		w.groups[g.key()] = have
		w.order = append(w.order, have)
	}
	have.count++
	if keep := 1; have.count <= keep || (have.container != "" && have.count <= 5) {
		have.list = append(have.list, blueprint.Difference{Path: g.path, What: what(), Cause: g.cause})
	}
}

func (g *group) differences() []blueprint.Difference {
	more := g.count - len(g.list)
	if more == 0 {
		return g.list
	}
	d := g.list[0]
	if g.container != "" {
		first := strings.TrimPrefix(strings.TrimPrefix(d.Path, g.container), "!")
		return []blueprint.Difference{{Path: g.container, What: fmt.Sprintf("%d members, first %s: %s", g.count, excerpt(first), d.What), Cause: d.Cause}}
	}
	d.What += fmt.Sprintf(" (and %d more)", more)
	return []blueprint.Difference{d}
}

// finish makes the lists.
func (w *walker) finish(name string) {
	var all, beyond, excused []blueprint.Difference
	for _, g := range w.order {
		list := g.differences()
		all = append(all, list...)
		if g.excused {
			excused = append(excused, list...)
			continue
		}
		why := ""
		switch {
		case !w.known:
		case g.unclear || w.itselfFull:
			why = "; the build differs from itself here too, in a way that cannot be told apart"
		default:
			why = "; the build does not differ from itself in this"
		}
		for _, d := range list {
			d.What += why
			beyond = append(beyond, d)
		}
	}
	w.rep.Differences = bounded(name, all, w.dropped)
	w.rep.Beyond, w.rep.Excused = bounded(name, beyond, w.droppedBeyond), bounded(name, excused, w.dropped-w.droppedBeyond)
}

func bounded(name string, list []blueprint.Difference, dropped int) []blueprint.Difference {
	slices.SortStableFunc(list, func(a, b blueprint.Difference) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Cause, b.Cause), strings.Compare(a.What, b.What))
	})
	if more := len(list) - maxDifferences; more > 0 {
		list, dropped = list[:maxDifferences:maxDifferences], dropped+more
	}
	if dropped > 0 {
		list = append(list, blueprint.Difference{Path: name, What: fmt.Sprintf("and %d more differences", dropped)})
	}
	return list
}

// keep remembers a place for the comparison with a third version.
func (w *walker) keep(key string) *place {
	p := w.rep.places[key]
	if p == nil {
		if len(w.rep.places) >= maxPlaces {
			w.rep.full = true
			return &place{}
		}
		p = &place{}
		w.rep.places[key] = p
	}
	return p
}

// field notes that a field of a member differs. What varies freely (a time) has
// no value; any other must be one that was seen before.
func (w *walker) field(container, path, field, cause, value, what string) {
	key := path + "\x00" + field
	p := w.keep(key)
	p.cause, p.value = cause, value
	have := w.itself[key]
	excused := have != nil && have.cause == cause && (have.value == value || cause == CauseTime)
	w.note(group{path: path, container: container, field: field, cause: cause, excused: excused}, func() string { return what })
}

// never notes a difference that nothing excuses.
func (w *walker) never(container, path, field, what string) {
	w.note(group{path: path, container: container, field: field}, func() string { return what })
}

// within finds the span of the captured machine's own differences that holds
// an interval.
func within(p *place, from, to int64, ok func(span) bool) bool {
	if p == nil {
		return false
	}
	i := sort.Search(len(p.spans), func(i int) bool { return p.spans[i].from > from })
	// Spans hardly overlap: some steps back find every candidate.
	for n := 0; i > 0 && n < 64; n++ {
		i--
		s := p.spans[i]
		// What is inserted at an end of a span is beside it, not in it.
		beside := from == to && s.from < s.to && (from == s.from || to == s.to)
		if s.from <= from && to <= s.to && !beside && s.kind != kindOpen && ok(s) {
			return true
		}
	}
	return false
}

func (p *place) sort() {
	slices.SortFunc(p.spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.kind, b.kind))
	})
}

// excerpt makes bytes of an output fit for a line on a terminal.
func excerpt(s string) string {
	const limit = 56
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	q := fmt.Sprintf("%q", s)
	return q[1 : len(q)-1]
}
