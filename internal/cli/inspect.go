package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"trysail/blueprint"
	"trysail/internal/capture"
)

func (a *app) inspectCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "inspect",
		Short:   "Draft a blueprint of this machine without running a build",
		Long:    "Inspect writes to standard output what this machine looks like from outside: packages, changed and\nunowned configuration, software beside the packages. It is marked unobserved, keeps no original and\ncannot be proved. It works without root and says what it could not see." + exitHelp,
		Example: "  trysail inspect > draft.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.inspect(cmd.Context(), name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the blueprint (default: the host's)")
	return cmd
}

func (a *app) inspect(ctx context.Context, name string) error {
	a.ui.Step("inspecting this machine")
	b, limits, err := capture.Inspect(ctx, name, time.Now(), a.ui.Progress)
	if err != nil {
		return err
	}
	a.ui.end()
	for _, l := range limits {
		fmt.Fprintln(a.stderr, "  !", l)
	}
	if a.json {
		return a.printJSON(struct {
			Blueprint *blueprint.Blueprint `json:"blueprint"`
			Limits    []string             `json:"limits"`
		}{b, nonNil(limits)})
	}
	data, err := b.Marshal()
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(data)
	return err
}
