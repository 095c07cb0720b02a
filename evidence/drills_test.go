package evidence

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const ranDrill = "two-servers-lost-20261125-233653"

// drilled adds a drill as it was run.
func drilled(t testing.TB, b fstest.MapFS) {
	t.Helper()
	for _, name := range []string{scenarioFile, recordFile} {
		data, err := os.ReadFile("../drill/testdata/two-servers-lost/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b["drill/"+ranDrill+"/"+name] = &fstest.MapFile{Data: data}
	}
}

// TestDrills: a drill in a bundle is judged again, and what it says of the release is
// told; one that cannot be judged is no evidence.
func TestDrills(t *testing.T) {
	x := newStory(t, "4.2")
	x.ship()
	b := x.bundle()
	drilled(t, b)
	const dir = "drill/" + ranDrill + "/"
	for _, c := range []struct {
		what      string
		change    func(fstest.MapFS)
		verdict   string
		problem   string
		attention string
	}{
		{"as it was", func(fstest.MapFS) {}, "pass", "", "rehearsed no build server of this release"},
		{"without its end", func(b fstest.MapFS) {
			lines := strings.SplitAfter(string(b[dir+recordFile].Data), "\n")
			b[dir+recordFile] = &fstest.MapFile{Data: []byte(strings.Join(lines[:len(lines)/2], ""))}
		}, "unknown", "", "came to unknown"},
		{"no record", func(b fstest.MapFS) { delete(b, dir+recordFile) }, "", "", "drill " + ranDrill + " cannot be judged: history.jsonl is not there"},
		{"a line left out", func(b fstest.MapFS) {
			lines := strings.SplitAfter(string(b[dir+recordFile].Data), "\n")
			b[dir+recordFile] = &fstest.MapFile{Data: []byte(strings.Join(slices.Delete(lines, 5, 6), ""))}
		}, "", "", "cannot be judged: history, line 6"},
		{"another scenario", func(b fstest.MapFS) {
			b[dir+scenarioFile] = &fstest.MapFile{Data: append([]byte("# easier\n"), b[dir+scenarioFile].Data...)}
		}, "", "is not the scenario that was run", ""},
		{"no scenario", func(b fstest.MapFS) { delete(b, dir+scenarioFile) }, "", "", "cannot be judged: scenario.yaml is not there"},
		{"nonsense", func(b fstest.MapFS) { b[dir+scenarioFile] = &fstest.MapFile{Data: []byte("x: [")} }, "", "", "cannot be judged: " + dir + scenarioFile},
		{"a record without end", func(b fstest.MapFS) {
			b[dir+recordFile] = &fstest.MapFile{Data: bytes.Repeat([]byte("{\"seq\":1}\n"), 1<<19)}
		}, "", "", "history.jsonl has more than 4 MB"},
		{"a record of nothing", func(b fstest.MapFS) {
			b[dir+recordFile] = &fstest.MapFile{Data: bytes.Repeat([]byte("\n"), 1<<20)}
		}, "", "", "its record has 1048576 lines"},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := copied(b)
			c.change(b)
			x.resum(b)
			r := Verify(b, x.trust())
			if said := problems(r); r.Verified != (c.problem == "") || !strings.Contains(said, c.problem) {
				t.Errorf("verified: %v: %s", r.Verified, said)
			}
			if said := strings.Join(r.Attention, "\n"); !strings.Contains(said, c.attention) {
				t.Errorf("attention: %s", said)
			}
			switch {
			case c.verdict == "" && len(r.Drills) != 0:
				t.Errorf("judged: %+v", r.Drills)
			case c.verdict != "" && (len(r.Drills) != 1 || r.Drills[0].Verdict != c.verdict || r.Drills[0].Run != ranDrill || r.Drills[0].Began != "2026-11-25T23:36:53Z"):
				t.Errorf("judged: %+v", r.Drills)
			}
		})
	}
}
