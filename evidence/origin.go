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
		switch b := e.Body.(type) {
		case release.Started:
			o, digests = b.Origin, []string{b.Runbook}
			if b.Forced != "" {
				c.r.Attention = append(c.r.Attention, fmt.Sprintf("event %d: the release was started by force: %s", e.Seq, b.Forced))
			}
			if o.Revision != "" && o.Revision != b.Source.Revision {
				c.fail(eventsFile, "event %d: the runbook is of revision %s, and the source of %s", e.Seq, o.Revision, b.Source.Revision)
			}
		case release.Amended:
			o = b.Origin
			if b.Runbook != "" {
				digests = append(digests, b.Runbook)
			}
		}
		if o.Revision == "" {
			continue
		}
		for _, d := range digests {
			if !slices.ContainsFunc(o.Files, func(f release.File) bool { return f.Digest == d }) {
				c.fail(eventsFile, "event %d: runbook %s is not among the files of revision %s", e.Seq, d, o.Revision)
			}
		}
		c.r.Origins = append(c.r.Origins, o)
		if len(o.Uncommitted) > 0 {
			c.r.Attention = append(c.r.Attention, fmt.Sprintf("event %d: the working copy differed from revision %s, and this was left out: %s", e.Seq, o.Revision, strings.Join(o.Uncommitted, ", ")))
		}
	}
}
