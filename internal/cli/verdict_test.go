package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"trysail/blueprint"
	"trysail/internal/rebuild"
)

// TestEquivalent: the verdict says where and why in a few words, and is a yes
// only for those who accept it.
func TestEquivalent(t *testing.T) {
	r := func() *result {
		return &result{Verdict: rebuild.Equivalent, Outputs: []rebuild.OutputProof{
			{Path: "dist/a.tar", Equivalent: true, Differences: []blueprint.Difference{
				{Path: "dist/a.tar!x", What: "time 2 instead of 1", Cause: "time stamp"},
				{Path: "dist/a.tar!x", What: "line 1: 2 instead of 1", Cause: "time stamp"},
				{Path: "dist/a.tar!y", What: "time 2 instead of 1", Cause: "time stamp"},
				{Path: "dist/a.tar!z [.note.gnu.build-id]", What: "another value", Cause: "build id"},
			}},
			{Path: "dist/b", Identical: true},
		}}
	}
	for _, accept := range []string{"", "equivalent"} {
		var out, errOut bytes.Buffer
		a := &app{stdout: &out, stderr: &errOut, ui: newUI(&errOut, false)}
		err := a.verdict(r(), accept)
		var no answerNo
		if errors.As(err, &no) != (accept == "") || (err != nil) != (accept == "") {
			t.Errorf("accept %q: %v", accept, err)
		}
		for _, want := range []string{
			"equivalent    dist/a.tar", "dist/a.tar!x: line 1: 2 instead of 1 (time stamp)", "identical    dist/b",
			"only where the captured one differs from itself (time stamp in dist/a.tar!x and 1 more, build id in dist/a.tar!z [.note.gnu.build-id])",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is not in:\n%s", want, out.String())
			}
		}
	}
}
