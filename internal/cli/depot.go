package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"trysail/internal/depot"
)

func (a *app) depotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "depot",
		Short: "The originals: list, verify, push, pull",
		Long:  "The depot holds every original by its digest, as an OCI image layout that other tools read too." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  needsCommand,
	}
	var insecure bool
	ls := &cobra.Command{
		Use: "ls [REFERENCE]", Short: "List references, or the originals of one", Args: cobra.MaximumNArgs(1),
		Long: "Ls lists the references. A set of originals whose name was given to another set later, by the next\ncapture or by another project, stays as NAME@DIGEST until trysail depot forget.",
		RunE: func(cmd *cobra.Command, args []string) error { return a.depotList(cmd.Context(), args) },
	}
	verify := &cobra.Command{
		Use: "verify", Short: "Read every original again and check its digest", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.depotVerify(cmd.Context()) },
	}
	push := &cobra.Command{
		Use: "push REFERENCE REGISTRY/REPOSITORY[:TAG]", Short: "Copy a reference to an OCI registry", Args: cobra.ExactArgs(2),
		Long:    "Push copies a reference and its originals to an OCI registry. What the registry has is skipped, so a push\nthat was cut goes on where it stopped. Credentials come from the Docker configuration (docker login).",
		Example: "  trysail depot push blueprint/app registry.example.com/build/app:2026-11",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.depotPush(cmd.Context(), args[0], args[1], insecure)
		},
	}
	pull := &cobra.Command{
		Use: "pull REGISTRY/REPOSITORY[:TAG] REFERENCE", Short: "Copy a reference from an OCI registry", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.depotPull(cmd.Context(), args[0], args[1], insecure)
		},
	}
	forget := &cobra.Command{
		Use: "forget REFERENCE[@DIGEST]", Short: "Remove a reference; prune then removes what it alone needed", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.depotForget(args[0]) },
	}
	prune := &cobra.Command{
		Use: "prune", Short: "Remove originals that no reference names", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.depotPrune(cmd.Context()) },
	}
	for _, c := range []*cobra.Command{push, pull} {
		c.Flags().BoolVar(&insecure, "insecure", false, "speak plain HTTP to a registry that is not on this machine")
	}
	cmd.AddCommand(ls, verify, push, pull, forget, prune)
	return cmd
}

func (a *app) depotList(ctx context.Context, args []string) error {
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	type item struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	}
	if len(args) == 1 {
		ref, err := d.Resolve(ctx, args[0])
		if err != nil {
			return err
		}
		items := []item{}
		for _, it := range ref.Items {
			items = append(items, item{it.Name, it.Digest, it.Size})
			a.printf("%s  %9s  %s\n", it.Digest, size(it.Size), it.Name)
		}
		if a.json {
			return a.printJSON(items)
		}
		return nil
	}
	refs, err := d.List(ctx)
	if err != nil {
		return err
	}
	items := []item{}
	for _, r := range refs {
		items = append(items, item{r.Name, r.Digest, r.Size()})
		a.printf("%s  %d originals, %s, %s\n", r.Name, len(r.Items), size(r.Size()), r.Digest)
	}
	if a.json {
		return a.printJSON(items)
	}
	return nil
}

func (a *app) depotVerify(ctx context.Context) error {
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	a.ui.Step("reading every original in " + d.Dir())
	r, err := d.Verify(ctx, a.bytes)
	if err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		a.printf("%s: %s\n", p.Digest, p.What)
		for _, n := range p.Names {
			a.printf("  needed as %s\n", n)
		}
	}
	a.printf("%d originals, %s, %d problem(s)", r.Originals, size(r.Bytes), len(r.Problems))
	if r.Unreferenced > 0 {
		a.printf("; %d named by nothing (trysail depot prune)", r.Unreferenced)
	}
	a.printf("\n")
	if len(r.Problems) > 0 {
		return answerNo{}
	}
	return nil
}

func (a *app) bytes(done, total int64) { a.ui.Progress(size(done) + " of " + size(total)) }

func (a *app) depotPush(ctx context.Context, ref, target string, insecure bool) error {
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	a.ui.Step("pushing " + ref + " to " + target)
	t, err := d.Push(ctx, ref, target, depot.TransferOptions{Insecure: insecure, Progress: a.bytes})
	return a.transferred("Pushed", ref, t, err)
}

func (a *app) depotPull(ctx context.Context, source, ref string, insecure bool) error {
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	a.ui.Step("pulling " + ref + " from " + source)
	t, err := d.Pull(ctx, source, ref, depot.TransferOptions{Insecure: insecure, Progress: a.bytes})
	return a.transferred("Pulled", ref, t, err)
}

func (a *app) transferred(what, ref string, t *depot.Transfer, err error) error {
	if err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		return a.printJSON(t)
	}
	a.printf("%s %s: %d originals, %s moved, %d were there already. %s\n", what, ref, t.Items, size(t.Bytes), t.Skipped, t.Digest)
	return nil
}

func (a *app) depotForget(ref string) error {
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	if err := d.Untag(ref); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Forgotten string `json:"forgotten"`
		}{ref})
	}
	a.printf("%s is forgotten. Its originals stay until trysail depot prune.\n", ref)
	return nil
}

func (a *app) depotPrune(ctx context.Context) error {
	d, err := a.openDepot()
	if err != nil {
		return err
	}
	n, bytes, err := d.Prune(ctx, time.Now())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Removed int   `json:"removed"`
			Bytes   int64 `json:"bytes"`
		}{n, bytes})
	}
	a.printf("%d originals removed, %s freed\n", n, size(bytes))
	return nil
}
