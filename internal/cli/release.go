package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trysail/internal/api"
	"trysail/internal/capture"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/release"
	"trysail/runbook"
)

type releaseOptions struct {
	runbook, ship  string
	as, reason     string
	subject        string
	spent          time.Duration
	follow, browse bool
}

func (a *app) releaseCommand() *cobra.Command {
	var o releaseOptions
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Run a release from its runbook on the fleet",
		Long:  "Release runs a runbook: it starts steps on machines, waits for people where people decide, and moves the\nbuild when a machine dies. What happened is in the ledger." + exitHelp,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usage("release needs a command: start, status, wait, watch, events, log, sign, reject, withdraw, retry, waive, hold, resume, abort, ship or list")
		},
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
	add("list", "List the releases", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.releaseList(ctx) })
	add("status VERSION", "Will we ship on time, who must do what, what runs where, what went wrong", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseStatus(ctx, args[0])
	})
	add("watch VERSION", "Follow what happens, line by line", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseWatch(ctx, args[0])
	})
	add("wait VERSION", "Wait until it is over, or until only people can move it on (exit status 4)", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseWait(ctx, args[0])
	})
	add("events VERSION", "Print the ledger of the release, one event a line", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseEvents(ctx, args[0])
	})
	log := add("log VERSION STEP", "Print a step's log", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.releaseLog(ctx, args[0], args[1], o.follow)
	})
	log.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the step ends")
	person := func(c *cobra.Command) {
		c.Flags().StringVar(&o.as, "as", "", "the person who decides (root on control may name anybody)")
		c.Flags().StringVar(&o.reason, "reason", "", "why")
	}
	for _, d := range []struct {
		name, short string
		decision    release.Decision
	}{{"sign", "Say yes to a sign-off", release.Approve}, {"reject", "Say no to a sign-off", release.Reject}} {
		c := add(d.name+" VERSION ITEM", d.short, cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
			return a.releaseSign(ctx, args[0], args[1], d.decision, o)
		})
		person(c)
		c.Flags().DurationVar(&o.spent, "spent", 0, "the time that it took you, such as 1h30m")
	}
	withdraw := add("withdraw VERSION ITEM", "Take a signature back", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.releaseStep(ctx, args[0], "withdraw", api.Step{Item: args[1], Person: o.as, Reason: o.reason})
	})
	person(withdraw)
	waive := add("waive VERSION STEP TEST", "Let a failed test not stop the release", cobra.ExactArgs(3), func(ctx context.Context, args []string) error {
		return a.releaseStep(ctx, args[0], "waive", api.Step{Item: args[1], Test: args[2], Person: o.as, Reason: o.reason})
	})
	person(waive)
	retry := add("retry VERSION STEP", "Run a failed step again", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.releaseStep(ctx, args[0], "retry", api.Step{Item: args[1], Reason: o.reason})
	})
	retry.Flags().StringVar(&o.reason, "reason", "", "why")
	for _, w := range []struct{ name, short string }{
		{"hold", "Start nothing new"}, {"resume", "Go on after a hold"}, {"abort", "End the release without shipping"},
	} {
		c := add(w.name+" VERSION", w.short, cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			return a.releaseReason(ctx, args[0], w.name, o.reason)
		})
		c.Flags().StringVar(&o.reason, "reason", "", "why")
	}
	add("ship VERSION", "Declare the release shipped, once everything is done", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.releaseReason(ctx, args[0], "ship", "")
	})
	return cmd
}

// releaseStart puts all that a release is made of into the depot, and begins it.
func (a *app) releaseStart(ctx context.Context, version string, o releaseOptions) (err error) {
	r, data, err := readRunbook(o.runbook)
	if err != nil {
		return err
	}
	st := release.Started{Version: version, Items: r.Items, Phases: r.Phases, Endgame: r.Endgame, Approver: r.Approvers, Ship: r.Ship, Budget: r.Budget}
	switch {
	case r.Release != "" && r.Release != version:
		return usage("%s is the runbook of release %s, not %s", o.runbook, r.Release, version)
	case o.ship != "":
		if st.Ship, err = time.Parse(time.RFC3339, o.ship); err != nil {
			return usage("--ship %s is not a time such as 2026-12-01T09:00:00Z", o.ship)
		}
	case r.Ship.IsZero():
		return usage("%s names no ship date: give --ship 2026-12-01T09:00:00Z", o.runbook)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	ms, err := a.openState(ctx)
	if err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	a.ui.Step("fixing the source")
	if st.Source, err = fixSource(ctx, ms, d); err != nil {
		return err
	}
	if st.Runbook, err = d.PutBytes(ctx, data); err != nil {
		return err
	}
	need := map[string]bool{st.Runbook: true, st.Source.Original: true}
	for _, role := range r.Roles {
		m := release.Machine{Role: role.Name}
		if role.Blueprint != "" {
			if m, err = a.fixMachine(ctx, d, role, need); err != nil {
				return err
			}
		}
		st.Machines = append(st.Machines, m)
	}
	a.ui.Step("sending originals to control")
	if err := a.send(ctx, c, d, slices.Sorted(maps.Keys(need))); err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodPost, "/releases", api.Start{Started: st}, nil); err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		return a.printJSON(struct {
			Version  string `json:"version"`
			Revision string `json:"revision"`
			Runbook  string `json:"runbook"`
		}{version, st.Source.Revision, r.Digest})
	}
	a.printf("Release %s of %s has begun; it ships %s.\nNext: trysail release status %s\n", version, st.Source.Revision, st.Ship.Format(time.RFC3339), version)
	return nil
}

// fixSource keeps the committed revision, so that the version control may go away.
func fixSource(ctx context.Context, ms *machine.State, d *depot.Depot) (s release.Source, err error) {
	wd, err := os.Getwd()
	if err != nil {
		return s, err
	}
	w, err := capture.FindWorkspace(ctx, wd)
	if err != nil {
		return s, err
	}
	n, err := ms.Begin()
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	dir := n.Path("checkout")
	if err := w.Checkout(ctx, dir); err != nil {
		return s, err
	}
	original, err := capture.PutTree(ctx, d, func(out io.Writer) error { return capture.WriteTree(dir, out, 0, 0) })
	return release.Source{VCS: w.Source.VCS, URL: w.Source.URL, Revision: w.Source.Revision, Original: original}, err
}

// fixMachine names the blueprint of a role by digest, and all that it needs.
func (a *app) fixMachine(ctx context.Context, d *depot.Depot, role runbook.Role, need map[string]bool) (release.Machine, error) {
	m := release.Machine{Role: role.Name}
	dir, b, sum, err := a.findBlueprint(ctx, role.Blueprint)
	if err != nil {
		return m, err
	}
	if b.Unobserved || len(b.Builds) == 0 {
		return m, usage("%s holds no captured build: trysail capture makes one", dir)
	}
	if err := importConfig(ctx, d, dir, b, sum); err != nil {
		return m, err
	}
	for _, f := range []struct {
		name string
		dg   *string
	}{{"blueprint.yaml", &m.Blueprint}, {"blueprint.sum", &m.Sum}} {
		data, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			return m, err
		}
		if *f.dg, err = d.PutBytes(ctx, data); err != nil {
			return m, err
		}
		need[*f.dg] = true
	}
	m.Name = b.Name
	for name, dg := range sum {
		if release.NeedsOriginal(name) {
			if !d.Has(dg) {
				return m, &depot.NotFoundError{What: name + " of blueprint " + b.Name, Depot: d.Dir()}
			}
			need[dg] = true
		}
	}
	return m, nil
}

// send copies what control's depot lacks.
func (a *app) send(ctx context.Context, c *api.Client, d *depot.Depot, digests []string) error {
	for i, dg := range digests {
		a.ui.Progress(fmt.Sprintf("%d of %d", i, len(digests)))
		has, err := c.HasBlob(ctx, dg)
		if err != nil {
			return err
		}
		if has {
			continue
		}
		r, err := d.Get(ctx, dg)
		if err != nil {
			return err
		}
		err = c.PutBlob(ctx, dg, r)
		r.Close()
		if err != nil {
			return fmt.Errorf("send %s: %w", dg, err)
		}
	}
	return nil
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
		a.printf("%-16s %-8s ships %s, changed %s\n", l.Version, l.Phase, l.Ship.Format(time.RFC3339), l.Changed.Format(time.RFC3339))
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
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := a.getStatus(ctx, c, version)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(s)
	}
	a.printStatus(s)
	return nil
}

func (a *app) printStatus(s *api.Status) {
	slack := time.Duration(s.Slack * float64(time.Second)).Round(time.Minute)
	switch {
	case s.Phase == release.Done:
		a.printf("Release %s is shipped.\n", s.Version)
	case s.Phase == release.Ended:
		a.printf("Release %s was aborted: %s\n", s.Version, s.Why)
	case slack < 0:
		a.printf("Release %s will be late by %s: the rest ends %s, it ships %s.\n", s.Version, -slack, s.Ends.Format(time.RFC3339), s.Ship.Format(time.RFC3339))
	default:
		a.printf("Release %s will ship on time, with %s to spare: the rest ends %s, it ships %s.\n", s.Version, slack, s.Ends.Format(time.RFC3339), s.Ship.Format(time.RFC3339))
	}
	if s.Phase == release.Holding {
		a.printf("It is held: %s\n", s.Why)
	}
	if len(s.Chain) > 0 {
		a.printf("It hangs on: %s\n", strings.Join(s.Chain, " → "))
	}
	if len(s.Unknown) > 0 {
		a.printf("  ! no budget is set for %s: the rest takes longer by what they take\n", strings.Join(s.Unknown, ", "))
	}
	a.printf("People: %.1f h spent, %.1f h to come", s.Spent, s.Open)
	if s.Budget > 0 {
		a.printf(", of %.1f h", s.Budget)
	}
	a.printf(".\n\nWho must do what now\n")
	for _, k := range s.Asks {
		who := strings.Join(k.People, ", ")
		if who == "" {
			who = "anybody"
		}
		a.printf("  %s: %s (%s)\n    → trysail release %s %s %s\n", who, k.What, k.Item, k.Type, s.Version, k.Item)
	}
	if len(s.Asks) == 0 {
		a.printf("  nobody\n")
	}
	a.printf("\nWhat runs where\n")
	for _, x := range s.Items {
		text := string(x.Status)
		switch {
		case x.Status == release.InProgress && x.Since != nil:
			text += " on " + x.Machine + " for " + seconds(time.Since(*x.Since).Seconds())
		case x.Waiting != "":
			text += ": " + x.Waiting
		case x.Took > 0:
			text += " on " + x.Machine + ", " + seconds(x.Took)
		}
		if x.Failed != "" {
			text += ": " + x.Failed
		}
		if x.Moves > 0 {
			text += fmt.Sprintf(" (moved %d times)", x.Moves)
		}
		a.printf("  %-24s %s\n", x.Name, text)
	}
	if g := s.Gold; g != nil {
		a.printf("\nGold, made on %s, event %d", g.Machine, g.Event)
		if g.By != "" {
			a.printf("; built again on %s: %s", g.By, g.Verdict)
		}
		a.printf("\n")
		for _, o := range g.Outputs {
			a.printf("  %s  %s\n", o.Digest, o.Path)
		}
	}
	if len(s.Refused) > 0 {
		a.printf("\nWhat went wrong\n")
	}
	for _, r := range s.Refused {
		a.printf("  the result of %s from %s (epoch %d) was refused: %s\n", r.Item, r.Machine, r.Epoch, r.Why)
	}
}

// releaseWatch prints events as they come, until the release is over.
func (a *app) releaseWatch(ctx context.Context, version string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	last := ""
	for {
		over, err := a.follow(ctx, c, version, &last)
		var gone *api.UnreachableError
		if over || (err != nil && !errors.As(err, &gone)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// releaseWait returns when nothing is left to do but what people must, or nothing at all.
func (a *app) releaseWait(ctx context.Context, version string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	a.ui.Step("waiting for release " + version)
	for {
		s, err := a.getStatus(ctx, c, version)
		var gone *api.UnreachableError
		if err != nil && !errors.As(err, &gone) {
			return err
		}
		if err == nil {
			moving, open := 0, 0
			for _, x := range s.Items {
				machine := x.Kind == runbook.Step || x.Kind == runbook.Publish
				switch {
				case x.Status == release.Complete:
				case x.Status == release.InProgress, x.Status == release.Confirming, x.Status == release.Ready && (machine || x.Kind == runbook.Wait):
					moving++
				default:
					open++
				}
			}
			a.ui.Progress(fmt.Sprintf("%d running, %d to come", moving, open))
			switch {
			case s.Phase == release.Ended:
				return answerNo{}
			case s.Phase == release.Done, moving == 0 && open == 0:
				return nil
			case moving == 0 || s.Phase == release.Holding:
				return waiting{}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (a *app) follow(ctx context.Context, c *api.Client, version string, last *string) (over bool, err error) {
	h := http.Header{"Accept": {"text/event-stream"}}
	if *last != "" {
		h.Set("Last-Event-ID", *last)
	}
	res, err := c.Open(ctx, http.MethodGet, "/releases/"+version+"/events", nil, h)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			*last = id
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if a.json {
			fmt.Fprintln(a.stdout, data)
		}
		var e release.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return true, err
		}
		a.printf("%s  %4d  %s\n", e.Time.Local().Format("15:04:05"), e.Seq, release.Sentence(e))
		switch e.Body.(type) {
		case release.Shipped, release.Aborted:
			return true, nil
		}
	}
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	return false, nil // cut off: begin again after the last one
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

func (a *app) releaseLog(ctx context.Context, version, step string, follow bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := a.getStatus(ctx, c, version)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Items, func(x api.ItemStatus) bool { return x.Name == step })
	if i < 0 {
		return usage("release %s has no step %s", version, step)
	}
	if s.Items[i].Epoch == 0 {
		return usage("step %s has not begun", step)
	}
	res, err := c.Open(ctx, http.MethodGet, fmt.Sprintf("/releases/%s/logs/%s/%d?follow=%v", version, step, s.Items[i].Epoch, follow), nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(a.stdout, res.Body)
	return err
}

func (a *app) releaseSign(ctx context.Context, version, item string, d release.Decision, o releaseOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := a.getStatus(ctx, c, version)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Asks, func(k api.Ask) bool { return k.Item == item && k.Type == "sign" })
	if i < 0 {
		return usage("nobody is asked to sign %s now: trysail release status %s", item, version)
	}
	err = c.Do(ctx, http.MethodPost, "/releases/"+version+"/sign", api.Decide{Item: item, Person: o.as, Decision: d, Subject: s.Asks[i].Subject, Reason: o.reason, Spent: o.spent}, nil)
	if err != nil {
		return err
	}
	return a.said(string(d), item)
}

func (a *app) said(what, item string) error {
	if a.json {
		return a.printJSON(struct {
			Done string `json:"done"`
			Item string `json:"item"`
		}{what, item})
	}
	a.printf("%s: %s\n", item, what)
	return nil
}

func (a *app) releaseStep(ctx context.Context, version, what string, s api.Step) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodPost, "/releases/"+version+"/"+what, s, nil); err != nil {
		return err
	}
	return a.said(what, s.Item)
}

func (a *app) releaseReason(ctx context.Context, version, what, why string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodPost, "/releases/"+version+"/"+what, api.Reason{Reason: why}, nil); err != nil {
		return err
	}
	return a.said(what, version)
}
