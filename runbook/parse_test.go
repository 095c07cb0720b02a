package runbook

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const good = "---\n" +
	"release: \"4.2\"\n" +
	"ship: 2026-12-01T09:00:00Z\n" +
	"budget: 16 person-hours\n" +
	"zone: Europe/Berlin\n" +
	"hours: mon-fri 09:00-17:00\n" +
	"holidays: [2026-12-24..2026-12-26]\n" +
	"roles:\n" +
	"  build: {blueprint: trysail}\n" +
	"people:\n" +
	"  ann: {name: Ann, email: ann@example.org, zone: Europe/Lisbon, hours: mon-thu 10:00-18:00, away: [2026-11-30]}\n" +
	"  bob: {}\n" +
	"groups:\n" +
	"  legal: [ann, bob]\n" +
	"approvers: [legal]\n" +
	"endgame:\n" +
	"  - {phase: Gold master, freezes: [source, runbook], approvals: 1}\n" +
	"---\n" +
	"# Release of the thing\n" +
	"\n" +
	"Some prose, and a block that is none of ours:\n" +
	"\n" +
	"```sh\n" +
	"echo prose\n" +
	"```\n" +
	"\n" +
	"## Build\n" +
	"\n" +
	"```sh {\"name\":\"compile\",\"timeout\":\"90m\",\"budget\":\"45m\",\"out\":\"obj/**\"}\n" +
	"make\n" +
	"```\n" +
	"\n" +
	"```bash {\"name\":\"test\",\"needs\":\"compile\",\"timeout\":\"20m\",\"budget\":\"10m\",\"results\":\"results/*.xml\",\"again\":\"machine\"}\n" +
	"make check\n" +
	"```\n" +
	"\n" +
	"## Gold master\n" +
	"\n" +
	"```sh {\"name\":\"gold\",\"needs\":\"build,licences\",\"timeout\":\"90m\",\"budget\":\"45m\",\"out\":\"dist/*.tar.gz\",\"retry\":\"1\",\"gold\":\"true\"}\n" +
	"make dist\n" +
	"```\n" +
	"\n" +
	"## Due diligence\n" +
	"\n" +
	"- [ ] **licences** (@legal, budget 2h): licence scan reviewed\n" +
	"- [ ] **tried** (2 of @legal, budget 90m, needs gold): installed\n" +
	"  and tried\n" +
	"- a plain item\n" +
	"\n" +
	"```yaml {\"name\":\"hold\",\"kind\":\"wait\",\"until\":\"ship-2d\"}\n" +
	"reason: embargo lifts\n" +
	"```\n" +
	"\n" +
	"## Ship\n" +
	"\n" +
	"```sh {\"name\":\"upload\",\"kind\":\"publish\",\"in\":\"dist/app.tar.gz\",\"needs\":\"hold\",\"timeout\":\"5m\",\"network\":\"true\"}\n" +
	"./upload dist/app.tar.gz\n" +
	"```\n"

func TestParse(t *testing.T) {
	r, err := Parse("RELEASE.md", []byte(good), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	if r.Title != "Release of the thing" || r.Release != "4.2" || r.Budget != 16*time.Hour || !r.Ship.Equal(time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)) {
		t.Errorf("front matter: %+v", r)
	}
	var names []string
	for _, x := range r.Items {
		names = append(names, x.Name)
	}
	if want := []string{"compile", "test", "gold", "licences", "tried", "hold", "upload"}; !slices.Equal(names, want) {
		t.Fatalf("items %q", names)
	}
	for _, c := range []struct {
		item string
		got  []string
		want []string
	}{
		{"gold", r.Item("gold").Needs, []string{"compile", "licences", "test"}},
		{"tried", r.Item("tried").Needs, []string{"gold"}},
		{"tried", r.Item("tried").Signers, []string{"ann", "bob"}},
		{"upload", r.Item("upload").Needs, []string{"gold", "hold", "licences", "tried"}},
		{"approvers", r.Approvers, []string{"ann", "bob"}},
		{"test", r.Item("test").Results, []string{"results/*.xml"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, not %q", c.item, c.got, c.want)
		}
	}
	gold, tried, hold := r.Item("gold"), r.Item("tried"), r.Item("hold")
	if gold.Script != "make dist\n" || gold.Role != "build" || !gold.Gold || gold.Retry != 1 || gold.Phase != "gold-master" {
		t.Errorf("gold %+v", gold)
	}
	if tried.Approvals != 2 || tried.Budget != 90*time.Minute || tried.Text != "installed and tried" || tried.Phase != "due-diligence" {
		t.Errorf("tried %+v", tried)
	}
	if hold.Kind != Wait || hold.Text != "embargo lifts" || !hold.Until.Time(r.Ship).Equal(r.Ship.Add(-48*time.Hour)) {
		t.Errorf("hold %+v", hold)
	}
	if line := strings.Count(good[:strings.Index(good, "**tried**")], "\n") + 1; tried.Line != line {
		t.Errorf("tried stands in line %d, not %d", line, tried.Line)
	}
	ann := r.Person("ann")
	if ann.Email != "ann@example.org" || ann.Hours.Zone.String() != "Europe/Lisbon" || ann.Hours.From != 10*time.Hour || len(ann.Hours.Days) != 4 || len(ann.Hours.Off) != 2 {
		t.Errorf("ann %+v", ann)
	}
}

// TestRelease: the version is what stands there, with or without quotation marks.
func TestRelease(t *testing.T) {
	for _, version := range []string{"4.10", "3.0", "010", "0x10", "1_0", "7", "1e3", "2026.11.26"} {
		r, err := Parse("RELEASE.md", []byte(strings.Replace(good, `release: "4.2"`, "release: "+version, 1)), time.LoadLocation)
		if err != nil || r.Release != version {
			t.Errorf("%s is read as %+v (%v)", version, r, err)
		}
	}
}

// TestPlan: the order, and the chain that takes longest.
func TestPlan(t *testing.T) {
	r, err := Parse("RELEASE.md", []byte(good), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	p := r.Plan() // of tried, two people work for its budget each
	want := [][]string{{"compile", "licences", "hold"}, {"test"}, {"gold"}, {"tried"}, {"upload"}}
	if !slices.EqualFunc(p.Waves, want, func(a, b []string) bool { return slices.Equal(a, b) }) {
		t.Errorf("waves %q", p.Waves)
	}
	if chain := []string{"licences", "gold", "tried", "upload"}; !slices.Equal(p.Critical, chain) || p.Length != 4*time.Hour+15*time.Minute {
		t.Errorf("critical %q, %s", p.Critical, p.Length)
	}
	if p.People != 5*time.Hour || p.Machines != 100*time.Minute {
		t.Errorf("people %s, machines %s", p.People, p.Machines)
	}
}

// TestRead: what looks like something that is refused, and reads one way.
func TestRead(t *testing.T) {
	for _, c := range []struct{ name, old, with string }{
		{"a block that shows steps", "echo prose\n```\n", "echo prose\n```\n\n````md\n```sh {\"name\":\"x\"}\n```\n````\n\n~~~\n```sh {\"name\":\"y\"}\n~~~\n"},
		{"a forge's own words", "```sh\necho", "```sh title=\"a file\"\necho"},
		{"a block of a step's name below it", "## Gold master\n", "```sh\ncompile\n```\n\n## Gold master\n"},
		{"an endgame that all approvers approve of, whoever else proposes", "approvers: [legal]", "approvers: [ann]"},
		{"people of all scripts", "Some prose", "👩‍💻 می\u200cخواهم – naïve"},
		{"a title of marks", "## Ship\n", "## #Ship! #\n"},
		{"a variable", "make check\n", "\"$CC\" -o a\n $CC -o b \\\n  c\n"},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("the sample does not hold %q", c.old)
		}
		if _, err := Parse("RELEASE.md", []byte(strings.Replace(good, c.old, c.with, 1)), time.LoadLocation); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestRefused: what one reader or another would pass over in silence. Each is
// named with its line and a remedy.
func TestRefused(t *testing.T) {
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the sample does not hold %q", old)
		}
		return strings.Replace(good, old, with, 1)
	}
	for _, c := range []struct {
		name, text, what string
		at               string // text of the line that is named; "" any
	}{
		{"empty", " \n", "empty", ""},
		{"torn", strings.TrimSuffix(good, "\n"), "torn", "```"},
		{"carriage return", swap("make dist\n", "make dist\r\n"), "carriage return", "make dist"},
		{"not UTF-8", swap("Some prose", "Some \xff prose"), "UTF-8", "Some"},
		{"direction", swap("make dist", "make \u202edist"), "invisible", "make"},
		{"a mark of direction", swap("make dist", "make \u200edist"), "invisible", "make"},
		{"the Arabic one", swap("make dist", "make \u061cdist"), "invisible", "make"},
		{"a soft hyphen", swap("make dist", "make dis\u00adt"), "invisible", "make"},
		{"a joiner of words", swap("make dist", "make \u2060dist"), "invisible", "make"},
		{"a tag", swap("make dist", "make \U000e0061dist"), "invisible", "make"},
		{"a control letter of a terminal", swap("make dist", "make \u009b2Jdist"), "control character U+009B", "make"},
		{"an escape in a value", swap(`"retry":"1"`, `"role":"build\u001b]0;x\u0007"`), `"build\x1b]0;x\a"`, `"gold"`},
		{"an escape in a key", swap(`"retry":"1"`, `"\u009bretry":"1"`), `key "\u009bretry"`, "retry"},
		{"an escape in the key of a number", swap(`"retry":"1"`, `"\u001b":1`), `key "\x1b"`, `"gold"`},
		{"a direction in a value", swap(`"retry":"1"`, `"in":"a\u202eb"`), `"a\u202eb"`, `"gold"`},
		{"an escape in the front matter", swap("name: Ann,", `name: "\e]0;x\a",`), "character U+001B", "ann:"},
		{"an escape in a name of the front matter", swap("  bob: {}", `  "\u202ebob": {}`), "character U+202E", "bob"},
		{"an escape in a key of the front matter", swap("zone: Europe/Berlin", `"\ezone": Europe/Berlin`), `\x1bzone`, "zone"},
		{"two lines in a value", swap("name: Ann,", `name: "Ann\nsays yes",`), "character U+000A", "ann:"},
		{"front matter open", strings.Replace(good, "---\n# Release", "# Release", 1), "never closed", "---"},
		{"unknown front key", swap("budget: 16", "budgets: 16"), "budgets", "budgets"},
		{"front key twice", swap("zone: Europe", "budget: 1 person-hours\nzone: Europe"), "already defined", "budget: 1"},
		{"anchor", swap("roles:\n", "roles: &a\n"), "anchors", "roles"},
		{"unknown zone", swap("zone: Europe/Berlin", "zone: Europe/Bielefeld"), "Bielefeld", "Bielefeld"},
		{"a zone that is another on each machine", swap("zone: Europe/Berlin", "zone: Local"), "Local", "zone: Local"},
		{"hours", swap("hours: mon-fri 09:00-17:00", "hours: nine to five"), "working hours", "nine"},
		{"a holiday backwards", swap("2026-12-24..2026-12-26", "2026-12-26..2026-12-24"), "ends before it begins", "holidays"},
		{"ship", swap("2026-12-01T09:00:00Z", "tomorrow"), "not a time", "tomorrow"},
		{"budget", swap("16 person-hours", "16 hours"), "not a time of people", "16 hours"},
		{"role without blueprint", swap("{blueprint: trysail}", "{}"), "no blueprint", "build: {}"},
		{"blueprint elsewhere", swap("{blueprint: trysail}", "{blueprint: ../x}"), "clean path", "../x"},
		{"group of strangers", swap("legal: [ann, bob]", "legal: [ann, eve]"), "eve", "legal"},
		{"group of nobody", swap("legal: [ann, bob]", "legal: []"), "group legal is empty", "legal"},
		{"group left open", swap("legal: [ann, bob]", "legal:"), "group legal is empty", "legal"},
		{"endgame that wants more than there are", swap("approvals: 1", "approvals: 3"), "no change could pass", "approvals: 3"},
		{"endgame that wants everybody", swap("approvals: 1", "approvals: 2"), "no change could pass", "approvals: 2"},
		{"endgame that wants somebody of none", swap("approvers: [legal]\n", ""), "no change could pass", "approvals: 1"},
		{"approver of strangers", swap("approvers: [legal]", "approvers: [eve]"), "eve", "approvers"},
		{"endgame phase", swap("phase: Gold master", "phase: Silver"), "no phase silver", ""},
		{"endgame thing", swap("[source, runbook]", "[weather]"), "weather", "weather"},

		{"brace in a value", swap(`"needs":"compile"`, `"needs":"compile","in":"{a,b}"`), "brace", "compile"},
		{"text after the object", swap(`"again":"machine"}`, `"again":"machine"} extra`), "Runme drops", "extra"},
		{"text far after the object", swap(`"again":"machine"}`, `"again":"machine"}`+strings.Repeat(" ", 2000)+"extra"), "Runme drops", "extra"},
		{"two objects", swap(`"again":"machine"}`, `"again":"machine"}{"role":"build"}`), "Runme drops", "machine"},
		{"a number", swap(`"retry":"1"`, `"retry":1`), "not a string", "retry"},
		{"nested", swap(`"retry":"1"`, `"retry":{"a":"b"}`), "not a string", "retry"},
		{"a key twice", swap(`"retry":"1"`, `"retry":"1","retry":"2"`), "stands twice", "retry"},
		{"object open", swap(`"gold":"true"}`, `"gold":"true"`), "not closed", "gold"},
		{"smart quotes", swap(`"gold":"true"`, `“gold”:"true"`), "JSON", "gold"},
		{"unknown key", swap(`"retry":"1"`, `"retries":"1"`), "retries is not known", "retries"},
		{"a key of another kind", swap(`"until":"ship-2d"`, `"until":"ship-2d","retry":"1"`), "a wait has no retry", "until"},
		{"no name", swap(`"name":"compile",`, ``), "no name", "90m"},
		{"capital name", swap(`"name":"compile"`, `"name":"COMPILE"`), "not usable", "COMPILE"},
		{"two of one name", swap(`"name":"test"`, `"name":"compile"`), "stands twice", `bash {"name":"compile"`},
		{"sign-off of a step's name", swap("**licences**", "**compile**"), "stands twice", "**compile**"},
		{"kind", swap(`"kind":"wait"`, `"kind":"pause"`), "pause", "pause"},
		{"language", swap("```bash {", "```fish {"), "fish", "fish"},
		{"empty step", swap("make check\n", ""), "empty", `"test"`},
		{"a wait as a script", swap("```yaml {", "```sh {"), "Runme would run it", "hold"},
		{"timeout", swap(`"timeout":"20m"`, `"timeout":"soon"`), "soon", "soon"},
		{"budget over timeout", swap(`"timeout":"20m"`, `"timeout":"5m"`), "stopped after", "5m"},
		{"fence open", strings.TrimSuffix(good, "```\n"), "never closed", "upload"},
		{"step in a list", swap("- a plain item\n", "- a plain item\n\n  ```sh {\"name\":\"x\"}\n  true\n  ```\n"), "found by some readers only", `"x"`},
		{"step in a quotation", swap("Some prose", "> ```sh {\"name\":\"x\"}\n> true\n> ```\n\nSome prose"), "found by some readers only", `"x"`},
		{"words before the attributes", swap("```bash {\"name\":\"test\"", "```bash title=\"Tests\" {\"name\":\"test\""), "from the first brace", "title"},
		{"no blank before the attributes", swap("```bash {", "```bash{"), "from the first brace", "bash{"},
		{"attributes in the place of the language", swap("```bash {", "```{"), "from the first brace", "```{"},
		{"a line that begins with a prompt", swap("make check\n", "set -x\n$CC -o dist/a a.c\n"), "takes for a prompt", "$CC"},
		{"a backslash and a blank", swap("make check\n", "make check \\ \n  fast\n"), "goes on in the next line", "make check"},
		{"a block of a step's name", swap("echo prose\n", "# first\nCOMPILE=\"a b\" make # all\n"), "Runme calls this block compile", "```sh"},
		{"two blocks of a step's name", strings.Replace(swap("echo prose\n", "make 2\n```\n\n> ```\n> make 2\n> ```\n\n    make 3\n\n```\nmake it\n"), `"compile"`, `"make-2-2"`, 1), "Runme calls this block make-2-2", "> ```"},
		{"an indented block of a step's name", swap("Some prose", "    compile\n\nSome prose"), "Runme calls this block compile", "    compile"},
		{"a block that is not ended", swap("echo prose\n```\n", "echo prose\n"), "a step begins inside the block", "compile"},
		{"a block without a language that is not ended", swap("```sh\necho prose\n```\n", "~~~\necho prose\n\n~~~~sh {\"name\":\"x\"}\ntrue\n~~~~\n"), "a step begins inside the block", "~~~~sh"},
		{"heading by dashes", swap("## Ship\n", "Ship\n----\n"), "makes it a heading", "Ship"},
		{"heading by dashes below a mark", swap("## Ship\n", "#Ship\n---\n"), "makes it a heading", "#Ship"},
		{"heading by dashes below seven marks", swap("## Ship\n", "####### Ship\n---\n"), "makes it a heading", "# Ship"},
		{"heading of nothing", swap("make check\n```\n", "##\nmake check\n```\n\n## ##\n"), "names no phase", "## ##"},
		{"anchor twice", swap("## Ship\n", "## Ship & go\n\n## Ship – go\n"), "stands twice", "– go"},
		{"phase twice", swap("## Ship\n", "## Build\n"), "phase build stands twice", "## Build"},
		{"before any phase", swap("## Build\n", ""), "stands in no phase", "compile"},

		{"ticked", swap("- [ ] **licences**", "- [x] **licences**"), "a tick in the document signs nothing", "licences"},
		{"a box without a blank", swap("- [ ] **licences**", "- [ ]**licences**"), "no checklist item to a forge", "licences"},
		{"checklist without name", swap("- [ ] **licences** (@legal, budget 2h)", "- [ ] licences"), "nobody is asked", "licences"},
		{"sign-off without people", swap("(@legal, budget 2h)", "(budget 2h)"), "asks nobody", "licences"},
		{"sign-off of strangers", swap("(@legal, budget 2h)", "(@eve, budget 2h)"), "eve", "licences"},
		{"a part that says nothing", swap("(@legal, budget 2h)", "(@legal, 2h)"), "says nothing", "licences"},
		{"more approvals than people", swap("(2 of @legal,", "(3 of @legal,"), "3 approvals of 2 people", "tried"},
		{"nested checklist", swap("- a plain item\n", "- a plain item\n  - [ ] **x** (@ann): y\n"), "found by some readers only", "**x**"},

		{"a paragraph below a sign-off", swap("  and tried\n", "  and tried\n\n  It installs on Debian.\n"), "is not signed", "Debian"},
		{"a list below a sign-off", swap("  and tried\n", "  and tried\n  - upgrade keeps the data\n"), "is not signed", "upgrade"},
		{"a quotation below a sign-off", swap("  and tried\n", "  and tried\n  > twice\n"), "is not signed", "twice"},
		{"a table below a sign-off", swap("  and tried\n", "  and tried\n\n  | on | by |\n  |---|---|\n  | Debian | ann |\n"), "is not signed", "| on"},
		{"code below a sign-off", swap("  and tried\n", "  and tried\n  ```\n  make\n  ```\n"), "inside a checklist item", "  ```"},
		{"indented code below a sign-off", swap("  and tried\n", "  and tried\n\n      make\n"), "is not signed", "      make"},

		{"needs nothing gives", swap(`"needs":"hold"`, `"needs":"holdd"`), "nothing gives", "upload"},
		{"needs an empty phase", strings.Replace(swap(`"needs":"hold"`, `"needs":"hold,notes"`), "## Ship\n", "## Notes\n\n## Ship\n", 1), "in which nothing is done", "upload"},
		{"circle", swap("(@legal, budget 2h)", "(@legal, budget 2h, needs gold)"), "circle", ""},
		{"in that no step makes", swap(`"in":"dist/app.tar.gz"`, `"in":"dist/app.zip"`), "an output no step makes", "app.zip"},
		{"out made twice", swap(`"results":"results/*.xml"`, `"out":"obj/**"`), "is made by compile and by test", `"test"`},
		{"in made by two", swap(`"results":"results/*.xml"`, `"out":"dist/app.*"`), "may come from", "upload"},
		{"path leaves", swap(`"out":"obj/**"`, `"out":"../obj"`), "below the workspace", "../obj"},
		{"two golds", swap(`"again":"machine"`, `"gold":"true","out":"x"`), "two golds", "gold"},
		{"gold makes nothing", swap(`"out":"dist/*.tar.gz",`, ``), "makes nothing", `"gold":"true"`},
		{"gold with tests", swap(`"gold":"true"`, `"gold":"true","results":"r.xml"`), "nobody can waive", `"gold":"true"`},
		{"gold with the network", swap(`"gold":"true"`, `"gold":"true","network":"true"`), "nobody could build it again", `"gold":"true"`},
		{"gold with a secret", swap(`"gold":"true"`, `"gold":"true","secrets":"TOKEN"`), "nobody could build it again", `"gold":"true"`},
		{"a secret's value", swap(`"network":"true"`, `"network":"true","secrets":"hunter2"`), "hunter2", "upload"},
		{"a person decides on a step", swap(`"again":"machine"`, `"lost":"ask"`), "a step has no lost", "test"},
		{"another network", swap(`"network":"true"`, `"network":"hosts"`), `"hosts" is not true, false or host`, "upload"},
		{"nobody decides", swap(`"network":"true"`, `"lost":"never"`), `"never" is not ask`, "upload"},
		{"a person decides, or it retries", swap(`"network":"true"`, `"lost":"ask","retry":"2"`), "a person is to decide", "upload"},
		{"publish what is not gold", swap(`"in":"dist/app.tar.gz"`, `"in":"obj/a.o"`), "not gold", "obj/a.o"},
		{"publish without gold", swap(`,"gold":"true"`, ``), "no step is gold", "upload"},
		{"wait after the ship date", swap(`"until":"ship-2d"`, `"until":"2027-01-01T00:00:00Z"`), "ends after the release ships", "2027"},
		{"no role", swap("  build: {blueprint: trysail}\n", "  build: {blueprint: trysail}\n  other: {plain: true}\n"), "step compile says no role", "compile"},
		{"unknown role", swap(`"retry":"1"`, `"role":"smelter"`), "smelter", "smelter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Parse("RELEASE.md", []byte(c.text), time.LoadLocation)
			var list Errors
			if !errors.As(err, &list) || r != nil {
				t.Fatalf("read as %+v (%v)", r, err)
			}
			var hit bool
			if strings.ContainsFunc(strings.ReplaceAll(err.Error(), "\n", " "), unseen) {
				t.Errorf("%q would be obeyed by a terminal", err)
			}
			for _, e := range list {
				if e.Remedy == "" || e.File != "RELEASE.md" {
					t.Errorf("%v: no remedy", e)
				}
				if !strings.Contains(e.What, c.what) {
					continue
				}
				hit = true
				if c.at == "" {
					continue
				}
				lines := strings.Split(c.text, "\n")
				if e.Line < 1 || e.Line > len(lines) || !strings.Contains(lines[e.Line-1], c.at) {
					t.Errorf("%v: line %d does not hold %q", e, e.Line, c.at)
				}
			}
			if !hit {
				t.Errorf("no error says %q: %v", c.what, err)
			}
		})
	}
}

// TestPhases: a phase is needed by its slug or by its heading's anchor on GitHub.
func TestPhases(t *testing.T) {
	for title, names := range map[string][]string{
		"Check": {"check"}, "Check & try": {"check--try"}, "Check it: all": {"check-it-all"}, "check_it": {"check_it", "check-it"},
		"Prüfung – 2. Teil": {"prüfung--2-teil", "prüfung-–-2-teil"}, "Check 🚀": {"check-", "check-🚀"}, "C++/Go": {"cgo"},
	} {
		for _, name := range names {
			for _, swap := range [][2]string{{`"needs":"hold"`, `"needs":"hold,` + name + `"`}, {"needs gold)", "needs gold " + name + ")"}} {
				text := strings.Replace(good, swap[0], swap[1], 1) + "\n## " + title + "\n\n- [ ] **checked** (@ann): it is\n"
				r, err := Parse("RELEASE.md", []byte(text), time.LoadLocation)
				if err != nil || !slices.Contains(r.Item("upload").Needs, "checked") {
					t.Errorf("%s for %q: %v", name, title, err)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	for _, line := range strings.SplitAfter(good, "\n") {
		f.Add([]byte(strings.Replace(good, line, "", 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse("f", data, time.LoadLocation)
		if err != nil {
			var list Errors
			if !errors.As(err, &list) || len(list) == 0 || list.Hint() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		p := r.Plan()
		n := 0
		for _, w := range p.Waves {
			n += len(w)
		}
		if n != len(r.Items) {
			t.Fatalf("%d of %d items are in the plan", n, len(r.Items))
		}
	})
}
