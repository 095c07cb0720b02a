package runbook

import (
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"45m": 45 * time.Minute, "90m": 90 * time.Minute, "90min": 90 * time.Minute, "1h30m": 90 * time.Minute, "1h0m0s": time.Hour, "30s": 30 * time.Second,
		"2d": 2 * day, "1w2d3h": 219 * time.Hour, "36h": 36 * time.Hour, "1d12h": 36 * time.Hour, "400d": 400 * day,
	} {
		if d, err := ParseDuration(s); err != nil || d != want {
			t.Errorf("%s is %s (%v)", s, d, err)
		}
	}
	for s, why := range map[string]string{
		"": "is not a time", "0": "has no unit", "90": "has no unit: write 90s, 90m, 90h or 90d", "0m": "no time at all", "-1h": "is not a time", "+1h": "is not a time",
		"1.5h": "has a fraction", "1.5d": "has a fraction", "1,5h": "has a fraction", "1 h": "is not a time", "h": "is not a time", "2d1w": "the largest first",
		"1h60m": "60 minutes after a larger unit", "1h90m": "after a larger unit", "1m60s": "60 seconds", "1d24h": "24 hours", "1w7d": "7 days",
		"1h1h": "each once", "1M": "is not a time", "1mo": "is not a time", "1y": "is not a time", "1H": "is not a time", "010m": "begins with 0",
		"1hd": "is not a time", "d": "is not a time", "500ms": "is not a time", "1e3s": "is not a time", "0x10m": "is not a time",
		"99999999d": "is not a time", "999999d": "more than ten years", "520w20d": "20 days after a larger unit",
	} {
		if d, err := ParseDuration(s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q is taken for %s, and not refused with %q: %v", s, d, why, err)
		}
	}
	if d, err := ParseDelay("0s"); err != nil || d != 0 {
		t.Errorf("a delay of 0s is %s (%v)", d, err)
	}
}

// TestParsePeriod: where people think in months, few minutes are not written as m.
func TestParsePeriod(t *testing.T) {
	for s, want := range map[string]time.Duration{"15min": 15 * time.Minute, "90m": 90 * time.Minute, "1h1m": 61 * time.Minute, "30d": 30 * 24 * time.Hour} {
		if d, err := ParsePeriod(s); err != nil || d != want {
			t.Errorf("%s is %s (%v)", s, d, err)
		}
	}
	for _, s := range []string{"1m", "3m", "12m", "59m"} {
		if d, err := ParsePeriod(s); err == nil || !strings.Contains(err.Error(), "minutes or months: write "+s+"in,") {
			t.Errorf("%q is taken for %s: %v", s, d, err)
		}
	}
}

func TestParsePersonHours(t *testing.T) {
	for s, want := range map[string]time.Duration{"16 person-hours": 16 * time.Hour, "1.5 person-hours": 90 * time.Minute, "0.25 person-hours": 15 * time.Minute} {
		if d, err := ParsePersonHours(s); err != nil || d != want {
			t.Errorf("%s is %s (%v)", s, d, err)
		}
	}
	for _, s := range []string{"16", "16h", "16 hours", "1h30 person-hours", "0x10 person-hours", "1m16 person-hours", "1e3 person-hours", "1.500 person-hours", "1,5 person-hours", "016 person-hours", "0 person-hours", "-1 person-hours", "100001 person-hours", "2 person-days"} {
		if d, err := ParsePersonHours(s); err == nil {
			t.Errorf("%q is taken for %s", s, d)
		}
	}
}

func TestParseTime(t *testing.T) {
	if at, err := ParseTime("2026-12-01T10:00:00+01:00"); err != nil || !at.Equal(time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)) {
		t.Errorf("%s, %v", at, err)
	}
	for s, why := range map[string]string{
		"2026-12-01T09:00:00": "names no zone", "2026-12-01 09:00": "names no zone", "2026-12-01": "names no zone", "2026-10-25T02:30:00": "names no zone",
		"2026-12-01T9:00:00Z": "is not a time", "2026-12-01T09:00:00-00:00": "is not a time", "2026-12-01T09:00:00 CET": "is not a time", "01.12.2026": "is not a time",
		"2026-12-01T09:00:00.5Z": "is not a time", "2026-02-30T09:00:00Z": "is not a time", "2026-12-01T24:00:00Z": "is not a time",
	} {
		if at, err := ParseTime(s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q is read as %s, and not refused because it %s: %v", s, at, why, err)
		}
	}
}

// TestOtherOffset: summer time in winter is a slip, another zone's time is none.
func TestOtherOffset(t *testing.T) {
	for _, c := range []struct {
		at, zone string
		wrong    bool
	}{
		{"2026-12-01T09:00:00+01:00", "Europe/Berlin", false},
		{"2026-12-01T09:00:00+02:00", "Europe/Berlin", true},
		{"2026-07-01T09:00:00+01:00", "Europe/Berlin", true},
		{"2026-12-01T09:00:00Z", "Europe/London", false},
		{"2026-07-01T09:00:00Z", "Europe/London", false},
		{"2026-12-01T09:00:00-05:00", "Europe/Berlin", false},
		{"2026-01-05T09:00:00+10:30", "Australia/Lord_Howe", true},
		{"2026-07-05T09:00:00+10:30", "Australia/Lord_Howe", false},
		{"2026-12-01T09:00:00+05:45", "Asia/Kathmandu", false},
	} {
		at, err := ParseTime(c.at)
		if err != nil {
			t.Fatal(err)
		}
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		if err := OtherOffset(at, zone); (err != nil) != c.wrong {
			t.Errorf("%s in %s: %v", c.at, c.zone, err)
		}
	}
}

// TestQuantitiesOfARunbook: each quantity of a document goes through these parsers.
func TestQuantitiesOfARunbook(t *testing.T) {
	good := "---\nship: 2026-12-01T09:00:00+01:00\nbudget: 16 person-hours\nzone: Europe/Berlin\nhours: mon-fri 09:00-17:00\nholidays: [2026-11-23]\nroles:\n  build: {blueprint: trysail}\npeople:\n  ann: {away: [2026-11-24..2026-11-25]}\n  bob: {}\napprovers: [ann, bob]\n---\n" +
		"## Build\n\n```yaml {\"name\":\"quiet\",\"kind\":\"wait\",\"until\":\"ship-2d\"}\nreason: the code is frozen\n```\n\n```sh {\"name\":\"gold\",\"timeout\":\"90m\",\"budget\":\"45m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake\n```\n\n- [ ] **go** (@ann, budget 2h, needs gold): it may ship\n"
	if _, err := Parse("R.md", []byte(good), time.LoadLocation); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, bad, why string }{
		{"2026-12-01T09:00:00+01:00", "2026-12-01T09:00:00", "names no zone"},
		{"2026-12-01T09:00:00+01:00", "2026-12-01T09:00:00+02:00", "they are at +01:00"},
		{"16 person-hours", "1h30 person-hours", "is not a time of people"},
		{"mon-fri 09:00-17:00", "mon-fri 9-17", "two digits"},
		{"mon-fri 09:00-17:00", "mon,mon 09:00-17:00", "names mon twice"},
		{"2026-11-23", "2025-11-23", "is over long before the ship date"},
		{"2026-11-24..2026-11-25", "2026-11-25..2026-11-24", "ends before it begins"},
		{"2026-11-24..2026-11-25", "2024-11-24..2024-11-25", "is over long before the ship date"},
		{"ship-2d", "ship-2m", "minutes or months"},
		{"ship-2d", "2026-11-29T09:00:00", "names no zone"},
		{"90m", "90", "has no unit"},
		{"45m", "0h45m60s", "60 seconds after a larger unit"},
		{"budget 2h", "budget 1.5h", "has a fraction"},
	} {
		_, err := Parse("R.md", []byte(strings.Replace(good, c.old, c.bad, 1)), time.LoadLocation)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s instead of %s: %v", c.bad, c.old, err)
		}
	}
}
