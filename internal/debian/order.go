package debian

import (
	"slices"
	"strings"
)

// Order sorts packages so that each comes after those it depends on, as far as
// that can be (circles are cut, essential packages first, then by name).
func Order(list []*Deb) []*Deb {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b *Deb) int {
		if a.Package.Essential != b.Package.Essential {
			if a.Package.Essential {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Package.Key(), b.Package.Key())
	})
	return visit(list, sorted)
}

// Needed lists the packages of the list that the chosen ones depend on, at
// whatever distance, and the chosen ones themselves.
func Needed(list []*Deb, chosen func(*Package) bool) []*Deb {
	var seeds []*Deb
	for _, d := range list {
		if chosen(d.Package) {
			seeds = append(seeds, d)
		}
	}
	return visit(list, seeds)
}

// visit walks the dependencies of the seeds, depth first, and lists each
// package after what it depends on.
func visit(list, seeds []*Deb) []*Deb {
	byName := map[string][]*Deb{}
	for _, d := range list {
		byName[d.Package.Name] = append(byName[d.Package.Name], d)
		for _, name := range names(d.Package.Provides) {
			byName[name] = append(byName[name], d)
		}
	}
	var out []*Deb
	seen := map[*Deb]bool{}
	var walk func(d *Deb)
	walk = func(d *Deb) {
		if seen[d] {
			return
		}
		seen[d] = true
		for _, field := range []string{d.Package.PreDepends, d.Package.Depends} {
			for _, name := range names(field) {
				for _, x := range byName[name] {
					walk(x)
				}
			}
		}
		out = append(out, d)
	}
	for _, d := range seeds {
		walk(d)
	}
	return out
}

// names lists every package name in a dependency field. A field that cannot be
// read has none: Closure has named it before.
func names(field string) []string {
	dep, err := parseRelations(field)
	if err != nil {
		return nil
	}
	var list []string
	for _, rel := range dep {
		for _, poss := range rel.any {
			list = append(list, poss.name)
		}
	}
	return list
}
