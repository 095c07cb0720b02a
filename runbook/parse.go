package runbook

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"

	"trysail/internal/strict"
)

const maxSize = 1 << 20 // bytes; a process that takes more cannot be followed by hand

// Zones finds a time zone by its name in the tz database.
type Zones func(name string) (*time.Location, error)

// Errors are everything that is wrong with a document, in the order of its lines.
type Errors []*strict.Error

func (e Errors) Error() string {
	var list []string
	for _, x := range e {
		list = append(list, x.Error())
	}
	return strings.Join(list, "\n")
}

// Hint is what mends the first one.
func (e Errors) Hint() string { return e[0].Remedy }

// Parse reads a runbook strictly. The file name is used in errors only, which
// are of type [Errors].
func Parse(file string, data []byte, zones Zones) (*Runbook, error) {
	return parse(&parser{data: data, zones: zones}, file)
}

// ParseOld reads the runbook of a release that began with rules before 3, as it was read
// then: it may say a thing twice, name no gold or nobody who approves, and of several
// numbers of approvals the last counts.
func ParseOld(file string, data []byte, zones Zones) (*Runbook, error) {
	return parse(&parser{data: data, zones: zones, old: true}, file)
}

func parse(p *parser, file string) (*Runbook, error) {
	p.r, p.phases = &Runbook{File: file}, map[string]int{}
	data := p.data
	for i, b := range data {
		if b == '\n' {
			p.lines = append(p.lines, i)
		}
	}
	if p.text() {
		sum := sha256.Sum256(data)
		p.r.Digest = "sha256:" + hex.EncodeToString(sum[:])
		body, offset := p.frontMatter()
		if p.bearable(body, offset) {
			p.document(body, offset)
			p.rules()
		}
	}
	if len(p.errs) == 0 {
		return p.r, nil
	}
	slices.SortStableFunc(p.errs, func(a, b *strict.Error) int { return cmp.Compare(a.Line, b.Line) })
	return nil, p.errs
}

type parser struct {
	r     *Runbook
	data  []byte
	zones Zones
	errs  Errors
	front front
	old   bool // see ParseOld

	lines  []int          // offsets of their ends
	phases map[string]int // lines of phases by slug and anchor
}

func (p *parser) fail(line int, remedy, format string, args ...any) {
	p.errs = append(p.errs, &strict.Error{File: p.r.File, Line: line, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// newly refuses what the rules before 3 took.
func (p *parser) newly(line int, remedy, format string, args ...any) {
	if !p.old {
		p.fail(line, remedy, format, args...)
	}
}

// line is the line of an offset into the document.
func (p *parser) line(offset int) int {
	i, _ := slices.BinarySearch(p.lines, offset)
	return 1 + i
}

// text refuses what is no document, or one that shows something else than it holds.
func (p *parser) text() bool {
	switch {
	case len(p.data) > maxSize:
		p.fail(0, "split the process into several runbooks", "%d bytes is too large for a runbook", len(p.data))
		return false
	case len(bytes.TrimSpace(p.data)) == 0:
		p.fail(0, "trysail runbook init writes a first one", "the file is empty")
		return false
	}
	line := 1
	for rest := p.data; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			p.fail(line, "save the file as UTF-8", "the text is not UTF-8")
			return false
		case r == '\n':
			line++
		case r == '\r':
			p.fail(line, "save the file with Unix line ends (sed -i 's/\\r$//')", "the line ends in a carriage return, which a shell would take for part of the command")
			return false
		case r != '\t' && unicode.IsControl(r):
			p.fail(line, "remove the character", "control character %U", r)
			return false
		case invisible(r):
			p.fail(line, "remove the character", "character %U is invisible and can make a command read as another", r)
			return false
		}
		rest = rest[n:]
	}
	if p.data[len(p.data)-1] != '\n' {
		p.fail(line, "end the file with a line end, or restore it from version control", "the last line has no end: the file is torn")
		return false
	}
	return true
}

// invisible tells whether a letter changes the order of what is read, or is not seen.
// Joiners are neither: emoji and Persian are written with them.
func invisible(r rune) bool {
	return unicode.Is(unicode.Bidi_Control, r) || strings.ContainsRune("\u00ad\u180e\u200b\u2028\u2029\ufeff", r) ||
		r >= 0x2060 && r <= 0x206f || r >= 0xe0000 && r <= 0xe007f
}

// unseen tells whether a letter, which escapes can bring into JSON and YAML, makes what
// is printed something else than it is; a value is one line.
func unseen(r rune) bool { return unicode.IsControl(r) || invisible(r) }

// document walks the Markdown after the front matter.
func (p *parser) document(body []byte, offset int) {
	md := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser()
	root := md.Parse(text.NewReader(body))
	phase := ""
	for n := root.FirstChild(); n != nil; n = n.NextSibling() {
		switch n := n.(type) {
		case *ast.Heading:
			phase = p.heading(n, body, offset, phase)
		case *ast.FencedCodeBlock:
			p.block(n, body, offset, phase)
		case *ast.List:
			p.list(n, body, offset, phase)
		default:
			p.buried(n, body, offset)
		}
	}
	p.named(root, body, offset)
	p.unboxed(root, body, offset)
}

// start is the offset of a block in the document; -1 where it has no text.
func start(n ast.Node) int {
	if f, ok := n.(*ast.FencedCodeBlock); ok && f.Info != nil {
		return f.Info.Segment.Start
	}
	if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
		return n.Lines().At(0).Start
	}
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if s := start(c); s >= 0 {
			return s
		}
	}
	if t, ok := n.(*ast.Text); ok {
		return t.Segment.Start
	}
	return -1
}

func (p *parser) at(n ast.Node, offset int) int {
	if s := start(n); s >= 0 {
		return p.line(offset + s)
	}
	return 0
}

func (p *parser) heading(n *ast.Heading, body []byte, offset int, phase string) string {
	title := plainText(n, body)
	line := p.line(offset + n.Pos())
	first, _, _ := bytes.Cut(p.data[offset+n.Pos():], []byte("\n"))
	if marks, _, _ := bytes.Cut(bytes.ReplaceAll(first, []byte("\t"), []byte(" ")), []byte(" ")); len(marks) != n.Level || len(bytes.Trim(marks, "#")) > 0 {
		p.fail(line, "write the heading with ##, or leave an empty line before the dashes", "a line of dashes or equals signs below %q makes it a heading", title)
		return phase
	}
	switch n.Level {
	case 1:
		if p.r.Title == "" {
			p.r.Title = title
		}
	case 2:
		slug := Slug(title)
		if slug == "" {
			p.fail(line, "give the phase a name with letters", "heading %q names no phase", title)
			return phase
		}
		for _, name := range []string{slug, anchor(title)} {
			if first := p.phases[name]; first > 0 {
				p.fail(line, "give one of the two another title", "phase %s stands twice, first in line %d", name, first)
				return slug
			}
		}
		p.phases[slug], p.phases[anchor(title)] = line, line
		p.r.Phases = append(p.r.Phases, Phase{Slug: slug, Title: title, Line: line})
		return slug
	}
	return phase
}

// Slug is a phase's name, much as forges make a heading's anchor. Ledgers hold it.
func Slug(title string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r > 0x7f:
			b.WriteRune(r)
		case r == ' ' || r == '-' || r == '_':
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-")
}

// anchor is a heading's anchor to the letter: without what is no letter, digit,
// underscore or dash, and with a dash for each blank.
func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Pc):
			return r
		}
		return -1
	}, strings.ToLower(title))
}

// checkNeed takes names of items, and of phases by slug or by anchor.
func checkNeed(s string) error {
	if s == "" || Slug(s) != s && anchor(s) != s {
		return fmt.Errorf("%q is not a name", s)
	}
	return nil
}

// plainText is what a reader sees of a node.
func plainText(n ast.Node, body []byte) string {
	var b strings.Builder
	var walk func(ast.Node)
	walk = func(n ast.Node) {
		for c := n.FirstChild(); c != nil; c = c.NextSibling() {
			if t, ok := c.(*ast.Text); ok {
				b.Write(t.Segment.Value(body))
				if t.SoftLineBreak() || t.HardLineBreak() {
					b.WriteByte(' ')
				}
			} else if s, ok := c.(*ast.String); ok {
				b.Write(s.Value)
			} else if l, ok := c.(*ast.AutoLink); ok {
				b.Write(l.Label(body))
			} else {
				walk(c)
			}
		}
	}
	walk(n)
	return strings.TrimSpace(b.String())
}

// buried refuses steps and checklists inside quotations and the like, where one
// reader finds them and another does not.
func (p *parser) buried(n ast.Node, body []byte, offset int) {
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.FencedCodeBlock:
			if c.Info != nil && bytes.Contains(c.Info.Segment.Value(body), []byte("{")) {
				p.fail(p.at(c, offset), "move the block to the left margin", "a step inside a list or quotation is found by some readers only")
			}
		case *east.TaskCheckBox:
			p.fail(p.at(n, offset), "move the item to a list of its own at the left margin", "a checklist item inside another list or quotation is found by some readers only")
		default:
			p.buried(c, body, offset)
		}
	}
}

func (p *parser) add(x Item, phase string) {
	if phase == "" {
		p.fail(x.Line, "write a heading such as ## Build above it", "%s %s stands in no phase", x.Kind, x.Name)
	}
	x.Phase = phase
	if old := p.r.Item(x.Name); old != nil {
		p.fail(x.Line, "give one of the two another name", "name %s stands twice, first in line %d", x.Name, old.Line)
		return
	}
	p.r.Items = append(p.r.Items, x)
}

// parseMoment reads "ship", "ship-2d" or an RFC 3339 time.
func parseMoment(s string) (Moment, error) {
	if s == "ship" {
		return Moment{}, nil
	}
	if before, ok := strings.CutPrefix(s, "ship-"); ok {
		d, err := ParsePeriod(before)
		return Moment{Before: d}, err
	}
	t, err := ParseTime(s)
	if err != nil {
		return Moment{}, fmt.Errorf("it is neither ship nor ship-2d: %w", err)
	}
	return Moment{At: t}, nil
}
