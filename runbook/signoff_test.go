package runbook

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// signed is a runbook with one sign-off as it is written.
func signed(item string) string {
	return "---\nroles:\n  build: {plain: true}\npeople:\n  ann: {name: Ann A, email: ann@example.org}\n  bob: {name: Bob B}\n  eve: {}\ngroups:\n  qa: [ann, bob]\n  legal: [bob, eve]\napprovers: [ann]\n---\n" +
		"## Build\n\n```sh {\"name\":\"gold\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake\n```\n\n## Sign\n\n" + item + "\n"
}

// TestQuotas: how many approvals are asked of whom is read in one way, or refused.
func TestQuotas(t *testing.T) {
	for _, c := range []struct{ asks, quotas, why string }{
		{"@ann, @legal", "1", ""},
		{"2 of @qa", "2", ""},
		{"2 of @qa, 1 of @legal", "3 = 2 qa [ann bob] 1 legal [bob eve]", ""},
		{"1 of @legal, budget 1h, 1 of @qa, needs gold", "2 = 1 legal [bob eve] 1 qa [ann bob]", ""},
		{"1 of @ann, 1 of @eve", "2 = 1 ann [ann] 1 eve [eve]", ""},
		{"2 of @qa, @legal", "", "names others without a number"},
		{"@eve, 2 of @qa", "", "names others without a number"},
		{"2 of @qa, 2 of @qa", "", "asks @qa twice"},
		{"@ann, @ann", "", "asks @ann twice"},
		{"@ann, budget 1h, budget 2h", "", "says budget twice"},
		{"@ann, needs gold, needs gold", "", "says needs twice"},
		{"3 of @qa", "", "wants 3 approvals of 2 people"},
		{"2 of @ann", "", "wants 2 approvals of 1 people"},
		{"2 of @qa, 2 of @legal", "", "wants 4 approvals of 3 people"},
		{"1 of @bob, 2 of @qa", "", "wants 3 approvals of 2 people"},
	} {
		r, err := Parse("RELEASE.md", []byte(signed("- [ ] **tried** ("+c.asks+"): tried")), time.LoadLocation)
		if c.why != "" {
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("(%s) is not refused for %q: %v", c.asks, c.why, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("(%s): %v", c.asks, err)
			continue
		}
		x := r.Item("tried")
		got := fmt.Sprint(x.Approvals)
		for i, q := range x.Quotas {
			got += map[bool]string{true: " =", false: ""}[i == 0] + fmt.Sprintf(" %d %s %v", q.Approvals, q.Who, q.Of)
		}
		if got != c.quotas {
			t.Errorf("(%s): %s, not %s", c.asks, got, c.quotas)
		}
	}
}

// TestBoxes: what a reader takes for a sign-off is one, or is refused with its line.
func TestBoxes(t *testing.T) {
	const rest = "**tried** (@bob, needs gold): tried"
	for _, c := range []struct {
		what, text string
		is         bool
	}{
		{"a star", "* [ ] " + rest, true},
		{"a plus", "+ [ ] " + rest, true},
		{"a number", "1. [ ] " + rest, true},
		{"a tab", "-\t[ ] " + rest, true},
		{"an escaped box", `- \[ \] ` + rest, false},
		{"half of it escaped", `- \[ ] ` + rest, false},
		{"escaped twice", `- \\[ \\] ` + rest, false},
		{"an escaped tick", `- \[x\] ` + rest, false},
		{"two blanks", "- [  ] " + rest, false},
		{"no blank", "- [] " + rest, false},
		{"a no-break space", "- [\u00a0] " + rest, false},
		{"a thin space", "- [\u2009] " + rest, false},
		{"a ballot box", "- ☐ " + rest, false},
		{"a ballot box, ticked", "- ☑ " + rest, false},
		{"no box", "- " + rest, false},
		{"no box, and not bold", "- tried (@bob, needs gold): tried", false},
		{"no box, another bold", "- __tried__ (2 of @qa): tried", false},
		{"no list", "[ ] " + rest, false},
		{"a bold paragraph", rest, false},
		{"another bullet", "• [ ] " + rest, false},
		{"HTML around it", "<div>\n- [ ] " + rest + "\n</div>", false},
		{"a table", "| what |\n|---|\n| [ ] " + rest + " |", false},
		{"indented", "text\n\n    - [ ] " + rest, false},
		{"a quotation", "> - [ ] " + rest, false},
		{"below an item", "- all\n  - [ ] " + rest, false},
	} {
		r, err := Parse("RELEASE.md", []byte(signed(c.text)), time.LoadLocation)
		switch {
		case c.is && (err != nil || r.Item("tried") == nil):
			t.Errorf("%s: %v", c.what, err)
		case !c.is && err == nil:
			t.Errorf("%s is read, with a sign-off: %v", c.what, r.Item("tried") != nil)
		case !c.is:
			lines := strings.Split(signed(c.text), "\n")
			if n := err.(Errors)[0].Line; n < 1 || n > len(lines) || !strings.Contains(lines[n-1], "tried") && !strings.Contains(lines[n-1], "- all") {
				t.Errorf("%s: line %d does not hold it: %v", c.what, n, err)
			}
		}
	}
	for _, prose := range []string{
		"- see [the list](https://example.org): all of it", "- **tried** (by hand): tried", "- **Support** (mail ann@example.org): answers",
		"<!--\n- [ ] " + rest + "\n-->", "````md\n- [ ] " + rest + "\n````", "- a plain item: (see above)", "[1]: https://example.org",
	} {
		if _, err := Parse("RELEASE.md", []byte(signed(prose)), time.LoadLocation); err != nil {
			t.Errorf("%q is refused: %v", prose, err)
		}
	}
}

// TestSaidTwice: what is repeated, or contradicts another word, is refused.
func TestSaidTwice(t *testing.T) {
	for _, c := range []struct{ old, new, why string }{
		{"bob: {name: Bob B}", "bob: {name: ann  A}", "share the full name"},
		{"eve: {}", "eve: {email: ANN@example.org}", "share the address"},
		{"qa: [ann, bob]", "qa: [ann, bob, ann]", "names ann twice"},
		{"approvers: [ann]", "approvers: [ann, ann]", "names ann twice"},
		{"approvers: [ann]", "approvers: [ann]\nsigners: keys\nrevoked: keys", "allowed and revoked"},
		{"approvers: [ann]", "approvers: [ann]\nendgame:\n  - {phase: Build, freezes: [source, source], approvals: 1}", "freezes source twice"},
		{"approvers: [ann]", "approvers: [ann]\nendgame:\n  - {phase: Build, freezes: [source], approvals: 1}\n  - {phase: build, freezes: [source], approvals: 1}", "freezes source twice"},
		{"- [ ] **tried**", "```yaml {\"name\":\"hold\",\"kind\":\"wait\"}\nembargo\n```\n\n- [ ] **tried**", "does not say until when"},
		{"\"out\":\"dist/*\"", "\"out\":\"dist/*\",\"out\":\"x\"", "out stands twice"},
		{"\"out\":\"dist/*\"", "\"out\":\"dist/*\",\"budget\":\"2h\",\"timeout\":\"1h\"", "stopped after"},
		{"\"out\":\"dist/*\"", "\"out\":\"dist/*\",\"again\":\"machine\"", "role build is plain: it has no blueprint"},
		{"approvers: [ann]", "approvers: [ann]\nholidays: [2026-12-24, 2026-12-25, 2026-12-24..2026-12-24]", "2026-12-24..2026-12-24 stands twice"},
		{"eve: {}", "eve: {away: [2026-12-24..2026-12-31, 2026-12-24..2026-12-31]}", "2026-12-24..2026-12-31 stands twice"},
		{"(@bob)", "(@bob, needs build gold)", "tried needs gold twice: by its name, and in phase build"},
	} {
		text := strings.Replace(signed("- [ ] **tried** (@bob): tried"), c.old, c.new, 1)
		if _, err := Parse("RELEASE.md", []byte(text), time.LoadLocation); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: not refused for %q: %v", c.new, c.why, err)
		}
	}
	// A release that began by older rules reads its runbook as it did.
	for _, asks := range []string{"2 of @qa, @legal", "@ann, @ann", "1 of @legal, 2 of @qa"} {
		if r, err := ParseOld("RELEASE.md", []byte(signed("- [ ] **tried** ("+asks+"): tried\n\n- [] not seen")), time.LoadLocation); err != nil || len(r.Item("tried").Quotas) > 0 || r.Item("tried").Approvals > 2 {
			t.Errorf("(%s): %v", asks, err)
		}
	}
}

// TestUnshippable: a runbook whose release could not ship, or in which nobody decides.
func TestUnshippable(t *testing.T) {
	whole := signed("- [ ] **tried** (@bob): tried")
	for _, c := range []struct{ old, new, why string }{
		{"", "", ""},
		{",\"gold\":\"true\"", "", "no step is gold"},
		{"approvers: [ann]\n", "", "nobody approves"},
		{"approvers: [ann]", "approvers: []", "nobody approves"},
	} {
		r, err := Parse("RELEASE.md", []byte(strings.Replace(whole, c.old, c.new, 1)), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		list := r.Unshippable()
		if (len(list) == 0) != (c.why == "") || len(list) > 0 && !strings.Contains(list.Error(), c.why) {
			t.Errorf("%q for %q: %v", c.new, c.old, list)
		}
	}
}
