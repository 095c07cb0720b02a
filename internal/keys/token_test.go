package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/evidence"
)

const (
	module = "/usr/lib/softhsm/libsofthsm2.so"
	pin    = "86753090"
)

// hsm is a SoftHSM of its own, and a pkcs11-tool that writes down how it is called.
type hsm struct {
	t   *testing.T
	dir string
	env []string
	log string // arguments of each call, one a line
}

func newHSM(t *testing.T) *hsm {
	t.Helper()
	real, err := exec.LookPath(toolName)
	if _, err2 := exec.LookPath("softhsm2-util"); err != nil || err2 != nil {
		t.Fatal("needs softhsm2 and opensc: make packages-test")
	}
	h := &hsm{t: t, dir: t.TempDir()}
	h.log = filepath.Join(h.dir, "log")
	for _, d := range []string{"tokens", "bin", "tmp"} {
		if err := os.Mkdir(filepath.Join(h.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	conf := write(t, filepath.Join(h.dir, "softhsm2.conf"), []byte("directories.tokendir = "+filepath.Join(h.dir, "tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600)
	h.env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
	h.script(toolName, fmt.Sprintf("printf '%%s ' \"$@\" >>%s; echo >>%s\nexec %s \"$@\"\n", h.log, h.log, real))
	t.Setenv("PATH", filepath.Join(h.dir, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("TMPDIR", filepath.Join(h.dir, "tmp"))
	return h
}

func (h *hsm) script(name, text string) {
	write(h.t, filepath.Join(h.dir, "bin", name), []byte("#!/bin/sh\n"+text), 0o700)
}

func (h *hsm) initToken(label string) {
	h.t.Helper()
	program(h.t, h.env, nil, "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "12345678")
}

// tool runs pkcs11-tool as a person who sets up a token does.
func (h *hsm) tool(args ...string) []byte {
	h.t.Helper()
	return program(h.t, append(h.env, "SETUP_PIN="+pin), nil, toolName, append([]string{"--module", module, "--token-label", "rel", "--login", "--pin", "env:SETUP_PIN"}, args...)...)
}

func (h *hsm) generate(label, id, kind string) {
	h.t.Helper()
	h.tool("--keypairgen", "--key-type", kind, "--label", label, "--id", id)
}

func (h *hsm) calls(with string) int {
	h.t.Helper()
	data, err := os.ReadFile(h.log)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Count(string(data), with)
}

func TestToken(t *testing.T) {
	h := newHSM(t)
	h.initToken("rel")
	h.initToken("twin")
	h.initToken("twin")
	// The first is what pkcs11-tool signs with when it is not told an ID.
	h.generate("first", "01", "EC:prime256v1")
	h.generate("release", "02", "EC:prime256v1")
	h.generate("clé 100%", "0a0b", "EC:prime256v1")
	h.generate("dup", "03", "EC:prime256v1")
	h.generate("dup", "04", "EC:prime256v1")
	h.generate("large", "05", "EC:secp384r1")
	h.generate("rsa", "06", "rsa:2048")
	h.generate("half", "07", "EC:prime256v1")
	h.tool("--delete-object", "--type", "privkey", "--id", "07")
	// A public half that is not that of the private one beside it.
	h.generate("mixed", "08", "EC:prime256v1")
	h.tool("--delete-object", "--type", "pubkey", "--id", "08")
	der := write(t, filepath.Join(h.dir, "other.der"), h.tool("--read-object", "--type", "pubkey", "--id", "01"), 0o600)
	h.tool("--write-object", der, "--type", "pubkey", "--id", "08", "--label", "mixed")
	h.tool("--write-object", der, "--type", "pubkey", "--label", "anonymous")

	pinFile := write(t, filepath.Join(h.dir, "pin"), []byte(pin+"\n"), 0o600)
	at := func(what string) string { return "pkcs11:token=rel;" + what + "?module-path=" + module }
	asking := Options{Environ: h.env, PIN: answer(pin), Passphrase: func(context.Context, string) (string, error) {
		t.Error("a token was asked a passphrase")
		return "", errors.New("no")
	}}
	silent := Options{Environ: h.env}

	for name, c := range map[string]struct {
		ref string
		o   Options
		id  string
	}{
		"label":             {at("object=release"), asking, "02"},
		"ID":                {at("id=%02"), asking, "02"},
		"both":              {at("object=release;id=%02"), asking, "02"},
		"one of two":        {at("object=dup;id=%04"), asking, "04"},
		"label that is odd": {at("object=cl%C3%A9%20100%25"), asking, "0a0b"},
		"PIN from a file":   {at("object=release") + "&pin-source=" + pinFile, silent, "02"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Open(t.Context(), c.ref, c.o)
			if err != nil {
				t.Fatal(err)
			}
			p, err := evidence.PublicPEM(k.Public())
			if err != nil {
				t.Fatal(err)
			}
			want := program(t, nil, h.tool("--read-object", "--type", "pubkey", "--id", c.id), "openssl", "pkey", "-pubin", "-inform", "DER", "-pubout")
			if !bytes.Equal(p, want) {
				t.Errorf("public half\n%swant\n%s", p, want)
			}
			conforms(t, k)
		})
	}
	for name, c := range map[string]struct {
		ref  string
		what []string
	}{
		"two keys":    {at("object=dup"), []string{"2 keys", "id=%03", "id=%04"}},
		"P-384":       {at("object=large"), []string{"EC_POINT 384", "ECDSA on P-256"}},
		"RSA":         {at("object=rsa"), []string{"type rsa"}},
		"no key":      {at("object=none"), []string{"and not this one", "--list-objects"}},
		"ID of other": {at("object=release;id=%01"), []string{"and not this one"}},
		"no ID":       {at("object=anonymous"), []string{"has no ID", "--set-id"}},
		"no token":    {"pkcs11:token=none;object=release?module-path=" + module, []string{"no such token", toolName + " --module " + module + " --list-token-slots"}},
		"two tokens":  {"pkcs11:token=twin;object=release?module-path=" + module, []string{"2 tokens"}},
		"no module":   {"pkcs11:token=rel;object=release?module-path=/none.so", []string{"cannot be loaded: /none.so", "mend module-path"}},
		"not one":     {"pkcs11:token=rel;object=release?module-path=" + pinFile, []string{"cannot be loaded"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), c.ref, asking)
			refusedWith(t, err, c.what...)
		})
	}
	for name, c := range map[string]struct {
		ref  string
		o    Options
		what []string
	}{
		"no private half":       {at("object=half"), asking, []string{"the private half is not on the token"}},
		"halves of two pairs":   {at("object=mixed"), asking, []string{"does not verify"}},
		"nobody to ask":         {at("object=release"), silent, []string{"nobody to ask", "pin-source"}},
		"empty PIN":             {at("object=release"), Options{Environ: h.env, PIN: answer("")}, []string{"PIN is empty"}},
		"PIN file for everyone": {at("object=release") + "&pin-source=" + write(t, filepath.Join(h.dir, "open"), []byte(pin), 0o644), silent, []string{"others can read", "chmod 600"}},
		"PIN file missing":      {at("object=release") + "&pin-source=/none", silent, []string{"cannot be read"}},
		"PIN file is a folder":  {at("object=release") + "&pin-source=" + h.dir, silent, []string{"not a file with a PIN"}},
		"PIN file of two lines": {at("object=release") + "&pin-source=" + write(t, filepath.Join(h.dir, "two"), []byte("a\nb\n"), 0o600), silent, []string{"more than a line"}},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Open(t.Context(), c.ref, c.o)
			if err != nil {
				t.Fatal(err) // the public half needs no PIN
			}
			_, err = k.Sign(t.Context(), []byte("message"))
			refusedWith(t, err, c.what...)
		})
	}
	t.Run("wrong PIN is tried once", func(t *testing.T) {
		asked := 0
		k, err := Open(t.Context(), at("object=release"), Options{Environ: h.env, PIN: func(_ context.Context, of string) (string, error) {
			asked++
			if of != "pkcs11:token=rel;object=release" {
				t.Errorf("asked for the PIN of %s", of)
			}
			return "00000000", nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		before := h.calls("--sign ")
		for range 3 {
			_, err := k.Sign(t.Context(), []byte("message"))
			refusedWith(t, err, "the PIN is wrong", "tried once")
		}
		if n := h.calls("--sign ") - before; n != 1 || asked != 1 {
			t.Errorf("the token was given a wrong PIN %d times, and %d were asked for", n, asked)
		}
	})
	t.Run("nothing stays", func(t *testing.T) {
		if h.calls(pin) != 0 || h.calls("00000000") != 0 {
			t.Error("a PIN was among the arguments of a program")
		}
		if h.calls("env:"+pinName) == 0 {
			t.Error("no PIN went through the environment: this test sees nothing")
		}
		if left, err := os.ReadDir(filepath.Join(h.dir, "tmp")); err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "trysail") }) {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	t.Run("PIN is asked once", func(t *testing.T) {
		asked := 0
		k, err := Open(t.Context(), at("object=release"), Options{Environ: h.env, PIN: func(context.Context, string) (string, error) {
			asked++
			return pin, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := k.Sign(t.Context(), []byte("message")); err != nil {
				t.Fatal(err)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("no program", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Open(t.Context(), at("object=release"), asking)
		refusedWith(t, err, "not installed", "apt install opensc")
	})
	t.Run("a token that waits", func(t *testing.T) {
		k, err := Open(t.Context(), at("object=release"), asking)
		if err != nil {
			t.Fatal(err)
		}
		h.script(toolName, "exec sleep 60\n")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if _, err := k.Sign(ctx, []byte("message")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("signing with a token that waits: %v", err)
		}
		if d := time.Since(begun); d > 30*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// SoftHSM never locks and always signs, so what the tool says of other tokens is a
// table.
func TestWhatTheToolSays(t *testing.T) {
	tok := &token{uri: uri{token: "my token", object: "k", module: "/m.so"}}
	for said, want := range map[string]struct {
		what string
		pin  bool
	}{
		"error: PKCS11 function C_Login failed: rv = CKR_PIN_LOCKED (0xa4)\nAborting.\n":              {"the token is locked", true},
		"error: PKCS11 function C_Login failed: rv = CKR_PIN_INCORRECT (0xa0)\nAborting.\n":           {"the PIN is wrong", true},
		"error: PKCS11 function C_Login failed: rv = CKR_PIN_LEN_RANGE (0xa2)\nAborting.\n":           {"the PIN is wrong", true},
		"error: PKCS11 function C_Login failed: rv = CKR_USER_PIN_NOT_INITIALIZED (0x102)\nAborting.": {"must be set first", true},
		"error: PKCS11 function C_SignInit failed: rv = CKR_MECHANISM_INVALID (0x70)\nAborting.\n":    {"does not sign with ECDSA", false},
		"No slot with token named \"my token\" found\n":                                               {"is not there", false},
		"error: Private key not found\nAborting.\n":                                                   {"the private half is not", false},
		"error: something\nelse\nAborting.\n":                                                         {"pkcs11-tool failed: error: something; else", false},
		"":                                                                                            {"it said nothing", false},
	} {
		err := tok.explain(said)
		refusedWith(t, err, want.what)
		var p *pinError
		if errors.As(err, &p) != want.pin {
			t.Errorf("%q: taken for a refused PIN: %v", said, !want.pin)
		}
	}
	refusedWith(t, tok.explain("CKR_PIN_LOCKED"), "pkcs11-tool --module /m.so --token-label 'my token' --login --login-type so --init-pin")
}

func TestObjectsInAList(t *testing.T) {
	// As OpenSC prints them; the last label tries to be another key's.
	list := `Public Key Object; EC  EC_POINT 256 bits
  EC_POINT:   0441
  label:      one
  ID:         0A0b
  Usage:      verify
Public Key Object; EC  EC_POINT 256 bits
  label:      no id
  Usage:      verify
  uri:        pkcs11:model=SoftHSM%20v2;token=rel
Certificate Object; type = X.509 cert
  label:      one
  ID:         99
Public Key Object; RSA 2048 bits
  label:      odd
  label:      one
  ID:         07
  ID:         0a0b
`
	want := []object{{"EC  EC_POINT 256 bits", "one", "0a0b"}, {"EC  EC_POINT 256 bits", "no id", ""}, {"RSA 2048 bits", "odd", "07"}}
	if got := parseObjects([]byte(list)); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
