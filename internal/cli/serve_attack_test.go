package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/internal/control"
)

// TestAttackCopyThatAMachineWrote: root on a machine of the fleet adds to its copy of the
// ledger a token that allows everything, and signs it as control does. The copy is then the longest, and a control that lost its ledger would begin again from it.
func TestAttackCopyThatAMachineWrote(t *testing.T) {
	state, err := os.MkdirTemp("", "s") // the names of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	if err := os.MkdirAll(filepath.Join(state, "control"), 0o700); err != nil {
		t.Fatal(err)
	}
	id, err := control.OpenIdentity(filepath.Join(state, "control"), []string{"localhost"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256([]byte("of the attacker"))
	line := fmt.Sprintf(`{"seq":1,"time":"2026-11-24T09:00:00Z","actor":"control","nonce":"n","made":{"hash":%q,"person":"*","role":"approver"}}`, hex.EncodeToString(hash[:]))
	copies := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(copies, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("access.jsonl", line+"\n")
	recovers := func(flags ...string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, why := begun{end: cancel}, strings.Builder{}
		code := Run(ctx, append([]string{"--state", state, "serve", "--listen", "127.0.0.1:0", "--recover", copies}, flags...), 0o022, strings.NewReader(""), &out, &why)
		return code, out.String() + why.String()
	}
	if code, said := recovers(); code != exitFailed || !strings.Contains(said, "has no signature of control") || !strings.Contains(said, "--unproven") {
		t.Errorf("of what nobody signed it begins, with %d: %s", code, said)
	}
	private, _, err := note.GenerateKey(rand.Reader, evidence.LedgerName(id.Fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	tree := &evidence.Tree{}
	if err := tree.Add([]byte(line)); err != nil {
		t.Fatal(err)
	}
	root, err := tree.Root(1)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Stream: control.AccessStream, Size: 1, Root: root}.Text()}, key)
	if err != nil {
		t.Fatal(err)
	}
	put("access.note", string(signed))
	if code, said := recovers(); code != exitFailed || !strings.Contains(said, "control of this fleet did not sign") {
		t.Errorf("of what the machine signed it begins, with %d: %s", code, said)
	}
	if code, said := recovers("--unproven"); !strings.Contains(said, "Control is at") {
		t.Errorf("a person who knows better ends with %d: %s", code, said)
	}
}
