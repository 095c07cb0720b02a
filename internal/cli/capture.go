package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/capture"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/tree"
	"trysail/internal/vcs"
)

// captureOptions are the flags that capture and rehearse share.
type captureOptions struct {
	outputs    []string
	keep       string
	name       string
	build      string
	user       string
	env        []string
	recipients []string
	twice      bool
	blueprint  string
	yes        bool
	explain    string
}

func (o *captureOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringArrayVar(&o.outputs, "output", nil, "`GLOB` of what the build makes, relative to the root of the working copy (repeatable)")
	f.StringVar(&o.keep, "keep", "used", "packages to keep: used (and what they need) or all")
	f.StringVar(&o.name, "name", "", "name of the blueprint (default: the working copy's)")
	f.StringVar(&o.build, "build", "", "name of this build, where several share one machine")
	f.StringVar(&o.user, "user", "", "user to build as (default: the owner of the working copy; in a copy of root, who called sudo, else root)")
	f.StringArrayVar(&o.env, "env", nil, "pass a variable to the build: `NAME` or NAME=VALUE (repeatable)")
	f.StringArrayVar(&o.recipients, "recipient", nil, "encrypt secrets to this age recipient or SSH public key (repeatable)")
	f.BoolVar(&o.twice, "twice", false, "build a second time, to tell where the build differs from itself")
	f.BoolVar(&o.yes, "yes", false, "write the blueprint without asking")
	f.StringVar(&o.blueprint, "blueprint", "", "directory of the blueprint (default: trysail/ in the working copy)")
}

func (a *app) captureCommand() *cobra.Command {
	var o captureOptions
	cmd := &cobra.Command{
		Use:   "capture --output GLOB -- COMMAND …",
		Short: "Watch a release build and write down what the machine is",
		Long:  "Capture builds a clean checkout of the committed revision, at the working copy's own path and with\nempty caches, while the kernel reports every file its processes use. It writes the blueprint\n(trysail/ in the working copy) and fills the depot. The machine itself is not changed." + exitHelp,
		Example: "  sudo trysail capture --output 'dist/*.tar.gz' -- make dist\n" +
			"  trysail capture --explain /usr/bin/gcc",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.explain != "" {
				return a.explain(cmd.Context(), o)
			}
			if err := unquoted(args, o.outputs); err != nil {
				return err
			}
			return a.capture(cmd.Context(), o, args)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&o.explain, "explain", "", "say which class a `PATH` was put in, and why, without building")
	return cmd
}

func (o *captureOptions) check(args []string) error {
	if len(args) == 0 {
		return usage("which command builds the release? Put it after --, for instance: -- make dist")
	}
	if len(o.outputs) == 0 {
		return usage("which files does the release consist of? Give --output, for instance: --output 'dist/*.tar.gz'")
	}
	for _, g := range o.outputs {
		if filepath.IsAbs(g) || !filepath.IsLocal(g) || !doublestar.ValidatePattern(g) {
			return usage("--output %q is not a glob relative to the working copy's root", g)
		}
	}
	if o.keep != "used" && o.keep != "all" {
		return usage("--keep is used or all, not %q", o.keep)
	}
	return nil
}

func (a *app) capture(ctx context.Context, o captureOptions, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	if err := a.mayWrite(o); err != nil {
		return err
	}
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	dir, err := o.directory(ctx)
	if err != nil {
		return err
	}
	draft, err := a.captureDraft(ctx, st, d, o, args, dir)
	if err != nil {
		return err
	}
	if err := a.write(ctx, draft, o, dir); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Blueprint string              `json:"blueprint"`
			Reference string              `json:"reference"`
			Capture   capture.Stats       `json:"capture"`
			Attention []capture.Attention `json:"attention"`
		}{dir, draft.Blueprint.Reference(), draft.Stats, nonNil(draft.Attention)})
	}
	a.printf("Captured. Commit %s, keep the depot (%s) where this machine's loss cannot reach it, and prove it: trysail rebuild --prove\n", dir, d.Dir())
	return nil
}

// mayWrite makes sure, before anything is built, that someone can look at the
// plan: version control cannot forget what is written to the working copy.
func (a *app) mayWrite(o captureOptions) error {
	in, terminal := a.stdin.(*os.File)
	if o.yes || (terminal && isTerminal(in) && isTerminal(a.stderr)) {
		return nil
	}
	return usage("the plan needs a confirmation, and standard input is no terminal: add --yes to write it without one")
}

// write shows the plan and writes the blueprint, once someone has said yes.
func (a *app) write(ctx context.Context, draft *capture.Draft, o captureOptions, dir string) error {
	a.ui.end()
	a.plan(draft, dir)
	if !o.yes && !a.ask("Write this blueprint to "+dir+"?") {
		return errors.New("not written; the working copy is as it was")
	}
	return draft.Write(ctx, dir)
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// directory is where the blueprint stands or will stand.
func (o *captureOptions) directory(ctx context.Context) (string, error) {
	if o.blueprint != "" {
		return filepath.Abs(o.blueprint)
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	root, err := vcs.FindRoot(wd)
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "trysail"), nil
}

// captureDraft runs a capture with this command's flags.
func (a *app) captureDraft(ctx context.Context, st *machine.State, d *depot.Depot, o captureOptions, args []string, dir string) (*capture.Draft, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	co := capture.Options{
		State: st, Depot: d, Dir: wd, Name: o.name, Build: o.build, Command: args, Outputs: o.outputs, User: o.user, Env: o.env, Umask: a.umask,
		KeepAll: o.keep == "all", Twice: o.twice, Recipients: o.recipients, Log: a.log, Step: a.ui.Step, Progress: a.ui.Progress, Now: time.Now,
	}
	if dir != "" {
		if err := capture.CheckDirectory(dir); err != nil {
			return nil, err
		}
		b, sum, err := readBlueprint(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		co.Into, co.IntoSum = b, sum
	}
	out := a.buildOutput()
	co.Output = out
	// A build machine's memory is the build's: this program takes as little as it
	// can, for some more of its own time, of which it needs hardly any.
	defer debug.SetGCPercent(debug.SetGCPercent(40))
	draft, err := capture.Run(ctx, co)
	var failed *build.FailedError
	if errors.As(err, &failed) && !a.verbose {
		a.ui.end()
		fmt.Fprintln(a.stderr, out.last(40))
	}
	return draft, err
}

func (a *app) buildOutput() *tail {
	t := &tail{}
	if a.verbose {
		t.also = a.ui
	}
	return t
}

// maxDocument bounds a blueprint, a runbook, a scenario and whatever else people
// write or review, in bytes.
const maxDocument = 64 << 20

// readBlueprint reads and checks a blueprint directory.
func readBlueprint(dir string) (*blueprint.Blueprint, blueprint.Sum, error) {
	d, err := tree.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	data, err := d.ReadFile("blueprint.yaml", maxDocument)
	if err != nil {
		return nil, nil, err
	}
	b, err := blueprint.Parse(filepath.Join(dir, "blueprint.yaml"), data)
	if err != nil {
		return nil, nil, err
	}
	if data, err = d.ReadFile("blueprint.sum", maxDocument); errors.Is(err, fs.ErrNotExist) && b.Unobserved {
		return b, nil, nil // a draft keeps no originals
	} else if err != nil {
		return nil, nil, err
	}
	sum, err := blueprint.ParseSum(filepath.Join(dir, "blueprint.sum"), data)
	return b, sum, err
}

// plan shows what would be written, before it is.
func (a *app) plan(d *capture.Draft, dir string) {
	b := d.Blueprint
	p := func(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }
	p("\n%s: %s %s, %s", b.Name, b.Machine.Distribution, b.Machine.Release, b.Machine.Architecture)
	used := 0
	for _, x := range b.Packages {
		if x.Why == "used" {
			used++
		}
	}
	p("  %d packages (%d used by the build, the others needed by those)", len(b.Packages), used)
	for _, x := range b.Packages {
		if x.Held {
			p("  held      %s  (apt does not upgrade it)", x.Key())
		}
	}
	for _, s := range b.Software {
		p("  software  %s  (%d files, %s)", s.Path, s.Files, size(s.Size))
	}
	for _, f := range b.Config {
		mark := ""
		if f.Encrypted {
			mark = ", encrypted"
		}
		p("  config    %s  (%s%s)", f.Path, f.Why, mark)
	}
	for _, o := range b.Overrides {
		p("  override  %s  %s %s  (%s)", o.Path, o.Mode, o.Owner, o.Why)
	}
	for _, w := range b.Withheld {
		p("  withheld  %s  (%s)", w.Path, w.Why)
	}
	for _, x := range b.Builds {
		if len(x.EnvironmentWithheld) > 0 {
			p("  variables not passed to build %s: %s", x.Name, strings.Join(x.EnvironmentWithheld, " "))
		}
	}
	a.attention(d.Attention)
	p("")
}

func (a *app) attention(list []capture.Attention) {
	for i, at := range list {
		if i == 12 {
			fmt.Fprintf(a.stderr, "  ! and %d more (--json lists all)\n", len(list)-i)
			return
		}
		fmt.Fprintf(a.stderr, "  ! %s: %s\n      → %s\n", at.Item, at.Why, at.Remedy)
	}
}

func (a *app) ask(question string) bool {
	fmt.Fprint(a.stderr, question+" [y/N] ")
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	return err == nil && strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "y")
}

// explain answers from the last capture's observation.
func (a *app) explain(ctx context.Context, o captureOptions) error {
	dir, err := o.directory(ctx)
	if err != nil {
		return err
	}
	b, _, err := readBlueprint(dir)
	if err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	target, err := filepath.Abs(o.explain)
	if err != nil {
		return err
	}
	var answers []blueprint.Observed
	for _, x := range b.Builds {
		if x.Observation == "" || (o.build != "" && o.build != x.Name) {
			continue
		}
		data, err := d.ReadAll(ctx, x.Observation, 1<<30)
		if err != nil {
			return err
		}
		list, err := blueprint.ParseObservation(data)
		if err != nil {
			return err
		}
		for _, ob := range blueprint.Explain(list, target) {
			answers = append(answers, ob)
			a.printf("%s: %s\n  class %s%s; the build's operations: %s\n", ob.Path, ob.Why, ob.Class, item(ob), ob.Ops)
		}
	}
	if a.json {
		return a.printJSON(nonNil(answers))
	}
	if len(answers) == 0 {
		a.printf("%s: no captured build used it or looked for it\n", target)
		return answerNo{}
	}
	return nil
}

func item(o blueprint.Observed) string {
	if o.Item == "" {
		return ""
	}
	return " (" + o.Item + ")"
}
