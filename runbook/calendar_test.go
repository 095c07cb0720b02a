package runbook

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func calendar(t *testing.T, zone, hours string, off ...string) Calendar {
	t.Helper()
	z, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	c := Calendar{Zone: z}
	if c.Days, c.From, c.To, err = parseHours(hours); err != nil {
		t.Fatal(err)
	}
	for _, s := range off {
		span, err := parseSpan(s)
		if err != nil {
			t.Fatal(err)
		}
		c.Off = append(c.Off, span)
	}
	return c
}

func TestCalendar(t *testing.T) {
	berlin := calendar(t, "Europe/Berlin", "mon-fri 09:00-17:00", "2026-12-24..2026-12-26")
	for _, c := range []struct {
		name  string
		c     Calendar
		begin string
		work  time.Duration
		end   string
	}{
		{"within a day", berlin, "2026-11-24T10:00:00+01:00", 2 * time.Hour, "2026-11-24T12:00:00+01:00"},
		{"before the day begins", berlin, "2026-11-24T05:00:00+01:00", 2 * time.Hour, "2026-11-24T11:00:00+01:00"},
		{"over night", berlin, "2026-11-24T16:00:00+01:00", 2 * time.Hour, "2026-11-25T10:00:00+01:00"},
		{"over a weekend", berlin, "2026-11-27T16:00:00+01:00", 2 * time.Hour, "2026-11-30T10:00:00+01:00"},
		{"over a holiday and a weekend", berlin, "2026-12-23T16:00:00+01:00", 2 * time.Hour, "2026-12-28T10:00:00+01:00"},
		{"to the end of a day", berlin, "2026-11-24T09:00:00+01:00", 8 * time.Hour, "2026-11-24T17:00:00+01:00"},
		{"in another zone", berlin, "2026-11-24T15:30:00Z", time.Hour, "2026-11-25T09:30:00+01:00"},
		{"into summer time", calendar(t, "Europe/Berlin", "sat,sun 01:00-09:00"), "2026-03-29T01:00:00+01:00", 7 * time.Hour, "2026-03-29T09:00:00+02:00"},
		{"out of summer time", calendar(t, "Europe/Berlin", "sat,sun 01:00-09:00"), "2026-10-25T01:00:00+02:00", 9 * time.Hour, "2026-10-25T09:00:00+01:00"},
		{"nothing to do", berlin, "2026-11-28T12:00:00+01:00", 0, "2026-11-30T09:00:00+01:00"},
		{"around midnight", calendar(t, "UTC", "mon-sun 00:00-24:00"), "2026-11-24T23:00:00Z", 2 * time.Hour, "2026-11-25T01:00:00Z"},
	} {
		begin, err := time.Parse(time.RFC3339, c.begin)
		if err != nil {
			t.Fatal(err)
		}
		end, err := time.Parse(time.RFC3339, c.end)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.c.Add(begin, c.work); !got.Equal(end) {
			t.Errorf("%s: ends %s, not %s", c.name, got, end)
		}
		if got := c.c.Between(begin, end); got != c.work {
			t.Errorf("%s: %s of work between them, not %s", c.name, got, c.work)
		}
	}
	never := berlin
	never.Days = nil
	if got := never.Add(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Hour); !got.IsZero() {
		t.Errorf("who never works is done %s", got)
	}
}

// TestHours: a calendar that was written down is the same when it is read.
func TestHours(t *testing.T) {
	for _, c := range []Calendar{
		calendar(t, "Europe/Berlin", "mon-fri 09:00-17:00", "2026-12-24..2026-12-26", "2026-12-31"),
		calendar(t, "UTC", "sat,sun 00:00-24:00"),
		calendar(t, "Asia/Kathmandu", "sun-thu 00:30-23:59"),
	} {
		h := c.Hours()
		again, err := h.Calendar(time.LoadLocation)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v comes back as %+v: %v", h, again, err)
		}
	}
	good := calendar(t, "Europe/Berlin", "mon,wed 09:00-17:00", "2026-12-24").Hours()
	for name, change := range map[string]func(*Hours){
		"no zone": func(h *Hours) { h.Zone = "" }, "another zone wherever it is read": func(h *Hours) { h.Zone = "Local" }, "an unknown zone": func(h *Hours) { h.Zone = "Mars/Olympus" },
		"no days": func(h *Hours) { h.Days = nil }, "an unknown day": func(h *Hours) { h.Days = []string{"blursday"} },
		"no hours": func(h *Hours) { h.From, h.To = "", "" }, "it ends before it begins": func(h *Hours) { h.From, h.To = h.To, h.From },
		"an unknown date": func(h *Hours) { h.Off = []string{"2026-02-30"} },
	} {
		h := good
		change(&h)
		if c, err := h.Calendar(time.LoadLocation); err == nil {
			t.Errorf("%s: %+v is read as %+v", name, h, c)
		}
	}
}

// TestCalendarAgainstClocks counts the quarters of an hour of a person's work one by one, as the clocks
// of their zone show them, around each day on which clocks change.
func TestCalendarAgainstClocks(t *testing.T) {
	for _, c := range []struct{ zone, day string }{
		{"Europe/Berlin", "2026-03-29"},
		{"Europe/Berlin", "2026-10-25"},
		{"America/New_York", "2026-03-08"},
		{"America/New_York", "2026-11-01"},
		{"Australia/Lord_Howe", "2026-04-05"}, // by half an hour
		{"Australia/Lord_Howe", "2026-10-04"},
		{"Australia/Adelaide", "2026-10-04"}, // +09:30 to +10:30
		{"America/St_Johns", "2026-03-08"},   // -03:30 to -02:30
		{"Asia/Kathmandu", "2026-03-29"},     // +05:45, and no change
		{"Africa/Cairo", "2026-04-24"},       // the day begins at 01:00
		{"America/Santiago", "2026-04-05"},   // 24:00 becomes 23:00
		{"America/Santiago", "2026-09-06"},   // the day begins at 01:00
		{"Atlantic/Azores", "2026-10-25"},    // 01:00 becomes 00:00
		{"Pacific/Apia", "2011-12-30"},       // there is no such day
		{"Antarctica/Troll", "2026-03-29"},   // by two hours
		{"Africa/Casablanca", "2026-02-15"},  // the other way round
		{"Pacific/Kiritimati", "2026-11-01"}, // +14:00
	} {
		for _, hours := range []string{"mon-sun 00:00-24:00", "mon-fri 09:00-17:00", "sat,sun 03:30-12:15", "thu-sat 00:00-08:00", "sun 16:00-24:00"} {
			cal := calendar(t, c.zone, hours)
			day, err := time.Parse(time.DateOnly, c.day)
			if err != nil {
				t.Fatal(err)
			}
			begin, end := day.Add(-36*time.Hour), day.Add(60*time.Hour)
			var counted time.Duration
			for at := begin; at.Before(end); at = at.Add(15 * time.Minute) {
				here := at.In(cal.Zone)
				clock := time.Duration(here.Hour())*time.Hour + time.Duration(here.Minute())*time.Minute
				if slices.Contains(cal.Days, here.Weekday()) && clock >= cal.From && clock < cal.To {
					counted += 15 * time.Minute
				}
			}
			if got := cal.Between(begin, end); got != counted {
				t.Errorf("%s, %s, around %s: %s, and the clocks show %s", c.zone, hours, c.day, got, counted)
			}
			for work := 20 * time.Minute; work <= counted; work += 95 * time.Minute {
				if done := cal.Add(begin, work); done.IsZero() || cal.Between(begin, done) != work {
					t.Errorf("%s, %s, around %s: %s of work is done %s, and that is %s", c.zone, hours, c.day, work, done, cal.Between(begin, done))
				}
			}
		}
	}
}

// TestCalendarAtAChange: a shift that begins or ends at a time that comes twice, or never.
func TestCalendarAtAChange(t *testing.T) {
	for _, c := range []struct {
		what, zone, hours, day string
		want                   time.Duration
	}{
		{"begins at a time that is skipped", "Europe/Berlin", "sun 02:30-10:00", "2026-03-29", 7 * time.Hour},
		{"ends at a time that is skipped", "Europe/Berlin", "sun 00:00-02:30", "2026-03-29", 2 * time.Hour},
		{"is skipped", "Europe/Berlin", "sun 02:10-02:50", "2026-03-29", 0},
		{"begins at a time that comes twice", "Europe/Berlin", "sun 02:30-10:00", "2026-10-25", 8*time.Hour + 30*time.Minute},
		{"ends at a time that comes twice", "Europe/Berlin", "sun 00:00-02:30", "2026-10-25", 3*time.Hour + 30*time.Minute},
		{"begins at a time that comes twice, by half an hour", "Australia/Lord_Howe", "sun 01:45-10:00", "2026-04-05", 8*time.Hour + 45*time.Minute},
		{"midnight is skipped", "America/Santiago", "sun 00:00-08:00", "2026-09-06", 7 * time.Hour},
		{"midnight comes twice", "Atlantic/Azores", "sat 16:00-24:00", "2026-10-24", 8 * time.Hour},
		{"the day is skipped", "Pacific/Apia", "fri 09:00-17:00", "2011-12-30", 0},
	} {
		day, err := time.Parse(time.DateOnly, c.day)
		if err != nil {
			t.Fatal(err)
		}
		if got := calendar(t, c.zone, c.hours).Between(day.Add(-36*time.Hour), day.Add(60*time.Hour)); got != c.want {
			t.Errorf("a shift that %s: %s, not %s", c.what, got, c.want)
		}
	}
}

// TestHoursInTwoWays: hours and days that people could read in two ways are refused.
func TestHoursInTwoWays(t *testing.T) {
	for s, why := range map[string]string{
		"mon-fri 9-17":                "two digits",
		"mon-fri 9:00-17:00":          "two digits",
		"mon-fri 09:00-05:00":         "ends before it begins",
		"mon-fri 22:00-06:00":         "within one day",
		"mon-fri 09:00-24:30":         "is not working hours",
		"mon-fri 09:60-17:00":         "is not working hours",
		"mon,mon 09:00-17:00":         "names mon twice",
		"mon-fri,wed 09:00-17:00":     "names wed twice",
		"monday,mon 09:00-17:00":      "names mon twice",
		"mon-mon 09:00-17:00":         "one day or a week",
		"mo-fr 09:00-17:00":           "is not working hours",
		"mon-fri 09:00-17:00 (lunch)": "two digits",
		"mon-fri 09:00":               "two digits",
	} {
		if days, from, to, err := parseHours(s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q is read as %v, %s to %s, and not refused because it %s: %v", s, days, from, to, why, err)
		}
	}
	for s, why := range map[string]string{"2026-12-26..2026-12-24": "ends before it begins", "24.12.2026": "is not a day", "2026-12-24..": "is not a day", "12-24": "is not a day"} {
		if span, err := parseSpan(s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q is read as %v: %v", s, span, err)
		}
	}
}
