package keys

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trysail/evidence"
)

// program runs a real program and gives its stdout.
func program(t *testing.T, env []string, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	out, err := try(t, env, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return out
}

func try(t *testing.T, env []string, stdin []byte, name string, args ...string) ([]byte, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("needs %s: make packages-test", name)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(err, errors.New(stderr.String()))
	}
	return stdout.Bytes(), nil
}

func write(t *testing.T, name string, data []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(name, data, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// refusedWith asserts an error that says this, and what to type next.
func refusedWith(t *testing.T, err error, what ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", what)
	}
	var h interface{ Hint() string }
	if !errors.As(err, &h) || h.Hint() == "" {
		t.Errorf("%v: has no hint", err)
		return
	}
	for _, w := range what {
		if !strings.Contains(err.Error()+"\n"+h.Hint(), w) {
			t.Errorf("%v (hint: %s)\nwant %q", err, h.Hint(), w)
		}
	}
}

// opensslVerifies asks the tool that everybody has.
func opensslVerifies(t *testing.T, pub *ecdsa.PublicKey, message, sig []byte) bool {
	t.Helper()
	dir := t.TempDir()
	p, err := evidence.PublicPEM(pub)
	if err != nil {
		t.Fatal(err)
	}
	_, err = try(t, nil, nil, "openssl", "dgst", "-sha256", "-verify", write(t, filepath.Join(dir, "pub.pem"), p, 0o600),
		"-signature", write(t, filepath.Join(dir, "sig"), sig, 0o600), write(t, filepath.Join(dir, "message"), message, 0o600))
	if err != nil && !strings.Contains(err.Error(), "exit status 1") {
		t.Fatal(err)
	}
	return err == nil
}

// conforms is what every kind of key does. It closes the key.
func conforms(t *testing.T, k Key) {
	t.Helper()
	for _, message := range [][]byte{nil, []byte("DSSEv1 1 a 1 b"), bytes.Repeat([]byte{0, 0xff, '\n'}, 40_000)} {
		sig, err := k.Sign(t.Context(), message)
		if err != nil {
			t.Fatal(err)
		}
		if !opensslVerifies(t, k.Public(), message, sig) {
			t.Errorf("openssl does not verify what was signed over %d bytes", len(message))
		}
		if opensslVerifies(t, k.Public(), append(bytes.Clone(message), 'x'), sig) {
			t.Errorf("openssl verifies another message")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Sign(ctx, []byte("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("signing after cancel: %v", err)
	}
	for range 2 {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := k.Sign(t.Context(), []byte("closed"))
	refusedWith(t, err, "was closed")
}

func TestOpenNeedsAReference(t *testing.T) {
	_, err := Open(t.Context(), "", Options{})
	refusedWith(t, err, "reference is empty", "pkcs11:token=")
}

func TestPublicHalves(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := evidence.PublicPEM(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(program(t, nil, p, "openssl", "ec", "-pubin", "-text", "-noout")); !strings.Contains(got, "NIST CURVE: P-256") {
		t.Errorf("openssl reads %s", got)
	}
	line, err := SSHPublic(&k.PublicKey, "release key")
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(t.TempDir(), "key.pub"), []byte(line+"\n"), 0o600)
	// The other way round: what ssh-keygen makes of the line is the PEM.
	if got := program(t, nil, nil, "ssh-keygen", "-e", "-m", "PKCS8", "-f", file); !bytes.Equal(got, p) {
		t.Errorf("ssh-keygen reads\n%swant\n%s", got, p)
	}
	if !strings.HasPrefix(line, "ecdsa-sha2-nistp256 AAAA") || !strings.HasSuffix(line, " release key") {
		t.Errorf("line %q", line)
	}
	if bare, err := SSHPublic(&k.PublicKey, ""); err != nil || strings.TrimSpace(bare) != bare {
		t.Errorf("line without comment: %q, %v", bare, err)
	}
	if _, err := SSHPublic(&k.PublicKey, "two\nlines"); err == nil {
		t.Error("a comment of two lines would be two keys")
	}
}

// What does not verify is not handed out, whoever signed it.
func TestEverySignatureIsVerified(t *testing.T) {
	mine, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &key{name: "test", pub: &mine.PublicKey, sign: func(_ context.Context, message []byte) ([]byte, error) {
		digest := sha256.Sum256(message)
		return ecdsa.SignASN1(rand.Reader, other, digest[:])
	}}
	sig, err := k.Sign(t.Context(), []byte("message"))
	refusedWith(t, err, "does not verify")
	if sig != nil {
		t.Error("the signature was given all the same")
	}
}
