package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

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

// TestSurvives: the verdict says on what it hangs, and what is wrong with that.
func TestSurvives(t *testing.T) {
	day := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	whole := func(name, expires string) blueprint.LiveDependency {
		return blueprint.LiveDependency{Name: name, Kind: "tcp", Address: name + ":1", Owner: "ops", Expires: expires, Fallback: "the key in the safe"}
	}
	proposed := blueprint.LiveDependency{Name: "a", Kind: "tcp", Address: "a:1", Proposed: true}
	for _, c := range []struct {
		name string
		list []blueprint.LiveDependency
		want string
	}{
		{"none", nil, "of machine time."},
		{"one", []blueprint.LiveDependency{whole("LIC01", "2028-01-01")}, "of machine time. But only if LIC01 survives."},
		{"one, after a proposed one", []blueprint.LiveDependency{proposed, whole("LIC01", "")}, "But only if LIC01 survives. 1 thing to look at: a:1."},
		{"two", []blueprint.LiveDependency{whole("DONGLE", ""), whole("LIC01", "")}, "But only if DONGLE and LIC01 survive."},
		{"three", []blueprint.LiveDependency{whole("DONGLE", ""), whole("HSM", ""), whole("LIC01", "")}, "But only if DONGLE, HSM and LIC01 survive."},
		{"expired", []blueprint.LiveDependency{whole("LIC01", "2026-11-23")}, "But only if LIC01 survives. 1 thing to look at: LIC01."},
		{"last day", []blueprint.LiveDependency{whole("LIC01", "2026-11-24")}, "But only if LIC01 survives. 1 thing to look at: LIC01."},
		{"nobody's", []blueprint.LiveDependency{{Name: "LIC01", Kind: "tcp", Address: "x:1"}}, "But only if LIC01 survives. 1 thing to look at: LIC01."},
	} {
		r := &result{Verdict: rebuild.Identical}
		for _, l := range c.list {
			r.permits.Allow = append(r.permits.Allow, l.Permission())
		}
		r.live(c.list, day)
		if s := r.sentence(); !strings.HasSuffix(s, c.want) {
			t.Errorf("%s: %s\nwant …%s", c.name, s, c.want)
		}
	}
	r := &result{}
	r.live([]blueprint.LiveDependency{whole("LIC01", "2026-11-23")}, day)
	if at := r.Attention[0]; !strings.Contains(at.Why, "expired on 2026-11-23") || !strings.Contains(at.Remedy, "ask ops") || !strings.Contains(at.Remedy, "the key in the safe") {
		t.Errorf("%+v", at)
	}
	r = &result{Verdict: rebuild.Identical}
	r.live([]blueprint.LiveDependency{whole("LIC01", "")}, day)
	if s := r.sentence(); strings.Contains(s, "survive") || len(r.Attention) != 1 || !strings.Contains(r.Attention[0].Remedy, "--allow tcp=LIC01:1") {
		t.Errorf("not permitted: %s %+v", s, r.Attention)
	}
}
