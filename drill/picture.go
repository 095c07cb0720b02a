package drill

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"trysail/release"
	"trysail/runbook"
)

// The picture's measures, in units of its view box.
const (
	pictureWidth = 960.0
	plotLeft     = 216.0 // left of it stand the words, so that no bar meets one
	plotRight    = 944.0
	trackHeight  = 20.0
	letter       = 7.2 // width of a letter, about; what would run into something is left out
	small        = 6.0 // of those in a bar
)

// picture is the timeline: a row for each fault, with what followed on real time,
// and a lane for each machine. It is laid out here and drawn by the page's template.
type picture struct {
	Width, Height float64
	Left, Right   float64
	Top, Bottom   float64 // of the plot
	Ticks         []tick
	Calendar      []tick // where the drill's clock stood
	CalendarY     float64
	Rows          []faultRow
	Lanes         []lane
}

type tick struct {
	X, Y  float64
	TextX float64
	Text  string // "" where it would run into another
}

// faultRow is one fault: when it was injected, and a track for each thing that followed.
type faultRow struct {
	Name, Head     string
	X, Y           float64 // where it was injected; the words' line
	TrackBottom    float64
	At             float64 // real seconds since the drill began
	Verified       bool
	Tracks         []track
	Nothing        string // said where nothing followed
	NothingY       float64
	InjectedPoints string
}

// track is a bar from the fault (or the begin of a rebuild) to a mark, against its limit.
type track struct {
	Kind            string // noticed, moved, rebuilt
	Text            string
	Y, Mid, Bar     float64 // top, middle, top of the bar
	From, To, Width float64
	Seconds         float64 // real seconds, 0: it never came
	Never, Over     bool
	Limit           float64 // seconds, 0: none
	LimitX          float64
	BandWidth       float64
	Beyond          bool // the limit lies right of the picture, as an arrow says
	BeyondPoints    string
	Points          string
}

// lane is a machine: what it ran, and since when it was away.
type lane struct {
	Name        string
	Y, Mid, Bar float64
	Works       []work
}

type work struct {
	X, Y, Width, Height float64
	Kind                string // ran, lost, rebuild, away
	Label               string // "" where it does not fit
	Title               string
}

// draw lays the picture out.
func draw(p *Plan, h []Record, v *Verdict) *picture {
	end := shown(p, h, v)
	pic := &picture{Width: pictureWidth, Left: plotLeft, Right: plotRight, CalendarY: 40, Top: 60}
	x := func(seconds float64) float64 {
		return round(plotLeft + (plotRight-plotLeft)*min(max(seconds/end, 0), 1))
	}
	pic.calendar(p, h, x)
	y := pic.Top + 20
	for _, b := range v.Faults {
		r := faultRow{Name: b.Name, Head: TMinus(p, b.Clock) + "  " + b.Name + ": " + string(b.Fault) + at(b.Host), At: b.At.Seconds(), X: x(b.At.Seconds()), Verified: b.Verified, Y: y}
		if !b.Verified {
			r.Head += " (no probe saw it)"
		}
		r.InjectedPoints = diamond(r.X, y+12)
		y += 20
		for _, t := range follows(p, h, v, b) {
			y = t.place(y, x, end)
			r.Tracks = append(r.Tracks, t)
		}
		if len(r.Tracks) == 0 {
			r.Nothing, r.NothingY = "nothing had to move", y+13
			y += trackHeight
		}
		r.TrackBottom = y
		pic.Rows = append(pic.Rows, r)
		y += 26
	}
	for _, name := range machines(p, h) {
		l := lane{Name: cut(name, 26), Y: y, Mid: y + 14, Bar: y + 3}
		for _, s := range works(p, h, v, name) {
			w := work{X: x(s.from), Width: round(max(x(s.to)-x(s.from), 2)), Y: l.Bar, Height: 14, Kind: s.kind, Title: s.title}
			if s.kind == "rebuild" { // a step may wait for it
				w.Y, w.Height = l.Bar-3, 4
			}
			if float64(utf8.RuneCountInString(s.label))*small+6 < w.Width {
				w.Label = s.label
			}
			l.Works = append(l.Works, w)
		}
		pic.Lanes = append(pic.Lanes, l)
		y += trackHeight
	}
	pic.Bottom, pic.Height = y+4, y+28
	step := stride(end)
	for s := 0.0; s <= end; s += step {
		pic.Ticks = append(pic.Ticks, tick{X: x(s), Text: ticked(s)})
	}
	return pic
}

// shown is how many real seconds the picture shows: the whole drill, and limits
// that lie a little behind its end.
func shown(p *Plan, h []Record, v *Verdict) float64 {
	end := max(v.Real, 1)
	for _, b := range v.Faults {
		for _, t := range follows(p, h, v, b) {
			if t.Limit > 0 {
				end = max(end, min(t.From+t.Limit*1.02, v.Real*1.3))
			}
		}
	}
	return end
}

// follows are the tracks of a fault, not yet placed: From is in seconds.
func follows(p *Plan, h []Record, v *Verdict, b Bite) []track {
	var list []track
	limit := FaultLimit{}
	if i := slices.IndexFunc(p.Expect.Faults, func(l FaultLimit) bool { return l.Name == b.Name }); i >= 0 {
		limit = p.Expect.Faults[i]
	}
	for _, t := range []struct {
		kind, what, limit string
		seconds           float64
	}{{"noticed", "detected", limit.Detected, b.Detected}, {"moved", "moved", limit.Moved, b.Moved}} {
		d, _ := Duration(t.limit) // it was parsed before
		if t.seconds > 0 || d > 0 && v.tried(t.what, b.Name) {
			list = append(list, track{Kind: t.kind, From: b.At.Seconds(), Seconds: t.seconds, Limit: d.Seconds()})
		}
	}
	for _, r := range h {
		if r.Kind == Warmed && r.Took > 0 && causedBy(v, (r.At-r.Took).Seconds()) == b.Name {
			list = append(list, track{Kind: "rebuilt", Text: r.Host, From: (r.At - r.Took).Seconds(), Seconds: r.Took.Seconds(), Limit: rebuildLimit(p, r.Host)})
		}
	}
	// A machine that was to be made a build server and was not belongs to the last fault.
	if len(v.Faults) > 0 && v.Faults[len(v.Faults)-1].Name == b.Name {
		for _, l := range p.Expect.Rebuilt {
			if !slices.ContainsFunc(h, func(r Record) bool { return r.Kind == Warmed && r.Took > 0 && r.Host == l.Host }) && v.tried("rebuilt", l.Host) {
				list = append(list, track{Kind: "rebuilt", Text: l.Host, From: b.At.Seconds(), Limit: rebuildLimit(p, l.Host)})
			}
		}
	}
	return list
}

// causedBy names the last fault before a time: what is rebuilt then is because of it.
func causedBy(v *Verdict, seconds float64) string {
	name, last := "", -1.0
	for _, b := range v.Faults {
		if at := b.At.Seconds(); at <= seconds && at > last {
			name, last = b.Name, at
		}
	}
	return name
}

func rebuildLimit(p *Plan, host string) float64 {
	for _, l := range p.Expect.Rebuilt {
		if l.Host == host {
			d, _ := Duration(l.Within) // it was parsed before
			return d.Seconds()
		}
	}
	return 0
}

// place gives a track its place and words, and the top of the next.
func (t *track) place(y float64, x func(float64) float64, end float64) float64 {
	from := t.From
	t.Never = t.Seconds == 0
	t.Over = t.Limit > 0 && (t.Never || t.Seconds > t.Limit)
	what := t.Kind
	if t.Text != "" {
		what += " " + cut(t.Text, 8)
	}
	switch {
	case t.Never:
		t.Text = what + " never"
	default:
		t.Text = what + " " + runbook.FormatSeconds(t.Seconds)
	}
	if t.Limit > 0 {
		t.Text += " of " + runbook.FormatSeconds(t.Limit)
	}
	t.Y, t.Mid, t.Bar = y, y+14, y+6
	t.From = x(from)
	t.To = x(from + t.Seconds)
	if t.Never {
		t.To = x(end)
	}
	t.Width = round(max(t.To-t.From, 1))
	if t.Limit > 0 {
		t.Beyond = from+t.Limit > end
		t.LimitX = x(from + t.Limit)
		t.BeyondPoints = points(t.LimitX, y+5, t.LimitX+9, y+10, t.LimitX, y+15)
		t.BandWidth = round(max(t.LimitX-t.From, 1))
	}
	switch t.Kind {
	case "moved":
		t.Points = points(t.To-5, y+15, t.To+5, y+15, t.To, y+5)
	case "rebuilt":
		t.Points = points(t.To-4, y+6, t.To+4, y+6, t.To+4, y+14, t.To-4, y+14)
	}
	return y + trackHeight
}

// calendar marks where the drill's clock stood: at the beginning, and after each
// jump. Its words have two lines, so that few are left out.
func (pic *picture) calendar(p *Plan, h []Record, x func(float64) float64) {
	free := [2]float64{}
	for i, r := range h {
		if i > 0 && r.Kind != Jumped {
			continue
		}
		t := tick{X: x(r.At.Seconds()), Text: TMinus(p, r.Clock)}
		wide := float64(len(t.Text)+1) * letter
		t.TextX = min(t.X, pictureWidth-wide)
		t.Y = -1
		for line, until := range free {
			if t.TextX >= until {
				free[line], t.Y = t.TextX+wide, pic.CalendarY+14*float64(line)
				break
			}
		}
		if t.Y < 0 {
			t.Text = ""
		}
		pic.Calendar = append(pic.Calendar, t)
	}
}

// machines are those of the scenario, and any other that did something.
func machines(p *Plan, h []Record) []string {
	var list []string
	for _, x := range p.World.Hosts {
		list = append(list, x.Name)
	}
	more := map[string]bool{}
	for _, r := range h {
		if r.Event == nil {
			continue
		}
		if g, ok := r.Event.Body.(release.Granted); ok && !slices.Contains(list, g.Machine) {
			more[g.Machine] = true
		}
	}
	list = append(list, slices.Sorted(maps.Keys(more))...)
	return list[:min(len(list), 40)]
}

type stretch struct {
	from, to           float64
	kind, label, title string
}

// works is what a machine did: what it ran, what it lost, when it was made a build
// server and when it was away.
func works(p *Plan, h []Record, v *Verdict, machine string) []stretch {
	var list []stretch
	type lease struct {
		from  float64
		label string
	}
	running := map[int64]lease{} // by epoch: on this machine
	stop := func(epoch int64, to float64, kind, how string) {
		if l, ok := running[epoch]; ok {
			delete(running, epoch)
			list = append(list, stretch{l.from, to, kind, l.label, fmt.Sprintf("%s %s: %s to %s", l.label, how, runbook.FormatSeconds(l.from), runbook.FormatSeconds(to))})
		}
	}
	for _, r := range h {
		to := r.At.Seconds()
		if r.Kind == Warmed && r.Host == machine && r.Took > 0 {
			list = append(list, stretch{(r.At - r.Took).Seconds(), to, "rebuild", "", "made a build server in " + runbook.FormatDuration(r.Took)})
		}
		if r.Event == nil {
			continue
		}
		switch b := r.Event.Body.(type) {
		case release.Granted:
			if b.Machine == machine {
				running[r.Event.Seq] = lease{to, b.Item + map[bool]string{true: " again"}[b.Confirm]}
			}
		case release.Lost:
			stop(b.Epoch, to, "lost", "was lost")
		case release.Finished:
			stop(b.Epoch, to, "ran", "ended")
		case release.Committed:
			stop(b.Epoch, to, "ran", "was committed")
		case release.Confirmed:
			stop(b.Epoch, to, "ran", "was compared")
		}
	}
	for _, epoch := range slices.Sorted(maps.Keys(running)) {
		stop(epoch, v.Real, "ran", "did not end")
	}
	for _, b := range v.Faults {
		down := slices.ContainsFunc(Faults(), func(k FaultKind) bool { return k.Fault == b.Fault && k.Down })
		if b.Host != machine || !down {
			continue
		}
		to := v.Real
		for _, r := range h {
			if r.Kind == Undone && r.Name == b.Name && yes(r.OK) {
				to = r.At.Seconds()
			}
		}
		list = append(list, stretch{b.At.Seconds(), to, "away", "", "away because of " + b.Name})
	}
	// What it ran is drawn over its being away, and a rebuild over what waits for it.
	over := []string{"away", "ran", "lost", "rebuild"}
	slices.SortStableFunc(list, func(a, b stretch) int {
		return cmp.Or(cmp.Compare(slices.Index(over, a.kind), slices.Index(over, b.kind)), cmp.Compare(a.from, b.from))
	})
	return list
}

func diamond(x, y float64) string { return points(x, y-6, x+6, y, x, y+6, x-6, y) }

func points(list ...float64) string {
	var b strings.Builder
	for i, f := range list {
		b.WriteString(strconv.FormatFloat(round(f), 'f', -1, 64))
		b.WriteString(map[bool]string{true: ",", false: " "}[i%2 == 0])
	}
	return strings.TrimSpace(b.String())
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// stride is between two ticks: ten of them at most.
func stride(end float64) float64 {
	for _, s := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600} {
		if end/s <= 10 {
			return s
		}
	}
	return 3600 * math.Ceil(end/36000)
}

func ticked(s float64) string {
	if s >= 60 && math.Mod(s, 60) == 0 {
		return strconv.Itoa(int(s)/60) + " min"
	}
	return strconv.FormatFloat(round(s), 'f', -1, 64) + " s"
}

// cut shortens what was not written for a picture.
func cut(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
