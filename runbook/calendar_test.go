package runbook

import (
	"reflect"
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

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"45m": 45 * time.Minute, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "1w2d3h": 219 * time.Hour} {
		if d, err := ParseDuration(s); err != nil || d != want {
			t.Errorf("%s is %s (%v)", s, d, err)
		}
	}
	for _, s := range []string{"", "0", "0m", "-1h", "+1h", "1.5h", "1 h", "h", "2d1w", "99999999d", "9999999999999h", "1hd", "d"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("%q is taken for %s", s, d)
		}
	}
}
