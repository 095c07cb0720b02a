package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) rebuildCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rebuild", RunE: func(cmd *cobra.Command, args []string) error { return a.rebuild(cmd.Context()) }}
	return cmd
}

func (a *app) rebuild(context.Context) error { return usage("not yet") }
