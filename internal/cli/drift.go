package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"trysail/internal/capture"
	"trysail/internal/depot"
)

func (a *app) driftCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "drift",
		Short: "Compare this machine with its blueprint, item by item",
		Long:  "Drift says where the live machine and the blueprint differ: packages, configuration, software,\nalternatives, users; and what a captured build used that the blueprint has lost. It changes nothing." + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.drift(cmd.Context(), dir) },
	}
	cmd.Flags().StringVar(&dir, "blueprint", "", "directory of the blueprint (default: trysail/ in the working copy, or here)")
	return cmd
}

func (a *app) drift(ctx context.Context, dir string) error {
	_, b, sum, err := a.findBlueprint(ctx, dir)
	if err != nil {
		return err
	}
	d, err := depot.Open(a.depotDir)
	if err != nil {
		return err
	}
	a.ui.Step("comparing this machine with " + b.Name)
	drift, unknown, err := capture.FindDrift(ctx, b, sum, d, a.ui.Progress)
	if err != nil {
		return err
	}
	a.ui.end()
	if a.json {
		err := a.printJSON(struct {
			Drift   []capture.Drift `json:"drift"`
			Unknown []string        `json:"unknown"`
		}{nonNil(drift), nonNil(unknown)})
		if err != nil {
			return err
		}
	} else {
		for _, x := range drift {
			a.printf("%s\n  blueprint: %s\n  machine:   %s\n", x.Item, x.Blueprint, x.Machine)
		}
		for _, u := range unknown {
			fmt.Fprintln(a.stderr, "  ? not compared:", u)
		}
	}
	if len(drift) > 0 {
		a.printf("%d item(s) differ. If the machine is right, capture again; if the blueprint is, mend the machine.\n", len(drift))
		return answerNo{}
	}
	a.printf("This machine is what its blueprint says.\n")
	return nil
}
