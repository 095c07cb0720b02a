package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/witness"
	"trysail/release"
	"trysail/runbook"
)

type releaseOptions struct {
	amended       string // the runbook of an amendment
	runbook, ship string
	clone         string // of the source; empty: the working copy
	into          string // of a report
	as, reason    string
	spent         time.Duration
	follow, runs  bool
	run           int
	rehearsers    []byte // who may sign in a drill, in place of the team
	source        bool
	machines, no  bool
	allowDirty    bool // what is not committed is left out
	force, yes    bool
	signers       bool
	signing       signOptions
	bundle        bundleOptions
	differences   []string
	checkpoint    checkpointOptions
}

func (a *app) releaseCommand() *cobra.Command {
	var o releaseOptions
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Run a release from its runbook on the fleet",
		Long:  "Release runs a runbook: it starts steps on machines, waits for people where people decide, and moves the\nbuild when a machine dies. The ledger has what happened." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  needsCommand,
	}
	add := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) }}
		cmd.AddCommand(c)
		return c
	}
	start := add("start VERSION", "Begin a release of the committed revision", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseStart(ctx, args[0], o)
	})
	start.Flags().StringVar(&o.runbook, "runbook", "RELEASE.md", "the runbook's `FILE`")
	start.Flags().StringVar(&o.ship, "ship", "", "ship date, if the runbook names none (2026-12-01T09:00:00Z)")
	start.Flags().BoolVar(&o.yes, "yes", false, "start without asking, for scripts")
	start.Flags().BoolVar(&o.force, "force", false, "start in spite of what is found wrong, with --reason")
	start.Flags().StringVar(&o.reason, "reason", "", "why, with --force; the ledger keeps it")
	dirty := func(c *cobra.Command) {
		c.Flags().BoolVar(&o.allowDirty, "allow-dirty", false, "leave out what the working copy has and the revision has not; the ledger names it")
	}
	dirty(start)
	add("list", "List the releases", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.releaseList(ctx) })
	add("status VERSION", "Show whether it ships on time, who must act, what runs where, what failed", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseStatus(ctx, args[0])
	})
	add("watch VERSION", "Follow the events, a line each", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseWatch(ctx, args[0])
	})
	add("wait VERSION", "Wait until it is over, or until only people can move it on (exit status 4)", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseWait(ctx, args[0])
	})
	add("events VERSION", "Print the ledger of the release, one event a line", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseEvents(ctx, args[0])
	})
	checkpoint := add("checkpoint VERSION", "Print a signed checkpoint of the ledger, and prove that the ledger continues an earlier one", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseCheckpoint(ctx, args[0], o.checkpoint)
	})
	checkpoint.Flags().StringVar(&o.checkpoint.since, "since", "", "check that what `FILE`, a checkpoint kept earlier, speaks of is still there unchanged (exit status 3 if not)")
	checkpoint.Flags().BoolVar(&o.checkpoint.key, "key", false, "print the key that checkpoints are verified with")
	checkpoint.Flags().BoolVar(&o.checkpoint.commit, "commit", false, "keep it in the working copy's version control too (trysail/checkpoints), if it follows what is there")
	checkpoint.Flags().BoolVar(&o.checkpoint.push, "push", false, "and push that")
	checkpoint.Flags().StringVar(&o.checkpoint.into, "into", "", "write it to `FILE`")
	checkpoint.Flags().StringVar(&o.checkpoint.stamp, "stamp", "", "have it time-stamped by the authority at `URL` (RFC 3161), into FILE"+witness.StampEnd+", and where it is committed")
	report := add("report VERSION", "Write a report: planned and measured times, work and waiting", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseReport(ctx, args[0], o.into)
	})
	report.Flags().StringVar(&o.into, "into", "", "write report.md, report.html and report.json into `DIR`")
	log := add("log VERSION STEP", "Print a step's log, of its last run if there were several", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		if o.runs {
			return a.releaseRuns(ctx, args[0], args[1])
		}
		return a.releaseLog(ctx, args[0], args[1], o.run, o.follow)
	})
	log.Flags().IntVar(&o.run, "run", 0, "the log of run number `N` (default: the last)")
	log.Flags().BoolVar(&o.runs, "runs", false, "list the runs of the step instead")
	log.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the step ends")
	fetch := add("fetch VERSION STEP", "Fetch what a step made, to look at it before signing", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.releaseFetch(ctx, args[0], args[1], o.into)
	})
	fetch.Flags().StringVar(&o.into, "into", "", "write it below `DIR`; nothing there is overwritten")
	person := func(c *cobra.Command) {
		c.Flags().StringVar(&o.as, "as", "", "the person who decides (root on control may name anybody)")
		c.Flags().StringVar(&o.reason, "reason", "", "why")
	}
	decides := func(c *cobra.Command) {
		person(c)
		o.signing.flags(c, false)
	}
	for _, d := range []struct {
		name, short string
		decision    release.Decision
	}{{"sign", "Approve a sign-off", release.Approve}, {"reject", "Reject a sign-off", release.Reject}} {
		c := add(d.name+" VERSION ITEM", d.short, cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
			return a.releaseSign(ctx, args[0], args[1], d.decision, o)
		})
		person(c)
		c.Flags().Var(&duration{&o.spent, runbook.ParseDelay}, "spent", "the `TIME` that it took you, such as 1h30m")
		o.signing.flags(c, d.decision == release.Approve)
	}
	amend := add("amend VERSION", "Propose a change of the running release: the runbook, the source, the machines", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseAmend(ctx, args[0], o)
	})
	decides(amend)
	dirty(amend)
	amend.Flags().StringVar(&o.amended, "runbook", "", "take the runbook anew from `FILE`")
	amend.Flags().BoolVar(&o.source, "source", false, "take the source anew from the committed revision: the next candidate")
	amend.Flags().BoolVar(&o.signers, "signers", false, "take who may sign anew from the files that the runbook names")
	amend.Flags().BoolVar(&o.machines, "machines", false, "take the roles' blueprints anew")
	agree := add("agree VERSION", "Approve the proposed change, or refuse it with --no", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseAgree(ctx, args[0], o)
	})
	decides(agree)
	agree.Flags().BoolVar(&o.no, "no", false, "refuse it")
	except := add("except VERSION", "Sign for each difference of an equivalent second build of gold", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.decide(ctx, args[0], a.exception(args[0], o), o)
	})
	decides(except)
	except.Flags().StringArrayVar(&o.differences, "difference", nil, "a difference, word for word as status names it (repeatable: all of them)")
	withdraw := add("withdraw VERSION ITEM", "Withdraw a signature", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.decide(ctx, args[0], a.withdrawal(args[1], o), o)
	})
	decides(withdraw)
	waive := add("waive VERSION STEP TEST", "Waive a failed test", cobra.ExactArgs(3), func(ctx context.Context, args []string) error {
		return a.decide(ctx, args[0], a.waiver(args[1], args[2], o), o)
	})
	decides(waive)
	retry := add("retry VERSION STEP", "Run a failed step again", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.tell(ctx, args[0], "retry", api.Step{Item: args[1], Reason: o.reason}, "retry", args[1])
	})
	retry.Flags().StringVar(&o.reason, "reason", "", "why")
	for _, w := range []struct{ name, short string }{
		{"hold", "Start no new steps"}, {"resume", "Continue after a hold"},
	} {
		c := add(w.name+" VERSION", w.short, cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			return a.tell(ctx, args[0], w.name, api.Reason{Reason: o.reason}, w.name, args[0])
		})
		c.Flags().StringVar(&o.reason, "reason", "", "why")
	}
	abort := add("abort VERSION", "End the release without shipping; without gold, its version may be started again", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseAbort(ctx, args[0], o)
	})
	decides(abort)
	bundled := func(c *cobra.Command, into string) {
		c.Flags().StringVar(&o.bundle.into, into, "", "write the evidence of the release into `DIR`")
		c.Flags().StringVar(&o.bundle.key, "key", "", "the release key: FILE.age, agent:FINGERPRINT or pkcs11:…")
		c.Flags().StringArrayVar(&o.bundle.drills, "drill", nil, "put the run of a drill in `DIR` into it too (repeatable)")
		c.Flags().BoolVar(&o.bundle.noDrills, "no-drills", false, "leave out the drills that were in force: of each scenario the last run here of a build server of the release")
		c.Flags().StringVar(&o.bundle.stamp, "stamp", "", "have the ledger's last checkpoint time-stamped by the authority at `URL` (RFC 3161)")
		o.bundle.keys.flags(c)
	}
	ship := add("ship VERSION", "Declare the release shipped, once everything is done", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseShip(ctx, args[0], o.bundle)
	})
	bundled(ship, "bundle")
	bundle := add("bundle VERSION", "Write the evidence of a release that shipped, for others to verify", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseBundle(ctx, args[0], o.bundle)
	})
	bundled(bundle, "into")
	return cmd
}

func (a *app) releaseList(ctx context.Context) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var list []api.Listed
	if err := c.Do(ctx, http.MethodGet, "/releases", nil, &list); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(list)
	}
	for _, l := range list {
		a.printf("%-16s %-8s ships %s, changed %s\n", l.Version, l.Phase, runbook.FormatTime(l.Ship, api.Zone(l.Zone)), runbook.FormatTime(l.Changed, api.Zone(l.Zone)))
		if l.Error != "" {
			a.printf("  ! %s\n", l.Error)
		}
	}
	return nil
}

func (a *app) getStatus(ctx context.Context, c *api.Client, version string) (*api.Status, error) {
	s := &api.Status{}
	return s, c.Do(ctx, http.MethodGet, "/releases/"+version, nil, s)
}

func (a *app) releaseStatus(ctx context.Context, version string) error {
	_, s, err := a.statusOf(ctx, version)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(s)
	}
	a.printStatus(s)
	return nil
}

// releaseWatch prints events as they come, until the release is over.
func (a *app) releaseWatch(ctx context.Context, version string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.Follow(ctx, version, 0, func(line []byte) (enough bool, err error) {
		if a.json {
			fmt.Fprintf(a.stdout, "%s\n", line)
		}
		var e release.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return false, err
		}
		a.printf("%s  %4d  %s\n", e.Time.Local().Format("15:04:05"), e.Seq, release.Sentence(e))
		switch e.Body.(type) {
		case release.Shipped, release.Aborted:
			return true, nil
		}
		return false, nil
	})
}

// unplaced are the steps that wait for a machine: for which reason, and since when.
type unplaced map[string]struct {
	why   string
	since time.Time
}

// lasting is for how long a step waits for a machine, for the same reason, until it is
// for people to give it one: longer than a machine or control takes to come back.
const lasting = time.Minute

// count says how many items go on by themselves and how many do not, and which steps
// no machine can run, or may.
func (u unplaced) count(items []api.ItemStatus, now time.Time) (moving, open int, stuck []string) {
	for _, x := range items {
		machine := x.Kind == runbook.Step || x.Kind == runbook.Publish
		if why := x.Waiting; why == "" || x.Status != release.Ready && x.Status != release.Confirming || fleet.Passes(why) {
			delete(u, x.Name)
		} else {
			w := u[x.Name]
			if w.why != why {
				w.why, w.since = why, now
				u[x.Name] = w
			}
			stuck = append(stuck, x.Name+" waits: "+why)
			if release.ForPeople(why) || now.Sub(w.since) >= lasting {
				open++
				continue
			}
		}
		switch {
		case x.Status == release.Complete:
		case x.Status == release.InProgress, x.Status == release.Confirming, x.Status == release.Ready && (machine || x.Kind == runbook.Wait):
			moving++
		default:
			open++
		}
	}
	return moving, open, stuck
}

// waited is what a release that was waited for has come to.
type waited struct {
	Version string        `json:"version"`
	Phase   release.Phase `json:"phase"`
	Moving  int           `json:"moving"` // items that go on by themselves: of a release that is held
	Open    int           `json:"open"`   // items that do not
	Waits   []string      `json:"waits"`  // steps that no machine can run, or may, and why
	Asks    []api.Ask     `json:"asks"`
}

// releaseWait returns when nothing is left to do but what people must, or nothing at all.
func (a *app) releaseWait(ctx context.Context, version string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	a.ui.Step("waiting for release " + version)
	waits := unplaced{}
	for {
		s, err := a.getStatus(ctx, c, version)
		var gone *api.UnreachableError
		if err != nil && !errors.As(err, &gone) {
			return err
		}
		if err == nil {
			moving, open, stuck := waits.count(s.Items, time.Now())
			a.ui.Progress(strings.Join(append([]string{fmt.Sprintf("%d running, %d to come", moving, open)}, stuck...), "; "))
			over, answer := true, error(nil)
			switch {
			case s.Phase == release.Ended:
				answer = answerNo{}
			case s.Phase == release.Done, moving == 0 && open == 0:
			case moving == 0 || s.Phase == release.Holding:
				answer = waiting{}
			default:
				over = false
			}
			if over {
				if a.json {
					return errors.Join(a.printJSON(waited{version, s.Phase, moving, open, slices.Concat([]string{}, stuck), s.Asks}), answer)
				}
				return answer
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (a *app) releaseEvents(ctx context.Context, version string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	res, err := c.Open(ctx, http.MethodGet, "/releases/"+version+"/events", nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(a.stdout, res.Body)
	return err
}

// tell posts a word on a release to control, and says what it was.
func (a *app) tell(ctx context.Context, version, path string, body any, what, item string) error {
	event, err := a.post(ctx, version, path, body)
	if err != nil {
		return err
	}
	return a.said(what, item, event)
}

// post posts it, and gives the event that it became.
func (a *app) post(ctx context.Context, version, path string, body any) (event int64, err error) {
	c, err := a.client()
	if err != nil {
		return 0, err
	}
	var did struct {
		Event int64 `json:"event"`
	}
	err = c.Do(ctx, http.MethodPost, "/releases/"+version+"/"+path, body, &did)
	return did.Event, err
}

// said says what a word on a release amounted to: an event of its ledger.
func (a *app) said(what, item string, event int64) error {
	if a.json {
		return a.printJSON(struct {
			Done  string `json:"done"`
			Item  string `json:"item"`
			Event int64  `json:"event"`
		}{what, item, event})
	}
	a.printf("%s: %s\n", item, what)
	return nil
}

// statusOf asks control for a release's status.
func (a *app) statusOf(ctx context.Context, version string) (*api.Client, *api.Status, error) {
	c, err := a.client()
	if err != nil {
		return nil, nil, err
	}
	s, err := a.getStatus(ctx, c, version)
	return c, s, err
}
