package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"trysail/drill"
)

// drillStranger shows a blueprint's REBUILD.md part by part to somebody who makes
// the machine from it in another terminal, times each, and writes down where they
// stumble. It runs none of the commands, and needs no root.
func (a *app) drillStranger(ctx context.Context, dir string) error {
	file := filepath.Join(dir, "REBUILD.md")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	parts, err := drill.Parts(string(data))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	run := filepath.Join(a.state, "by-hand", time.Now().UTC().Format("20060102-150405"))
	if err := os.MkdirAll(run, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "%s has %d parts. Type the commands of each in another terminal, as if Trysail were gone.\n"+
		"Enter: it worked, go on. Any words: where you stumbled; then go on trying. q: you give up.\n", file, len(parts))
	list := []drill.Followed{}
	lines := readLines(ctx, a.stdin)
	for i, p := range parts {
		fmt.Fprintf(a.stderr, "\n--- %d of %d: %s (line %d)\n%s\n\n%s\n\n", i+1, len(parts), p.Title, p.Line, p.Text, p.Code)
		f, more := follow(lines, drill.Followed{Part: i + 1, Title: p.Title, Line: p.Line})
		if !more {
			break
		}
		list = append(list, f)
		// Each part is on disk before the next begins.
		if err := keepByHand(run, drill.JudgeByHand(len(parts), list)); err != nil {
			return err
		}
		if f.GaveUp {
			break
		}
	}
	v := drill.JudgeByHand(len(parts), list)
	if err := keepByHand(run, v); err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(v); err != nil {
			return err
		}
	}
	a.printf("%s\n", v.Sentence())
	a.printf("Kept in %s\n", run)
	for _, f := range v.Followed {
		for _, s := range f.Stumbles {
			a.printf("  %s, line %d: %s\n", f.Title, f.Line, s)
		}
	}
	if v.Verdict != drill.Pass {
		return answerNo{}
	}
	return nil
}

// follow waits until a part is done; more is false if nobody answers any more.
func follow(lines <-chan string, f drill.Followed) (_ drill.Followed, more bool) {
	begun := time.Now()
	for line := range lines {
		switch line = strings.TrimSpace(line); line {
		case "":
			f.Took = time.Since(begun)
			return f, true
		case "q":
			f.Took, f.GaveUp = time.Since(begun), true
			return f, true
		default:
			f.Stumbles = append(f.Stumbles, line)
		}
	}
	return f, false
}

// readLines gives what is typed until ctx ends.
func readLines(ctx context.Context, in io.Reader) <-chan string {
	lines := make(chan string)
	typed := make(chan string)
	go func() {
		defer close(typed)
		s := bufio.NewScanner(in)
		for s.Scan() {
			typed <- s.Text()
		}
	}()
	go func() {
		defer close(lines)
		for {
			select {
			case <-ctx.Done():
				return
			case line, ok := <-typed:
				if !ok {
					return
				}
				lines <- line
			}
		}
	}()
	return lines
}

func keepByHand(dir string, v drill.ByHand) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, "by-hand.json"), append(data, '\n'), 0o644)
}
