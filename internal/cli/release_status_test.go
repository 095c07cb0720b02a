package cli

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/release"
)

// TestWillShip: the first line of a status says no more than is known.
func TestWillShip(t *testing.T) {
	day := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	const ends = ": the rest ends 2026-12-01T09:00:00Z, it ships 2026-12-01T09:00:00Z."
	gold := release.Block{Item: "gold", Why: "the second build made other bytes", Final: true}
	tried, test := release.Block{Item: "tried", Why: "it was rejected"}, release.Block{Item: "test", Why: "it failed"}
	for _, c := range []struct {
		slack   float64
		phase   release.Phase
		unknown []string
		blocked []release.Block
		want    string
	}{
		{3600, release.Running, nil, nil, "will ship on time, with 1h0m0s to spare" + ends},
		{0, release.Running, nil, nil, "will ship on time, with 0s to spare" + ends},
		{-25, release.Running, nil, nil, "will be late by 25s" + ends},
		{-0.2, release.Running, nil, nil, "will be late by 200ms" + ends},
		{3600, release.Running, []string{"x"}, nil, "will ship on time, with 1h0m0s for what has no budget" + ends},
		{3600, release.Holding, nil, []release.Block{tried}, "will ship on time if tried is mended at once, with 1h0m0s to spare" + ends},
		{3600, release.Running, []string{"x"}, []release.Block{tried, test}, "will ship on time if tried, test are mended at once, with 1h0m0s for what has no budget" + ends},
		{-60, release.Running, []string{"x"}, []release.Block{tried}, "will be late by 1m0s, even if tried is mended at once" + ends},
		{3600, release.Running, nil, []release.Block{tried, gold}, "will not ship: gold is stopped, and nothing mends it: the second build made other bytes."},
		{3600, release.Done, nil, []release.Block{gold}, "is shipped."},
		{-60, release.Ended, nil, []release.Block{gold}, "was aborted: no time"},
	} {
		s := &api.Status{Version: "4.2", Phase: c.phase, Why: "no time", Ship: day, Ends: day, Slack: c.slack, Unknown: c.unknown, Blocked: c.blocked}
		if got := willShip(s); got != "Release 4.2 "+c.want {
			t.Errorf("%s\nnot Release 4.2 %s", got, c.want)
		}
	}
}

// TestHints: a shell reads each command that status prints as it was meant, and the command
// takes it.
func TestHints(t *testing.T) {
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	t.Chdir(t.TempDir()) // where no source is, to be proposed
	differences := []string{"dist/app!it's: time 2 instead of 1 (time stamp)", "dist/\x1b[2K\u202e\\'x", "-x", "plain"}
	for _, c := range []struct {
		ask  api.Ask
		said []string
		code int
	}{
		{api.Ask{Item: "compile", Type: "retry"}, []string{`/releases/4.2/retry {"item":"compile"}`}, exitYes},
		{api.Ask{Item: "legal", Type: "withdraw"}, []string{`/releases/4.2/withdraw {"item":"legal","reason":"WHY"}`}, exitYes},
		{api.Ask{Item: "gold", Type: "abort"}, []string{`/releases/4.2/abort {"reason":"WHY"}`}, exitYes},
		{api.Ask{Item: "test", Type: "waive", Tests: []string{"TestX/a b", `it's "$HOME"`}}, []string{
			`/releases/4.2/waive {"item":"test","test":"TestX/a b","reason":"WHY"}`, `/releases/4.2/waive {"item":"test","test":"it's \"$HOME\"","reason":"WHY"}`,
		}, exitYes},
		{api.Ask{Item: "gold", Type: "except"}, []string{`/releases/4.2/except {"person":"","differences":["dist/app!it's: time 2 instead of 1 (time stamp)","dist/\u001b[2K` + "\u202e" + `\\'x","-x","plain"],"reason":"WHY"}`}, exitYes},
		{api.Ask{Item: "amendment", Type: "agree"}, []string{`/releases/4.2/agree {"amendment":5,"person":"","decision":"approve"}`}, exitYes},
		{api.Ask{Item: "amendment", Type: "refuse"}, []string{`/releases/4.2/agree {"amendment":5,"person":"","decision":"reject","reason":"WHY"}`}, exitYes},
		// These look at more than this control has; they are not wrong usage.
		{api.Ask{Item: "tried", Type: "sign"}, nil, exitFailed},
		{api.Ask{Item: "tried", Type: "amend", Change: "source"}, nil, exitFailed},
		{api.Ask{Item: "tried", Type: "amend", Change: "runbook"}, nil, exitFailed},
	} {
		s := &api.Status{Version: "4.2", Amendment: 5, Gold: &api.Gold{Differences: differences}, Asks: []api.Ask{c.ask}}
		control := answers(t, map[string]any{"/releases/4.2": s})
		out, _, _ := control.run(t, "release", "status", "4.2")
		var commands int
		for line := range strings.Lines(out) {
			command, ok := strings.CutPrefix(line, "    → trysail ")
			if !ok {
				continue
			}
			commands++
			words, err := exec.Command(shell, "-c", `printf '%s\0' `+command).Output()
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			if _, e, code := control.run(t, strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00")...); code != c.code {
				t.Errorf("%s: exit status %d: %s", line, code, e)
			}
		}
		if commands != max(1, len(c.said)) || !slices.Equal(control.said, c.said) {
			t.Errorf("%s: %d command(s), which say\n%s\nnot\n%s\nin\n%s", c.ask.Type, commands, strings.Join(control.said, "\n"), strings.Join(c.said, "\n"), out)
		}
	}
	if got := hints("4.2", api.Ask{Item: "tried", Type: "amend", Change: "runbook"}, nil); got[0] != "trysail release amend 4.2 --runbook FILE --reason WHY" {
		t.Errorf("of who signs: %q", got)
	}
	many := hints("4.2", api.Ask{Item: "test", Type: "waive", Tests: make([]string, mostHints+5)}, nil)
	if len(many) != mostHints+1 || many[mostHints] != "and so on: 5 more" {
		t.Errorf("of many tests: %d, %q", len(many), many[len(many)-1])
	}
}
