package ledger

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
)

// anything takes every event for one that is known.
func anything(string, []byte) error { return nil }

// TestRecoverUnknown: an event that its reader does not know is named with its line
// before anything is written, of whatever stream.
func TestRecoverUnknown(t *testing.T) {
	s := fresh(t)
	dir := copies(t, map[string][][]byte{"fleet": events(1, 3, "x"), "release.1": events(1, 3, "x"), "release.2": events(1, 3, "x")})
	err := s.Recover(t.Context(), dir, func(stream string, line []byte) error {
		if stream == "release.2" && bytes.Equal(line, events(2, 2, "x")[0]) {
			return errors.New("it is new")
		}
		return nil
	})
	var unknown *UnreadableError
	if !errors.As(err, &unknown) || err.Error() != filepath.Join(dir, "release.2.jsonl")+":2: it is new" || unknown.Hint() == "" {
		t.Errorf("it says %v", err)
	}
	if got, err := s.Streams(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("the ledger has streams %q %v", got, err)
	}
}
