package evidence

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"trysail/internal/strict"
	"trysail/runbook"
)

// Signer is one line of an allowed_signers file.
type Signer struct {
	Line       int
	Principals []string
	Namespaces []string  // none: any
	After      time.Time // zero: always was
	Before     time.Time // zero: for ever
	Key        ssh.PublicKey
}

// Signers says who may sign, for what and when (ssh-keygen(1), ALLOWED SIGNERS).
type Signers []Signer

const signersHelp = "a line is: ann namespaces=\"" + NamespaceSignOff + "\",valid-before=\"20271231Z\" ssh-ed25519 AAAA…"

// ParseSigners reads an allowed_signers file, and refuses what would mean different
// things on two machines, or more than it says at a glance: patterns, authorities, and
// times without a Z, which ssh-keygen takes for those of the machine that it runs on.
func ParseSigners(file string, data []byte) (Signers, error) {
	var list Signers
	err := eachLine(file, data, func(n int, line string) error {
		fail := func(format string, args ...any) error {
			return &strict.Error{File: file, Line: n, What: fmt.Sprintf(format, args...), Remedy: signersHelp}
		}
		who, rest, _ := strings.Cut(line, " ")
		s := Signer{Line: n, Principals: strings.Split(who, ",")}
		for _, p := range s.Principals {
			if p == "" || strings.ContainsAny(p, "*?!\"") {
				return fail("%q names nobody: people are named one by one", p)
			}
		}
		rest, err := s.options(strings.TrimSpace(rest))
		if err != nil {
			return fail("%v", err)
		}
		if s.Key, err = publicKey(rest); err != nil {
			return fail("%v", err)
		}
		list = append(list, s)
		return nil
	})
	return list, err
}

// ParseRevoked reads a list of public keys that are not to be believed any more, as
// ssh-keygen -Y verify -r takes it.
func ParseRevoked(file string, data []byte) (list []ssh.PublicKey, err error) {
	err = eachLine(file, data, func(n int, line string) error {
		k, err := publicKey(line)
		if err != nil {
			return &strict.Error{File: file, Line: n, What: err.Error(), Remedy: "a line is the public key: ssh-ed25519 AAAA…"}
		}
		list = append(list, k)
		return nil
	})
	return list, err
}

// eachLine gives the lines that say something. An empty file says nothing.
func eachLine(file string, data []byte, each func(n int, line string) error) error {
	if len(data) == 0 {
		return nil
	}
	if err := strict.Text(file, data, maxSigners, signersHelp); err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := each(n, line); err != nil {
			return err
		}
	}
	return nil
}

// options reads those before the key, and gives what follows.
func (s *Signer) options(text string) (rest string, err error) {
	if strings.HasPrefix(text, "ssh-") || strings.HasPrefix(text, "ecdsa-") || strings.HasPrefix(text, "sk-") {
		return text, nil
	}
	for {
		name, after, ok := strings.Cut(text, "=\"")
		if !ok || strings.ContainsAny(name, " ,\"") {
			return "", fmt.Errorf("%.40q is no option that is understood (namespaces, valid-after, valid-before)", text)
		}
		value, after, ok := strings.Cut(after, "\"")
		if !ok {
			return "", fmt.Errorf("the value of %s does not end", name)
		}
		switch strings.ToLower(name) {
		case "namespaces":
			if s.Namespaces != nil {
				return "", errors.New("namespaces stands twice")
			}
			s.Namespaces = strings.Split(value, ",")
			for _, n := range s.Namespaces {
				if n == "" || strings.ContainsAny(n, "*?! ") {
					return "", fmt.Errorf("%q is no namespace: they are named one by one", n)
				}
			}
		case "valid-after":
			err = moment(&s.After, value)
		case "valid-before":
			err = moment(&s.Before, value)
		default:
			return "", fmt.Errorf("option %q is not understood (namespaces, valid-after, valid-before)", name)
		}
		if err != nil {
			return "", err
		}
		switch {
		case strings.HasPrefix(after, ","):
			text = after[1:]
		case strings.HasPrefix(after, " "):
			return strings.TrimSpace(after), nil
		default:
			return "", errors.New("no key follows the options")
		}
	}
}

// moment reads a time as ssh-keygen writes it, in UTC.
func moment(t *time.Time, s string) error {
	if !t.IsZero() {
		return errors.New("a time stands twice")
	}
	for _, layout := range []string{"20060102Z", "200601021504Z", "20060102150405Z"} {
		if v, err := time.Parse(layout, s); err == nil {
			*t = v
			return nil
		}
	}
	return fmt.Errorf("%q is no time such as 20271231Z or 20271231235959Z (UTC: the Z must be there)", s)
}

// publicKey reads a type, a key and perhaps a comment.
func publicKey(text string) (ssh.PublicKey, error) {
	f := strings.Fields(text)
	if len(f) < 2 {
		return nil, fmt.Errorf("%.40q is no public key", text)
	}
	raw, err := base64.StdEncoding.DecodeString(f[1])
	if err != nil {
		return nil, fmt.Errorf("%.20q… is no public key: %w", f[1], err)
	}
	k, err := ssh.ParsePublicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%.20q… is no public key: %w", f[1], err)
	}
	if _, isCertificate := k.(*ssh.Certificate); isCertificate || k.Type() != f[0] {
		return nil, fmt.Errorf("the key is a %s, and not a %s", k.Type(), f[0])
	}
	if c, ok := k.(ssh.CryptoPublicKey); ok {
		if r, ok := c.CryptoPublicKey().(interface{ Size() int }); ok && k.Type() == ssh.KeyAlgoRSA && r.Size() < 256 {
			return nil, fmt.Errorf("an RSA key of %d bits is too weak", 8*r.Size())
		}
	}
	return k, nil
}

// equal tells whether two keys are one.
func equal(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// Verify holds an armoured SSH signature over message against the signers: made for
// this namespace, by a key that one of the principals may use for it at that time, and
// that is not revoked.
func (s Signers) Verify(message, armored []byte, namespace string, principals []string, at time.Time, revoked []ssh.PublicKey) (*Signer, error) {
	sig, err := unarmor(armored)
	if err != nil {
		return nil, err
	}
	print := ssh.FingerprintSHA256(sig.PublicKey)
	if sig.Namespace != namespace {
		return nil, fmt.Errorf("the signature is for namespace %q, and not for %q: sign again with ssh-keygen -Y sign -n %s", sig.Namespace, namespace, namespace)
	}
	if err := sshsig.Verify(bytes.NewReader(message), sig, sig.PublicKey, sig.HashAlgorithm, namespace); err != nil {
		return nil, fmt.Errorf("the signature by %s is not of these bytes: %w", print, err)
	}
	if slices.ContainsFunc(revoked, func(k ssh.PublicKey) bool { return equal(k, sig.PublicKey) }) {
		return nil, fmt.Errorf("key %s is revoked", print)
	}
	why := fmt.Errorf("key %s is not among the allowed signers", print)
	for i := range s {
		a := &s[i]
		switch {
		case !equal(a.Key, sig.PublicKey):
			continue
		case !slices.ContainsFunc(a.Principals, func(p string) bool { return slices.Contains(principals, p) }):
			why = fmt.Errorf("key %s is that of %s, and not of %s", print, strings.Join(a.Principals, ", "), principals[0])
		case a.Namespaces != nil && !slices.Contains(a.Namespaces, namespace):
			why = fmt.Errorf("key %s is not allowed for %q", print, namespace)
		case !a.After.IsZero() && at.Before(a.After):
			why = fmt.Errorf("key %s is valid from %s on", print, runbook.FormatTime(a.After, nil))
		case !a.Before.IsZero() && at.After(a.Before):
			why = fmt.Errorf("key %s had expired on %s", print, runbook.FormatTime(a.Before, nil))
		default:
			return a, nil
		}
	}
	return nil, why
}

// unarmor reads one signature and nothing else.
func unarmor(armored []byte) (*sshsig.Signature, error) {
	const begin, end = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----"
	text := strings.TrimRight(string(armored), "\n")
	if len(armored) > 64<<10 || !strings.HasPrefix(text, begin) || !strings.HasSuffix(text, "\n"+end) || strings.Count(text, "-----") != 4 {
		return nil, errors.New("this is no SSH signature, from " + strings.TrimSpace(begin) + " to " + end)
	}
	sig, err := sshsig.Unarmor(armored)
	if err != nil {
		return nil, fmt.Errorf("the SSH signature cannot be read: %w", err)
	}
	if sig.PublicKey == nil || sig.Signature == nil || (sig.HashAlgorithm != sshsig.HashSHA256 && sig.HashAlgorithm != sshsig.HashSHA512) {
		return nil, errors.New("the SSH signature cannot be read")
	}
	return sig, nil
}
