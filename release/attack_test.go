package release

import (
	"strings"
	"testing"
	"unicode"
)

// TestAttackReportOnATerminal: a person gives a reason that moves the cursor and turns text
// around, and another one looks at report.md with cat.
func TestAttackReportOnATerminal(t *testing.T) {
	r := &Retrospective{Version: "4.2", Outcome: "aborted", Why: "\x1b]0;title\x07\x1b[2Jnever \u202emind | <b>\nnext"}
	for _, c := range r.Markdown() {
		if c != '\n' && (unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c)) {
			t.Fatalf("the report has %q", c)
		}
	}
	if page, err := r.HTML(); err != nil || strings.Contains(string(page), "<b>") {
		t.Errorf("%v: the page has tags that a person typed", err)
	}
}
