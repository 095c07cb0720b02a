package blueprint

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Sum is blueprint.sum: the digest of every original by name. Its text is what
// sha256sum prints, so `sha256sum -c` checks it without Trysail.
type Sum map[string]string // name -> "sha256:…"

// Marshal writes the sum sorted by name.
func (s Sum) Marshal() []byte {
	var buf bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&buf, "%s  %s\n", strings.TrimPrefix(s[name], "sha256:"), name)
	}
	return buf.Bytes()
}

// ParseSum reads blueprint.sum strictly.
func ParseSum(file string, data []byte) (Sum, error) {
	s := Sum{}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		text, whole := bytes.CutSuffix(text, []byte("\n"))
		if !whole {
			return nil, &ParseError{File: file, Line: line, What: "the last line is torn", Remedy: remedyRestore}
		}
		hash, name, ok := strings.Cut(string(text), "  ")
		digest := "sha256:" + hash
		if !ok || !digestRE.MatchString(digest) {
			return nil, &ParseError{File: file, Line: line, What: fmt.Sprintf("not a line of sha256sum: %q", clip(string(text))), Remedy: remedyRestore}
		}
		if !localPath(name) || path.Clean(name) != name {
			return nil, &ParseError{File: file, Line: line, What: fmt.Sprintf("name %q is not relative and clean", clip(name)), Remedy: remedyRestore}
		}
		if top, _, _ := strings.Cut(name, "/"); !slices.Contains(originalKinds(), top) || top == name {
			return nil, &ParseError{File: file, Line: line, What: fmt.Sprintf("name %q is not that of an original (%s)", clip(name), strings.Join(originalKinds(), "/, ")+"/"), Remedy: remedyRestore}
		}
		if old, dup := s[name]; dup && old != digest {
			return nil, &ParseError{File: file, Line: line, What: name + " stands twice with different digests", Remedy: "remove the wrong line, or capture again"}
		}
		s[name] = digest
	}
	return s, nil
}

// originalKinds are the directories in which originals stand by their names.
func originalKinds() []string {
	return []string{"config", "deb", "downloads", "generated", "observation", "software", "source"}
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// Names lists the originals that the blueprint needs, by the names they have in
// blueprint.sum, sorted.
func (b *Blueprint) Names() []string {
	var names []string
	for _, p := range b.Packages {
		names = append(names, p.DebName())
	}
	for _, s := range b.Software {
		names = append(names, s.OriginalName())
	}
	for _, f := range b.Config {
		if f.HasContent() {
			names = append(names, f.ConfigName())
		}
	}
	for _, f := range b.Generated {
		if f.HasContent() {
			names = append(names, f.GeneratedName())
		}
	}
	for _, x := range b.Builds {
		if x.Source.Original != "" {
			names = append(names, x.SourceName())
		}
		if x.Downloads != "" {
			names = append(names, x.DownloadsName())
		}
		if x.Observation != "" {
			names = append(names, x.ObservationName())
		}
	}
	slices.Sort(names)
	return names
}

// Check compares the sum with what the blueprint needs: every original has a
// digest, and where both name one they agree.
func (s Sum) Check(b *Blueprint) error {
	for _, name := range b.Names() {
		if s[name] == "" {
			return &ParseError{File: "blueprint.sum", What: "no digest for " + name, Remedy: remedyRestore}
		}
	}
	want := map[string]string{}
	for _, f := range b.Generated {
		if f.HasContent() {
			want[f.GeneratedName()] = f.SHA256
		}
	}
	for _, f := range b.Config {
		if f.HasContent() && !f.Encrypted {
			want[f.ConfigName()] = f.SHA256
		}
	}
	for _, x := range b.Builds {
		want[x.SourceName()], want[x.DownloadsName()], want[x.ObservationName()] = x.Source.Original, x.Downloads, x.Observation
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if d := want[name]; d != "" && s[name] != d {
			return &ParseError{File: "blueprint.sum", What: fmt.Sprintf("%s is %s here and %s in blueprint.yaml", name, s[name], d), Remedy: remedyRestore}
		}
	}
	return nil
}
