package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
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

// Recover fills an empty ledger from copies. All of them are read and checked
// before anything is written. One that was cut off goes on: a ledger that is the
// beginning of the copies is no other ledger.
func (s *Store) Recover(ctx context.Context, dir string) error {
	names, err := Copies(dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%s holds no copy of a ledger", dir)
	}
	copies := map[string][][]byte{}
	for _, n := range names {
		if copies[n], err = checkedCopy(dir, n); err != nil {
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

// checkedCopy reads a copy whose events are numbered as they stand.
func checkedCopy(dir, name string) ([][]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	lines, err := ReadCopy(dir, name)
	if err != nil {
		return nil, err
	}
	for i, l := range lines {
		var e struct {
			Seq int64 `json:"seq"`
		}
		if err := json.Unmarshal(l, &e); err != nil || e.Seq != int64(i)+1 {
			return nil, &TornError{filepath.Join(dir, name+".jsonl"), int64(i) + 1, fmt.Sprintf("this is not event %d", i+1)}
		}
	}
	return lines, nil
}
