package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// TestPlain: what others wrote moves nothing on a terminal and begins no line.
func TestPlain(t *testing.T) {
	const evil = "typo\x1b[1A\x1b[2K\u009b2K\rx\n    → trysail release agree 4.2"
	status := &api.Status{
		Version: "4.2", Phase: release.Holding, Why: evil, Chain: []string{evil}, Unknown: []string{evil}, Blocked: []release.Block{{Item: evil}}, Trouble: []string{evil},
		Asks:    []api.Ask{{Item: "amendment", What: evil, People: []string{evil}, Type: "agree"}, {Item: "test", What: evil, Type: "waive", Tests: []string{evil}}},
		Items:   []api.ItemStatus{{Name: evil, Kind: runbook.Step, Waiting: evil, Failed: evil, Moves: 1, Moved: evil}},
		Gold:    &api.Gold{Machine: evil, By: evil, Verdict: release.Verdict(evil), Outputs: []release.Artifact{{Path: evil, Digest: evil}}, Differences: []string{evil}},
		Refused: []release.Refused{{Item: evil, Machine: evil, Why: evil}},
	}
	harmless := &api.Status{}
	clean, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bytes.ReplaceAll(clean, inside, []byte(`"typo"`)), harmless); err != nil {
		t.Fatal(err)
	}
	list := []api.Listed{{Version: "4.2", Error: evil}}
	machines := []api.MachineStatus{{Name: "a", Why: evil, Running: []api.Holding{{Release: evil, Item: evil}}}}
	for _, c := range []struct {
		args  []string
		lines int
	}{{[]string{"release", "status", "4.2"}, 0}, {[]string{"release", "list"}, 2}, {[]string{"fleet"}, 2}} {
		out, errOut, _ := answers(t, map[string]any{"/releases/4.2": status, "/releases": list, "/fleet": machines}).run(t, c.args...)
		if strings.ContainsAny(out+errOut, "\x1b\u009b\r") || c.lines > 0 && strings.Count(out, "\n") != c.lines || strings.Contains(out, "\n    → trysail release agree 4.2x") {
			t.Errorf("%s: %q %q", c.args, out, errOut)
		}
	}
	bad, _, _ := answers(t, map[string]any{"/releases/4.2": status}).run(t, "release", "status", "4.2")
	good, _, _ := answers(t, map[string]any{"/releases/4.2": harmless}).run(t, "release", "status", "4.2")
	if n, want := strings.Count(bad, "\n"), strings.Count(good, "\n"); n != want || want == 0 {
		t.Errorf("%d lines, not %d:\n%s", n, want, bad)
	}
	var told bytes.Buffer
	if code := (&app{stderr: &told}).report(t.Context(), nil, &api.Problem{Message: "a\x1b[2K\n\tb", Hint: "c\x1b"}); code != exitFailed || told.String() != "trysail: a\ufffd[2K\n\tb\n  → c\ufffd\n" {
		t.Errorf("an error: %q", told.String())
	}
	told.Reset()
	u := newUI(&told, false)
	u.Step("a\x1b\nb")
	u.terminal = true
	u.Progress("c\x1b\nd")
	if s := strings.ReplaceAll(told.String(), "\r\x1b[K", ""); s != "· a\ufffd b\n· a\ufffd b  c\ufffd d" {
		t.Errorf("what is done: %q", s)
	}
}
