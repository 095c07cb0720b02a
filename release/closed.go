package release

import (
	"slices"

	"trysail/runbook"
)

// closed refuses what stands for none of the words that a plan and a source may have.
func closed(b Body, items []runbook.Item, endgame []runbook.Freeze, source *Source) error {
	if source != nil && source.VCS != "git" && source.VCS != "svn" {
		return forbid(b, "%q is no version control: git or svn", source.VCS)
	}
	for _, f := range endgame {
		for _, what := range f.Freezes {
			if !slices.Contains([]string{"source", "runbook", "machines", "signers"}, what) {
				return forbid(b, "the endgame freezes %q: source, runbook, machines or signers", what)
			}
		}
		if f.Approvals < 1 {
			return forbid(b, "the endgame of phase %s asks for %d approvals", f.Phase, f.Approvals)
		}
	}
	golds := 0
	for i := range items {
		x := &items[i]
		if x.Gold {
			golds++
		}
		switch {
		case !slices.Contains([]runbook.Kind{runbook.Step, runbook.Publish, runbook.Wait, runbook.SignOff}, x.Kind):
			return forbid(b, "%q is no kind of item", x.Kind)
		case x.Gold && x.Kind != runbook.Step:
			return forbid(b, "%s is gold and a %s", x.Name, x.Kind)
		case golds > 1:
			return forbid(b, "%s is a second gold", x.Name)
		case x.Again != "" && x.Again != "machine":
			return forbid(b, "%s is to run again after %q", x.Name, x.Again)
		case x.Lost != "" && x.Lost != "ask":
			return forbid(b, "%q of %s says nothing of a machine that is lost", x.Lost, x.Name)
		case x.Kind == runbook.SignOff && !counted(x):
			return forbid(b, "the approvals of %s are not counted", x.Name)
		}
	}
	return nil
}

// counted tells whether the approvals of a sign-off can be counted: of its quotas, if it
// has some, or of the people it asks.
func counted(x *runbook.Item) bool {
	sum := 0
	for _, q := range x.Counted() {
		if q.Approvals < 1 || q.Approvals > len(q.Of) {
			return false
		}
		sum += q.Approvals
	}
	return sum == x.Approvals
}
