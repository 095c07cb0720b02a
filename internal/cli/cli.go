// Package cli is the command line: one file for each command, and the ways in
// which all of them speak.
//
// Standard output is the answer, standard error everything else: what is being
// done (redrawn on a terminal, one line a change elsewhere), warnings, errors.
// With --json the answer is one object, errors included. An error says what
// failed, why, and what to type next; the hints are the errors' own, attached
// here and nowhere else.
//
// Exit codes: 0 done and the answer is yes, 1 failed, 2 wrong usage, 3 done and
// the answer is no, 4 waiting for a person, 10 control does not answer, 11 held by
// another, 130 interrupted.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"trysail/internal/api"
	"trysail/internal/clock"
	"trysail/internal/depot"
	"trysail/internal/ledger"
	"trysail/internal/lock"
	"trysail/internal/machine"
	"trysail/internal/rebuild"
	"trysail/internal/rootless"
	"trysail/release"
)

// The exit codes of every command.
const (
	exitYes         = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNo          = 3
	exitWaiting     = 4
	exitAway        = 10
	exitHeld        = 11
	exitInterrupted = 130
)

const exitHelp = "\n\nExit status: 0 yes, 1 failed, 2 wrong usage, 3 the answer is no, 4 waiting for a person, 10 control does not answer, 11 held by another run, 130 interrupted."

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// answerNo ends a command whose answer was given, and is no.
type answerNo struct{}

func (answerNo) Error() string { return "the answer is no" }

// waiting ends a command that can go on only when a person acts.
type waiting struct{}

func (waiting) Error() string { return "waiting for a person" }

// hinted is any error that says what to type next.
type hinted interface{ Hint() string }

// app is what every command shares.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
	verbose        bool
	state          string
	depotDir       string
	control        string
	fingerprint    string // of the control that client speaks to
	drillClock     string
	umask          int // of who called this program
	clock          *clock.Clock
	ui             *ui
	log            *slog.Logger
}

// Run is the whole program. It returns the exit status. umask is the caller's,
// which captured builds have.
func Run(ctx context.Context, args []string, umask int, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{umask: umask, stdin: stdin, stdout: stdout, stderr: stderr}
	root, err := a.rootCommand()
	if err != nil {
		return a.report(ctx, nil, err)
	}
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	a.json = a.json || a.ui == nil && asksForJSON(args)
	if errors.Is(err, errNeedsNamespace) {
		var code int
		if code, err = rootless.Enter(ctx, cmd.Annotations[rootlessKey] == rootlessAlone, args, stdin, stdout, stderr); err == nil {
			return code
		}
	}
	if a.ui != nil {
		a.ui.end()
	}
	return a.report(ctx, cmd, err)
}

// rootCommand is the command line, with all commands and their flags.
func (a *app) rootCommand() (*cobra.Command, error) {
	root := &cobra.Command{
		Use:   "trysail",
		Short: "Would we still ship on time if the build server died right now?",
		Long:  "Trysail captures what a build server is while it watches a real release build,\nrebuilds it from nothing and offline, and proves it by identical bytes." + exitHelp,
		Example: "  sudo trysail rehearse --output 'dist/*.tar.gz' -- make dist\n" +
			"  trysail release start 4.2 --runbook RELEASE.md\n" +
			"  sudo trysail drill run drills/two-servers-lost.yaml",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       Version(),
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			// Here, and not only where cobra does it, because it is a matter of the command line.
			if err := c.ValidateFlagGroups(); err != nil {
				return usageError{err}
			}
			if err := a.begin(); err != nil {
				return err
			}
			if c.Annotations[rootlessKey] != "" && os.Geteuid() != 0 {
				return errNeedsNamespace
			}
			return nil
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("trysail {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print the answer as one JSON object")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "show the build's own output and what is done")
	f.StringVar(&a.state, "state", "", "directory for what must last (default $TRYSAIL_STATE, else /var/lib/trysail, or $XDG_DATA_HOME/trysail without root)")
	f.StringVar(&a.depotDir, "depot", "", "directory of the originals (default $TRYSAIL_DEPOT, else depot/ in the state directory)")
	f.StringVar(&a.control, "control", "", "link to control, or a file that holds it (default $TRYSAIL_CONTROL, else the control on this machine)")
	f.StringVar(&a.drillClock, "drill-clock", "", "`FILE` that sets the clock of a drill's machine")
	if err := f.MarkHidden("drill-clock"); err != nil {
		return nil, err
	}
	for _, group := range a.groups() {
		root.AddGroup(&cobra.Group{ID: group.name, Title: group.name + ":"})
		for _, c := range group.commands {
			c.GroupID = group.name
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID(setUp)
	root.SetCompletionCommandGroupID(setUp)
	addExamples(root)
	checkWords(root)
	return root, nil
}

const setUp = "Set-up"

// Help lists commands in the order of use. It is a setting of the library, for all command lines.
func init() { cobra.EnableCommandSorting = false }

type group struct {
	name     string
	commands []*cobra.Command
}

// groups are the commands in the order in which people need them.
func (a *app) groups() []group {
	return []group{
		{"Build server", []*cobra.Command{a.rehearseCommand(), a.captureCommand(), a.rebuildCommand(), a.driftCommand(), a.inspectCommand(), a.depotCommand()}},
		{"Release", []*cobra.Command{a.runbookCommand(), a.releaseCommand(), a.diligenceCommand()}},
		{"Drill", []*cobra.Command{a.drillCommand()}},
		{"Evidence", []*cobra.Command{a.verifyCommand(), a.reproveCommand(), a.keyCommand()}},
		{setUp, []*cobra.Command{a.doctorCommand(), a.serveCommand(), a.agentCommand(), a.fleetCommand()}},
	}
}

func (a *app) begin() error {
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelInfo
	}
	a.ui = newUI(a.stderr, isTerminal(a.stderr))
	a.log = slog.New(slog.NewTextHandler(a.ui, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
		if at.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return at
	}}))
	if a.state == "" {
		a.state = os.Getenv("TRYSAIL_STATE")
	}
	if a.depotDir == "" {
		a.depotDir = os.Getenv("TRYSAIL_DEPOT")
	}
	if a.state == "" {
		a.state = "/var/lib/trysail"
		if os.Geteuid() != 0 || rootless.Inside() {
			base := os.Getenv("XDG_DATA_HOME")
			if base == "" {
				base = filepath.Join(os.Getenv("HOME"), ".local/share")
			}
			a.state = filepath.Join(base, "trysail")
		}
	}
	if a.depotDir == "" {
		a.depotDir = filepath.Join(a.state, "depot")
	}
	a.clock = &clock.Clock{}
	if a.drillClock != "" {
		var err error
		if a.clock, err = clock.Open(a.drillClock, a.state); err != nil {
			return err
		}
		a.log.Warn("this machine takes part in a drill, which sets its clock")
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// report turns the outcome into an exit status and tells the user of errors.
func (a *app) report(ctx context.Context, cmd *cobra.Command, err error) int {
	var no answerNo
	var person waiting
	var away *api.UnreachableError
	switch {
	case err == nil:
		return exitYes
	case errors.As(err, &no):
		return exitNo
	case errors.As(err, &person):
		return exitWaiting
	}
	code := exitFailed
	var held *rebuild.HeldError
	var seat *ledger.HeldError
	var taken *lock.HeldError
	var use usageError
	switch {
	case errors.As(err, &held), errors.As(err, &seat), errors.As(err, &taken):
		code = exitHeld
	case ctx.Err() != nil:
		code, err = exitInterrupted, errors.New("interrupted; nothing was left behind")
	case errors.As(err, &away):
		code = exitAway
	case errors.As(err, &use), cmd != nil && a.ui == nil: // cobra took it for no command line
		code = exitUsage
	}
	err = spoken(err)
	hint := ""
	var h hinted
	var p *api.Problem
	var joined *joinedError
	switch {
	case errors.As(err, &joined):
		hint = joined.Hint() // this machine knows better
	case errors.As(err, &p) && p.Hint != "":
		hint = p.Hint // control knows best
	case errors.As(err, &h):
		hint = h.Hint()
	case errors.Is(err, syscall.ENOSPC):
		hint = "nothing was lost: free space, or choose another disk with --state DIR, and run the same command again"
	}
	if a.json {
		type problem struct {
			Message string `json:"message"`
			Hint    string `json:"hint,omitempty"`
			Exit    int    `json:"exit"`
			Details any    `json:"details,omitempty"`
		}
		var facts interface{ Details() any }
		var details any
		if errors.As(err, &facts) {
			details = facts.Details()
		}
		if jerr := a.printJSON(struct {
			Error problem `json:"error"`
		}{problem{err.Error(), hint, code, details}}); jerr != nil {
			return exitFailed
		}
		return code
	}
	said := "trysail: " + plainLines(err.Error()) + "\n"
	if isTerminal(a.stderr) {
		said = fold(said, widthOf(a.stderr))
	}
	fmt.Fprint(a.stderr, said)
	if hint != "" {
		fmt.Fprintln(a.stderr, "  →", plainLines(hint))
	}
	return code
}

// spoken gives an error of the system in words, where its own are no help.
func spoken(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "listen" && op.Addr != nil {
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return &listenError{op.Addr.String(), "another program listens there", "if it is control, it runs already; else choose another address: --listen ADDRESS:PORT"}
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return &listenError{op.Addr.String(), "this machine has no such address", "ip address lists those that it has; choose one: --listen ADDRESS:PORT"}
		case errors.Is(err, syscall.EACCES):
			return &listenError{op.Addr.String(), "ports below 1024 need root", "choose another: --listen ADDRESS:PORT"}
		}
	}
	return err
}

// listenError says why nothing can listen at an address.
type listenError struct{ address, why, remedy string }

func (e *listenError) Error() string { return "cannot listen at " + e.address + ": " + e.why }

// Hint says what to do.
func (e *listenError) Hint() string { return e.remedy }

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printf prints lines of the answer. What others wrote is in the arguments: it moves
// nothing on a terminal and begins no line.
func (a *app) printf(format string, args ...any) {
	if a.json {
		return
	}
	said := slices.Clone(args)
	for i, x := range said {
		said[i] = plainly(x)
	}
	a.answer(fmt.Sprintf(format, said...))
}

// answer writes what was asked for, in lines that a terminal has room for.
func (a *app) answer(text string) {
	if isTerminal(a.stdout) {
		text = fold(text, widthOf(a.stdout))
	}
	fmt.Fprint(a.stdout, text)
}

// print prints text of several lines.
func (a *app) print(text string) {
	if !a.json {
		a.answer(plainLines(text))
	}
}

// plainly makes one line of an argument that is text; others stay as they are.
func plainly(x any) any {
	is := reflect.ValueOf(x).Kind() == reflect.String
	switch v := x.(type) {
	case error:
		return plainLine(v.Error())
	case fmt.Stringer:
		if is {
			return plainLine(v.String())
		}
	default:
		if is {
			return plainLine(reflect.ValueOf(x).String())
		}
	}
	return x
}

func plainLine(text string) string {
	return release.StripControl(strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ").Replace(text))
}

// plainLines makes text plain whose lines and tabs are to stay.
func plainLines(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return []rune(release.StripControl(string(r)))[0]
	}, text)
}

// openState opens the state directory; it needs root.
func (a *app) openState(ctx context.Context) (*machine.State, error) {
	return machine.OpenState(ctx, a.state, a.runDirectory(), a.log)
}

// openScratch opens the state directory for scratch directories alone, as whoever calls.
func (a *app) openScratch(ctx context.Context) (*machine.State, error) {
	return machine.OpenScratch(ctx, a.state, a.runDirectory(), a.log)
}

// runDirectory holds what ends with the machine's run. Without root, mounts end with a
// namespace.
func (a *app) runDirectory() string {
	if os.Geteuid() != 0 || rootless.Inside() {
		return filepath.Join(a.state, "run")
	}
	return "/run/trysail"
}

// rootlessKey annotates commands that work without root, in a user namespace.
const (
	rootlessKey   = "rootless"
	rootlessHere  = "with this machine's network"
	rootlessAlone = "without any network"
)

var errNeedsNamespace = errors.New("this command runs in a user namespace")

func (a *app) openDepot() (*depot.Depot, error) { return depot.Open(a.depotDir) }
