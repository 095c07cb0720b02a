package drill

import (
	"fmt"
	"strings"
	"time"
)

// A stranger drill asks whether the document is enough: somebody who did not write
// it makes the machine by hand, and the tool does nothing but show one part after
// the other and look at the clock.

// Part is one block of commands of a document, with what is said before it.
type Part struct {
	Title string // of the section
	Text  string
	Code  string
	Line  int // of the document, where the commands begin
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
				list = append(list, Part{title, strings.TrimSpace(strings.Join(text, "\n")), strings.Join(code, "\n"), begun})
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

// Followed is a part that somebody followed, or gave up at.
type Followed struct {
	Part     int           `json:"part"` // from 1
	Title    string        `json:"title"`
	Line     int           `json:"line"`
	Took     time.Duration `json:"took"` // nanoseconds, measured
	Stumbles []string      `json:"stumbles,omitempty"`
	GaveUp   bool          `json:"gave_up,omitempty"`
}

// ByHand is what a stranger drill comes to. It passes if the document was followed
// to its end without a stumble; a stumble is something to mend in the document.
type ByHand struct {
	Verdict  Value         `json:"verdict"`
	Took     time.Duration `json:"took"`
	Parts    int           `json:"parts"` // of the document
	Followed []Followed    `json:"followed"`
}

// JudgeByHand gives the verdict on a document of so many parts.
func JudgeByHand(parts int, list []Followed) ByHand {
	v := ByHand{Verdict: Pass, Parts: parts, Followed: list}
	for _, f := range list {
		v.Took += f.Took
		if len(f.Stumbles) > 0 || f.GaveUp {
			v.Verdict = Fail
		}
	}
	if v.Verdict == Pass && len(list) < parts {
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
			return fmt.Sprintf("The document is not enough: it was given up at %q (line %d), after %s by hand.", f.Title, f.Line, Human(v.Took))
		}
	}
	switch v.Verdict {
	case Pass:
		return fmt.Sprintf("A stranger made the machine from the document alone, in %s by hand (measured).", Human(v.Took))
	case Unknown:
		return fmt.Sprintf("Not known: %d of %d parts were followed.", len(v.Followed), v.Parts)
	}
	return fmt.Sprintf("A stranger made the machine in %s by hand (measured), and stumbled %d time(s): mend the document.", Human(v.Took), stumbles)
}
