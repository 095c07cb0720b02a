package release

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Human writes a time as people say it.
func Human(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%s%.1f days", sign, d.Hours()/24)
	case d >= 100*time.Minute:
		return fmt.Sprintf("%s%.1f h", sign, d.Hours())
	case d >= 100*time.Second:
		return fmt.Sprintf("%s%dm%02ds", sign, int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%s%.1f s", sign, d.Seconds())
}

// Roundly writes a time to the minute, and a shorter one so that it is not nothing.
func Roundly(d time.Duration) string {
	for _, unit := range []time.Duration{time.Minute, time.Second, time.Millisecond} {
		if d.Abs() >= unit {
			return d.Round(unit).String()
		}
	}
	return d.String()
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

// Cell writes text that people typed so that Markdown shows it as it is, in one line.
func Cell(s string) string {
	var b strings.Builder
	for _, c := range strings.Join(strings.Fields(s), " ") {
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
