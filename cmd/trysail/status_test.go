package main

import (
	"strings"
	"testing"

	"trysail/release"
)

const officeRelease = `---
roles:
  host: {plain: true}
  office: {plain: true}
people:
  ann: {}
approvers: [ann]
---
# Release

## Build

` + "```sh {\"name\":\"compile\",\"role\":\"host\",\"timeout\":\"1m\",\"budget\":\"1m\",\"out\":\"app\"}\ncp app.txt app\n```" + `

## Gold

` + "```sh {\"name\":\"gold\",\"role\":\"office\",\"in\":\"app\",\"timeout\":\"1m\",\"budget\":\"1m\",\"out\":\"dist/app\",\"gold\":\"true\"}\nmkdir dist\ncp app dist/app\n```\n"

// TestFleetStatusBlocked: a status begins with what blocks the release, and the command that
// it names mends it, in that very situation, from no machine to shipped.
func TestFleetStatusBlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, officeRelease)
	w.begin()
	first := func() string {
		line, _, _ := strings.Cut(w.trysail("release", "status", "4.2"), "\n")
		return line
	}
	// mend waits for a first line, and gives the words of the command that it names.
	mend := func(want string) []string {
		t.Helper()
		w.until(want, func() bool { return strings.HasPrefix(first(), want) })
		_, command, ok := strings.Cut(first(), "trysail ")
		if !ok {
			t.Fatalf("no command: %s", first())
		}
		return strings.Fields(strings.TrimSuffix(command, ")"))
	}
	agent := func(name string, n int, words []string) {
		t.Helper()
		if words[0] != "agent" || words[1] != "--join" || words[2] != "LINK" {
			t.Fatalf("it is no machine that is wanted: %q", words)
		}
		w.agent(name, n, words[3:]...)
	}
	if s := w.status(); len(s.Blocked) == 0 || s.Blocked[0].Code != release.BlockNoMachine || s.Blocked[0].Role != "host" || s.Blocked[0].Later {
		t.Errorf("in JSON it is blocked by %+v", s.Blocked)
	}
	if text := w.trysail("release", "status", "4.2"); !strings.Contains(text, "would be on time if a machine for role host comes at once") || strings.Contains(text, "  nobody\n") {
		t.Errorf("with no machine the status is\n%s", text)
	}
	agent("a", 11, mend("blocked: no machine for role host ("))
	w.trysail("release", "hold", "4.2", "--reason", "a hole was reported")
	w.trysail(mend("blocked: it is held by ")...)
	agent("b", 12, mend("blocked: no machine for role office ("))
	agent("c", 13, mend("blocked: gold needs a second machine, beside b ("))
	w.trysail(mend("done: ")...)
	if s := w.status(); s.Phase != release.Done {
		t.Errorf("it is %s", s.Phase)
	}
	w.check()
}
