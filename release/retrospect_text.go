package release

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
)

// Sentence is the answer first.
func (r *Retrospective) Sentence() string {
	switch r.Outcome {
	case "shipped":
		when := lasted(r.Slack) + " before the ship date"
		if r.Slack < 0 {
			when = lasted(-r.Slack) + " after the ship date"
		}
		money := ""
		if r.OnBudget != nil {
			money = map[bool]string{true: ", on budget", false: ", over budget"}[*r.OnBudget]
		}
		return fmt.Sprintf("Release %s shipped %s%s.", r.Version, when, money)
	case "aborted":
		return fmt.Sprintf("Release %s was aborted: %s.", r.Version, r.Why)
	}
	return fmt.Sprintf("Release %s is under way.", r.Version)
}

// Markdown writes it for people.
func (r *Retrospective) Markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Release %s, as it was run\n\n%s\n", Cell(r.Version), Cell(r.Sentence()))
	p("| | planned | measured |\n|---|---|---|")
	p("| began | | %s |", stamp(r.Began))
	p("| %s | %s | %s |", map[bool]string{true: "shipped", false: "ends"}[r.Outcome == "shipped"], stamp(r.Ship), stamp(r.Ended))
	p("| people's time, as they said | %s | %s |", budget(r.Budget), lasted(r.People))
	p("| machine time of steps that counted | | %s |", lasted(r.Machine))
	p("| machine time that was done again | | %s |", lasted(r.Again))
	p("| some step ran | | %s |", lasted(r.Working))
	p("| no step ran: people, waits, nobody's turn | | %s |", lasted(r.Waiting))
	p("| second build of gold | identical | %s |", Cell(or(r.Gold, "not made")))
	p("\nSource: %s. Times are by control's clock; what steps took was measured on their machines.\n", Cell(r.Revision))
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
		p("| %s | %s | %d | %s | %s | %s | %s |", Cell(name), Cell(s.Phase), s.Runs, Cell(s.On), lasted(s.Took), budget(s.Budget), said)
	}
	p("\n## Sign-offs\n\n| sign-off | asked | waited | spent | budget | |\n|---|---|---|---|---|---|")
	for _, s := range r.SignOffs {
		asked := "never"
		if s.Asked != nil {
			asked = stamp(*s.Asked)
		}
		var words []string
		for _, w := range s.Words {
			text := fmt.Sprintf("%s: %s says %s", stamp(w.At), w.Person, w.Decision)
			if w.Reason != "" {
				text += " (" + w.Reason + ")"
			}
			words = append(words, text)
		}
		p("| %s | %s | %s | %s | %s | %s |", Cell(s.Item), asked, lasted(s.Waited), lasted(s.Spent), budget(s.Budget), Cell(s.Outcome+joined("; ", words)))
	}
	p("\n## Lost and recovered\n")
	if len(r.Losses) == 0 {
		p("No machine lost a step.")
	} else {
		p("| when | step | machine | why | had run | went on |\n|---|---|---|---|---|---|")
		for _, l := range r.Losses {
			on := "never"
			if l.Recovered != "" {
				on = l.Recovered + ", after " + lasted(l.After)
			}
			p("| %s | %s | %s | %s | %s | %s |", stamp(l.At), Cell(l.Item), Cell(l.Machine), Cell(l.Why), lasted(l.Ran), Cell(on))
		}
	}
	p("\n## People\n\n| who | decisions | spent |\n|---|---|---|")
	for _, c := range r.Team {
		p("| %s | %d | %s |", Cell(c.Name), c.Words, lasted(c.Spent))
	}
	if len(r.Changes)+len(r.Holds) > 0 {
		p("\n## What people changed\n\n| when | who | what | why |\n|---|---|---|---|")
		for _, c := range r.Changes {
			p("| %s | %s | %s | %s |", stamp(c.At), Cell(c.By), Cell(c.What), Cell(c.Why))
		}
		for _, h := range r.Holds {
			until := "until the end"
			if h.To != nil {
				until = "for " + lasted(h.To.Sub(h.From).Seconds())
			}
			p("| %s | %s | held the release %s | %s |", stamp(h.From), Cell(h.By), until, Cell(h.Reason))
		}
	}
	p("\n## What happened\n")
	for _, t := range r.Timeline {
		p("- %s %s", stamp(t.At), Cell(t.What))
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

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func budget(seconds float64) string {
	if seconds == 0 {
		return ""
	}
	return lasted(seconds)
}

// lasted writes how many seconds something took.
func lasted(seconds float64) string { return Human(time.Duration(seconds * float64(time.Second))) }
