package drill

import (
	"os"
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
	ok := Followed{Part: 1, Title: "a", Took: time.Minute}
	stumbled, gaveUp := ok, ok
	stumbled.Stumbles, gaveUp.GaveUp = []string{"no zstd here"}, true
	for _, x := range []struct {
		what  string
		parts int
		list  []Followed
		value Value
		words string
	}{
		{"to its end", 2, []Followed{ok, ok}, Pass, "in 2m00s by hand (measured)"},
		{"a stumble", 2, []Followed{ok, stumbled}, Fail, "stumbled 1 time(s)"},
		{"broken off", 2, []Followed{ok}, Unknown, "1 of 2 parts"},
		{"broken off after a stumble", 2, []Followed{stumbled}, Fail, "stumbled 1 time(s)"},
		{"given up", 2, []Followed{ok, gaveUp}, Fail, "given up at \"a\""},
		{"not begun", 2, nil, Unknown, "0 of 2"},
	} {
		v := JudgeByHand(x.parts, x.list)
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
		}
	})
}
