package evidence

import (
	"strings"
	"testing"

	"trysail/release"
	"trysail/runbook"
)

// TestBrief: a person who signs reads five lines first, and they say what is signed.
func TestBrief(t *testing.T) {
	file := release.Artifact{Path: "dist/app", Digest: "sha256:aa", Size: 12}
	state := func(change func(*release.State)) *release.State {
		s := release.Empty()
		s.Started.Version, s.Source.Revision = "1.0", "4f2"
		s.People = []release.Person{{Name: "bob", Full: "Bob Example"}}
		s.Machines = []release.Machine{{Role: "build", Blueprint: "sha256:b", Name: "debian"}, {Role: "host"}}
		s.Items = []runbook.Item{
			{Name: "test", Kind: runbook.Step, Role: "host"},
			{Name: "gold", Kind: runbook.Step, Role: "build", Gold: true, Needs: []string{"test"}},
			{Name: "tried", Kind: runbook.SignOff, Text: "it works", Needs: []string{"gold"}, Approvals: 2},
			{Name: "legal", Kind: runbook.SignOff, Text: "licences"},
			{Name: "last", Kind: runbook.SignOff, Text: "all is well", Needs: []string{"tried"}},
		}
		for _, x := range s.Items {
			s.Progress[x.Name] = &release.Progress{}
		}
		s.Progress["test"] = &release.Progress{Machine: "two", Result: &release.Finished{Tests: 9, Failing: []string{"a", "b"}}, Waived: map[string]release.Waived{"a": {}}}
		s.Progress["gold"] = &release.Progress{Machine: "one", Result: &release.Finished{Outputs: []release.Artifact{file}}}
		s.Gold = &release.Gold{Machine: "one", Outputs: []release.Artifact{file}, By: "two", Confirmed: &release.Confirmed{Verdict: release.Identical}}
		if change != nil {
			change(s)
		}
		return s
	}
	for _, c := range []struct {
		name   string
		change func(*release.State)
		w      release.Signed
		want   []string
	}{
		{"gold", nil, release.Signed{Item: "tried", Person: "bob", Decision: release.Approve}, []string{
			"What    it works (tried), of release 1.0",
			"Bytes   dist/app of gold, 12 bytes, sha256:aa",
			"Made    gold on one, in build server debian; test on two, plainly on its host; of revision 4f2",
			"Tested  gold was built again on two: identical; test: 9 tests, 2 failed, 1 of them waived",
			"Means   Bob Example approves it, as one of 2 who must",
		}},
		{"words alone", nil, release.Signed{Item: "legal", Person: "eve", Decision: release.Approve}, []string{
			"(legal)", "Bytes   none", "Made    nowhere", "Tested  by no step", "Means   eve approves it, as one of 1",
		}},
		{"through another sign-off", nil, release.Signed{Item: "last", Person: "bob", Decision: release.ApproveExcept, Reason: "no manual"}, []string{
			"(last)", "Bytes   none", "gold on one", "identical", "approves it, but for this: no manual",
		}},
		{"a rejection of many files", func(s *release.State) {
			s.Gold.Outputs, s.Gold.Tree, s.Gold.Files, s.Gold.Bytes = nil, "sha256:cc", 7000, 99
			s.Gold.Confirmed = nil
		}, release.Signed{Item: "tried", Person: "bob", Decision: release.Reject, Reason: "it crashes"}, []string{
			"(tried)", "Bytes   7000 files of gold, 99 bytes, list sha256:cc", "gold on one", "Tested  test: 9 tests", "rejects it, and the release stops: it crashes",
		}},
	} {
		got := Brief(state(c.change), c.w)
		if len(got) != len(c.want) {
			t.Fatalf("%s: %d lines", c.name, len(got))
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: %q\nnot %q", c.name, got[i], want)
			}
		}
	}
}

// TestSameJSON: a statement that an editor wrote anew is told from one that says something else.
func TestSameJSON(t *testing.T) {
	const drafted = "{\n  \"a\": 1,\n  \"b\": \"x y\"\n}\n"
	for text, same := range map[string]bool{
		drafted + "\n":                            true,
		"{\"a\":1,\"b\":\"x y\"}":                 true,
		strings.ReplaceAll(drafted, "\n", "\r\n"): true,
		"{\"a\":1,\"b\":\"x  y\"}":                false,
		"{\"a\":2,\"b\":\"x y\"}":                 false,
		"{\"b\":\"x y\",\"a\":1}":                 false,
		"":                                        false,
	} {
		if sameJSON([]byte(drafted), []byte(text)) != same {
			t.Errorf("%q", text)
		}
	}
}
