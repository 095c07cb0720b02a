package control

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/evidence"
	"trysail/internal/api"
)

// checkpoint answers with the signed head of a release's ledger. With
// ?since=N it proves that the ledger of N events is its beginning, so whoever kept
// an earlier checkpoint can see that nothing before it was changed or removed.
func (c *Control) checkpoint(ctx context.Context, _ *caller, r *http.Request) (any, error) {
	version := r.PathValue("version")
	if err := c.doubted(releaseStream(version)); err != nil {
		return nil, err // it is not to be signed
	}
	// Nobody but who decides may say how it stands, and by now it may be another.
	if err := c.o.Ledger.ConfirmLeader(ctx); err != nil {
		return nil, &standbyError{err}
	}
	s, err := c.stream(version)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	signed, err := c.signCheckpoint(s)
	if err != nil {
		return nil, err
	}
	a, size := api.Checkpoint{Note: string(signed.note), Key: signed.key}, signed.at.Size
	if q := r.URL.Query().Get("since"); q != "" {
		n, err := strconv.ParseInt(q, 10, 64)
		if err == nil && (n < 1 || n > size) {
			err = fmt.Errorf("there are %d events", size)
		}
		if err != nil {
			return nil, &badRequest{fmt.Errorf("since=%s: %w", q, err)}
		}
		proof, err := s.tree.Extends(n)
		if err != nil {
			return nil, err
		}
		for _, h := range proof {
			a.Proof = append(a.Proof, h[:])
		}
	}
	return a, nil
}

// signedNote is a checkpoint as it was signed.
type signedNote struct {
	note []byte
	key  string // that verifies it
	at   evidence.Checkpoint
}

// signCheckpoint signs how a release's ledger stands, whose lock is held.
func (c *Control) signCheckpoint(s *stream) (*signedNote, error) {
	size := s.tree.Size()
	root, err := s.tree.Root(size)
	if err != nil {
		return nil, err
	}
	signer, key, err := c.o.Identity.checkpointKey()
	if err != nil {
		return nil, err
	}
	at := evidence.Checkpoint{Stream: evidence.Stream(s.name), Size: size, Root: root}
	signed, err := note.Sign(&note.Note{Text: at.Text()}, signer)
	return &signedNote{signed, key, at}, err
}

// signCopy signs, for the disk of a machine, the first events of a stream; nil if there are
// not as many, or no key. It does so in doubt too: what is signed is that this machine was
// given them, and a machine that keeps a proof of more takes none of less.
func (c *Control) signCopy(ctx context.Context, stream string, events int64) ([]byte, error) {
	if c.o.Identity == nil {
		return nil, nil
	}
	size, root, err := c.rootAt(ctx, stream, events)
	if err != nil || size < events || len(root) != tlog.HashSize {
		return nil, err
	}
	signer, _, err := c.o.Identity.checkpointKey()
	if err != nil {
		return nil, err
	}
	at := evidence.Checkpoint{Stream: stream, Size: events, Root: tlog.Hash(root)}
	return note.Sign(&note.Note{Text: at.Text()}, signer)
}

// signedFor is the checkpoint of a machine's copy, if this fleet signed it; else nil.
func signedFor(x api.Copy, key func() (note.Verifier, error)) (*evidence.Checkpoint, error) {
	if x.Signature == "" || len(x.Root) != tlog.HashSize {
		return nil, nil
	}
	verifier, err := key()
	if err != nil || verifier == nil {
		return nil, err
	}
	at := evidence.Checkpoint{Stream: x.Stream, Size: x.Events, Root: tlog.Hash(x.Root)}
	if _, err := evidence.ReadNote(at.Note(verifier.Name(), x.Signature), verifier); err != nil {
		return nil, nil // another fleet signed it, or nobody
	}
	return &at, nil
}

// checkpointVerifier verifies what this fleet signed; nil if control has no key.
func (c *Control) checkpointVerifier() (note.Verifier, error) {
	if c.o.Identity == nil {
		return nil, nil
	}
	return c.o.Identity.LedgerVerifier()
}

// LedgerVerifier verifies what controls of this fleet sign of their ledger.
func (i *Identity) LedgerVerifier() (note.Verifier, error) {
	_, key, err := i.checkpointKey()
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(key)
}

// checkpointKey is the key that checkpoints are signed with: each control of a
// fleet derives the same one from the authority's, by HKDF under a label of its
// own, so that there is nothing more to keep, to hand over or to lose.
func (i *Identity) checkpointKey() (note.Signer, string, error) {
	secret, err := i.authority.key.Bytes()
	if err != nil {
		return nil, "", err
	}
	seed, err := hkdf.Key(sha256.New, secret, nil, "trysail checkpoint", ed25519.SeedSize)
	if err != nil {
		return nil, "", err
	}
	public, ok := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	if !ok {
		return nil, "", errors.New("no Ed25519 key")
	}
	verifier, err := note.NewEd25519VerifierKey(evidence.LedgerName(i.Fingerprint()), public)
	if err != nil {
		return nil, "", err
	}
	// The private form of x/mod's own: name, hash, and the algorithm before the seed.
	f := strings.SplitN(verifier, "+", 3)
	private := "PRIVATE+KEY+" + f[0] + "+" + f[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, seed...))
	signer, err := note.NewSigner(private)
	return signer, verifier, err
}
