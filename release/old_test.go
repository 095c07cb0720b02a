package release

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOldStreams: a stream of older rules folds as it did when it was written, event by
// event. testdata holds streams that the program of that time accepted, and what it made
// of them.
func TestOldStreams(t *testing.T) {
	files, err := filepath.Glob("testdata/rules-*.jsonl")
	if err != nil || len(files) < 9 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".jsonl") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			s, got := Empty(), &strings.Builder{}
			for line := range bytes.Lines(data) {
				var e Event
				if err := json.Unmarshal(line, &e); err != nil {
					t.Fatal(err)
				}
				if err := s.Apply(e); err != nil {
					t.Fatalf("event %d (%s): %v", e.Seq, e.Type, err)
				}
				picture(got, s, e)
			}
			for i, line := range strings.Split(string(want), "\n") {
				if now := strings.Split(got.String(), "\n"); i >= len(now) || now[i] != line {
					t.Fatalf("line %d is\n%s\nand was\n%s", i+1, now[min(i, len(now)-1)], line)
				}
			}
		})
	}
}

// picture writes what a state means to people. What a later program asks of them beside
// that is no part of it.
func picture(b *strings.Builder, s *State, e Event) {
	fmt.Fprintf(b, "%d %s: %s, candidate %d of %s, runbook %s, ship %s", e.Seq, e.Type, s.Phase, s.Candidate, s.Source.Revision, s.Runbook, s.Ship.Format("2006-01-02"))
	for _, what := range []string{"source", "runbook", "machines", "signers"} {
		fmt.Fprintf(b, " %s %d", what, s.Frozen([]string{what}))
	}
	if s.Gold != nil {
		fmt.Fprintf(b, " gold %d of %s", s.Gold.Seq, s.Gold.Machine)
	}
	if s.Amendment != nil {
		fmt.Fprintf(b, " amendment %d by %v", s.Amendment.Seq, s.Amendment.Approved)
	}
	b.WriteByte('\n')
	statuses := s.Statuses()
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		fmt.Fprintf(b, "  %s %s", name, statuses[name])
		if x := s.Item(name); x.Kind == "sign-off" {
			fmt.Fprintf(b, " %.19s", s.Subject(x))
		}
		b.WriteByte('\n')
	}
	for _, a := range s.Asks() {
		if a.Type != "ship" {
			fmt.Fprintf(b, "  %s %s: %d of %v\n", a.Type, a.Item, a.Needed, a.People)
		}
	}
}
