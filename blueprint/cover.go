package blueprint

import "strings"

// Omission is a path that a captured build used and that no item of the
// blueprint provides any more.
type Omission struct {
	Path string `json:"path"`
	Item string `json:"item"`
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
		for _, s := range b.Software {
			if p == s.Path || strings.HasPrefix(p, s.Path+"/") || strings.HasPrefix(s.Path, p+"/") {
				return true
			}
		}
		return false
	}
	seen := map[string]bool{}
	var list []Omission
	for _, o := range observation {
		key := string(o.Class) + " " + o.Item
		switch o.Class {
		case ClassPackage, ClassSoftware, ClassAlternative:
		case ClassConfig:
			key = "config " + o.Path
		case ClassGenerated:
			if o.SHA256 == "" {
				continue // remade by the rebuilt machine's own scripts
			}
			key = "generated " + o.Path
		case ClassDirectory:
			if within(o.Path) {
				continue
			}
			key = "directory " + o.Path
		default:
			continue
		}
		if have[key] || seen[key] || (o.Class == ClassSoftware && within(o.Path)) {
			continue
		}
		seen[key] = true
		list = append(list, Omission{Path: o.Path, Item: key})
	}
	return list
}
