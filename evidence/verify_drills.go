package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"trysail/drill"
)

// Drilled is a drill in a bundle, judged again from what was recorded of it.
type Drilled struct {
	Run      string `json:"run"`
	Scenario string `json:"scenario"`
	Began    string `json:"began"` // RFC 3339
	Verdict  string `json:"verdict"`
	Sentence string `json:"sentence"`
	// Servers names the roles of the release whose build server was rehearsed.
	Servers []string `json:"servers"`
}

const (
	scenarioFile = "scenario.yaml"
	recordFile   = "history.jsonl"
)

// drills judges each drill again. What it came to is no fault of the bundle: it is for
// whoever verifies to know. What cannot be judged is one, if there is a record at all.
func (c *check) drills(h *history) {
	dirs := map[string]bool{}
	for name := range c.sums {
		if rest, ok := strings.CutPrefix(name, drillDir+"/"); ok {
			run, _, _ := strings.Cut(rest, "/")
			dirs[run] = true
		}
	}
	attention := func(format string, args ...any) {
		c.r.Attention = append(c.r.Attention, fmt.Sprintf(format, args...))
	}
	rehearsed := map[string]bool{}
	for _, run := range slices.Sorted(maps.Keys(dirs)) {
		dir := path.Join(drillDir, run)
		if c.sums[path.Join(dir, recordFile)] == "" {
			attention("%s has no record, from which it could be judged", dir)
			continue
		}
		d, records := c.drill(dir)
		if d == nil {
			continue
		}
		covered, _ := drill.Covers(records, h.state.Machines)
		d.Servers = append(d.Servers, covered...)
		for _, role := range covered {
			rehearsed[role] = true
		}
		c.r.Drills = append(c.r.Drills, *d)
		began := records[0].Header.Began
		if d.Verdict != string(drill.Pass) {
			attention("drill %s came to %s: %s", run, d.Verdict, d.Sentence)
		}
		if len(covered) == 0 {
			attention("drill %s rehearsed no build server of this release", run)
		}
		if over := h.events[len(h.events)-1].Time; began.After(over) {
			attention("drill %s began on %s, after the release was over", run, began.UTC().Format(time.DateOnly))
		}
	}
	for _, m := range h.state.Machines {
		if m.Blueprint != "" && !rehearsed[m.Role] {
			attention("no drill of the build server of role %s is here", m.Role)
		}
	}
}

// drill judges one; nil if it cannot be.
func (c *check) drill(dir string) (*Drilled, []drill.Record) {
	file := path.Join(dir, scenarioFile)
	scenario, record := c.read(file), c.read(path.Join(dir, recordFile))
	if scenario == nil || record == nil {
		return nil, nil
	}
	p, err := drill.Parse(file, scenario)
	if err != nil {
		c.fail(file, "%v", err)
		return nil, nil
	}
	h, err := drill.ReadHistory(record)
	if err != nil {
		c.fail(path.Join(dir, recordFile), "%v", err)
		return nil, nil
	}
	if sum := sha256.Sum256(scenario); h[0].Header.Scenario != sha256Algorithm+":"+hex.EncodeToString(sum[:]) {
		c.fail(file, "is not the scenario that was run")
		return nil, nil
	}
	x := drill.Summary(p, h, drill.Judge(p, h))
	return &Drilled{x.Run, x.Scenario, x.Began.UTC().Format(time.RFC3339), string(x.Verdict), x.Sentence, []string{}}, h
}
