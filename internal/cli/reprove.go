package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trysail/blueprint"
	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/exercise"
	"trysail/internal/tree"
	"trysail/release"
	"trysail/runbook"
)

// reproveOptions say which releases of the past are made again.
type reproveOptions struct {
	bundles string
	all     bool
	soon    time.Duration
	trust   verifyOptions
	trusted []string // fingerprints of release keys
}

func (a *app) reproveCommand() *cobra.Command {
	var o reproveOptions
	c := &cobra.Command{
		Use:   "reprove [VERSION|BUNDLE]…",
		Short: "Make what was shipped again, from its evidence and the depot",
		Long: "Reprove verifies the bundle of a release that shipped, makes its build server anew from originals in the depot\n" +
			"on a disposable machine without any network, builds there what gold was built of, and compares the bytes.\n" +
			"Its steps run only if you vouch for who signed them: --release-key, --ledger-key or --trust; else it shows whom\n" +
			"and what you would trust.\n" +
			"It warns of what expires. A VERSION is a bundle below --bundles; --all takes each of them." + exitHelp,
		Annotations: map[string]string{rootlessKey: rootlessAlone},
		Args:        cobra.ArbitraryArgs,
		RunE:        func(c *cobra.Command, args []string) error { return a.reprove(c.Context(), args, o) },
	}
	f := c.Flags()
	f.StringVar(&o.bundles, "bundles", "bundles", "`DIR` that holds the bundles, one directory each")
	f.BoolVar(&o.all, "all", false, "every bundle there")
	o.soon = 90 * 24 * time.Hour
	f.Var(&duration{&o.soon, runbook.ParsePeriod}, "soon", "warn of what expires within this `TIME` (default 90d)")
	o.trust.flags(f)
	f.StringArrayVar(&o.trusted, "trust", nil, "run what this release key has signed: its `FINGERPRINT`, SHA256:… (repeatable)")
	a.addReproveSchedule(c)
	return c
}

// reproved is the answer for one release.
type reproved struct {
	Version   string           `json:"version"`
	Bundle    string           `json:"bundle"`
	Verdict   string           `json:"verdict"` // identical, different, failed, untrusted
	Why       string           `json:"why,omitempty"`
	Outputs   []reprovedOutput `json:"outputs"`
	Seconds   float64          `json:"seconds"`
	Attention []string         `json:"attention"`
	// Signer is whom and what the caller would trust; of a bundle that is untrusted.
	Signer *bundleSigner `json:"signer,omitempty"`
}

type reprovedOutput struct {
	Path      string `json:"path"`
	Shipped   string `json:"sha256_shipped"`
	Again     string `json:"sha256_again,omitempty"`
	Identical bool   `json:"identical"`
}

func (a *app) reprove(ctx context.Context, args []string, o reproveOptions) error {
	dirs, err := o.find(args)
	if err != nil {
		return err
	}
	if _, err := o.trust.trust(); err != nil {
		return err
	}
	if err := o.fingerprints(); err != nil {
		return err
	}
	list, no := []reproved{}, false
	for _, dir := range dirs {
		r := a.reproveOne(ctx, dir, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.ui.end()
		list = append(list, r)
		no = no || r.Verdict != "identical"
		if !a.json {
			a.printReproved(r)
		}
	}
	if a.json {
		if err := a.printJSON(list); err != nil {
			return err
		}
	}
	if no {
		return answerNo{}
	}
	return nil
}

// find names the bundles that are meant.
func (o reproveOptions) find(args []string) ([]string, error) {
	is := func(dir string) bool {
		_, err := tree.Stat(filepath.Join(dir, "SHA256SUMS"))
		return err == nil
	}
	var dirs []string
	switch {
	case o.all == (len(args) > 0):
		return nil, usage("name versions or bundles, or give --all")
	case o.all:
		found, err := tree.ReadDir(o.bundles)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			if dir := filepath.Join(o.bundles, d.Name()); is(dir) {
				dirs = append(dirs, dir)
			}
		}
		if len(dirs) == 0 {
			return nil, usage("%s holds no bundle: trysail release bundle VERSION --into %s/VERSION", o.bundles, o.bundles)
		}
		return dirs, nil
	}
	for _, arg := range args {
		dir := arg
		if !is(dir) {
			dir = filepath.Join(o.bundles, arg)
		}
		if !is(dir) {
			return nil, usage("neither %s nor %s is a bundle", arg, dir)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

func (a *app) printReproved(r reproved) {
	switch r.Verdict {
	case "identical":
		a.printf("Release %s: made again, the same bytes, in %s.\n", r.Version, runbook.FormatSeconds(r.Seconds))
	case "different":
		a.printf("Release %s: made again, and other bytes.\n", r.Version)
	case "untrusted":
		a.printf("Release %s: not made again: %s\n", r.Version, r.Why)
		a.printSigner(r.Signer)
	default:
		a.printf("Release %s: cannot be made again: %s\n", release.StripControl(r.Version), release.StripControl(r.Why))
	}
	for _, x := range r.Outputs {
		if x.Identical {
			a.printf("  ✓ %s  sha256:%s\n", x.Path, x.Shipped)
		} else {
			a.printf("  ✗ %s  shipped sha256:%s, again sha256:%s\n", x.Path, x.Shipped, x.Again)
		}
	}
	for _, t := range r.Attention {
		a.printf("  ! %s\n", t)
	}
}

// reproveOne makes one release again. What goes wrong is the answer.
func (a *app) reproveOne(ctx context.Context, dir string, o reproveOptions) (r reproved) {
	begin := time.Now()
	r = reproved{Bundle: dir, Version: filepath.Base(dir), Verdict: "failed", Outputs: []reprovedOutput{}, Attention: []string{}}
	gold, want, err := a.remake(ctx, dir, o, &r)
	r.Seconds = time.Since(begin).Seconds()
	if r.Signer != nil {
		r.Verdict, r.Why = "untrusted", "nothing but the bundle itself vouches for who signed it"
		return r
	}
	if err != nil {
		r.Why = err.Error()
		var h hinted
		if errors.As(err, &h) {
			r.Why += " → " + h.Hint()
		}
		return r
	}
	made := map[string]string{}
	for _, x := range gold {
		made[x.Path] = x.Digest
	}
	r.Verdict = "identical"
	plain := func(d string) string { return strings.TrimPrefix(d, "sha256:") }
	for _, x := range want {
		if x.Digest == "" {
			continue
		}
		same := made[x.Path] == x.Digest
		if !same {
			r.Verdict = "different"
		}
		r.Outputs = append(r.Outputs, reprovedOutput{x.Path, plain(x.Digest), plain(made[x.Path]), same})
	}
	if len(gold) != len(want) {
		r.Verdict = "different"
	}
	return r
}

// remake verifies a bundle and makes its gold again: what came of it, and what shipped.
func (a *app) remake(ctx context.Context, dir string, o reproveOptions, r *reproved) (gold, want []release.Artifact, err error) {
	t, err := o.trust.trust()
	if err != nil {
		return nil, nil, err
	}
	root, err := tree.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	a.ui.Step("verifying " + dir)
	v := evidence.Verify(root.FS(), t)
	if err := o.trust.stamped(root.FS(), v); err != nil {
		return nil, nil, err
	}
	if !v.Verified {
		return nil, nil, fmt.Errorf("its evidence does not verify: %s", v.Problems[0])
	}
	if len(v.FromBundle) > 0 {
		r.Attention = append(r.Attention, "the "+strings.Join(v.FromBundle, " and the ")+" came with the bundle: give those that you have from elsewhere (--release-key, --ledger-key)")
	}
	s := v.State
	r.Version = s.Started.Version
	st, err := onceMore(s)
	if err != nil {
		return nil, nil, err
	}
	if !o.knows(v, t) {
		r.Signer = signerOf(dir, v, st, liveIn(root.FS(), s))
		return nil, nil, nil
	}
	d, err := a.openDepot()
	if err != nil {
		return nil, nil, err
	}
	need, err := fromBundle(ctx, d, root.FS(), st)
	if err != nil {
		return nil, nil, err
	}
	r.Attention = append(r.Attention, a.expiring(root.FS(), s, o.soon)...)
	ms, err := a.openState(ctx)
	if err != nil {
		return nil, nil, err
	}
	gold, err = exercise.Remake(ctx, exercise.Making{
		Stage: a.stage(ms), Version: st.Version, Disk: "24GB", Progress: a.ui.Step, Log: a.log,
		Start: func(ctx context.Context, c *api.Client) error {
			if err := a.send(ctx, c, d, need); err != nil {
				return err
			}
			return c.Do(ctx, http.MethodPost, "/replays", api.Replay{Started: st}, nil)
		},
	})
	return gold, v.Shipped, err
}

// onceMore is the release that makes the gold of another once more: the steps that it was
// made by, in the servers in which they ran, and nothing that people do.
func onceMore(s *release.State) (release.Started, error) {
	st := s.Started
	st.Items, st.Source, st.Machines, st.Runbook = nil, s.Source, nil, s.Runbook
	st.Endgame, st.Approver, st.People, st.Signers, st.Revoked, st.Budget = nil, nil, nil, "", "", 0
	steps := map[string]bool{}
	var take func(name string)
	take = func(name string) {
		x := s.Item(name)
		if x == nil || steps[name] {
			return
		}
		steps[name] = x.Kind == runbook.Step
		for _, n := range x.Needs {
			take(n)
		}
	}
	for _, x := range s.Items {
		if x.Gold {
			take(x.Name)
		}
	}
	roles := map[string]bool{}
	for _, x := range s.Items {
		if !steps[x.Name] {
			continue
		}
		switch {
		case len(x.Secrets) > 0:
			return st, fmt.Errorf("step %s needs secrets, which no evidence holds", x.Name)
		case x.Network:
			return st, fmt.Errorf("step %s needs the network of its day", x.Name)
		case s.Machine(x.Role).Blueprint == "":
			return st, fmt.Errorf("step %s ran plainly on a host, which cannot be made again", x.Name)
		}
		x.Needs = slices.DeleteFunc(slices.Clone(x.Needs), func(n string) bool { return !steps[n] })
		st.Items = append(st.Items, x)
		roles[x.Role] = true
	}
	for _, m := range s.Machines {
		if roles[m.Role] {
			st.Machines = append(st.Machines, m)
		}
	}
	return st, nil
}

// fromBundle puts what a bundle holds of a release into the depot, and names all that
// is needed; what the depot lacks is an error that says so.
func fromBundle(ctx context.Context, d *depot.Depot, bundle fs.FS, st release.Started) ([]string, error) {
	need := map[string]string{st.Source.Original: "the source"}
	put := func(file string) ([]byte, error) {
		data, err := fs.ReadFile(bundle, file)
		if err != nil {
			return nil, err
		}
		dg, err := d.PutBytes(ctx, data)
		need[dg] = file
		return data, err
	}
	if _, err := put("runbook.md"); err != nil {
		return nil, err
	}
	for _, m := range st.Machines {
		dir := "blueprint/" + m.Role + "/"
		if _, err := put(dir + "blueprint.yaml"); err != nil {
			return nil, err
		}
		data, err := put(dir + "blueprint.sum")
		if err != nil {
			return nil, err
		}
		sum, err := blueprint.ParseSum(dir+"blueprint.sum", data)
		if err != nil {
			return nil, err
		}
		for name, dg := range sum {
			if _, err := fs.Stat(bundle, dir+name); err == nil {
				if _, err := put(dir + name); err != nil {
					return nil, err
				}
			}
			if release.NeedsOriginal(name) {
				need[dg] = name
			}
		}
	}
	var missing []string
	for dg, what := range need {
		if !d.Has(dg) {
			missing = append(missing, what)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, &depot.NotFoundError{What: fmt.Sprintf("%d original(s), the first of them %s", len(missing), missing[0]), Depot: d.Dir()}
	}
	return slices.Sorted(maps.Keys(need)), nil
}

// liveIn lists the live dependencies of a bundle's blueprints.
func liveIn(bundle fs.FS, s *release.State) []string {
	var list []string
	for _, m := range s.Machines {
		data, err := fs.ReadFile(bundle, "blueprint/"+m.Role+"/blueprint.yaml")
		if err != nil {
			continue // a role that runs plainly
		}
		b, err := blueprint.Parse("blueprint.yaml", data)
		if err != nil {
			continue // making it again says why
		}
		for _, x := range b.LiveDependencies {
			list = append(list, x.Name+" ("+x.Kind+" "+x.Address+")")
		}
	}
	return list
}

// expiring warns of what will not be there for ever: keys that end, and what was never
// captured.
func (a *app) expiring(bundle fs.FS, s *release.State, soon time.Duration) []string {
	var list []string
	now := a.clock.Now()
	if data, err := fs.ReadFile(bundle, "trust/allowed_signers"); err == nil {
		signers, err := evidence.ParseSigners("trust/allowed_signers", data)
		if err != nil {
			list = append(list, err.Error())
		}
		for _, x := range signers {
			if !x.Before.IsZero() && x.Before.Before(now.Add(soon)) {
				list = append(list, fmt.Sprintf("the key of %s ends %s: it signs no other release after that", strings.Join(x.Principals, ", "), x.Before.Format(time.DateOnly)))
			}
		}
	}
	for _, m := range s.Machines {
		data, err := fs.ReadFile(bundle, "blueprint/"+m.Role+"/blueprint.yaml")
		if err != nil {
			continue // a role that runs plainly
		}
		b, err := blueprint.Parse("blueprint.yaml", data)
		if err != nil {
			list = append(list, err.Error())
			continue
		}
		for _, x := range b.LiveDependencies {
			list = append(list, fmt.Sprintf("the server of role %s depends on %s, which no depot has", m.Role, x.Name))
			if why, remedy := x.Trouble(now.Add(soon)); why != "" {
				list = append(list, why+" → "+remedy)
			}
		}
	}
	return list
}
