package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"trysail/internal/sbom"
	"trysail/internal/secret"
	"trysail/internal/tree"
)

// diligenceCommand holds what steps of due diligence run: they find it as $TRYSAIL.
func (a *app) diligenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diligence",
		Short: "Look into what is about to be shipped: licences, changes, secrets",
		Long:  "Diligence looks into files, and into the archives and programs in them. Steps of a runbook run it as \"$TRYSAIL\" diligence;\ntrysail runbook phases writes such steps." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  needsCommand,
	}
	cmd.AddCommand(&cobra.Command{
		Use: "licences FILE…", Short: "List the licences that what is in it declares", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.diligenceLicences(c.Context(), args) },
	})
	var since string
	changes := &cobra.Command{
		Use: "changes FILE…", Short: "List third-party components that changed since an earlier bill of materials", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.diligenceChanges(c.Context(), since, args) },
	}
	changes.Flags().StringVar(&since, "since", "", "the earlier bill: sbom/shipped.cdx.json of its evidence, in `FILE`")
	cmd.AddCommand(changes, &cobra.Command{
		Use: "secrets FILE…", Short: "Look for private keys, tokens and passwords (exit status 3 if there are any)", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.diligenceSecrets(c.Context(), args) },
	})
	return cmd
}

// bill looks into files.
func (a *app) bill(ctx context.Context, files []string, each func(at string, r io.Reader) error) (*sbom.BOM, error) {
	var list []sbom.Artifact
	for _, file := range files {
		info, err := tree.Stat(file)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, usage("%s is no file", file)
		}
		f, err := tree.OpenFile(file)
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		list = append(list, sbom.Artifact{Path: filepath.ToSlash(filepath.Clean(file)), SHA256: digest.NewDigest(digest.SHA256, h).String(), Size: n, Open: func() (io.ReadCloser, error) { return opened(tree.OpenFile(file)) }})
	}
	return sbom.Shipped(ctx, sbom.Release{Version: os.Getenv("TRYSAIL_RELEASE"), Revision: os.Getenv("TRYSAIL_REVISION")}, list, sbom.Options{Tool: Version(), Each: each})
}

// opened gives a file as a reader, and an error without one.
func opened(f *os.File, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (a *app) diligenceLicences(ctx context.Context, files []string) error {
	bill, err := a.bill(ctx, files, nil)
	if err != nil {
		return err
	}
	root, err := tree.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	list := sbom.Licences(bill, root.FS())
	if a.json {
		return a.printJSON(list)
	}
	return sbom.WriteLicences(a.stdout, list)
}

func (a *app) diligenceChanges(ctx context.Context, since string, files []string) error {
	if since == "" {
		return usage("say since when: --since shipped.cdx.json")
	}
	data, err := tree.ReadFile(since, maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return usage("there is no %s: commit sbom/shipped.cdx.json of the evidence of the release before, beside the runbook", since)
	}
	if err != nil {
		return err
	}
	before, err := sbom.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", since, err)
	}
	now, err := a.bill(ctx, files, nil)
	if err != nil {
		return err
	}
	list := sbom.Diff(before, now)
	if a.json {
		return a.printJSON(list)
	}
	return sbom.WriteChanges(a.stdout, list)
}

func (a *app) diligenceSecrets(ctx context.Context, files []string) error {
	found, looked := []secret.Finding{}, 0
	_, err := a.bill(ctx, files, func(at string, r io.Reader) error {
		looked++
		list, err := secret.Scan(at, r)
		for _, f := range list {
			f.Path = at
			found = append(found, f)
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(found); err != nil {
			return err
		}
	}
	for _, f := range found {
		at := f.Path
		if f.Line > 0 {
			at = fmt.Sprintf("%s:%d", at, f.Line)
		}
		a.printf("%s: %s (%s)\n", at, f.What, f.Rule)
	}
	if len(found) > 0 {
		return answerNo{}
	}
	a.printf("%d file(s), and no secret in them that is known by its form.\n", looked)
	return nil
}
