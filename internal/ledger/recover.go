package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
)

// NotEmptyError says that a ledger holds events already.
type NotEmptyError struct{ Stream string }

func (e *NotEmptyError) Error() string {
	return "the ledger holds " + e.Stream + " already: a copy would not bring it back but fork it"
}

// Hint says what to do.
func (e *NotEmptyError) Hint() string {
	return "start without --recover; or move the old ledger away first, if it is damaged"
}

// NoCopyError says that a directory has no stream of a ledger.
type NoCopyError struct{ Dir string }

func (e *NoCopyError) Error() string { return e.Dir + " holds no copy of a ledger" }

// Hint says where one is.
func (*NoCopyError) Hint() string {
	return "a machine has its copy in agent/ledger below its state: /var/lib/trysail/agent/ledger"
}

// UnreadableError says that a line of a copy is no event that its reader knows.
type UnreadableError struct {
	File string
	Line int64
	Err  error
}

func (e *UnreadableError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

func (e *UnreadableError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *UnreadableError) Hint() string {
	return "nothing was written: recover from another machine's copy; if a newer Trysail wrote that line, recover with that one; a copy of the directory without that file brings all the rest back"
}

// UnsignedError says that nothing proves that control gave a machine what its copy holds: its
// owner may have written it, such as a token with which they may do everything.
type UnsignedError struct {
	File string
	Err  error // of the signature; nil: there is none
}

func (e *UnsignedError) Error() string {
	if e.Err == nil {
		return e.File + " has no signature of control"
	}
	return fmt.Sprintf("the control of this fleet did not sign what %s holds: %v", e.File, e.Err)
}

func (e *UnsignedError) Unwrap() error { return e.Err }

// Hint says what to do.
func (*UnsignedError) Hint() string {
	return "nothing was written: recover from another machine's copy; only if an older Trysail made this one and you trust who is root on its machine, add --unproven"
}

// Recover fills an empty ledger from copies. All of them are read and checked
// before anything is written, by known too, which says what is wrong with an event of a
// stream: what was appended cannot be taken back. One that was cut off goes on: a ledger
// that is the beginning of the copies is no other ledger.
// By verifies what control signed of each copy; nil: the caller vouches for them.
func (s *Store) Recover(ctx context.Context, dir string, known func(stream string, line []byte) error, by note.Verifier) error {
	names, err := Copies(dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return &NoCopyError{dir}
	}
	copies := map[string][][]byte{}
	for _, n := range names {
		if copies[n], err = checkedCopy(dir, n, known, by); err != nil {
			return err
		}
	}
	have, err := s.Streams(ctx)
	if err != nil {
		return err
	}
	begun := map[string]int{}
	for _, n := range have {
		lines, err := s.Read(ctx, n, 0)
		if err != nil {
			return err
		}
		old := copies[n]
		if len(lines) > len(old) || !slices.EqualFunc(lines, old[:min(len(lines), len(old))], bytes.Equal) {
			return &NotEmptyError{n}
		}
		begun[n] = len(lines)
	}
	for _, n := range names {
		for i, l := range copies[n] {
			if i < begun[n] {
				continue
			}
			if err := s.Append(ctx, n, int64(i), l); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkedCopy reads a copy whose events are known, numbered as they stand, and those that control
// gave its machine.
func checkedCopy(dir, name string, known func(stream string, line []byte) error, by note.Verifier) ([][]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	lines, err := ReadCopy(dir, name)
	if err != nil {
		return nil, err
	}
	file := copyFile(dir, name)
	for i, l := range lines {
		var e struct {
			Seq int64 `json:"seq"`
		}
		if err := json.Unmarshal(l, &e); err != nil || e.Seq != int64(i)+1 {
			return nil, &TornError{file, int64(i) + 1, fmt.Sprintf("this is not event %d", i+1)}
		}
		if err := known(name, l); err != nil {
			return nil, &UnreadableError{file, int64(i) + 1, err}
		}
	}
	r, signed, err := Examine(dir, name)
	switch {
	case err != nil:
		return nil, err
	case r.Damage != "":
		return nil, &TornError{file, r.Events, r.Damage}
	case r.Signed != nil && r.Events < r.Signed.Size:
		return nil, &ShortError{file, r.Events, r.Signed.Size, noteFile(dir, name)}
	case by == nil:
		return lines, nil
	case r.Signed == nil:
		return nil, &UnsignedError{file, nil}
	}
	if _, err := evidence.ReadNote(signed, by); err != nil {
		return nil, &UnsignedError{file, err}
	}
	return lines, nil
}
