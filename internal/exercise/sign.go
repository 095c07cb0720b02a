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
	"trysail/release"
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

// prove puts the person's signature to what they decide, where the release wants one.
func (r *runner) prove(ctx context.Context, b release.Personal) (release.Personal, error) {
	r.mu.Lock()
	wanted := r.signed
	r.mu.Unlock()
	if !wanted {
		return b, nil
	}
	l, err := api.ReadLedger(ctx, r.desks[b.Decider()], r.status.Version, r.link.Fingerprint)
	if err != nil {
		return nil, err
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	nonce := hex.EncodeToString(random)
	text, err := evidence.Draft(l.State, b, evidence.SigningAt(r.stage.Now(), time.Hour, nonce, l.Note))
	if err != nil {
		return nil, err
	}
	sig, err := sshsig.Sign(bytes.NewReader(text), r.keys[b.Decider()], sshsig.HashSHA512, evidence.NamespaceSignOff)
	if err != nil {
		return nil, err
	}
	return b.Prove(&release.Proof{Statement: string(text), Signature: string(sshsig.Armor(sig)), Nonce: nonce}), nil
}
