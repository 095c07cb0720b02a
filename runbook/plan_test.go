package runbook

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMany: a phase of many that all need another of as many, and all of which must be
// signed before each of many publishes, are read and planned. With a look through all
// items for each need, that takes minutes.
func TestMany(t *testing.T) {
	const many = 1600
	var b strings.Builder
	b.WriteString(good)
	b.WriteString("\n## First\n\n")
	for i := range many {
		fmt.Fprintf(&b, "- [ ] **f%d** (@ann): x\n", i)
	}
	b.WriteString("\n## Then\n\n")
	for i := range many {
		fmt.Fprintf(&b, "- [ ] **t%d** (@ann, needs first): x\n", i)
	}
	b.WriteString("\n## Beside\n\n")
	for i := range many + 150 {
		fmt.Fprintf(&b, "- [ ] **b%d** (@ann): x\n", i)
	}
	b.WriteString("\n## Upload\n\n")
	for i := range 100 {
		fmt.Fprintf(&b, "```sh {\"name\":\"u%d\",\"kind\":\"publish\",\"in\":\"dist/app.tar.gz\"}\n./upload\n```\n\n", i)
	}
	r, err := Parse("RELEASE.md", []byte(b.String()), time.LoadLocation)
	if err != nil {
		t.Fatal(err)
	}
	p := r.Plan()
	items := 0
	for _, w := range p.Waves {
		items += len(w)
	}
	if items != len(r.Items) || items < 5000 {
		t.Errorf("%d of %d items are in the plan", items, len(r.Items))
	}
	if got := len(r.Item("t7").Needs); got != many {
		t.Errorf("t7 needs %d of %d", got, many)
	}
	if got := len(r.Item("u7").Needs); got != 3*many+150+3 {
		t.Errorf("u7 needs %d of %d", got, 3*many+150+3)
	}
}

// TestOverBudget: three people who each try for eight hours take 24 person-hours.
func TestOverBudget(t *testing.T) {
	for _, c := range []struct {
		ask    string
		people time.Duration
		over   bool
	}{
		{"(1 of @qa, budget 8h)", 8 * time.Hour, false},
		{"(2 of @qa, budget 8h)", 16 * time.Hour, false},
		{"(3 of @qa, budget 8h)", 24 * time.Hour, true},
	} {
		text := "---\nbudget: 16 person-hours\npeople:\n  a: {}\n  b: {}\n  c: {}\ngroups:\n  qa: [a, b, c]\n---\n## All\n\n- [ ] **tried** " + c.ask + ": tried\n"
		r, err := Parse("RELEASE.md", []byte(text), time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		p := r.Plan()
		if p.People != c.people {
			t.Errorf("%s: %s, not %s", c.ask, p.People, c.people)
		}
		if over := slices.ContainsFunc(p.Notes, func(n Note) bool { return strings.Contains(n.Text, "more than the 16h") }); over != c.over {
			t.Errorf("%s: over budget is %v: %v", c.ask, over, p.Notes)
		}
		if p.Length != 8*time.Hour {
			t.Errorf("%s: they work beside each other, not for %s", c.ask, p.Length)
		}
	}
}

// TestTooMany: a document of a few hundred kilobytes that asks for gigabytes is refused.
func TestTooMany(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"a phase that each of many needs":            good + "\n## First\n\n" + many(2100, "- [ ] **f%d** (@ann): x\n") + "\n## Then\n\n" + many(2100, "- [ ] **t%d** (@ann, needs first): x\n"),
		"sign-offs before each of many that publish": good + "\n## First\n\n" + many(2300, "- [ ] **f%d** (@ann): x\n") + "\n## Then\n\n" + many(1900, "```sh {\"name\":\"u%d\",\"kind\":\"publish\",\"in\":\"dist/app.tar.gz\"}\n./upload\n```\n\n"),
	} {
		_, err := Parse("RELEASE.md", []byte(text), time.LoadLocation)
		if err == nil || !strings.Contains(err.Error(), "the needs of all items are more than 4000000") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}
