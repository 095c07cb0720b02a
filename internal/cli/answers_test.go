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

// TestAnswersOfWords: each command prints one object with --json, that says what was done.
func TestAnswersOfWords(t *testing.T) {
	status := &api.Status{Version: "4.2", Phase: release.Running, Asks: []api.Ask{{Item: "legal", What: "licences", People: []string{"eve"}, Needed: 1, Type: "sign"}}, Items: []api.ItemStatus{
		{Name: "compile", Kind: runbook.Step, Status: release.Complete},
		{Name: "legal", Kind: runbook.SignOff, Status: release.Ready},
		{Name: "gold", Kind: runbook.Step, Status: release.Ready, Waiting: "amendment 6 is open: gold waits"},
	}}
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"fleet", "drain", "a"}, `{"machine":"a","done":"drain"}`, exitYes},
		{[]string{"fleet", "retire", "a"}, `{"machine":"a","done":"retire"}`, exitYes},
		{[]string{"fleet", "readmit", "a"}, `{"machine":"a","done":"readmit","proves":true}`, exitYes},
		{[]string{"fleet", "readmit", "a", "--without-proof", "--reason", "r"}, `{"machine":"a","done":"readmit"}`, exitYes},
		{[]string{"fleet", "revoke", "ann"}, `{"person":"ann","done":"revoke"}`, exitYes},
		{[]string{"fleet", "dismiss", "c:1"}, `{"control":"c:1","done":"dismiss"}`, exitYes},
		{[]string{"release", "withdraw", "4.2", "legal"}, `{"done":"withdraw","item":"legal","event":7}`, exitYes},
		{[]string{"release", "wait", "4.2"}, `{"version":"4.2","phase":"running","moving":0,"open":2,"waits":["gold waits: amendment 6 is open: gold waits"],"asks":[{"item":"legal","what":"licences","people":["eve"],"needed":1,"type":"sign"}]}`, exitWaiting},
		{[]string{"release", "wait"}, `{"error":{"message":"VERSION is missing: trysail release wait VERSION","exit":2}}`, exitUsage},
		{[]string{"release", "log", "4.2", "compile"}, `{"error":{"message":"a log is bytes as the step wrote them, and not JSON: leave --json away, or list the runs with --runs","exit":2}}`, exitUsage},
	} {
		out, errOut, code := answers(t, map[string]any{"/releases/4.2": status}).run(t, append(c.args, "--json")...)
		var one bytes.Buffer
		if err := json.Compact(&one, []byte(out)); err != nil || strings.TrimSpace(one.String()) != c.want || code != c.code {
			t.Errorf("%s: exit status %d, %v: %s%s\nnot %s", c.args, code, err, out, errOut, c.want)
		}
	}
}
