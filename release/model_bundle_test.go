package release_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/release"
)

// keys are those of the release, of its ledger and of everybody.
type keys struct {
	release *ecdsa.PrivateKey
	log     note.Signer
	logKey  string
	people  map[string]ssh.Signer
}

func newKeys(t testing.TB) *keys {
	t.Helper()
	k := &keys{people: map[string]ssh.Signer{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	k.release, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	secret, public, err := note.GenerateKey(rand.Reader, "trysail.fleet.test")
	must(err)
	k.logKey = public
	k.log, err = note.NewSigner(secret)
	must(err)
	for _, who := range everybody() {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		must(err)
		k.people[who], err = ssh.NewSignerFromKey(private)
		must(err)
	}
	return k
}

// allowed is an allowed_signers file.
func (k *keys) allowed(file int) string {
	var b strings.Builder
	for _, who := range everybody() {
		fmt.Fprintf(&b, "%s namespaces=%q %s", who, evidence.NamespaceSignOff, ssh.MarshalAuthorizedKey(k.people[holder(file, who)].PublicKey()))
	}
	return b.String()
}

// books keep the ledger of a history as control does, so that its bundle can be made.
type books struct {
	keys  *keys
	lines [][]byte
	tree  *evidence.Tree
}

func newBooks(k *keys) *books { return &books{keys: k, tree: &evidence.Tree{}} }

func (b *books) add(g *game, e release.Event) {
	line, err := json.Marshal(e)
	if err == nil {
		err = b.tree.Add(line)
	}
	if err != nil {
		g.fail("%v", err)
	}
	b.lines = append(b.lines, line)
}

func (b *books) checkpoint(g *game) string {
	root, err := b.tree.Root(b.tree.Size())
	if err != nil {
		g.fail("%v", err)
	}
	signed, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Stream: evidence.Stream(g.m.version), Size: b.tree.Size(), Root: root}.Text()}, b.keys.log)
	if err != nil {
		g.fail("%v", err)
	}
	return string(signed)
}

// sign makes a decision one that is signed.
func (b *books) sign(g *game, w release.Personal, nonce string) release.Personal {
	text, err := evidence.Draft(g.s, w, evidence.SigningAt(g.now(), time.Hour, nonce, b.checkpoint(g)))
	if err != nil {
		return w // it is not to be signed; the engine says so too
	}
	key := b.keys.people[g.holder(w.Decider())]
	sig, err := sshsig.Sign(bytes.NewReader(text), key, sshsig.HashSHA512, evidence.NamespaceSignOff)
	if err != nil {
		g.fail("%v", err)
	}
	return w.Prove(&release.Proof{Statement: string(text), Signature: string(sshsig.Armor(sig)), Nonce: nonce, Key: ssh.FingerprintSHA256(key.PublicKey())})
}

// takes tells whether control takes a signature: evidence looks at it before the rules do.
func (b *books) takes(g *game, w release.Personal) bool {
	signers, err := evidence.ParseSigners("allowed_signers", []byte(g.blobs[g.s.Signers]))
	if err != nil {
		g.fail("%v", err)
	}
	log, err := note.NewVerifier(b.keys.logKey)
	if err != nil {
		g.fail("%v", err)
	}
	moment := &evidence.Moment{State: g.s, At: g.now(), Signers: signers, Stream: evidence.Stream(g.m.version), Log: log, Root: b.tree.Root}
	_, err = moment.Check(w)
	return err == nil
}

// bundle makes the bundle of a release that shipped, which verifies.
func (b *books) bundle(g *game) {
	made, err := evidence.Assemble(evidence.Material{
		Lines: b.lines, Checkpoint: []byte(b.checkpoint(g)), LogKey: b.keys.logKey, Key: &b.keys.release.PublicKey,
		Sign: func(message []byte) ([]byte, error) {
			sum := sha256.Sum256(message)
			return ecdsa.SignASN1(rand.Reader, b.keys.release, sum[:])
		},
		Blobs: func(d string) ([]byte, error) {
			if data, ok := g.blobs[d]; ok {
				return []byte(data), nil
			}
			return nil, fmt.Errorf("no blob %s", d)
		},
	})
	if err != nil {
		g.fail("it shipped, and has no bundle: %v", err)
	}
	files := fstest.MapFS{}
	for name, data := range made.Files {
		files[name] = &fstest.MapFile{Data: data, Mode: 0o644}
	}
	for name, a := range made.Artifacts {
		files[name] = &fstest.MapFile{Data: []byte(g.blobs[a.Digest]), Mode: 0o644}
	}
	if r := evidence.Verify(files, evidence.Trust{Key: &b.keys.release.PublicKey, LogKey: b.keys.logKey}); !r.Verified {
		g.fail("it shipped, and its bundle does not verify: %v", r.Problems)
	}
}
