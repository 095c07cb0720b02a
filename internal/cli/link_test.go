package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What is an example puts no secret among a process's arguments, which every user
// of the machine reads: a link is given as the file that holds it.
func TestExamplesKeepLinks(t *testing.T) {
	a := &app{}
	for _, c := range []*cobra.Command{a.serveCommand(), a.agentCommand()} {
		if !strings.Contains(c.Example, "--join link") || strings.Contains(c.Example, "$(") {
			t.Errorf("%s: %s", c.Name(), c.Example)
		}
	}
}
