package cli

import (
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"trysail/internal/tree"
	"trysail/runbook"
)

// checkWords makes every command say which word is missing or too many, and refuses a
// version that cannot be one before anything is sent.
func checkWords(c *cobra.Command) {
	for _, sub := range c.Commands() {
		checkWords(sub)
	}
	use, _, _ := strings.Cut(c.Use, " [-") // flags are no words
	takes, asked := c.Args, strings.Fields(use)[1:]
	if takes == nil {
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		how := c.CommandPath()
		if len(asked) > 0 {
			how += " " + strings.Join(asked, " ")
		}
		switch err := takes(c, args); {
		case err == nil:
		case c.HasSubCommands() && len(args) > 0:
			return usage("%s has no command %q (see %s --help)", c.CommandPath(), args[0], c.CommandPath())
		case len(args) < len(asked):
			return usage("%s is missing: %s", asked[len(args)], how)
		case len(args) > len(asked):
			return usage("%q is one word too many: %s", args[len(asked)], how)
		default:
			return usageError{err}
		}
		if len(asked) > 0 && asked[0] == "VERSION" {
			if err := runbook.CheckVersion(args[0]); err != nil {
				return usageError{err}
			}
		}
		return nil
	}
}

// needsCommand refuses a command that is a group of others, and names them.
func needsCommand(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	last := len(names) - 1
	return usage("%s needs a command: %s or %s", c.Name(), strings.Join(names[:last], ", "), names[last])
}

// flagError says what a word is that looks like a flag.
func flagError(c *cobra.Command, err error) error {
	if strings.HasPrefix(err.Error(), "unknown shorthand flag") {
		return usage("%w: a word that begins with - is a flag, and neither a version nor a name begins with - (see %s --help)", err, c.CommandPath())
	}
	return usage("%w (see %s --help)", err, c.CommandPath())
}

// asksForJSON tells whether a command line that cobra could not read asks for JSON.
func asksForJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.ContainsFunc(args, func(w string) bool { return w == "--json" || w == "--json=true" })
}

// unquoted finds a pattern that the shell expanded: of --output dist/* only the first file
// is the flag's, and the others stand before the command.
func unquoted(args []string, outputs []string) error {
	n := slices.Index(args, "--")
	if n <= 0 || len(outputs) == 0 {
		return nil
	}
	files := append(outputs[len(outputs)-1:], args[:n]...)
	dir := path.Dir(files[0])
	for _, f := range files {
		if _, err := tree.Lstat(f); err != nil || path.Dir(f) != dir {
			return nil // the command itself has a word --
		}
	}
	return usage("%s comes before --: did the shell expand the pattern of --output? Quote it: --output %s", args[0], shellWord(path.Join(dir, "*")))
}
