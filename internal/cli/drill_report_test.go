package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trysail/drill"
)

// ran is a state directory in which a drill was run.
func ran(t *testing.T) (state, run string) {
	t.Helper()
	state, run = t.TempDir(), "two-servers-lost-20261125-233653"
	again(t, state, run, func(b []byte) []byte { return b })
	return state, run
}

func again(t *testing.T, state, run string, change func(history []byte) []byte) {
	t.Helper()
	dir := filepath.Join(state, "drills", run)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"scenario.yaml", "history.jsonl"} {
		data, err := os.ReadFile(filepath.Join("../../drill/testdata/two-servers-lost", f))
		if err != nil {
			t.Fatal(err)
		}
		if f == "history.jsonl" {
			data = change(data)
		}
		if err := os.WriteFile(filepath.Join(dir, f), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func typed(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), args, 0o022, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestDrillReport(t *testing.T) {
	state, run := ran(t)
	later := strings.Replace(run, "1125", "1126", 1)
	again(t, state, later, func(b []byte) []byte {
		return bytes.Replace(bytes.Replace(b, []byte(run), []byte(later), 1), []byte("2026-11-25T23"), []byte("2026-11-26T23"), 1)
	})
	again(t, state, "two-servers-lost-20261127-000000", func([]byte) []byte { return []byte(`{"seq":1`) }) // killed at once
	code, out, errs := typed(t, "--state", state, "drill", "report", later)
	dir := filepath.Join(state, "drills", later)
	if code != exitYes || !strings.Contains(out, "Report: "+filepath.Join(dir, "report.html")) {
		t.Fatalf("%d\n%s%s", code, out, errs)
	}
	for file, want := range map[string]string{
		"report.html": "The run before is " + run, "report.md": "The run before is " + run, "verdict.json": `"run": "` + run,
	} {
		if data, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s does not say %q: %v", file, want, err)
		}
	}
	code, out, _ = typed(t, "--state", state, "--json", "drill", "report", run)
	var v judged
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitYes || v.Previous != nil || v.Run != run || !strings.HasPrefix(v.History, "sha256:") || v.Issues == nil {
		t.Errorf("%d %v\n%s", code, err, out)
	}
	code, out, _ = typed(t, "--state", state, "drill", "trend", "two-servers-lost")
	if code != exitYes || !strings.HasPrefix(out, "two-servers-lost  ▅▅·  3 runs: 2 pass, 1 unknown\n") || strings.Count(out, "4.1 s of 8 s") != 2 {
		t.Errorf("%d\n%s", code, out)
	}
	code, out, _ = typed(t, "--state", state, "--json", "drill", "trend")
	var list []drill.Past
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != exitYes || len(list) != 3 || list[0].Run != run || list[2].Verdict != drill.Unknown {
		t.Errorf("%d %v\n%s", code, err, out)
	}
	if code, _, errs := typed(t, "--state", state, "drill", "trend", "other"); code != exitFailed || !strings.Contains(errs, "→") {
		t.Errorf("%d %s", code, errs)
	}
	if code, out, _ := typed(t, "--state", t.TempDir(), "drill", "trend"); code != exitYes || !strings.Contains(out, "trysail drill run") {
		t.Errorf("%d %s", code, out)
	}
}

// A run is not judged by a scenario that it did not run.
func TestDrillReportOfAnotherScenario(t *testing.T) {
	state, run := ran(t)
	file := filepath.Join(state, "drills", run, "scenario.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(data, []byte("detected: 5s"), []byte("detected: 9s"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := typed(t, "--state", state, "drill", "report", run); code != exitFailed || !strings.Contains(errs, "not the one that its history is of") {
		t.Errorf("%d %s", code, errs)
	}
}

// What stands in the names and files of runs moves nothing on a terminal.
func TestDrillListIsPlain(t *testing.T) {
	state := t.TempDir()
	if err := os.MkdirAll(filepath.Join(state, "drills", "evil\x1b[2J"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"list", "trend"} {
		if code, out, errs := typed(t, "--state", state, "drill", what); code != exitYes || !strings.Contains(out, "evil�[2J") || strings.Contains(out, "\x1b") {
			t.Errorf("%s: %d %q %s", what, code, out, errs)
		}
	}
}

func TestDrillReportsThatAreAskedFor(t *testing.T) {
	state, run := ran(t)
	a := &app{state: state, stdout: io.Discard, stderr: io.Discard}
	_, p, h, err := a.readRun(run)
	if err != nil {
		t.Fatal(err)
	}
	p.Report = []string{"md", "json"}
	dir := t.TempDir()
	files, err := writeReports(dir, &drill.Report{Plan: p, History: h, Verdict: drill.Judge(p, h)}, judged{})
	if err != nil || len(files) != 2 {
		t.Errorf("%v %v", files, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "report.html")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the page was not asked for: %v", err)
	}
}

// workingCopy is a directory of a name that shells, cron and systemd stumble over.
func workingCopy(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `it's 5% "$HOME"`)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	scenario, err := os.ReadFile("../../drill/testdata/two-servers-lost/scenario.yaml")
	if err != nil {
		t.Fatal(err)
	}
	book := "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n# Release\n\n## Build\n\n" +
		"```sh {\"name\":\"suite\",\"timeout\":\"1m\",\"budget\":\"10s\",\"out\":\"a\"}\ntrue\n```\n\n" +
		"```sh {\"name\":\"gold\",\"timeout\":\"1m\",\"budget\":\"10s\",\"in\":\"a\",\"out\":\"b\",\"gold\":\"true\"}\ntrue\n```\n\n- [ ] **tried** (@ann, budget 1h, needs gold): tried\n"
	for name, text := range map[string]string{"drill.yaml": string(scenario), "RELEASE.md": book, "notify.yaml": "webhooks: [{url: \"http://127.0.0.1:1/\"}]\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	return dir
}

func TestDrillSchedule(t *testing.T) {
	dir := workingCopy(t)
	state := filepath.Join(dir, "state")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := typed(t, "--state", "state", "drill", "schedule", "drill.yaml", "--day", "sat", "--at", "23:05", "--notify", "notify.yaml")
	if code != exitYes {
		t.Fatalf("%d %s", code, errs)
	}
	// What cron gives to the shell must say what was meant.
	line := strings.Split(strings.TrimSpace(out), "\n")[2]
	command, ok := strings.CutPrefix(line, "05 23 * * 6 root cd ")
	if !ok || strings.Contains(strings.ReplaceAll(line, `\%`, ""), "%") {
		t.Fatalf("%s", out)
	}
	command = strings.ReplaceAll(strings.Replace(command, " && ", " ", 1), `\%`, "%")
	words, err := exec.Command("sh", "-c", "printf '%s\\n' "+command).Output()
	want := strings.Join([]string{dir, program, "--state", state, "drill", "run", "--notify", filepath.Join(dir, "notify.yaml"), "drill.yaml"}, "\n") + "\n"
	if err != nil || string(words) != want {
		t.Errorf("%v: the shell reads\n%s", err, words)
	}
	into := t.TempDir()
	if code, _, errs := typed(t, "--state", "state", "drill", "schedule", "drill.yaml", "--systemd", "--into", into); code != exitYes || !strings.Contains(errs, "systemctl") {
		t.Fatalf("%d %s", code, errs)
	}
	service, err := os.ReadFile(filepath.Join(into, "trysail-drill-two-servers-lost.service"))
	quoted := strings.NewReplacer("%", "%%", "$", "$$", `"`, `\"`).Replace(state)
	if err != nil || !strings.Contains(string(service), `--state "`+quoted+`" drill run drill.yaml`) || !strings.Contains(string(service), "WorkingDirectory="+strings.ReplaceAll(dir, "%", "%%")+"\n") {
		t.Errorf("%v\n%s", err, service)
	}
	timer, err := os.ReadFile(filepath.Join(into, "trysail-drill-two-servers-lost.timer"))
	if err != nil || !strings.Contains(string(timer), "OnCalendar=Mon *-*-* 03:00:00\nPersistent=true\n") {
		t.Errorf("%v\n%s", err, timer)
	}
	for _, bad := range [][]string{{"--day", "monday"}, {"--at", "24:00"}, {"--at", "3:00"}, {"--into", filepath.Join(into, "none")}} {
		if code, _, errs := typed(t, append([]string{"--state", "state", "drill", "schedule", "drill.yaml"}, bad...)...); code != exitUsage {
			t.Errorf("%v: %d %s", bad, code, errs)
		}
	}
}

// Whoever is to know in the morning is told of a drill that could not even begin.
func TestDrillTellsItsVerdict(t *testing.T) {
	workingCopy(t)
	var got []map[string]any
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e map[string]any
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		if got = append(got, e); len(got) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable) // and so it is tried again
		}
	}))
	defer hook.Close()
	if err := os.WriteFile("notify.yaml", []byte("webhooks: [{url: \""+hook.URL+"\", kinds: [drill-judged]}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := typed(t, "--state", "state", "drill", "run", "--notify", "notify.yaml", "none.yaml"); code != exitFailed || !strings.Contains(errs, "none.yaml") {
		t.Errorf("%d %s", code, errs)
	}
	if len(got) != 2 || got[1]["type"] != "trysail.drill-judged" || got[0]["id"] != got[1]["id"] || !strings.HasPrefix(got[1]["source"].(string), "/trysail/drills/none.yaml-") {
		t.Fatalf("%v", got)
	}
	if data := got[1]["data"].(map[string]any); data["verdict"] != "unknown" || !strings.Contains(data["what"].(string), "could not be run") {
		t.Errorf("%v", data)
	}
}

func TestDrillThatCannotTell(t *testing.T) {
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }))
	defer hook.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "notify.yaml")
	if err := os.WriteFile(file, []byte("webhooks: [{url: \""+hook.URL+"\"}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	code := Run(context.Background(), []string{"--state", dir, "drill", "run", "--notify", file, filepath.Join(dir, "none.yaml")}, 0o022, strings.NewReader(""), io.Discard, &errs)
	if code != exitFailed || !strings.Contains(errs.String(), "the verdict was not told") || !strings.Contains(errs.String(), "410") {
		t.Errorf("%d %s", code, errs.String())
	}
}
