package keys

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trysail/internal/tree"
)

// What pkcs11-tool does, seen with OpenSC 0.23 (Debian 12) and SoftHSM 2.6:
//
//   - ECDSA-SHA256 is refused by tokens that only know ECDSA over a digest, SoftHSM
//     among them, and OpenSC's own module fails with it for messages of more than
//     about a kilobyte (OpenSC issue 2469). So the digest is made here, and the size
//     of a message does not matter.
//   - --sign ignores --label and takes the first private key that it finds, without a
//     word. So a label is looked up first, and what signs is named by its ID.
//   - --read-object takes the first object of several, and -O lists all whatever
//     else it is told. So the list is read, and counted, here.
//   - Of two tokens with one label it takes the first. So tokens are counted too.
//   - A PIN whose variable is not set is asked for on stdin. So it gets none there.
const (
	toolName = "pkcs11-tool"
	pinName  = "TRYSAIL_TOKEN_PIN"
	maxPIN   = 1 << 10
)

// token is one key behind a PKCS#11 module.
type token struct {
	uri     uri
	id      string // hexadecimal
	tool    string
	environ []string
	ask     func(context.Context, string) (string, error)

	pin     string
	refusal error // a PIN that was wrong once is never tried again: the third time locks
}

// openToken finds a key on a token and reads its public half, for which no PIN is
// needed.
func openToken(ctx context.Context, ref string, o Options) (Key, error) {
	u, err := parseURI(ref)
	if err != nil {
		return nil, err
	}
	t := &token{uri: u, environ: o.environ(), ask: o.PIN}
	if t.tool, err = exec.LookPath(toolName); err != nil {
		return nil, &Error{Key: u.key(), What: "the program " + toolName + " is not installed", Remedy: "sudo apt install opensc", Err: err}
	}
	tokens, err := t.run(ctx, "", nil, "--list-token-slots")
	if err != nil {
		return nil, err
	}
	switch n := countTokens(tokens, u.token); {
	case n == 0:
		return nil, t.fail("there is no such token", t.command("--list-token-slots")+" lists those that are there", nil)
	case n > 1:
		return nil, t.fail(fmt.Sprintf("%d tokens have this label", n), "take out all but one, or give them other labels", nil)
	}
	list, err := t.run(ctx, "", nil, "--token-label", u.token, "--list-objects", "--type", "pubkey")
	if err != nil {
		return nil, err
	}
	found, err := t.choose(parseObjects(list))
	if err != nil {
		return nil, err
	}
	t.id = found.id
	read := []string{"--token-label", u.token, "--read-object", "--type", "pubkey", "--id", t.id}
	if u.object != "" {
		read = append(read, "--label", u.object)
	}
	der, err := t.run(ctx, "", nil, read...)
	if err != nil {
		if ctx.Err() == nil && !strings.Contains(found.kind, "EC_POINT 256 ") {
			return nil, wrongKind(u.key(), found.kind) // some versions cannot read other curves
		}
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, t.fail("its public half cannot be read", "the release key is ECDSA on P-256; see what "+t.command("--token-label", u.token, "--list-objects", "--type", "pubkey")+" says of it", err)
	}
	ec, err := p256(u.key(), pub)
	if err != nil {
		return nil, err
	}
	return &key{name: u.key(), pub: ec, sign: t.sign}, nil
}

// sign is called by one at a time.
func (t *token) sign(ctx context.Context, message []byte) ([]byte, error) {
	if t.refusal != nil {
		return nil, t.refusal
	}
	if t.pin == "" {
		pin, err := t.readPIN(ctx)
		if err != nil {
			return nil, err
		}
		t.pin = pin
	}
	// The signature comes in a file, because modules print what they like to stdout.
	dir, err := os.MkdirTemp("", "trysail-sign-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "signature")
	digest := sha256.Sum256(message)
	_, err = t.run(ctx, t.pin, digest[:], "--token-label", t.uri.token, "--login", "--sign", "--mechanism", "ECDSA",
		"--id", t.id, "--signature-format", "openssl", "--output-file", out)
	var wrong *pinError
	if errors.As(err, &wrong) {
		t.pin, t.refusal = "", err
	}
	if err != nil {
		return nil, err
	}
	sig, err := os.ReadFile(out)
	if err != nil {
		return nil, t.fail("pkcs11-tool wrote no signature", "try "+t.command("--token-label", t.uri.token, "--login", "--test"), err)
	}
	return sig, nil
}

func (t *token) readPIN(ctx context.Context) (string, error) {
	file := t.uri.pin
	if file == "" {
		if t.ask == nil {
			return "", t.fail("the token needs its PIN, and there is nobody to ask", "run it on a terminal, or write ?pin-source=/path/to/file", nil)
		}
		pin, err := t.ask(ctx, t.uri.key())
		if err != nil {
			return "", fmt.Errorf("PIN of %s: %w", t.uri.key(), err)
		}
		return t.usable(pin, "it was not tried; give the PIN")
	}
	f, err := tree.OpenFile(file)
	var kind *tree.KindError
	if errors.As(err, &kind) {
		return "", t.fail(file+" is not a file with a PIN", "mend pin-source", nil)
	}
	if err != nil {
		return "", t.fail("the file with its PIN cannot be read", "make the file yours, or mend pin-source", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case info.Size() > maxPIN:
		return "", t.fail(file+" is not a file with a PIN", "mend pin-source", nil)
	case info.Mode().Perm()&0o077 != 0:
		return "", t.fail(fmt.Sprintf("others can read the PIN in %s, whose mode is %04o", file, info.Mode().Perm()), "chmod 600 "+file, nil)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPIN))
	if err != nil {
		return "", t.fail("the file with its PIN cannot be read", "make it yours: its user runs this", err)
	}
	return t.usable(strings.TrimRight(string(data), "\r\n"), "it was not tried; put one line with the PIN into "+file)
}

// usable refuses what cannot be a PIN before it costs a try.
func (t *token) usable(pin, remedy string) (string, error) {
	if pin == "" || strings.ContainsAny(pin, "\x00\r\n") {
		return "", t.fail("its PIN is empty or more than a line", remedy, nil)
	}
	return pin, nil
}

// run runs pkcs11-tool. The PIN, if it needs one, is in its environment.
func (t *token) run(ctx context.Context, pin string, stdin []byte, args ...string) ([]byte, error) {
	if t.uri.module != "" {
		args = append([]string{"--module", t.uri.module}, args...)
	}
	env := append(slices.Clone(t.environ), "LC_ALL=C")
	if pin != "" {
		args = append(args, "--pin", "env:"+pinName)
		env = append(env, pinName+"="+pin)
	}
	cmd := exec.CommandContext(ctx, t.tool, args...)
	cmd.Env = env
	cmd.WaitDelay = 2 * time.Second // a module may have started programs that keep the pipes
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &exit):
		return nil, t.explain(stderr.String())
	}
	return nil, t.fail(toolName+" cannot be run", "sudo apt install --reinstall opensc", err)
}

// pinError says that a token refused its PIN, or takes none any more.
type pinError struct{ err *Error }

func (e *pinError) Error() string { return e.err.Error() }
func (e *pinError) Unwrap() error { return e.err }

// explain says what the tool's own words mean.
func (t *token) explain(stderr string) error {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(stderr, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("CKR_PIN_LOCKED"):
		return &pinError{t.fail("the token is locked: too many wrong PINs", "whoever has its SO-PIN sets a new PIN: "+t.command("--token-label", t.uri.token, "--login", "--login-type", "so", "--init-pin"), nil)}
	case has("CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE"):
		return &pinError{t.fail("the PIN is wrong", "it was tried once; most tokens lock after three wrong ones, so see that it is right first", nil)}
	case has("CKR_PIN_EXPIRED", "CKR_USER_PIN_NOT_INITIALIZED"):
		return &pinError{t.fail("the token's PIN must be set first", t.command("--token-label", t.uri.token, "--login", "--change-pin"), nil)}
	case has("Failed to load pkcs11 module"):
		module := t.uri.module
		if module == "" {
			module = "OpenSC's own"
		}
		return t.fail("the PKCS#11 module cannot be loaded: "+module, "mend module-path: it is the .so file of the token's maker", errors.New(last(stderr)))
	case has("No slot with token named", "CKR_TOKEN_NOT_PRESENT", "CKR_DEVICE_REMOVED", "No slots"):
		return t.fail("the token is not there", "put it in; "+t.command("--list-token-slots")+" lists those that are there", nil)
	case has("CKR_MECHANISM_INVALID", "CKR_KEY_TYPE_INCONSISTENT", "CKR_KEY_FUNCTION_NOT_PERMITTED"):
		return t.fail("the token does not sign with ECDSA and this key", "see "+t.command("--token-label", t.uri.token, "--list-mechanisms")+"; the key must be made for signing", errors.New(last(stderr)))
	case has("Private key not found", "object not found"):
		return t.fail("the private half is not on the token", t.command("--token-label", t.uri.token, "--login", "--list-objects")+" lists what is; both halves have one ID", nil)
	}
	return t.fail(toolName+" failed", "try "+t.command("--token-label", t.uri.token, "--login", "--test"), errors.New(last(stderr)))
}

// last is the end of what a program said, without its farewell.
func last(stderr string) string {
	const most = 300
	s := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(stderr), "Aborting."))
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if s == "" {
		return "it said nothing"
	}
	return strings.ToValidUTF8(s[max(0, len(s)-most):], "")
}

func (t *token) fail(what, remedy string, err error) *Error {
	return &Error{Key: t.uri.key(), What: what, Remedy: remedy, Err: err}
}

// command is what a person types to look for themselves; it has no PIN in it.
func (t *token) command(args ...string) string {
	words := []string{toolName}
	if t.uri.module != "" {
		words = append(words, "--module", t.uri.module)
	}
	words = append(words, args...)
	for i, w := range words {
		if strings.ContainsFunc(w, func(r rune) bool { return r > 127 || !plain(byte(r)) && r != '/' }) || strings.ContainsAny(w, "~[]!$'()*") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// countTokens counts tokens with a label in a list of slots.
func countTokens(list []byte, label string) int {
	n := 0
	for line := range strings.Lines(string(list)) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if ok && strings.TrimSpace(name) == "token label" && strings.TrimSpace(value) == strings.TrimSpace(label) {
			n++
		}
	}
	return n
}

// object is a public key in a list; kind is the tool's own words for people.
type object struct{ kind, label, id string }

// parseObjects reads a list of public keys. A label may hold anything, so what looks
// like a second ID or label of one key is not read.
func parseObjects(list []byte) []object {
	var all []object
	var inside, labelled, named bool
	for line := range strings.Lines(string(list)) {
		line = strings.TrimRight(line, "\r\n")
		if !strings.HasPrefix(line, " ") {
			var kind string
			kind, inside = strings.CutPrefix(line, "Public Key Object;")
			if inside {
				labelled, named = false, false
				all = append(all, object{kind: strings.TrimSpace(kind)})
			}
			continue
		}
		if !inside {
			continue
		}
		o := &all[len(all)-1]
		if v, ok := strings.CutPrefix(line, "  label:"); ok && !labelled {
			o.label, labelled = strings.TrimSpace(v), true
		}
		if v, ok := strings.CutPrefix(line, "  ID:"); ok && !named {
			o.id, named = strings.ToLower(strings.TrimSpace(v)), true
		}
	}
	return all
}

// choose gives the one key that is meant.
func (t *token) choose(all []object) (object, error) {
	var found []object
	for _, o := range all {
		if (t.uri.object == "" || o.label == strings.TrimSpace(t.uri.object)) && (t.uri.id == "" || o.id == hex.EncodeToString([]byte(t.uri.id))) {
			found = append(found, o)
		}
	}
	list := t.command("--token-label", t.uri.token, "--list-objects", "--type", "pubkey")
	switch {
	case len(found) == 0:
		return object{}, t.fail(fmt.Sprintf("the token shows %d public keys, and not this one", len(all)), list+" lists them; the public half must be there too, to be read without a PIN", nil)
	case len(found) > 1:
		var ids []string
		for _, o := range found {
			if raw, err := hex.DecodeString(o.id); err == nil && len(raw) > 0 {
				ids = append(ids, "id="+escapeID(string(raw)))
			}
		}
		return object{}, t.fail(fmt.Sprintf("%d keys of the token match", len(found)), "name one by its ID ("+strings.Join(ids, ", ")+"); "+list+" lists them", nil)
	}
	if raw, err := hex.DecodeString(found[0].id); err != nil || len(raw) == 0 {
		return object{}, t.fail("the key has no ID, without which pkcs11-tool would sign with any other", "give both halves one: "+t.command("--token-label", t.uri.token, "--login", "--type", "privkey", "--label", t.uri.object, "--set-id", "01"), nil)
	}
	return found[0], nil
}
