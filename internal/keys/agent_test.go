package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// serve answers on a socket as an agent, and gives the environment that names it.
func serve(t *testing.T, a agent.Agent) []string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = agent.ServeAgent(a, c) // ends with the connection
			}()
		}
	}()
	return []string{"SSH_AUTH_SOCK=" + socket}
}

func ec(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func fingerprint(t *testing.T, pub any) string {
	t.Helper()
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.FingerprintSHA256(p)
}

func add(t *testing.T, a agent.Agent, comment string, private any) {
	t.Helper()
	if err := a.Add(agent.AddedKey{PrivateKey: private, Comment: comment}); err != nil {
		t.Fatal(err)
	}
}

func TestAgent(t *testing.T) {
	ring := agent.NewKeyring()
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	release, twin := ec(t, elliptic.P256()), ec(t, elliptic.P256())
	add(t, ring, "anna@example", edwards)
	add(t, ring, "anna@example", release)
	add(t, ring, "twins", twin)
	add(t, ring, "twins", ec(t, elliptic.P256()))
	add(t, ring, "large", ec(t, elliptic.P384()))
	add(t, ring, "large", edwardsAgain(t))
	o := Options{Environ: serve(t, ring)}

	for _, ref := range []string{"agent:anna@example", "agent:" + fingerprint(t, &release.PublicKey)} {
		k, err := Open(t.Context(), ref, o)
		if err != nil {
			t.Fatal(err)
		}
		if !k.Public().Equal(&release.PublicKey) {
			t.Errorf("%s: another key", ref)
		}
		conforms(t, k)
	}
	twinPrint := fingerprint(t, &twin.PublicKey)
	for ref, what := range map[string][]string{
		"agent:twins": {"2 keys", "agent:" + twinPrint},
		"agent:large": {"ecdsa-sha2-nistp384", "ssh-ed25519", "ECDSA on P-256"},
		"agent:" + fingerprint(t, edwards.Public().(ed25519.PublicKey)): {"ssh-ed25519"},
		"agent:nobody":        {"holds 6 keys, and not this one", "ssh-add"},
		"agent:SHA256:nobody": {"holds 6 keys, and not this one"},
		"agent:":              {"names no key"},
	} {
		_, err := Open(t.Context(), ref, o)
		refusedWith(t, err, what...)
	}
	_, err = Open(t.Context(), "agent:"+twinPrint, o)
	if err != nil {
		t.Error(err)
	}

	if err := ring.Lock([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), "agent:anna@example", o)
	refusedWith(t, err, "or is locked", "ssh-add -X")
}

func edwardsAgain(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAgentIsNotThere(t *testing.T) {
	_, err := Open(t.Context(), "agent:x", Options{Environ: []string{"HOME=/"}})
	refusedWith(t, err, "SSH_AUTH_SOCK is not set")
	_, err = Open(t.Context(), "agent:x", Options{Environ: []string{"SSH_AUTH_SOCK=" + filepath.Join(t.TempDir(), "none")}})
	refusedWith(t, err, "does not answer")
	// Nil is the process's own environment, and no fallback for one that says less.
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(t.TempDir(), "own"))
	_, err = Open(t.Context(), "agent:x", Options{})
	refusedWith(t, err, "does not answer", "own")
}

// crooked is an agent that answers a request to sign with what it likes.
type crooked struct {
	agent.Agent
	answer func(ssh.PublicKey, []byte) (*ssh.Signature, error)
}

func (c *crooked) Sign(k ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return c.answer(k, data)
}

func TestAgentThatErrs(t *testing.T) {
	ring := agent.NewKeyring()
	add(t, ring, "k", ec(t, elliptic.P256()))
	blob := func(r, s int64) []byte {
		return ssh.Marshal(struct{ R, S *big.Int }{big.NewInt(r), big.NewInt(s)})
	}
	for name, c := range map[string]struct {
		answer func(ssh.PublicKey, []byte) (*ssh.Signature, error)
		what   string
	}{
		"other bytes": {func(k ssh.PublicKey, data []byte) (*ssh.Signature, error) { return ring.Sign(k, append(data, 'x')) }, "does not verify"},
		"other form": {func(k ssh.PublicKey, data []byte) (*ssh.Signature, error) {
			s, err := ring.Sign(k, data)
			s.Format = ssh.KeyAlgoED25519
			return s, err
		}, "not one of ECDSA on P-256"},
		"garbage": {func(ssh.PublicKey, []byte) (*ssh.Signature, error) {
			return &ssh.Signature{Format: ssh.KeyAlgoECDSA256, Blob: []byte("no")}, nil
		}, "not one of ECDSA on P-256"},
		"zero": {func(ssh.PublicKey, []byte) (*ssh.Signature, error) {
			return &ssh.Signature{Format: ssh.KeyAlgoECDSA256, Blob: blob(0, 1)}, nil
		}, "not positive"},
		"made up": {func(ssh.PublicKey, []byte) (*ssh.Signature, error) {
			return &ssh.Signature{Format: ssh.KeyAlgoECDSA256, Blob: blob(5, 7)}, nil
		}, "does not verify"},
		"the person's": {func(ssh.PublicKey, []byte) (*ssh.Signature, error) { return nil, errors.New("no") }, "does not sign"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Open(t.Context(), "agent:k", Options{Environ: serve(t, &crooked{ring, c.answer})})
			if err != nil {
				t.Fatal(err)
			}
			_, err = k.Sign(t.Context(), []byte("message"))
			refusedWith(t, err, c.what)
		})
	}
	t.Run("silence", func(t *testing.T) {
		end := make(chan struct{})
		defer close(end)
		k, err := Open(t.Context(), "agent:k", Options{Environ: serve(t, &crooked{ring, func(ssh.PublicKey, []byte) (*ssh.Signature, error) {
			<-end
			return nil, errors.New("late")
		}})})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := k.Sign(ctx, []byte("message")); !errors.Is(err, context.Canceled) {
			t.Errorf("a silent agent: %v", err)
		}
	})
}

func TestOpenSSHAgent(t *testing.T) {
	if _, err := exec.LookPath("ssh-agent"); err != nil {
		t.Fatal("needs openssh-client: make packages-test")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("ssh-agent made no socket")
		}
	}
	env := []string{"SSH_AUTH_SOCK=" + socket}
	o := Options{Environ: env}
	_, err := Open(t.Context(), "agent:release key", o)
	refusedWith(t, err, "holds no keys")
	for _, k := range [][]string{{"release", "release key", "ecdsa", "256"}, {"other", "other", "ecdsa", "256"}, {"large", "large", "ecdsa", "384"}} {
		file := filepath.Join(dir, k[0])
		program(t, nil, nil, "ssh-keygen", "-q", "-N", "", "-t", k[2], "-b", k[3], "-C", k[1], "-f", file)
		program(t, env, nil, "ssh-add", "-q", file)
	}
	_, err = Open(t.Context(), "agent:large", o)
	refusedWith(t, err, "ecdsa-sha2-nistp384")
	// 256 SHA256:… release key (ECDSA)
	listed := program(t, nil, nil, "ssh-keygen", "-l", "-f", filepath.Join(dir, "release.pub"))
	line, err := os.ReadFile(filepath.Join(dir, "release.pub"))
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"agent:release key", "agent:" + strings.Fields(string(listed))[1]} {
		k, err := Open(t.Context(), ref, o)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := SSHPublic(k.Public(), "release key"); err != nil || got+"\n" != string(line) {
			t.Errorf("public half %q, %v; want %q", got, err, line)
		}
		_, err = k.Sign(t.Context(), make([]byte, 300_000))
		refusedWith(t, err, "does not sign 300000 bytes", "given a digest")
		// The agent hung up on that; the next message is signed all the same.
		conforms(t, k)
	}
	k, err := Open(t.Context(), "agent:release key", o)
	if err != nil {
		t.Fatal(err)
	}
	program(t, env, nil, "ssh-add", "-q", "-D")
	_, err = k.Sign(t.Context(), []byte("gone"))
	refusedWith(t, err, "does not sign", "ssh-add -l")
}
