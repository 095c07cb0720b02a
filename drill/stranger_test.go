package drill

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParts(t *testing.T) {
	list, err := Parts("# Rebuild\n\nBegin here.\n\n```sh\nset -eu\n```\n\n## 1. Check\n\nText.\n\n```text\nno commands\n```\nMore.\n\n````sh\ncat <<'X'\n```\nX\n````\n")
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	if p := list[0]; p.Title != "Rebuild" || p.Text != "Begin here." || p.Code != "set -eu" || p.Line != 6 {
		t.Errorf("%+v", p)
	}
	if p := list[1]; p.Title != "1. Check" || p.Text != "More." || p.Code != "cat <<'X'\n```\nX" || p.Line != 19 {
		t.Errorf("%+v", p)
	}
	list, err = Parts("```sh\n# what it is for\nset -eu\nfor x in a b; do\n\techo $x\ndone\ncat <<'X' >f\nset -eu\nX\n\nplace() {\n\tmkdir $1\n}; place a\nlong \\\n\tcommand\n```\n")
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	want := []Command{{"# what it is for\nset -eu", 2}, {"for x in a b; do\n\techo $x\ndone", 4}, {"cat <<'X' >f\nset -eu\nX", 7}, {"place() {\n\tmkdir $1\n}; place a", 11}, {"long \\\n\tcommand", 14}}
	if !slices.Equal(list[0].Commands, want) {
		t.Errorf("%+v", list[0].Commands)
	}
	for _, bad := range []string{"", "# Nothing\n", "```sh\nset -eu\n", "```text\nx\n```\n"} {
		if list, err := Parts(bad); err == nil {
			t.Errorf("%q has %+v", bad, list)
		}
	}
	// What rebuild writes for people is read whole.
	data, err := os.ReadFile("../blueprint/testdata/REBUILD.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err = Parts(string(data))
	if err != nil || len(list) != strings.Count("\n"+string(data), "\n```sh\n") || len(list) < 5 {
		t.Errorf("%d parts, %v", len(list), err)
	}
}

func TestJudgeByHand(t *testing.T) {
	ok := Followed{Title: "a", Line: 7, Took: time.Minute}
	stumbled, gaveUp := ok, ok
	stumbled.Stumbles, gaveUp.GaveUp = []string{"no zstd here"}, true
	for _, x := range []struct {
		what  string
		parts int
		list  []Followed
		value Value
		words string
	}{
		{"to its end", 2, []Followed{ok, ok}, Pass, "in 2 min by hand (measured)"},
		{"a stumble", 2, []Followed{ok, stumbled}, Fail, "stumbled 1 time(s)"},
		{"broken off", 2, []Followed{ok}, Unknown, "1 of 2 commands"},
		{"broken off after a stumble", 2, []Followed{stumbled}, Fail, "stumbled 1 time(s)"},
		{"given up", 2, []Followed{ok, gaveUp}, Fail, "given up at \"a\""},
		{"not begun", 2, nil, Unknown, "0 of 2"},
	} {
		v := JudgeByHand(x.parts, x.list, Mender{"run", "ann", "2026-12-01"})
		if (v.Verdict == Fail) != (len(v.Issues) > 0) {
			t.Errorf("%s: %s, and issues %v", x.what, v.Verdict, v.Issues)
		}
		for _, i := range v.Issues {
			if i.ID != "run/1" || !strings.HasPrefix(i.What, "line 7 (a): ") || i.Owner != "ann" || i.Due != "2026-12-01" {
				t.Errorf("%s: %+v", x.what, i)
			}
		}
		if v.Verdict != x.value || !strings.Contains(v.Sentence(), x.words) {
			t.Errorf("%s: %s: %s", x.what, v.Verdict, v.Sentence())
		}
	}
}

func FuzzParts(f *testing.F) {
	f.Add("# a\n```sh\nb\n```\n")
	f.Fuzz(func(t *testing.T, document string) {
		list, err := Parts(document)
		if err != nil {
			return
		}
		for _, p := range list {
			if p.Line < 1 || !strings.Contains(document, p.Code) {
				t.Errorf("%+v is not in the document", p)
			}
			// Nothing of a block is left out, and nothing comes twice.
			whole := ""
			for _, c := range p.Commands {
				whole += c.Code
			}
			if strings.ReplaceAll(whole, "\n", "") != strings.ReplaceAll(p.Code, "\n", "") {
				t.Errorf("%q became %+v", p.Code, p.Commands)
			}
		}
	})
}
