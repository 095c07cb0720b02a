package cli

import (
	"context"
	"slices"
	"strings"

	"trysail/internal/lab"
)

// drillClean takes away what killed drills left, as every command that needs root
// does when it begins, and says what of drills is still there.
func (a *app) drillClean(ctx context.Context) error {
	st, err := a.openState(ctx)
	if err != nil {
		return err
	}
	list, err := lab.Look(st)
	if err != nil {
		return err
	}
	// The host has mounts and tables of its own; a drill's bear its name.
	list = slices.DeleteFunc(list, func(s string) bool { return !strings.Contains(s, "trysail-") })
	if a.json {
		if err := a.printJSON(struct {
			Left []string `json:"left"`
		}{append([]string{}, list...)}); err != nil {
			return err
		}
	}
	for _, s := range list {
		a.printf("still there: %s\n", s)
	}
	if len(list) > 0 {
		return answerNo{}
	}
	a.printf("Nothing of drills that were killed is left.\n")
	return nil
}
