package runbook

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/yuin/goldmark/ast"
	east "github.com/yuin/goldmark/extension/ast"
)

// list reads a list at the left margin: each of its checklist items is a sign-off.
func (p *parser) list(n *ast.List, body []byte, offset int, phase string) {
	for li := n.FirstChild(); li != nil; li = li.NextSibling() {
		head := li.FirstChild()
		if head == nil {
			continue
		}
		box, ok := head.FirstChild().(*east.TaskCheckBox)
		if !ok {
			p.buried(li, body, offset)
			continue
		}
		p.signOff(head, box, body, offset, phase)
		for c := head.NextSibling(); c != nil; c = c.NextSibling() {
			p.below(c, body, offset)
		}
	}
}

// below refuses what belongs to a checklist item and is no part of its text: whoever
// signs reads it, and would not have signed it.
func (p *parser) below(n ast.Node, body []byte, offset int) {
	known := len(p.errs)
	p.buried(n, body, offset)
	line := p.line(offset + n.Pos())
	if _, ok := n.(*ast.FencedCodeBlock); ok && len(p.errs) == known {
		p.fail(line, "move the block to the left margin", "a block inside a checklist item is found by some readers only")
	}
	if len(p.errs) == known {
		p.fail(line, "write all that is signed in one paragraph, or each part as an item of its own; a note goes above the list", "what stands here below a checklist item is read with it, and is not signed")
	}
}

// The text after the box: the name in bold, who and how much in parentheses, what.
var signOffRE = regexp.MustCompile(`^\*\*([^*]+)\*\* \(([^()]*)\): (\S.*)$`)

const signOffShape = "write it as - [ ] **licences** (@legal, budget 2h): licence scan reviewed"

func (p *parser) signOff(head ast.Node, box *east.TaskCheckBox, body []byte, offset int, phase string) {
	line := p.at(head, offset)
	if box.IsChecked {
		p.fail(line, "write [ ]; trysail release sign signs", "the item is ticked: a tick in the document signs nothing")
		return
	}
	var raw bytes.Buffer
	for i := range head.Lines().Len() {
		s := head.Lines().At(i)
		raw.Write(s.Value(body))
	}
	src := strings.Join(strings.Fields(raw.String()), " ")
	src = strings.TrimPrefix(src, "[ ]")
	if !strings.HasPrefix(src, " ") {
		p.fail(line, "write a blank after the box: "+strings.TrimPrefix(signOffShape, "write it as "), "a box without a blank after it is no checklist item to a forge")
		return
	}
	src = strings.TrimSpace(src)
	m := signOffRE.FindStringSubmatch(src)
	if m == nil {
		p.fail(line, signOffShape+"; or make it a plain list item", "a reader would wait for this checklist item and nobody is asked for it")
		return
	}
	x := Item{Name: m[1], Kind: SignOff, Line: line, Text: m[3], Approvals: 1}
	if !nameRE.MatchString(x.Name) || len(x.Name) > 64 {
		p.fail(line, nameRemedy, "name %q is not usable", x.Name)
		return
	}
	var said []string // words that parts begin with
	for part := range strings.SplitSeq(m[2], ",") {
		word := p.signOffPart(&x, strings.TrimSpace(part))
		if word != "" && slices.Contains(said, word) {
			p.newly(line, "say it once", "sign-off %s says %s twice", x.Name, word)
		}
		said = append(said, word)
	}
	if len(x.Asked) == 0 {
		p.fail(line, signOffShape, "sign-off %s asks nobody", x.Name)
	}
	p.quotas(&x)
	p.add(x, phase)
}

// quotas settles how many approvals are asked of whom.
func (p *parser) quotas(x *Item) {
	for i, who := range x.Asked {
		if slices.Contains(x.Asked[:i], who) {
			p.newly(x.Line, "name them once", "sign-off %s asks @%s twice", x.Name, who)
		}
	}
	switch n := len(x.Quotas); {
	case n > 0 && n < len(x.Asked):
		p.newly(x.Line, "write 2 of @qa, 1 of @legal; or make a group of all whom you ask", "sign-off %s asks for a number of approvals of one, and names others without a number: is the number of all of them?", x.Name)
	case n > 1 && !p.old:
		x.Approvals = 0
		for _, q := range x.Quotas {
			x.Approvals += q.Approvals
		}
		return
	}
	x.Quotas = nil
}

// signOffPart reads one of: @who, "2 of @who", "budget 2h", "needs a b". It gives the word
// that no second part may begin with.
func (p *parser) signOffPart(x *Item, part string) (once string) {
	f := strings.Fields(part)
	ask := func(who string) {
		name, ok := strings.CutPrefix(who, "@")
		if !ok || !nameRE.MatchString(name) {
			p.fail(x.Line, "write @ and a name that stands under people or groups", "%q in sign-off %s names nobody", who, x.Name)
			return
		}
		x.Asked = append(x.Asked, name)
	}
	switch {
	case len(f) == 1 && strings.HasPrefix(f[0], "@"):
		ask(f[0])
	case len(f) == 3 && f[1] == "of":
		n, err := strconv.Atoi(f[0])
		if err != nil || n < 1 || n > 20 {
			p.fail(x.Line, "write 2 of @release-managers", "%q in sign-off %s is not a number of people", f[0], x.Name)
			return ""
		}
		x.Approvals = n
		x.Quotas = append(x.Quotas, Quota{Who: strings.TrimPrefix(f[2], "@"), Approvals: n})
		ask(f[2])
	case len(f) == 2 && f[0] == "budget":
		d, err := ParseDuration(f[1])
		if err != nil {
			p.fail(x.Line, "write budget 2h", "budget of %s: %v", x.Name, err)
			return ""
		}
		x.Budget = d
		return "budget"
	case len(f) > 1 && f[0] == "needs":
		for _, name := range f[1:] {
			if checkNeed(name) != nil || slices.Contains(x.Needs, name) {
				p.fail(x.Line, "write needs and the names, with spaces between", "%q in sign-off %s is no new name", name, x.Name)
				continue
			}
			x.Needs = append(x.Needs, name)
		}
		return "needs"
	default:
		p.fail(x.Line, signOffShape+"; further parts are 2 of @group and needs gold-build", "%q in sign-off %s says nothing", part, x.Name)
	}
	return ""
}

// bulletRE is what stands before the text of an item, however lists are nested.
var bulletRE = regexp.MustCompile(`^(?:[\s\x{a0}>|]|[-*+•‣–—]\s|\d{1,9}[.)]\s)*`)

// boxRE is a box of a checklist as people and tools write it, a blank of any kind in it,
// before text that makes no link of it.
var boxRE = regexp.MustCompile(`^\\*[[［][\pZ\s\\xX✓✔]*\\*[]］](?:[^(\[:]|$)|^[☐☑☒]`)

// askedRE is a name and, in parentheses, somebody who is asked for something.
var askedRE = regexp.MustCompile(`^[*_` + "`" + `]*[^()*_` + "`" + `]{1,64}[*_` + "`" + `]*\s*\(([^()]*)\)\s*[*_]*:`)

// unboxed refuses what a reader takes for a sign-off and a Markdown reader does not: a
// box that a tool escaped or that holds another blank, a sign-off without a box.
func (p *parser) unboxed(root ast.Node, body []byte, offset int) {
	passed := map[int]bool{} // lines in which nobody looks for a checklist
	for _, x := range p.r.Items {
		passed[x.Line] = true
	}
	for _, err := range p.errs {
		passed[err.Line] = true
	}
	p.hidden(root, body, offset, passed)
	for i, text := range strings.Split(string(body), "\n") {
		line := p.line(offset) + i
		text = text[len(bulletRE.FindString(text)):]
		if passed[line] || text == "" {
			continue
		}
		asked := askedRE.FindStringSubmatch(text)
		switch {
		case boxRE.MatchString(text):
			p.newly(line, signOffShape, "a reader sees a box to tick, and it is none: nobody would be asked")
		case asked != nil && p.asks(asked[1]):
			p.newly(line, signOffShape+"; or leave the @ away", "this reads like a sign-off and has no box: nobody would be asked")
		}
	}
}

// asks tells whether text names somebody of the front matter.
func (p *parser) asks(text string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == ';' }), func(w string) bool {
		name, at := strings.CutPrefix(w, "@")
		_, known := p.r.people(name)
		return at && known
	})
}

// hidden finds the lines of scripts and comments.
func (p *parser) hidden(n ast.Node, body []byte, offset int, lines map[int]bool) {
	comment := false
	if h, ok := n.(*ast.HTMLBlock); ok {
		comment = h.HTMLBlockType == ast.HTMLBlockType2
	}
	if _, ok := n.(*ast.FencedCodeBlock); ok || comment {
		for i := range n.Lines().Len() {
			lines[p.line(offset+n.Lines().At(i).Start)] = true
		}
	}
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		p.hidden(c, body, offset, lines)
	}
}
