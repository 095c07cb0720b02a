package runbook

import (
	"bytes"
	"regexp"

	"github.com/yuin/goldmark/ast"
	markdown "github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// A few kilobytes of Markdown can take hours to read, or gigabytes: a row of a table has all
// columns, whatever stands in it; brackets and stars are tried with all that follow; each level of a
// quotation is looked at for each level. Control and verify read runbooks of
// others, and refuse those. These limits are far beyond what a person can follow.
const (
	mostLevels = 100         // of quotations and lists
	mostCells  = 200_000     // of all tables
	mostTries  = 100_000_000 // of brackets, stars and the like with those of the same paragraph
)

// bearable refuses such a text. It finds paragraphs as the parser does, and reads nothing in them.
func (p *parser) bearable(body []byte, offset int) bool {
	at := 0
	for line := range bytes.Lines(body) {
		if levels(line) > mostLevels {
			p.fail(p.line(offset+at), "write it with fewer levels", "more than %d levels of lists and quotations begin here", mostLevels)
			return false
		}
		at += len(line)
	}
	root := markdown.NewParser(markdown.WithBlockParsers(markdown.DefaultBlockParsers()...)).Parse(text.NewReader(body))
	cells, tries, level := 0, 0, 0
	what, remedy := "", "split the paragraph: an empty line ends one"
	var bad ast.Node
	// The function gives no error.
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			level--
			return ast.WalkContinue, nil
		}
		level++
		switch n.Kind() {
		case ast.KindParagraph, ast.KindTextBlock, ast.KindHeading:
			c, t := costs(n.Lines(), body)
			cells, tries = cells+c, tries+t
		}
		switch {
		case level > mostLevels:
			what, remedy = "too many levels of lists and quotations are here", "write it with fewer levels"
		case cells > mostCells:
			what, remedy = "the tables up to here have too many cells", "write fewer columns, or end the table with an empty line"
		case tries > mostTries:
			what = "too many brackets, stars and the like are in the paragraphs up to here"
		default:
			return ast.WalkContinue, nil
		}
		bad = n
		return ast.WalkStop, nil
	})
	if bad != nil {
		p.fail(p.at(bad, offset), remedy, "%s: no program reads that in a bearable time", what)
	}
	return bad == nil
}

// levels is how many lists and quotations a line begins, at most.
func levels(line []byte) int {
	n := 0
	for i, c := range line {
		switch {
		case c == '>':
			n++
		case bytes.IndexByte([]byte("-+*.)"), c) >= 0:
			if i+1 < len(line) && bytes.IndexByte([]byte(" \t\n"), line[i+1]) >= 0 {
				n++
			}
		case c != ' ' && c != '\t' && (c < '0' || c > '9'):
			return n
		}
	}
	return n
}

var delimiterRow = regexp.MustCompile(`^[ \t>]*\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\n?$`)

// costs are the cells that a paragraph has if it is a table, and how often what may begin or end
// something in it is tried with the others.
func costs(lines *text.Segments, body []byte) (cells, tries int) {
	columns, all := 0, 0
	for i := range lines.Len() {
		s := lines.At(i)
		line := s.Value(body)
		marks := 0
		for _, c := range line {
			if bytes.IndexByte([]byte("[]*_~`!<&"), c) >= 0 {
				marks++
			}
		}
		if columns == 0 && i > 0 && delimiterRow.Match(line) {
			columns = bytes.Count(line, []byte("|")) + 1
		}
		cells += columns
		tries += marks * marks
		all += marks
	}
	if columns == 0 { // each cell of a table is a paragraph of its own
		tries = all * all
	}
	return cells, tries
}
