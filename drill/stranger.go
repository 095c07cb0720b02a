package drill

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"trysail/runbook"
)

// A stranger drill asks whether the document is enough: somebody who did not write
// it makes the machine by hand, and the tool does nothing but show one command after
// the other and look at the clock.

// Part is one block of commands of a document, with what is said before it.
type Part struct {
	Title    string // of the section
	Text     string
	Code     string
	Line     int // of the document, where the commands begin
	Commands []Command
}

// Command is what somebody types before they look at what it did: a line, or several
// that the shell takes as one.
type Command struct {
	Code string
	Line int // of the document
}

// commands takes a block apart where the shell does. A block that is no shell is one.
func commands(code string, line int) []Command {
	lines := strings.Split(code, "\n")
	starts := []int{0}
	file, err := syntax.NewParser(syntax.KeepComments(true), syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(code), "")
	if err == nil {
		ended := uint(0) // the line in which the one before ends
		for _, s := range file.Stmts {
			at, before := s.Pos().Line(), ended
			ended = s.End().Line()
			if at == before {
				continue
			}
			for _, c := range s.Comments { // what is said of it
				at = min(at, c.Pos().Line())
			}
			if at := int(at) - 1; at > starts[len(starts)-1] && at < len(lines) && strings.TrimSpace(strings.Join(lines[starts[len(starts)-1]:at], "")) != "" {
				starts = append(starts, at)
			}
		}
	}
	var list []Command
	for i, at := range starts {
		end := len(lines)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		list = append(list, Command{strings.Trim(strings.Join(lines[at:end], "\n"), "\n"), line + at})
	}
	return list
}

// Parts reads a document that is followed by hand: Markdown, of which every fenced
// block of sh is a part.
func Parts(document string) ([]Part, error) {
	var list []Part
	var text, code []string
	title, fence, begun := "", "", 0
	for i, line := range strings.Split(document, "\n") {
		mark := strings.TrimLeft(line, "`")
		ticks := line[:len(line)-len(mark)]
		switch {
		case fence != "" && ticks == fence && strings.TrimSpace(mark) == "":
			if begun > 0 {
				all := strings.Join(code, "\n")
				list = append(list, Part{title, strings.TrimSpace(strings.Join(text, "\n")), all, begun, commands(all, begun)})
			}
			fence, begun, text, code = "", 0, nil, nil
		case fence != "":
			code = append(code, line)
		case len(ticks) >= 3:
			fence = ticks
			if mark == "sh" {
				begun = i + 2
			}
		case strings.HasPrefix(line, "#"):
			title, text = strings.TrimSpace(strings.TrimLeft(line, "#")), nil
		default:
			text = append(text, line)
		}
	}
	switch {
	case fence != "":
		return nil, &TornError{int64(strings.Count(document, "\n")) + 1, "a block of commands has no end: the document is torn"}
	case len(list) == 0:
		return nil, &TornError{1, "the document has no commands"}
	}
	return list, nil
}

// Followed is a command that somebody typed, or gave up at.
type Followed struct {
	Title    string        `json:"title"` // of the section
	Line     int           `json:"line"`
	Took     time.Duration `json:"-"` // measured; in JSON seconds
	Stumbles []string      `json:"stumbles,omitempty"`
	GaveUp   bool          `json:"gave_up,omitempty"`
}

// ByHand is what a stranger drill comes to. It passes if the document was followed
// to its end without a stumble; a stumble is something to mend in the document.
type ByHand struct {
	Verdict  Value         `json:"verdict"`
	Took     time.Duration `json:"-"`        // in JSON seconds
	Commands int           `json:"commands"` // of the document
	Followed []Followed    `json:"followed"`
	Issues   []Issue       `json:"issues"` // each stumble is somebody's work
}

// MarshalJSON writes it with its time in seconds, as every other.
func (f Followed) MarshalJSON() ([]byte, error) {
	type plain Followed
	return json.Marshal(struct {
		plain
		Seconds float64 `json:"seconds"`
	}{plain(f), f.Took.Seconds()})
}

// MarshalJSON writes it with its time in seconds, as every other.
func (b ByHand) MarshalJSON() ([]byte, error) {
	type plain ByHand
	return json.Marshal(struct {
		plain
		Seconds float64 `json:"seconds"`
	}{plain(b), b.Took.Seconds()})
}

// Mender is whose work the stumbles of a run are, and until which day.
type Mender struct{ Run, Owner, Due string }

// JudgeByHand gives the verdict on a document of so many commands.
func JudgeByHand(commands int, list []Followed, m Mender) ByHand {
	v := ByHand{Verdict: Pass, Commands: commands, Followed: list, Issues: []Issue{}}
	issue := func(f Followed, what string) {
		v.Issues = append(v.Issues, Issue{fmt.Sprintf("%s/%d", m.Run, len(v.Issues)+1), fmt.Sprintf("line %d (%s): %s", f.Line, f.Title, what), "document", Fail, m.Owner, m.Due})
	}
	for _, f := range list {
		v.Took += f.Took
		for _, s := range f.Stumbles {
			issue(f, s)
		}
		if f.GaveUp {
			issue(f, "given up")
		}
	}
	if len(v.Issues) > 0 {
		v.Verdict = Fail
	}
	if v.Verdict == Pass && len(list) < commands {
		v.Verdict = Unknown // it was broken off
	}
	return v
}

// Sentence is the answer first.
func (v ByHand) Sentence() string {
	stumbles := 0
	for _, f := range v.Followed {
		stumbles += len(f.Stumbles)
		if f.GaveUp {
			return fmt.Sprintf("The document is not enough: it was given up at %q (line %d), after %s by hand.", f.Title, f.Line, runbook.FormatDuration(v.Took))
		}
	}
	switch v.Verdict {
	case Pass:
		return fmt.Sprintf("A stranger made the machine from the document alone, in %s by hand (measured).", runbook.FormatDuration(v.Took))
	case Unknown:
		return fmt.Sprintf("Not known: %d of %d commands were typed.", len(v.Followed), v.Commands)
	}
	return fmt.Sprintf("A stranger made the machine in %s by hand (measured), and stumbled %d time(s): mend the document.", runbook.FormatDuration(v.Took), stumbles)
}
