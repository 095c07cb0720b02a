package capture

import (
	"path"
	"slices"
	"strings"

	"trysail/blueprint"
	"trysail/internal/tree"
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

// pass marks what a build only passed by: where it listed a directory and then
// looked at every entry without opening any (find, du, a tool that looks for
// programs of its kind along PATH), the entries are not what it is made from.
// Were they, one walk through /usr/bin would make every package a needed one.
// What the build opened or ran there stays as it is.
//
// entries lists a directory of the machine; names gives the physical paths that
// a look-up of a link comes through. The observation is changed in place.
func pass(list []blueprint.Observed, entries func(dir string) []string, names func(p string) []string) {
	const few = 2 // one look at one entry is no walk
	at := map[string]int{}
	for i, o := range list {
		at[o.Path] = i
	}
	glanced := func(p string) bool {
		i, ok := at[p]
		return ok && (list[i].Type == "dir" || strings.Trim(strings.NewReplacer("stat", "", "readlink", "").Replace(list[i].Ops), ",") == "")
	}
	ignore := func(p, dir string) {
		o := &list[at[p]]
		switch o.Class {
		case blueprint.ClassPackage, blueprint.ClassSoftware, blueprint.ClassConfig, blueprint.ClassAlternative, blueprint.ClassGenerated:
			if o.Type != "dir" && glanced(p) {
				*o = blueprint.Observed{Path: o.Path, Class: blueprint.ClassIgnored, Item: "passed-by", Ops: o.Ops, Why: "looked at with all of " + dir + ", and never opened"}
			}
		}
	}
	for _, d := range list {
		if d.Type != "dir" || !d.Provided() || !strings.Contains(d.Ops, "open") {
			continue
		}
		all := entries(d.Path)
		seen := 0
		for _, e := range all {
			if _, ok := at[e]; ok {
				seen++
			}
		}
		if len(all) < few || seen < len(all) {
			continue
		}
		for _, e := range all {
			link := list[at[e]].Type == "link"
			ignore(e, d.Path)
			if !link {
				continue
			}
			for _, n := range names(e) {
				if _, ok := at[n]; ok {
					ignore(n, d.Path)
				}
			}
		}
	}
}

// holdsInstallations tells that below a directory stand several installations of
// which a build uses one: the versions of a version manager (pyenv, nvm, rustup's
// toolchains), the releases of a tool below /opt. Such a directory is no tree by
// itself: each installation is. A small one is kept whole all the same, as
// keeping too much of it costs nothing.
func holdsInstallations(dir string, large func(dir string) bool) bool {
	var find func(dir string, depth int) bool
	find = func(dir string, depth int) bool {
		entries, err := tree.ReadDir(dir)
		if err != nil {
			return false // not a directory, or gone
		}
		n := 0
		for _, e := range entries {
			if e.IsDir() && isInstallation(path.Join(dir, e.Name())) {
				n++
			}
		}
		if n >= 2 {
			return true
		}
		for _, e := range entries {
			below := path.Join(dir, e.Name())
			if depth > 1 && e.IsDir() && e.Name() != "node_modules" && !isInstallation(below) && find(below, depth-1) {
				return true
			}
		}
		return false
	}
	return find(dir, 3) && large(dir)
}

// isInstallation tells a directory with programs and what they need.
func isInstallation(dir string) bool {
	has := func(name string) bool { return statPath(path.Join(dir, name)).Type == "dir" }
	return has("bin") && (has("lib") || has("lib64") || has("include") || has("share"))
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
