package blueprint

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Class says where one path that a build touched comes from. A path is in
// exactly one class.
type Class string

// The classes, from the design's completeness ledger.
const (
	ClassPackage     Class = "package"     // owned by a dpkg package, unchanged since it was installed
	ClassConfig      Class = "config"      // configuration the administrator wrote or changed
	ClassSoftware    Class = "software"    // a tree or file that no package owns
	ClassGenerated   Class = "generated"   // made by maintainer scripts, triggers or system programs
	ClassAlternative Class = "alternative" // a link kept by update-alternatives
	ClassDirectory   Class = "directory"   // an unowned directory of which only the existence mattered
	ClassDownload    Class = "download"    // in a cache that was empty when the build began
	ClassSource      Class = "source"      // part of the checked-out revision
	ClassOutput      Class = "output"      // matched by an output glob
	ClassTemporary   Class = "temporary"   // made by the build itself
	ClassSystem      Class = "system"      // /proc, /sys, /dev: the kernel's
	ClassLive        Class = "live"        // a socket or device that cannot be captured
	ClassSecret      Class = "secret"      // withheld: it holds a secret
	ClassRefused     Class = "refused"     // the build's user may not read it: neither kept nor hashed
	ClassIgnored     Class = "ignored"     // ignored by a named rule
	ClassMissing     Class = "missing"     // looked for and not there
	ClassUnexplained Class = "unexplained" // none of these: the capture is not good
)

func (c Class) known() bool {
	switch c {
	case ClassPackage, ClassConfig, ClassSoftware, ClassGenerated, ClassAlternative, ClassDirectory, ClassDownload, ClassSource,
		ClassOutput, ClassTemporary, ClassSystem, ClassLive, ClassSecret, ClassRefused, ClassIgnored, ClassMissing, ClassUnexplained:
		return true
	}
	return false
}

// Observed is one path of an observation: what the build did with it, its class
// and what it was at the time.
type Observed struct {
	Path  string `json:"path"`
	Class Class  `json:"class"`
	Item  string `json:"item,omitempty"` // what provides it: a package, a tree, a rule's name
	Why   string `json:"why"`
	Ops   string `json:"ops,omitempty"` // open,exec,stat …
	// Type is "file", "dir", "link" or "other"; empty when it was not there.
	Type   string `json:"type,omitempty"`
	Mode   string `json:"mode,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // of a regular file that was opened
	Link   string `json:"link,omitempty"`   // target of a symbolic link
}

// Provided reports whether a rebuilt machine must have this path by itself,
// that is, before its build has run.
func (o Observed) Provided() bool {
	switch o.Class {
	case ClassPackage, ClassConfig, ClassSoftware, ClassGenerated, ClassAlternative, ClassDirectory:
		return true
	}
	return false
}

// GainsPrivileges reports whether a build started a set-user-ID or set-group-ID
// program, such as sudo.
func GainsPrivileges(list []Observed) bool {
	for _, o := range list {
		if len(o.Mode) == 4 && o.Mode[0]&6 != 0 && o.Type == "file" && slices.Contains(strings.Split(o.Ops, ","), "exec") {
			return true
		}
	}
	return false
}

// MarshalObservation writes an observation as JSON lines.
func MarshalObservation(list []Observed) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for _, o := range list {
		if err := enc.Encode(o); err != nil {
			return nil, fmt.Errorf("observation of %s: %w", o.Path, err)
		}
	}
	return buf.Bytes(), nil
}

// ParseObservation reads what MarshalObservation wrote.
func ParseObservation(data []byte) ([]Observed, error) {
	var list []Observed
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(make([]byte, 64<<10), 1<<20)
	for line := 1; s.Scan(); line++ {
		dec := json.NewDecoder(bytes.NewReader(s.Bytes()))
		dec.DisallowUnknownFields()
		var o Observed
		if err := dec.Decode(&o); err != nil {
			return nil, fmt.Errorf("observation line %d: %w", line, err)
		}
		if rest := s.Bytes()[dec.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("observation line %d: something follows the path %q", line, o.Path)
		}
		if !o.Class.known() {
			return nil, fmt.Errorf("observation line %d: class %q is not known", line, o.Class)
		}
		if !strings.HasPrefix(o.Path, "/") {
			return nil, fmt.Errorf("observation line %d: path %q is not absolute", line, o.Path)
		}
		list = append(list, o)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("observation: %w", err)
	}
	return list, nil
}

// Explain finds a path in an observation, and where it is not there, what
// contains it.
func Explain(list []Observed, p string) []Observed {
	var found []Observed
	for _, o := range list {
		if o.Path == p {
			return []Observed{o}
		}
		if (o.Class == ClassSoftware || o.Class == ClassDownload) && o.Item != "" && strings.HasPrefix(p, o.Item+"/") && len(found) == 0 {
			found = append(found, Observed{Path: p, Class: o.Class, Item: o.Item, Why: "part of " + o.Item + ", which is kept whole"})
		}
	}
	return found
}
