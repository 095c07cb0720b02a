package runbook

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/yuin/goldmark/ast"
)

// Runme reads a fenced block by rules of its own, and says nothing where they give
// something else than the page shows:
//
//   - Attributes are whatever stands from the first brace of the info string on, and
//     the language is what stands before the first blank.
//   - Of each line of a script it drops leading dollar signs, which it takes for
//     prompts, and blanks at the end.
//   - A block without a name is called after its first command. The second of a name
//     is renamed, though a person gave it and the first one's was made up.

// info takes the language and the attributes from an info string; attributes are ""
// where the block is prose.
func (p *parser) info(info string, line int) (language, attributes string, ok bool) {
	language, rest, _ := strings.Cut(info, " ")
	if !strings.Contains(info, "{") {
		return language, "", true // or a forge's own attributes, such as a file name
	}
	rest = strings.TrimSpace(rest)
	if strings.Contains(language, "{") || !strings.HasPrefix(rest, "{") {
		p.fail(line, "write the language, a blank and the attributes alone: ```sh {\"name\":\"build\"}", "Runme takes everything from the first brace of %q for attributes, and the first word for the language", info)
		return "", "", false
	}
	return language, rest, true
}

// script refuses lines of a script that Runme would run otherwise.
func (p *parser) script(x *Item, n *ast.FencedCodeBlock, body []byte, offset int) {
	for i := range n.Lines().Len() {
		s := n.Lines().At(i)
		text := bytes.TrimSuffix(s.Value(body), []byte("\n"))
		bare := bytes.TrimRight(text, " \t")
		switch {
		case bytes.HasPrefix(text, []byte("$")):
			p.fail(p.line(offset+s.Start), `write "$CC" in quotation marks, or a blank before it; a prompt goes`, "a line of %s begins with a dollar sign, which Runme takes for a prompt and drops", x.Name)
		case len(bare) < len(text) && bytes.HasSuffix(bare, []byte(`\`)):
			p.fail(p.line(offset+s.Start), "remove the blanks", "a line of %s ends in blanks after a backslash: Runme drops them, and goes on in the next line", x.Name)
		}
	}
}

// swallowed refuses a block whose end was forgotten, so that the beginning of the next
// step is part of it. One that shows steps has a longer fence, or another.
func (p *parser) swallowed(n *ast.FencedCodeBlock, body []byte, offset, line int) {
	own := fence(p.data[offset+n.Pos():])
	for i := range n.Lines().Len() {
		s := n.Lines().At(i)
		text := s.Value(body)
		f := fence(text)
		if own != "" && strings.HasPrefix(f, own) && bytes.Contains(text, []byte("{")) {
			p.fail(p.line(offset+s.Start), "end that block with a line of "+own+"; one that shows steps begins and ends with a longer fence", "a step begins inside the block of line %d, and is part of it", line)
			return
		}
	}
}

// fence gives the backquotes or tildes that a line begins with; "" if they are no fence.
func fence(line []byte) string {
	line = bytes.TrimLeft(line, " ")
	for _, mark := range []string{"`", "~"} {
		if n := len(line) - len(bytes.TrimLeft(line, mark)); n >= 3 {
			return string(line[:n])
		}
	}
	return ""
}

// named refuses blocks without a name to which Runme gives a step's.
func (p *parser) named(root ast.Node, body []byte, offset int) {
	items, blocks := map[int]string{}, map[string]int{}
	for _, x := range p.r.Items {
		if x.Kind != SignOff {
			items[x.Line], blocks[x.Name] = x.Name, x.Line
		}
	}
	seen := map[string]int{}
	var walk func(ast.Node)
	walk = func(n ast.Node) {
		for c := n.FirstChild(); c != nil; c = c.NextSibling() {
			switch c.(type) {
			case *ast.FencedCodeBlock, *ast.CodeBlock:
			default:
				walk(c)
				continue
			}
			line := p.line(offset + c.Pos())
			name, own := items[line]
			if !own {
				name = madeUp(c, body)
			}
			seen[name]++
			if k := seen[name]; k > 1 {
				name += "-" + strconv.Itoa(k)
			}
			if step := blocks[name]; !own && step > 0 {
				p.fail(line, "give the step another name, or move the block below it", "Runme calls this block %s after its first line, and renames the step in line %d", name, step)
			}
		}
	}
	walk(root)
}

// madeUp is the name that Runme makes for a block without one.
func madeUp(n ast.Node, body []byte) string {
	first := ""
	for i := range n.Lines().Len() {
		s := n.Lines().At(i)
		text := strings.TrimLeft(string(s.Value(body)), "$")
		if i == 0 {
			first = strings.TrimSpace(text)
		}
		if text, _, _ = strings.Cut(strings.TrimSpace(text), "#"); text != "" {
			first = strings.TrimSpace(text)
			break
		}
	}
	for i := strings.Index(first, "="); i > 0; i = strings.Index(first, "=") {
		first = first[:i] // a variable is set
	}
	words := strings.Split(first[:min(len(first), 32)], " ")
	var b strings.Builder
	for _, r := range strings.ToLower(strings.Join(words[:min(len(words), 2)], " ")) {
		switch {
		case r == ' ' && b.Len() > 0:
			b.WriteByte('-')
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		}
	}
	return b.String()
}
