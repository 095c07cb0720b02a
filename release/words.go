package release

import (
	"strings"
	"time"
	"unicode"

	"trysail/runbook"
)

// Ships says when a release ships, that long from now.
func Ships(in time.Duration) string {
	if in < 0 {
		return "is late by " + runbook.FormatDuration(-in)
	}
	return "ships in " + runbook.FormatDuration(in)
}

// ShipDate says why a release should not start with a ship date, by the one that its runbook
// names and the time; "" if nothing speaks against it.
func ShipDate(ship, named, now time.Time, zone *time.Location) string {
	switch {
	case !ship.After(now):
		return "the ship date " + runbook.FormatTime(ship, zone) + " is over"
	case !named.IsZero() && !named.Equal(ship):
		return "the ship date " + runbook.FormatTime(ship, zone) + " is not the one that the runbook names, " + runbook.FormatTime(named, zone)
	}
	return ""
}

// StripControl writes what somebody else wrote so that a terminal shows it and does nothing.
func StripControl(s string) string {
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
	for _, c := range StripControl(strings.Join(strings.Fields(s), " ")) {
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
