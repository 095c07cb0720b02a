package drill

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"trysail/release"
	"trysail/runbook"
)

// Past is a drill that was run, in few words: what a later one is compared with.
type Past struct {
	Run      string    `json:"run"`
	Scenario string    `json:"scenario"` // its name
	Digest   string    `json:"digest"`   // of its file
	Tool     string    `json:"tool"`
	Began    time.Time `json:"began"`
	Verdict  Value     `json:"verdict"`
	Sentence string    `json:"sentence"`
	// Recovery is the worst of what moved, with the build server that had to be made for it,
	// and of what was rebuilt, by the drill's clock; nil where nothing had to, or where
	// something that had to never did.
	Recovery *float64 `json:"recovery_seconds"`
	Limit    float64  `json:"limit_seconds,omitempty"`
	Of       string   `json:"recovery_of,omitempty"`
	Never    bool     `json:"never_recovered"`
}

// Summary is a run in few words.
func Summary(p *Plan, h []Record, v *Verdict) Past {
	s := Past{Scenario: p.Name, Verdict: v.Value, Sentence: v.Sentence}
	if len(h) > 0 && h[0].Header != nil {
		x := h[0].Header
		s.Run, s.Digest, s.Tool, s.Began = x.Run, x.Scenario, x.Tool, x.Began
	}
	worst := func(seconds, limit float64, of string, tried bool) {
		switch {
		case seconds > 0 && (s.Recovery == nil || seconds > *s.Recovery):
			s.Recovery, s.Limit, s.Of = &seconds, limit, of
		case seconds <= 0 && limit > 0 && tried:
			s.Never = true
		}
	}
	for _, b := range v.Faults {
		limit := 0.0
		for _, l := range p.Expect.Faults {
			if d, ok := Duration(l.Moved); ok && l.Name == b.Name {
				limit = d.Seconds()
			}
		}
		worst(b.Moved, limit, b.Name+" moved", v.tried("moved", b.Name))
		if b.Recovered > b.Moved { // a machine had to make its build server
			limit = 0
			for _, l := range p.Expect.Faults {
				if d, ok := Duration(l.Recovered); ok && l.Name == b.Name {
					limit = d.Seconds()
				}
			}
			worst(b.Recovered, limit, b.Name+" recovered", true)
		}
		if b.Moved > 0 && b.Recovered == 0 { // and never had its build server
			s.Never = true
		}
	}
	for _, m := range v.Measured {
		if m.What == "rebuilt" {
			worst(m.Seconds, m.Limit, m.Of+" rebuilt", m.Met != nil)
		}
	}
	if s.Never {
		s.Recovery, s.Limit, s.Of = nil, 0, ""
	}
	return s
}

// Unread is a run whose record cannot be read any more: it is part of the trend too.
func Unread(run string, why error) Past {
	s := Past{Run: run, Scenario: run, Verdict: Unknown, Sentence: why.Error()}
	// NAME-20260102-150405
	if i := len(run) - len("-20060102-150405"); i > 0 {
		if t, err := time.Parse("-20060102-150405", run[i:]); err == nil {
			s.Scenario, s.Began = run[:i], t
		}
	}
	return s
}

// Sort puts runs in order of time.
func Sort(list []Past) {
	slices.SortStableFunc(list, func(a, b Past) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Run, b.Run))
	})
}

// highest is the top of a plot of runs.
func highest(list []Past) float64 {
	top := 0.0
	for _, s := range list {
		if s.Recovery != nil {
			top = max(top, *s.Recovery, min(s.Limit, *s.Recovery*4))
		}
	}
	return top
}

// Trend shows runs over time for a terminal, a scenario after the other: recovery
// as a line of small bars, then each run with a bar of its own.
func Trend(list []Past) string {
	var names []string
	by := map[string][]Past{}
	for _, s := range list {
		if len(by[s.Scenario]) == 0 {
			names = append(names, s.Scenario)
		}
		by[s.Scenario] = append(by[s.Scenario], s)
	}
	slices.Sort(names)
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteByte('\n')
		}
		runs := by[n]
		Sort(runs)
		fmt.Fprintf(&b, "%s  %s  %s\n", release.StripControl(n), spark(runs), counted(runs))
		top := highest(runs)
		for _, s := range runs {
			fmt.Fprintf(&b, "  %s  %-7s  %-24s  %s\n", s.Began.UTC().Format("2006-01-02 15:04"), s.Verdict, bar(s, top, 24), release.StripControl(strings.ReplaceAll(s.recovered(), "\n", " ")))
		}
	}
	return b.String()
}

// counted says how many runs came to what.
func counted(runs []Past) string {
	n := map[Value]int{}
	for _, s := range runs {
		n[s.Verdict]++
	}
	said := []string{}
	for _, v := range []Value{Pass, Fail, Unknown} {
		if n[v] > 0 {
			said = append(said, fmt.Sprintf("%d %s", n[v], v))
		}
	}
	what := map[bool]string{true: "1 run", false: fmt.Sprintf("%d runs", len(runs))}[len(runs) == 1]
	return what + ": " + strings.Join(said, ", ")
}

// recovered says how long a run took to recover.
func (s *Past) recovered() string {
	switch {
	case s.Never:
		return "never recovered"
	case s.Recovery == nil && s.Digest == "":
		return s.Sentence
	case s.Recovery == nil:
		return "nothing had to recover"
	}
	text := runbook.FormatSeconds(*s.Recovery)
	if s.Limit > 0 {
		text += " of " + runbook.FormatSeconds(s.Limit)
	}
	return text + "  " + s.Of
}

// spark is a run a letter.
func spark(runs []Past) string {
	top := highest(runs)
	var b strings.Builder
	for _, s := range runs[max(0, len(runs)-60):] {
		switch {
		case s.Never:
			b.WriteString("×")
		case s.Recovery == nil:
			b.WriteString("·")
		default:
			b.WriteRune([]rune("▁▂▃▄▅▆▇█")[min(int(*s.Recovery/top*8), 7)])
		}
	}
	return b.String()
}

// bar is a run's recovery in eighths of a letter, with its limit as a line.
func bar(s Past, top float64, width int) string {
	if s.Recovery == nil || top <= 0 {
		return map[bool]string{true: "×", false: "·"}[s.Never]
	}
	eighths := max(int(math.Round(*s.Recovery/top*float64(width*8))), 1)
	cells := []rune(strings.Repeat("█", eighths/8))
	if r := eighths % 8; r > 0 {
		cells = append(cells, []rune("▏▎▍▌▋▊▉")[r-1])
	}
	if at := int(math.Round(s.Limit / top * float64(width))); s.Limit > 0 && at < width && at >= len(cells) {
		cells = append(cells, []rune(strings.Repeat(" ", at-len(cells))+"│")...)
	}
	return string(cells)
}

// plot is the trend as a picture: a column a run.
type plot struct {
	Width, Height, Base, Left, Right float64
	Columns                          []column
	Ticks                            []tick
}

type column struct {
	X, Y, Width, Height, Mid float64
	Right                    float64
	Limit                    float64 // its height; 0: none in sight
	Verdict                  Value
	Never, None, This        bool
	Text, Title              string
}

// plotted lays the last runs out.
func plotted(runs []Past, this string) *plot {
	runs = runs[max(0, len(runs)-24):]
	pl := &plot{Width: pictureWidth, Height: 190, Base: 150, Left: 60, Right: 944}
	top := highest(runs)
	height := func(s float64) float64 {
		if top <= 0 {
			return 0
		}
		return round(s / top * 120)
	}
	if top > 0 {
		for _, f := range []float64{0, 0.5, 1} {
			pl.Ticks = append(pl.Ticks, tick{Y: round(pl.Base - 120*f), Text: runbook.FormatSeconds(top * f)})
		}
	}
	step := min((pl.Right-pl.Left)/float64(max(len(runs), 1)), 90)
	for i, s := range runs {
		x := pl.Left + step*float64(i)
		c := column{X: round(x + step*0.2), Width: round(step * 0.6), Mid: round(x + step/2), Right: round(x + step*0.8), Y: pl.Base, Verdict: s.Verdict, Never: s.Never, None: s.Recovery == nil && !s.Never, This: s.Run == this, Text: s.Began.UTC().Format("01-02"), Title: s.Run + ": " + string(s.Verdict) + ", " + s.recovered()}
		if step < 56 && i%2 == 1 {
			c.Text = ""
		}
		if s.Recovery != nil {
			c.Height = max(height(*s.Recovery), 1)
			c.Y = round(pl.Base - c.Height)
			if s.Limit > 0 && s.Limit <= top {
				c.Limit = round(pl.Base - height(s.Limit))
			}
		}
		pl.Columns = append(pl.Columns, c)
	}
	return pl
}
