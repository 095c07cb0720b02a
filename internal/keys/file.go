package keys

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"trysail/internal/secret"
	"trysail/internal/tree"
)

const (
	maxFile = 64 << 10 // a key to a hundred people has twenty

	// leastPassphrase is in characters. The file may go where others can copy it,
	// and then only scrypt and this stand before the key.
	leastPassphrase = 12

	ageHeader = "age-encryption.org/"
	clearKey  = "PRIVATE KEY-----"
)

// Passphrase makes a recipient of a passphrase, for [Generate]. It cannot stand
// beside others.
func Passphrase(passphrase string) (age.Recipient, error) {
	if utf8.RuneCountInString(passphrase) < leastPassphrase {
		return nil, &Error{
			Key: "the new key", What: fmt.Sprintf("its passphrase has fewer than %d characters", leastPassphrase),
			Remedy: "take five words by chance, or encrypt to age recipients or SSH public keys instead",
		}
	}
	return age.NewScryptRecipient(passphrase)
}

// Generate makes a new key in a new age file, for recipients of
// [secret.Recipients] or one of [Passphrase]. The file is text, so that it can be
// kept where text is kept, and age opens it without this program.
func Generate(file string, recipients ...age.Recipient) (*ecdsa.PublicKey, error) {
	switch {
	case filepath.Ext(file) != ".age" || prefixed(file, agentPrefix) || prefixed(file, tokenPrefix):
		return nil, &Error{Key: file, What: "a key's file is named FILE.age", Remedy: "give another name: release-key.age"}
	case len(recipients) == 0:
		return nil, &Error{Key: file, What: "nobody could open it", Remedy: "give a passphrase, age recipients (age1…) or SSH public keys"}
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	data, err := secret.Encrypt(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), recipients)
	if err != nil {
		return nil, &Error{Key: file, What: "it cannot be encrypted", Remedy: "a passphrase stands alone, without other recipients", Err: err}
	}
	var text bytes.Buffer
	w := armor.NewWriter(&text)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := writeNew(file, text.Bytes()); err != nil {
		return nil, err
	}
	return &k.PublicKey, nil
}

// writeNew writes a file that is not there. A half of one that could not be written
// is removed: it opens nothing.
func writeNew(file string, data []byte) error {
	d, err := tree.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer d.Close()
	f, err := d.Create(filepath.Base(file), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &Error{Key: file, What: "it is there already, and a key is never overwritten", Remedy: "give another name; keep the old key's public half, which verifies what it signed"}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, d.Remove(filepath.Base(file)))
	}
	return d.File().Sync()
}

func openFile(ctx context.Context, name string, o Options) (Key, error) {
	data, err := readSmall(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Key: name, What: "no such file", Remedy: forms()}
	}
	if err != nil {
		return nil, err
	}
	torn := func(err error) error {
		return &Error{Key: name, What: "the file is torn or was changed", Remedy: "take it from where it is kept twice", Err: err}
	}
	var src io.Reader = bytes.NewReader(data)
	switch head := bytes.TrimSpace(data); {
	case bytes.HasPrefix(data, []byte(ageHeader)):
	case bytes.HasPrefix(head, []byte(armor.Header)):
		src = armor.NewReader(src)
	case bytes.Contains(data, []byte(clearKey)):
		return nil, &Error{
			Key: name, What: "it holds a private key in the clear",
			Remedy: "encrypt it, and remove the clear one: openssl pkcs8 -topk8 -nocrypt -in FILE | age -p -o release-key.age; shred -u FILE",
		}
	default:
		return nil, &Error{Key: name, What: "it is not an age file", Remedy: forms()}
	}
	u := &unlocker{ctx: ctx, file: name, o: o}
	r, err := age.Decrypt(src, u)
	var ours *Error
	var no *age.NoIdentityMatchError
	switch {
	case errors.As(err, &ours):
		return nil, ours
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case u.err != nil:
		return nil, u.err
	case errors.As(err, &no):
		return nil, &Error{Key: name, What: "none of the identities opens it", Remedy: "give an age identity file, or an SSH private key, that it was encrypted to"}
	case err != nil:
		return nil, torn(err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return nil, torn(err)
	}
	defer clear(plain)
	priv, err := parsePrivate(name, plain)
	if err != nil {
		return nil, err
	}
	return &key{name: name, pub: &priv.PublicKey, sign: func(_ context.Context, message []byte) ([]byte, error) {
		digest := sha256.Sum256(message)
		return ecdsa.SignASN1(rand.Reader, priv, digest[:])
	}}, nil
}

func readSmall(name string) ([]byte, error) {
	f, err := tree.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, &Error{Key: name, What: fmt.Sprintf("more than %d bytes are no key", maxFile), Remedy: forms()}
	}
	return data, nil
}

// parsePrivate reads what was encrypted: one private key, and nothing else.
func parsePrivate(name string, plain []byte) (*ecdsa.PrivateKey, error) {
	const remedy = "make one with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | age -p -o release-key.age"
	block, rest := pem.Decode(plain)
	switch {
	case block == nil:
		return nil, &Error{Key: name, What: "what is encrypted in it is not a PEM", Remedy: remedy}
	case block.Type != "PRIVATE KEY":
		return nil, &Error{
			Key: name, What: fmt.Sprintf("what is encrypted in it is a PEM of type %.40q, not PRIVATE KEY (PKCS#8)", block.Type),
			Remedy: "age -d " + name + " | openssl pkcs8 -topk8 -nocrypt | age -p -o release-key.age",
		}
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, &Error{Key: name, What: "more than one key is encrypted in it, or something else beside one", Remedy: "encrypt one PKCS#8 PEM alone"}
	}
	defer clear(block.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		// The cause is not told: it may show some of what it could not read.
		return nil, &Error{Key: name, What: "the private key in it cannot be read", Remedy: remedy}
	}
	priv, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, wrongKind(name, strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", k), "*"), ".PrivateKey"))
	}
	if _, err := p256(name, &priv.PublicKey); err != nil {
		return nil, err
	}
	return priv, nil
}

// unlocker opens one age file. It looks at what the file was encrypted to first, so
// that nobody is asked for a passphrase that is not needed.
type unlocker struct {
	ctx  context.Context
	file string
	o    Options
	err  error // why an answer was not had; age hides some
}

// Unwrap is age's.
func (u *unlocker) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) == 1 && stanzas[0].Type == "scrypt" {
		return u.byPassphrase(stanzas)
	}
	for _, file := range u.o.Identities {
		ids, err := u.identities(file)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			key, err := id.Unwrap(stanzas)
			switch {
			case err == nil:
				return key, nil
			case u.err != nil:
				return nil, u.err
			case !errors.Is(err, age.ErrIncorrectIdentity):
				return nil, &Error{Key: u.file, What: "the identity " + file + " does not open it", Remedy: "check its passphrase: ssh-keygen -y -f " + file, Err: err}
			}
		}
	}
	return nil, age.ErrIncorrectIdentity
}

func (u *unlocker) byPassphrase(stanzas []*age.Stanza) ([]byte, error) {
	p, err := u.ask(u.file)
	if err != nil {
		return nil, err
	}
	wrong := &Error{Key: u.file, What: "the passphrase is wrong", Remedy: "try again; what age -d " + u.file + " takes is right"}
	if p == "" {
		return nil, wrong
	}
	id, err := age.NewScryptIdentity(p)
	if err != nil {
		return nil, err
	}
	key, err := id.Unwrap(stanzas)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, wrong
	}
	return key, err
}

func (u *unlocker) ask(file string) (string, error) {
	if u.o.Passphrase == nil {
		u.err = &Error{Key: file, What: "it needs a passphrase, and there is nobody to ask", Remedy: "run it on a terminal, or give the passphrase in a file"}
		return "", u.err
	}
	p, err := u.o.Passphrase(u.ctx, file)
	if err != nil {
		u.err = fmt.Errorf("passphrase of %s: %w", file, err)
	}
	return p, u.err
}

// identities reads an identity file. An SSH key with a passphrase is opened only if
// the age file is for it.
func (u *unlocker) identities(file string) ([]age.Identity, error) {
	ids, err := secret.ReadIdentities(file)
	var locked *ssh.PassphraseMissingError
	if err == nil {
		return ids, nil
	}
	if !errors.As(err, &locked) {
		return nil, &Error{Key: u.file, What: "an identity cannot be used", Remedy: "an identity is a file of age-keygen, or an SSH private key of type ssh-ed25519 or ssh-rsa", Err: err}
	}
	pub := locked.PublicKey
	if pub == nil { // the old PEM format, which does not hold it
		line, err := tree.ReadFile(file+".pub", maxFile)
		if err == nil {
			pub, _, _, _, err = ssh.ParseAuthorizedKey(line)
		}
		if err != nil {
			return nil, &Error{Key: u.file, What: "the public half of the identity " + file + " is not known", Remedy: "ssh-keygen -y -f " + file + " > " + file + ".pub", Err: err}
		}
	}
	data, err := tree.ReadFile(file, maxFile)
	if err != nil {
		return nil, err
	}
	id, err := agessh.NewEncryptedSSHIdentity(pub, data, func() ([]byte, error) {
		p, err := u.ask(file)
		return []byte(p), err
	})
	if err != nil {
		return nil, &Error{Key: u.file, What: "the identity " + file + " cannot be used", Remedy: "give an SSH key of type ssh-ed25519 or ssh-rsa", Err: err}
	}
	return []age.Identity{id}, nil
}
