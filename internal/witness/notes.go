package witness

import (
	"bytes"
	"fmt"

	"trysail/evidence"
	"trysail/internal/strict"
)

const (
	maxFile = 8 << 20 // bytes: some thirty thousand checkpoints
	// A note has a few signatures, not as many as fit.
	maxNote       = 16 << 10
	seeLog        = "the file only grows: git log -p, or svn log --diff, shows who changed it"
	seeCheckpoint = "take it as control gives it: trysail release checkpoint RELEASE"
)

// Kept is a checkpoint in version control.
type Kept struct {
	evidence.Checkpoint
	Note []byte // as it was signed
	Line int    // where it begins
}

// parse reads the file of a release: signed notes, an empty line between two, each
// of more events than the one before. The text of a checkpoint has three lines and
// no empty one, so what separates cannot be part of a note but between its text and
// its signatures.
func parse(name, release string, data []byte) ([]Kept, error) {
	fail := func(line int, format string, args ...any) error {
		return &strict.Error{File: name, Line: line, What: fmt.Sprintf(format, args...), Remedy: seeLog}
	}
	if err := strict.Text(name, data, maxFile, seeLog); err != nil {
		return nil, err
	}
	if n := bytes.IndexByte(data, '\r'); n >= 0 {
		return nil, fail(1+bytes.Count(data[:n], []byte("\n")), "a line ends in CR: the working copy translates line ends")
	}
	var list []Kept
	line := 1
	for {
		text, rest, _ := bytes.Cut(data, []byte("\n\n"))
		signatures, more, another := bytes.Cut(rest, []byte("\n\n"))
		if len(signatures) == 0 {
			return nil, fail(line, "a checkpoint without a signature begins here")
		}
		note := data[:len(text)+2+len(signatures)]
		if another {
			note = append(bytes.Clone(note), '\n')
		}
		if len(note) > maxNote {
			return nil, fail(line, "a note of %d bytes begins here, %d is the most", len(note), maxNote)
		}
		c, err := evidence.ReadNote(note, nil)
		if err != nil {
			return nil, fail(line, "%v", err)
		}
		if c.Stream != "release."+release {
			return nil, fail(line, "this is a checkpoint of %.100q, not of release %s", c.Stream, release)
		}
		if n := len(list); n > 0 && c.Size <= list[n-1].Size {
			return nil, fail(line, "a checkpoint of %d events follows one of %d", c.Size, list[n-1].Size)
		}
		list = append(list, Kept{Checkpoint: *c, Note: note, Line: line})
		if !another {
			return list, nil
		}
		line += bytes.Count(note, []byte("\n")) + 1
		data = more
	}
}
