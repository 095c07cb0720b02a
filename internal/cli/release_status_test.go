package cli

import (
	"cmp"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// TestWillShip: the first line of a status says no more than is known.
func TestWillShip(t *testing.T) {
	day := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	const ends = ": the rest ends Tue 1 Dec 2026 09:00 UTC, it ships Tue 1 Dec 2026 09:00 UTC."
	gold := release.Block{Item: "gold", Why: "the second build made other bytes", Final: true}
	tried, test := release.Block{Item: "tried", Why: "it was rejected"}, release.Block{Item: "test", Why: "it failed"}
	office := release.Block{Code: release.BlockNoMachine, Item: "sign-exe", Role: "office", Plain: true, Why: "no machine for role office"}
	second := release.Block{Code: release.BlockSecondMachine, Item: "gold", Role: "build", Later: true, Why: "gold needs a second machine, beside a"}
	held, change := release.Block{Code: release.BlockHeld, Why: "it is held by ann: a hole"}, release.Block{Code: release.BlockAmendment, Item: "amendment", Why: "a change is open"}
	for _, c := range []struct {
		slack   float64
		phase   release.Phase
		unknown []string
		blocked []release.Block
		want    string
	}{
		{3600, release.Running, nil, nil, "will ship on time, with 1 h to spare" + ends},
		{0, release.Running, nil, nil, "will ship on time, with 0 s to spare" + ends},
		{-25, release.Running, nil, nil, "will be late by 25 s" + ends},
		{-0.2, release.Running, nil, nil, "will be late by 0.2 s" + ends},
		{3600, release.Running, []string{"x"}, nil, "will ship on time, with 1 h for what has no budget" + ends},
		{3600, release.Holding, nil, []release.Block{tried}, "would be on time if tried is mended at once, with 1 h to spare" + ends},
		{3600, release.Running, []string{"x"}, []release.Block{tried, test}, "would be on time if tried is mended at once, and test is mended at once, with 1 h for what has no budget" + ends},
		{3600, release.Running, nil, []release.Block{office}, "would be on time if a machine for role office comes at once, with 1 h to spare" + ends},
		{3600, release.Holding, nil, []release.Block{held, second}, "would be on time if it goes on at once, and a second machine for gold comes at once, with 1 h to spare" + ends},
		{3600, release.Running, nil, []release.Block{change}, "would be on time if the open change is decided at once, with 1 h to spare" + ends},
		{-60, release.Running, nil, []release.Block{office}, "will be late by 60 s, even if a machine for role office comes at once" + ends},
		{-60, release.Running, []string{"x"}, []release.Block{tried}, "will be late by 60 s, even if tried is mended at once" + ends},
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
		{api.Ask{Item: "test", Type: "waive", Tests: []string{"TestX/a b", `it's "$HOME"`}}, []string{
			`/releases/4.2/waive {"item":"test","test":"TestX/a b","reason":"WHY"}`, `/releases/4.2/waive {"item":"test","test":"it's \"$HOME\"","reason":"WHY"}`,
		}, exitYes},
		{api.Ask{Item: "gold", Type: "except"}, []string{`/releases/4.2/except {"person":"","differences":["dist/app!it's: time 2 instead of 1 (time stamp)","dist/\u001b[2K` + "\u202e" + `\\'x","-x","plain"],"reason":"WHY"}`}, exitYes},
		{api.Ask{Item: "amendment", Type: "agree"}, []string{`/releases/4.2/agree {"amendment":5,"person":"","decision":"approve"}`}, exitYes},
		{api.Ask{Item: "amendment", Type: "refuse"}, []string{`/releases/4.2/agree {"amendment":5,"person":"","decision":"reject","reason":"WHY"}`}, exitYes},
		{api.Ask{Item: "gold", Type: "abort"}, nil, exitUsage}, // nobody is here to say yes
		{api.Ask{Item: "tried", Type: "sign"}, []string{`/releases/4.2/sign {"item":"tried","person":"","decision":"approve","subject":""}`}, exitYes},
		// These look at more than this control has; they are not wrong usage.
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

// TestHeadlines: a status begins with what blocks the release, and each command that it
// names is one that there is.
func TestHeadlines(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	since, until := now.Add(-40*time.Second), time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	block := func(code release.BlockCode, item, why string) release.Block {
		return release.Block{Code: code, Item: item, Why: why, Role: "office", Plain: true}
	}
	later := block(release.BlockSecondMachine, "gold", "gold needs a second machine, beside a")
	later.Role, later.Plain, later.Later = "build", false, true
	item := func(name string, kind runbook.Kind, status release.Status, change func(*api.ItemStatus)) api.ItemStatus {
		x := api.ItemStatus{Name: name, Kind: kind, Status: status}
		if change != nil {
			change(&x)
		}
		return x
	}
	done := item("gold", runbook.Step, release.Complete, nil)
	for _, c := range []struct {
		what string
		s    api.Status
		want []string
	}{
		{"no machine", api.Status{Items: []api.ItemStatus{item("sign-exe", runbook.Step, release.Ready, func(x *api.ItemStatus) { x.Waiting = "no machine of the fleet serves role office" })}, Blocked: []release.Block{block(release.BlockNoMachine, "sign-exe", "no machine for role office"), later}}, []string{
			"blocked: no machine for role office (trysail agent --join LINK --role office --plain)",
			"will be blocked: gold needs a second machine, beside a (trysail agent --join LINK --role build)",
		}},
		{"done", api.Status{Items: []api.ItemStatus{done}}, []string{"done: trysail release ship 4.2"}},
		{"done, and a change is open", api.Status{Items: []api.ItemStatus{done}, Amendment: 7, Blocked: []release.Block{block(release.BlockAmendment, "amendment", "the change of signers that ann proposed is open")}}, []string{"blocked: the change of signers that ann proposed is open (trysail release agree 4.2)"}},
		{"held", api.Status{Phase: release.Holding, Items: []api.ItemStatus{done}, Blocked: []release.Block{block(release.BlockHeld, "", "it is held by ann: a hole")}}, []string{"blocked: it is held by ann: a hole (trysail release resume 4.2)"}},
		{"stopped", api.Status{Items: []api.ItemStatus{item("test", runbook.Step, release.Stopped, nil)}, Blocked: []release.Block{{Code: release.BlockStopped, Item: "test", Why: "it failed"}}, Asks: []api.Ask{{Item: "test", Type: "retry"}}}, []string{"blocked: test: it failed (trysail release retry 4.2 test)"}},
		{"makes the server", api.Status{Items: []api.ItemStatus{item("compile", runbook.Step, release.InProgress, func(x *api.ItemStatus) { x.Machine, x.Since, x.Making = "a", &since, true })}}, []string{"making the build server of compile on a, 40 s so far"}},
		{"a wait", api.Status{Zone: "Europe/Berlin", Items: []api.ItemStatus{item("quiet", runbook.Wait, release.Ready, func(x *api.ItemStatus) { x.Until = &until })}}, []string{"waits: quiet until Tue 1 Dec 2026 10:00 CET"}},
		{"a more urgent release", api.Status{Items: []api.ItemStatus{item("compile", runbook.Step, release.Ready, func(x *api.ItemStatus) { x.Waiting = "release 2.0-hotfix ships in 1 h and goes first: a is busy" })}}, []string{"waits: compile: release 2.0-hotfix ships in 1 h and goes first: a is busy"}},
		{"a step runs", api.Status{Items: []api.ItemStatus{item("compile", runbook.Step, release.InProgress, func(x *api.ItemStatus) { x.Machine, x.Since = "a", &since })}}, nil},
		{"shipped", api.Status{Phase: release.Done, Items: []api.ItemStatus{done}}, nil},
	} {
		c.s.Version, c.s.Phase = "4.2", cmp.Or(c.s.Phase, release.Running)
		got := headlines(&c.s, now)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%s\nand not\n%s", c.what, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		for _, line := range got {
			if i := strings.Index(line, "trysail "); i >= 0 {
				exists(t, strings.TrimSuffix(line[i:], ")"))
			}
		}
		out, _, _ := answers(t, map[string]any{"/releases/4.2": &c.s}).run(t, "release", "status", "4.2")
		if first, _, _ := strings.Cut(out, "\n"); len(c.want) > 0 && c.what != "makes the server" && first != c.want[0] {
			t.Errorf("%s: status begins with %q", c.what, first)
		}
	}
}

// exists checks that a command is one of Trysail's, with its flags and arguments.
func exists(t *testing.T, command string) {
	t.Helper()
	a := &app{}
	root := &cobra.Command{Use: "trysail"}
	root.AddCommand(a.releaseCommand(), a.agentCommand(), a.fleetCommand())
	cmd, rest, err := root.Find(strings.Fields(command)[1:])
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil || !cmd.Runnable() {
		t.Errorf("%s: %v", command, err)
	}
}
