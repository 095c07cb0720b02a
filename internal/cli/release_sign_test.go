package cli

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/internal/api"
)

// TestRememberedHistory: a ledger that does not go on from the checkpoint that was seen
// last is refused, with a command that can be typed.
func TestRememberedHistory(t *testing.T) {
	secret, public, err := note.GenerateKey(rand.Reader, "trysail.fleet.test")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	ledger := func(lines ...string) *api.Ledger {
		t.Helper()
		l := &api.Ledger{Key: public, Tree: &evidence.Tree{}}
		for _, line := range lines {
			if err := l.Tree.Add([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		root, err := l.Tree.Root(l.Tree.Size())
		if err != nil {
			t.Fatal(err)
		}
		text, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Stream: evidence.Stream("4.2"), Size: l.Tree.Size(), Root: root}.Text()}, signer)
		if err != nil {
			t.Fatal(err)
		}
		l.Note = string(text)
		return l
	}
	a := &app{state: t.TempDir()}
	for _, l := range []*api.Ledger{ledger("1", "2"), ledger("1", "2"), ledger("1", "2", "3")} {
		if err := a.remember(l, "4.2"); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(a.state, "checkpoints", "trysail.fleet.test", "4.2.note")
	for _, l := range []*api.Ledger{ledger("1", "2"), ledger("1", "x", "3", "4")} {
		var other *evidence.Error
		if err := a.remember(l, "4.2"); !errors.As(err, &other) || !strings.Contains(other.Hint(), "trysail release checkpoint 4.2 --since "+file) {
			t.Errorf("another history: %v", err)
		}
	}
}
