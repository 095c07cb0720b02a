package cli

import (
	"fmt"
	"strings"
	"time"

	"trysail/internal/api"
	"trysail/release"
	"trysail/runbook"
)

// isDone tells whether nothing is left to do but to ship.
func isDone(s *api.Status) bool {
	for _, x := range s.Items {
		if x.Status != release.Complete {
			return false
		}
	}
	return len(s.Items) > 0 && len(s.Blocked) == 0 && s.Amendment == 0 && s.Phase == release.Running
}

// headlines say what a release waits for: first what blocks it, with what to type, then
// what it waits for by itself, then what will block it.
func headlines(s *api.Status, now time.Time) []string {
	if s.Phase == release.Done || s.Phase == release.Ended {
		return nil
	}
	if isDone(s) {
		return []string{"done: trysail release ship " + s.Version}
	}
	var list, later []string
	blocked := map[string]bool{}
	for _, b := range s.Blocked {
		line := b.Why
		if b.Code == release.BlockStopped {
			line = b.Item + ": " + b.Why
		}
		if command := mend(s, b); command != "" {
			line += " (" + command + ")"
		}
		if b.Later {
			later = append(later, "will be blocked: "+line)
			continue
		}
		blocked[b.Item] = true
		list = append(list, "blocked: "+line)
	}
	for _, x := range s.Items {
		switch {
		case x.Making && x.Since != nil:
			list = append(list, fmt.Sprintf("making the build server of %s on %s, %s so far", x.Name, x.Machine, runbook.FormatDuration(now.Sub(*x.Since))))
		case x.Since != nil, blocked[x.Name]:
		case x.Waiting != "" && (x.Status == release.Ready || x.Status == release.Confirming):
			list = append(list, "waits: "+x.Name+": "+x.Waiting)
		case x.Kind == runbook.Wait && x.Status == release.Ready && x.Until != nil:
			list = append(list, "waits: "+x.Name+" until "+runbook.FormatTime(*x.Until, api.Zone(s.Zone)))
		}
	}
	return append(list, later...)
}

// mend is what somebody types about what blocks a release.
func mend(s *api.Status, b release.Block) string {
	if command := b.Mend(s.Version); command != "" {
		return command
	}
	for _, k := range s.Asks {
		if k.Item != b.Item {
			continue
		}
		switch list := hints(s.Version, k, s.Gold); len(list) {
		case 0:
		case 1:
			return list[0]
		default:
			return list[0] + ", and others"
		}
	}
	return ""
}

// willShip is what a status comes to, and never says more than is known.
func willShip(s *api.Status) string {
	var conditions []string
	for _, b := range s.Blocked {
		if b.Final && s.Phase != release.Done && s.Phase != release.Ended {
			return fmt.Sprintf("Release %s will not ship: %s is stopped, and nothing mends it: %s.", s.Version, b.Item, b.Why)
		}
		conditions = append(conditions, b.If())
	}
	zone := api.Zone(s.Zone)
	slack := time.Duration(s.Slack * float64(time.Second))
	dates := fmt.Sprintf("the rest ends %s, it ships %s.", runbook.FormatTime(s.Ends, zone), runbook.FormatTime(s.Ship, zone))
	mended := ""
	if len(conditions) > 0 {
		mended = " if " + strings.Join(conditions, ", and ")
	}
	switch {
	case s.Phase == release.Done:
		return fmt.Sprintf("Release %s is shipped.", s.Version)
	case s.Phase == release.Ended:
		return fmt.Sprintf("Release %s was aborted: %s", s.Version, s.Why)
	case isDone(s) && slack >= 0:
		return fmt.Sprintf("Release %s waits to be shipped, %s before its ship date %s.", s.Version, runbook.FormatDuration(slack), runbook.FormatTime(s.Ship, zone))
	case slack < 0:
		if mended != "" {
			mended = ", even" + mended
		}
		return fmt.Sprintf("Release %s will be late by %s%s: %s", s.Version, runbook.FormatDuration(-slack), mended, dates)
	}
	verb := "will ship on time"
	if mended != "" {
		verb = "would be on time"
	}
	left := "to spare"
	if len(s.Unknown) > 0 {
		left = "for what has no budget"
	}
	return fmt.Sprintf("Release %s %s%s, with %s %s: %s", s.Version, verb, mended, runbook.FormatDuration(slack), left, dates)
}

func (a *app) printStatus(s *api.Status) {
	for _, line := range headlines(s, time.Now()) {
		a.printf("%s\n", line)
	}
	a.printf("%s\n", willShip(s))
	if len(s.Chain) > 0 {
		a.printf("It hangs on: %s\n", strings.Join(s.Chain, " → "))
	}
	if len(s.Unknown) > 0 {
		a.printf("  ! no budget is set for %s: what they take is not counted\n", strings.Join(s.Unknown, ", "))
	}
	if len(s.Assumed) > 0 {
		a.printf("  ! a machine must make the build server of %s first: %s are assumed, since nobody has measured it\n", strings.Join(s.Assumed, ", "), runbook.FormatDuration(release.AssumedRebuild))
	}
	a.printf("People: %.1f h spent, %.1f h to come", s.Spent, s.Open)
	if s.Budget > 0 {
		a.printf(", of %.1f h", s.Budget)
	}
	a.printf(".\n\nWho must do what now\n")
	for _, k := range s.Asks {
		who := strings.Join(k.People, ", ")
		if who == "" {
			who = "anybody"
		}
		a.printf("  %s: %s (%s)\n", who, k.What, k.Item)
		for _, command := range hints(s.Version, k, s.Gold) {
			a.printf("    → %s\n", command)
		}
	}
	mends := 0
	for _, b := range s.Blocked {
		if command := b.Mend(s.Version); command != "" && b.Code != release.BlockAmendment {
			mends++
			a.printf("  anybody: %s\n    → %s\n", b.Why, command)
		}
	}
	if len(s.Asks)+mends == 0 {
		a.printf("  nobody\n")
	}
	a.printf("\nWhat runs where\n")
	for _, x := range s.Items {
		text := string(x.Status)
		switch {
		case x.Since != nil: // the second build of gold, too
			text += " on " + x.Machine + " for " + runbook.FormatDuration(time.Since(*x.Since))
			if x.Making {
				text += ", and its machine makes the build server first"
			}
		case x.Waiting != "":
			text += ": " + x.Waiting
		case x.Until != nil:
			text += ", until " + runbook.FormatTime(*x.Until, api.Zone(s.Zone))
		case x.Took > 0:
			text += " on " + x.Machine + ", " + runbook.FormatSeconds(x.Took)
		}
		if x.Failed != "" {
			text += ": " + x.Failed
		}
		if x.Moves > 0 {
			text += fmt.Sprintf(" (moved %d times, last because %s)", x.Moves, x.Moved)
		}
		a.printf("  %-24s %s\n", x.Name, text)
	}
	if g := s.Gold; g != nil {
		a.printf("\nGold, made on %s, event %d", g.Machine, g.Event)
		if g.By != "" {
			a.printf("; built again on %s: %s", g.By, g.Verdict)
		}
		a.printf("\n")
		for _, why := range g.SecondBuilds {
			a.printf("  ! %s\n", why)
		}
		if g.Tree != "" {
			a.printf("  %s  list of %d files, %s: %s, …\n", g.Tree, g.Files, size(g.Bytes), release.StripControl(strings.Join(g.First, ", ")))
		}
		for _, o := range g.Outputs {
			a.printf("  %s  %s\n", o.Digest, o.Path)
		}
		for _, d := range g.Differences {
			a.printf("  ! %s\n", d)
		}
	}
	if len(s.Refused)+len(s.Trouble) > 0 {
		a.printf("\nWhat went wrong\n")
	}
	for _, t := range s.Trouble {
		a.printf("  %s\n", t)
	}
	for _, r := range s.Refused {
		a.printf("  the result of %s from %s (epoch %d) was refused: %s\n", r.Item, r.Machine, r.Epoch, r.Why)
	}
}
