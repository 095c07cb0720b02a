package drill

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/release"
)

// told is a drill that was run: both build servers died, and the release shipped.
func told(t testing.TB) *Report {
	t.Helper()
	dir := filepath.Join("testdata", "two-servers-lost")
	scenario, err := os.ReadFile(filepath.Join(dir, "scenario.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return toldAs(t, string(scenario), nil)
}

// toldAs is the same history under another scenario, with other records.
func toldAs(t testing.TB, scenario string, change func([]Record) []Record) *Report {
	t.Helper()
	p, err := Parse("scenario.yaml", []byte(scenario))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join("testdata", "two-servers-lost", "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := ReadHistory(data)
	if err != nil {
		t.Fatal(err)
	}
	h[0].Header.Scenario = p.Digest
	if change != nil {
		h = change(h)
	}
	r := &Report{Plan: p, History: h, Verdict: Judge(p, h), Sum: "sha256:0011"}
	r.Runs = []Past{Summary(p, h, r.Verdict)}
	return r
}

// hard is a report with all that a page may have to show: a rebuild within its limit
// and one that never came, limits that were missed, people away, text that is markup.
func hard(t testing.TB) *Report {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "two-servers-lost", "scenario.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s := string(data)
	for _, x := range [][2]string{
		{"why: it happened", "why: \"<script>document.title='owned'</script>\"\nissues_due: 14d\nframeworks:\n  - {control: \"SOC 2 A1.3\", how: \"recovery is tested\"}\n  - {control: \"ISO 22301 8.5 <img src=x onerror=alert(1)>\", how: \"exercised\"}\n" +
			"modelled:\n  - {what: \"how long legal takes\", distribution: \"1h..3h, evenly\", source: \"\\\"><svg onload=alert(1)>\"}"},
		{"detected: 5s, moved: 8s}\n    - {name: backup", "detected: 2s, moved: 8s}\n    - {name: backup"},
		{"invariants:", "  rebuilt:\n    - {host: second, within: 2s}\n    - {host: spare, within: 20s}\n    - {host: backup, within: 9m}\ninvariants:"},
		{"spends: 30m}", "spends: 30m, away: [T-5d..T-2d]}"},
	} {
		if !strings.Contains(s, x[0]) {
			t.Fatalf("the scenario has no %q", x[0])
		}
		s = strings.Replace(s, x[0], x[1], 1)
	}
	r := toldAs(t, s, func(h []Record) []Record {
		var list []Record
		for _, x := range h {
			switch x.Kind {
			case Cleaned:
				x.OK, x.Left = new(bool), []string{"mount /run/<b>trysail</b>"}
			case Happened:
				if _, ok := x.Event.Body.(release.Shipped); ok {
					list = append(list, Record{At: x.At, Clock: x.Clock, Kind: Happened, Name: "held", Event: &release.Event{Seq: x.Event.Seq, Time: x.Event.Time, Actor: "</td><script>1</script>", Type: "held", Body: release.Held{}}},
						Record{At: x.At, Clock: x.Clock, Kind: Warmed, Host: "second", Took: 3 * time.Second})
				}
			}
			list = append(list, x)
		}
		for i := range list {
			list[i].Seq = int64(i + 1)
		}
		return list
	})
	last, took := r.Runs[0], 7.5
	for i, s := range []Past{
		{Verdict: Pass, Recovery: &took, Limit: 8, Of: "primary-dies moved", Tool: "trysail 0.9"},
		{Verdict: Fail, Never: true, Sentence: "Not as you expect: <script>alert(2)</script>"},
	} {
		s.Run, s.Scenario, s.Began = last.Run+string(rune('a'+i)), last.Scenario, last.Began.Add(time.Duration(i-3)*24*time.Hour)
		r.Runs = append(r.Runs, s)
	}
	Sort(r.Runs)
	return r
}

// odd are histories of drills that went wrong early.
func odd(t testing.TB) map[string]*Report {
	t.Helper()
	list := map[string]*Report{}
	data, err := os.ReadFile(filepath.Join("testdata", "two-servers-lost", "scenario.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]Record) []Record{
		"only-begun": func(h []Record) []Record { return h[:1] },
		"no-faults":  func(h []Record) []Record { return h[:20] },
		"torn":       func(h []Record) []Record { return h[:34] }, // a fault was injected, and nothing more is known
		"no-events": func(h []Record) []Record {
			var list []Record
			for _, r := range h {
				if r.Event == nil {
					list = append(list, r)
				}
			}
			return list
		},
		"bare": func(h []Record) []Record {
			return []Record{{Seq: 1, Kind: Began, Header: &Header{}}, {Seq: 2, Kind: "unheard-of"}, {Seq: 3, Kind: Happened}, {Seq: 4, Kind: Told}, {Seq: 5, Kind: Probed, Name: "x"}}
		},
	} {
		list[name] = toldAs(t, string(data), change)
	}
	return list
}

func page1(t testing.TB, r *Report) string {
	t.Helper()
	data, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPageSaysWhatAuditorsAsk(t *testing.T) {
	r := hard(t)
	text := page1(t, r)
	for _, want := range []string{
		"two-servers-lost-20261125-233653", "SOC 2 A1.3", r.Plan.Digest, "sha256:0011", // identity
		"what to fix first", "release team", "2026-12-09", // owner, and 14 days after the drill
		"no production failover", "9.1 days of idle calendar", "how long these people take to answer", "rebuilt servers on primary, backup, spare, second", // fidelity
		"T-5d..T-2d", "asked 1 time(s)", // roles
		"primary-dies detected", "within 2 s", "spare rebuilt", "never", // objectives against results
		"held", "(by ", // deviations
		"1 thing(s) are left", "for good, as declared", // clean-up
		"The run before is", "What was wrong then", // trend
		"it was acknowledged: event", "its undo is on disk",
	} {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(text, `<tr><td class="n">`); n != len(hard(t).History) {
		t.Errorf("the whole record has %d lines, and the history %d", n, len(hard(t).History))
	}
	if strings.Index(text, `id="verdict"`) > strings.Index(text, `id="timeline"`) || strings.Index(text, `id="timeline"`) > strings.Index(text, "What to fix first") {
		t.Error("the verdict is not first, or the picture not before what to fix")
	}
}

// Whoever writes a scenario, a runbook or a reason does not write the page.
func TestPageIsNoMarkupOfOthers(t *testing.T) {
	text := page1(t, hard(t))
	for _, bad := range []string{"<script", "<img", "onerror=\"", "<svg onload", "<b>trysail", "javascript:", "http:", "https:", "url("} {
		if strings.Contains(strings.ToLower(text), bad) {
			t.Errorf("the page has %q in it", bad)
		}
	}
	if !strings.Contains(text, "&lt;script&gt;document.title") {
		t.Error("the hostile text is not there as text")
	}
	if strings.Contains(hard(t).Markdown(), "<script") {
		t.Error("the Markdown has markup in it")
	}
}

func TestOddHistoriesHaveAPage(t *testing.T) {
	list := odd(t)
	list["nothing"] = &Report{Plan: list["bare"].Plan, Verdict: list["bare"].Verdict}
	for name, r := range list {
		if text := page1(t, r); !strings.Contains(text, "</html>") || strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Errorf("%s: the page is not whole, or has numbers that are none", name)
		}
		if name != "nothing" && r.Markdown() == "" {
			t.Errorf("%s: no Markdown", name)
		}
		if r.Verdict.Value == Pass {
			t.Errorf("%s: the verdict is pass", name)
		}
	}
}

// The same history gives the same bytes: a report can be made again and compared.
func TestPageIsReproducible(t *testing.T) {
	if a, b := page1(t, hard(t)), page1(t, hard(t)); a != b {
		t.Error("two pages of one history differ")
	}
}

func TestIssues(t *testing.T) {
	r := hard(t)
	list := Issues(r.Plan, r.History, r.Verdict)
	if len(list) < 4 || list[0].Owner != "release team" || list[0].Due != "2026-12-09" || list[0].ID != "two-servers-lost-20261125-233653/1" {
		t.Errorf("%+v", list)
	}
	for i, x := range list {
		if i > 0 && x.Severity == Fail && list[i-1].Severity != Fail {
			t.Errorf("issue %d is worse than the one before", i)
		}
	}
	if list := Issues(told(t).Plan, told(t).History, told(t).Verdict); len(list) != 0 {
		t.Errorf("a drill that passed has issues: %+v", list)
	}
	for _, bad := range []string{"soon", "0s", "-1d"} {
		data, err := os.ReadFile(filepath.Join("testdata", "two-servers-lost", "scenario.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("x", append(bytes.TrimSpace(data), "\nissues_due: "+bad+"\n"...)); err == nil {
			t.Errorf("issues_due %s was taken", bad)
		}
	}
}

func TestSummaryAndTrend(t *testing.T) {
	r := told(t)
	s := Summary(r.Plan, r.History, r.Verdict)
	if s.Recovery == nil || *s.Recovery < 4.1 || *s.Recovery > 4.2 || s.Limit != 8 || s.Of != "backup-dies moved" || s.Never || s.Verdict != Pass {
		t.Errorf("%+v", s)
	}
	never := hard(t)
	if s := Summary(never.Plan, never.History, never.Verdict); !s.Never || s.Recovery != nil {
		t.Errorf("spare was never rebuilt: %+v", s)
	}
	eight, one := 8.0, 1.0
	began := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	got := Trend([]Past{
		{Run: "c", Scenario: "x", Digest: "d", Began: began.Add(3 * time.Hour), Verdict: Fail, Never: true},
		{Run: "a", Scenario: "x", Digest: "d", Began: began, Verdict: Pass, Recovery: &one, Limit: 4, Of: "p moved"},
		{Run: "b", Scenario: "x", Digest: "d", Began: began.Add(time.Hour), Verdict: Fail, Recovery: &eight, Limit: 4, Of: "p moved"},
		Unread("y-20260102-030405", os.ErrNotExist),
	})
	want := "x  ▂█×  3 runs: 1 pass, 2 fail\n" +
		"  2026-01-02 03:04  pass     ███         │             1 s of 4 s  p moved\n" +
		"  2026-01-02 04:04  fail     ████████████████████████  8 s of 4 s  p moved\n" +
		"  2026-01-02 06:04  fail     ×                         never recovered\n" +
		"\ny  ·  1 run: 1 unknown\n" +
		"  2026-01-02 03:04  unknown  ·                         file does not exist\n"
	if got != want {
		t.Errorf("the trend is\n%s", got)
	}
	if Trend(nil) != "" {
		t.Error("no run has a trend")
	}
}

func TestTMinusIsRounded(t *testing.T) {
	p := &Plan{Ship: time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC)}
	for before, want := range map[time.Duration]string{
		7*24*time.Hour - time.Second: "T-7d00h", 24*time.Hour - time.Second: "T-1d00h", 23 * time.Hour: "T-23h00m", 61*time.Minute - time.Second: "T-1h01m",
		90 * time.Second: "T-1m30s", -2 * time.Hour: "T+2h00m", time.Hour - time.Millisecond: "T-1h00m",
	} {
		if got := TMinus(p, p.Ship.Add(-before)); got != want {
			t.Errorf("%s before: %s, not %s", before, got, want)
		}
	}
}
