package runbook

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// What people write is read in one way, everywhere: a text that could mean two things
// is refused, with what to write instead.

// longest is how long a duration may be: more is a slip of the finger.
const longest = 10 * 366 * 24 * time.Hour

var durationRE = regexp.MustCompile(`^(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})(?:m|min))?(?:(\d{1,6})s)?$`)

type unit struct {
	name   string
	length time.Duration
	most   int // how many make one of the next larger unit
}

// units are those of durationRE.
func units() []unit {
	return []unit{{"weeks", 7 * 24 * time.Hour, 0}, {"days", 24 * time.Hour, 7}, {"hours", time.Hour, 24}, {"minutes", time.Minute, 60}, {"seconds", time.Second, 60}}
}

// ParseDuration reads 45m, 1h30m, 2d or 1w: a day is 24 hours, a week seven days. No
// duration is zero.
func ParseDuration(s string) (time.Duration, error) {
	d, err := ParseDelay(s)
	if err == nil && d == 0 {
		return 0, fmt.Errorf("%q is no time at all: write a time such as 45m, 1h30m or 2d", s)
	}
	return d, err
}

// ParseDelay reads what [ParseDuration] reads, and 0s.
func ParseDelay(s string) (time.Duration, error) {
	m := durationRE.FindStringSubmatch(s)
	switch {
	case s == "":
		return 0, fmt.Errorf("%q is not a time such as 45m, 1h30m or 2d", s)
	case strings.ContainsAny(s, ".,") && strings.Trim(s, "0123456789.,wdhmins") == "":
		return 0, fmt.Errorf("%q has a fraction: write whole units, such as 1d12h or 90m", s)
	case strings.Trim(s, "0123456789") == "":
		return 0, fmt.Errorf("%q has no unit: write %ss, %sm, %sh or %sd", s, s, s, s, s)
	case m == nil:
		return 0, fmt.Errorf("%q is not a time such as 45m, 1h30m or 2d (w, d, h, m and s, each once, the largest first)", s)
	}
	var sum time.Duration
	first := true
	for i, u := range units() {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		switch {
		case err != nil:
			return 0, err
		case !first && n >= u.most:
			return 0, fmt.Errorf("%q has %d %s after a larger unit: write fewer than %d, or %s alone", s, n, u.name, u.most, u.name)
		case len(m[i+1]) > 1 && m[i+1][0] == '0':
			return 0, fmt.Errorf("%q has a number that begins with 0: write it without", s)
		case n > int(longest/u.length):
			return 0, fmt.Errorf("%q is more than ten years", s)
		}
		sum += time.Duration(n) * u.length
		first = false
	}
	if sum > longest {
		return 0, fmt.Errorf("%q is more than ten years", s)
	}
	return sum, nil
}

var bareMinutesRE = regexp.MustCompile(`^([1-5]?\d)m$`)

// ParsePeriod reads a duration where people think in days and months: few minutes are
// written as 5min there, since 5m could be five months.
func ParsePeriod(s string) (time.Duration, error) {
	if m := bareMinutesRE.FindStringSubmatch(s); m != nil {
		return 0, fmt.Errorf("%q could be minutes or months: write %smin, or a number of days such as 30d", s, m[1])
	}
	return ParseDuration(s)
}

var personHoursRE = regexp.MustCompile(`^(\d{1,6})(?:\.(\d{1,2}))? person-hours$`)

// ParsePersonHours reads 16 person-hours or 1.5 person-hours.
func ParsePersonHours(s string) (time.Duration, error) {
	m := personHoursRE.FindStringSubmatch(s)
	if m == nil || len(m[1]) > 1 && m[1][0] == '0' {
		return 0, fmt.Errorf("%q is not a time of people such as 16 person-hours or 1.5 person-hours", s)
	}
	hundredths, err := strconv.Atoi(m[1] + (m[2] + "00")[:2])
	if err != nil {
		return 0, err
	}
	d := time.Duration(hundredths) * (time.Hour / 100)
	if d == 0 || d > 100_000*time.Hour {
		return 0, fmt.Errorf("%q is not a time of people: write 1 to 100000 person-hours", s)
	}
	return d, nil
}

var (
	timeRE      = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)$`)
	localTimeRE = regexp.MustCompile(`^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?$`)
)

// ParseTime reads 2026-12-01T09:00:00Z or 2026-12-01T09:00:00+01:00. Without a zone it
// would be another time for each reader.
func ParseTime(s string) (time.Time, error) {
	switch {
	case localTimeRE.MatchString(s):
		return time.Time{}, fmt.Errorf("%q names no zone: write the time with Z or its distance to UTC, such as 2026-12-01T09:00:00Z or 2026-12-01T09:00:00+01:00", s)
	case !timeRE.MatchString(s), strings.HasSuffix(s, "-00:00"):
		return time.Time{}, fmt.Errorf("%q is not a time such as 2026-12-01T09:00:00Z or 2026-12-01T09:00:00+01:00", s)
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time such as 2026-12-01T09:00:00Z: %w", s, err)
	}
	return t, nil
}

// OtherOffset says so if a time is written with a distance to UTC that its zone has in
// another part of the year, and not then: 09:00 is then an hour earlier or later than on
// the zone's clocks.
func OtherOffset(t time.Time, zone *time.Location) error {
	_, written := t.Zone()
	_, then := t.In(zone).Zone()
	if t.Location() == time.UTC || written == 0 || written == then {
		return nil
	}
	for month := range time.Month(12) {
		if _, other := time.Date(t.Year(), month+1, 1, 12, 0, 0, 0, zone).Zone(); other == written {
			return fmt.Errorf("%s is not what the clocks of %s show then: they are at %s", t.Format(time.RFC3339), zone, t.In(zone).Format("-07:00"))
		}
	}
	return nil
}

// FormatDuration writes how long something lasts, as people say it: 42.5 s, 12m30s, 3 h, 2.5 days.
func FormatDuration(d time.Duration) string {
	if d = d.Round(100 * time.Millisecond); d < 0 {
		return "-" + FormatDuration(-d)
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

// FormatSeconds is [FormatDuration] of a number of seconds.
func FormatSeconds(s float64) string { return FormatDuration(time.Duration(s * float64(time.Second))) }

// FormatTime writes a moment as people say it, by the clock of a zone; nil is UTC.
func FormatTime(t time.Time, zone *time.Location) string {
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone).Format("Mon 2 Jan 2006 15:04 MST")
}
