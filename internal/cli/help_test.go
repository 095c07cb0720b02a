package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"mvdan.cc/sh/v3/shell"
)

// TestExamples: help shows each command typed once, and each example is a command line that the
// program takes.
func TestExamples(t *testing.T) {
	command := func() *cobra.Command {
		root, err := (&app{stdout: io.Discard, stderr: io.Discard}).rootCommand()
		if err != nil {
			t.Fatal(err)
		}
		return root
	}
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			each(sub)
		}
		if c.Runnable() && !c.Hidden && len(c.Commands()) == 0 && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " > ") // its answer goes to a file
			args, err := shell.Fields(strings.TrimPrefix(line, "sudo "), func(string) string { return "" })
			if err != nil || len(args) == 0 || args[0] != "trysail" {
				t.Errorf("%s: %q is no command (%v)", c.CommandPath(), line, err)
				continue
			}
			found, rest, err := command().Find(args[1:])
			if err == nil && !found.Runnable() {
				t.Errorf("%q runs nothing", line)
			}
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if err == nil {
				err = found.ValidateFlagGroups()
			}
			if err == nil {
				err = found.ValidateRequiredFlags()
			}
			if err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	root := command()
	each(root)
	for name := range examples() {
		if c, _, err := root.Find(strings.Fields(name)); err != nil || c.CommandPath() != "trysail "+name {
			t.Errorf("there is an example for %q, which is no command", name)
		}
	}
}
