package evidence

import (
	"fmt"
	"slices"
	"strings"

	"trysail/release"
)

// origins gathers of which revisions the release was made, and says what was left out of them.
func (c *check) origins(h *history) {
	for _, e := range h.events {
		var o release.Origin
		var digests []string // of what must be from there
		var from []brought
		switch b := e.Body.(type) {
		case release.Started:
			o, digests = b.Origin, []string{b.Runbook}
			from = taken(b.Runbook, b.Signers, b.Revoked, b.Machines)
			if b.Forced != "" {
				c.r.Attention = append(c.r.Attention, fmt.Sprintf("event %d: the release was started by force: %s", e.Seq, b.Forced))
			}
			if o.Revision != "" && o.Revision != b.Source.Revision {
				c.fail(eventsFile, "event %d: the runbook is of revision %s, and the source of %s", e.Seq, o.Revision, b.Source.Revision)
			}
		case release.Amended:
			o = b.Origin
			from = taken(b.Runbook, b.Signers, b.Revoked, b.Machines)
			if b.Runbook != "" {
				digests = append(digests, b.Runbook)
			}
		}
		has := func(d string) bool {
			return slices.ContainsFunc(o.Files, func(f release.File) bool { return f.Digest == d })
		}
		for _, x := range from {
			if !has(x.digest) && (o.Revision != "" || h.state.Started.Rules >= 4) { // before, no release said it
				c.r.Unnamed = append(c.r.Unnamed, fmt.Sprintf("event %d: %s (%s) is not among the files that it says it took from %s", e.Seq, x.what, x.digest, or(o.Revision, "any revision")))
			}
		}
		if o.Revision == "" {
			continue
		}
		for _, d := range digests {
			if !has(d) {
				c.fail(eventsFile, "event %d: runbook %s is not among the files of revision %s", e.Seq, d, o.Revision)
			}
		}
		c.r.Origins = append(c.r.Origins, o)
		if len(o.Uncommitted) > 0 {
			c.r.Attention = append(c.r.Attention, fmt.Sprintf("event %d: the working copy differed from revision %s, and this was left out: %s", e.Seq, o.Revision, strings.Join(o.Uncommitted, ", ")))
		}
	}
}

// brought is something that an event brings.
type brought struct{ what, digest string }

// taken is what is taken from a revision.
func taken(runbook, signers, revoked string, machines []release.Machine) []brought {
	list := []brought{{"the runbook", runbook}, {"allowed_signers", signers}, {"the revoked keys", revoked}}
	for _, m := range machines {
		list = append(list, brought{"the blueprint of role " + m.Role, m.Blueprint}, brought{"the sum of role " + m.Role, m.Sum})
	}
	return slices.DeleteFunc(list, func(x brought) bool { return x.digest == "" })
}
