package control

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/internal/api"
	"trysail/release"
)

// TestResults: control takes a result that is within its limits, and keeps the list of many
// files in its depot. A step whose result it can never take fails at once, with the reason,
// and its machine is told that no other try helps.
func TestResults(t *testing.T) {
	c := station(t, "a")
	one, err := c.o.Depot.PutBytes(t.Context(), []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	files := func(n int) (list []release.Artifact) {
		for i := range n {
			list = append(list, release.Artifact{Path: fmt.Sprintf("dist/%06d", i), Digest: one, Size: 3, Mode: "0644"})
		}
		return list
	}
	listed := func(n int) release.Finished {
		var b bytes.Buffer
		m, err := release.WriteList(&b, files(n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.o.Depot.PutBytes(t.Context(), b.Bytes()); err != nil {
			t.Fatal(err)
		}
		return release.Finished{List: release.List{Tree: m.Tree, Files: m.Files, Bytes: m.Bytes, First: m.First}}
	}
	blob := func(text string) release.Finished {
		dg, err := c.o.Depot.PutBytes(t.Context(), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return release.Finished{List: release.List{Tree: dg, Files: 1, First: []string{"a"}}}
	}
	with := func(f release.Finished, do func(*release.Finished)) release.Finished { do(&f); return f }
	gone := "sha256:" + strings.Repeat("0", 64)
	for i, x := range []struct {
		what string
		f    release.Finished
		why  string // "": it is taken
		tree bool
	}{
		{"none", release.Finished{}, "", false},
		{"few", release.Finished{Outputs: files(3)}, "", false},
		{"7,000 in a list", listed(7000), "", true},
		{"the same again", listed(7000), "", true},
		{"7,000 one by one, as agents of before send them", release.Finished{Outputs: files(7000)}, "", true},
		{"100,000 in a list", listed(100_000), "", true},
		{"a name with control characters", release.Finished{Outputs: []release.Artifact{{Path: "a\nb", Digest: one, Size: 3, Mode: "0644"}}}, "", false},
		{"a failure, whatever it made", release.Finished{Exit: 2, Status: 2, Why: "exit status 2"}, "", false},
		{"a file that is not there", release.Finished{Outputs: []release.Artifact{{Path: "a", Digest: gone, Size: 3, Mode: "0644"}}}, `output "a" (` + gone + ") is not in the depot", false},
		{"a list that is not there", release.Finished{List: release.List{Tree: gone, Files: 1}}, "list of its files", false},
		{"a list of something else", blob("hello\n"), "line 1 of the list of files", false},
		{"a list of a file that is not there", blob(`{"path":"a","digest":"` + gone + `","size":0,"mode":"0644"}` + "\n"), "is not in the depot", false},
		{"a list of a file outside", blob(`{"path":"../a","digest":"` + one + `","size":0,"mode":"0644"}` + "\n"), "leaves its directory", false},
		{"other counts than the list", with(listed(300), func(f *release.Finished) { f.Files++ }), "and not 301", false},
		{"other bytes than the list", with(listed(7000), func(f *release.Finished) { f.Bytes = 1 }), "of 1", false},
		{"a list and files", with(listed(300), func(f *release.Finished) { f.Outputs = files(1) }), "names its files and a list", false},
		{"no digest", release.Finished{List: release.List{Tree: "sha256:1", Files: 1}}, "is not in the depot", false},
		{"a log that is not there", release.Finished{Log: gone}, "its log", false},
		{"a log that is none", release.Finished{Log: "../x"}, "its log", false},
		{"too many failing tests", release.Finished{Status: 1, Tests: 1, Failing: []string{strings.Repeat("x", 10_001)}}, "10000 is the most", false},
		{"too many files", release.Finished{List: release.List{Tree: gone, Files: 1_000_001}}, "1000000 is the most", false},
		{"a long reason", release.Finished{Exit: 1, Why: strings.Repeat("x", 30_000)}, "its reason has 30000 bytes", false},
		{"names that no event holds", release.Finished{Status: 1, Tests: 9, Failing: []string{strings.Repeat("\x01", 9000)}, Outputs: nil, Root: strings.Repeat("x", 101)}, "its reason", false},
	} {
		version := fmt.Sprintf("1.%d", i)
		started(t, c, version)
		x.f.Item, x.f.Epoch = "build", granted(t, c, version, "a")
		head := c.state(version).Head
		for range 2 { // its answer may be lost
			in := map[string]any{"release": version, "report": release.Report{Finished: x.f}}
			_, err := c.report(t.Context(), &caller{machine: "a"}, httptest.NewRequest(http.MethodPost, "/", sent(t, in)))
			if x.why == "" && err != nil {
				t.Errorf("%s: %v", x.what, err)
			}
			if x.why != "" && err != nil {
				w := httptest.NewRecorder()
				c.fail(w, httptest.NewRequest(http.MethodPost, "/", nil), err)
				if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), `"code":"`+api.Unfit) || !strings.Contains(err.Error(), x.why) {
					t.Errorf("%s: %d %s", x.what, w.Code, w.Body)
				}
			}
		}
		st := c.state(version)
		r := st.Progress["build"].Result
		if st.Progress["build"].Lease != nil || st.Head != head+1 || r == nil || (r.Tree != "") != x.tree || (x.why != "") != (r.Exit == 1 && strings.Contains(r.Why, x.why)) {
			t.Errorf("%s: %d events, result %+v", x.what, st.Head-head, r)
		}
		if x.tree && (r.Files < 7000 || r.Files != st.Made("build").Files || c.lacks(r.Tree)) {
			t.Errorf("%s: %+v", x.what, r)
		}
	}
	c.nameLists(t.Context())
	for version, want := range map[string]int{"1.2": 7001, "1.4": 7001, "1.5": 100_001} {
		ref, err := c.o.Depot.Resolve(t.Context(), "release/"+plainName(version)+"/build")
		if err != nil || len(ref.Items) != want {
			t.Errorf("%s: the depot keeps %v (%v)", version, ref, err)
		}
	}
}

// TestListIsLost: a file of a list that the depot lost is missed, asked for, and given to no
// step before it is there again.
func TestListIsLost(t *testing.T) {
	c := station(t, "a")
	started(t, c, "1.0")
	var list []release.Artifact
	for i := range 300 {
		dg, err := c.o.Depot.PutBytes(t.Context(), fmt.Appendf(nil, "%d", i))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, release.Artifact{Path: fmt.Sprintf("dist/%03d", i), Digest: dg, Size: int64(len(fmt.Sprint(i))), Mode: "0644"})
	}
	r := release.Report{Finished: release.Finished{Item: "build", Epoch: granted(t, c, "1.0", "a"), Outputs: list}}
	if _, err := c.report(t.Context(), &caller{machine: "a"}, httptest.NewRequest(http.MethodPost, "/", sent(t, map[string]any{"release": "1.0", "report": r}))); err != nil {
		t.Fatal(err)
	}
	tree := c.state("1.0").Made("build").Tree
	if got := c.missing(t.Context(), true); len(got) > 0 || c.lacks(tree) {
		t.Fatalf("missing %q", got)
	}
	lost := list[7].Digest
	if err := lose(c, lost); err != nil {
		t.Fatal(err)
	}
	c.lists.doubt() // somebody asked for it
	if got := c.missing(t.Context(), true); len(got) != 1 || got[0] != lost || !c.lacks(tree) {
		t.Errorf("missing %q, lacks it: %v", got, c.lacks(tree))
	}
	if _, err := c.o.Depot.PutBytes(t.Context(), []byte("7")); err != nil {
		t.Fatal(err)
	}
	if got := c.missing(t.Context(), true); len(got) > 0 || c.lacks(tree) {
		t.Errorf("missing %q, lacks it: %v", got, c.lacks(tree))
	}
	if err := lose(c, tree); err != nil {
		t.Fatal(err)
	}
	c.lists.doubt()
	if got := c.missing(t.Context(), true); len(got) != 1 || got[0] != tree || !c.lacks(tree) {
		t.Errorf("missing %q, lacks it: %v", got, c.lacks(tree))
	}
}

// TestTooLarge: what no event can hold is refused as such, whoever asks.
func TestTooLarge(t *testing.T) {
	c := station(t, "a")
	started(t, c, "1.0")
	_, err := c.update(t.Context(), "1.0", "test", func(*release.State) (release.Body, error) {
		return release.Held{Reason: strings.Repeat("x", 1<<20)}, nil
	})
	w := httptest.NewRecorder()
	c.fail(w, httptest.NewRequest(http.MethodPost, "/", nil), err)
	if err == nil || w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), api.Unfit) || c.state("1.0").Phase == release.Holding {
		t.Errorf("%v: %d %s", err, w.Code, w.Body)
	}
}

func lose(c *Control, dg string) error {
	return os.Remove(filepath.Join(c.o.Depot.Dir(), "blobs", "sha256", strings.TrimPrefix(dg, "sha256:")))
}
