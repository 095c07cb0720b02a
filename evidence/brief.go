package evidence

import (
	"fmt"
	"slices"
	"strings"

	"trysail/release"
	"trysail/runbook"
)

// Brief says in five lines what a person is about to sign: what, which bytes, made where,
// tested how, and what it means.
func Brief(s *release.State, b release.Signed) []string {
	x := s.Item(b.Item)
	var steps []*runbook.Item
	for _, n := range needed(s, x, nil) {
		if y := s.Item(n); y.Kind == runbook.Step || y.Kind == runbook.Publish {
			steps = append(steps, y)
		}
	}
	return []string{
		fmt.Sprintf("What    %s (%s), of release %s", x.Text, x.Name, s.Started.Version),
		"Bytes   " + briefBytes(s, x),
		"Made    " + briefPlaces(s, steps),
		"Tested  " + briefTests(s, steps),
		"Means   " + briefMeaning(s, x, b),
	}
}

// needed are the items that one needs, directly or through others, the nearest first.
func needed(s *release.State, x *runbook.Item, list []string) []string {
	for _, n := range x.Needs {
		if !slices.Contains(list, n) && s.Item(n) != nil {
			list = needed(s, s.Item(n), append(list, n))
		}
	}
	return list
}

func briefBytes(s *release.State, x *runbook.Item) string {
	var list []string
	for _, n := range x.Needs {
		m := s.Made(n)
		if m.Files == 0 {
			continue
		}
		what := fmt.Sprintf("%d files of %s, %d bytes", m.Files, n, m.Bytes)
		if len(m.Outputs) == 1 {
			what = fmt.Sprintf("%s of %s, %d bytes, %s", m.Outputs[0].Path, n, m.Bytes, m.Outputs[0].Digest)
		} else if m.Tree != "" {
			what += ", list " + m.Digest()
		}
		list = append(list, what)
	}
	if len(list) == 0 {
		return "none: it stands on no files, and is for its words"
	}
	return strings.Join(list, "; ")
}

func briefPlaces(s *release.State, steps []*runbook.Item) string {
	if len(steps) == 0 {
		return "nowhere: it needs no step"
	}
	var list []string
	for _, y := range steps {
		where := "plainly on its host"
		if m := s.Machine(y.Role); m.Blueprint != "" {
			where = "in build server " + or(m.Name, y.Role)
		}
		list = append(list, fmt.Sprintf("%s on %s, %s", y.Name, or(s.Progress[y.Name].Machine, "no machine yet"), where))
	}
	return strings.Join(list, "; ") + "; of revision " + s.Source.Revision
}

func briefTests(s *release.State, steps []*runbook.Item) string {
	var list []string
	for _, y := range steps {
		p := s.Progress[y.Name]
		if p.Result != nil && p.Result.Tests > 0 {
			list = append(list, fmt.Sprintf("%s: %d tests, %d failed, %d of them waived", y.Name, p.Result.Tests, len(p.Result.Failing), len(p.Waived)))
		}
		if y.Gold && s.Gold != nil && s.Gold.Confirmed != nil {
			list = append(list, fmt.Sprintf("%s was built again on %s: %s", y.Name, s.Gold.By, s.Gold.Confirmed.Verdict))
		}
	}
	if len(list) == 0 {
		return "by no step that it needs"
	}
	return strings.Join(list, "; ")
}

func briefMeaning(s *release.State, x *runbook.Item, b release.Signed) string {
	who := or(s.Person(b.Person).Full, b.Person)
	switch {
	case b.Decision == release.Reject:
		return fmt.Sprintf("%s rejects it, and the release stops: %s", who, b.Reason)
	case b.Decision == release.ApproveExcept:
		return fmt.Sprintf("%s approves it, but for this: %s", who, b.Reason)
	}
	return fmt.Sprintf("%s approves it, as one of %d who must; it counts until what it is for changes, or until it is withdrawn", who, max(x.Approvals, 1))
}
