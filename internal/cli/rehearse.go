package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/capture"
	"trysail/internal/depot"
	"trysail/internal/rebuild"
	"trysail/runbook"
)

func (a *app) rehearseCommand() *cobra.Command {
	var o captureOptions
	var accept string
	var allow permitFlags
	cmd := &cobra.Command{
		Use:     "rehearse --output GLOB -- COMMAND …",
		Short:   "Capture, rebuild from nothing and prove, in one go",
		Long:    "Rehearse captures the build, makes the machine again from the originals with no network, builds again\nthere and compares the bytes. Without --blueprint the blueprint is discarded; with\nit, rehearse shows the plan first, as capture does." + exitHelp,
		Example: "  sudo trysail rehearse --output 'dist/*.tar.gz' -- make dist",
		RunE: func(cmd *cobra.Command, args []string) error {
			if accept != "" && accept != "equivalent" {
				return usage("--accept knows only equivalent, not %q", accept)
			}
			if err := unquoted(args, o.outputs); err != nil {
				return err
			}
			permits, err := a.permits(allow)
			if err != nil {
				return err
			}
			return a.rehearse(cmd.Context(), o, args, accept, permits)
		},
	}
	o.add(cmd)
	allow.add(cmd.Flags())
	cmd.Flags().StringVar(&accept, "accept", "", "exit 0 for this verdict too: equivalent")
	return cmd
}

func (a *app) rehearse(ctx context.Context, o captureOptions, args []string, accept string, permits build.Permits) error {
	if err := o.check(args); err != nil {
		return err
	}
	if o.blueprint != "" {
		if err := a.mayWrite(o); err != nil {
			return err
		}
		var err error
		if o.blueprint, err = filepath.Abs(o.blueprint); err != nil {
			return err
		}
	}
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	// Without a place to keep it, the rehearsal's depot is scratch: what it
	// holds is a cache for the next rehearsal, and named by nothing.
	if a.depotDir == filepath.Join(a.state, "depot") && o.blueprint == "" {
		a.depotDir = filepath.Join(a.state, "rehearsal")
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	draft, err := a.captureDraft(ctx, st, d, o, args, o.blueprint)
	if err != nil {
		return err
	}
	if o.blueprint != "" {
		if err := a.write(ctx, draft, o, o.blueprint); err != nil {
			return err
		}
	}
	r := &result{Capture: draft.Stats, Attention: slices.Clone(draft.Attention), permits: permits}
	r.repeat = func(ctx context.Context) error {
		err := draft.Repeat(ctx, capture.RepeatOptions{Output: a.buildOutput(), Step: a.ui.Step})
		for _, at := range draft.Attention {
			r.attention(at.Item, at.Why, at.Remedy)
		}
		if err != nil || o.blueprint == "" {
			return err
		}
		return draft.Write(ctx, o.blueprint) // now with what the second build showed
	}
	ro := a.rebuildOptions(st, d, draft.Blueprint, draft.Sum)
	ro.Cold = true
	if err := a.prove(ctx, ro, draft.Sum, []string{draft.Build}, r); err != nil {
		return err
	}
	return a.verdict(r, accept)
}

// result is the answer of rehearse and of rebuild --prove.
type result struct {
	Verdict          rebuild.Verdict            `json:"verdict"`
	Outputs          []rebuild.OutputProof      `json:"outputs"`
	Capture          capture.Stats              `json:"capture"`
	Rebuild          rebuildStats               `json:"rebuild"`
	Prove            proveStats                 `json:"prove"`
	Claim            string                     `json:"claim"`
	LiveDependencies []blueprint.LiveDependency `json:"live_dependencies"`
	Attention        []capture.Attention        `json:"attention"`
	// Failure says why the verdict is "failed".
	Failure string `json:"failure,omitempty"`
	// repeat builds again on the captured machine, where this is it.
	repeat func(ctx context.Context) error
	// permits is what this machine opens to the builds that are proved.
	permits build.Permits
}

type rebuildStats struct {
	ColdSeconds      float64            `json:"cold_seconds"`
	ConfigureSeconds float64            `json:"configure_seconds"`
	Packages         int                `json:"packages"`
	Repacked         int                `json:"repacked"`
	Cold             bool               `json:"cold"`
	Steps            []rebuild.StepTime `json:"steps"`
}

type proveStats struct {
	Seconds                float64 `json:"seconds"`
	NetworkAttemptsBlocked int     `json:"network_attempts_blocked"`
}

// prove rebuilds, proves builds, and adds what it finds to the result. A
// machine that cannot be made from its blueprint is an answer, not an error;
// an error is what keeps from finding out.
func (a *app) prove(ctx context.Context, o rebuild.Options, sum blueprint.Sum, builds []string, r *result) (err error) {
	b := o.Blueprint
	if len(builds) == 0 {
		return usage("the blueprint has no build to prove: trysail capture records one")
	}
	if err := r.permits.Check(b.LiveDependencies); err != nil {
		return err
	}
	if err := rebuild.Check(o.Depot, b, sum, builds); err != nil {
		return err
	}
	if err := r.omissions(ctx, o.Depot, b, builds); err != nil {
		return err
	}
	r.live(b.LiveDependencies, o.Now())
	r.Rebuild.Packages = len(b.Packages)
	for _, p := range b.Packages {
		if p.Repacked != "" {
			r.Rebuild.Repacked++
		}
	}
	if r.Claim, err = claim(o.Depot, b, sum); err != nil {
		return err
	}
	server, err := rebuild.Root(ctx, o)
	var script *rebuild.ScriptError
	if errors.As(err, &script) && ctx.Err() == nil {
		r.Verdict, r.Failure = rebuild.Failed, "the machine cannot be made: "+err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	return a.proveIn(ctx, o, builds, server, r)
}

// omissions names what the builds used and the blueprint has lost.
func (r *result) omissions(ctx context.Context, d *depot.Depot, b *blueprint.Blueprint, builds []string) error {
	for _, name := range builds {
		x := b.Build(name)
		if x == nil {
			return usage("the blueprint has no build %q", name)
		}
		list, err := rebuild.Observation(ctx, d, x)
		if err != nil {
			return err
		}
		for _, lost := range b.Uncovered(list) {
			r.attention(lost.Item, "the captured build "+name+" used "+lost.Path+", and the blueprint no longer has it", "restore this item in the blueprint (version control has it), or capture the build again")
		}
	}
	return nil
}

// attention adds one thing to look at; an item that was named stays as it was.
func (r *result) attention(item, why, remedy string) {
	if !slices.ContainsFunc(r.Attention, func(at capture.Attention) bool { return at.Item == item }) {
		r.Attention = append(r.Attention, capture.Attention{Item: item, Why: why, Remedy: remedy})
	}
}

// proveIn proves builds in a root that stands.
func (a *app) proveIn(ctx context.Context, o rebuild.Options, builds []string, server *rebuild.Server, r *result) error {
	r.Rebuild.Cold, r.Rebuild.ConfigureSeconds, r.Rebuild.Steps = server.Cold, round(server.Configure()), server.Steps
	for _, t := range server.Steps {
		r.Rebuild.ColdSeconds += t.Seconds
	}
	r.Rebuild.ColdSeconds = round(r.Rebuild.ColdSeconds)
	for _, p := range server.Skipped {
		r.attention(p, "encrypted, and left out of the rebuilt machine for want of a key", "give the key with --identity")
	}
	for _, name := range builds {
		out := a.buildOutput()
		p, err := rebuild.Prove(ctx, rebuild.ProveOptions{State: o.State, Depot: o.Depot, Blueprint: o.Blueprint, Build: o.Blueprint.Build(name), Server: server, Permits: r.permits, Output: out, Log: a.log, Step: a.ui.Step, Progress: a.ui.Progress, Repeat: r.repeat})
		if err != nil {
			return err
		}
		if p.Failure != "" {
			r.Failure = p.Failure
			if !a.verbose {
				a.ui.end()
				fmt.Fprintln(a.stderr, out.last(40))
			}
		}
		r.add(p)
	}
	return nil
}

func (r *result) add(p *rebuild.Proof) {
	rank := map[rebuild.Verdict]int{rebuild.Identical: 0, rebuild.Equivalent: 1, rebuild.Different: 2, rebuild.Failed: 3}
	if r.Verdict == "" || rank[p.Verdict] > rank[r.Verdict] {
		r.Verdict = p.Verdict
	}
	r.Outputs = append(r.Outputs, p.Outputs...)
	r.Prove.Seconds = round(r.Prove.Seconds + p.Seconds)
	r.Prove.NetworkAttemptsBlocked += p.Blocked
	for _, dev := range rebuild.ByItem(p.Deviations) {
		r.attention(dev.Item, dev.Path+" "+dev.What+" on the rebuilt machine", "capture the build again, or restore this item in the blueprint")
	}
	for _, what := range p.Lowered {
		name, why, _ := strings.Cut(what, " ")
		r.attention(name, why, "if the build needs more, raise the limit of the user who runs trysail (ulimit), or fs.nr_open")
	}
	for _, u := range p.Unanswered {
		what := strings.TrimPrefix(u.What, "tcp ") // a proposed dependency has it for a name
		if u.OtherQuery {
			r.attention(what, "the rebuilt machine's build asked for this, and the recording has this address with another query (after the question mark): the address is new each time", "name the parameter that is new each time in the blueprint, under ignore_query of the build; or let the build ask for the same address each time, and capture again")
			continue
		}
		r.attention(what, "the rebuilt machine's build asked for this and no recording answers it", "capture the build again; declare what cannot be recorded under live_dependencies")
	}
}

// verdict prints the answer.
func (a *app) verdict(r *result, accept string) error {
	a.ui.end()
	r.Outputs, r.Attention = nonNil(r.Outputs), nonNil(r.Attention)
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		for _, o := range r.Outputs {
			if o.Identical {
				a.printf("  identical  %s  %s\n", short(o.Captured), o.Path)
				continue
			}
			word := "DIFFERENT"
			if o.Equivalent {
				word = "equivalent"
			}
			a.printf("  %-9s  %s  %s\n", word, short(o.Captured), o.Path)
			a.printf("             %s  on the rebuilt machine\n", short(o.Rebuilt))
			for i, diff := range o.Differences {
				if i == 8 {
					a.printf("             and %d more differences\n", len(o.Differences)-i)
					break
				}
				cause := ""
				if diff.Cause != "" {
					cause = " (" + diff.Cause + ")"
				}
				a.printf("             %s: %s%s\n", diff.Path, diff.What, cause)
			}
		}
		a.attention(r.Attention)
		a.printf("%s\n", r.sentence())
	}
	if r.Verdict == rebuild.Identical || (r.Verdict == rebuild.Equivalent && accept == "equivalent") {
		return nil
	}
	return answerNo{}
}

func short(digest string) string {
	if len(digest) > 19 && digest[:7] == "sha256:" {
		return digest[7:19]
	}
	return digest
}

// sentence says the verdict to a release manager, and no more than was seen.
func (r *result) sentence() string {
	var s string
	cost := runbook.FormatSeconds(r.Rebuild.ColdSeconds + r.Prove.Seconds)
	switch r.Verdict {
	case rebuild.Identical:
		s = "the rebuilt machine makes the same bytes. Losing this one costs " + cost + " of machine time."
	case rebuild.Equivalent:
		s = "the rebuilt machine differs only where the captured one differs from itself (" + r.where() + "). Losing this one costs " + cost + " of machine time."
	case rebuild.Different:
		return "Not rebuildable yet: the rebuilt machine makes other bytes." + r.things()
	default:
		return "Not rebuildable yet: " + r.Failure + "." + r.things()
	}
	if r.Claim == "would-have-shipped" {
		s = "You would have shipped: " + s
	} else {
		s = "Rebuildable here: " + s
	}
	if names := r.survivors(); len(names) == 1 {
		s += " But only if " + names[0] + " survives."
	} else if len(names) > 1 {
		s += " But only if " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + " survive."
	}
	return s + r.things()
}

// live says which live dependencies there are and what is wrong with them.
func (r *result) live(list []blueprint.LiveDependency, day time.Time) {
	r.LiveDependencies = nonNil(list)
	for _, l := range list {
		if why, remedy := l.Trouble(day); l.Proposed {
			r.attention(l.Address, why, remedy)
		} else if why != "" {
			r.attention(l.Name, why, remedy)
		}
	}
	_, closed := r.permits.Allow.Remote(list)
	for _, l := range closed {
		r.attention(l.Name, "the build was not let through to "+l.Address+": this machine has no permission for it", "if the release needs it, add "+blueprint.Flags(l))
	}
}

// survivors names what the rebuilt machine was let through to.
func (r *result) survivors() []string {
	var names []string
	for _, l := range r.LiveDependencies {
		if !l.Proposed && (!l.Remote() || r.permits.Allow.Allow(l)) {
			names = append(names, l.Name)
		}
	}
	return names
}

// where names the places of an equivalent proof in a few words.
func (r *result) where() string {
	var causes []string
	by := map[string][]string{}
	for _, o := range r.Outputs {
		for _, d := range o.Differences {
			cause := d.Cause
			if cause == "" {
				cause = "content"
			}
			if by[cause] == nil {
				causes = append(causes, cause)
			}
			if !slices.Contains(by[cause], d.Path) {
				by[cause] = append(by[cause], d.Path)
			}
		}
	}
	var parts []string
	for _, cause := range causes {
		s := cause + " in " + by[cause][0]
		if n := len(by[cause]) - 1; n > 0 {
			s += fmt.Sprintf(" and %d more", n)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

func (r *result) things() string {
	switch n := len(r.Attention); n {
	case 0:
		return ""
	case 1:
		return " 1 thing to look at: " + r.Attention[0].Item + "."
	default:
		s := fmt.Sprintf(" %d things to look at:", n)
		for i, at := range r.Attention {
			if i == 3 {
				return s + " …"
			}
			if i > 0 {
				s += ","
			}
			s += " " + at.Item
		}
		return s + "."
	}
}

func round(s float64) float64 { return float64(int(s*1000+0.5)) / 1000 }

// claim decides how much a proof may say: that the team would have shipped
// only where nothing of the captured machine could have helped, that is, on
// another machine whose every original came from elsewhere.
func claim(d *depot.Depot, b *blueprint.Blueprint, sum blueprint.Sum) (string, error) {
	const here, shipped = "rebuildable-here", "would-have-shipped"
	id, err := capture.Identity()
	if err != nil {
		return "", err
	}
	if id == b.Machine.Identity {
		return here, nil
	}
	for _, name := range b.Names() {
		if strings.HasPrefix(name, "config/") {
			continue // comes with the blueprint, from version control
		}
		from, ok := d.Provenance(sum[name])
		if !ok || thisMachine(from) {
			return here, nil
		}
	}
	return shipped, nil
}

// thisMachine tells a registry that runs on this very machine, whose loss would
// take the originals with it. What cannot be resolved counts as such.
func thisMachine(repository string) bool {
	host, _, _ := strings.Cut(repository, "/")
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addresses := []net.IP{net.ParseIP(strings.Trim(host, "[]"))}
	if addresses[0] == nil {
		var err error
		if addresses, err = net.LookupIP(host); err != nil {
			return true
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, ip := range addresses {
		if ip.IsLoopback() {
			return true
		}
		for _, a := range own {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
				return true
			}
		}
	}
	return false
}
