package capture

import (
	"slices"
	"strings"

	"trysail/blueprint"
)

// gather joins what people changed inside of one package's own directory. A
// program that updated itself in place (npm under /usr/lib/node_modules, a
// plugin directory) shows as hundreds of changed and unowned files; where there
// are at least [enough] of them below a directory that belongs to one package
// alone, the directory is kept whole, and takes the place of the package's.
//
// owners counts the packages that ship a directory. The observation is changed
// in place.
func gather(list []blueprint.Observed, owners func(dir string) int) {
	const enough = 3
	items := map[string][]string{} // directory -> its software
	home := map[string]string{}    // software -> directory
	for _, o := range list {
		if o.Class != blueprint.ClassSoftware || home[o.Item] != "" || !below(o.Item, "/usr") || below(o.Item, "/usr/local") {
			continue
		}
		for _, dir := range parents(o.Item) {
			if strings.Count(dir, "/") >= 3 && owners(dir) == 1 {
				home[o.Item] = dir
				items[dir] = append(items[dir], o.Item)
				break
			}
		}
	}
	for i := range list {
		o := &list[i]
		if dir := home[o.Item]; o.Class == blueprint.ClassSoftware && len(items[dir]) >= enough {
			o.Item, o.Why = dir, "in a directory whose package was changed in place, kept whole"
		}
	}
	// What the package itself brought there is part of the tree now.
	for i := range list {
		o := &list[i]
		if o.Class != blueprint.ClassPackage {
			continue
		}
		for dir, n := range items {
			if len(n) >= enough && below(o.Path, dir) {
				o.Class, o.Item, o.Why = blueprint.ClassSoftware, dir, "in a directory whose package was changed in place, kept whole"
			}
		}
	}
}

// outermost drops trees that stand inside of others.
func outermost(trees map[string]bool) []string {
	var list []string
	for _, t := range sortedKeys(trees) {
		if !slices.ContainsFunc(list, func(u string) bool { return below(t, u) }) {
			list = append(list, t)
		}
	}
	return list
}
