package evidence

import (
	"bytes"
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

// MaxRecord is the most, in bytes, that the record of a drill in a bundle may have: what
// somebody else wrote is to be judged in seconds.
const MaxRecord = 4 << 20

const (
	maxDrills  = 32
	maxRecords = 20_000

	scenarioFile = "scenario.yaml"
	recordFile   = "history.jsonl"
)

// drills judges each drill again, in a bundle that is sound so far. What it came to, or
// that it cannot be judged (by this program, which may be younger), is no fault of the
// bundle: it is for whoever verifies to know.
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
	runs := slices.Sorted(maps.Keys(dirs))
	if len(runs) > maxDrills {
		attention("%d drills are here, and only the first %d are judged", len(runs), maxDrills)
		runs = runs[:maxDrills]
	}
	for _, run := range runs {
		d, records, err := c.drill(path.Join(drillDir, run))
		if err != nil {
			attention("drill %s cannot be judged: %v", run, err)
			continue
		}
		if d == nil {
			continue
		}
		covered := drill.Covers(records, h.state.Machines)
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

// drill judges one; nil if it is a fault of the bundle.
func (c *check) drill(dir string) (*Drilled, []drill.Record, error) {
	file, recorded := path.Join(dir, scenarioFile), path.Join(dir, recordFile)
	for _, f := range []string{file, recorded} {
		if c.sums[f] == "" {
			return nil, nil, fmt.Errorf("%s is not there", path.Base(f))
		}
		if c.sizes[f] > MaxRecord {
			return nil, nil, fmt.Errorf("%s has more than %d MB", path.Base(f), MaxRecord>>20)
		}
	}
	scenario, record := c.read(file), c.read(recorded)
	if scenario == nil || record == nil {
		return nil, nil, nil
	}
	p, err := drill.Parse(file, scenario)
	if err != nil {
		return nil, nil, err
	}
	if n := bytes.Count(record, []byte("\n")); n > maxRecords {
		return nil, nil, fmt.Errorf("its record has %d lines, and %d are the most", n, maxRecords)
	}
	h, err := drill.ReadHistory(record)
	if err != nil {
		return nil, nil, err
	}
	if h[0].Header.Scenario != p.Digest {
		c.fail(file, "is not the scenario that was run")
		return nil, nil, nil
	}
	x := drill.Summary(p, h, drill.Judge(p, h))
	return &Drilled{x.Run, x.Scenario, x.Began.UTC().Format(time.RFC3339), string(x.Verdict), x.Sentence, []string{}}, h, nil
}
