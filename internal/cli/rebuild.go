package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"trysail/blueprint"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/rebuild"
	"trysail/internal/secret"
	"trysail/internal/tree"
	"trysail/runbook"
)

type rebuildOptions struct {
	cold, shell, prove bool
	into, oci          string
	blueprint          string
	build              string
	accept             string
	identity           []string
	permits            permitFlags
	trusted            []string // fingerprints of blueprints
}

func (a *app) rebuildCommand() *cobra.Command {
	var o rebuildOptions
	cmd := &cobra.Command{
		Use:         "rebuild [--cold] [--into DIR | --oci FILE | --shell] [--prove]",
		Short:       "Make the build server again from its blueprint, with no network",
		Long:        "Rebuild makes a root file system from the blueprint and the originals in the depot. A root that was\nmade before from the same inputs is mounted, unless --cold asks for originals only." + exitHelp,
		Example:     "  sudo trysail rebuild --prove\n  sudo trysail rebuild --shell\n  sudo trysail rebuild --cold --into /srv/new-root",
		Annotations: map[string]string{rootlessKey: rootlessHere},
		Args:        cobra.NoArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.rebuild(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.cold, "cold", false, "use originals only, whatever is cached")
	f.StringVar(&o.into, "into", "", "copy the root file system to an empty `DIR`, which only you may enter: it has set-user-ID programs")
	f.StringVar(&o.oci, "oci", "", "write the root file system as an OCI image archive to `FILE`")
	f.BoolVar(&o.shell, "shell", false, "open a shell in the rebuilt server; what it writes is thrown away")
	f.BoolVar(&o.prove, "prove", false, "run the recorded builds and compare what they make")
	f.StringVar(&o.blueprint, "blueprint", "", "directory of the blueprint (default: trysail/ in the working copy, or here)")
	f.StringVar(&o.build, "build", "", "prove only this build")
	f.StringVar(&o.accept, "accept", "", "exit 0 for this verdict too: equivalent")
	f.StringArrayVarP(&o.identity, "identity", "i", nil, "`FILE` with an age identity or SSH private key that opens encrypted configuration (repeatable)")
	o.permits.add(f)
	f.StringArrayVar(&o.trusted, "trust", nil, "run a blueprint that others can write, if it has this `FINGERPRINT`, sha256:… (repeatable)")
	cmd.MarkFlagsMutuallyExclusive("into", "oci", "shell")
	return cmd
}

// findBlueprint reads the blueprint that a flag names, or the one of the
// working copy, or the one in this directory.
func (a *app) findBlueprint(ctx context.Context, dir string) (string, *blueprint.Blueprint, blueprint.Sum, error) {
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return "", nil, nil, err
		}
		if _, err := tree.Stat(filepath.Join(wd, "blueprint.yaml")); err == nil {
			dir = wd
		} else {
			o := captureOptions{}
			if dir, err = o.directory(ctx); err != nil {
				dir = filepath.Join(wd, "trysail")
			}
		}
	}
	b, sum, err := readBlueprint(dir)
	if errors.Is(err, os.ErrNotExist) {
		return dir, nil, nil, &noBlueprintError{dir}
	}
	if err == nil && !b.Unobserved {
		err = sum.Check(b)
	}
	return dir, b, sum, err
}

type noBlueprintError struct{ dir string }

func (e *noBlueprintError) Error() string { return "there is no blueprint in " + e.dir }

func (e *noBlueprintError) Hint() string {
	return "name its directory with --blueprint, or make one: sudo trysail capture --output 'dist/**' -- COMMAND"
}

func (a *app) rebuild(ctx context.Context, o rebuildOptions) (err error) {
	if o.accept != "" && o.accept != "equivalent" {
		return usage("--accept knows only equivalent, not %q", o.accept)
	}
	if o.into != "" {
		if list, err := tree.ReadDir(o.into); err == nil && len(list) > 0 {
			return usage("--into %s: the directory is not empty", o.into)
		}
	}
	permits, err := a.permits(o.permits)
	if err != nil {
		return err
	}
	dir, b, sum, err := a.findBlueprint(ctx, o.blueprint)
	if err != nil {
		return err
	}
	if b.Unobserved {
		return usage("%s is a draft (unobserved): it keeps no originals to rebuild from and no build to prove; trysail capture makes a blueprint that does", dir)
	}
	if err := a.trusts(dir, b, sum, o.trusted); err != nil {
		return err
	}
	var ids []age.Identity
	for _, f := range o.identity {
		list, err := secret.ReadIdentities(f)
		if err != nil {
			return err
		}
		ids = append(ids, list...)
	}
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	// Configuration that only version control has yet is as good as the depot's.
	if err := importConfig(ctx, d, dir, b, sum); err != nil {
		return err
	}
	ro := a.rebuildOptions(st, d, b, sum)
	ro.Cold, ro.Identities = o.cold, ids
	var r *result
	if o.prove {
		r = &result{permits: permits}
		if err := a.prove(ctx, ro, sum, o.builds(b), r); err != nil {
			return err
		}
		if (o.into == "" && o.oci == "" && !o.shell) || r.Verdict == rebuild.Failed {
			return a.verdict(r, o.accept)
		}
		ro.Cold = false // it stands, and was just proved
	}
	server, err := rebuild.Root(ctx, ro)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	switch {
	case o.into != "":
		a.ui.Step("copying the root to " + o.into)
		err = server.CopyTo(ctx, st, o.into)
	case o.oci != "":
		a.ui.Step("writing " + o.oci)
		err = server.WriteOCI(ctx, st, b, o.oci)
	}
	if err != nil {
		return err
	}
	if r != nil && !o.shell {
		return a.verdict(r, o.accept)
	}
	a.ui.end()
	for _, p := range server.Skipped {
		fmt.Fprintf(a.stderr, "  ! %s is encrypted and was left out: give the key with --identity\n", p)
	}
	if o.shell {
		return a.shell(ctx, st, b, server)
	}
	if a.json {
		return a.printJSON(server)
	}
	how := "was ready"
	if server.Cold {
		how = "made from originals"
	}
	a.printf("Rebuilt %s: %d packages, %s in %s. %s\n", b.Name, len(b.Packages), how, runbook.FormatSeconds(server.Seconds), server.Digest)
	if o.into == "" && o.oci == "" {
		a.printf("Prove it: trysail rebuild --prove; look around: trysail rebuild --shell\n")
	}
	return nil
}

func (a *app) rebuildOptions(st *machine.State, d *depot.Depot, b *blueprint.Blueprint, sum blueprint.Sum) rebuild.Options {
	return rebuild.Options{State: st, Depot: d, Blueprint: b, Sum: sum, Log: a.log, Step: a.ui.Step, Progress: a.ui.Progress, Now: time.Now}
}

// builds lists the builds to prove: the one named, or all.
func (o *rebuildOptions) builds(b *blueprint.Blueprint) []string {
	if o.build != "" {
		return []string{o.build}
	}
	var names []string
	for _, x := range b.Builds {
		names = append(names, x.Name)
	}
	return names
}

// importConfig puts the configuration files beside the blueprint into the depot.
func importConfig(ctx context.Context, d *depot.Depot, dir string, b *blueprint.Blueprint, sum blueprint.Sum) error {
	at, err := tree.Open(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	return putConfig(ctx, d, dir, b, sum, func(name string) (io.ReadCloser, error) { return at.Open(name) })
}

// putConfig puts the configuration that the depot lacks into it, from wherever it is opened.
func putConfig(ctx context.Context, d *depot.Depot, dir string, b *blueprint.Blueprint, sum blueprint.Sum, open func(name string) (io.ReadCloser, error)) error {
	for _, f := range b.Config {
		name := f.ConfigName()
		if f.Link != "" || sum[name] == "" || d.Has(sum[name]) {
			continue
		}
		r, err := open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the rebuild will name it
		}
		if err != nil {
			return err
		}
		_, err = d.PutExpected(ctx, r, sum[name])
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
	}
	return nil
}

// shellOf names the shell for a person in a root file system.
func shellOf(root string) (string, error) {
	d, err := tree.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer d.Close()
	f, err := d.Open("bin/bash")
	if err != nil {
		return "/bin/sh", nil
	}
	return "/bin/bash", f.Close()
}

func (a *app) shell(ctx context.Context, st *machine.State, b *blueprint.Blueprint, server *rebuild.Server) (err error) {
	n, err := st.Begin()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	root, err := server.Mount(n, "root")
	if err != nil {
		return err
	}
	sh, err := shellOf(root)
	if err != nil {
		return err
	}
	_, terminal := a.stdin.(*os.File)
	terminal = terminal && isTerminal(a.stdin.(*os.File)) && isTerminal(a.stdout)
	x, err := n.Run(ctx, machine.Spec{
		Root: root, Hostname: b.Machine.Hostname, Args: []string{sh}, Dir: "/", Umask: 0o022, Terminal: terminal,
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=" + os.Getenv("TERM"), "PS1=[rebuilt] \\w# "},
		Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr,
	})
	if err != nil {
		return err
	}
	if x.Code != 0 {
		return fmt.Errorf("the shell ended with status %d", x.Code)
	}
	return nil
}
