package release

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"

	"trysail/runbook"
)

// Sentence is the answer first.
func (r *Retrospective) Sentence() string {
	switch r.Outcome {
	case "shipped":
		return fmt.Sprintf("Release %s shipped%s%s.", r.Version, r.when(), r.money())
	case "aborted":
		return fmt.Sprintf("Release %s was aborted: %s.", r.Version, r.Why)
	}
	return fmt.Sprintf("Release %s is under way.", r.Version)
}

func (r *Retrospective) when() string {
	switch {
	case r.OnTime == nil:
		return "; whether it was on time is not known, since " + r.clock()
	case r.Slack < 0:
		return " " + runbook.FormatSeconds(-r.Slack) + " after the ship date"
	}
	return " " + runbook.FormatSeconds(r.Slack) + " before the ship date"
}

// clock says by how much control's clock went back.
func (r *Retrospective) clock() string {
	sum := 0.0
	var events []string
	for _, b := range r.Backs {
		sum += b.By
		events = append(events, fmt.Sprint(b.Event))
	}
	return fmt.Sprintf("control's clock went back by %s (event %s)", runbook.FormatSeconds(sum), strings.Join(events, ", "))
}

func (r *Retrospective) money() string {
	switch {
	case r.Budget == 0:
		return ""
	case r.OnBudget == nil:
		return "; whether it was on budget is not known, since " + NotReported(r.Unreported)
	case *r.OnBudget:
		return ", on budget"
	}
	return ", over budget"
}

// Markdown writes it for people.
func (r *Retrospective) Markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Release %s, as it was run\n\n%s\n", Cell(r.Version), Cell(r.Sentence()))
	p("| | planned | measured |\n|---|---|---|")
	p("| began | | %s |", r.at(r.Began))
	p("| %s | %s | %s |", map[bool]string{true: "shipped", false: "ends"}[r.Outcome == "shipped"], r.at(r.Ship), r.at(r.Ended))
	p("| people's time, as they said | %s | %s |", budget(r.Budget), runbook.FormatSeconds(r.People))
	p("| machine time of steps that counted | | %s |", runbook.FormatSeconds(r.Machine))
	p("| machine time that was done again | | %s |", runbook.FormatSeconds(r.Again))
	p("| some step ran | | %s |", runbook.FormatSeconds(r.Working))
	p("| no step ran: people, waits, nobody's turn | | %s |", runbook.FormatSeconds(r.Waiting))
	p("| second build of gold | identical | %s |", Cell(or(r.Gold, "not made")))
	p("\nSource: %s. Times are by control's clock; what steps took was measured on their machines.\n", Cell(r.Revision))
	for _, a := range r.Earlier {
		p("This version was started before, at %s, and aborted at %s: %s.\n", r.at(a.Began), r.at(a.Ended), Cell(a.Why))
	}
	for _, what := range r.Disagreed {
		p("On record: %s.\n", Cell(what))
	}
	if len(r.Backs) > 0 {
		p("Times here are in doubt: %s.\n", Cell(r.clock()))
	}
	if len(r.Unreported) > 0 {
		p("%s, so people's time is more than is written here.\n", Cell(NotReported(r.Unreported)))
	}
	p("## Steps\n\n| step | phase | runs | on | took | budget | |\n|---|---|---|---|---|---|---|")
	for _, s := range r.Steps {
		said := s.Result
		if s.Within != nil && !*s.Within {
			said += ", over its budget"
		}
		name := s.Item
		if s.Gold {
			name += " (gold)"
		}
		p("| %s | %s | %d | %s | %s | %s | %s |", Cell(name), Cell(s.Phase), s.Runs, Cell(s.On), runbook.FormatSeconds(s.Took), budget(s.Budget), Cell(said))
	}
	p("\n## Sign-offs\n\n| sign-off | asked | waited | spent | budget | |\n|---|---|---|---|---|---|")
	for _, s := range r.SignOffs {
		asked := "never"
		if s.Asked != nil {
			asked = r.at(*s.Asked)
		}
		var words []string
		for _, w := range s.Words {
			text := fmt.Sprintf("%s: %s says %s", r.at(w.At), w.Person, w.Decision)
			if w.Reason != "" {
				text += " (" + w.Reason + ")"
			}
			words = append(words, text)
		}
		p("| %s | %s | %s | %s | %s | %s |", Cell(s.Item), asked, runbook.FormatSeconds(s.Waited), runbook.FormatSeconds(s.Spent), budget(s.Budget), Cell(s.Outcome+joined("; ", words)))
	}
	p("\n## Lost and recovered\n")
	if len(r.Losses) == 0 {
		p("No machine lost a step.")
	} else {
		p("| when | step | machine | why | had run | went on |\n|---|---|---|---|---|---|")
		for _, l := range r.Losses {
			on := "never"
			if l.Recovered != "" {
				on = l.Recovered + ", after " + runbook.FormatSeconds(l.After)
			}
			p("| %s | %s | %s | %s | %s | %s |", r.at(l.At), Cell(l.Item), Cell(l.Machine), Cell(l.Why), runbook.FormatSeconds(l.Ran), Cell(on))
		}
	}
	p("\n## People\n\n| who | decisions | spent |\n|---|---|---|")
	for _, c := range r.Team {
		p("| %s | %d | %s |", Cell(c.Name), c.Words, runbook.FormatSeconds(c.Spent))
	}
	if len(r.Changes)+len(r.Holds) > 0 {
		p("\n## What people changed\n\n| when | who | what | why |\n|---|---|---|---|")
		for _, c := range r.Changes {
			p("| %s | %s | %s | %s |", r.at(c.At), Cell(c.By), Cell(c.What), Cell(c.Why))
		}
		for _, h := range r.Holds {
			until := "until the end"
			if h.To != nil {
				until = "for " + runbook.FormatSeconds(h.To.Sub(h.From).Seconds())
			}
			p("| %s | %s | held the release %s | %s |", r.at(h.From), Cell(h.By), until, Cell(h.Reason))
		}
	}
	p("\n## What happened\n")
	for _, t := range r.Timeline {
		p("- %s %s", r.at(t.At), Cell(t.What))
	}
	return b.String()
}

// HTML is the same as one page.
func (r *Retrospective) HTML() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Release, as it was run</title>\n<style>" +
		"body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1a1a1a;background:#fff}" +
		"table{border-collapse:collapse;margin:1em 0;width:100%}th,td{border-bottom:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}" +
		"@media print{body{margin:0;max-width:none}}</style></head><body><main>\n")
	if err := goldmark.New(goldmark.WithExtensions(extension.Table)).Convert([]byte(r.Markdown()), &b); err != nil {
		return nil, err
	}
	b.WriteString("</main></body></html>\n")
	return b.Bytes(), nil
}

func joined(sep string, list []string) string {
	if len(list) == 0 {
		return ""
	}
	return sep + strings.Join(list, sep)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// at is a moment by the clock of the team.
func (r *Retrospective) at(t time.Time) string { return runbook.FormatTime(t, r.zone) }

func budget(seconds float64) string {
	if seconds == 0 {
		return ""
	}
	return runbook.FormatSeconds(seconds)
}
