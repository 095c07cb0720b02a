package runbook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/yuin/goldmark/ast"
)

var nameRE = regexp.MustCompile(`^[a-z0-9]+(?:-[a-z0-9]+)*$`)

var secretRE = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

const nameRemedy = "use lower-case letters and digits with single dashes between, such as gold-build (Runme exports capital names as variables)"

// key is one attribute of a step.
type key struct {
	kinds []Kind // that may have it
	set   func(x *Item, value string) error
}

func keys() map[string]key {
	runs, all := []Kind{Step, Publish}, []Kind{Step, Publish, Wait}
	duration := func(to func(x *Item) *time.Duration) func(*Item, string) error {
		return func(x *Item, v string) (err error) {
			*to(x), err = ParseDuration(v)
			return err
		}
	}
	list := func(to func(x *Item) *[]string, check func(string) error) func(*Item, string) error {
		return func(x *Item, v string) (err error) {
			*to(x), err = words(v, check)
			return err
		}
	}
	truth := func(to func(x *Item) *bool) func(*Item, string) error {
		return func(x *Item, v string) error {
			if v != "true" && v != "false" {
				return fmt.Errorf("%q is neither true nor false", v)
			}
			*to(x) = v == "true"
			return nil
		}
	}
	return map[string]key{
		"name":    {all, func(*Item, string) error { return nil }},
		"kind":    {all, func(*Item, string) error { return nil }},
		"role":    {runs, func(x *Item, v string) error { x.Role = v; return nil }},
		"needs":   {all, list(func(x *Item) *[]string { return &x.Needs }, checkNeed)},
		"in":      {runs, list(func(x *Item) *[]string { return &x.In }, checkPath)},
		"out":     {runs, list(func(x *Item) *[]string { return &x.Out }, checkGlob)},
		"results": {runs, list(func(x *Item) *[]string { return &x.Results }, checkGlob)},
		"timeout": {runs, duration(func(x *Item) *time.Duration { return &x.Timeout })},
		"budget":  {runs, duration(func(x *Item) *time.Duration { return &x.Budget })},
		"gold":    {[]Kind{Step}, truth(func(x *Item) *bool { return &x.Gold })},
		"network": {runs, func(x *Item, v string) error {
			switch v {
			case "true", "false", "host":
				x.Network, x.HostNetwork = v != "false", v == "host"
				return nil
			}
			return fmt.Errorf("%q is not true, false or host", v)
		}},
		"secrets": {runs, list(func(x *Item) *[]string { return &x.Secrets }, func(s string) error {
			if !secretRE.MatchString(s) {
				return fmt.Errorf("%q is not a variable such as UPLOAD_TOKEN", s)
			}
			return nil
		})},
		"retry": {runs, func(x *Item, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > 100 {
				return fmt.Errorf("%q is not a number from 0 to 100", v)
			}
			x.Retry = n
			return nil
		}},
		"again": {[]Kind{Step}, func(x *Item, v string) error {
			if v != "machine" {
				return fmt.Errorf("%q is not machine", v)
			}
			x.Again = v
			return nil
		}},
		"lost": {[]Kind{Publish}, func(x *Item, v string) error {
			if v != "ask" {
				return fmt.Errorf("%q is not ask", v)
			}
			x.Lost = v
			return nil
		}},
		"until": {[]Kind{Wait}, func(x *Item, v string) (err error) {
			x.Until, err = parseMoment(v)
			return err
		}},
		// Runme's own, which Trysail has no use for.
		"interactive":       {all, func(*Item, string) error { return nil }},
		"excludeFromRunAll": {all, func(*Item, string) error { return nil }},
	}
}

func checkPath(s string) error {
	if s == "" || path.IsAbs(s) || path.Clean(s) != s || s == ".." || strings.HasPrefix(s, "../") || strings.HasPrefix(s, "-") || strings.Contains(s, `\`) {
		return fmt.Errorf("%q is not a clean path below the workspace", s)
	}
	return nil
}

func checkGlob(s string) error {
	if err := checkPath(s); err != nil {
		return err
	}
	if !doublestar.ValidatePattern(s) || slices.Contains(strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("/{},", r) }), "..") {
		return fmt.Errorf("%q is not a glob below the workspace", s)
	}
	return nil
}

// words splits a list at its commas.
func words(v string, check func(string) error) ([]string, error) {
	var list []string
	for w := range strings.SplitSeq(v, ",") {
		w = strings.TrimSpace(w)
		if w == "" {
			return nil, fmt.Errorf("%q holds an empty item", v)
		}
		if slices.Contains(list, w) {
			return nil, fmt.Errorf("%s stands twice", w)
		}
		if err := check(w); err != nil {
			return nil, err
		}
		list = append(list, w)
	}
	return list, nil
}

// pair is one attribute as written.
type pair struct{ key, value string }

// attributes reads one flat JSON object of strings in the order it is written.
// The decoder of the standard library would take the last of two equal keys and
// hold what follows the object for another document.
func attributes(s string) ([]pair, error) {
	in := strings.NewReader(s)
	d := json.NewDecoder(in)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	var list []pair
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return nil, jsonError(err)
		}
		name := k.(string)
		if strings.ContainsFunc(name, unseen) {
			return nil, fmt.Errorf("key %q holds a character that is no text", name)
		}
		v, err := d.Token()
		if err != nil {
			return nil, jsonError(err)
		}
		value, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf(`the value of %s is not a string; write "%v" in quotation marks`, name, v)
		}
		if strings.ContainsAny(value, "{}") {
			return nil, fmt.Errorf("the value of %s holds a brace: Runme drops everything from there on", name)
		}
		if strings.Contains(value, "`") || strings.ContainsFunc(value, unseen) {
			return nil, fmt.Errorf("the value of %s holds a character that is no text: %q", name, value)
		}
		if slices.ContainsFunc(list, func(p pair) bool { return p.key == name }) {
			return nil, fmt.Errorf("key %s stands twice", name)
		}
		list = append(list, pair{name, value})
	}
	if _, err := d.Token(); err != nil {
		return nil, jsonError(err)
	}
	rest, err := io.ReadAll(io.MultiReader(d.Buffered(), in))
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("after the object stands %q, which Runme drops", strings.TrimSpace(string(rest)))
	}
	return list, nil
}

func jsonError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the object is not closed")
	}
	return fmt.Errorf("it is not JSON: %w", err)
}

// block reads a fenced block: a step if it has a name, else prose.
func (p *parser) block(n *ast.FencedCodeBlock, body []byte, offset int, phase string) {
	line := p.line(offset + n.Pos())
	p.closed(n, offset, line)
	p.swallowed(n, body, offset, line)
	if n.Info == nil {
		return
	}
	language, rest, ok := p.info(string(n.Info.Segment.Value(body)), line)
	if !ok || rest == "" {
		return // prose
	}
	const shape = `write it as {"name":"build","role":"build"}: one line of JSON, every value in quotation marks`
	list, err := attributes(rest)
	if err != nil {
		p.fail(line, shape, "attributes of the block: %v", err)
		return
	}
	x := Item{Line: line, Language: language, Kind: Step}
	known := keys()
	for _, a := range list {
		switch a.key {
		case "name":
			x.Name = a.value
		case "kind":
			x.Kind = Kind(a.value)
		}
	}
	if x.Name == "" {
		if slices.ContainsFunc(list, func(a pair) bool { return a.key != "excludeFromRunAll" && a.key != "interactive" }) {
			p.fail(line, shape, "the block has attributes and no name")
		}
		return // prose that Runme is told to pass over
	}
	if !nameRE.MatchString(x.Name) || len(x.Name) > 64 {
		p.fail(line, nameRemedy, "name %q is not usable", x.Name)
		return
	}
	if !slices.Contains([]Kind{Step, Publish, Wait}, x.Kind) {
		p.fail(line, "leave it away for a step, or write publish or wait", "kind %q is not known", x.Kind)
		return
	}
	for _, a := range list {
		k, ok := known[a.key]
		if !ok {
			p.fail(line, "the keys are "+strings.Join(keyNames(), ", "), "key %s is not known", a.key)
			continue
		}
		if !slices.Contains(k.kinds, x.Kind) {
			p.fail(line, "remove it", "a %s has no %s", x.Kind, a.key)
			continue
		}
		if err := k.set(&x, a.value); err != nil {
			p.fail(line, "see docs/runbook.md", "%s of %s: %v", a.key, x.Name, err)
		}
	}
	if x.Kind == Wait && !slices.ContainsFunc(list, func(a pair) bool { return a.key == "until" }) {
		p.newly(line, `add "until":"ship-2d", or a time`, "wait %s does not say until when", x.Name)
	}
	p.content(&x, n, body, offset)
	p.add(x, phase)
}

func keyNames() []string {
	var list []string
	for k := range keys() {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// Languages are those of a step's script, with the command that runs a file of it.
func Languages() map[string][]string {
	return map[string][]string{"sh": {"/bin/sh", "-e"}, "bash": {"/bin/bash", "-e"}, "python": {"python3"}}
}

// content reads a block's text.
func (p *parser) content(x *Item, n *ast.FencedCodeBlock, body []byte, offset int) {
	var b strings.Builder
	for i := range n.Lines().Len() {
		s := n.Lines().At(i)
		b.Write(s.Value(body))
	}
	if x.Kind == Wait {
		x.Text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(b.String()), "reason:"))
		if x.Language != "yaml" && x.Language != "text" {
			p.fail(x.Line, "write ```yaml", "a wait is not a script in %q: Runme would run it", x.Language)
		}
		return
	}
	x.Script = b.String()
	p.script(x, n, body, offset)
	if _, ok := Languages()[x.Language]; !ok {
		p.fail(x.Line, "write sh, bash or python after the fence", "no step is written in %q", x.Language)
	}
	if strings.TrimSpace(x.Script) == "" {
		p.fail(x.Line, "write what it does, or remove it", "step %s is empty", x.Name)
	}
}

// closed refuses a fence that runs to the end of the document, which every
// Markdown reader takes in silence.
func (p *parser) closed(n *ast.FencedCodeBlock, offset, line int) {
	_, rest, _ := bytes.Cut(p.data[offset+n.Pos():], []byte("\n"))
	if k := n.Lines().Len(); k > 0 {
		rest = p.data[offset+n.Lines().At(k-1).Stop:]
	}
	end, _, _ := bytes.Cut(rest, []byte("\n"))
	if fence(end) == "" {
		p.fail(line, "end it with a line of ```", "the block is never closed: everything after it would be part of it")
	}
}
