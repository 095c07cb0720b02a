package runbook

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestAttackTextsWithoutEnd: the author of a runbook writes some kilobytes that a parser reads
// for hours, or that fill the memory, in control and in verify.
func TestAttackTextsWithoutEnd(t *testing.T) {
	const book = "---\nroles:\n  host: {plain: true}\n---\n## Build\n\n```sh {\"name\":\"build\"}\ntrue\n```\n\n"
	row := func(cell string, n int) string { return "|" + strings.Repeat(cell+"|", n) + "\n" }
	const size = 600_000
	for _, x := range []struct{ name, body, what string }{
		{"a table of thousands of columns", row("a", 20_000) + row("-", 20_000) + strings.Repeat("|a\n", size/3), "too many cells"},
		{"such a table in a quotation", "> " + row("a", 5000) + "> " + row(":-:", 5000) + strings.Repeat("> |\n", 5000), "too many cells"},
		{"tables", strings.Repeat(row("a", 100)+row("-", 100)+strings.Repeat("b\n", 100)+"\n", 100), "too many cells"},
		{"links that do not end", strings.Repeat("[](", size/3), "too many brackets"},
		{"emphasis that does not end", strings.Repeat("*a_", size/3), "too many brackets"},
		{"the same on lines of their own", strings.Repeat("[a *b\n", size/6), "too many brackets"},
		{"definitions", strings.Repeat("[a]: b\n", size/7), "too many brackets"},
		{"quotations in quotations", strings.Repeat(">", size), "levels"},
		{"lists in lists", strings.Repeat("+ ", size/2) + "a", "levels"},
		{"numbers in numbers", strings.Repeat("1. ", size/3) + "a", "levels"},
		{"lists below lists", func() string {
			var b strings.Builder
			for i := range 300 {
				b.WriteString(strings.Repeat("  ", i) + "- a\n")
			}
			return b.String()
		}(), "levels"},
		{"a large table", row("a", 10) + row("-", 10) + strings.Repeat(row("[`a`](b)", 10), 2000), ""},
		{"a long list", strings.Repeat("- **a** [b](c) `d`\n", 5000), ""},
		{"a long line of dashes, and stars", strings.Repeat("-", 500) + "\n\n" + strings.Repeat("* ", 50) + "\n", ""},
		{"a script of brackets", "```sh\n" + strings.Repeat("[[ $a_b == *c* ]] | d\n", 5000) + "```\n", ""},
		{"some levels", strings.Repeat("> ", 20) + "a\n\n- a\n  - b\n    - c\n", ""},
	} {
		at := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := Parse("RELEASE.md", []byte(book+x.body+"\n"), time.LoadLocation)
			done <- err
		}()
		var err error
		select {
		case err = <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: it is read for %s", x.name, time.Since(at))
		}
		var list Errors
		if errors.As(err, &list) != (x.what != "") || x.what != "" && (!strings.Contains(err.Error(), x.what) || list[0].Line < 1 || list.Hint() == "") {
			t.Errorf("%s: %.200v", x.name, err)
		}
	}
}
