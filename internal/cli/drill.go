package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/exercise"
	"trysail/internal/lab"
	"trysail/internal/machine"
	"trysail/internal/tree"
	"trysail/internal/vcs"
	"trysail/release"
	"trysail/runbook"
)

type drillOptions struct {
	seed   uint64
	notify string
	hosts  string // file that names real hosts
}

func (a *app) drillCommand() *cobra.Command {
	var o drillOptions
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Rehearse the release while machines die",
		Long: "Drill runs the release of a working copy on disposable machines on this host, injects the faults of a scenario,\n" +
			"and gives a verdict from the record. It needs root, and leaves nothing behind." + exitHelp,
		Args: cobra.NoArgs,
		RunE: needsCommand,
	}
	add := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) }}
		cmd.AddCommand(c)
		return c
	}
	run := add("run FILE", "Run a scenario in this working copy (exit status 3 if the verdict is not pass)", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.drillRun(ctx, args[0], o)
	})
	run.Flags().StringVar(&o.hosts, "hosts", "", "run it on the real hosts that `FILE` names, over SSH, and not in a lab on this one")
	run.Flags().StringVar(&o.notify, "notify", "", "tell people the verdict as this `FILE` says (docs/notices.md)")
	run.Flags().Uint64Var(&o.seed, "seed", 0, "`NUMBER` that people's answers are drawn with (default: another each time)")
	add("check FILE...", "Read scenarios strictly", cobra.MinimumNArgs(1), func(_ context.Context, args []string) error { return a.drillCheck(args) })
	add("init [RUNBOOK]", "Write a first scenario, "+firstScenario+", for a runbook (default: RELEASE.md)", cobra.MaximumNArgs(1), func(_ context.Context, args []string) error {
		return a.drillInit(runbookFile(args))
	})
	add("schema", "Print the JSON Schema of scenarios", cobra.NoArgs, func(context.Context, []string) error { return a.drillSchema() })
	add("faults", "List the faults that a scenario may name", cobra.NoArgs, func(context.Context, []string) error { return a.drillFaults() })
	var owner, due string
	stranger := add("stranger [BLUEPRINT]", "Time a person who makes the machine from REBUILD.md by hand", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		return a.drillStranger(ctx, append(args, "trysail")[0], owner, due)
	})
	stranger.Flags().StringVar(&owner, "owner", "", "who mends what is found")
	stranger.Flags().StringVar(&due, "due", "", "how long there is to mend it, such as 14d")
	add("clean", "Remove what killed drills left on this host", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.drillClean(ctx) })
	add("list", "List the drills that were run here, the newest first", cobra.NoArgs, func(context.Context, []string) error { return a.drillList() })
	add("report RUN", "Judge an earlier drill again from its history, and write its report (HTML, Markdown, JSON)", cobra.ExactArgs(1), func(_ context.Context, args []string) error {
		return a.drillReport(args[0])
	})
	add("trend [NAME]", "Show how long each run of a scenario took to recover", cobra.MaximumNArgs(1), func(_ context.Context, args []string) error {
		return a.drillTrend(args)
	})
	add("mirror DIR TROUBLE", "Serve files on a machine of a drill", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.drillMirror(ctx, args[0], args[1])
	}).Hidden = true
	add("hosts FILE", "Check which hosts are eligible for fault injection, and inject none", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.drillHosts(ctx, args[0])
	})
	add("worker WITHIN WORD BOOT", "Do on a real host what a drill says", cobra.ExactArgs(3), func(ctx context.Context, args []string) error {
		return a.drillWorker(ctx, args[0], args[1], args[2])
	}).Hidden = true
	add("reaper PID WITHIN", "Take away what a worker leaves", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.drillReaper(ctx, args[0], args[1])
	}).Hidden = true
	a.addSchedule(cmd)
	return cmd
}

func (a *app) drillsDir() string { return filepath.Join(a.state, "drills") }

func readScenario(file string) (*drill.Plan, []byte, error) {
	data, err := tree.ReadFile(file, maxDocument)
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
		if k.On != nil {
			keys = append(keys, "host: "+k.Where())
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

// drillMirror is the main process of a mirror in a drill.
func (a *app) drillMirror(ctx context.Context, dir, trouble string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":http")
	if err != nil {
		return err
	}
	return lab.Mirror(ctx, l, dir, trouble)
}

// drillRun runs a scenario, judges it, and tells people if it is to.
func (a *app) drillRun(ctx context.Context, file string, o drillOptions) error {
	if o.notify == "" {
		v, err := a.runDrill(ctx, file, o)
		return given(v, err)
	}
	told, err := readNotify(o.notify)
	if err != nil {
		return err
	}
	v, err := a.runDrill(ctx, file, o)
	if ctx.Err() != nil {
		return err // whoever interrupted it knows
	}
	if missed := a.tellVerdict(ctx, told.Targets, file, v, err); missed != nil && err == nil && v.Value == drill.Pass {
		return missed
	}
	return given(v, err)
}

// runDrill runs a scenario and gives its verdict, which was printed.
func (a *app) runDrill(ctx context.Context, file string, o drillOptions) (*judged, error) {
	p, data, err := readScenario(file)
	if err != nil {
		return nil, err
	}
	book, _, err := readRunbook(p.Release.Runbook)
	if err != nil {
		return nil, err
	}
	if err := p.Against(book); err != nil {
		return nil, err
	}
	st, err := a.openState(ctx)
	if err != nil {
		return nil, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	w, err := vcs.Find(ctx, wd)
	if err == nil {
		err = callers().own(w)
	}
	if err != nil {
		return nil, err
	}
	look := func() ([]string, error) { return lab.Look(st) }
	sum := sha256.Sum256(data)
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	h := drill.Header{
		Run: p.Name + "-" + time.Now().UTC().Format("20060102-150405"), Tool: "trysail " + Version(), Scenario: "sha256:" + hex.EncodeToString(sum[:]),
		Seed: o.seed, Machine: host, Source: w.Source.Revision,
	}
	if h.Seed == 0 {
		h.Seed = rand.Uint64()
	}
	stage := a.stage(st)
	if o.hosts != "" {
		if stage, err = a.onSite(ctx, o.hosts, p, st); err != nil {
			return nil, err
		}
		h.Hosts = len(p.Machines()) + len(p.Services())
	}
	dir, err := a.runDir(&h)
	if err != nil {
		return nil, err
	}
	if err := tree.WriteFile(filepath.Join(dir, "scenario.yaml"), data, 0o600); err != nil {
		return nil, err
	}
	hours, err := workingHours(book)
	if err != nil {
		return nil, err
	}
	history, err := exercise.Run(ctx, exercise.Options{
		Plan: p, Header: h, Dir: dir, Stage: stage, Hours: hours, Look: look, Log: a.log, Progress: a.ui.Step,
		Root: w.Root,
		Start: func(ctx context.Context, c *api.Client, version string, ship time.Time, source string, signers []byte) error {
			return a.startWith(ctx, c, version, releaseOptions{runbook: p.Release.Runbook, ship: ship.Format(time.RFC3339), clone: source, rehearsers: signers})
		},
		Ask: a.asker(ctx),
	})
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return a.judge(dir, p, history)
}

// stage is a lab on this host.
func (a *app) stage(st *machine.State) func() (lab.Stage, error) {
	return func() (lab.Stage, error) {
		l, err := lab.New(st, a.log)
		if err != nil {
			return nil, err
		}
		s, err := l.Stage()
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return s, nil
	}
}

// runDir makes the directory of a run, which gets a name that no other has: two may
// begin in one second.
func (a *app) runDir(h *drill.Header) (string, error) {
	if err := tree.Private(a.drillsDir()); err != nil {
		return "", err
	}
	name := h.Run
	for n := 2; ; n++ {
		dir := filepath.Join(a.drillsDir(), h.Run)
		err := os.Mkdir(dir, 0o700)
		if !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
		h.Run = fmt.Sprintf("%s-%d", name, n)
	}
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

// asker asks at the terminal; nil if there is none.
func (a *app) asker(ctx context.Context) func(ctx context.Context, person, item, what string) (bool, string, error) {
	if f, ok := a.stdin.(*os.File); !ok || !isTerminal(f) {
		return nil
	}
	return a.asks(ctx)
}

// asks waits for a word of whoever sits there, or until the drill ends. Nothing is read
// before somebody is asked.
func (a *app) asks(ctx context.Context) func(ctx context.Context, person, item, what string) (bool, string, error) {
	typed := sync.OnceValue(func() <-chan string { return readLines(ctx, a.stdin) })
	return func(ctx context.Context, person, item, what string) (bool, string, error) {
		a.ui.end()
		fmt.Fprintf(a.stderr, "%s, %s is for you: %s\nDo you approve? [y/n, then why] ", person, item, plainLine(what))
		select {
		case <-ctx.Done():
			return false, "", ctx.Err()
		case line, ok := <-typed():
			if !ok {
				return false, "", errors.New("nobody answered at the terminal")
			}
			word, reason, _ := strings.Cut(strings.TrimSpace(line), " ")
			return strings.HasPrefix(strings.ToLower(word), "y"), reason, nil
		}
	}
}

// noDrillError says that there is no such run.
type noDrillError struct{ run string }

func (e *noDrillError) Error() string { return "no drill " + e.run + " was run here" }

// Hint says what to type.
func (e *noDrillError) Hint() string { return "trysail drill list" }

// otherScenarioError says that a run would be judged by what it did not run.
type otherScenarioError struct{ dir string }

func (e *otherScenarioError) Error() string {
	return e.dir + ": scenario.yaml is not the one that its history is of"
}

// Hint says what to do.
func (e *otherScenarioError) Hint() string {
	return "put the file back whose sha256 the first line of history.jsonl names"
}

// readRun reads a run's scenario and history.
func (a *app) readRun(run string) (dir string, p *drill.Plan, history []drill.Record, err error) {
	if run != filepath.Base(run) || strings.HasPrefix(run, ".") {
		return "", nil, nil, usage("%q is not the name of a run", run)
	}
	dir = filepath.Join(a.drillsDir(), run)
	if _, err := tree.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil, &noDrillError{run}
	}
	p, _, err = readScenario(filepath.Join(dir, "scenario.yaml"))
	if err != nil {
		return "", nil, nil, err
	}
	data, err := tree.ReadFile(filepath.Join(dir, "history.jsonl"), maxDocument)
	if err != nil {
		return "", nil, nil, err
	}
	if history, err = drill.ReadHistory(data); err != nil {
		return "", nil, nil, err
	}
	if history[0].Header.Scenario != p.Digest {
		return "", nil, nil, &otherScenarioError{dir}
	}
	return dir, p, history, nil
}
