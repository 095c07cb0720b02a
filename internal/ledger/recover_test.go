package ledger

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
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
	}, nil)
	var unknown *UnreadableError
	if !errors.As(err, &unknown) || err.Error() != filepath.Join(dir, "release.2.jsonl")+":2: it is new" || unknown.Hint() == "" {
		t.Errorf("it says %v", err)
	}
	if got, err := s.Streams(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("the ledger has streams %q %v", got, err)
	}
}

// TestAttackRecoverForged: a copy says more than control ever gave its machine, whose owner signed
// it, or took the signature away. Nothing of any stream is written.
func TestAttackRecoverForged(t *testing.T) {
	s := fresh(t)
	ten := events(1, 10, "x")
	key, public := signerOf(t)
	by, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := signerOf(t)
	for _, x := range []struct {
		name   string
		signed []byte // of the second stream
		what   string // of the refusal
	}{
		{"nobody signed it", nil, "has no signature of control"},
		{"somebody else signed it", signedBy(t, other, "release.1", ten), "did not sign"},
		{"it is of another stream", signedBy(t, key, "fleet", ten), "has no signature of control"},
		{"the signature is cut", signedBy(t, key, "release.1", ten)[:60], "has no signature of control"},
		{"control signed it", signedBy(t, key, "release.1", ten), ""},
	} {
		dir := copies(t, map[string][][]byte{"fleet": ten, "release.1": ten})
		for stream, signed := range map[string][]byte{"fleet": signedBy(t, key, "fleet", ten), "release.1": x.signed} {
			if signed == nil {
				continue
			}
			if err := os.WriteFile(noteFile(dir, stream), signed, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := s.Recover(t.Context(), dir, anything, by)
		var unsigned *UnsignedError
		if errors.As(err, &unsigned) != (x.what != "") || err != nil && (!strings.Contains(err.Error(), x.what) || unsigned.Hint() == "") {
			t.Errorf("%s: %v", x.name, err)
		}
		if got, serr := s.Streams(t.Context()); serr != nil || (len(got) > 0) != (x.what == "") {
			t.Errorf("%s: the ledger has %q (%v)", x.name, got, serr)
		}
	}
	holds(t, s.Ledger, "release.1", ten)
}
