package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/capture"
	"trysail/internal/exercise"
	"trysail/internal/lab"
	"trysail/release"
	"trysail/runbook"
)

type drillOptions struct {
	seed uint64
}

func (a *app) drillCommand() *cobra.Command {
	var o drillOptions
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Rehearse the release while machines die",
		Long: "Drill runs the release of a working copy on disposable machines on this host, breaks what a scenario says, and\n" +
			"gives a verdict from what was recorded. It needs root, and leaves nothing behind." + exitHelp,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usage("drill needs a command: run, check, faults, list or report")
		},
	}
	add := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) }}
		cmd.AddCommand(c)
		return c
	}
	run := add("run FILE", "Run a scenario in this working copy (exit status 3 if the verdict is not pass)", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.drillRun(ctx, args[0], o)
	})
	run.Flags().Uint64Var(&o.seed, "seed", 0, "`NUMBER` that people's answers are drawn with (default: another each time)")
	add("check FILE...", "Read scenarios strictly", cobra.MinimumNArgs(1), func(_ context.Context, args []string) error { return a.drillCheck(args) })
	add("faults", "List the faults that a scenario may name", cobra.NoArgs, func(context.Context, []string) error { return a.drillFaults() })
	add("clean", "Take away what drills that were killed left on this host", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.drillClean(ctx) })
	add("list", "List the drills that were run here, the newest first", cobra.NoArgs, func(context.Context, []string) error { return a.drillList() })
	add("report RUN", "Give the verdict on a drill that was run, from its history", cobra.ExactArgs(1), func(_ context.Context, args []string) error {
		return a.drillReport(args[0])
	})
	return cmd
}

func (a *app) drillsDir() string { return filepath.Join(a.state, "drills") }

func readScenario(file string) (*drill.Plan, []byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	p, err := drill.Parse(file, data)
	return p, data, err
}

func (a *app) drillCheck(files []string) error {
	type checked struct {
		File string `json:"file"`
		Name string `json:"name"`
	}
	list := []checked{}
	for _, f := range files {
		p, _, err := readScenario(f)
		if err != nil {
			return err
		}
		list = append(list, checked{f, p.Name})
		a.printf("%s: %s, %d action(s)\n", f, p.Name, len(p.Method))
	}
	if a.json {
		return a.printJSON(list)
	}
	return nil
}

func (a *app) drillFaults() error {
	if a.json {
		return a.printJSON(drill.Faults())
	}
	for _, k := range drill.Faults() {
		keys := []string{}
		if k.Host {
			keys = append(keys, "host")
		}
		if k.Of {
			keys = append(keys, "of")
		}
		if k.Undone {
			keys = append(keys, "for")
		}
		a.printf("%-20s %s [%s]\n", k.Fault, k.What, strings.Join(keys, ", "))
	}
	return nil
}

// drillRun runs a scenario and judges it.
func (a *app) drillRun(ctx context.Context, file string, o drillOptions) error {
	p, data, err := readScenario(file)
	if err != nil {
		return err
	}
	book, _, err := readRunbook(p.Release.Runbook)
	if err != nil {
		return err
	}
	if err := against(file, p, book); err != nil {
		return err
	}
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	w, err := capture.FindWorkspace(ctx, wd)
	if err != nil {
		return err
	}
	look := func() ([]string, error) { return lab.Look(st) }
	before, err := look()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	h := drill.Header{
		Run: p.Name + "-" + time.Now().UTC().Format("20060102-150405"), Tool: "trysail " + Version(), Scenario: "sha256:" + hex.EncodeToString(sum[:]),
		Seed: o.seed, Machine: host, Source: w.Source.Revision,
	}
	if h.Seed == 0 {
		h.Seed = rand.Uint64()
	}
	dir := filepath.Join(a.drillsDir(), h.Run)
	if err := os.MkdirAll(a.drillsDir(), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(dir, "scenario.yaml"), data, 0o644); err != nil {
		return err
	}
	hours, err := workingHours(book)
	if err != nil {
		return err
	}
	history, err := exercise.Run(ctx, exercise.Options{
		Plan: p, Header: h, State: st, Dir: dir, Hours: hours, Before: before, Look: look, Log: a.log, Progress: a.ui.Step,
		Start: func(ctx context.Context, c *api.Client, version string, ship time.Time) error {
			_, _, err := a.startWith(ctx, c, version, releaseOptions{runbook: p.Release.Runbook, ship: ship.Format(time.RFC3339)})
			return err
		},
		Ask: a.asker(),
	})
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return a.judge(dir, p, history)
}

// workingHours are those of the people of a runbook.
func workingHours(book *runbook.Runbook) (map[string]runbook.Calendar, error) {
	hours := map[string]runbook.Calendar{}
	for _, p := range release.People(book) {
		c, err := p.Hours.Calendar(time.LoadLocation)
		if err != nil {
			return nil, err
		}
		hours[p.Name] = c
	}
	return hours, nil
}

// against refuses a scenario that is about another runbook.
func against(file string, p *drill.Plan, book *runbook.Runbook) error {
	for i, t := range p.Timed {
		if t.When.Item != "" && !slices.ContainsFunc(book.Items, func(x runbook.Item) bool { return x.Name == t.When.Item }) {
			return usage("%s: %s waits for %q, and %s has no such item", file, p.Method[i].Name, t.When.Item, p.Release.Runbook)
		}
	}
	for _, x := range book.Items {
		for _, name := range x.Signers {
			if _, ok := p.People[name]; !ok {
				return usage("%s: %s is to sign %s, and people does not say how they answer", file, name, x.Name)
			}
		}
	}
	return nil
}

// asker asks at the terminal; nil if there is none.
func (a *app) asker() func(ctx context.Context, person, item, what string) (bool, string, error) {
	if f, ok := a.stdin.(*os.File); !ok || !isTerminal(f) {
		return nil
	}
	in := bufio.NewScanner(a.stdin)
	return func(_ context.Context, person, item, what string) (bool, string, error) {
		a.ui.end()
		fmt.Fprintf(a.stderr, "%s, %s is for you: %s\nDo you approve? [y/n, then why] ", person, item, what)
		if !in.Scan() {
			return false, "", errors.New("nobody answered at the terminal")
		}
		word, reason, _ := strings.Cut(strings.TrimSpace(in.Text()), " ")
		return strings.HasPrefix(strings.ToLower(word), "y"), reason, nil
	}
}

// judge judges a history, keeps the verdict beside it, and prints it.
func (a *app) judge(dir string, p *drill.Plan, history []drill.Record) error {
	v := drill.Judge(p, history)
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(dir, "verdict.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	text := drill.Markdown(p, history, v)
	if err := renameio.WriteFile(filepath.Join(dir, "report.md"), []byte(text), 0o644); err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		if err := a.printJSON(struct {
			Run string `json:"run"`
			Dir string `json:"directory"`
			*drill.Verdict
		}{history[0].Header.Run, dir, v}); err != nil {
			return err
		}
	}
	a.printf("%s\n", drill.Short(p, history, v))
	a.printf("Report: %s\n", filepath.Join(dir, "report.md"))
	if v.Value != drill.Pass {
		return answerNo{}
	}
	return nil
}

// noDrillError says that there is no such run.
type noDrillError struct{ run string }

func (e *noDrillError) Error() string { return "no drill " + e.run + " was run here" }

// Hint says what to type.
func (e *noDrillError) Hint() string { return "trysail drill list" }

// readRun reads a run's scenario and history.
func (a *app) readRun(run string) (dir string, p *drill.Plan, history []drill.Record, err error) {
	if run != filepath.Base(run) || strings.HasPrefix(run, ".") {
		return "", nil, nil, usage("%q is not the name of a run", run)
	}
	dir = filepath.Join(a.drillsDir(), run)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil, &noDrillError{run}
	}
	p, _, err = readScenario(filepath.Join(dir, "scenario.yaml"))
	if err != nil {
		return "", nil, nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		return "", nil, nil, err
	}
	history, err = drill.ReadHistory(data)
	return dir, p, history, err
}

func (a *app) drillReport(run string) error {
	dir, p, history, err := a.readRun(run)
	if err != nil {
		return err
	}
	return a.judge(dir, p, history)
}

func (a *app) drillList() error {
	type listed struct {
		Run      string      `json:"run"`
		Verdict  drill.Value `json:"verdict"`
		Sentence string      `json:"sentence"`
	}
	list := []listed{}
	dirs, err := os.ReadDir(a.drillsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		_, p, history, err := a.readRun(d.Name())
		if err != nil {
			list = append(list, listed{d.Name(), drill.Unknown, err.Error()})
			continue
		}
		v := drill.Judge(p, history)
		list = append(list, listed{d.Name(), v.Value, v.Sentence})
	}
	if a.json {
		return a.printJSON(list)
	}
	for _, l := range list {
		a.printf("%-44s %-8s %s\n", l.Run, l.Verdict, l.Sentence)
	}
	if len(list) == 0 {
		a.printf("No drill was run here yet: trysail drill run FILE\n")
	}
	return nil
}
