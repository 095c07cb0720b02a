package drill

import (
	"strings"
	"testing"
)

// TestAttackCommandsOfAScenario: the author of a scenario has whoever runs it, as root, type
// commands that reach the team's own fleet, or write and read files of that machine.
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
		if err := does(command); err == nil || !strings.Contains(err.Error(), "reaches the fleet of its drill only") {
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
