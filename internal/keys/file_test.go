package keys

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"trysail/evidence"
	"trysail/internal/secret"
)

const goodPassphrase = "five random words are enough"

func answer(p string) func(context.Context, string) (string, error) {
	return func(context.Context, string) (string, error) { return p, nil }
}

// identity makes an age identity file.
func identity(t *testing.T, dir string) (file string, r age.Recipient, recipient string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file = write(t, filepath.Join(dir, id.Recipient().String()[:12]+".txt"), []byte("# an identity\n"+id.String()+"\n"), 0o600)
	return file, id.Recipient(), id.Recipient().String()
}

func TestFileWithPassphrase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.age")
	r, err := Passphrase(goodPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.(*age.ScryptRecipient).SetWorkFactor(10) // of the 18 that cost a second each
	pub, err := Generate(file, r)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("PRIVATE")) || !bytes.HasPrefix(data, []byte(armor.Header)) {
		t.Errorf("the file holds\n%s", data)
	}
	var asked []string
	k, err := Open(t.Context(), file, Options{Passphrase: func(_ context.Context, of string) (string, error) {
		asked = append(asked, of)
		return goodPassphrase, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || asked[0] != file {
		t.Errorf("asked for %q", asked)
	}
	if !k.Public().Equal(pub) {
		t.Error("another key came back")
	}
	conforms(t, k)

	_, err = Open(t.Context(), file, Options{Passphrase: answer("five random words are wrong")})
	refusedWith(t, err, "the passphrase is wrong")
	_, err = Open(t.Context(), file, Options{Passphrase: answer("")})
	refusedWith(t, err, "the passphrase is wrong")
	_, err = Open(t.Context(), file, Options{})
	refusedWith(t, err, "nobody to ask")
	_, err = Open(t.Context(), file, Options{Passphrase: func(context.Context, string) (string, error) { return "", io.ErrUnexpectedEOF }})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the callback's error became %v", err)
	}

	_, err = Generate(file, r)
	refusedWith(t, err, "never overwritten")
	if again, _ := os.ReadFile(file); !bytes.Equal(again, data) {
		t.Error("the file was changed")
	}
}

func TestGenerateRefuses(t *testing.T) {
	dir := t.TempDir()
	_, r, _ := identity(t, dir)
	phrase, err := age.NewScryptRecipient(goodPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	phrase.SetWorkFactor(10)
	for name, c := range map[string]struct {
		file string
		to   []age.Recipient
		what string
	}{
		"no name of a file": {"release-key", []age.Recipient{r}, "FILE.age"},
		"name of an agent":  {"agent:key.age", []age.Recipient{r}, "FILE.age"},
		"nobody":            {"a.age", nil, "nobody could open it"},
		"both":              {"b.age", []age.Recipient{r, phrase}, "cannot be encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(dir)
			_, err := Generate(c.file, c.to...)
			refusedWith(t, err, c.what)
			if _, err := os.Stat(c.file); err == nil {
				t.Error("a file was written")
			}
		})
	}
	_, err = Passphrase("elevenchars")
	refusedWith(t, err, "fewer than 12")
}

// The same key to age identities and SSH keys of every kind, and back with age itself.
func TestFileForPeople(t *testing.T) {
	dir := t.TempDir()
	idFile, _, idLine := identity(t, dir)
	ssh := func(name, passphrase string, args ...string) string {
		file := filepath.Join(dir, name)
		program(t, nil, nil, "ssh-keygen", append([]string{"-q", "-a", "1", "-N", passphrase, "-C", name, "-f", file}, args...)...)
		return file
	}
	keys := map[string]string{
		"ed25519":                 ssh("ed25519", "", "-t", "ed25519"),
		"ed25519 with passphrase": ssh("ed25519-locked", goodPassphrase, "-t", "ed25519"),
		"rsa in PEM, locked":      ssh("rsa-locked", goodPassphrase, "-t", "rsa", "-b", "2048", "-m", "PEM"),
		"age identity":            idFile,
	}
	lines := []string{idLine}
	for name, file := range keys {
		if name != "age identity" {
			line, err := os.ReadFile(file + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(line))
		}
	}
	to, err := secret.Recipients(lines)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "team.age")
	pub, err := Generate(file, to...)
	if err != nil {
		t.Fatal(err)
	}
	stranger := ssh("stranger", "", "-t", "ed25519")
	lockedStranger := ssh("stranger-locked", goodPassphrase, "-t", "ed25519")
	for name, id := range keys {
		t.Run(name, func(t *testing.T) {
			// A stranger's locked key comes first: nobody is asked for its passphrase.
			asked := ""
			k, err := Open(t.Context(), file, Options{Identities: []string{lockedStranger, id}, Passphrase: func(_ context.Context, of string) (string, error) {
				asked += of
				return goodPassphrase, nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			locked := strings.Contains(name, "passphrase") || strings.Contains(name, "locked")
			if locked != (asked == id) || !locked && asked != "" {
				t.Errorf("asked for %q", asked)
			}
			if !k.Public().Equal(pub) {
				t.Error("another key")
			}
			conforms(t, k)
			if locked {
				_, err := Open(t.Context(), file, Options{Identities: []string{id}, Passphrase: answer("wrong")})
				refusedWith(t, err, filepath.Base(id)+" does not open it")
				_, err = Open(t.Context(), file, Options{Identities: []string{id}})
				refusedWith(t, err, "nobody to ask")
			}
		})
	}
	_, err = Open(t.Context(), file, Options{Identities: []string{stranger}})
	refusedWith(t, err, "none of the identities")
	_, err = Open(t.Context(), file, Options{Passphrase: answer(goodPassphrase)})
	refusedWith(t, err, "none of the identities")
	_, err = Open(t.Context(), file, Options{Identities: []string{filepath.Join(dir, "none")}})
	refusedWith(t, err, "an identity cannot be used", "no such file")
	_, err = Open(t.Context(), file, Options{Identities: []string{ssh("p256", "", "-t", "ecdsa")}})
	refusedWith(t, err, "an identity cannot be used", "ssh-ed25519 or ssh-rsa")

	// Without this program: age opens it, and openssl knows the key.
	want, err := evidence.PublicPEM(pub)
	if err != nil {
		t.Fatal(err)
	}
	clear := program(t, nil, nil, "age", "-d", "-i", idFile, file)
	if got := program(t, nil, clear, "openssl", "pkey", "-pubout"); !bytes.Equal(got, want) {
		t.Errorf("openssl reads\n%s", got)
	}
	// And what they make is opened, in age's both forms.
	made := program(t, nil, nil, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	for _, args := range [][]string{{"-r", idLine}, {"-a", "-r", idLine}} {
		f := write(t, filepath.Join(t.TempDir(), "other.age"), program(t, nil, made, "age", args...), 0o600)
		k, err := Open(t.Context(), f, Options{Identities: []string{idFile}})
		if err != nil {
			t.Fatal(err)
		}
		conforms(t, k)
	}
}

func TestFileWithSomethingElse(t *testing.T) {
	dir := t.TempDir()
	id, r, _ := identity(t, dir)
	gen := func(args ...string) []byte {
		return program(t, nil, nil, "openssl", append([]string{"genpkey", "-algorithm"}, args...)...)
	}
	good := gen("EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	for name, c := range map[string]struct {
		plain []byte
		what  string
	}{
		"P-384":      {gen("EC", "-pkeyopt", "ec_paramgen_curve:P-384"), "of type P-384"},
		"ed25519":    {gen("ED25519"), "of type ed25519"},
		"RSA":        {gen("RSA", "-pkeyopt", "rsa_keygen_bits:2048"), "of type rsa"},
		"SEC 1":      {program(t, nil, good, "openssl", "ec"), `"EC PRIVATE KEY"`},
		"public":     {program(t, nil, good, "openssl", "pkey", "-pubout"), `"PUBLIC KEY"`},
		"two":        {append(bytes.Clone(good), good...), "more than one key"},
		"text":       {[]byte("hello\n"), "not a PEM"},
		"nothing":    {nil, "not a PEM"},
		"bad PKCS#8": {[]byte("-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n"), "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := secret.Encrypt(c.plain, []age.Recipient{r})
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(t.Context(), write(t, filepath.Join(t.TempDir(), "k.age"), data, 0o600), Options{Identities: []string{id}})
			refusedWith(t, err, c.what)
		})
	}
	for name, c := range map[string]struct {
		data []byte
		what string
	}{
		"a clear key": {good, "in the clear"},
		"no age file": {[]byte("hello\n"), "not an age file"},
		"empty":       {nil, "not an age file"},
		"huge":        {make([]byte, maxFile+1), "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), write(t, filepath.Join(t.TempDir(), "k.age"), c.data, 0o600), Options{Identities: []string{id}})
			refusedWith(t, err, c.what)
		})
	}
	_, err := Open(t.Context(), filepath.Join(dir, "none.age"), Options{})
	refusedWith(t, err, "no such file", "agent:SHA256")
}

// A file that was cut anywhere, or changed anywhere, gives an error or the same key,
// never another or a panic.
func TestFileTorn(t *testing.T) {
	dir := t.TempDir()
	id, r, _ := identity(t, dir)
	file := filepath.Join(dir, "key.age")
	pub, err := Generate(file, r)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := io.ReadAll(armor.NewReader(bytes.NewReader(whole)))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Identities: []string{id}}
	for name, c := range map[string]struct {
		data []byte
		step int // the text is armour around what is tried byte for byte
	}{"text": {whole, 7}, "binary": {binary, 1}} {
		t.Run(name, func(t *testing.T) {
			data := c.data
			for n := 0; n < len(bytes.TrimRight(data, "\n")); n += c.step {
				_, err := Open(t.Context(), write(t, file, data[:n], 0o600), o)
				refusedWith(t, err)
			}
			_, err := Open(t.Context(), write(t, file, data[:len(data)*2/3], 0o600), o)
			refusedWith(t, err, "torn or was changed")
			for n := 0; n < len(data); n += c.step {
				bad := bytes.Clone(data)
				bad[n] ^= 1
				k, err := Open(t.Context(), write(t, file, bad, 0o600), o)
				if err != nil {
					refusedWith(t, err)
				} else if !k.Public().Equal(pub) {
					t.Errorf("byte %d changed: another key", n)
				}
			}
		})
	}
}
