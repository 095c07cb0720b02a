package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"trysail/drill"
	"trysail/internal/notify"
	"trysail/internal/tree"
	"trysail/release"
)

// judged is the verdict as JSON, with what follows from it for people.
type judged struct {
	Run      string `json:"run"`
	Scenario string `json:"scenario"`
	Release  string `json:"release"`
	Dir      string `json:"directory,omitempty"`
	History  string `json:"history"` // digest of the file
	*drill.Verdict
	Issues   []drill.Issue `json:"issues"`
	Previous *drill.Past   `json:"previous"`
}

// judge judges a history, keeps the reports that its scenario asks for beside it,
// and prints the verdict.
func (a *app) judge(dir string, p *drill.Plan, history []drill.Record) (*judged, error) {
	data, err := tree.ReadFile(filepath.Join(dir, "history.jsonl"), maxDocument)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	r := &drill.Report{Plan: p, History: history, Verdict: drill.Judge(p, history), Sum: "sha256:" + hex.EncodeToString(sum[:])}
	if r.Runs, err = a.runsUntil(drill.Summary(p, history, r.Verdict)); err != nil {
		return nil, err
	}
	v := judged{Scenario: p.Name, Release: p.Release.Version, Run: history[0].Header.Run, History: r.Sum, Verdict: r.Verdict, Issues: drill.Issues(p, history, r.Verdict), Previous: r.Previous()}
	files, err := writeReports(dir, r, v)
	if err != nil {
		return nil, err
	}
	a.ui.end()
	if a.json {
		v.Dir = dir
		if err := a.printJSON(v); err != nil {
			return nil, err
		}
	}
	a.print(drill.Short(p, history, r.Verdict) + "\n")
	for _, f := range files {
		a.printf("Report: %s\n", f)
	}
	return &v, nil
}

// given turns a verdict that was printed into the answer of a command.
func given(v *judged, err error) error {
	if err == nil && v.Value != drill.Pass {
		return answerNo{}
	}
	return err
}

// writeReports writes the formats that the scenario names; all if it names none.
func writeReports(dir string, r *drill.Report, v judged) ([]string, error) {
	var files []string
	for _, format := range []struct {
		name, file string
		text       func() ([]byte, error)
	}{
		{"html", "report.html", r.HTML},
		{"md", "report.md", func() ([]byte, error) { return []byte(r.Markdown()), nil }},
		{"json", "verdict.json", func() ([]byte, error) {
			data, err := json.MarshalIndent(v, "", "  ")
			return append(data, '\n'), err
		}},
	} {
		if len(r.Plan.Report) > 0 && !slices.Contains(r.Plan.Report, format.name) {
			continue
		}
		data, err := format.text()
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, format.file)
		if err := tree.WriteFile(file, data, 0o600); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// runs are all that were run here, in few words, the oldest first.
func (a *app) runs(wanted func(dir string) bool) ([]drill.Past, error) {
	dirs, err := tree.ReadDir(a.drillsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list := []drill.Past{}
	for _, d := range dirs {
		if !wanted(d.Name()) {
			continue
		}
		_, p, history, err := a.readRun(d.Name())
		if err != nil {
			list = append(list, drill.Unread(d.Name(), err))
			continue
		}
		list = append(list, drill.Summary(p, history, drill.Judge(p, history)))
	}
	drill.Sort(list)
	return list, nil
}

// runsUntil are those of the same scenario up to one, with it.
func (a *app) runsUntil(this drill.Past) ([]drill.Past, error) {
	list, err := a.runs(func(dir string) bool { return dir != this.Run && strings.HasPrefix(dir, this.Scenario+"-") })
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(s drill.Past) bool { return s.Scenario != this.Scenario || s.Began.After(this.Began) })
	return append(list, this), nil
}

func (a *app) drillReport(run string) error {
	dir, p, history, err := a.readRun(run)
	if err != nil {
		return err
	}
	return given(a.judge(dir, p, history))
}

func (a *app) drillList() error {
	type listed struct {
		Run      string      `json:"run"`
		Verdict  drill.Value `json:"verdict"`
		Sentence string      `json:"sentence"`
	}
	runs, err := a.runs(func(string) bool { return true })
	if err != nil {
		return err
	}
	list := []listed{}
	for _, s := range slices.Backward(runs) {
		list = append(list, listed{s.Run, s.Verdict, s.Sentence})
	}
	if a.json {
		return a.printJSON(list)
	}
	for _, l := range list {
		a.printf("%-44s %-8s %s\n", release.StripControl(l.Run), l.Verdict, release.StripControl(strings.Join(strings.Fields(l.Sentence), " ")))
	}
	if len(list) == 0 {
		a.printf("No drill was run here yet: trysail drill run FILE\n")
	}
	return nil
}

// noTrendError says that a scenario was never run.
type noTrendError struct{ name string }

func (e *noTrendError) Error() string { return "no drill of scenario " + e.name + " was run here" }

// Hint says what to type.
func (e *noTrendError) Hint() string { return "trysail drill trend shows all scenarios" }

func (a *app) drillTrend(names []string) error {
	list, err := a.runs(func(string) bool { return true })
	if err != nil {
		return err
	}
	if len(names) > 0 {
		list = slices.DeleteFunc(list, func(s drill.Past) bool { return s.Scenario != names[0] })
		if len(list) == 0 {
			return &noTrendError{names[0]}
		}
	}
	if a.json {
		return a.printJSON(list)
	}
	a.print(drill.Trend(list))
	if len(list) == 0 {
		a.printf("No drill was run here yet: trysail drill run FILE\n")
	}
	return nil
}

// undeliveredError says who does not know a verdict.
type undeliveredError struct{ names []string }

func (e *undeliveredError) Error() string {
	return "the verdict was not told to " + strings.Join(e.names, ", ")
}

// Hint says what to do.
func (e *undeliveredError) Hint() string {
	return "the reasons are above; the report is where it says, for you to pass on"
}

// tellVerdict tells each target that wants it, each as long as all of them may
// take: half a minute. A drill that could not be run is told too, because nobody
// looks at a timer in the morning.
func (a *app) tellVerdict(ctx context.Context, targets []notify.Target, file string, v *judged, failed error) error {
	now := time.Now()
	m := notify.Message{Notice: release.Notice{Kind: notify.DrillJudged, Item: filepath.Base(file)}, Begun: now, At: now}
	if failed != nil {
		m.Drill, m.Verdict, m.What = filepath.Base(file)+"-"+now.UTC().Format("20060102-150405"), string(drill.Unknown), "the drill could not be run: "+failed.Error()
	} else {
		m.Item, m.Release, m.Drill, m.Verdict, m.What = v.Scenario, v.Release, v.Run, string(v.Value), string(v.Value)+": "+v.Sentence
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	missed := make([]error, len(targets))
	for i, t := range targets {
		if t.Wants(m.Notice) {
			wg.Go(func() { missed[i] = send(ctx, t, m) })
		}
	}
	wg.Wait()
	var names []string
	for i, err := range missed {
		if err != nil {
			a.log.Warn("the verdict was not told", "to", targets[i].Name(), "err", err)
			names = append(names, targets[i].Name())
		}
	}
	if len(names) > 0 {
		return &undeliveredError{names}
	}
	return nil
}

// send tries until it is taken, refused, or too late.
func send(ctx context.Context, t notify.Target, m notify.Message) error {
	for wait := time.Second; ; wait *= 2 {
		err := t.Send(ctx, m)
		var refused *notify.RefusedError
		if err == nil || errors.As(err, &refused) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}
