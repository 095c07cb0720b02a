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
	for part := range strings.SplitSeq(m[2], ",") {
		p.signOffPart(&x, strings.TrimSpace(part))
	}
	if len(x.Asked) == 0 {
		p.fail(line, signOffShape, "sign-off %s asks nobody", x.Name)
	}
	p.add(x, phase)
}

// signOffPart reads one of: @who, "2 of @who", "budget 2h", "needs a b".
func (p *parser) signOffPart(x *Item, part string) {
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
			return
		}
		x.Approvals = n
		ask(f[2])
	case len(f) == 2 && f[0] == "budget":
		d, err := ParseDuration(f[1])
		if err != nil {
			p.fail(x.Line, "write budget 2h", "budget of %s: %v", x.Name, err)
			return
		}
		x.Budget = d
	case len(f) > 1 && f[0] == "needs":
		for _, name := range f[1:] {
			if checkNeed(name) != nil || slices.Contains(x.Needs, name) {
				p.fail(x.Line, "write needs and the names, with spaces between", "%q in sign-off %s is no new name", name, x.Name)
				continue
			}
			x.Needs = append(x.Needs, name)
		}
	default:
		p.fail(x.Line, signOffShape+"; further parts are 2 of @group and needs gold-build", "%q in sign-off %s says nothing", part, x.Name)
	}
}
