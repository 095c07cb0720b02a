// Package strict reads the YAML of Trysail's own formats, which people write or
// review, so that a file means to the program what it shows to them.
//
// It refuses unknown and repeated keys, references from one place to another,
// further documents, deep nesting, torn ends and text that is not UTF-8, and
// says of each file, line and remedy. A number where a text belongs is the text that
// stands there: version 4.10 is not 4.1. The YAML library's panics on hostile input
// become errors too. The package is pure: bytes in, values or an [Error] out.
package strict

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth = 16   // levels of nesting; no format has more than seven
	maxKeys  = 1000 // of one mapping; the library's time grows with their square
)

// Error says where a file cannot be read and what to do about it.
type Error struct {
	File   string
	Line   int // 0 when it is not about one line
	What   string
	Remedy string
}

func (e *Error) Error() string {
	at := e.File
	if e.Line > 0 {
		at += ":" + strconv.Itoa(e.Line)
	}
	return at + ": " + e.What
}

// Hint is what to type or do next.
func (e *Error) Hint() string { return e.Remedy }

// Text refuses what is no whole text of at most so many bytes.
func Text(file string, data []byte, most int, remedy string) *Error {
	fail := func(line int, format string, args ...any) *Error {
		return &Error{File: file, Line: line, What: fmt.Sprintf(format, args...), Remedy: remedy}
	}
	switch {
	case len(data) > most:
		return fail(0, "%d bytes is too large, %d is the most", len(data), most)
	case len(bytes.TrimSpace(data)) == 0:
		return fail(0, "the file is empty")
	case data[len(data)-1] != '\n':
		return fail(1+bytes.Count(data, []byte("\n")), "the last line has no end: the file is torn")
	case !utf8.Valid(data):
		return fail(1+bytes.Count(data[:invalidAt(data)], []byte("\n")), "the text is not UTF-8")
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

var position = regexp.MustCompile(`^\[(\d+):(\d+)\] (.*)`)

// YAML reads one document into v.
func YAML(file string, data []byte, v any, remedy string) *Error {
	if err := plain(file, data, remedy); err != nil {
		return err
	}
	err := decode(data, v)
	if err == nil {
		return nil
	}
	e := &Error{File: file, What: err.Error(), Remedy: remedy}
	if m := position.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0]); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.What = m[3]
	}
	e.What = printable(e.What)
	return e
}

// printable shows letters that a terminal would obey as the escapes that brought them:
// the library repeats unknown keys as they are.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func decode(data []byte, v any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not readable as YAML: %v", r)
		}
	}()
	tokens := lexer.Tokenize(string(data))
	asWritten(tokens)
	f, err := parser.Parse(tokens, 0)
	if err != nil {
		return err
	}
	for _, doc := range f.Docs {
		if doc.Body != nil {
			return yaml.NodeToValue(doc.Body, v, yaml.Strict(), yaml.DisallowUnknownField())
		}
	}
	return nil
}

// asWritten makes texts of the numbers that have another form too: where a format
// wants a text, the library writes the number anew, and version 4.10 would be 4.1. A
// decimal number that is written so is still one where a format wants a number.
func asWritten(tokens token.Tokens) {
	for _, t := range tokens {
		switch t.Type {
		case token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType, token.InfinityType, token.NanType:
			t.Type = token.StringType
		case token.IntegerType, token.FloatType:
			if n := token.ToNumber(t.Value); n == nil || fmt.Sprint(n.Value) != t.Value {
				t.Type = token.StringType
			}
		}
	}
}

// plain refuses what makes a file mean something else than a reviewer sees, or
// more than a machine can hold.
func plain(file string, data []byte, remedy string) (err *Error) {
	defer func() {
		if r := recover(); r != nil {
			err = &Error{File: file, What: fmt.Sprintf("not readable as YAML: %v", r), Remedy: remedy}
		}
	}()
	depth, entries := 0, 0
	flows, columns := []int{}, map[int]int{} // keys of the mappings that are open: in braces, and by the column of their keys
	tokens := lexer.Tokenize(string(data))
	for i, t := range tokens {
		refuse := func(what string) *Error {
			return &Error{File: file, Line: t.Position.Line, What: what, Remedy: remedy}
		}
		if t.Type != token.SequenceEntryType && t.Type != token.MappingKeyType {
			entries = 0
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType:
			return refuse("anchors, aliases and tags are not used here")
		case token.DocumentHeaderType, token.DocumentEndType:
			if i > 0 {
				return refuse("a second YAML document begins here")
			}
		case token.SequenceStartType, token.MappingStartType:
			depth++
			flows = append(flows, 0)
		case token.SequenceEndType, token.MappingEndType:
			depth--
			flows = flows[:max(len(flows)-1, 0)]
		case token.SequenceEntryType, token.MappingKeyType:
			entries++
			within(columns, t.Position.Column)
		case token.MappingValueType:
			if keys(flows, columns, tokens[max(i-1, 0)].Position.Column) > maxKeys {
				return refuse(fmt.Sprintf("one mapping has more than %d keys", maxKeys))
			}
		}
		if depth > maxDepth || entries > maxDepth || t.Position.IndentNum > 8*maxDepth {
			return refuse("the nesting is too deep")
		}
	}
	return nil
}

// keys counts one more key of the mapping that it is in, and gives how many there are.
func keys(flows []int, columns map[int]int, column int) int {
	if n := len(flows); n > 0 {
		flows[n-1]++
		return flows[n-1]
	}
	within(columns, column)
	columns[column]++
	return columns[column]
}

// within ends the mappings that stand further to the right.
func within(columns map[int]int, column int) {
	for c := range columns {
		if c > column {
			delete(columns, c)
		}
	}
}

// Line finds the line of a value by its YAML path, or of what should hold it.
func Line(data []byte, at string) int { return Lines(data)(at) }

// Lines finds many lines of one document, which is read when the first is asked for.
func Lines(data []byte) func(at string) int {
	var file *ast.File
	return func(at string) (line int) {
		defer func() {
			if recover() != nil {
				line = 0 // the library lost its way: an error without a line is still one
			}
		}()
		if file == nil {
			f, err := parser.ParseBytes(data, 0)
			if err != nil {
				return 0
			}
			file = f
		}
		for at != "" {
			if p, err := yaml.PathString("$." + at); err == nil {
				if n, err := p.FilterFile(file); err == nil && n != nil && n.GetToken() != nil {
					return n.GetToken().Position.Line
				}
			}
			at = at[:max(strings.LastIndexAny(at, ".["), 0)]
		}
		return 0
	}
}
