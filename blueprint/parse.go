package blueprint

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

const (
	maxSize  = 4 << 20 // the largest real blueprint (900 packages) is 150 kB
	maxDepth = 16      // levels of nesting; a blueprint has five
)

// ParseError says where a blueprint cannot be read and what to do about it.
type ParseError struct {
	File   string
	Line   int // 0 when it is not about one line
	What   string
	Remedy string
}

func (e *ParseError) Error() string {
	at := e.File
	if e.Line > 0 {
		at += ":" + strconv.Itoa(e.Line)
	}
	return at + ": " + e.What
}

// Hint is what to type or do next.
func (e *ParseError) Hint() string { return e.Remedy }

const remedyRestore = "restore the file from version control, or capture again"

var yamlPosition = regexp.MustCompile(`^\[(\d+):(\d+)\] (.*)`)

// Parse reads a blueprint strictly. The file name is used in errors only.
func Parse(file string, data []byte) (*Blueprint, error) {
	if len(data) > maxSize {
		return nil, &ParseError{File: file, What: fmt.Sprintf("%d bytes is too large for a blueprint", len(data)), Remedy: remedyRestore}
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil, &ParseError{File: file, What: "the file is empty", Remedy: remedyRestore}
	}
	if data[len(data)-1] != '\n' {
		return nil, &ParseError{File: file, Line: 1 + strings.Count(string(data), "\n"), What: "the last line has no end: the file is torn", Remedy: remedyRestore}
	}
	if !utf8.Valid(data) {
		line := 1 + bytes.Count(data[:invalidAt(data)], []byte("\n"))
		return nil, &ParseError{File: file, Line: line, What: "the text is not UTF-8", Remedy: remedyRestore}
	}
	b := new(Blueprint)
	if err := plainYAML(file, data); err != nil {
		return nil, err
	}
	if err := decode(data, b); err != nil {
		pe := &ParseError{File: file, What: err.Error(), Remedy: remedyRestore}
		if m := yamlPosition.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0]); m != nil {
			pe.Line, _ = strconv.Atoi(m[1])
			pe.What = m[3]
		}
		return nil, pe
	}
	if err := b.Validate(); err != nil {
		var inv *invalidError
		if errors.As(err, &inv) {
			return nil, &ParseError{File: file, Line: lineOf(data, inv.at), What: inv.what, Remedy: inv.remedy}
		}
		return nil, &ParseError{File: file, What: err.Error(), Remedy: remedyRestore}
	}
	return b, nil
}

// Marshal writes the blueprint in its canonical form. What Parse would refuse
// is not written.
func (b *Blueprint) Marshal() ([]byte, error) {
	b.Sort()
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("write blueprint: %w", err)
	}
	body, err := yaml.MarshalWithOptions(b, yaml.IndentSequence(false), yaml.Indent(2), yaml.CustomMarshaler[string](scalar))
	if err != nil {
		return nil, fmt.Errorf("write blueprint: %w", err)
	}
	return append([]byte("# The definition of a build server. Written by trysail capture; the format is in docs/blueprint.md.\n"), body...), nil
}
