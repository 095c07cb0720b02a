package drill

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// TestAttackCommandsOfAScenario: the author of a scenario makes the drill type commands,
// as root, that reach the team's own fleet, or read and write files of that machine.
func TestAttackCommandsOfAScenario(t *testing.T) {
	does := func(command string) error {
		text := strings.Replace(wholeScenario, "do: fleet readmit backup", "do: '"+command+"'", 1)
		if text == wholeScenario {
			t.Fatal("the scenario does nothing")
		}
		_, err := Parse("drill.yaml", []byte(text))
		return err
	}
	for _, command := range []string{
		"release abort 4.3 --reason x --control /var/lib/trysail/control/link",
		"release abort 4.3 --reason x --control=/var/lib/trysail/control/link",
		"fleet retire primary --state /var/lib/trysail",
		"fleet --state=/var/lib/trysail retire primary",
		"fleet token --person eve --out /etc/eve",
		"fleet retire primary --drill-clock /etc/clock",
		"release fetch 4.2 gold --into /etc/cron.d",
		"release sign 4.2 tried --as ann --yes --key /root/.ssh/id_ed25519",
		"release sign 4.2 tried --as ann --statement /etc/passwd",
		"release checkpoint 4.2 --commit --push",
		"release status 4.2 -- --control x",
		"release list --depot /srv",
	} {
		if err := does(command); err == nil || !strings.Contains(err.Error(), "which no scenario may use") {
			t.Errorf("%q is taken: %v", command, err)
		}
	}
	for _, command := range []string{
		"fleet readmit backup --without-proof --reason=known", "release hold 4.2 --reason lost", "release amend 4.2 --source --reason bug --as ann", "release waive 4.2 gold slow --as bob --reason flaky",
	} {
		if err := does(command); err != nil {
			t.Errorf("%q: %v", command, err)
		}
	}
}

// TestAttackHistoryOfOneEvent: the author of a bundle puts a drill into it in which one event of
// a huge plan is seen again and again. Whoever verifies the bundle has it judged in seconds.
func TestAttackHistoryOfOneEvent(t *testing.T) {
	p, h := rehearsed(t, nil)
	i := slices.IndexFunc(h, func(r Record) bool { return r.Kind == Reread })
	b := h[i].Ledger[0].Body.(release.Started)
	for n := range 30_000 {
		b.Items = append(b.Items, runbook.Item{Name: fmt.Sprint("w", n), Kind: runbook.Wait})
	}
	h[i].Ledger[0].Body = b
	again := h[i].Ledger[0]
	again.Body = release.Resumed{}
	for range 5000 {
		h = slices.Insert(h, i, Record{Kind: Happened, Event: &again})
	}
	at := time.Now()
	v := Judge(p, renumber(h))
	if took := time.Since(at); took > 20*time.Second {
		t.Errorf("it is judged in %s", took)
	}
	if v.System.Value != Fail || len(v.Lost) < 5000 {
		t.Errorf("it comes to %v, with %d events lost", v.System.Value, len(v.Lost))
	}
}
