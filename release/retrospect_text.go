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
	p("# Release %s, as it was run\n\n%s\n", cell(r.Version), cell(r.Sentence()))
	p("| | planned | measured |\n|---|---|---|")
	p("| began | | %s |", stamp(r.Began))
	p("| %s | %s | %s |", map[bool]string{true: "shipped", false: "ends"}[r.Outcome == "shipped"], stamp(r.Ship), stamp(r.Ended))
	p("| people's time, as they said | %s | %s |", budget(r.Budget), lasted(r.People))
	p("| machine time of steps that counted | | %s |", lasted(r.Machine))
	p("| machine time that was done again | | %s |", lasted(r.Again))
	p("| some step ran | | %s |", lasted(r.Working))
	p("| no step ran: people, waits, nobody's turn | | %s |", lasted(r.Waiting))
	p("| second build of gold | identical | %s |", cell(or(r.Gold, "not made")))
	p("\nSource: %s. Times are by control's clock; what steps took was measured on their machines.\n", cell(r.Revision))
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
		p("| %s | %s | %d | %s | %s | %s | %s |", cell(name), cell(s.Phase), s.Runs, cell(s.On), lasted(s.Took), budget(s.Budget), said)
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
		p("| %s | %s | %s | %s | %s | %s |", cell(s.Item), asked, lasted(s.Waited), lasted(s.Spent), budget(s.Budget), cell(s.Outcome+joined("; ", words)))
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
			p("| %s | %s | %s | %s | %s | %s |", stamp(l.At), cell(l.Item), cell(l.Machine), cell(l.Why), lasted(l.Ran), cell(on))
		}
	}
	p("\n## People\n\n| who | decisions | spent |\n|---|---|---|")
	for _, c := range r.Team {
		p("| %s | %d | %s |", cell(c.Name), c.Words, lasted(c.Spent))
	}
	if len(r.Changes)+len(r.Holds) > 0 {
		p("\n## What people changed\n\n| when | who | what | why |\n|---|---|---|---|")
		for _, c := range r.Changes {
			p("| %s | %s | %s | %s |", stamp(c.At), cell(c.By), cell(c.What), cell(c.Why))
		}
		for _, h := range r.Holds {
			until := "until the end"
			if h.To != nil {
				until = "for " + lasted(h.To.Sub(h.From).Seconds())
			}
			p("| %s | %s | held the release %s | %s |", stamp(h.From), cell(h.By), until, cell(h.Reason))
		}
	}
	p("\n## What happened\n")
	for _, t := range r.Timeline {
		p("- %s %s", stamp(t.At), cell(t.What))
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

// cell writes text that people typed so that Markdown shows it as it is, in one line.
func cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	var b strings.Builder
	for _, c := range s {
		if strings.ContainsRune("\\`*_{}[]<>()#+!|~&", c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
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

// lasted writes how long something took.
func lasted(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.1f days", d.Hours()/24)
	case d >= time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
