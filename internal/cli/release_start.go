package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/release"
	"trysail/runbook"
)

// releaseStart begins a release, once a person has looked at what it will be.
func (a *app) releaseStart(ctx context.Context, version string, o releaseOptions) error {
	if o.force != (o.reason != "") {
		return usage("--force and --reason go together: the ledger keeps why a release starts in spite of what was found")
	}
	if !o.yes && !a.attended() {
		return usage("the start needs a confirmation, and standard input is no terminal: add --yes to start without one")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := a.prepare(ctx, version, o)
	if err != nil {
		return err
	}
	if err := a.review(ctx, c, s, o); err != nil {
		return err
	}
	if err := a.begins(ctx, c, s); err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		return a.printJSON(struct {
			Version  string `json:"version"`
			Revision string `json:"revision"`
			Runbook  string `json:"runbook"`
		}{version, s.started.Source.Revision, s.book.Digest})
	}
	a.printf("Release %s of %s has begun; it ships %s.\nNext: trysail release status %s\n", version, s.started.Source.Revision, runbook.FormatTime(s.started.Ship, s.book.Team.Zone), version)
	return nil
}

// startWith puts all that a release is made of into the depot of control, and begins it there,
// for a drill: it has a ship date and signers of its own.
func (a *app) startWith(ctx context.Context, c *api.Client, version string, o releaseOptions) error {
	s, err := a.prepare(ctx, version, o)
	if err != nil {
		return err
	}
	s.started.Forced = "a drill has a ship date of its own"
	return a.begins(ctx, c, s)
}

// prepared is a release that may begin.
type prepared struct {
	started release.Started
	book    *runbook.Runbook
	from    *revision
	signers evidence.Signers
	revoked []ssh.PublicKey
}

// prepare makes everything of the committed revision that a release needs.
func (a *app) prepare(ctx context.Context, version string, o releaseOptions) (*prepared, error) {
	ms, err := a.openScratch(ctx)
	if err != nil {
		return nil, err
	}
	d, err := a.openDepot()
	if err != nil {
		return nil, err
	}
	a.ui.Step("fixing the source")
	v, err := fixRevision(ctx, ms, d, o.clone)
	if err != nil {
		return nil, err
	}
	r, at, dg, err := v.runbook(ctx, o.runbook)
	if err != nil {
		return nil, err
	}
	s := &prepared{started: release.Begin(r, version), book: r, from: v}
	st := &s.started
	switch {
	case r.Release != "" && r.Release != version:
		return nil, usage("%s is the runbook of release %s, not %s", o.runbook, r.Release, version)
	case o.ship != "":
		if st.Ship, err = runbook.ParseTime(o.ship); err != nil {
			return nil, usage("--ship: %v", err)
		}
		if err := runbook.OtherOffset(st.Ship, r.Team.Zone); err != nil {
			return nil, usage("--ship: %v", err)
		}
	case r.Ship.IsZero():
		return nil, usage("%s names no ship date: give --ship 2026-12-01T09:00:00Z", o.runbook)
	}
	st.Runbook, st.Source = dg, v.source
	v.need[v.source.Original] = true
	if st.Machines, err = v.machines(ctx, r); err != nil {
		return nil, err
	}
	if s.signers, s.revoked, st.Signers, st.Revoked, err = v.signers(ctx, at, r, o.rehearsers); err != nil {
		return nil, err
	}
	st.Origin, err = v.settle(a, o.allowDirty)
	return s, err
}

// begins sends it to control.
func (a *app) begins(ctx context.Context, c *api.Client, s *prepared) error {
	a.ui.Step("sending originals to control")
	if err := a.send(ctx, c, s.from.depot, slices.Sorted(maps.Keys(s.from.need))); err != nil {
		return err
	}
	return c.Do(ctx, http.MethodPost, "/releases", api.StartOf(s.started), nil)
}

// review shows what will begin, refuses what cannot be meant, and asks.
func (a *app) review(ctx context.Context, c *api.Client, s *prepared, o releaseOptions) error {
	check := preflight{book: s.book, ship: s.started.Ship, author: s.started.Source.Author, signers: s.signers, revoked: s.revoked}
	if err := check.ask(ctx, c); err != nil {
		return err
	}
	found := check.look()
	for _, e := range s.book.Unshippable() {
		found = append([]matter{{Wrong: true, File: e.File, Line: e.Line, What: e.What, Remedy: e.Remedy}}, found...)
	}
	now := a.clock.Now()
	if why := release.ShipDate(s.started.Ship, s.book.Ship, now, s.book.Team.Zone); why != "" {
		found = append([]matter{{Wrong: true, What: why, Remedy: "give another: --ship, or ship: in the runbook"}}, found...)
	}
	a.ui.end()
	a.preview(s, check.fleet, now)
	wrong := 0
	for _, m := range found {
		if m.stops() {
			wrong++
		}
		fmt.Fprint(a.stderr, plainLines(m.String()))
	}
	if wrong > 0 && !o.force {
		return &notReadyError{wrong, found}
	}
	if wrong > 0 || o.force {
		s.started.Forced = o.reason
	}
	if !o.yes && !a.ask("Start this release?") {
		return errors.New("nothing was started")
	}
	return nil
}

// notReadyError says that a release was not started.
type notReadyError struct {
	wrong int
	found []matter
}

func (e *notReadyError) Error() string {
	var list []string
	for _, m := range e.found {
		if m.stops() {
			list = append(list, m.What)
		}
	}
	return "the release was not started: " + strings.Join(list, "; ")
}

// Hint says what to type.
func (e *notReadyError) Hint() string {
	return "mend it and start again; --force --reason TEXT starts all the same, and the ledger keeps the reason"
}

// Details are what was found, for programs.
func (e *notReadyError) Details() any { return e.found }

// preview shows what a release will be.
func (a *app) preview(s *prepared, machines []api.MachineStatus, now time.Time) {
	p := func(format string, args ...any) { fmt.Fprint(a.stderr, plainLines(fmt.Sprintf(format, args...))+"\n") }
	st := s.started
	p("Release   %s", st.Version)
	p("Revision  %s, by %s", st.Source.Revision, cmp.Or(st.Source.Author, "nobody that version control names"))
	p("Ships     %s, in %s", runbook.FormatTime(st.Ship, s.book.Team.Zone), runbook.FormatDuration(st.Ship.Sub(now)))
	for i, x := range s.book.Items {
		if x.Kind == runbook.SignOff {
			p("Asks      %s", asked(&s.book.Items[i]))
		}
	}
	for _, role := range s.book.Roles {
		list := serving(role, machines)
		if len(list) == 0 {
			list = []string{"no machine"}
		}
		p("Role      %s: %s", role.Name, strings.Join(list, ", "))
	}
}

// asked says who is asked for what.
func asked(x *runbook.Item) string {
	who := strings.Join(x.Signers, ", ")
	if x.Approvals > 0 && x.Approvals < len(x.Signers) {
		who = fmt.Sprintf("%d of %s", x.Approvals, who)
	}
	return fmt.Sprintf("%s: %s (%s)", who, x.Text, x.Name)
}

// attended tells whether a person can be asked.
func (a *app) attended() bool {
	in, terminal := a.stdin.(*os.File)
	return terminal && isTerminal(in) && isTerminal(a.stderr)
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

// change makes a proposal of the committed revision, and nothing else.
func (a *app) change(ctx context.Context, o releaseOptions) (*release.Amended, *revision, error) {
	ms, err := a.openScratch(ctx)
	if err != nil {
		return nil, nil, err
	}
	d, err := a.openDepot()
	if err != nil {
		return nil, nil, err
	}
	a.ui.Step("fixing the source")
	v, err := fixRevision(ctx, ms, d, "")
	if err != nil {
		return nil, nil, err
	}
	b := &release.Amended{Reason: o.reason}
	if o.source {
		v.need[v.source.Original] = true
		b.What, b.Source = append(b.What, "source"), &v.source
	}
	if o.amended != "" || o.signers || o.machines {
		r, at, dg, err := v.runbook(ctx, cmp.Or(o.amended, "RELEASE.md"))
		if err != nil {
			return nil, nil, err
		}
		if o.amended != "" {
			b.What, b.Runbook = append(b.What, "runbook"), dg
		}
		if o.signers {
			if r.Signers == "" {
				return nil, nil, usage("%s names no signers: file", at)
			}
			if _, _, b.Signers, b.Revoked, err = v.signers(ctx, at, r, nil); err != nil {
				return nil, nil, err
			}
			b.What = append(b.What, "signers")
		}
		if o.machines {
			if b.Machines, err = v.machines(ctx, r); err != nil {
				return nil, nil, err
			}
			b.What = append(b.What, "machines")
		}
	}
	b.Origin, err = v.settle(a, o.allowDirty)
	return b, v, err
}
