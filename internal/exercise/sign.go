package exercise

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"trysail/evidence"
	"trysail/internal/api"
)

// Nobody's key is at hand in a drill, nor is it to be: a rehearsal's signature could be
// taken for one of the release. So people get keys of their own for it, which are gone
// when it ends, and sign with them as they would with theirs.

// makeKeys makes everybody's key, and says who may sign with which.
func (r *runner) makeKeys() ([]byte, error) {
	r.keys = map[string]ssh.Signer{}
	var allowed bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(r.p.People)) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if r.keys[name], err = ssh.NewSignerFromKey(key); err != nil {
			return nil, err
		}
		fmt.Fprintf(&allowed, "%s namespaces=%q %s", name, evidence.NamespaceSignOff, ssh.MarshalAuthorizedKey(r.keys[name].PublicKey()))
	}
	return allowed.Bytes(), nil
}

// sign puts the person's signature to what they decide, where the release wants one.
func (r *runner) sign(ctx context.Context, b *api.Decide) error {
	r.mu.Lock()
	wanted := r.signed
	r.mu.Unlock()
	if !wanted {
		return nil
	}
	l, err := api.ReadLedger(ctx, r.desks[b.Person], r.status.Version, r.link.Fingerprint)
	if err != nil {
		return err
	}
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	b.Nonce = hex.EncodeToString(nonce)
	text, err := evidence.Draft(l.State, evidence.Word{
		Item: b.Item, Person: b.Person, Decision: b.Decision, Reason: b.Reason, Spent: b.Spent, Signed: r.stage.Now(), Lasts: time.Hour, Checkpoint: l.Note, Nonce: b.Nonce,
	})
	if err != nil {
		return err
	}
	sig, err := sshsig.Sign(bytes.NewReader(text), r.keys[b.Person], sshsig.HashSHA512, evidence.NamespaceSignOff)
	if err != nil {
		return err
	}
	b.Statement, b.Signature = string(text), string(sshsig.Armor(sig))
	return nil
}
