package debian

import (
	"slices"
	"strings"

	"pault.ag/go/debian/version"
)

// Closure closes a set of installed packages over what they depend on, and adds
// what every Debian system has (essential, protected and required packages).
// Where several installed packages satisfy a dependency, one that is needed
// anyway does; else the first does: had the build used another, it would be in
// the set already. missing lists, for each package, the dependencies that
// nothing installed satisfies.
func (db *Database) Closure(keys []string) (closed []*Package, missing map[*Package][]string) {
	providers := db.providers()
	native := db.native()
	in := map[*Package]bool{}
	missing = map[*Package][]string{}
	var queue []*Package
	add := func(p *Package) {
		if p != nil && !in[p] {
			in[p] = true
			queue = append(queue, p)
		}
	}
	for _, p := range db.packages {
		if p.Essential || p.Protected || p.Priority == "required" {
			add(p)
		}
	}
	for _, k := range keys {
		add(db.byKey[k])
	}
	// What can be satisfied in one way only comes first; choices wait for it.
	var choices [][]*Package
	for len(queue) > 0 || len(choices) > 0 {
		if len(queue) == 0 {
			choice := choices[0]
			choices = choices[1:]
			if !slices.ContainsFunc(choice, func(p *Package) bool { return in[p] }) {
				add(choice[0])
			}
			continue
		}
		p := queue[0]
		queue = queue[1:]
		for _, field := range []string{p.PreDepends, p.Depends} {
			dep, err := parseRelations(field)
			if err != nil {
				missing[p] = append(missing[p], "unreadable dependency "+field)
				continue
			}
			for _, rel := range dep {
				var choice []*Package
				for _, poss := range rel.any {
					for _, q := range providers[poss.name] {
						if q.satisfies(p, poss, native) {
							choice = append(choice, q.pkg)
						}
					}
				}
				switch len(choice) {
				case 0:
					missing[p] = append(missing[p], rel.text)
				case 1:
					add(choice[0])
				default:
					choices = append(choices, choice)
				}
			}
		}
	}
	for p := range in {
		closed = append(closed, p)
	}
	slices.SortFunc(closed, func(a, b *Package) int { return strings.Compare(a.Key(), b.Key()) })
	return closed, missing
}

// provider is a package under one of the names it answers to.
type provider struct {
	pkg     *Package
	version string // "" for an unversioned virtual name
}

func (db *Database) providers() map[string][]provider {
	m := map[string][]provider{}
	for _, p := range db.packages {
		m[p.Name] = append(m[p.Name], provider{p, p.Version})
		dep, err := parseRelations(p.Provides)
		if err != nil {
			continue // a name that cannot be read cannot be depended upon
		}
		for _, rel := range dep {
			for _, poss := range rel.any {
				m[poss.name] = append(m[poss.name], provider{p, poss.version})
			}
		}
	}
	return m
}

// native is the architecture of dpkg itself.
func (db *Database) native() string {
	for _, p := range db.packages {
		if p.Name == "dpkg" {
			return p.Architecture
		}
	}
	return ""
}

func (q provider) satisfies(by *Package, poss possibility, native string) bool {
	want := by.Architecture
	anyArch := q.pkg.MultiArch == "foreign"
	if poss.arch != "" { // "name:any", "name:i386"
		want, anyArch = poss.arch, poss.arch == "any"
	}
	if want == "all" {
		want = native
	}
	if have := q.pkg.Architecture; !anyArch && have != want && have != "all" {
		return false
	}
	if poss.version == "" {
		return true
	}
	if q.version == "" {
		return false
	}
	have, err := version.Parse(q.version)
	if err != nil {
		return false
	}
	bound, err := version.Parse(poss.version)
	if err != nil {
		return false
	}
	c := version.Compare(have, bound)
	switch poss.operator {
	case ">=":
		return c >= 0
	case "<=":
		return c <= 0
	case ">>":
		return c > 0
	case "<<":
		return c < 0
	default: // "="
		return c == 0
	}
}

// BuildDependencies names the packages that a source package's control file
// wants for a build, whatever their versions and alternatives.
func BuildDependencies(control []byte) []string {
	para, _, _ := strings.Cut(strings.TrimLeft(string(control), "\n"), "\n\n")
	var names []string
	wanted := false
	for line := range strings.Lines(para) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			field, value, _ := strings.Cut(line, ":")
			wanted = slices.Contains([]string{"build-depends", "build-depends-arch", "build-depends-indep"}, strings.ToLower(field))
			line = value
		}
		if !wanted {
			continue
		}
		for _, one := range strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == '|' }) {
			if end := strings.IndexAny(one, "([<:"); end >= 0 {
				one = one[:end]
			}
			if name := strings.TrimSpace(one); validName(name) {
				names = append(names, name)
			}
		}
	}
	return names
}
