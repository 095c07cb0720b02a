package drill

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"trysail/internal/strict"
)

// wholeScenario has each key of the format.
const wholeScenario = `drill: 1
name: two-servers-lost
hypothesis: both build servers die, and it ships
why: it happened
challenges: that the backup is there
owner: release team
frameworks:
- {control: SOC 2 A1.3, how: recovery is tested}
clock:
  ship: "2026-12-01T09:00:00Z"
  begins: T-10d
  mode: jump
release:
  version: "4.2"
  runbook: RELEASE.md
world:
  controls: 3
  hosts:
  - {name: primary, rank: primary, disk: 4GB}
  - {name: backup, rank: backup, disk: 512MB, plain: true}
  - {name: blank, rank: spare, disk: 4GB}
  services:
  - {name: mirror, kind: mirror, from: third}
  - {name: images, kind: registry, from: images}
  - {name: vcs, kind: git}
people:
- {name: ann, responds: 1h..3h, spends: 30m, away: [T-5d..T-2d]}
- {name: bob, live: true}
guards:
  down_at_once: 2
  within: 30m
steady: [control-answers, hosts-up, release-moves, depot-whole, ledger-copied, ledger-undoubted, services-answer, nothing-left]
method:
- {name: primary-dies, when: T-7d, fault: machine-lost, host: primary}
- {name: backup-hangs, when: gold running on backup, fault: machine-hung, host: backup, for: 30s}
- {name: bytes, when: gold done, fault: artifact-corrupted, host: blank, of: dist/app.gz}
- {name: again, when: blank rebuilding, fault: partition-in, host: blank, for: 10s}
- {name: short, when: after again, fault: disk-full, host: blank, for: 5m}
- {name: gone, when: T-1d, fault: partition, host: control3, for: 1d}
- {name: wrong, when: T-1d, fault: clock-skew, host: control2, of: -1h, for: 1h}
- {name: ann-gone, when: T-0, fault: person-away, of: ann, for: 2h}
- {name: readmit, when: after backup-hangs, do: fleet readmit backup}
expect:
  on_time: true
  on_budget: true
  gold: identical
  ships: true
  faults:
  - {name: primary-dies, detected: 5s, moved: 10s}
  - {name: backup-hangs, detected: 5s}
  rebuilt:
  - {host: blank, within: 5m}
invariants:
  always: [one-gold, rules-kept, acknowledged-kept]
  final: [shipped, gold-confirmed]
  reached: [moved, rebuilt, gold, readmit]
modelled:
- {what: answers, distribution: 1h..3h, source: the last releases}
report: [html, md, json]
issues_due: 14d
`

func TestParse(t *testing.T) {
	p, err := Parse("drill.yaml", []byte(wholeScenario))
	if err != nil {
		t.Fatal(err)
	}
	ship := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	if !p.Ship.Equal(ship) || !p.Begins.Equal(ship.AddDate(0, 0, -10)) || p.Within != 30*time.Minute || len(p.Timed) != len(p.Method) {
		t.Errorf("%+v", p)
	}
	want := []Timed{
		{When: When{At: ship.AddDate(0, 0, -7)}},
		{When: When{Item: "gold", Status: "running", Host: "backup"}, For: 30 * time.Second},
		{When: When{Item: "gold", Status: "done"}},
		{When: When{Host: "blank"}, For: 10 * time.Second},
		{When: When{After: "again"}, For: 5 * time.Minute},
		{When: When{At: ship.AddDate(0, 0, -1)}, For: 24 * time.Hour},
	}
	for i, w := range want {
		if !reflect.DeepEqual(p.Timed[i], w) {
			t.Errorf("%s: %+v, and not %+v", p.Method[i].Name, p.Timed[i], w)
		}
	}
	ann := Response{Least: time.Hour, Most: 3 * time.Hour, Spends: 30 * time.Minute, Away: []Span{{ship.AddDate(0, 0, -5), ship.AddDate(0, 0, -2)}}}
	if !reflect.DeepEqual(p.People["ann"], ann) || !p.People["bob"].Live {
		t.Errorf("%+v", p.People)
	}
	if fails := unlike(t, wholeScenario); fails != nil {
		t.Errorf("the schema refuses it: %v", fails)
	}
}

// A version that looks like a number is what stands there.
func TestVersion(t *testing.T) {
	p, err := Parse("drill.yaml", []byte(strings.Replace(wholeScenario, `version: "4.2"`, "version: 4.10", 1)))
	if err != nil || p.Release.Version != "4.10" {
		t.Errorf("%+v (%v)", p, err)
	}
}

// unlike says what the schema has against a scenario.
func unlike(t testing.TB, text string) error {
	t.Helper()
	var schema any
	if err := json.Unmarshal(Schema, &schema); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("drill.json", schema); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("drill.json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// sees tells whether a schema can see what is wrong.
type sees bool

const (
	structure sees = true  // the schema refuses it too
	meaning   sees = false // only who knows what names and times mean does
)

func TestRefused(t *testing.T) {
	for _, x := range []struct {
		name, old, new string // of the whole one
		at             string // what stands in the line that is named; "" if none is
		what           string
		sees           sees
	}{
		{"nothing", wholeScenario, "\n", "", "empty", structure},
		{"a torn end", "issues_due: 14d\n", "issues_due: 14d", "issues_due", "torn", meaning},
		{"a key that is not known", "owner:", "ownr:", "ownr", "ownr", structure},
		{"a key twice", "owner: release team\n", "owner: release team\nowner: me\n", "owner: me", "owner", meaning},
		{"a key of a host that is not known", "disk: 512MB, plain", "disk: 512MB, plane", "plane", "plane", structure},
		{"a key of an action that is not known", "host: blank, of:", "host: blank, off:", "off", "off", structure},
		{"a key of expect that is not known", "on_budget", "onbudget", "onbudget", "onbudget", structure},
		{"a reference", "owner: release team", "owner: &a release team", "&a", "anchors", meaning},
		{"another document", "report:", "---\nreport:", "---", "second YAML document", meaning},
		{"a list that is a word", "frameworks:\n- {control: SOC 2 A1.3, how: recovery is tested}", "frameworks: SOC", "SOC", "", structure},
		{"a number that is a word", "controls: 3", "controls: three", "three", "", structure},
		{"yes that is a word", "on_time: true", "on_time: perhaps", "perhaps", "", structure},
		{"a mapping that is a list", "guards:\n  down_at_once: 2\n  within: 30m", "guards: [2, 30m]", "[2", "", structure},

		{"another format", "drill: 1", "drill: 2", "drill: 2", "version 2", structure},
		{"no format", "drill: 1\n", "", "", "version 0", structure},
		{"no name", "name: two-servers-lost\n", "", "", "no name of a drill", structure},
		{"a name with a slash", "name: two-servers-lost", "name: two/servers", "two/servers", "no name of a drill", structure},
		{"no hypothesis", "hypothesis: both build servers die, and it ships\n", "", "", "without a hypothesis", structure},
		{"an empty hypothesis", "hypothesis: both build servers die, and it ships", `hypothesis: " "`, "hypothesis", "without a hypothesis", structure},
		{"no release", "release:\n  version: \"4.2\"\n  runbook: RELEASE.md\n", "", "", "no version or no runbook", structure},
		{"no runbook", "  runbook: RELEASE.md\n", "", "version", "no version or no runbook", structure},
		{"half a framework", ", how: recovery is tested", "", "SOC", "go together", structure},
		{"a report that nobody writes", "md, json]", "pdf]", "pdf", "no format of a report", structure},

		{"found, and to be mended at some time", "issues_due: 14d", "issues_due: soon", "soon", "how long there is to mend", structure},
		{"no clock", "clock:\n  ship: \"2026-12-01T09:00:00Z\"\n  begins: T-10d\n  mode: jump\n", "", "", "is not a time", structure},
		{"a date without a time", "2026-12-01T09:00:00Z", "2026-12-01", "2026-12-01", "names no zone", structure},
		{"a month that is none", "2026-12-01T", "2026-13-01T", "2026-13", "month out of range", meaning},
		{"it begins when it ships", "begins: T-10d", "begins: T-0", "T-0", "no time before the ship date", structure},
		{"it begins in minutes or months", "begins: T-10d", "begins: T-2m", "T-2m", "no time before the ship date", meaning},
		{"a scaled clock", "mode: jump", "mode: 60x", "60x", "not scaled", structure},

		{"two controls", "controls: 3", "controls: 2", "controls: 2", "2 controls", structure},
		{"a machine without what none is without", "plain: true}", "plain: true, without: kernel}", "kernel", "nothing that a machine can be without", structure},
		{"no hosts", "  - {name: primary, rank: primary, disk: 4GB}\n  - {name: backup, rank: backup, disk: 512MB, plain: true}\n  - {name: blank, rank: spare, disk: 4GB}\n", "", "hosts", "0 hosts", structure},
		{"a host without a name", "{name: blank, rank", "{rank", "rank: spare", "no name of a host", structure},
		{"a host in capitals", "{name: blank", "{name: Blank", "Blank", "no name of a host", structure},
		{"a host twice", "{name: blank", "{name: backup", "backup, rank: spare", "is taken", meaning},
		{"a host that is the drill's own", "{name: blank", "{name: desk", "{name: desk", "is taken", structure},
		{"a host that is control", "{name: blank", "{name: control-9", "control-9", "is taken", structure},
		{"a rank that is none", "rank: spare", "rank: third", "third", "no rank", structure},
		{"no rank", "{name: blank, rank: spare,", "{name: blank,", "blank", "no rank", structure},
		{"no disk", "rank: spare, disk: 4GB", "rank: spare", "spare", "no size of a disk", structure},
		{"a disk in bytes", "rank: spare, disk: 4GB", "rank: spare, disk: 4000000000", "4000000000", "no size of a disk", structure},
		{"a disk that is too small", "512MB", "255MB", "255MB", "no size of a disk", meaning},
		{"a service without a name", "{name: mirror, kind", "{kind", "from: third", "no name of a host", structure},
		{"a service that is a host", "{name: mirror, kind", "{name: backup, kind", "backup, kind", "is taken", meaning},
		{"a service that is control", "{name: mirror, kind", "{name: control2, kind", "control2, kind", "is taken", structure},
		{"a service of no kind", "kind: mirror", "kind: ftp", "kind: ftp", "no kind of service", structure},
		{"a mirror of nothing", "kind: mirror, from: third", "kind: mirror", "{name: mirror", "nothing that a mirror can give", structure},
		{"a registry of everything", "from: images", "from: /", "from: /", "nothing that a registry can give", meaning},
		{"a repository of something else", "kind: git", "kind: git, from: other", "from: other", "repository of the working copy", structure},
		{"two repositories", "{name: images, kind: registry, from: images}", "{name: images, kind: git}", "kind: git", "both images and vcs", meaning},
		{"a fault of a mirror on a machine", "machine-lost, host: primary", "mirror-slow, host: primary", "host: primary", "cannot happen to primary, a machine", meaning},
		{"a fault of a machine on a mirror", "machine-lost, host: primary", "out-of-memory, host: mirror", "host: mirror", "cannot happen to mirror, a mirror", meaning},
		{"a fault of a registry on a mirror", "machine-lost, host: primary", "tag-moved, of: base:1, host: mirror", "host: mirror", "cannot happen to mirror, a mirror", meaning},
		{"no guards", "guards:\n  down_at_once: 2\n  within: 30m\n", "", "", "no limit on what may be down", structure},
		{"a guard that lets nothing be down", "down_at_once: 2", "down_at_once: 0", "down_at_once", "no limit on what may be down", structure},
		{"a guard without an end", "  within: 30m\n", "", "down_at_once", "how long the drill may take", structure},
		{"a guard of no time", "within: 30m", "within: 0s", "within: 0s", "how long the drill may take", meaning},

		{"somebody twice", "{name: bob, live", "{name: ann, live", "ann, live", "ann", meaning},
		{"somebody without a name", "{name: bob, live", "{live", "live", `""`, structure},
		{"somebody who never answers", "{name: bob, live: true}", "{name: bob, spends: 1h}", "bob", "how long bob takes", structure},
		{"an answer before the question", "1h..3h, spends", "3h..1h, spends", "3h..1h", "how long ann takes", meaning},
		{"a decision of no length", "1h..3h, spends: 30m", "1h..3h", "ann", "what a decision takes ann", structure},
		{"a decision that gives time back", "spends: 30m", "spends: -30m", "-30m", "what a decision takes ann", meaning},
		{"away for ever", "away: [T-5d..T-2d]", "away: [T-5d]", "T-5d]", "when ann is away", structure},
		{"away backwards", "away: [T-5d..T-2d]", "away: [T-2d..T-5d]", "T-2d", "when ann is away", meaning},

		{"a question that nobody asks", "hosts-up, release", "host-up, release", "host-up", "is not asked", structure},
		{"an action without a name", "{name: primary-dies, when", "{when", "machine-lost", "no name of an action", structure},
		{"an action twice", "{name: again,", "{name: bytes,", "bytes, when: blank", "the name bytes is taken", meaning},
		{"an action that is called as what is reached", "{name: again,", "{name: rebuilt,", "rebuilt, when", "may name already", structure},
		{"no time", "when: T-7d, ", "", "primary-dies", "is no time", structure},
		{"a time before the beginning", "when: T-7d", "when: T-11d", "T-11d", "is no time", meaning},
		{"a status that is none", "when: gold done", "when: gold finished", "gold finished", "is no time", structure},
		{"after what is not known", "when: after again", "when: after nobody", "nobody", "is no time", meaning},
		{"after what comes later", "when: after again", "when: after readmit", "after readmit", "is no time", meaning},
		{"running on no host", "running on backup", "running on control", "on control", "is no time", meaning},
		{"done on a host", "when: gold done", "when: gold done on backup", "gold done", "is no time", structure},
		{"a control that rebuilds", "when: blank rebuilding", "when: control rebuilding", "control rebuilding", "is no time", meaning},
		{"a fault and something to do", "do: fleet", "fault: person-away, of: ann, do: fleet", "readmit", "neither a fault", structure},
		{"neither", ", do: fleet readmit backup", "", "readmit", "neither a fault", structure},
		{"something to do somewhere", "do: fleet readmit backup", "do: fleet readmit backup, host: backup", "host: backup", "and no fault", structure},
		{"any command", "do: fleet readmit backup", "do: rm -rf /", "rm -rf", "no command of trysail", structure},
		{"a command for another fleet", "do: fleet readmit backup", "do: fleet readmit backup --control link", "--control link", "which no scenario may use", meaning},
		{"half a command", "do: fleet readmit backup", "do: fleet", "do: fleet", "no command of trysail", structure},
		{"a fault that is none", "machine-lost", "machine-exploded", "machine-exploded", "is no fault", structure},
		{"a fault nowhere", "machine-lost, host: primary", "machine-lost", "machine-lost", "no host of this drill", structure},
		{"a fault on no host", "machine-lost, host: primary", "machine-lost, host: third", "third", "no host of this drill", meaning},
		{"a host that a fault has not", "fault: person-away", "fault: person-away, host: blank", "person-away", "not about a host", structure},
		{"a fault about nothing", ", of: dist/app.gz", "", "artifact-corrupted", "of is", structure},
		{"a fault about something", "machine-lost, host: primary", "machine-lost, host: primary, of: it", "machine-lost", "of is", structure},
		{"a fault that cannot end", "machine-lost, host: primary", "disk-dead, host: primary, for: 5s", "disk-dead", "cannot be undone", structure},
		{"a fault of no length", "host: backup, for: 30s", "host: backup, for: 0s", "for: 0s", "is no time", meaning},
		{"a fault of some length", "host: backup, for: 30s", "host: backup, for: long", "for: long", "is not a time", structure},
		{"a control that is not there", "host: control3", "host: control4", "control4", "no host of this drill", meaning},
		{"no third control", "controls: 3", "controls: 1", "control3", "no host of this drill", meaning},
		{"nobody is away", "of: ann, for: 2h", "of: eve, for: 2h", "eve", "is nobody of this drill", meaning},
		{"a clock that is right", "of: -1h", "of: 0s", "of: 0s", "how wrong a clock is", meaning},

		{"gold of another kind", "gold: identical", "gold: similar", "similar", "second build of gold", structure},
		{"it must not ship, and on time", "ships: true", "ships: false", "ships: false", "neither on time", structure},
		{"it must not ship, and ends so", "  on_time: true\n  on_budget: true\n  gold: identical\n  ships: true\n", "  ships: false\n", "shipped", "is to be otherwise", meaning},
		{"it must ship, and ends otherwise", "final: [shipped", "final: [not-shipped", "not-shipped", "is to be otherwise", meaning},
		{"a limit on no fault", "name: backup-hangs, detected", "name: readmit, detected", "readmit, detected", "no fault of this drill", meaning},
		{"a limit on nothing", "{name: backup-hangs, detected: 5s}", "{name: backup-hangs}", "{name: backup-hangs}", "is limited", structure},
		{"a limit where nothing is seen", "name: backup-hangs, detected", "name: gone, detected", "gone, detected", "nothing shows when", meaning},
		{"a limit that is no time", "moved: 10s", "moved: soon", "soon", "is not a time", structure},
		{"a limit of no time", "detected: 5s, moved", "detected: 0s, moved", "detected: 0s", "is no time", meaning},
		{"rebuilt on no host", "{host: blank, within", "{host: third, within", "third", "no host of this drill", meaning},
		{"rebuilt within no time", "within: 5m", "within: 0s", "within: 0s", "is no time", meaning},
		{"rebuilt at some time", "{host: blank, within: 5m}", "{host: blank}", "{host: blank}", "is not a time", structure},
		{"always something that is not watched", "[one-gold,", "[no-bugs,", "no-bugs", "is not watched", structure},
		{"in the end something that is not watched", "shipped, gold-confirmed", "shipped, gold-shiny", "gold-shiny", "is not watched", structure},
		{"reached twice", "gold, readmit]", "gold, gold]", "gold, gold]", "stands twice", structure},
		{"reached, and never is", "gold, readmit]", "gold, nothing]", "nothing]", "is never reached", meaning},
		{"half a model", ", source: the last releases", "", "answers", "go together", structure},
	} {
		t.Run(x.name, func(t *testing.T) {
			if !strings.Contains(wholeScenario, x.old) {
				t.Fatalf("the whole one has no %q", x.old)
			}
			text := strings.Replace(wholeScenario, x.old, x.new, 1)
			p, err := Parse("drill.yaml", []byte(text))
			var e *strict.Error
			if !errors.As(err, &e) || p != nil {
				t.Fatalf("read as %+v (%v)", p, err)
			}
			if e.File != "drill.yaml" || e.Hint() == "" || !strings.Contains(e.What, x.what) {
				t.Errorf("%v (%s)", err, e.Hint())
			}
			lines := strings.Split(text, "\n")
			if x.at != "" && (e.Line < 1 || e.Line > len(lines) || !strings.Contains(lines[e.Line-1], x.at)) {
				t.Errorf("%v: line %d does not hold %q", e, e.Line, x.at)
			}
			if x.name == "a torn end" || x.what == "anchors" || x.what == "second YAML document" || x.what == "owner" {
				return // of the text, and not of what it says
			}
			if err := unlike(t, text); (err != nil) != bool(x.sees) {
				t.Errorf("the schema refuses it: %v", err)
			}
		})
	}
}

// A fault of a disk that another fault has destroyed for certain is refused; where it may
// come before, it is not.
func TestDisksThatAreGone(t *testing.T) {
	gone := "- {name: wiped, when: T-5d, fault: disk-destroyed, host: blank}\n"
	for _, x := range []struct {
		name, before, after string
		refused             bool
	}{
		{"later", gone, "- {name: it, when: T-4d, fault: disk-dead, host: blank}\n", true},
		{"later, and written before", "- {name: it, when: T-4d, fault: disk-full, host: blank}\n", gone, true},
		{"at that time, and written after", gone, "- {name: it, when: T-5d, fault: read-only, host: blank}\n", true},
		{"at that time, and written before", "- {name: it, when: T-5d, fault: read-only, host: blank}\n", gone, false},
		{"earlier", gone, "- {name: it, when: T-6d, fault: disk-dead, host: blank}\n", false},
		{"after it", gone, "- {name: it, when: after wiped, fault: artifact-corrupted, host: blank, of: x}\n", true},
		{"after what comes after it", gone, "- {name: then, when: after wiped, do: fleet retire blank}\n- {name: it, when: after then, fault: inodes-gone, host: blank}\n", true},
		{"after what comes later", gone, "- {name: then, when: T-4d, do: fleet retire blank}\n- {name: it, when: after then, fault: ledger-rolled-back, host: blank}\n", true},
		{"after something else", gone, "- {name: it, when: after primary-dies, fault: disk-full, host: blank}\n", false},
		{"when something runs", gone, "- {name: it, when: gold running, fault: disk-full, host: blank}\n", false},
		{"another machine's", gone, "- {name: it, when: T-4d, fault: disk-full, host: backup}\n", false},
		{"none of the disk", gone, "- {name: it, when: T-4d, fault: partition, host: blank}\n", false},
		{"after one at no certain time", "- {name: wiped, when: gold done, fault: disk-destroyed, host: blank}\n", "- {name: it, when: T-0, fault: disk-full, host: blank}\n", false},
	} {
		text := strings.Replace(wholeScenario, "expect:\n", x.before+x.after+"expect:\n", 1)
		_, err := Parse("drill.yaml", []byte(text))
		if !x.refused {
			if err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
			continue
		}
		var e *strict.Error
		if !errors.As(err, &e) || !strings.Contains(e.What, "it comes after wiped, and blank has no disk then") || e.Hint() == "" {
			t.Errorf("%s: %v", x.name, err)
		} else if line := strings.Split(text, "\n")[e.Line-1]; !strings.Contains(line, "name: it,") {
			t.Errorf("%s: line %d: %s", x.name, e.Line, line)
		}
	}
}

// What the parser accepts, the schema does not refuse.
func TestSchemaLetsThrough(t *testing.T) {
	for _, x := range [][2]string{
		{"gold: identical", "gold: equivalent"},
		{"begins: T-10d", "begins: T-240h"},
		{"begins: T-10d", "begins: T-1w3d"},
		{"09:00:00Z", "09:00:00+02:00"},
		{"when: T-7d", "when: compile ready"},
		{"when: T-7d", "when: gold confirming"},
		{"when: T-7d", "when: gold stopped"},
		{"of: -1h", "of: 90m"},
		{"responds: 1h..3h", "responds: 2d"},
		{"for: 30s", "for: 1h30m5s"},
		{"report: [html, md, json]\n", ""},
		{"do: fleet readmit backup", "do: control recover blank"},
		{"{name: bob, live: true}", "{name: bob, live: false, responds: 1h, spends: 0s}"},
		{"controls: 3", "controls: 1"},
	} {
		text := strings.Replace(wholeScenario, x[0], x[1], 1)
		if x[1] == "controls: 1" {
			text = strings.NewReplacer("host: control2", "host: control", "host: control3", "host: control").Replace(text)
		}
		if _, err := Parse("drill.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", x[1], err)
		}
		if err := unlike(t, text); err != nil {
			t.Errorf("%s: the schema refuses it: %v", x[1], err)
		}
	}
	if err := unlike(t, rehearsal); err != nil {
		t.Error(err)
	}
}

// The schema has the keys of the types, and the names of the program.
func TestSchemaIsComplete(t *testing.T) {
	type node struct {
		Description string           `json:"description"`
		Properties  map[string]*node `json:"properties"`
		Items       *node            `json:"items"`
		Additional  *bool            `json:"additionalProperties"`
		Enum        []any            `json:"enum"`
		OneOf       []struct {
			Const       string `json:"const"`
			Description string `json:"description"`
		} `json:"oneOf"`
	}
	var root node
	if err := json.Unmarshal(Schema, &root); err != nil {
		t.Fatal(err)
	}
	var compare func(at string, typ reflect.Type, n *node)
	compare = func(at string, typ reflect.Type, n *node) {
		for typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() == reflect.Slice {
			if n.Items == nil {
				t.Errorf("%s is a list", at)
				return
			}
			compare(at+"[]", typ.Elem(), n.Items)
			return
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		if n.Additional == nil || *n.Additional {
			t.Errorf("%s: other keys are let through", at)
		}
		if len(n.Properties) != typ.NumField() {
			t.Errorf("%s has %d keys, and the type %d", at, len(n.Properties), typ.NumField())
		}
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("yaml")
			if n.Properties[key] == nil {
				t.Errorf("%s.%s is not in the schema", at, key)
				continue
			}
			if n.Properties[key].Description == "" {
				t.Errorf("%s.%s is not described", at, key)
			}
			compare(at+"."+key, typ.Field(i).Type, n.Properties[key])
		}
	}
	compare("", reflect.TypeFor[Scenario](), &root)
	for i, f := range root.Properties["method"].Items.Properties["fault"].OneOf {
		if k := Faults()[i]; f.Const != string(k.Fault) || f.Description != k.What {
			t.Errorf("fault %s: %s", f.Const, f.Description)
		}
	}
	if n := len(root.Properties["method"].Items.Properties["fault"].OneOf); n != len(Faults()) {
		t.Errorf("%d faults", n)
	}
	enum := func(n *node) []string {
		var list []string
		for _, x := range n.Enum {
			list = append(list, x.(string))
		}
		return list
	}
	var questions []string
	for _, q := range Questions() {
		questions = append(questions, string(q))
	}
	in := root.Properties["invariants"].Properties
	for name, pair := range map[string][2][]string{
		"always": {enum(in["always"].Items), Always()}, "final": {enum(in["final"].Items), Final()}, "steady": {enum(root.Properties["steady"].Items), questions},
	} {
		slices.Sort(pair[0])
		slices.Sort(pair[1])
		if !slices.Equal(pair[0], pair[1]) {
			t.Errorf("%s: %v, and not %v", name, pair[0], pair[1])
		}
	}
}

// Each fault is accepted with what it needs, where it can happen, and refused
// otherwise; by the schema too, as far as it sees it.
func TestFaultsNeedWhatTheySay(t *testing.T) {
	hosts := map[OfHosts]string{Machine: "blank", Mirror: "mirror", Registry: "images", Git: "vcs"}
	for _, k := range Faults() {
		line := func(host string, of, lasts bool) string {
			s := "- {name: it, when: T-7d, fault: " + string(k.Fault)
			if host != "" {
				s += ", host: " + host
			}
			if of {
				s += ", of: " + map[bool]string{true: "1h", false: "ann"}[k.Fault == "clock-skew"]
			}
			if lasts {
				s += ", for: 5s"
			}
			return s + "}\n"
		}
		host, other := "", "blank"
		if k.On != nil {
			host, other = hosts[k.On[0]], ""
		}
		type try struct {
			line         string
			good, schema bool
		}
		list := []try{
			{line(host, k.Of, k.Undone), true, true},
			{line(host, k.Of, false), true, true},
			{line(other, k.Of, false), false, false},
			{line(host, !k.Of, false), false, false},
			{line(host, k.Of, true), k.Undone, k.Undone},
		}
		if k.On != nil {
			for of, at := range hosts {
				list = append(list, try{line(at, k.Of, false), slices.Contains(k.On, of), true})
			}
		}
		for _, x := range list {
			text := strings.Replace(wholeScenario, "- {name: primary-dies", x.line+"- {name: primary-dies", 1)
			_, err := Parse("drill.yaml", []byte(text))
			fails := unlike(t, text)
			if (err == nil) != x.good || (fails == nil) != x.schema {
				t.Errorf("%s: %v; the schema: %v", x.line, err, fails)
			}
		}
	}
}

// What is accepted reads the same again, and is understood the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(wholeScenario))
	f.Add([]byte(rehearsal))
	for line := range strings.Lines(wholeScenario) {
		f.Add([]byte(strings.Replace(wholeScenario, line, "", 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data)
		if err != nil {
			var e *strict.Error
			if !errors.As(err, &e) || e.Hint() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if len(p.Timed) != len(p.Method) || !p.Begins.Before(p.Ship) || p.Within <= 0 {
			t.Fatalf("%+v", p)
		}
		for i, w := range p.Timed {
			if (w.When == When{}) || !w.When.At.IsZero() && w.When.At.Before(p.Begins) {
				t.Fatalf("%s is never due: %+v", p.Method[i].Name, w)
			}
		}
		text, err := yaml.Marshal(p.Scenario)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("again", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		again.Digest, again.file, again.data = p.Digest, p.file, p.data
		if more, err := yaml.Marshal(again.Scenario); err != nil || string(more) != string(text) || !reflect.DeepEqual(again.Timed, p.Timed) || !reflect.DeepEqual(again.People, p.People) {
			t.Fatalf("%v\n%s\nand again\n%s", err, text, more)
		}
		if v := Judge(p, nil); v.Value != Unknown {
			t.Fatalf("%+v", v)
		}
	})
}
