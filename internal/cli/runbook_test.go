package cli

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"trysail/blueprint"
)

const book = "---\n" +
	"release: \"4.2\"\n" +
	"ship: 2026-12-01T09:00:00Z\n" +
	"budget: 16 person-hours\n" +
	"roles:\n" +
	"  build: {blueprint: trysail}\n" +
	"  host: {plain: true}\n" +
	"people:\n" +
	"  ann: {}\n" +
	"  bob: {}\n" +
	"  eve: {}\n" +
	"groups:\n" +
	"  qa: [ann, bob, eve]\n" +
	"---\n" +
	"# Release\n" +
	"\n" +
	"## All\n" +
	"\n" +
	"```sh {\"name\":\"gold\",\"role\":\"build\",\"timeout\":\"1h\",\"budget\":\"10s\",\"out\":\"dist/**\",\"gold\":\"true\"}\n" +
	"make\n" +
	"```\n" +
	"\n" +
	"```sh {\"name\":\"try\",\"role\":\"host\",\"needs\":\"gold\",\"timeout\":\"1h\",\"budget\":\"90s\"}\n" +
	"make check\n" +
	"```\n" +
	"\n" +
	"```sh {\"name\":\"long\",\"role\":\"host\",\"needs\":\"try\",\"timeout\":\"3h\",\"budget\":\"2h\"}\n" +
	"make check\n" +
	"```\n" +
	"\n" +
	"- [ ] **tried** (2 of @qa, budget 30m, needs try): tried\n" +
	"\n" +
	"```yaml {\"name\":\"hold\",\"kind\":\"wait\",\"until\":\"ship\"}\n" +
	"reason: embargo lifts\n" +
	"```\n" +
	"\n" +
	"```yaml {\"name\":\"soon\",\"kind\":\"wait\",\"until\":\"ship-36h\"}\n" +
	"reason: others ship\n" +
	"```\n" +
	"\n" +
	"```yaml {\"name\":\"fixed\",\"kind\":\"wait\",\"until\":\"2026-11-30T08:00:00Z\"}\n" +
	"reason: the office opens\n" +
	"```\n"

// TestRunbookShow: times are in the one style for people.
func TestRunbookShow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RELEASE.md")
	if err := os.WriteFile(file, []byte(book), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := typed(t, "runbook", "show", file)
	if code != exitYes {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	got := strings.Join(lines, "\n") + "\n"
	for _, want := range []string{
		"gold step 10 s build, gold\n", "try step 90 s host (plain), needs gold\n", "long step 2 h host (plain), needs try\n", " 30 min 2 of @qa, needs try\n",
		"hold wait - until the ship date\n", "soon wait - until 36 h before the ship date\n", "fixed wait - until Mon 30 Nov 2026 08:00 UTC\n",
		"gold → try → long, 2 h\n", "\nMachines: 2 h. People: ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

// TestRunbookShowJSON: a program is told what people are, and docs/json.md names it.
func TestRunbookShowJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RELEASE.md")
	if err := os.WriteFile(file, []byte(book), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := typed(t, "--json", "runbook", "show", file)
	if code != exitYes {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	has := func(what string, got map[string]any, want string) {
		var w map[string]any
		if err := json.Unmarshal([]byte(want), &w); err != nil {
			t.Fatal(err)
		}
		for k, v := range w {
			if !reflect.DeepEqual(got[k], v) {
				t.Errorf("%s: %s is %v, not %v", what, k, got[k], v)
			}
		}
	}
	has("the release", got, `{"release": "4.2", "ship": "2026-12-01T09:00:00Z", "budget_seconds": 57600, "people_seconds": 3600}`)
	keys := map[string]any{}
	maps.Copy(keys, got)
	items := map[string]map[string]any{}
	for _, x := range got["items"].([]any) {
		item := x.(map[string]any)
		items[item["name"].(string)] = item
		maps.Copy(keys, item)
		if until, ok := item["until"].(map[string]any); ok {
			maps.Copy(keys, until)
		}
	}
	for name, want := range map[string]string{
		"gold":  `{"role": "build", "gold": true, "plain": null, "approvals": null, "until": null}`,
		"try":   `{"role": "host", "plain": true, "gold": null}`,
		"tried": `{"asked": ["qa"], "signers": ["ann", "bob", "eve"], "approvals": 2, "role": null, "until": null}`,
		"hold":  `{"until": {"at": "2026-12-01T09:00:00Z", "before_ship_seconds": 0}}`,
		"soon":  `{"until": {"at": "2026-11-29T21:00:00Z", "before_ship_seconds": 129600}}`,
		"fixed": `{"until": {"at": "2026-11-30T08:00:00Z"}}`,
	} {
		has(name, items[name], want)
	}
	docs, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, _ := strings.Cut(string(docs), "\n| `runbook show` |")
	row, _, _ = strings.Cut(row, "\n")
	for k := range keys {
		if !strings.Contains(row, "`"+k+"`") {
			t.Errorf("docs/json.md does not name %s of runbook show", k)
		}
	}
}

// TestRunbookInit: the blueprint is named from the repository's root, wherever in it
// the command is typed, and a release looks for it there.
func TestRunbookInit(t *testing.T) {
	above, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := blueprint.Blueprint{
		Trysail: blueprint.Version, Name: "app", Captured: time.Date(2026, 11, 3, 8, 30, 0, 0, time.UTC), Unobserved: true,
		Machine: blueprint.Machine{Distribution: "debian", Release: "12", Architecture: "amd64", Hostname: "build1", Identity: "sha256:" + strings.Repeat("a", 64)},
	}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(above, "repo")
	for _, dir := range []string{".git", "cmd/tool", "trysail", "servers/a b"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{root + "/trysail", root + "/servers/a b", above} {
		if err := os.WriteFile(filepath.Join(dir, "blueprint.yaml"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(root, filepath.Join(above, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ at, flag, want string }{
		{"repo", "", "trysail"},
		{"repo/trysail", "", "trysail"},
		{"repo/cmd/tool", "", "trysail"},
		{"repo/cmd", "../trysail", "trysail"},
		{"repo/cmd", "../servers/a b", "servers/a b"},
		{"repo", root + "/trysail/", "trysail"},
		{"link/cmd", above + "/link/trysail", "trysail"},
		{"repo", "..", ""},
		{"repo/cmd/tool", above, ""},
	} {
		t.Run(c.at+" "+c.flag, func(t *testing.T) {
			t.Chdir(filepath.Join(above, c.at))
			args := []string{"runbook", "init", filepath.Join(t.TempDir(), "RELEASE.md")}
			if c.flag != "" {
				args = append(args, "--blueprint", c.flag)
			}
			code, _, errs := typed(t, args...)
			if c.want == "" {
				if code != exitUsage || !strings.Contains(errs, "is not in the repository "+root) {
					t.Errorf("exit %d: %s", code, errs)
				}
				return
			}
			if code != exitYes {
				t.Fatalf("exit %d: %s", code, errs)
			}
			r, _, err := readRunbook(args[2])
			if err != nil || r.Role("build").Blueprint != c.want {
				t.Errorf("it names %+v: %v", r, err)
			}
		})
	}
}
