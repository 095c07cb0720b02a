package blueprint

import (
	"slices"
	"strings"
)

// Omission is a path that a captured build used and that no item of the
// blueprint provides any more.
type Omission struct {
	Path string `json:"path"`
	Item string `json:"item"`
}

// Provider names the item of the blueprint that provides an observed path, as
// drift and proofs name it: "package gcc-12:amd64", "config /etc/app.conf".
func (o Observed) Provider() string {
	switch {
	case o.Class == ClassConfig, o.Class == ClassDirectory, o.Class == ClassGenerated && o.SHA256 != "":
		return string(o.Class) + " " + o.Path
	}
	return string(o.Class) + " " + o.Item
}

// Uncovered lists what an observation needs and the blueprint lacks, one for
// each item. An item that was dropped is named even where every file of it
// still happens to be there.
func (b *Blueprint) Uncovered(observation []Observed) []Omission {
	have := map[string]bool{}
	for _, p := range b.Packages {
		have["package "+p.Key()] = true
	}
	for _, s := range b.Software {
		have["software "+s.Path] = true
	}
	for _, f := range b.Config {
		have["config "+f.Path] = true
	}
	for _, f := range b.Generated {
		have["generated "+f.Path] = true
	}
	for _, a := range b.Alternatives {
		have["alternative "+a.Name] = true
	}
	for _, d := range b.Directories {
		have["directory "+d.Path] = true
	}
	within := func(p string) bool {
		return slices.ContainsFunc(b.Software, func(s Software) bool { return p == s.Path || strings.HasPrefix(p, s.Path+"/") })
	}
	// above tells a directory that a tree brings with it.
	above := func(p string) bool {
		return slices.ContainsFunc(b.Software, func(s Software) bool { return strings.HasPrefix(s.Path, p+"/") })
	}
	seen := map[string]bool{}
	var list []Omission
	for _, o := range observation {
		if !o.Provided() || (o.Class == ClassGenerated && o.SHA256 == "") {
			continue // what the rebuilt machine's own scripts make is no item
		}
		key := o.Provider()
		switch {
		case have[key], seen[key], o.Class == ClassSoftware && within(o.Path), o.Class == ClassDirectory && (within(o.Path) || above(o.Path)):
			continue
		}
		seen[key] = true
		list = append(list, Omission{Path: o.Path, Item: key})
	}
	return list
}
