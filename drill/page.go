package drill

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's template and style
	"encoding/base64"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"trysail/runbook"
)

//go:embed page.html
var pageTemplate string

//go:embed page.css
var pageStyle string

// Report is all that a report is written from.
type Report struct {
	Plan    *Plan
	History []Record
	Verdict *Verdict
	Sum     string // digest of the history's file, sha256:…
	// Runs are those of the same scenario up to this one, the oldest first.
	Runs []Past
}

// Previous is the run before this one; nil if it is the first.
func (r *Report) Previous() *Past {
	run := header(r.History).Run
	for i := len(r.Runs) - 1; i >= 0; i-- {
		if r.Runs[i].Run != run {
			return &r.Runs[i]
		}
	}
	return nil
}

// page is what the template shows. Everything in it is text: the template escapes
// it, whoever wrote it.
type page struct {
	Style      template.CSS
	Policy     string // Content-Security-Policy
	Name       string
	Day        string
	Verdict    *Verdict
	Axes       []axisRow
	Picture    *picture
	Issues     []Issue
	Owner, Due bool
	Objectives []objective
	Faults     [][]string
	Numbers    [][]string
	Scope      [][2]string
	Fidelity   [][2]string
	Modelled   [][]string
	People     [][]string
	Machines   [][]string
	Deviations []string
	CleanUp    [][2]string
	Left       []string
	Plot       *plot
	Runs       [][]string
	Previous   string
	Frameworks []Framework
	Identity   [][2]string
	Record     [][]string
}

type axisRow struct {
	Name, Means string
	Value       Value
}

// objective is what was wanted beside what came.
type objective struct {
	What, Wanted, Got, How string
	Value                  Value
	Bar, Limit             float64 // widths of a bar whose limit stands always in one place; 0: none
}

// HTML is the report as one file, which asks nothing of the network, runs no script
// and prints.
func (r *Report) HTML() ([]byte, error) {
	t, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(pageStyle))
	p, h, v := r.Plan, r.History, r.Verdict
	head := header(h)
	x := page{
		Style: template.CSS(pageStyle), Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'",
		Name: p.Name, Day: day(head.Began), Verdict: v, Picture: draw(p, h, v), Issues: Issues(p, h, v),
		Objectives: objectives(p, v, len(kinds(h, Ended)) > 0), Faults: faultRows(p, v), Deviations: deviations(p, h), Frameworks: p.Frameworks,
		Left: left(h), Plot: plotted(r.Runs, head.Run), Previous: r.before(),
	}
	for _, a := range v.axes() {
		x.Axes = append(x.Axes, axisRow{a.name, a.means, a.Value})
	}
	for _, m := range v.Measured {
		if m.Limit == 0 {
			x.Numbers = append(x.Numbers, []string{m.What, runbook.FormatSeconds(m.Seconds), m.How})
		}
	}
	x.Scope = [][2]string{
		{"Hypothesis", or2(p.Hypothesis)},
		{"Why this scenario", or2(p.Why)},
		{"Assumption of the plan that it challenges", or2(p.Challenges)},
		{"Owner of what it finds", or2(p.Owner)},
		{"Released", "version " + p.Release.Version + " by " + p.Release.Runbook + ", revision " + or2(head.Source)},
		{"In the world", world(p)},
		{"Ship date", stamp(p.Ship) + "; the drill begins at " + p.Clock.Begins},
	}
	x.Fidelity = r.fidelity()
	for _, m := range v.Modelled {
		x.Modelled = append(x.Modelled, []string{m.What, m.Distribution, m.Source})
	}
	x.People, x.Machines = r.people(), r.machines()
	x.CleanUp = r.cleanUp()
	for _, s := range slices.Backward(r.Runs) {
		this := ""
		if s.Run == head.Run {
			this = " (this one)"
		}
		x.Runs = append(x.Runs, []string{s.Run + this, stamp(s.Began), string(s.Verdict), s.recovered(), short(s.Digest), s.Tool})
	}
	x.Identity = [][2]string{
		{"Run", head.Run},
		{"Began", stamp(head.Began) + ", by the clock of " + or2(head.Machine)},
		{"Lasted", runbook.FormatSeconds(v.Real) + " of real time; " + runbook.FormatSeconds(v.Skipped) + " of the calendar were skipped"},
		{"Tool", or2(head.Tool)},
		{"Scenario", or2(head.Scenario)},
		{"History", fmt.Sprintf("%s, %d records", or2(r.Sum), len(h))},
		{"Seed of people's answers", fmt.Sprint(head.Seed)},
		{"Source", or2(head.Source)},
		{"To judge again", "trysail drill report " + head.Run},
	}
	for _, k := range h {
		x.Record = append(x.Record, []string{fmt.Sprint(k.Seq), TMinus(p, k.Clock), fmt.Sprintf("%.3f", k.At.Seconds()), whole(k)})
	}
	var b bytes.Buffer
	if err := t.Execute(&b, x); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func or2(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return "not said"
	}
	return s
}

func day(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format(time.DateOnly)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return runbook.FormatTime(t, time.UTC)
}

func short(digest string) string { return cut(digest, 20) }

func tell(ok *bool) Value {
	switch {
	case ok == nil:
		return Unknown
	case *ok:
		return Pass
	}
	return Fail
}

// objectives are the scenario's expectations beside what was seen. Of a drill that did not
// run to its end nobody knows what it would have come to.
func objectives(p *Plan, v *Verdict, ended bool) []objective {
	var list []objective
	add := func(what, wanted, got, how string, value Value) {
		list = append(list, objective{What: what, Wanted: wanted, Got: got, How: how, Value: value})
	}
	e := p.Expect
	wanted := e.Ships == nil || *e.Ships
	got := map[bool]string{true: "shipped", false: "did not ship"}
	open := func(over bool, value Value) Value {
		if over || ended {
			return value
		}
		return Unknown
	}
	ok := wanted == v.Shipped
	add("the release", map[bool]string{true: "ships", false: "does not ship"}[wanted], got[v.Shipped], "measured", open(v.Shipped, tell(&ok)))
	if e.OnTime {
		came := "not shipped"
		if v.Shipped {
			came = runbook.FormatSeconds(v.Slack) + " before the ship date"
			if v.Slack < 0 {
				came = runbook.FormatSeconds(-v.Slack) + " after the ship date"
			}
		}
		value := tell(v.OnTime)
		if !v.Shipped {
			value = open(false, Fail)
		}
		add("on time", "by "+stamp(p.Ship), came, "machines measured, people as they are modelled", value)
	}
	if e.OnBudget {
		add("on budget", "within the runbook's person-hours", runbook.FormatDuration(time.Duration(v.People*float64(time.Hour)))+" of people", personHours(v), open(v.OnBudget != nil && !*v.OnBudget, tell(v.OnBudget)))
	}
	if e.Gold != "" {
		ok := v.Gold == e.Gold || v.Gold == "identical"
		add("second build of gold", e.Gold, or2(v.Gold), "measured", open(v.Gold != "", tell(&ok)))
	}
	for _, m := range v.Measured {
		if m.Limit == 0 && m.Met == nil {
			continue
		}
		o := objective{What: m.Of + " " + m.What, Wanted: "within " + runbook.FormatSeconds(m.Limit), Got: m.took(), How: m.How, Value: tell(m.Met)}
		if m.Limit > 0 && m.Seconds > 0 {
			o.Limit = 100
			o.Bar = round(min(max(m.Seconds/m.Limit*100, 1), 150))
		}
		list = append(list, o)
	}
	return list
}

func personHours(v *Verdict) string {
	for _, m := range v.Measured {
		if m.What == "people's time" {
			return m.How
		}
	}
	return ""
}

// faultRows are the faults as a table: what the picture shows, in words.
func faultRows(p *Plan, v *Verdict) [][]string {
	var list [][]string
	for _, f := range v.Faults {
		slack, undone := "not known", map[bool]string{true: "yes", false: "no"}[f.Undone]
		if f.Slack != nil {
			slack = runbook.FormatSeconds(*f.Slack)
		}
		if f.ForGood {
			undone = "for good, as declared"
		}
		list = append(list, []string{
			f.Name, string(f.Fault) + at(f.Host), TMinus(p, f.Clock), runbook.FormatSeconds(f.At.Seconds()), map[bool]string{true: "yes", false: "no"}[f.Verified],
			none(f.Detected), strings.TrimSpace(none(f.Moved)+to(f.To)) + served(&f), none(f.Wasted), slack, undone,
		})
	}
	return list
}

func to(machine string) string {
	if machine == "" {
		return ""
	}
	return " to " + machine
}

func none(s float64) string {
	if s == 0 {
		return "–"
	}
	return runbook.FormatSeconds(s)
}

// left is what the last look at the host found.
func left(h []Record) []string {
	for i := len(h) - 1; i >= 0; i-- {
		if h[i].Kind == Cleaned {
			return h[i].Left
		}
	}
	return nil
}

// whole is a record in words, whatever it is: the report leaves none out.
func whole(r Record) string {
	no := r.OK != nil && !*r.OK
	switch r.Kind {
	case Injected: // the words for Markdown have stars in them
		if !no {
			return r.Name + " is injected" + at(r.Host)
		}
		return r.Name + " could not be injected: " + r.Why
	case Intended:
		return r.Name + " is about to be injected" + at(r.Host) + "; its undo is on disk"
	case Told:
		if r.Ack != nil {
			s := fmt.Sprintf("it was acknowledged: event %d, %s", r.Ack.Seq, r.Ack.Type)
			if r.Ack.Person != "" {
				s += ", to " + r.Ack.Person
			}
			return s
		}
	case Warmed:
		if r.Took == 0 {
			return r.Host + " has the server"
		}
	}
	if s := line(r); s != "" {
		return s
	}
	return strings.TrimSpace(strings.Join([]string{string(r.Kind), r.Name, r.Host, r.Why}, " "))
}

// served says when lost work goes on in a build server that had to be made for it.
func served(f *Bite) string {
	if f.Recovered <= f.Moved {
		return ""
	}
	return ", in its server after " + runbook.FormatSeconds(f.Recovered)
}
