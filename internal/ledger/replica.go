package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"trysail/evidence"
)

// Beside a copy, STREAM.jsonl, stands the last checkpoint that control signed for it,
// STREAM.note. It is on the disk before the events are, so each event there has a proof
// ([evidence.Replica]).

// mostAside is how many damaged copies of a stream are kept: a disk that goes bad makes one
// after the other.
const mostAside = 10

func copyFile(dir, stream string) string { return filepath.Join(dir, stream+".jsonl") }

func noteFile(dir, stream string) string { return filepath.Join(dir, stream+".note") }

// Replicas lists the streams of which a directory holds a copy, or what was signed for one.
func Replicas(dir string) ([]string, error) {
	names, err := Copies(dir)
	if err != nil {
		return nil, err
	}
	list, err := filepath.Glob(filepath.Join(dir, "*.note"))
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".note"))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Examine reads a copy, and the note that was signed for it if there is one, and changes
// neither. The caller, who has the key, verifies the note.
func Examine(dir, stream string) (r evidence.Replica, note []byte, err error) {
	if err := checkName(stream); err != nil {
		return r, nil, err
	}
	signed, note, err := readNote(dir, stream)
	if err != nil {
		return r, nil, err
	}
	lines, err := ReadCopy(dir, stream)
	var torn *TornError
	switch {
	case errors.As(err, &torn):
		return evidence.Replica{Damage: torn.What, Signed: signed}, note, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return r, nil, err
	}
	r, err = evidence.ReadReplica(lines, signed)
	return r, note, err
}

// readNote gives the checkpoint that was signed for a copy. One that cannot be read, or is
// another stream's, proves nothing: it is as if there were none.
func readNote(dir, stream string) (*evidence.Checkpoint, []byte, error) {
	note, err := os.ReadFile(noteFile(dir, stream))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	signed, err := evidence.ReadNote(note, nil)
	if err != nil || signed.Stream != stream {
		return nil, nil, nil
	}
	return signed, note, nil
}

// OtherHistoryError says that what control gave does not go on from a copy.
type OtherHistoryError struct {
	Stream string
	Events int64 // of the copy
}

func (e *OtherHistoryError) Error() string {
	return fmt.Sprintf("what control has of %s does not go on from the %d events of this copy", e.Stream, e.Events)
}

// Extend appends lines that control gave, with the note that it signed of all of them: the
// note first. An older control signs none; then there is none of the copy any more. What was
// signed before is given up only for what goes on from it.
func (c *Copy) Extend(lines [][]byte, note []byte) error {
	dir, stream := filepath.Dir(c.path), strings.TrimSuffix(filepath.Base(c.path), ".jsonl")
	after := c.Tree // hashes are only added to it
	for _, l := range lines {
		if err := after.Add(l); err != nil {
			return err
		}
	}
	begins := func(x *evidence.Checkpoint) error {
		if x.Stream != stream || x.Size > after.Size() {
			return &OtherHistoryError{stream, c.Size()}
		}
		root, err := after.Root(x.Size)
		if err == nil && root != x.Root {
			err = &OtherHistoryError{stream, c.Size()}
		}
		return err
	}
	before, _, err := readNote(dir, stream)
	if err == nil && before != nil {
		err = begins(before)
	}
	if err != nil {
		return err
	}
	if note == nil {
		err = os.Remove(noteFile(dir, stream))
	} else {
		var signed *evidence.Checkpoint
		if signed, err = evidence.ReadNote(note, nil); err != nil {
			return fmt.Errorf("copy of the ledger: what control signed of %s: %w", stream, err)
		}
		if err = begins(signed); err == nil && signed.Size != after.Size() {
			err = &OtherHistoryError{stream, c.Size()}
		}
		if err == nil {
			err = renameio.WriteFile(noteFile(dir, stream), note, 0o600)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.Append(c.Size(), lines)
}

// Replace makes a damaged copy anew, of lines that control gave and the note that it signed
// of them, and tells where the damaged one is kept; "" if there was none. A process that is killed
// in between leaves a copy that is short.
func Replace(dir, stream string, lines [][]byte, note []byte) (aside string, err error) {
	if err := checkName(stream); err != nil {
		return "", err
	}
	file := copyFile(dir, stream)
	for n := 1; n <= mostAside; n++ {
		aside = fmt.Sprintf("%s.damaged-%d", file, n)
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	text := bytes.Join(append(slices.Clip(lines), nil), []byte("\n"))
	fresh, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o600))
	if err != nil {
		return "", fmt.Errorf("copy of the ledger: %w", err)
	}
	defer func() { err = errors.Join(err, fresh.Cleanup()) }()
	if _, err := fresh.Write(text); err != nil {
		return "", fmt.Errorf("copy of the ledger: %w", err)
	}
	if err := os.Rename(file, aside); errors.Is(err, fs.ErrNotExist) {
		aside = ""
	} else if err != nil {
		return "", err
	}
	if note == nil {
		err = os.Remove(noteFile(dir, stream))
	} else {
		err = renameio.WriteFile(noteFile(dir, stream), note, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return aside, err
	}
	if err := fresh.CloseAtomicallyReplace(); err != nil {
		return aside, err
	}
	return aside, syncDir(dir)
}

// ShortError says that events are missing at the end of a copy.
type ShortError struct {
	File    string
	Has     int64
	Signed  int64
	NoteFor string // file of what was signed
}

func (e *ShortError) Error() string {
	return fmt.Sprintf("%s has %d events, and control had given %d to that machine", e.File, e.Has, e.Signed)
}

// Hint says what to do.
func (e *ShortError) Hint() string {
	return "recover from another machine's copy; if there is none, what came after is lost: remove " + e.NoteFor + ", and recover from this one with --unproven"
}
