package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/capture"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/release"
	"trysail/runbook"
)

// releaseStart begins a release.
func (a *app) releaseStart(ctx context.Context, version string, o releaseOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	st, digest, err := a.startWith(ctx, c, version, o)
	if err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		return a.printJSON(struct {
			Version  string `json:"version"`
			Revision string `json:"revision"`
			Runbook  string `json:"runbook"`
		}{version, st.Source.Revision, digest})
	}
	a.printf("Release %s of %s has begun; it ships %s.\nNext: trysail release status %s\n", version, st.Source.Revision, st.Ship.Format(time.RFC3339), version)
	return nil
}

// startWith puts all that a release is made of into the depot of control, and
// begins it there. It gives the digest of the runbook too.
func (a *app) startWith(ctx context.Context, c *api.Client, version string, o releaseOptions) (st release.Started, digest string, err error) {
	r, data, err := readRunbook(o.runbook)
	if err != nil {
		return st, "", err
	}
	st = release.Begin(r, version)
	switch {
	case r.Release != "" && r.Release != version:
		return st, "", usage("%s is the runbook of release %s, not %s", o.runbook, r.Release, version)
	case o.ship != "":
		if st.Ship, err = time.Parse(time.RFC3339, o.ship); err != nil {
			return st, "", usage("--ship %s is not a time such as 2026-12-01T09:00:00Z", o.ship)
		}
	case r.Ship.IsZero():
		return st, "", usage("%s names no ship date: give --ship 2026-12-01T09:00:00Z", o.runbook)
	}
	ms, err := a.openState(ctx)
	if err != nil {
		return st, "", err
	}
	d, err := a.openDepot()
	if err != nil {
		return st, "", err
	}
	a.ui.Step("fixing the source")
	if st.Source, err = fixSource(ctx, ms, d, o.clone); err != nil {
		return st, "", err
	}
	if st.Runbook, err = d.PutBytes(ctx, data); err != nil {
		return st, "", err
	}
	need := map[string]bool{st.Runbook: true, st.Source.Original: true}
	if st.Machines, err = a.fixMachines(ctx, d, r, need); err != nil {
		return st, "", err
	}
	if st.Signers, st.Revoked, err = fixSigners(ctx, d, o.runbook, r, o.rehearsers, need); err != nil {
		return st, "", err
	}
	a.ui.Step("sending originals to control")
	if err := a.send(ctx, c, d, slices.Sorted(maps.Keys(need))); err != nil {
		return st, "", err
	}
	if err := c.Do(ctx, http.MethodPost, "/releases", api.Start{Started: st}, nil); err != nil {
		return st, "", err
	}
	return st, r.Digest, nil
}

// fixSource keeps the committed revision, so that the version control may go away.
func fixSource(ctx context.Context, ms *machine.State, d *depot.Depot, dir string) (s release.Source, err error) {
	if dir == "" {
		if dir, err = os.Getwd(); err != nil {
			return s, err
		}
	}
	w, err := capture.FindWorkspace(ctx, dir)
	if err != nil {
		return s, err
	}
	n, err := ms.Begin()
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	tree := n.Path("checkout")
	if err := w.Checkout(ctx, tree); err != nil {
		return s, err
	}
	original, err := capture.PutTree(ctx, d, func(out io.Writer) error { return capture.WriteTree(tree, out, 0, 0) })
	if err != nil {
		return s, err
	}
	s = release.Source{VCS: w.Source.VCS, URL: w.Source.URL, Revision: w.Source.Revision, Original: original}
	s.Author, err = w.Author(ctx)
	return s, err
}

// fixSigners keeps who may sign, and whose keys are good no more. In a drill others
// sign, if anybody does: what the team has is looked at, and not used.
func fixSigners(ctx context.Context, d *depot.Depot, file string, r *runbook.Runbook, rehearsers []byte, need map[string]bool) (allowed, revoked string, err error) {
	keep := func(name string, parse func(string, []byte) error) (string, error) {
		if name == "" {
			return "", nil
		}
		name = filepath.Join(filepath.Dir(file), name)
		data, err := os.ReadFile(name)
		if err == nil {
			err = parse(name, data)
		}
		if err != nil {
			return "", err
		}
		digest, err := d.PutBytes(ctx, data)
		need[digest] = true
		return digest, err
	}
	if allowed, err = keep(r.Signers, func(name string, data []byte) error { _, err := evidence.ParseSigners(name, data); return err }); err != nil {
		return "", "", err
	}
	if allowed != "" && rehearsers != nil {
		if allowed, err = d.PutBytes(ctx, rehearsers); err != nil {
			return "", "", err
		}
		need[allowed] = true
		return allowed, "", nil
	}
	revoked, err = keep(r.Revoked, func(name string, data []byte) error { _, err := evidence.ParseRevoked(name, data); return err })
	return allowed, revoked, err
}

func (a *app) fixMachines(ctx context.Context, d *depot.Depot, r *runbook.Runbook, need map[string]bool) (list []release.Machine, err error) {
	for _, role := range r.Roles {
		m := release.Machine{Role: role.Name}
		if role.Blueprint != "" {
			if m, err = a.fixMachine(ctx, d, role, need); err != nil {
				return nil, err
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// fixMachine names the blueprint of a role by digest, and all that it needs.
func (a *app) fixMachine(ctx context.Context, d *depot.Depot, role runbook.Role, need map[string]bool) (release.Machine, error) {
	m := release.Machine{Role: role.Name}
	root, err := repository()
	if err != nil {
		return m, err
	}
	dir, b, sum, err := a.findBlueprint(ctx, filepath.Join(root, filepath.FromSlash(role.Blueprint)))
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
		} else if d.Has(dg) {
			need[dg] = true // for a machine that must prove itself
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

// releaseAmend proposes a change; it takes effect when enough approvers agreed.
func (a *app) releaseAmend(ctx context.Context, version string, o releaseOptions) error {
	if o.amended == "" && !o.source && !o.machines && !o.signers {
		return usage("nothing changes: give --runbook FILE, --source, --machines or --signers")
	}
	if o.reason == "" {
		return usage("a change says why: --reason")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	b := release.Amended{Reason: o.reason, By: o.as}
	need := map[string]bool{}
	if o.amended != "" {
		r, data, err := readRunbook(o.amended)
		if err != nil {
			return err
		}
		if b.Runbook, err = d.PutBytes(ctx, data); err != nil {
			return err
		}
		need[b.Runbook] = true
		p := release.PlanOf(r)
		b.What, b.Items, b.Endgame, b.Approver, b.Team, b.People = append(b.What, "runbook"), p.Items, p.Endgame, p.Approver, p.Team, p.People
		b.Ship, b.Budget = p.Ship, p.Budget
	}
	if o.source {
		ms, err := a.openState(ctx)
		if err != nil {
			return err
		}
		s, err := fixSource(ctx, ms, d, "")
		if err != nil {
			return err
		}
		need[s.Original] = true
		b.What, b.Source = append(b.What, "source"), &s
	}
	file := cmp.Or(o.amended, "RELEASE.md")
	if o.signers {
		r, _, err := readRunbook(file)
		if err != nil {
			return err
		}
		if r.Signers == "" {
			return usage("%s names no signers: file", file)
		}
		if b.Signers, b.Revoked, err = fixSigners(ctx, d, file, r, nil, need); err != nil {
			return err
		}
		b.What = append(b.What, "signers")
	}
	if o.machines {
		r, _, err := readRunbook(file)
		if err != nil {
			return err
		}
		if b.Machines, err = a.fixMachines(ctx, d, r, need); err != nil {
			return err
		}
		b.What = append(b.What, "machines")
	}
	a.ui.Step("sending originals to control")
	if err := a.send(ctx, c, d, slices.Sorted(maps.Keys(need))); err != nil {
		return err
	}
	var did struct {
		Event int64 `json:"event"`
	}
	if err := c.Do(ctx, http.MethodPost, "/releases/"+version+"/amend", b, &did); err != nil {
		return err
	}
	a.ui.end()
	return a.said("proposed", version, did.Event)
}

func (a *app) releaseAgree(ctx context.Context, version string, o releaseOptions) error {
	_, s, err := a.statusOf(ctx, version)
	if err != nil {
		return err
	}
	if s.Amendment == 0 {
		return usage("no change of release %s is proposed", version)
	}
	b := release.Agreed{Amendment: s.Amendment, Person: o.as, Decision: release.Approve, Reason: o.reason}
	if o.no {
		b.Decision = release.Reject
	}
	return a.tell(ctx, version, "agree", b, string(b.Decision), version)
}
