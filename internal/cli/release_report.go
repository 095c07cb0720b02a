package cli

import (
	"context"
	"encoding/json"
	"path/filepath"
	"time"

	"trysail/internal/tree"
	"trysail/release"
)

// releaseReport writes the release as it was run: to the terminal, or as Markdown, HTML
// and JSON into a directory.
func (a *app) releaseReport(ctx context.Context, version, into string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	events, err := c.Events(ctx, version)
	if err != nil {
		return err
	}
	r, err := release.Retrospect(events, time.LoadLocation)
	if err != nil {
		return err
	}
	if into == "" {
		if a.json {
			return a.printJSON(r)
		}
		a.print(r.Markdown())
		return nil
	}
	page, err := r.HTML()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := tree.MakeDir(into, 0o755); err != nil {
		return err
	}
	written := []string{}
	for _, f := range []struct {
		name string
		data []byte
	}{{"report.md", []byte(r.Markdown())}, {"report.html", page}, {"report.json", append(data, '\n')}} {
		file := filepath.Join(into, f.name)
		if err := tree.WriteFile(file, f.data, 0o644); err != nil {
			return err
		}
		written = append(written, file)
	}
	if a.json {
		return a.printJSON(written)
	}
	a.printf("%s\n", r.Sentence())
	for _, f := range written {
		a.printf("Wrote %s\n", f)
	}
	return nil
}
