package sbom

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"trysail/release"
)

// The kinds of a change.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed" // another version
	Rebuilt = "rebuilt" // the same version with another digest
)

// Change is one third-party component that differs between two bills.
type Change struct {
	Kind string `json:"kind"`
	// Name is the package URL without its version, or what names the component else.
	Name      string `json:"name"`
	Old       string `json:"old,omitempty"` // version
	New       string `json:"new,omitempty"`
	OldDigest string `json:"old_digest,omitempty"`
	NewDigest string `json:"new_digest,omitempty"`
}

// third tells a component of somebody else from those that are the team's own.
func third(c cdx.Component) bool {
	return property(c, propOwn) == "" && !strings.HasPrefix(c.BOMRef, "artifact:") && !strings.HasPrefix(c.BOMRef, "live:")
}

// version is what two bills compare of one component.
type version struct{ version, digest string }

func digestOf(c cdx.Component) string {
	for _, h := range deref(c.Hashes) {
		if h.Algorithm == cdx.HashAlgoSHA256 {
			return "sha256:" + h.Value
		}
	}
	return property(c, propGoSum)
}

// title is what a component is called in every version. A download that is no
// package is called by the first of its addresses.
func title(c cdx.Component) string {
	if c.PackageURL != "" {
		return unversioned(c.PackageURL)
	}
	return c.Name
}

func versions(b *BOM) map[string]map[version]bool {
	m := map[string]map[version]bool{}
	for _, c := range components(b) {
		if !third(c) {
			continue
		}
		n := title(c)
		if m[n] == nil {
			m[n] = map[version]bool{}
		}
		m[n][version{c.Version, digestOf(c)}] = true
	}
	return m
}

// Diff lists the third-party components that were added, removed or changed,
// sorted by name. A component that stands in several versions changed only if
// exactly one of them went and one came; a nil bill is an empty one.
func Diff(before, after *BOM) []Change {
	old, now := versions(before), versions(after)
	names := maps.Clone(old)
	maps.Copy(names, now)
	var list []Change
	for _, n := range slices.Sorted(maps.Keys(names)) {
		gone, come := missing(old[n], now[n]), missing(now[n], old[n])
		// First those of one version that were made anew.
		gone = slices.DeleteFunc(gone, func(g version) bool {
			i := slices.IndexFunc(come, func(c version) bool { return c.version == g.version })
			if i < 0 {
				return false
			}
			list = append(list, Change{Rebuilt, n, g.version, come[i].version, g.digest, come[i].digest})
			come = slices.Delete(come, i, i+1)
			return true
		})
		if len(gone) == 1 && len(come) == 1 {
			list = append(list, Change{Changed, n, gone[0].version, come[0].version, gone[0].digest, come[0].digest})
			continue
		}
		for _, g := range gone {
			list = append(list, Change{Kind: Removed, Name: n, Old: g.version, OldDigest: g.digest})
		}
		for _, c := range come {
			list = append(list, Change{Kind: Added, Name: n, New: c.version, NewDigest: c.digest})
		}
	}
	return list
}

// missing lists what is in a and not in b, sorted.
func missing(a, b map[version]bool) []version {
	var list []version
	for v := range a {
		if !b[v] {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(x, y version) int {
		return cmp.Or(strings.Compare(x.version, y.version), strings.Compare(x.digest, y.digest))
	})
	return list
}

// WriteChanges writes changes as a table in Markdown.
func WriteChanges(w io.Writer, list []Change) error {
	var b strings.Builder
	if len(list) == 0 {
		b.WriteString("No third-party component was added, removed or changed.\n")
	} else {
		b.WriteString("| component | change | before | after |\n|---|---|---|---|\n")
	}
	for _, c := range list {
		before, after := c.Old, c.New
		if c.Kind == Rebuilt || (c.Kind == Changed && c.Old == c.New) {
			before, after = strings.TrimSpace(before+" "+c.OldDigest), strings.TrimSpace(after+" "+c.NewDigest)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(c.Name), c.Kind, cell(before), cell(after))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cell(s string) string { return release.Cell(text(s)) }
