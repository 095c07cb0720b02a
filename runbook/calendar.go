package runbook

import (
	"fmt"
	"slices"
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

// works tells whether a day is one of work.
func (c Calendar) works(d Date) bool {
	noon := time.Date(d.Year, d.Month, d.Day, 12, 0, 0, 0, c.Zone)
	if !slices.Contains(c.Days, noon.Weekday()) {
		return false
	}
	return !slices.ContainsFunc(c.Off, func(s Span) bool { return !d.before(s.First) && !s.Last.before(d) })
}

// day gives a day's working hours. The clock decides: on the day that daylight
// saving begins, a shift from 01:00 to 09:00 has seven hours.
func (c Calendar) day(d Date) (from, to time.Time) {
	at := func(x time.Duration) time.Time {
		return time.Date(d.Year, d.Month, d.Day, int(x/time.Hour), int(x%time.Hour/time.Minute), 0, 0, c.Zone)
	}
	return at(c.From), at(c.To)
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
		d = dateOf(time.Date(d.Year, d.Month, d.Day+1, 12, 0, 0, 0, c.Zone))
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
		d = dateOf(time.Date(d.Year, d.Month, d.Day+1, 12, 0, 0, 0, c.Zone))
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
		if !okA || !okB {
			return nil, 0, 0, wrong
		}
		for d := a; ; d = (d + 1) % 7 {
			if !slices.Contains(days, d) {
				days = append(days, d)
			}
			if d == b {
				break
			}
		}
	}
	begin, end, ok := strings.Cut(strings.TrimSpace(clock), "-")
	a, errA := time.Parse("15:04", begin)
	b, errB := time.Parse("15:04", strings.Replace(end, "24:00", "23:59", 1))
	if !ok || errA != nil || errB != nil || !a.Before(b) {
		return nil, 0, 0, wrong
	}
	since := func(t time.Time) time.Duration {
		return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	to = since(b)
	if end == "24:00" {
		to = 24 * time.Hour
	}
	return days, since(a), to, nil
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
	if errA != nil || errB != nil || b.Before(a) {
		return Span{}, fmt.Errorf("%q is not a day such as 2026-12-24, or two with .. between", s)
	}
	return Span{dateOf(a), dateOf(b)}, nil
}
