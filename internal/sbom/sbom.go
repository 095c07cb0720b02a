// Package sbom writes software bills of materials: what a release ships
// ([Shipped]), and what the build server is made of that it was built on
// ([Server]). It tells two of them apart ([Diff]) and lists licences ([Licences]).
//
// A bill is a document that customers, auditors and scanners for
// vulnerabilities read, so it is CycloneDX 1.6 in JSON, and each component has
// a package URL where one is known. The rules:
//
//   - What is known is written, what is not known is said, and nothing is
//     guessed. A module is listed because a Go program names it, a package
//     because its own metadata lies in the artifact. There is no list of file
//     names that look like libraries.
//   - What could not be looked into stands at the artifact as a property
//     trysail:unread, with its place and the reason: native code, an archive of
//     another kind, one that is torn, encrypted or nested too deep, or one that
//     expands beyond all measure. Such an artifact is incomplete by the bill's own
//     word (compositions), and of every other one completeness is unknown: code that
//     was copied into a program leaves no name.
//   - The bytes that were listed are the bytes that ship: each artifact is read as
//     a whole, and one that has another digest than gold's is an error.
//   - The same input gives the same bytes. Everything is sorted, the time is the
//     caller's, and the serial number is made from the content.
//
// Places are written as artifact!member!member. Components of one package URL are one
// component, which says where it was found, unless they differ in their digest.
// References are artifact:PATH, binary:PLACE, package URLs, and on the server
// software:PATH and download:DIGEST; [Diff] passes over those that are the team's
// own.
//
// Artifacts are hostile: they hold what strangers published. Archives are read
// as streams; only what needs to be read at random goes to memory or to a
// scratch file without a name. Depth, members, bytes, findings and the length
// of every text are limited, and a parser that fails or panics leaves a
// property, not a bill that lacks the rest.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// The properties that this package writes.
const (
	propUnread   = "trysail:unread"   // PLACE: why it could not be looked into
	propSize     = "trysail:size"     // bytes
	propFiles    = "trysail:files"    // how many files were looked at in an artifact
	propFound    = "trysail:found"    // a place where the component was found
	propOwn      = "trysail:own"      // true: what the artifact itself is, not a third party's
	propGoSum    = "trysail:go.sum"   // a module's h1: digest, as go.sum has it
	propGo       = "trysail:go"       // the toolchain's version
	propRevision = "trysail:revision" // the revision that a Go program or a source names
	propModified = "trysail:modified" // true: built from a changed working copy
	propReplaces = "trysail:replaces" // the module that this one stands for
	propRepacked = "trysail:repacked" // why a package had to be made again
)

// Options are what both bills need.
type Options struct {
	Time time.Time // written as it is, in UTC; zero: none
	Tool string    // the version of this program
	// Scratch is a directory for files that do not fit into memory; "" is the system's.
	Scratch string
	// Limits on what one artifact may hold; zero is a sensible one.
	MaxBytes   int64 // that its archives expand to
	MaxMembers int   // in all its archives
	// Each is given every file that is no archive, by its place in the artifact, for
	// whoever looks for something else. It need not read it to its end.
	Each func(at string, r io.Reader) error
}

// BOM is a bill of materials.
type BOM = cdx.BOM

// FormatError says why a document is no bill that this package reads.
type FormatError struct {
	What string
	Err  error
}

func (e *FormatError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("bill of materials: %s: %v", e.What, e.Err)
	}
	return "bill of materials: " + e.What
}
func (e *FormatError) Unwrap() error { return e.Err }

// Hint says what is accepted.
func (e *FormatError) Hint() string {
	return "a bill of materials is CycloneDX 1.6 in JSON, as this program writes it"
}

const maxDocument = 512 << 20

// Marshal writes a bill as JSON, with a line for each value so that a review
// shows what changed.
func Marshal(b *BOM) ([]byte, error) {
	var buf bytes.Buffer
	enc := cdx.NewBOMEncoder(&buf, cdx.BOMFileFormatJSON)
	enc.SetPretty(true)
	enc.SetEscapeHTML(false)
	if err := enc.EncodeVersion(b, cdx.SpecVersion1_6); err != nil {
		return nil, &FormatError{"cannot be written", err}
	}
	return buf.Bytes(), nil
}

// Parse reads a bill that Marshal wrote, and no other format or version.
func Parse(data []byte) (*BOM, error) {
	if len(data) > maxDocument {
		return nil, &FormatError{What: fmt.Sprintf("%d bytes are too many", len(data))}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var b BOM
	if err := dec.Decode(&b); err != nil {
		return nil, &FormatError{"cannot be read", err}
	}
	if dec.More() {
		return nil, &FormatError{What: "something follows its end"}
	}
	if b.BOMFormat != cdx.BOMFormat || b.SpecVersion != cdx.SpecVersion1_6 {
		return nil, &FormatError{What: fmt.Sprintf("is %.40q %s", b.BOMFormat, b.SpecVersion)}
	}
	if err := check(&b); err != nil {
		return nil, err
	}
	return &b, nil
}

// check tells whether references are unique and lead somewhere, and digests
// are digests.
func check(b *BOM) error {
	hash := regexp.MustCompile(`^[0-9a-f]{32,128}$`)
	refs := map[string]bool{}
	add := func(ref, what string) error {
		if ref == "" || refs[ref] {
			return &FormatError{What: fmt.Sprintf("%s: reference %.200q is empty or stands twice", what, ref)}
		}
		refs[ref] = true
		return nil
	}
	list := components(b)
	if b.Metadata != nil && b.Metadata.Component != nil {
		list = append([]cdx.Component{*b.Metadata.Component}, list...)
	}
	for _, c := range list {
		if err := add(c.BOMRef, c.Name); err != nil {
			return err
		}
		for _, h := range deref(c.Hashes) {
			if !hash.MatchString(h.Value) {
				return &FormatError{What: fmt.Sprintf("%s: %.140q is no digest", c.BOMRef, h.Value)}
			}
		}
	}
	for _, s := range deref(b.Services) {
		if err := add(s.BOMRef, s.Name); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, d := range deref(b.Dependencies) {
		if !refs[d.Ref] || seen[d.Ref] {
			return &FormatError{What: fmt.Sprintf("dependencies of %.200q, which is no component or stands twice", d.Ref)}
		}
		seen[d.Ref] = true
		for _, to := range deref(d.Dependencies) {
			if !refs[to] {
				return &FormatError{What: fmt.Sprintf("%.200q depends on %.200q, which is not in the bill", d.Ref, to)}
			}
		}
	}
	return nil
}

func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

func components(b *BOM) []cdx.Component {
	if b == nil {
		return nil
	}
	return deref(b.Components)
}

// bill is a bill in the making.
type bill struct {
	bom   *BOM
	comps []cdx.Component
	deps  map[string]map[string]bool
	taken map[string]bool
}

func newBill(o Options, about cdx.Component) *bill {
	b := &bill{bom: cdx.NewBOM(), deps: map[string]map[string]bool{}, taken: map[string]bool{about.BOMRef: true}}
	tool := cdx.Component{Type: cdx.ComponentTypeApplication, Name: "trysail", Version: o.Tool}
	b.bom.Metadata = &cdx.Metadata{Component: &about, Tools: &cdx.ToolsChoice{Components: &[]cdx.Component{tool}}}
	if !o.Time.IsZero() {
		b.bom.Metadata.Timestamp = o.Time.UTC().Format(time.RFC3339)
	}
	return b
}

// ref makes a reference that no other component has.
func (b *bill) ref(want string) string {
	ref := want
	for n := 2; b.taken[ref]; n++ {
		ref = fmt.Sprintf("%s~%d", want, n)
	}
	b.taken[ref] = true
	return ref
}

func (b *bill) depends(from, to string) {
	if b.deps[from] == nil {
		b.deps[from] = map[string]bool{}
	}
	b.deps[from][to] = true
}

// finish sorts everything and numbers the bill.
func (b *bill) finish() (*BOM, error) {
	slices.SortFunc(b.comps, func(x, y cdx.Component) int { return strings.Compare(x.BOMRef, y.BOMRef) })
	b.bom.Components = &b.comps
	deps := []cdx.Dependency{}
	for _, from := range slices.Sorted(maps.Keys(b.deps)) {
		to := slices.Sorted(maps.Keys(b.deps[from]))
		deps = append(deps, cdx.Dependency{Ref: from, Dependencies: &to})
	}
	b.bom.Dependencies = &deps
	b.bom.SpecVersion = cdx.SpecVersion1_6
	data, err := Marshal(b.bom)
	if err != nil {
		return nil, err
	}
	// A UUID of version 8: its bits are ours to choose.
	sum := sha256.Sum256(data)
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	b.bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	if data, err = Marshal(b.bom); err != nil {
		return nil, err
	}
	// What is given is what a reader of the written bill would have.
	return Parse(data)
}

// props gives properties in their order, without those that have no value.
func props(pairs ...string) *[]cdx.Property {
	list := []cdx.Property{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			list = append(list, cdx.Property{Name: pairs[i], Value: pairs[i+1]})
		}
	}
	if len(list) == 0 {
		return nil
	}
	return &list
}

func property(c cdx.Component, name string) string {
	for _, p := range deref(c.Properties) {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

var errDigest = errors.New("not a digest of the form sha256:…")

// hashes turns a digest as the depot writes it into CycloneDX's.
func hashes(digest string) (*[]cdx.Hash, error) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%.100q: %w", digest, errDigest)
	}
	return &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex}}, nil
}

// text makes what strangers wrote fit to print: in one line, and not for ever.
func text(s string) string {
	const most = 1000
	s = strings.ToValidUTF8(s, "�")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '�'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
