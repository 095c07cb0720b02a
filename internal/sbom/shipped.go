package sbom

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// Release is what ships.
type Release struct {
	Name, Version string
	// Revision and URL say which source it was built from; "" if that is not known.
	Revision, URL string
	// List is a file that lists all artifacts, and its digest, where they are many: then
	// the bill has that one, and each artifact in which something was found.
	List, ListSHA256 string
}

// Artifact is one file of gold.
type Artifact struct {
	Path   string // as it ships
	SHA256 string // "sha256:…"
	Size   int64
	// Open gives its bytes. A reader that is also an io.ReaderAt, such as an
	// *os.File, is not copied.
	Open func() (io.ReadCloser, error)
}

// ArtifactError says which artifact could not be read as the one that it is.
type ArtifactError struct {
	Path, What string
	Err        error
}

func (e *ArtifactError) Error() string {
	s := "artifact " + e.Path + ": " + e.What
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}
func (e *ArtifactError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *ArtifactError) Hint() string {
	return "the artifact is not what the release committed: trysail depot verify tells whether the depot still has it"
}

// Shipped lists what a release ships. Artifacts are read one after another.
func Shipped(ctx context.Context, r Release, artifacts []Artifact, o Options) (*BOM, error) {
	about := cdx.Component{BOMRef: "release", Type: cdx.ComponentTypeApplication, Name: cmp.Or(r.Name, "release"), Version: r.Version, Properties: props(propRevision, r.Revision)}
	if r.URL != "" {
		about.ExternalReferences = &[]cdx.ExternalReference{{Type: cdx.ERTypeVCS, URL: withoutUser(r.URL)}}
	}
	b := newBill(o, about)
	b.deps["release"] = map[string]bool{}
	seen := map[string][]where{}
	var incomplete, unknown []cdx.BOMReference
	artifacts = slices.Clone(artifacts)
	slices.SortStableFunc(artifacts, func(x, y Artifact) int { return strings.Compare(x.Path, y.Path) })
	listed := ""
	if r.ListSHA256 != "" {
		h, err := hashes(r.ListSHA256)
		if err != nil {
			return nil, &ArtifactError{r.List, "its digest", err}
		}
		listed = b.ref("artifact:" + text(r.List))
		b.comps = append(b.comps, cdx.Component{BOMRef: listed, Type: cdx.ComponentTypeFile, Name: text(r.List), Hashes: h, Properties: props(propFiles, strconv.Itoa(len(artifacts)))})
		b.depends("release", listed)
		unknown = append(unknown, cdx.BOMReference(listed))
	}
	for _, a := range artifacts {
		h, err := hashes(a.SHA256)
		if err != nil {
			return nil, &ArtifactError{a.Path, "its digest", err}
		}
		s, err := scanArtifact(ctx, a, o)
		if err != nil {
			return nil, err
		}
		if listed != "" && len(s.unread()) == 0 && len(s.programs) == 0 && len(s.joined()) == 0 {
			continue // the list names it, and there is no more to say
		}
		c := cdx.Component{BOMRef: b.ref("artifact:" + text(a.Path)), Type: cdx.ComponentTypeFile, Name: text(a.Path), Hashes: h}
		pairs := []string{propFiles, strconv.Itoa(s.files), propSize, strconv.FormatInt(a.Size, 10)}
		notes := s.unread()
		for _, n := range notes {
			pairs = append(pairs, propUnread, n)
		}
		c.Properties = props(pairs...)
		if len(notes) > 0 {
			incomplete = append(incomplete, cdx.BOMReference(c.BOMRef))
		} else {
			unknown = append(unknown, cdx.BOMReference(c.BOMRef))
		}
		b.comps = append(b.comps, c)
		b.depends("release", c.BOMRef)
		for _, p := range s.programs {
			ref := b.program(p)
			b.depends(c.BOMRef, ref)
			for _, m := range p.modules {
				seen[m.purl.String()] = append(seen[m.purl.String()], where{m, ref})
			}
		}
		for _, f := range s.joined() {
			if f.purl.kind != "golang" {
				seen[f.purl.String()] = append(seen[f.purl.String()], where{f, c.BOMRef})
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(seen)) {
		b.packages(p, seen[p])
	}
	list := []cdx.Composition{}
	if len(incomplete) > 0 {
		list = append(list, cdx.Composition{Aggregate: cdx.CompositionAggregateIncomplete, Assemblies: &incomplete})
	}
	if len(unknown) > 0 {
		list = append(list, cdx.Composition{Aggregate: cdx.CompositionAggregateUnknown, Assemblies: &unknown})
	}
	if len(list) > 0 {
		b.bom.Compositions = &list
	}
	return b.finish()
}

// unread lists what could not be looked into.
func (s *scan) unread() []string {
	list := slices.Sorted(slices.Values(s.notes))
	if s.more > 0 {
		list = append(list, fmt.Sprintf("and %d more places", s.more))
	}
	if s.end != "" {
		list = append(list, s.end)
	}
	return list
}

// where is a package and the component that holds it.
type where struct {
	found
	in string
}

// program makes the component of a Go program.
func (b *bill) program(p program) string {
	c := cdx.Component{BOMRef: b.ref("binary:" + text(p.at)), Type: cdx.ComponentTypeApplication, Name: text(cmp.Or(p.path, p.main.name, p.at)), Version: p.main.version}
	if p.main.kind != "" {
		c.PackageURL = p.main.String()
	}
	c.Properties = props(propFound, text(p.at), propGo, p.goVersion, propModified, p.modified, propOwn, "true", propRevision, p.revision)
	b.comps = append(b.comps, c)
	return c.BOMRef
}

// packages makes one component of all findings of one package URL that agree.
func (b *bill) packages(address string, list []where) {
	key := func(w where) string {
		return strings.Join(append([]string{w.digest, w.replaces, strconv.FormatBool(w.program)}, w.licences...), "\x00")
	}
	slices.SortStableFunc(list, func(x, y where) int {
		return cmp.Or(strings.Compare(key(x), key(y)), strings.Compare(x.at, y.at), strings.Compare(x.in, y.in))
	})
	for len(list) > 0 {
		n := 1
		for n < len(list) && key(list[n]) == key(list[0]) {
			n++
		}
		same := list[:n]
		list = list[n:]
		f := same[0]
		c := cdx.Component{BOMRef: b.ref(address), Type: cdx.ComponentTypeLibrary, Group: f.group, Name: f.name, Version: f.purl.version, PackageURL: address}
		if f.program {
			c.Type = cdx.ComponentTypeApplication
		}
		if len(f.licences) > 0 {
			all := cdx.Licenses{}
			for _, l := range f.licences {
				all = append(all, cdx.LicenseChoice{License: &cdx.License{Name: l, Acknowledgement: cdx.LicenseAcknowledgementDeclared}})
			}
			c.Licenses = &all
		}
		pairs := []string{propGoSum, f.digest, propReplaces, f.replaces}
		var places []string
		for _, w := range same {
			b.depends(w.in, c.BOMRef)
			places = append(places, text(w.at))
			if w.own {
				pairs = append(pairs, propOwn, "true")
			}
		}
		slices.Sort(places)
		places = slices.Compact(places)
		for i, p := range places {
			if i == maxPlaces {
				pairs = append(pairs, propFound, fmt.Sprintf("and %d more places", len(places)-i))
				break
			}
			pairs = append(pairs, propFound, p)
		}
		c.Properties = props(pairs...)
		b.comps = append(b.comps, c)
	}
}

// scanArtifact reads an artifact as a whole and looks into it.
func scanArtifact(ctx context.Context, a Artifact, o Options) (*scan, error) {
	s := &scan{
		ctx: ctx, scratch: o.Scratch, limit: cmp.Or(o.MaxBytes, 16<<30), members: cmp.Or(o.MaxMembers, 1_000_000),
		poms: map[string][]string{}, noted: map[string]bool{}, each: o.Each,
	}
	s.bytes = s.limit
	r, err := a.Open()
	if err != nil {
		return nil, &ArtifactError{a.Path, "cannot be opened", err}
	}
	defer r.Close()
	c, done, err := whole(ctx, a, r, o.Scratch)
	defer func() { done() }()
	if err != nil {
		return nil, err
	}
	err = s.look(item{at: text(a.Path), name: a.Path, in: io.NewSectionReader(c, 0, c.size), whole: &c})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if own := (*scratchError)(nil); errors.As(err, &own) {
		return nil, &ArtifactError{a.Path, "cannot be looked into", err}
	}
	return s, nil // any other error is noted in it
}

// whole gives an artifact's bytes for reading at random, after their digest was checked.
func whole(ctx context.Context, a Artifact, r io.ReadCloser, scratch string) (content, func(), error) {
	sum := sha256.New()
	done := func() {}
	var c content
	at, ok := r.(io.ReaderAt)
	if ok {
		c = content{at, a.Size}
	}
	in := io.TeeReader(&contextReader{ctx, r}, sum)
	var n int64
	var err error
	switch {
	case ok:
		n, err = io.Copy(io.Discard, io.LimitReader(in, a.Size+1))
	default:
		s := &scan{ctx: ctx, scratch: scratch}
		c, done, err = s.spool(io.LimitReader(in, a.Size+1), a.Size+1)
		n = c.size
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = &ArtifactError{a.Path, "cannot be read", err}
	case n != a.Size:
		err = &ArtifactError{a.Path, fmt.Sprintf("has not the %d bytes that it should have", a.Size), nil}
	case fmt.Sprintf("sha256:%x", sum.Sum(nil)) != a.SHA256:
		err = &ArtifactError{a.Path, fmt.Sprintf("its digest is sha256:%x and should be %s", sum.Sum(nil), a.SHA256), nil}
	}
	return c, done, err
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
