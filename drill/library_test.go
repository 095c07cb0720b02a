package drill

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"trysail/runbook"
)

// The runbooks and scenarios of the library are what users copy, and what make demo rehearses:
// each must be one that this version takes.
func TestLibraryIsTaken(t *testing.T) {
	books, err := filepath.Glob("../drills/*/RELEASE.md")
	if err != nil || len(books) < 3 {
		t.Fatalf("runbooks of the library: %v (%v)", books, err)
	}
	for _, file := range books {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		book, err := runbook.Parse(file, data, time.LoadLocation)
		if err != nil {
			t.Error(err)
			continue
		}
		if list := book.Unshippable(); len(list) > 0 {
			t.Error(list)
		}
		scenarios, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*.yaml"))
		if err != nil || len(scenarios) == 0 {
			t.Fatalf("scenarios beside %s: %v (%v)", file, scenarios, err)
		}
		for _, s := range scenarios {
			text, err := os.ReadFile(s)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := Parse(s, text)
			if err == nil {
				err = plan.Against(book)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}
