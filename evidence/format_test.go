package evidence

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"trysail/release"
)

// What old bundles hold is made again to verify them: it must not change. Another form
// is another version, beside this one.
func TestFormats(t *testing.T) {
	x := newStory(t, "4.2")
	x.rules = 0 // by which they were made
	x.gold()
	word := release.Signed{Item: "tried", Person: "ann", Decision: release.ApproveExcept, Reason: "a < b & c", Spent: 90 * time.Minute}
	draft, err := Draft(x.s, word, SigningAt(x.now, time.Hour, "0123456789abcdef", "trysail ledger release.4.2\n9\nroot\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"ann", "bob"} {
		x.sign("tried", who, release.Approve)
	}
	x.sign("legal", "eve", release.Approve)
	x.must(release.Shipped{})
	events, err := parseLines(x.lines)
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHistory(events, "trysail.fleet.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	provenance, err := h.provenance()
	if err != nil {
		t.Fatal(err)
	}
	summary, err := h.summary([]byte("provenance"))
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"sign-off.json": draft, "provenance.json": provenance, "summary.json": summary} {
		file := filepath.Join("testdata", "v1", name)
		want, err := os.ReadFile(file)
		if err != nil || string(want) != string(got) {
			t.Errorf("%s has another form: old bundles would not verify any more (%v)\n%s", name, err, got)
		}
	}
}
