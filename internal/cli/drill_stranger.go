package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"trysail/drill"
	"trysail/internal/tree"
	"trysail/runbook"
)

// drillStranger shows a blueprint's REBUILD.md command by command to somebody who
// makes the machine from it in another terminal, times each, and writes down where they
// stumble. It runs none of the commands, and needs no root.
func (a *app) drillStranger(ctx context.Context, dir, owner, due string) error {
	file := filepath.Join(dir, "REBUILD.md")
	data, err := tree.ReadFile(file, maxDocument)
	if err != nil {
		return err
	}
	parts, err := drill.Parts(string(data))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	now := time.Now()
	run := filepath.Join(a.state, "by-hand", now.UTC().Format("20060102-150405"))
	m := drill.Mender{Run: "by-hand-" + filepath.Base(run), Owner: owner}
	if due != "" {
		d, err := runbook.ParsePeriod(due)
		if err != nil {
			return usage("--due: %v", err)
		}
		m.Due = now.Add(d).UTC().Format(time.DateOnly)
	}
	if err := errors.Join(tree.Private(a.state), tree.MakeDir(run, 0o700)); err != nil {
		return err
	}
	commands := 0
	for _, p := range parts {
		commands += len(p.Commands)
	}
	fmt.Fprintf(a.stderr, "%s has %d commands in %d parts. Type each in another terminal, as if Trysail were gone.\n"+
		"Enter: it worked, go on. Any words: where you stumbled; then go on trying. q: you give up.\n", file, commands, len(parts))
	list, err := followAll(readLines(ctx, a.stdin), a.stderr, parts, func(list []drill.Followed) error {
		return keepByHand(run, drill.JudgeByHand(commands, list, m))
	})
	if err != nil {
		return err
	}
	v := drill.JudgeByHand(commands, list, m)
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
	for _, i := range v.Issues {
		a.printf("  %s: %s\n", i.ID, i.What)
	}
	if v.Verdict != drill.Pass {
		return answerNo{}
	}
	return nil
}

// followAll shows one command after the other. Each is kept before the next is shown.
func followAll(lines <-chan string, out io.Writer, parts []drill.Part, keep func([]drill.Followed) error) ([]drill.Followed, error) {
	list := []drill.Followed{}
	for i, p := range parts {
		fmt.Fprintf(out, "\n--- %d of %d: %s\n%s\n", i+1, len(parts), p.Title, p.Text)
		for _, c := range p.Commands {
			fmt.Fprintf(out, "\nline %d:\n%s\n\n", c.Line, c.Code)
			f, more := follow(lines, drill.Followed{Title: p.Title, Line: c.Line})
			if !more {
				return list, nil
			}
			list = append(list, f)
			if err := keep(list); err != nil || f.GaveUp {
				return list, err
			}
		}
	}
	return list, nil
}

// follow waits until a command is done; more is false if nobody answers any more.
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
	return tree.WriteFile(filepath.Join(dir, "by-hand.json"), append(data, '\n'), 0o600)
}
