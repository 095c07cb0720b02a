package runbook

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Calendar is when somebody works.
type Calendar struct {
	Zone     *time.Location
	Days     []time.Weekday
	From, To time.Duration // since midnight, on the clock of the zone
	Off      []Span        // holidays and absences
}

// Span is some whole days, in the calendar's zone.
type Span struct{ First, Last Date }

// Date is a day without a zone.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

func dateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

func (d Date) before(o Date) bool {
	if d.Year != o.Year {
		return d.Year < o.Year
	}
	if d.Month != o.Month {
		return d.Month < o.Month
	}
	return d.Day < o.Day
}

func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// horizon bounds the search for working time: who does not work for so long
// does not work at all.
const horizon = 5 * 366

// past is how long before the ship date a holiday is over that has nothing to do with
// the release: its year is wrong, or the list is old.
const past = 180 * 24 * time.Hour

// works tells whether a day is one of work.
func (c Calendar) works(d Date) bool {
	if !slices.Contains(c.Days, d.weekday()) {
		return false
	}
	return !slices.ContainsFunc(c.Off, func(s Span) bool { return !d.before(s.First) && !s.Last.before(d) })
}

func (d Date) utc() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }

// weekday and next are those of the calendar on the wall: a zone may skip a day, and
// noon of it is then no time.
func (d Date) weekday() time.Weekday { return d.utc().Weekday() }

func (d Date) next() Date { return dateOf(d.utc().AddDate(0, 0, 1)) }

// begin is when a day begins in a zone.
func (d Date) begin(zone *time.Location) time.Time {
	first, _ := instants(d, 0, zone)
	return first
}

// instants are when the clocks of a zone show a time of a day, first and last: twice
// where they are put back over it. A time that they skip is the one at which they skip it.
func instants(d Date, clock time.Duration, zone *time.Location) (first, last time.Time) {
	wall := d.utc().Add(clock)
	var skipped time.Time
	for _, near := range []time.Duration{-30 * time.Hour, 0, 30 * time.Hour} {
		_, offset := wall.Add(near).In(zone).Zone()
		t := wall.Add(-time.Duration(offset) * time.Second).In(zone)
		if _, is := t.Zone(); is != offset {
			if start, _ := t.ZoneBounds(); is > offset {
				skipped = start // of summer time: by the old offset it is after that
			}
			continue
		}
		if first.IsZero() || t.Before(first) {
			first = t
		}
		if t.After(last) {
			last = t
		}
	}
	if first.IsZero() {
		return skipped, skipped
	}
	return first, last
}

// day gives a day's working hours. The clock decides: on the day that daylight
// saving begins, a shift from 01:00 to 09:00 has seven hours. A shift that begins in an
// hour that comes twice begins with the first of them, and one that ends there ends with
// the last.
func (c Calendar) day(d Date) (from, to time.Time) {
	from, _ = instants(d, c.From, c.Zone)
	_, to = instants(d, c.To, c.Zone)
	if next := d.next().begin(c.Zone); to.After(next) {
		to = next
	}
	return from, to
}

// Add gives the time at which somebody who begins at t has worked for so long;
// the zero time if that is further away than five years.
func (c Calendar) Add(t time.Time, work time.Duration) time.Time {
	d := dateOf(t.In(c.Zone))
	for range horizon {
		if c.works(d) {
			from, to := c.day(d)
			if from.Before(t) {
				from = t
			}
			if has := to.Sub(from); has > 0 {
				if work <= has {
					return from.Add(work)
				}
				work -= has
			}
		}
		d = d.next()
	}
	return time.Time{}
}

// Between gives the working time from a to b; nothing if b is not later.
func (c Calendar) Between(a, b time.Time) time.Duration {
	var sum time.Duration
	d, last := dateOf(a.In(c.Zone)), dateOf(b.In(c.Zone))
	for range horizon {
		if last.before(d) {
			break
		}
		if c.works(d) {
			from, to := c.day(d)
			if from.Before(a) {
				from = a
			}
			if to.After(b) {
				to = b
			}
			sum += max(to.Sub(from), 0)
		}
		d = d.next()
	}
	return sum
}

// location finds a zone by its name. "Local" is another one wherever it is read; on a
// machine that has none set, UTC is the local one, and is everybody's all the same.
func location(name string, zones func(string) (*time.Location, error)) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("%q is no time zone of everybody's", name)
	}
	return zones(name)
}

// Hours is a calendar as a ledger holds it, in the words of the runbook. Its zone
// has a name: the rules of a zone are files, and change.
type Hours struct {
	Zone string   `json:"zone"`          // of the tz database
	Days []string `json:"days"`          // mon, tue …
	From string   `json:"from"`          // 09:00
	To   string   `json:"to"`            // 17:00, at most 24:00
	Off  []string `json:"off,omitempty"` // 2026-12-24, or 2026-12-24..2026-12-26
}

// Hours writes a calendar down.
func (c Calendar) Hours() Hours {
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute) }
	h := Hours{Zone: c.Zone.String(), From: clock(c.From), To: clock(c.To)}
	for _, d := range c.Days {
		h.Days = append(h.Days, strings.ToLower(d.String()[:3]))
	}
	for _, s := range c.Off {
		text := s.First.String()
		if s.Last != s.First {
			text += ".." + s.Last.String()
		}
		h.Off = append(h.Off, text)
	}
	return h
}

// Calendar reads it again.
func (h Hours) Calendar(zones func(name string) (*time.Location, error)) (c Calendar, err error) {
	if c.Zone, err = location(h.Zone, zones); err != nil {
		return c, err
	}
	if c.Days, c.From, c.To, err = parseHours(strings.Join(h.Days, ",") + " " + h.From + "-" + h.To); err != nil {
		return c, err
	}
	for _, text := range h.Off {
		s, err := parseSpan(text)
		if err != nil {
			return c, err
		}
		c.Off = append(c.Off, s)
	}
	return c, nil
}

var clockRE = regexp.MustCompile(`^(\d\d):(\d\d)-(\d\d):(\d\d)$`)

// parseHours reads "mon-fri 09:00-17:00"; days may be a list such as mon,wed,fri.
func parseHours(s string) (days []time.Weekday, from, to time.Duration, err error) {
	wrong := fmt.Errorf("%q is not working hours such as mon-fri 09:00-17:00", s)
	list, clock, ok := strings.Cut(strings.ToLower(strings.TrimSpace(s)), " ")
	if !ok {
		return nil, 0, 0, wrong
	}
	for part := range strings.SplitSeq(list, ",") {
		first, last, span := strings.Cut(part, "-")
		a, okA := weekday(first)
		b := a
		okB := true
		if span {
			b, okB = weekday(last)
		}
		switch {
		case !okA || !okB:
			return nil, 0, 0, wrong
		case span && a == b:
			return nil, 0, 0, fmt.Errorf("%q could be one day or a week: write %s, or mon-sun", part, first)
		}
		for d := a; ; d = (d + 1) % 7 {
			if slices.Contains(days, d) {
				return nil, 0, 0, fmt.Errorf("%q names %s twice", list, strings.ToLower(d.String()[:3]))
			}
			days = append(days, d)
			if d == b {
				break
			}
		}
	}
	m := clockRE.FindStringSubmatch(strings.TrimSpace(clock))
	if m == nil {
		return nil, 0, 0, fmt.Errorf("%q is not from when to when, with two digits each: write 09:00-17:00", strings.TrimSpace(clock))
	}
	var at [4]int
	for i := range at {
		if at[i], err = strconv.Atoi(m[i+1]); err != nil {
			return nil, 0, 0, err
		}
	}
	from = time.Duration(at[0])*time.Hour + time.Duration(at[1])*time.Minute
	to = time.Duration(at[2])*time.Hour + time.Duration(at[3])*time.Minute
	switch {
	case at[1] > 59 || at[3] > 59 || to > 24*time.Hour:
		return nil, 0, 0, wrong
	case from >= to:
		return nil, 0, 0, fmt.Errorf("%q ends before it begins: working hours are within one day, at most 00:00-24:00", m[0])
	}
	return days, from, to, nil
}

func weekday(s string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name := strings.ToLower(d.String()); s == name || s == name[:3] {
			return d, true
		}
	}
	return 0, false
}

// parseSpan reads a day, or two with ".." between.
func parseSpan(s string) (Span, error) {
	first, last, two := strings.Cut(s, "..")
	if !two {
		last = first
	}
	a, errA := time.Parse(time.DateOnly, first)
	b, errB := time.Parse(time.DateOnly, last)
	switch {
	case errA != nil || errB != nil:
		return Span{}, fmt.Errorf("%q is not a day such as 2026-12-24, or two with .. between", s)
	case b.Before(a):
		return Span{}, fmt.Errorf("%q ends before it begins", s)
	}
	return Span{dateOf(a), dateOf(b)}, nil
}
