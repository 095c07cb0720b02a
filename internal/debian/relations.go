package debian

import (
	"fmt"

	"pault.ag/go/debian/dependency"
)

// relation is one comma-separated part of a dependency field: any of its
// possibilities satisfies it.
type relation struct {
	text string
	any  []possibility
}

// possibility is one name with what is asked of it; what is "" is not asked.
type possibility struct {
	name, arch        string // "amd64", "any"
	operator, version string // ">=", "1.2-3"
}

// parseRelations reads a field such as Depends. The library panics on some
// architecture names, and a package's field must not end the program.
func parseRelations(field string) (list []relation, err error) {
	if field == "" {
		return nil, nil
	}
	defer func() {
		if r := recover(); r != nil {
			list, err = nil, fmt.Errorf("dependency %q: %v", field, r)
		}
	}()
	dep, err := dependency.Parse(field)
	if err != nil {
		return nil, err
	}
	for _, rel := range dep.Relations {
		r := relation{text: rel.String()}
		for _, poss := range rel.Possibilities {
			p := possibility{name: poss.Name}
			if poss.Arch != nil {
				if p.arch = poss.Arch.String(); poss.Arch.CPU == "any" {
					p.arch = "any"
				}
			}
			if poss.Version != nil {
				p.operator, p.version = poss.Version.Operator, poss.Version.Number
			}
			r.any = append(r.any, p)
		}
		list = append(list, r)
	}
	return list, nil
}
