package agent

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/compare"
	"trysail/release"
)

// outputsOf writes files and gives them as a build's outputs. A value that begins
// with "-> " is a link.
func outputsOf(t *testing.T, files map[string]string) ([]blueprint.Output, compare.Open) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(files[name], "-> "); link {
			err = os.Symlink(to, p)
		} else {
			err = os.WriteFile(p, []byte(files[name]), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := build.Outputs(dir, []string{"**"})
	if err != nil {
		t.Fatal(err)
	}
	return list, compare.In(dir)
}

// TestJudge: gold may differ from what this machine made where the build differs
// from itself, and nowhere else.
func TestJudge(t *testing.T) {
	type files = map[string]string
	const head = "built at 12:00:0"
	many := func(digit string) files {
		f := files{}
		for i := range mostNamed + 1 {
			f[fmt.Sprintf("f%03d", i)] = fmt.Sprintf("file %d at 12:00:0%s\n", i, digit)
		}
		return f
	}
	for _, c := range []struct {
		name              string
		made, again, gold files
		want              release.Verdict
		say               []string // parts of the differences, in order
	}{
		{"the same", files{"a": head + "1"}, files{"a": head + "2"}, files{"a": head + "1"}, release.Identical, nil},
		{
			"a time stamp",
			files{"a": head + "1\n"},
			files{"a": head + "2\n"},
			files{"a": head + "3\n"},
			release.Equivalent,
			[]string{"a: line 1: “built at 12:00:03” instead of “built at 12:00:01” (time stamp)"},
		},
		{
			"a time stamp, which this machine makes the same twice",
			files{"a": head + "1\n"},
			files{"a": head + "1\n"},
			files{"a": head + "3\n"},
			release.Different,
			[]string{"the build does not differ from itself in this"},
		},
		{
			"a time stamp, and a host",
			files{"a": head + "1\non b\n"},
			files{"a": head + "2\non b\n"},
			files{"a": head + "3\non a\n"},
			release.Different,
			[]string{"a: line 2: “on a", "a: line 1:"},
		},
		{
			"one file is never the same, another is this machine's",
			files{"a": head + "1\n", "b": "x\n"},
			files{"a": head + "2\n", "b": "x\n"},
			files{"a": head + "3\n", "b": "y\n"},
			release.Different,
			[]string{"b: line 1", "a: line 1"},
		},
		{"gold has more", files{"a": "1"}, files{"a": "1"}, files{"a": "1", "b": "2"}, release.Different, []string{"b: only gold has it"}},
		{"gold has less", files{"a": "1", "b": "2"}, files{"a": "1", "b": "2"}, files{"a": "1"}, release.Different, []string{"b: gold has it not"}},
		{"a file that is not always made", files{"a": "1", "b": "2"}, files{"a": "1"}, files{"a": "1"}, release.Equivalent, []string{"b: gold has it not"}},
		{"another link", files{"a": "1", "l": "-> a"}, files{"a": "1", "l": "-> a"}, files{"a": "1", "l": "-> /a"}, release.Different, []string{"l: links to /a instead of a"}},
		{"a name with the day in it", files{"n-20261124T101112": "x"}, files{"n-20261124T101113": "x"}, files{"n-20261124T101114": "x"}, release.Equivalent, []string{"named n-20261124T101114"}},
		{"too many to name", many("1"), many("2"), many("3"), release.Different, []string{"f000: line 1", "and 1 more differences, too many to name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := builds{scratch: t.TempDir()}
			b.made, b.openMade = outputsOf(t, c.made)
			b.again, b.openAgain = outputsOf(t, c.again)
			b.gold, b.openGold = outputsOf(t, c.gold)
			v, list, err := b.judge(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if v != c.want || len(list) > mostNamed+1 {
				t.Errorf("%s, want %s: %q", v, c.want, list)
			}
			at := 0
			for _, d := range list {
				if at < len(c.say) && strings.Contains(d, c.say[at]) {
					at++
				}
			}
			if at < len(c.say) || (len(c.say) == 0) != (len(list) == 0) {
				t.Errorf("it says %q, want %q", list, c.say)
			}
		})
	}
}

func TestNamed(t *testing.T) {
	for in, want := range map[[3]string]string{
		{"a", "what", "why"}:                     "a: what (why)",
		{"a\nb\x1b[2J\u202e", "w", ""}:           "a\ufffdb\ufffd[2J\ufffd: w",
		{strings.Repeat("é", 300), "", ""}:       strings.Repeat("é", 200) + "…",
		{"a" + strings.Repeat("é", 300), "", ""}: "a" + strings.Repeat("é", 199) + "…",
	} {
		got := named(nil, in[0], in[1], in[2])
		if got != want || !utf8.ValidString(got) {
			t.Errorf("%q is named %q, not %q", in, got, want)
		}
	}
}

// TestSecondBuildsOtherProperties: gold that has another owner, hard link or attribute than the
// second build is not identical, and the difference is named. Another time is no difference.
func TestSecondBuildsOtherProperties(t *testing.T) {
	outputs, open := outputsOf(t, map[string]string{"app": "x"})
	base := release.Artifact{Path: "app", Digest: outputs[0].SHA256, Size: 1, Mode: "0644"}
	for name, x := range map[string]struct {
		change func(*release.Artifact)
		want   string // of the difference; "": they are the same
	}{
		"nothing":      {func(*release.Artifact) {}, ""},
		"a time":       {func(a *release.Artifact) { a.Modified = time.Unix(1, 5).UTC() }, ""},
		"an owner":     {func(a *release.Artifact) { a.Owner = "33:34" }, "app: owner 33:34 instead of no owner"},
		"a hard link":  {func(a *release.Artifact) { a.HardLink = "aaa" }, "app: hard link to aaa instead of"},
		"a capability": {func(a *release.Artifact) { a.Attributes = map[string][]byte{"security.capability": {1, 2}} }, "app: attribute security.capability=0102 instead of"},
	} {
		gold := base
		x.change(&gold)
		if same := sameArtifact(base, gold); same != (x.want == "") {
			t.Errorf("%s: the same: %v", name, same)
		}
		b := builds{
			scratch: t.TempDir(), made: outputs, again: outputs, gold: outputs, openMade: open, openAgain: open, openGold: open,
			madeProperties: allProperties([]release.Artifact{base}), goldProperties: allProperties([]release.Artifact{gold}),
		}
		verdict, list, err := b.judge(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if x.want == "" && verdict != release.Identical || x.want != "" && (verdict != release.Different || len(list) != 1 || !strings.HasPrefix(list[0], x.want)) {
			t.Errorf("%s: %s, %q", name, verdict, list)
		}
	}
}
