package evidence

import (
	"fmt"
	"strings"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// planRules are the first rules whose bundles hold every runbook that was in force, so that
// each plan in the ledger can be held against its document.
const planRules = 3

// documents are the runbooks: the one in force at the end, and those before it. What the
// ledger says of the release is what they say.
func (c *check) documents(h *history) {
	if got := c.sums[runbookFile]; got == "" {
		c.fail(runbookFile, "is not there")
	} else if sha256Algorithm+":"+got != h.state.Runbook {
		c.fail(runbookFile, "is not the runbook that was followed")
	}
	files, want := map[string]string{}, map[string]string{}
	for _, d := range h.runbooks {
		files[d] = runbookFile
		if d != h.state.Runbook {
			files[d] = runbooksFile(d)
			want[files[d]] = ""
		}
	}
	c.nothingElse(runbooksDir, want)
	rules := h.state.Started.Rules
	if list := release.Undemanded(rules); len(list) > 0 {
		c.r.Attention = append(c.r.Attention, fmt.Sprintf("this ledger follows rules %d, which do not demand %s", rules, strings.Join(list, "; nor ")))
	}
	// say is a problem, but where another program may have read the document in another way.
	say := func(file, format string, args ...any) {
		if rules >= planRules {
			c.fail(file, format, args...)
		} else {
			c.r.Attention = append(c.r.Attention, file+": "+fmt.Sprintf(format, args...))
		}
	}
	read := map[string]*runbook.Runbook{}
	var started release.Started
	book := func(digest string) (*runbook.Runbook, string) {
		file := files[digest]
		if r, ok := read[digest]; ok {
			return r, file
		}
		read[digest] = nil
		switch got := c.sums[file]; {
		case file == "": // it was never in force
			return nil, ""
		case got == "" && file != runbookFile:
			say(file, "is not there, so the plan that was in force before an amendment cannot be held against it")
		case sha256Algorithm+":"+got != digest:
			if file != runbookFile { // or it was said
				c.fail(file, "is not the runbook %s of the ledger", digest)
			}
		default:
			parse := runbook.Parse
			if started.Rules < 3 {
				parse = runbook.ParseOld
			}
			r, err := parse(file, c.read(file), anyZone)
			if err != nil {
				say(file, "cannot be read, so the plan in the ledger cannot be held against it: %v", err)
			}
			read[digest] = r
		}
		return read[digest], file
	}
	s := release.Empty()
	for _, e := range h.events {
		differs, file := "", ""
		switch b := e.Body.(type) {
		case release.Started:
			started = b
			var r *runbook.Runbook
			if r, file = book(b.Runbook); r != nil {
				differs = b.Differs(r)
			}
		case release.Amended:
			digest := b.Runbook
			if digest == "" {
				digest = s.Runbook
			}
			var r *runbook.Runbook
			if r, file = book(digest); r != nil {
				differs = b.Differs(r, s)
			}
		}
		if differs != "" {
			say(file, "event %d is not as its runbook says: %s", e.Seq, differs)
		}
		if err := s.Apply(e); err != nil {
			return // it was folded before
		}
	}
}

// anyZone takes every name of a zone: whether one exists was asked when the release began,
// and no zone is part of what the ledger says of a plan but by its name.
func anyZone(string) (*time.Location, error) { return time.UTC, nil }

// secondBuilds says what gold was compared with before a build agreed: who tries until one
// agrees has not shown that the build gives the same bytes.
func (c *check) secondBuilds(h *history) {
	attention := func(format string, args ...any) {
		c.r.Attention = append(c.r.Attention, fmt.Sprintf(format, args...))
	}
	builds := map[int64]string{} // by epoch: the machine of each second build
	for _, e := range h.events {
		switch b := e.Body.(type) {
		case release.Granted:
			if b.Confirm {
				builds[e.Seq] = b.Machine
			}
		case release.Finished:
			if machine, ok := builds[b.Epoch]; ok && b.Exit != 0 {
				attention("event %d: a second build of gold failed on %s before one agreed: %s", e.Seq, machine, or(b.Why, fmt.Sprintf("exit status %d", b.Exit)))
			}
		case release.Confirmed:
			if b.Verdict != release.Identical {
				attention("event %d: a second build of gold on %s was %s: %s", e.Seq, builds[b.Epoch], b.Verdict, some(b.Differences))
			}
		}
	}
}

// links are those of gold: they have no bytes, so no file is here for them.
func (c *check) links(h *history) {
	var list []string
	for _, a := range h.files {
		if a.Link != "" {
			list = append(list, a.Path+" leads to "+a.Link)
		}
	}
	if len(list) > 0 {
		c.r.Attention = append(c.r.Attention, fmt.Sprintf("gold has %d link(s), which the ledger has and artifacts/ has not: %s", len(list), some(list)))
	}
}

// some are the first of a list, in words.
func some(list []string) string {
	const first = 5
	text := strings.Join(list[:min(len(list), first)], "; ")
	if n := len(list) - first; n > 0 {
		text += fmt.Sprintf("; and %d more", n)
	}
	return text
}
