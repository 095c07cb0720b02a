package blueprint

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// decode guards the YAML library: a parser that panics on hostile input must
// not take the program down.
func decode(data []byte, b *Blueprint) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not readable as YAML: %v", r)
		}
	}()
	return yaml.UnmarshalWithOptions(data, b, yaml.Strict(), yaml.DisallowUnknownField())
}

// plainYAML refuses what a blueprint never holds and what makes a file mean
// something else than a reviewer sees, or more than a machine can hold:
// references from one place to another, further documents, deep nesting.
func plainYAML(file string, data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &ParseError{File: file, What: fmt.Sprintf("not readable as YAML: %v", r), Remedy: remedyRestore}
		}
	}()
	depth, entries := 0, 0
	for i, t := range lexer.Tokenize(string(data)) {
		refuse := func(what string) error {
			return &ParseError{File: file, Line: t.Position.Line, What: what, Remedy: remedyRestore}
		}
		if t.Type != token.SequenceEntryType && t.Type != token.MappingKeyType {
			entries = 0
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType:
			return refuse("anchors, aliases and tags are not used in a blueprint")
		case token.DocumentHeaderType, token.DocumentEndType:
			if i > 0 {
				return refuse("a second YAML document begins here")
			}
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType:
			entries++
		}
		if depth > maxDepth || entries > maxDepth || t.Position.IndentNum > 8*maxDepth {
			return refuse("the nesting is too deep for a blueprint")
		}
	}
	return nil
}

func invalidAt(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

// lineOf finds the line of a value by its YAML path, or of what should hold it.
func lineOf(data []byte, at string) int {
	for at != "" {
		if p, err := yaml.PathString("$." + at); err == nil {
			if n, err := p.ReadNode(bytes.NewReader(data)); err == nil && n != nil && n.GetToken() != nil {
				return n.GetToken().Position.Line
			}
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	return 0
}

var (
	plainRE   = regexp.MustCompile(`^[A-Za-z/_][A-Za-z0-9/._+~@=%*-]*(?:[: ][A-Za-z0-9/._+~@=%*()-]+)*$`)
	keywordRE = regexp.MustCompile(`(?i)^(?:null|true|false|yes|no|on|off|y|n)$`)
)

// scalar writes a text so that it reads back as the same text, wherever it
// stands. The library's own choice does not: a line end or a tab inside a flow
// sequence, or the text ".inf", does not come back.
func scalar(s string) ([]byte, error) {
	if plainRE.MatchString(s) && !keywordRE.MatchString(s) {
		return []byte(s), nil
	}
	return []byte(strconv.Quote(s)), nil
}
