package ledger

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
)

// signNote signs lines as control does.
func signNote(t testing.TB, stream string, lines [][]byte) []byte {
	t.Helper()
	key, _ := signerOf(t)
	return signedBy(t, key, stream, lines)
}

// signerOf makes a key of a fleet's control.
func signerOf(t testing.TB) (key note.Signer, public string) {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "trysail.fleet.0123")
	if err == nil {
		key, err = note.NewSigner(private)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

func signedBy(t testing.TB, key note.Signer, stream string, lines [][]byte) []byte {
	t.Helper()
	root, err := tree(t, lines).Root(int64(len(lines)))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Stream: stream, Size: int64(len(lines)), Root: root}.Text()}, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestExtend: a copy keeps what control signed of it, and gives that up only for what goes
// on from there.
func TestExtend(t *testing.T) {
	ten, other := events(1, 10, "x"), events(1, 10, "y")
	for _, x := range []struct {
		what   string
		disk   [][]byte
		signed [][]byte // before; nil: nothing
		more   [][]byte
		note   []byte
		other  bool // it is refused
	}{
		{"the first events", nil, nil, ten[:3], signNote(t, "release.1", ten[:3]), false},
		{"more", ten[:3], ten[:3], ten[3:], signNote(t, "release.1", ten), false},
		{"a note for an older copy", ten, nil, nil, signNote(t, "release.1", ten), false},
		{"an older control", ten[:3], ten[:3], ten[3:], nil, false},
		{"of fewer events than were signed", ten[:3], ten[:8], ten[3:6], signNote(t, "release.1", ten[:6]), true},
		{"of fewer, by an older control", ten[:3], ten[:8], ten[3:6], nil, true},
		{"others than were signed", ten[:3], ten[:8], append(slices.Clip(ten[3:5]), other[5:]...), signNote(t, "release.1", append(slices.Clip(ten[:5]), other[5:]...)), true},
		{"the beginning was another", ten[:3], ten[:3], other[3:], signNote(t, "release.1", other), true},
		{"the note is of more than came", ten[:3], ten[:3], ten[3:8], signNote(t, "release.1", ten), true},
		{"the note is another stream's", ten[:3], ten[:3], ten[3:], signNote(t, "release.2", ten), true},
	} {
		t.Run(x.what, func(t *testing.T) {
			dir := t.TempDir()
			c := openCopy(t, dir, "release.1")
			if err := c.Append(0, x.disk); err != nil {
				t.Fatal(err)
			}
			var before []byte
			if x.signed != nil {
				before = signNote(t, "release.1", x.signed)
				if err := os.WriteFile(noteFile(dir, "release.1"), before, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := c.Extend(x.more, x.note)
			var refused *OtherHistoryError
			if errors.As(err, &refused) != x.other || (!x.other && err != nil) {
				t.Errorf("it says %v", err)
			}
			want, kept := slices.Concat(x.disk, x.more), x.note
			if x.other {
				want, kept = x.disk, before
			}
			keeps(t, c, want)
			_, got, err := Examine(dir, "release.1")
			if err != nil || string(got) != string(kept) {
				t.Errorf("the note is %q, want %q (%v)", got, kept, err)
			}
		})
	}
}

// TestRecoverSigned: a copy that is not what control had given its machine is no ledger.
func TestRecoverSigned(t *testing.T) {
	s := fresh(t)
	ten := events(1, 10, "x")
	changed := slices.Concat(ten[:9], events(10, 10, "y"))
	for _, x := range []struct {
		what   string
		disk   [][]byte
		signed []byte
		torn   bool
		short  bool
	}{
		{"changed", changed, signNote(t, "release.1", ten), true, false},
		{"more than was signed", ten, signNote(t, "release.1", ten[:8]), true, false},
		{"cut short", ten[:8], signNote(t, "release.1", ten), false, true},
		{"as it was signed", ten, signNote(t, "release.1", ten), false, false},
	} {
		dir := copies(t, map[string][][]byte{"release.1": x.disk})
		if err := os.WriteFile(noteFile(dir, "release.1"), x.signed, 0o600); err != nil {
			t.Fatal(err)
		}
		err := s.Recover(t.Context(), dir, anything, nil)
		var torn *TornError
		var short *ShortError
		if errors.As(err, &torn) != x.torn || errors.As(err, &short) != x.short || (err != nil) != (x.torn || x.short) {
			t.Errorf("%s: %v", x.what, err)
		}
		if x.short && short.NoteFor != filepath.Join(dir, "release.1.note") {
			t.Errorf("%s: the file to remove is %s", x.what, short.NoteFor)
		}
	}
	holds(t, s.Ledger, "release.1", ten)
}

// TestReplaceKeepsTheDamaged: each damaged copy is kept, up to a number.
func TestReplaceKeepsTheDamaged(t *testing.T) {
	dir, ten := t.TempDir(), events(1, 10, "x")
	for n := range mostAside + 3 {
		c := openCopy(t, dir, "release.1")
		if err := c.Append(c.Size(), events(int(c.Size())+1, int(c.Size())+1, "damage")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := Replace(dir, "release.1", ten, signNote(t, "release.1", ten)); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		keeps(t, openCopy(t, dir, "release.1"), ten)
	}
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(list) != mostAside+2 {
		t.Errorf("%q are kept (%v)", list, err)
	}
	if names, err := Replicas(dir); err != nil || !slices.Equal(names, []string{"release.1"}) {
		t.Errorf("the replicas are %q (%v)", names, err)
	}
}
