package release

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Human writes how long something lasts, as people say it.
func Human(d time.Duration) string {
	if d = d.Round(100 * time.Millisecond); d < 0 {
		return "-" + Human(-d)
	}
	number := func(x float64) string { return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0") }
	switch {
	case d >= 48*time.Hour:
		return number(d.Hours()/24) + " days"
	case d >= 100*time.Minute, d == time.Hour:
		return number(d.Hours()) + " h"
	case d < 100*time.Second:
		return number(d.Seconds()) + " s"
	case d%time.Minute == 0:
		return number(d.Minutes()) + " min"
	}
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}

// Seconds is [Human] of a number of seconds.
func Seconds(s float64) string { return Human(time.Duration(s * float64(time.Second))) }

// Ships says when a release ships, that long from now.
func Ships(in time.Duration) string {
	if in < 0 {
		return "is late by " + Human(-in)
	}
	return "ships in " + Human(in)
}

// When writes a moment as people say it, by the clock of a zone; nil is UTC.
func When(t time.Time, zone *time.Location) string {
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone).Format("Mon 2 Jan 2006 15:04 MST")
}

// ShipDate says why a release should not start with a ship date, by the one that its runbook
// names and the time; "" if nothing speaks against it.
func ShipDate(ship, named, now time.Time, zone *time.Location) string {
	switch {
	case !ship.After(now):
		return "the ship date " + When(ship, zone) + " is over"
	case !named.IsZero() && !named.Equal(ship):
		return "the ship date " + When(ship, zone) + " is not the one that the runbook names, " + When(named, zone)
	}
	return ""
}

// Plainly writes what somebody else wrote so that a terminal shows it and does nothing.
func Plainly(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// Cell writes text that people typed so that Markdown shows it as it is, in one line, and a terminal obeys nothing of it.
func Cell(s string) string {
	var b strings.Builder
	for _, c := range Plainly(strings.Join(strings.Fields(s), " ")) {
		switch {
		case c == '<': // as HTML's own: not every reader of Markdown knows the other way
			b.WriteString("&lt;")
		case c == '>':
			b.WriteString("&gt;")
		case c == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_{}[]()#+!|~", c):
			b.WriteByte('\\')
			b.WriteRune(c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
