package blueprint

import (
	"fmt"
	"slices"
)

// ConflictError says that two captures disagree about one machine.
type ConflictError struct {
	Item, Have, New string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s was %s when the other build was captured, and is %s now", e.Item, e.Have, e.New)
}

// Hint says what to do.
func (e *ConflictError) Hint() string {
	return "the machine changed between the two captures: capture the other builds again as well, or keep this one in a blueprint of its own (--blueprint)"
}

// Merge adds what another capture of the same machine found: builds side by
// side, a build of the same name replaced, everything else united. Two versions
// of one thing are a conflict, because one machine has one. What only the
// replaced build needed stays until all builds are captured anew; that costs
// space and never a release. After a conflict b is as it was.
func (b *Blueprint) Merge(n *Blueprint) error {
	m := *b
	if err := m.merge(n); err != nil {
		return err
	}
	*b = m
	return nil
}

func (b *Blueprint) merge(n *Blueprint) error {
	if len(b.Builds) == 0 || (len(b.Builds) == 1 && len(n.Builds) == 1 && b.Builds[0].Name == n.Builds[0].Name) {
		*b = *n // nothing of the old one is needed by another build
		return nil
	}
	if b.Machine.Distribution != n.Machine.Distribution || b.Machine.Release != n.Machine.Release || b.Machine.Architecture != n.Machine.Architecture {
		return &ConflictError{"the distribution", b.Machine.Distribution + " " + b.Machine.Release + " " + b.Machine.Architecture, n.Machine.Distribution + " " + n.Machine.Release + " " + n.Machine.Architecture}
	}
	var err error
	b.Packages, err = unite(b.Packages, n.Packages, Package.Key, func(x, y Package) string {
		if x.Version != y.Version {
			return x.Version + "\x00" + y.Version
		}
		return ""
	}, "package", err)
	b.Config, err = unite(b.Config, n.Config, func(f File) string { return f.Path }, func(x, y File) string {
		if x.SHA256 != y.SHA256 || x.Link != y.Link || x.Absent != y.Absent {
			return "other content\x00changed"
		}
		if x.Mode != y.Mode || x.Owner != y.Owner {
			return x.Mode + " " + x.Owner + "\x00" + y.Mode + " " + y.Owner
		}
		return ""
	}, "config", err)
	b.Generated, err = unite(b.Generated, n.Generated, func(f File) string { return f.Path }, func(x, y File) string {
		if x.SHA256 != y.SHA256 || x.Link != y.Link {
			return "other content\x00changed"
		}
		return ""
	}, "generated", err)
	b.Software, err = unite(b.Software, n.Software, func(s Software) string { return s.Path }, nil, "software", err)
	b.Directories, err = unite(b.Directories, n.Directories, func(d Directory) string { return d.Path }, nil, "directory", err)
	b.Overrides, err = unite(b.Overrides, n.Overrides, func(o Override) string { return o.Path }, nil, "override", err)
	b.Alternatives, err = unite(b.Alternatives, n.Alternatives, func(a Alternative) string { return a.Name }, func(x, y Alternative) string {
		if x.Value != y.Value {
			return x.Value + "\x00" + y.Value
		}
		return ""
	}, "alternative", err)
	b.Withheld, err = unite(b.Withheld, n.Withheld, func(w Withheld) string { return w.Path }, nil, "withheld", err)
	b.Units, err = unite(b.Units, n.Units, func(u Unit) string { return u.Path }, nil, "unit", err)
	b.LiveDependencies, err = unite(b.LiveDependencies, n.LiveDependencies, func(l LiveDependency) string { return l.Name }, nil, "live dependency", err)
	b.Builds, err = unite(b.Builds, n.Builds, func(x Build) string { return x.Name }, nil, "build", err)
	if err != nil {
		return err
	}
	// The machine as it is now: users, sources and facts are whole each time.
	b.Captured, b.Machine, b.Users, b.Groups, b.Apt, b.Diversions = n.Captured, n.Machine, n.Users, n.Groups, n.Apt, n.Diversions
	b.Recipients, b.Ignore = n.Recipients, n.Ignore
	b.Sort()
	return nil
}

// unite adds the new items to the old; where both have one the new is taken,
// unless differ says that they cannot both be right ("old\x00new").
func unite[T any](have, add []T, key func(T) string, differ func(x, y T) string, what string, err error) ([]T, error) {
	if err != nil {
		return have, err
	}
	out := slices.Clone(have)
	for _, n := range add {
		i := slices.IndexFunc(out, func(x T) bool { return key(x) == key(n) })
		if i < 0 {
			out = append(out, n)
			continue
		}
		if differ != nil {
			if d := differ(out[i], n); d != "" {
				var a, b string
				for j := range d {
					if d[j] == 0 {
						a, b = d[:j], d[j+1:]
					}
				}
				return have, &ConflictError{what + " " + key(n), a, b}
			}
		}
		out[i] = n
	}
	return out, nil
}
