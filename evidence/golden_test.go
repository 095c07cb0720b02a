package evidence

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/release"
	"trysail/runbook"
)

var (
	goldenUpdate = flag.Bool("update-golden", false, "write what verify says of the bundles in testdata")
	goldenWrite  = flag.Bool("write-golden", false, "write a bundle of the rules of now, if there is none")
)

// A bundle of each version of the rules, made by the tests of that time, still verifies, and
// what is said of it does not change.
func TestGoldenBundles(t *testing.T) {
	if *goldenWrite {
		writeGolden(t)
	}
	dirs, err := filepath.Glob(filepath.Join("testdata", "rules-*"))
	if err != nil || len(dirs) != release.RulesNow+1 {
		t.Fatalf("%d bundles, and rules 0 to %d (%v): go test ./evidence -run TestGoldenBundles -write-golden -update-golden", len(dirs), release.RulesNow, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r := Verify(os.DirFS(filepath.Join(dir, "bundle")), Trust{})
			if !r.Verified {
				t.Errorf("it does not verify any more: %q", r.Problems)
			}
			got, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			said := filepath.Join(dir, "verify.json")
			if *goldenUpdate {
				if err := os.WriteFile(said, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(said)
			if err != nil || string(want) != string(got)+"\n" {
				t.Errorf("verify said (%v)\n%s\nand says\n%s", err, want, got)
			}
		})
	}
}

// goldenBook is the runbook of the bundles that are written.
func goldenBook() string {
	doc := strings.Replace(document, "## Diligence", "```sh {\"name\":\"suite\",\"needs\":\"compile\",\"budget\":\"10m\",\"results\":\"r/*.xml\"}\nmake check\n```\n\n## Diligence", 1)
	doc = strings.Replace(doc, "\"needs\":\"compile\",\"in\"", "\"needs\":\"suite\",\"in\"", 1)
	return strings.Replace(doc, "(2 of @qa, budget 2h", "(2 of @qa, 1 of @law, budget 2h", 1)
}

// writeGolden writes the bundle of a release in which much happened. The bundles of rules 0
// to 2 were written so by the code of their time.
func writeGolden(t *testing.T) {
	t.Helper()
	dir := filepath.Join("testdata", fmt.Sprintf("rules-%d", release.RulesNow), "bundle")
	if _, err := os.Stat(dir); err == nil {
		t.Fatalf("%s is there: old bundles stay as they are", dir)
	}
	x := newStory(t, "4.2")
	doc := strings.Replace(goldenBook(), "groups:\n", "groups:\n  law: [eve]\n", 1)
	r, err := runbook.Parse("RELEASE.md", []byte(doc), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	b := release.Begin(r, x.version)
	b.Runbook, b.Named, b.Rules, b.Machines, b.Signers = x.blob(doc), r.Ship, release.RulesNow, []release.Machine{{Role: "host"}}, x.blob(x.allowed)
	b.Source = release.Source{VCS: "git", URL: "https://example.org/app.git", Revision: strings.Repeat("ab", 20), Original: x.blob("source"), Author: "kim@example.org"}
	x.must(b)
	x.decide(release.Aborted{Reason: "it began too early", Person: "ann"})
	x.must(b)
	x.sign("legal", "eve", release.Reject)
	x.decide(release.Withdrawn{Item: "legal", Person: "eve", Reason: "the licence was changed"})
	x.sign("legal", "eve", release.Approve)
	x.run("compile", "a", "obj/a", "object")
	x.amendBook(strings.Replace(doc, "licences", "licences of all parts", 1), nil)
	seq := x.decide(release.Amended{What: []string{"source"}, Source: &release.Source{VCS: "git", URL: "https://example.org/app.git", Revision: strings.Repeat("cd", 20), Original: x.blob("other"), Author: "zed@example.org"}, Reason: "a mistake", By: "ann"})
	x.decide(release.Agreed{Amendment: seq, Person: "bob", Decision: release.Approve, Reason: "it is mended"})
	epoch := x.must(release.Granted{Item: "compile", Machine: "a"})
	x.must(release.Lost{Item: "compile", Epoch: epoch, Machine: "a", Why: "no heartbeat"})
	x.run("compile", "b", "obj/a", "object 2")
	epoch = x.must(release.Granted{Item: "suite", Machine: "b"})
	x.must(release.Finished{Item: "suite", Epoch: epoch, Status: 1, Failing: []string{"slow"}, Tests: 7, Log: x.blob("log of suite"), Took: time.Minute})
	x.decide(release.Waived{Item: "suite", Test: "slow", Person: "ann", Reason: "the machine is slow"})
	x.run("gold", "b", "dist/app", "the program")
	x.secondFails("a", 2, "no disk")
	x.second("a", release.Equivalent, "dist/app: time")
	x.decide(release.Excepted{Person: "bob", Differences: []string{"dist/app: time"}, Reason: "only the time differs"})
	x.sign("legal", "eve", release.Approve)
	x.sign("tried", "ann", release.Approve)
	x.sign("tried", "bob", release.ApproveExcept)
	x.sign("tried", "eve", release.Approve)
	x.must(release.Shipped{})
	for name, f := range x.bundle() {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
