package runbook

import (
	"fmt"
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
