package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trysail/evidence"
	"trysail/internal/strict"
	"trysail/internal/tree"
	"trysail/internal/vcs"
	"trysail/runbook"
)

func (a *app) runbookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runbook",
		Short: "The release process as a document: check, show, init",
		Long:  "A runbook is a Markdown document that people can follow with every tool gone, and that Trysail runs.\ndocs/runbook.md has the dialect." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  needsCommand,
	}
	var fleet bool
	check := &cobra.Command{
		Use: "check [FILE]", Short: "Report what a reader, Runme and Trysail would read differently", Args: cobra.MaximumNArgs(1),
		Long: "Check reads a runbook (default: RELEASE.md) strictly and prints every error with its line and remedy.\nIt exits with 3 if there are any. With --fleet it also asks control whether the machines and the people are there\nthat the runbook needs: keys that are valid until the ship date, files of signers, machines of each role, a way to tell people." + exitHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runbookCheck(cmd.Context(), runbookFile(args), fleet)
		},
	}
	check.Flags().BoolVar(&fleet, "fleet", false, "also check the signers' keys, and ask control for machines and for whom it tells")
	show := &cobra.Command{
		Use: "show [FILE]", Short: "Draw the plan: order, what runs beside what, critical path, budgets", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.runbookShow(runbookFile(args)) },
	}
	var dir string
	begin := &cobra.Command{
		Use: "init [FILE]", Short: "Write a first runbook from a captured blueprint", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runbookInit(cmd.Context(), runbookFile(args), dir)
		},
	}
	begin.Flags().StringVar(&dir, "blueprint", "", "directory of the blueprint (default: trysail/ in the working copy, or here)")
	var who string
	phases := &cobra.Command{
		Use: "phases [PHASE…]", Short: "List phases of due diligence that are ready to include, or include them in RELEASE.md",
		Long: "Phases lists what is ready; with names it writes them into RELEASE.md, before what publishes, as if you had\nwritten them: edit them as you like." + exitHelp,
		RunE: func(_ *cobra.Command, args []string) error { return a.runbookPhases(args, who) },
	}
	phases.Flags().StringVar(&who, "who", "", "`PERSON` or group who signs (default: the first approver)")
	cmd.AddCommand(check, show, begin, phases)
	return cmd
}

// runbookPhases lists what is ready to include, or includes it.
func (a *app) runbookPhases(names []string, who string) error {
	if len(names) == 0 {
		if a.json {
			list := []map[string]string{}
			for _, p := range runbook.Phases() {
				list = append(list, map[string]string{"phase": p.Name, "what": p.What})
			}
			return a.printJSON(list)
		}
		for _, p := range runbook.Phases() {
			a.printf("%-14s %s\n", p.Name, p.What)
		}
		return nil
	}
	file := runbookFile(nil)
	r, data, err := readRunbook(file)
	if err != nil {
		return err
	}
	if who == "" {
		if len(r.Approvers) == 0 {
			return usage("say who signs: --who PERSON")
		}
		who = r.Approvers[0]
	}
	data, err = r.Include(data, names, who)
	if err != nil {
		return usage("%v", err)
	}
	// What is written reads one way, or nothing is.
	if _, err := runbook.Parse(file, data, time.LoadLocation); err != nil {
		return err
	}
	if err := tree.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			File   string   `json:"file"`
			Phases []string `json:"phases"`
		}{file, names})
	}
	a.printf("%s has %s. Next: trysail runbook check\n", file, strings.Join(names, ", "))
	return nil
}

func runbookFile(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "RELEASE.md"
}

// noRunbookError says that there is no document.
type noRunbookError struct{ file string }

func (e *noRunbookError) Error() string { return "there is no runbook " + e.file }

func (e *noRunbookError) Hint() string {
	return "name the file, or write a first one: trysail runbook init " + e.file
}

func readRunbook(file string) (*runbook.Runbook, []byte, error) {
	data, err := tree.ReadFile(file, maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, &noRunbookError{file}
	}
	if err != nil {
		return nil, nil, err
	}
	r, err := runbook.Parse(file, data, time.LoadLocation)
	return r, data, err
}

type remark struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"`
}

func (a *app) runbookCheck(ctx context.Context, file string, fleet bool) error {
	r, _, err := readRunbook(file)
	var wrong runbook.Errors
	if err != nil && !errors.As(err, &wrong) {
		return err
	}
	list := []remark{}
	if r != nil {
		wrong = r.Unshippable()
	}
	for _, e := range wrong {
		list = append(list, remark{e.File, e.Line, e.What, e.Remedy})
	}
	notes := []remark{}
	if r != nil {
		for _, n := range r.Plan().Notes {
			notes = append(notes, remark{File: file, Line: n.Line, What: n.Text})
		}
	}
	if r != nil && len(list) == 0 && fleet {
		found, err := a.checkFleet(ctx, file, r)
		if err != nil {
			return err
		}
		for _, m := range found {
			x := remark{cmp.Or(m.File, file), m.Line, m.What, m.Remedy}
			if m.Wrong {
				list = append(list, x)
			} else {
				notes = append(notes, x)
			}
		}
	}
	if a.json {
		err = a.printJSON(struct {
			Errors []remark `json:"errors"`
			Notes  []remark `json:"notes"`
		}{list, notes})
		if err != nil {
			return err
		}
	}
	for _, f := range list {
		a.printf("%s: %s\n  → %s\n", f.at(), f.What, f.Remedy)
	}
	for _, f := range notes {
		a.printf("%s: note: %s\n", f.at(), f.What)
		if f.Remedy != "" {
			a.printf("  → %s\n", f.Remedy)
		}
	}
	if len(list) > 0 {
		a.printf("%s\n", plural(len(list), "error"))
		return answerNo{}
	}
	a.printf("%s reads one way: %s, %s\n", file, plural(len(r.Phases), "phase"), plural(len(r.Items), "item"))
	return nil
}

// at is where it stands; the fleet stands in no line.
func (r remark) at() string {
	if r.Line == 0 {
		return r.File
	}
	return fmt.Sprintf("%s:%d", r.File, r.Line)
}

// checkFleet holds a runbook of the working copy against the keys and machines there are.
func (a *app) checkFleet(ctx context.Context, file string, r *runbook.Runbook) ([]matter, error) {
	check := preflight{book: r, ship: r.Ship}
	for _, x := range []struct {
		name string
		read func(name string, data []byte) error
	}{
		{r.Signers, func(name string, data []byte) (err error) {
			check.signers, err = evidence.ParseSigners(name, data)
			return err
		}},
		{r.Revoked, func(name string, data []byte) (err error) {
			check.revoked, err = evidence.ParseRevoked(name, data)
			return err
		}},
	} {
		if x.name == "" {
			continue
		}
		name := filepath.Join(filepath.Dir(file), x.name)
		data, err := tree.ReadFile(name, maxDocument)
		if errors.Is(err, fs.ErrNotExist) {
			return []matter{{Wrong: true, File: file, Line: 1, What: "there is no file " + name, Remedy: "write it, and commit it: docs/evidence.md says how"}}, nil
		} else if err != nil {
			return nil, err
		}
		var wrong *strict.Error
		if err := x.read(name, data); errors.As(err, &wrong) {
			return []matter{{Wrong: true, File: wrong.File, Line: wrong.Line, What: wrong.What, Remedy: wrong.Remedy}}, nil
		} else if err != nil {
			return nil, err
		}
	}
	w, err := vcs.Find(ctx, filepath.Dir(file))
	var none *vcs.NoCopyError
	switch {
	case err == nil:
		check.author = w.Author
	case !errors.As(err, &none):
		return nil, err
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	if err := check.ask(ctx, c); err != nil {
		return nil, err
	}
	return check.look(), nil
}

func (a *app) runbookShow(file string) error {
	r, _, err := readRunbook(file)
	if err != nil {
		return err
	}
	p := r.Plan()
	if a.json {
		return a.printJSON(showJSON(r, p))
	}
	if r.Title != "" {
		a.printf("%s\n", r.Title)
	}
	if !r.Ship.IsZero() {
		a.printf("Ships %s\n", runbook.FormatTime(r.Ship, r.Team.Zone))
	}
	on := map[string]bool{}
	for _, n := range p.Critical {
		on[n] = true
	}
	for i, w := range p.Waves {
		a.printf("\n%d.\n", i+1)
		for _, n := range w {
			x := r.Item(n)
			mark := " "
			if on[n] {
				mark = "▶"
			}
			a.printf(" %s %-24s %-10s %8s  %s\n", mark, n, x.Kind, budget(x.Budget), about(r, x))
		}
	}
	a.printf("\nCritical path (▶): %s, %s\n", strings.Join(p.Critical, " → "), budget(p.Length))
	a.printf("Machines: %s. People: %s", budget(p.Machines), budget(p.People))
	if r.Budget > 0 {
		a.printf(" of %s", budget(r.Budget))
	}
	a.printf(".\n")
	for _, n := range p.Notes {
		a.printf("  ! %s:%d: %s\n", file, n.Line, n.Text)
	}
	return nil
}

// about says in words what is particular to an item.
func about(r *runbook.Runbook, x *runbook.Item) string {
	var words []string
	switch x.Kind {
	case runbook.SignOff:
		who := "@" + strings.Join(x.Asked, ", @")
		if x.Approvals > 1 {
			who = fmt.Sprintf("%d of %s", x.Approvals, who)
		}
		words = append(words, who)
	case runbook.Wait:
		switch at := x.Until.At; {
		case !at.IsZero():
			words = append(words, "until "+runbook.FormatTime(at, r.Team.Zone))
		case x.Until.Before == 0:
			words = append(words, "until the ship date")
		default:
			words = append(words, "until "+budget(x.Until.Before)+" before the ship date")
		}
	default:
		if plain(r, x) {
			words = append(words, x.Role+" (plain)")
		} else {
			words = append(words, x.Role)
		}
		if x.Gold {
			words = append(words, "gold")
		}
	}
	if len(x.Needs) > 0 {
		words = append(words, "needs "+strings.Join(x.Needs, ", "))
	}
	return strings.Join(words, ", ")
}

func budget(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return runbook.FormatDuration(d)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

type shownItem struct {
	Name     string       `json:"name"`
	Kind     runbook.Kind `json:"kind"`
	Phase    string       `json:"phase"`
	Line     int          `json:"line"`
	Needs    []string     `json:"needs"`
	Budget   float64      `json:"budget_seconds"`
	Wave     int          `json:"wave"` // from 1: nothing in one wave needs another of it
	Critical bool         `json:"critical"`

	Role  string `json:"role,omitempty"`  // of what runs
	Plain bool   `json:"plain,omitempty"` // on its host, in no rebuilt server
	Gold  bool   `json:"gold,omitempty"`

	Asked     []string `json:"asked,omitempty"`     // of a sign-off, as written: people and groups
	Signers   []string `json:"signers,omitempty"`   // people, groups expanded
	Approvals int      `json:"approvals,omitempty"` // how many of them must say yes

	Until *shownMoment `json:"until,omitempty"` // of a wait
}

type shownMoment struct {
	At     time.Time `json:"at,omitzero"` // zero as long as no ship date is known
	Before *float64  `json:"before_ship_seconds,omitempty"`
}

type shown struct {
	Title    string      `json:"title"`
	Digest   string      `json:"digest"`
	Release  string      `json:"release,omitempty"`
	Ship     time.Time   `json:"ship,omitzero"`
	Budget   float64     `json:"budget_seconds,omitempty"` // of people's time
	Items    []shownItem `json:"items"`
	Critical []string    `json:"critical"`
	Length   float64     `json:"critical_seconds"`
	Machines float64     `json:"machine_seconds"`
	People   float64     `json:"people_seconds"`
	Notes    []remark    `json:"notes"`
}

func showJSON(r *runbook.Runbook, p *runbook.Plan) shown {
	s := shown{
		Title: r.Title, Digest: r.Digest, Release: r.Release, Ship: r.Ship, Budget: r.Budget.Seconds(), Critical: p.Critical, Length: p.Length.Seconds(), Machines: p.Machines.Seconds(),
		People: p.People.Seconds(), Notes: []remark{}, Items: []shownItem{},
	}
	for i, w := range p.Waves {
		for _, n := range w {
			x := r.Item(n)
			it := shownItem{
				Name: n, Kind: x.Kind, Phase: x.Phase, Line: x.Line, Needs: append([]string{}, x.Needs...), Budget: x.Budget.Seconds(), Wave: i + 1,
				Role: x.Role, Plain: plain(r, x), Gold: x.Gold, Asked: x.Asked, Signers: x.Signers, Approvals: x.Approvals,
			}
			if x.Kind == runbook.Wait {
				it.Until = until(r, x.Until)
			}
			for _, c := range p.Critical {
				it.Critical = it.Critical || c == n
			}
			s.Items = append(s.Items, it)
		}
	}
	for _, n := range p.Notes {
		s.Notes = append(s.Notes, remark{File: r.File, Line: n.Line, What: n.Text})
	}
	return s
}

// plain tells whether a step runs on its host, in no rebuilt server.
func plain(r *runbook.Runbook, x *runbook.Item) bool {
	role := r.Role(x.Role)
	return role != nil && role.Blueprint == ""
}

func until(r *runbook.Runbook, m runbook.Moment) *shownMoment {
	s := &shownMoment{At: m.At}
	if m.At.IsZero() {
		before := m.Before.Seconds()
		s.Before = &before
		if !r.Ship.IsZero() {
			s.At = m.Time(r.Ship)
		}
	}
	return s
}

func (a *app) runbookInit(ctx context.Context, file, dir string) error {
	if _, err := tree.Lstat(file); err == nil {
		return usage("%s is there already: remove it, or name another file", file)
	}
	at, b, _, err := a.findBlueprint(ctx, dir)
	if err != nil {
		return err
	}
	rel, err := inRepository(at)
	if err != nil {
		return err
	}
	d := runbook.Draft{Title: b.Name, Blueprint: rel}
	for _, x := range b.Builds {
		d.Builds = append(d.Builds, runbook.DraftBuild{Name: x.Name, Command: x.Command, Directory: x.Directory, Outputs: x.Outputs, Seconds: x.Seconds})
	}
	text := d.Text()
	if _, err := runbook.Parse(file, text, time.LoadLocation); err != nil {
		return fmt.Errorf("no unambiguous runbook can be made from this blueprint: %w", err)
	}
	if err := writeNew(file, text); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			File string `json:"file"`
		}{file})
	}
	a.printf("Wrote %s. Edit the people and the ship date, then: trysail runbook show %s\n", file, file)
	return nil
}

// writeNew writes a file that is not there yet: what somebody else wrote meanwhile
// stays.
func writeNew(file string, text []byte) error {
	d, err := tree.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer d.Close()
	f, err := d.Create(filepath.Base(file), 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// repository is what the directories of a runbook's blueprints are relative to: the
// root of the working copy, or the working directory where there is none.
func repository() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	root, err := vcs.FindRoot(wd)
	var none *vcs.NoCopyError
	if errors.As(err, &none) {
		return none.Dir, nil
	}
	return root, err
}

// inRepository gives a directory as a runbook names it.
func inRepository(dir string) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	rel, ok, err := below(root, dir)
	if err == nil && !ok {
		err = usage("the blueprint in %s is not in the repository %s: a release takes it from there", dir, root)
	}
	return rel, err
}

// below gives the path below the root of a repository of what is named in the working
// directory, and whether it is below. The root is without links; that the name itself may be
// one is the team's own matter.
func below(root, name string) (string, bool, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return "", false, err
	}
	above, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return "", false, err
	}
	rel, err := filepath.Rel(root, filepath.Join(above, filepath.Base(name)))
	return filepath.ToSlash(rel), err == nil && filepath.IsLocal(rel), nil
}
