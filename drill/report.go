package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// Short is the verdict for a terminal: the sentence, what each fault came to beside
// its limits, and every reason that it is no pass.
func Short(p *Plan, h []Record, v *Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", paragraph(v.Sentence))
	for _, f := range v.Faults {
		fmt.Fprintf(&b, "  %s  %s\n", TMinus(p, f.Clock), paragraph(sentenceOf(f)))
	}
	for _, m := range v.Measured {
		if m.Limit > 0 && m.What == "rebuilt" {
			said := m.Of + " made a build server in " + m.took()
			if m.Seconds == 0 {
				said = map[bool]string{true: m.Of + " never made a build server", false: "how long " + m.Of + " took to be made a build server is not known"}[m.Met != nil]
			}
			fmt.Fprintf(&b, "  %s (limit %s)\n", said, runbook.FormatSeconds(m.Limit))
		}
	}
	fmt.Fprintf(&b, "\n  system %s · harness %s · clean-up %s\n", v.System.Value, v.Harness.Value, v.Cleanup.Value)
	fmt.Fprintf(&b, "  machines %s (measured) · people %s (%s) · the drill's own time %s · it took %s, and %s of the calendar passed\n",
		runbook.FormatSeconds(v.Machine), runbook.FormatDuration(time.Duration(v.People*float64(time.Hour))), how(kinds(h, Decided)), runbook.FormatSeconds(v.Overhead), runbook.FormatSeconds(v.Real), runbook.FormatSeconds(v.Skipped))
	for _, a := range []struct {
		name string
		axis Axis
	}{{"system", v.System}, {"harness", v.Harness}, {"clean-up", v.Cleanup}} {
		for _, why := range a.axis.Why {
			fmt.Fprintf(&b, "  %s: %s\n", a.name, paragraph(why))
		}
	}
	return b.String()
}

// paragraph is such a text of several lines, of which none looks like the beginning of
// another.
func paragraph(s string) string {
	lines := strings.Split(strings.ReplaceAll(s, "\t", " "), "\n")
	for i, l := range lines {
		lines[i] = release.StripControl(l)
	}
	return strings.Join(lines, "\n    ")
}

func kinds(h []Record, k Kind) []Record {
	return slices.DeleteFunc(slices.Clone(h), func(r Record) bool { return r.Kind != k })
}

// TMinus writes a time of the drill as people on a release say it.
func TMinus(p *Plan, t time.Time) string {
	d := p.Ship.Sub(t)
	sign := "T-"
	if d < 0 {
		sign, d = "T+", -d
	}
	// A second after the last day began is the last day, and not 23h59m.
	switch d = d.Round(time.Second); {
	case d >= 24*time.Hour:
		d = d.Round(time.Hour)
	case d >= time.Hour:
		d = d.Round(time.Minute)
	}
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%s%dd%02dh", sign, int(d.Hours())/24, int(d.Hours())%24)
	case d >= time.Hour:
		return fmt.Sprintf("%s%dh%02dm", sign, int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%s%dm%02ds", sign, int(d.Minutes()), int(d.Seconds())%60)
}

func sentenceOf(f Bite) string {
	s := f.Name
	if f.Host != "" {
		s += " (" + string(f.Fault) + " on " + f.Host + ")"
	} else {
		s += " (" + string(f.Fault) + ")"
	}
	if !f.Verified {
		return s + ": no probe saw it take effect"
	}
	if f.Detected > 0 {
		s += ": noticed after " + runbook.FormatSeconds(f.Detected)
	}
	if f.Moved > 0 {
		s += ", its work on " + f.To + " after " + runbook.FormatSeconds(f.Moved)
		if f.Recovered > f.Moved {
			s += ", and in its build server after " + runbook.FormatSeconds(f.Recovered)
		}
	}
	if f.Wasted >= 0.1 {
		s += fmt.Sprintf(", %s of work done again", runbook.FormatSeconds(f.Wasted))
	}
	return s
}

// Markdown is the whole report.
func Markdown(p *Plan, h []Record, v *Verdict) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	head := h[0].Header
	w("# %s\n\n**%s**\n", p.Name, release.Cell(v.Sentence))
	w("| axis | verdict |\n|---|---|\n| system: it did what is expected | %s |\n| harness: the drill worked, every fault was seen to take effect | %s |\n| clean-up: everything was undone | %s |\n", v.System.Value, v.Harness.Value, v.Cleanup.Value)
	if fix := v.Fix(); len(fix) > 0 {
		w("## What to fix first\n")
		for _, x := range fix {
			w("- %s", release.Cell(x))
		}
		w("")
	}
	w("## What happened\n\n| when | real time | what |\n|---|---|---|")
	for _, r := range h {
		if s := line(r); s != "" {
			w("| %s | %s | %s |", TMinus(p, r.Clock), runbook.FormatSeconds(r.At.Seconds()), release.Cell(s))
		}
	}
	w("\n## Faults\n\n| fault | where | seen to take effect | noticed | moved to | work again | slack then | undone |\n|---|---|---|---|---|---|---|---|")
	for _, f := range v.Faults {
		slack, undone := "", map[bool]string{true: "yes", false: "no"}[f.Undone]
		if f.Slack != nil {
			slack = runbook.FormatSeconds(*f.Slack)
		}
		if f.ForGood {
			undone = "for good"
		}
		w("| %s: %s | %s | %t | %s | %s | %s | %s | %s |", f.Name, f.Fault, f.Host, f.Verified, some(f.Detected), strings.TrimSpace(f.To+" "+some(f.Moved)), some(f.Wasted), slack, undone)
	}
	w("\n## Measured and modelled\n\n| what | of | value | limit | met | |\n|---|---|---|---|---|---|")
	for _, m := range v.Measured {
		met, limit := "", ""
		if m.Met != nil {
			met = fmt.Sprint(*m.Met)
		}
		if m.Limit > 0 {
			limit = runbook.FormatSeconds(m.Limit)
		}
		w("| %s | %s | %s | %s | %s | %s |", m.What, m.Of, m.took(), limit, met, m.How)
	}
	for _, m := range v.Modelled {
		w("| %s | | %s | | | modelled: %s |", release.Cell(m.What), release.Cell(m.Distribution), release.Cell(m.Source))
	}
	w("\n## Scope\n\n- Hypothesis: %s\n- Why this scenario: %s\n- What it challenges: %s\n- Owner of what it found: %s", or(p.Hypothesis), or(p.Why), or(p.Challenges), or(p.Owner))
	w("- Fidelity: a functional exercise on %s (%s), with real processes, builds, file systems and networks; no production failover. Idle time was skipped: %s.", head.where(), head.Machine, runbook.FormatSeconds(v.Skipped))
	for _, x := range p.Scenario.People {
		w("- %s", person(x))
	}
	for _, f := range p.Frameworks {
		w("- %s: %s", release.Cell(f.Control), release.Cell(f.How))
	}
	w("\n## Identity\n\n- Run %s, begun %s\n- %s; scenario %s; seed %d\n- Source %s\n- %d records in the history, from which `trysail drill report %s` judges again", head.Run, stamp(head.Began), head.Tool, head.Scenario, head.Seed, head.Source, len(h), head.Run)
	return b.String()
}

// Fix lists what a person does something about, the worst first.
func (v *Verdict) Fix() []string {
	var list []string
	for _, value := range []Value{Fail, Unknown} {
		for _, a := range []Axis{v.System, v.Cleanup, v.Harness} {
			if a.Value == value {
				list = append(list, a.Why...)
			}
		}
	}
	return list
}

func person(x Person) string {
	if x.Live {
		return release.Cell(x.Name) + " was asked at the terminal (measured)"
	}
	s := fmt.Sprintf("%s answered within %s and spent %s on each decision (modelled)", release.Cell(x.Name), x.Responds, x.Spends)
	if len(x.Away) > 0 {
		s += ", away " + strings.Join(x.Away, ", ")
	}
	return s
}

func or(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return "not said"
	}
	return release.Cell(s)
}

func some(s float64) string {
	if s == 0 {
		return ""
	}
	return runbook.FormatSeconds(s)
}

// line is a record in words; "" for what nobody reads.
func line(r Record) string {
	no := r.OK != nil && !*r.OK
	switch r.Kind {
	case Began:
		return "the drill begins"
	case Made:
		return r.Host + " stands"
	case Jumped:
		return runbook.FormatDuration(r.Took) + " pass: " + r.Why
	case Injected:
		if no {
			return "**" + r.Name + "** could not be injected: " + r.Why
		}
		return "**" + r.Name + "** is injected" + at(r.Host)
	case Probed:
		if r.Before {
			return ""
		}
		if no {
			return r.Name + ": the probe does not see it: " + r.Why
		}
		return r.Name + ": the probe sees it"
	case Done:
		if no {
			return r.Name + " failed: " + r.Why
		}
		return r.Name + " was done"
	case Happened:
		if r.Event != nil {
			return release.Sentence(*r.Event)
		}
	case Decided:
		return r.Name + " " + r.Why
	case Sighted:
		return "control holds " + r.Host + " for " + r.Why
	case Warmed:
		if r.Took > 0 {
			return r.Host + " was made a build server, in " + runbook.FormatDuration(r.Took)
		}
	case Undone:
		if no {
			return r.Name + " could not be undone: " + r.Why
		}
		return r.Name + " is undone"
	case Asked, Asked2:
		if no {
			return "steady state: " + r.Name + ": no: " + r.Why
		}
		return "steady state: " + r.Name + ": yes"
	case Stuck:
		return "nothing moves the release on: " + r.Why
	case Guarded, Stopped:
		return "the drill was stopped: " + r.Why
	case Cleaned:
		if no {
			return "left behind: " + strings.Join(append(r.Left, r.Why), ", ")
		}
		return "nothing is left behind"
	case Ended:
		return "the drill ends"
	case Intended, Told:
	}
	return ""
}

func at(host string) string {
	if host == "" {
		return ""
	}
	return " on " + host
}
