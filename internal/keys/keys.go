// Package keys holds the release key, with which a team signs its evidence.
//
// The key is ECDSA on P-256, because that is what every other tool verifies:
// openssl, cosign, in-toto's. Its private half is in one of three places, and
// [Open] takes a reference that names which:
//
//	FILE.age                  a file encrypted with age; inside is a PKCS#8 PEM
//	agent:SHA256:… or COMMENT a key that an SSH agent holds
//	pkcs11:token=…;object=…   a key on a token, behind a PKCS#11 module
//
// The private half is never an argument of a program, in a log or an error, or in
// the clear on a disk. Of a file it is in this process's memory until [Key.Close];
// of the other two it is never here at all. Passphrases and PINs come from functions
// that the caller gives, or a PIN from a file that only its owner reads; a PIN goes
// to its program in that program's environment, which only its own user can read.
//
// Tokens are used through OpenSC's pkcs11-tool, as another program: a PKCS#11 module
// is a shared library, which a static program cannot load, and a fault in one ends
// that program and not this. The tool is given digests, never messages (token.go
// says why). An agent is the other way round: the protocol has no way to sign a
// digest, so it is given the message.
//
// Whatever made a signature, it is verified against the public key before anybody
// gets it. A token that picks another key, or an agent that lies, is an error here
// and not a bundle that does not verify a year later.
package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/crypto/ssh"
)

// Key signs messages. Several goroutines may use one: it signs one message at a
// time, as tokens and people who confirm do.
type Key interface {
	// Public is the key to verify with, always on P-256.
	Public() *ecdsa.PublicKey
	// Sign gives the signature over the SHA-256 of message, as ASN.1 DER.
	Sign(ctx context.Context, message []byte) ([]byte, error)
	// Close forgets the private half, and what opened it.
	Close() error
}

// Options is what keys are opened with. Nothing in it is needed for every key.
type Options struct {
	// Passphrase gives the passphrase of a file, which is named: the age file
	// itself, or an SSH private key of Identities.
	Passphrase func(ctx context.Context, file string) (string, error)
	// PIN gives the PIN of a token, which is named. It is a function of its own,
	// so that no passphrase is ever tried on a token that locks after three.
	PIN func(ctx context.Context, token string) (string, error)
	// Identities are files that open age files: age identities, SSH private keys.
	Identities []string
	// Environ has SSH_AUTH_SOCK, and is what pkcs11-tool and its module see. Nil
	// is this process's own.
	Environ []string
}

func (o Options) environ() []string {
	if o.Environ == nil {
		return os.Environ()
	}
	return o.Environ
}

// getenv gives the last value, as programs that are started with it see it.
func (o Options) getenv(name string) string {
	value := ""
	for _, e := range o.environ() {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// Error says which key cannot be used, and why. It holds no secret.
type Error struct {
	Key    string // how the key was named
	What   string
	Remedy string
	Err    error // what lies below, or nil
}

func (e *Error) Error() string {
	s := e.Key + ": " + e.What
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Hint is what to type or do next.
func (e *Error) Hint() string { return e.Remedy }

const (
	agentPrefix = "agent:"
	tokenPrefix = "pkcs11:"
)

// prefixed tells what kind of reference one is. Case does not count: a mistyped
// PKCS11: with a PIN in it must not become the name of a file that is not there.
func prefixed(ref, prefix string) bool {
	return len(ref) >= len(prefix) && strings.EqualFold(ref[:len(prefix)], prefix)
}

// Open opens a key by its reference. An age file asks for its passphrase now; a
// token for its PIN when it signs first, so its public half is free to read.
func Open(ctx context.Context, ref string, o Options) (Key, error) {
	switch {
	case prefixed(ref, tokenPrefix):
		return openToken(ctx, ref, o)
	case prefixed(ref, agentPrefix):
		return openAgent(ctx, ref[len(agentPrefix):], o)
	case ref == "":
		return nil, &Error{Key: "the release key", What: "its reference is empty", Remedy: forms()}
	}
	return openFile(ctx, ref, o)
}

func forms() string {
	return "name a key as FILE.age, agent:SHA256:…, agent:COMMENT or 'pkcs11:token=…;object=…'"
}

// key is every kind of key: they differ in sign alone, so that each signature goes
// through one check.
type key struct {
	name string
	pub  *ecdsa.PublicKey

	mu   sync.Mutex
	sign func(ctx context.Context, message []byte) ([]byte, error) // nil: closed
}

func (k *key) Public() *ecdsa.PublicKey { return k.pub }

func (k *key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sign == nil {
		return nil, &Error{Key: k.name, What: "the key was closed", Remedy: "open it again"}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sig, err := k.sign(ctx, message)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(message)
	if !ecdsa.VerifyASN1(k.pub, digest[:], sig) {
		return nil, &Error{
			Key: k.name, What: "what it signed does not verify with its public key",
			Remedy: "nothing was written: the public and the private half may not be of one pair; sign with another key, and find out why",
		}
	}
	return sig, nil
}

func (k *key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sign = nil
	return nil
}

// p256 refuses every other key, whatever it was read from.
func p256(name string, pub any) (*ecdsa.PublicKey, error) {
	what := ""
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
		what = k.Curve.Params().Name
	default:
		what = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", pub), "*"), "crypto/"), ".PublicKey")
	}
	return nil, wrongKind(name, what)
}

func wrongKind(name, what string) *Error {
	return &Error{
		Key: name, What: "it is a key of type " + what + "; the release key is ECDSA on P-256",
		Remedy: "choose or make another key: ssh-keygen -t ecdsa -b 256, pkcs11-tool --keypairgen --key-type EC:prime256v1",
	}
}

// SSHPublic gives the public key as a line of authorized_keys, without its end.
func SSHPublic(pub *ecdsa.PublicKey, comment string) (string, error) {
	if strings.ContainsFunc(comment, unicode.IsControl) {
		return "", errors.New("the comment of an SSH key is one line of text")
	}
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return strings.TrimSpace(strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k)), "\n") + " " + comment), nil
}
