package compare

import (
	"fmt"
	"slices"
)

// member is one file of an archive. Fields are in the order they are compared.
type member struct {
	name   string
	fields []field
	// open gives the content; nil if there is none. Done releases it.
	open func() (f File, done func(), err error)
	raw  File // the content as it stands, where that is enough to see that it is the same
}

// field is what an archive says about a member, for example its time.
type field struct {
	name, value, cause string
}

// members compares two archives member by member.
func (w *walker) members(path string, a, b []member, depth int) error {
	pairs, order := match(a, b)
	for i, m := range a {
		at := path + "!" + excerptPath(m.name)
		j := pairs[i]
		if j < 0 {
			w.field(path, at, "missing", "", "", "the member is missing")
			continue
		}
		if n := b[j].name; n != m.name {
			w.field(path, at, "name", nameCause(m.name, n), n, "named "+excerpt(n)+" instead of "+excerpt(m.name))
		}
		if err := w.member(path, at, m, b[j], depth); err != nil {
			return err
		}
	}
	taken := map[int]bool{}
	for _, j := range pairs {
		taken[j] = true
	}
	for j, m := range b {
		if !taken[j] {
			w.never(path, path+"!"+excerptPath(m.name), "added", "the member was added")
		}
	}
	if order >= 0 {
		w.field("", path, "order", CauseOrder, "", fmt.Sprintf("its members stand in another order, from %s", excerpt(a[order].name)))
	}
	return nil
}

func excerptPath(name string) string {
	const most = 300
	if len(name) > most {
		name = name[:most] + "…"
	}
	q := fmt.Sprintf("%q", name)
	return q[1 : len(q)-1]
}

func (w *walker) member(path, at string, a, b member, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	number(a.fields)
	number(b.fields)
	other := map[string]string{}
	for _, f := range b.fields {
		other[f.name] = f.value
	}
	for _, f := range a.fields {
		v, ok := other[f.name]
		delete(other, f.name)
		if !ok {
			w.field(path, at, f.name, f.cause, "\x00none", f.name+" is not there")
		} else if v != f.value {
			w.field(path, at, f.name, f.cause, v, fmt.Sprintf("%s %s instead of %s", f.name, excerpt(v), excerpt(f.value)))
		}
	}
	for _, f := range b.fields {
		if _, ok := other[f.name]; ok {
			w.field(path, at, f.name, f.cause, f.value, f.name+" is new: "+excerpt(f.value))
		}
	}
	if a.open == nil || b.open == nil {
		if (a.open == nil) != (b.open == nil) {
			w.never(path, at, "kind", "is another kind of member")
		}
		return nil
	}
	if a.raw.ReaderAt != nil && b.raw.ReaderAt != nil && a.raw.Size == b.raw.Size {
		if off, err := w.differ(a.raw, b.raw); err == nil && off < 0 {
			return nil
		}
	}
	x, done, err := a.open()
	if err != nil {
		return err
	}
	defer done()
	y, doneY, err := b.open()
	if err != nil {
		return err
	}
	defer doneY()
	before := w.found
	if err := w.content(at, x, y, depth+1); err != nil {
		return err
	}
	if w.found == before && a.raw.ReaderAt != nil {
		off, err := w.differ(a.raw, b.raw)
		if err == nil && off >= 0 {
			w.field(path, at, "compressed form", CauseCompression, "", "the content is the same, compressed in another way")
		}
	}
	return nil
}

// number makes the names of fields unique, for archives that repeat one.
func number(list []field) {
	n := map[string]int{}
	for i := range list {
		name := list[i].name
		if n[name]++; n[name] > 1 {
			list[i].name = fmt.Sprintf("%s #%d", name, n[name])
		}
	}
}

// match pairs the members of two archives: those of one name in their order,
// then those whose names differ only in time stamps. It gives the index in b for
// each of a, or -1, and the first of a that stands in another order, or -1.
func match(a, b []member) (pairs []int, order int) {
	pairs = make([]int, len(a))
	taken := make([]bool, len(b))
	by := func(name func(string) string) {
		free := map[string][]int{}
		for j, m := range b {
			if !taken[j] {
				free[name(m.name)] = append(free[name(m.name)], j)
			}
		}
		for i, m := range a {
			if pairs[i] >= 0 {
				continue
			}
			n := name(m.name)
			if list := free[n]; len(list) > 0 {
				pairs[i], free[n] = list[0], list[1:]
				taken[list[0]] = true
			}
		}
	}
	for i := range pairs {
		pairs[i] = -1
	}
	by(func(s string) string { return s })
	if slices.Contains(pairs, -1) {
		by(func(s string) string { return masked([]byte(s)) })
	}
	last := -1
	for i, j := range pairs {
		if j < 0 {
			continue
		}
		if j < last {
			return pairs, i
		}
		last = j
	}
	return pairs, -1
}
