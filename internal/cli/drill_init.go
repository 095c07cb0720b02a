package cli

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"trysail/drill"
	"trysail/internal/tree"
)

const (
	firstName     = "two-servers-lost"
	firstScenario = "drills/" + firstName + ".yaml"
)

// drillInit writes a first scenario for the runbook of a working copy.
func (a *app) drillInit(file string) error {
	if _, err := tree.Lstat(firstScenario); err == nil {
		return usage("%s is there already: trysail drill check %s, or remove it", firstScenario, firstScenario)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	book, _, err := readRunbook(file)
	if err != nil {
		return err
	}
	d := drill.Draft{Name: firstName, Version: cmp.Or(book.Release, "1.0"), Runbook: filepath.ToSlash(file), Ship: book.Ship, Book: book}
	if d.Ship.IsZero() { // any date does: the clock of a drill is its own
		d.Ship = time.Now().UTC().AddDate(0, 0, 30).Truncate(time.Hour)
	}
	text, err := d.Text()
	if err != nil {
		return err
	}
	p, err := drill.Parse(firstScenario, text)
	if err != nil {
		return err
	}
	if err := p.Against(book); err != nil {
		return err
	}
	if err := tree.MakeDir(filepath.Dir(firstScenario), 0o755); err != nil {
		return err
	}
	if err := writeNew(firstScenario, text); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			File string `json:"file"`
		}{firstScenario})
	}
	a.printf("Wrote %s. See that people and machines are like yours, then: trysail drill run %s\n", firstScenario, firstScenario)
	return nil
}

// drillSchema prints the schema as it is.
func (a *app) drillSchema() error {
	_, err := a.stdout.Write(drill.Schema)
	return err
}
