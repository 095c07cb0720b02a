package sbom

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"trysail/blueprint"
)

// Download is one thing that a build fetched, as it was recorded.
type Download struct {
	URL    string
	SHA256 string // "sha256:…"; "" is an empty body
	Size   int64
}

// withoutUser takes user and password out of an address.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "urn:trysail:not-an-address"
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u.String()
}

// Server lists what a build server is made of. Packages get the namespace of
// the distribution that the machine runs: a blueprint does not say which of its
// repositories a package came from. The digest is that of the original, so a
// repacked package is marked: its digest is ours and not its maker's.
func Server(p *blueprint.Blueprint, sum blueprint.Sum, downloads []Download, o Options) (*BOM, error) {
	m := p.Machine
	about := cdx.Component{
		BOMRef: "server", Type: cdx.ComponentTypePlatform, Name: p.Name, Version: m.Release,
		Properties: props("trysail:architecture", m.Architecture, "trysail:captured", stamp(p), "trysail:distribution", m.Distribution, "trysail:kernel", m.Kernel),
	}
	b := newBill(o, about)
	b.deps["server"] = map[string]bool{}
	add := func(c cdx.Component, original string) error {
		if original != "" {
			h, err := hashes(sum[original])
			if err != nil {
				return &MissingDigestError{original}
			}
			c.Hashes = h
		}
		c.BOMRef = b.ref(c.BOMRef)
		b.comps = append(b.comps, c)
		b.depends("server", c.BOMRef)
		return nil
	}
	// Equal references are told apart by their order, so the order is not the caller's.
	own := *p
	own.Packages, own.Software, own.LiveDependencies = slices.Clone(p.Packages), slices.Clone(p.Software), slices.Clone(p.LiveDependencies)
	slices.SortFunc(own.Packages, func(x, y blueprint.Package) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Architecture, y.Architecture), strings.Compare(x.Version, y.Version), strings.Compare(x.File, y.File))
	})
	slices.SortFunc(own.Software, func(x, y blueprint.Software) int {
		return cmp.Or(strings.Compare(x.Path, y.Path), strings.Compare(x.File, y.File))
	})
	for _, x := range own.Packages {
		pu := purl{kind: "deb", name: m.Distribution + "/" + x.Name, version: x.Version, qualifiers: map[string]string{"arch": x.Architecture}}.String()
		c := cdx.Component{
			BOMRef: pu, Type: cdx.ComponentTypeLibrary, Name: x.Name, Version: x.Version, PackageURL: pu,
			Properties: props(propRepacked, x.Repacked, "trysail:why", x.Why),
		}
		if err := add(c, x.DebName()); err != nil {
			return nil, err
		}
	}
	for _, x := range own.Software {
		c := cdx.Component{
			BOMRef: "software:" + x.Path, Type: cdx.ComponentTypeApplication, Name: x.Path,
			Properties: props("trysail:original", x.OriginalName(), propFiles, strconv.Itoa(x.Files), propSize, strconv.FormatInt(x.Size, 10)),
		}
		if err := add(c, x.OriginalName()); err != nil {
			return nil, err
		}
	}
	if err := b.downloads(downloads); err != nil {
		return nil, err
	}
	b.live(own.LiveDependencies)
	return b.finish()
}

// stamp is the time of the capture.
func stamp(p *blueprint.Blueprint) string {
	if p.Captured.IsZero() {
		return ""
	}
	return p.Captured.UTC().Format("2006-01-02T15:04:05Z")
}

// MissingDigestError says which original has no digest in blueprint.sum.
type MissingDigestError struct{ Name string }

func (e *MissingDigestError) Error() string {
	return "blueprint.sum has no digest for " + e.Name
}

// Hint says what to do.
func (e *MissingDigestError) Hint() string {
	return "restore blueprint.yaml and blueprint.sum from version control: they belong together"
}

// downloads makes one component of each body, with every address it came from.
func (b *bill) downloads(list []Download) error {
	list = slices.Clone(list)
	for i := range list {
		list[i].URL = withoutUser(list[i].URL)
	}
	// An address that names a package comes first: it gives the body its name.
	rank := func(d Download) int {
		if fromURL(d.URL) != nil {
			return 0
		}
		return 1
	}
	slices.SortFunc(list, func(x, y Download) int {
		return cmp.Or(strings.Compare(x.SHA256, y.SHA256), cmp.Compare(rank(x), rank(y)), strings.Compare(x.URL, y.URL), cmp.Compare(x.Size, y.Size))
	})
	list = slices.Compact(list)
	for len(list) > 0 {
		d := list[0]
		if d.SHA256 == "" {
			list = list[1:] // there is nothing in it
			continue
		}
		h, err := hashes(d.SHA256)
		if err != nil {
			return fmt.Errorf("download %s: digest %w", d.URL, err)
		}
		c := cdx.Component{BOMRef: "download:" + d.SHA256, Type: cdx.ComponentTypeFile, Name: d.URL, Hashes: h}
		if p := fromURL(d.URL); p != nil {
			c.Type, c.Name, c.Version, c.PackageURL = cdx.ComponentTypeLibrary, p.name, p.version, p.String()
			if i := strings.LastIndexByte(p.name, '/'); i >= 0 && p.kind != "golang" {
				c.Group, c.Name = p.name[:i], p.name[i+1:]
			}
		}
		refs := []cdx.ExternalReference{}
		for len(list) > 0 && list[0].SHA256 == d.SHA256 {
			if r := (cdx.ExternalReference{Type: cdx.ERTypeDistribution, URL: list[0].URL}); !slices.ContainsFunc(refs, func(x cdx.ExternalReference) bool { return x.URL == r.URL }) {
				refs = append(refs, r)
			}
			list = list[1:]
		}
		slices.SortFunc(refs, func(x, y cdx.ExternalReference) int { return strings.Compare(x.URL, y.URL) })
		c.ExternalReferences = &refs
		c.Properties = props(propSize, strconv.FormatInt(d.Size, 10))
		c.BOMRef = b.ref(c.BOMRef)
		b.comps = append(b.comps, c)
		b.depends("server", c.BOMRef)
	}
	return nil
}

// live lists what is needed and was not captured: services, and things that
// are plugged in or mounted.
func (b *bill) live(list []blueprint.LiveDependency) {
	slices.SortFunc(list, func(x, y blueprint.LiveDependency) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Kind, y.Kind), strings.Compare(x.Address, y.Address))
	})
	var services []cdx.Service
	for _, l := range list {
		ref := b.ref("live:" + l.Name)
		proposed := ""
		if l.Proposed {
			proposed = "true"
		}
		about := props("trysail:address", l.Address, "trysail:expires", l.Expires, "trysail:fallback", l.Fallback, "trysail:kind", l.Kind,
			"trysail:live", "true", "trysail:owner", l.Owner, "trysail:proposed", proposed, "trysail:why", l.Why)
		b.depends("server", ref)
		if l.Kind == "device" || l.Kind == "file" {
			kind := cdx.ComponentTypeDevice
			if l.Kind == "file" {
				kind = cdx.ComponentTypeFile
			}
			b.comps = append(b.comps, cdx.Component{BOMRef: ref, Type: kind, Name: l.Name, Properties: about})
			continue
		}
		s := cdx.Service{BOMRef: ref, Name: l.Name, Properties: about}
		if l.Kind == "tcp" || l.Kind == "udp" {
			u := url.URL{Scheme: l.Kind, Host: l.Address}
			s.Endpoints = &[]string{u.String()}
		}
		services = append(services, s)
	}
	if services != nil {
		b.bom.Services = &services
	}
}
