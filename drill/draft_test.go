package drill

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"trysail/internal/strict"
	"trysail/runbook"
)

const process = `---
release: "4.2"
ship: 2026-12-01T09:00:00Z
budget: 16 person-hours
roles:
  build: {blueprint: trysail}
people:
  ann: {}
  bob: {}
  eve: {}
groups:
  both: [ann, bob]
approvers: [ann, eve]
---
# Release

## Build

` + "```sh {\"name\":\"compile\",\"out\":\"obj/**\"}\nmake\n```\n\n```sh {\"name\":\"suite\",\"needs\":\"compile\",\"results\":\"results/*.xml\"}\nmake check\n```\n" + `
## Gold master

` + "```sh {\"name\":\"gold\",\"needs\":\"suite\",\"out\":\"dist/app\",\"gold\":\"true\"}\nmake dist\n```\n" + `
## Due diligence

- [ ] **tried** (@bob, budget 90m, needs gold): installed and tried
- [ ] **licences** (2 of @both, budget 2h): reviewed
`

func draft(t *testing.T, text string) Draft {
	t.Helper()
	r, err := runbook.Parse("RELEASE.md", []byte(text), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	return Draft{Name: "two-servers-lost", Version: "4.2", Runbook: "RELEASE.md", Ship: r.Ship, Book: r}
}

// Whatever the runbook, what is drafted can be read, fits it, and is what the schema
// describes.
func TestDraft(t *testing.T) {
	for _, x := range []struct {
		name, old, new string
		want, not      []string
	}{
		{"all", "", "", []string{
			`when: "suite running"`, "on_budget: true", `name: "ann", responds: 1h..3h, spends: 2h}`, `name: "bob", responds: 1h..3h, spends: 2h}`,
			`name: "eve", responds: 1h..3h, spends: 30m}`, "detected: 5s, moved: 10s", ", rebuilt]",
		}, []string{"plain"}},
		{"no test", "```sh {\"name\":\"suite\",\"needs\":\"compile\",\"results\":\"results/*.xml\"}\nmake check\n```\n", "", []string{`when: "compile running"`}, []string{"suite"}},
		{"gold alone", strings.Join(regexp.MustCompile("(?s)```sh.*?```\n").FindAllString(process, 2), "\n"), "", []string{`when: "gold running on primary"`, "primary-dies, detected: 5s, moved: 10s}"}, []string{"suite", "compile"}},
		{"no test by name", `"results":"results/*.xml"`, `"budget":"5m"`, []string{`when: "compile running"`}, nil},
		{"no budget", "budget: 16 person-hours\n", "", nil, []string{"on_budget"}},
		{"plain", "{blueprint: trysail}", "{plain: true}", []string{"plain: true"}, []string{"rebuilt"}},
		{"nobody signs", "\n- [ ] **tried** (@bob, budget 90m, needs gold): installed and tried\n- [ ] **licences** (2 of @both, budget 2h): reviewed\n", "", []string{"ann"}, []string{"bob"}},
	} {
		text := process
		if x.old != "" {
			text = strings.ReplaceAll(text, x.old, x.new)
			if x.name == "no test" {
				text = strings.Replace(text, `"needs":"suite"`, `"needs":"compile"`, 1)
			}
			if x.name == "gold alone" {
				text = strings.Replace(text, `"needs":"suite",`, "", 1)
			}
			if text == process {
				t.Fatalf("%s: nothing is replaced", x.name)
			}
		}
		d := draft(t, text)
		data, err := d.Text()
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		p, err := Parse("first.yaml", data)
		if err == nil {
			err = p.Against(d.Book)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", x.name, err, data)
		}
		if err := unlike(t, string(data)); err != nil {
			t.Errorf("%s: the schema refuses it: %v", x.name, err)
		}
		for _, w := range x.want {
			if !strings.Contains(string(data), w) {
				t.Errorf("%s lacks %q:\n%s", x.name, w, data)
			}
		}
		for _, w := range x.not {
			if strings.Contains(string(data), w) {
				t.Errorf("%s has %q:\n%s", x.name, w, data)
			}
		}
	}
	var none *NoGoldError
	if _, err := draft(t, strings.Replace(process, `,"gold":"true"`, "", 1)).Text(); !errors.As(err, &none) || none.Hint() == "" {
		t.Errorf("no gold: %v", err)
	}
}

// A scenario that is about another runbook is refused, with the line that is.
func TestAgainst(t *testing.T) {
	d := draft(t, process)
	data, err := d.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ old, new, at, what string }{
		{`when: "suite running"`, `when: "tests running"`, "tests running", `waits for "tests"`},
		{"  - {name: \"bob\", responds: 1h..3h, spends: 2h}\n", "", "ann", "bob is to sign"},
	} {
		text := strings.Replace(string(data), x.old, x.new, 1)
		p, err := Parse("first.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var e *strict.Error
		if err := p.Against(d.Book); !errors.As(err, &e) || !strings.Contains(e.What, x.what) || e.Hint() == "" || !strings.Contains(strings.Split(text, "\n")[max(e.Line-1, 0)], x.at) {
			t.Errorf("%v", err)
		}
	}
}

// What is drafted fits each runbook: its roles, its phases, the machines that it needs, and a
// step that runs before gold.
func TestDraftFits(t *testing.T) {
	const front = "---\nrelease: \"2.0\"\nship: 2026-12-01T09:00:00Z\npeople:\n  ann: {}\n  bob: {}\n  cat: {}\ngroups:\n  qa: [ann, bob]\napprovers: [cat, ann]\n"
	step := func(name, more string) string {
		return "```sh {\"name\":\"" + name + "\"" + more + "}\nmake " + name + "\n```\n\n"
	}
	for _, x := range []struct {
		name, text string
		first      string // the step in which the primary dies
		want, not  []string
	}{
		{
			"two roles, and a test after gold",
			front + "roles:\n  build: {blueprint: trysail}\n  upload: {plain: true}\n---\n## Build\n\n" + step("compile", `,"role":"build","out":"obj/*"`) +
				"## Gold master\n\n" + step("gold", `,"role":"build","in":"obj/a","out":"dist/*","gold":"true"`) +
				"## Test\n\n" + step("smoke-test", `,"role":"build","needs":"gold","results":"r/*.xml"`) + "- [ ] **tried** (2 of @qa, budget 1h, needs smoke-test): it works\n\n" +
				"## Out\n\n" + step("upload", `,"kind":"publish","role":"upload","in":"dist/a"`),
			"compile",
			[]string{"while compile runs (Build), the backup dies with its disk while gold runs (Gold master)", "each serves build, upload", "disk: 4GB, plain: true}", ", rebuilt]", `{name: "bob"`, `{name: "cat"`},
			[]string{"smoke"},
		},
		{
			"nothing but gold, plain, and nobody who signs",
			front + "roles:\n  host: {plain: true}\n---\n## Make it: \"all\"\n\n" + step("image", `,"out":"*.img","gold":"true"`),
			"image on primary",
			[]string{"each serves host", "plain: true}"},
			[]string{"rebuilt", "bob"},
		},
		{
			"many steps at a time, two waits, and a test of which gold knows nothing",
			front + "roles:\n  build: {blueprint: trysail}\nbudget: 20 person-hours\nendgame:\n  - {phase: Gold, freezes: [source], approvals: 1}\n---\n## Build\n\n" + step("lib", `,"out":"lib/*"`) + step("docs", `,"out":"doc/*"`) + step("app", `,"in":"lib/a","out":"app/*"`) +
				"## Checks\n\n" + step("lint-test", "") + step("unit", `,"needs":"app,docs","results":"r/*.xml"`) +
				"```yaml {\"name\":\"freeze\",\"kind\":\"wait\",\"needs\":\"unit\",\"until\":\"ship-7d\"}\nreason: frozen\n```\n\n" +
				"## Gold\n\n" + step("gold", `,"needs":"freeze","in":"app/a","out":"dist/*","gold":"true"`) + "- [ ] **legal** (@cat, budget 2h): licences\n",
			"unit",
			[]string{"while unit runs (Checks)", "on_budget: true", ", rebuilt]", `{name: "cat", responds: 1h..3h, spends: 2h}`},
			[]string{"lint", "plain"},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := draft(t, x.text)
			data, err := d.Text()
			if err != nil {
				t.Fatal(err)
			}
			p, err := Parse("first.yaml", data)
			if err == nil {
				err = p.Against(d.Book)
			}
			if err == nil {
				err = unlike(t, string(data))
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, data)
			}
			w := p.Timed[0].When
			if got := strings.TrimSuffix(w.Item+" on "+w.Host, " on "); got != x.first || w.Status != "running" {
				t.Errorf("the primary dies while %s is %s, and not %s", got, w.Status, x.first)
			}
			left := len(p.World.Hosts)
			for _, a := range p.Method {
				if a.Fault == "machine-lost" || a.Fault == "disk-destroyed" {
					left--
				}
			}
			if left < 2 {
				t.Errorf("%d machines are left, and gold is made on two", left)
			}
			for _, want := range x.want {
				if !strings.Contains(string(data), want) {
					t.Errorf("it lacks %q:\n%s", want, data)
				}
			}
			for _, not := range x.not {
				if strings.Contains(string(data), not) {
					t.Errorf("it has %q:\n%s", not, data)
				}
			}
		})
	}
}
