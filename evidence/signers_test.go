package evidence

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestParseSigners(t *testing.T) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
	for _, c := range []struct{ line, want string }{
		{"ann " + key, ""},
		{"ann,ann@example.org valid-after=\"202601011200Z\" " + key, ""},
		{"* " + key, "names nobody"},
		{"ann,!bob " + key, "names nobody"},
		{"ann cert-authority " + key, "no option that is understood"},
		{"ann valid-after=\"20260101\" " + key, "the Z must be there"},
		{"ann valid-after=\"20260101Z\",valid-after=\"20260101Z\" " + key, "twice"},
		{"ann namespaces=\"*\" " + key, "no namespace"},
		{"ann namespaces=\"a\",namespaces=\"b\" " + key, "stands twice"},
		{"ann namespaces=\"a " + key, "does not end"},
		{"ann namespaces=\"a\"" + key, "no key follows"},
		{"ann verify-required=\"x\" " + key, "not understood"},
		{"ann", "no option that is understood"},
		{"ann ssh-ed25519 AAAA", "no public key"},
		{"ann ssh-rsa " + strings.Fields(key)[1], "and not a ssh-rsa"},
	} {
		list, err := ParseSigners("allowed_signers", []byte("# who may\n\n"+c.line+"\n"))
		if c.want == "" {
			if err != nil || len(list) != 1 || list[0].Line != 3 {
				t.Errorf("%s: %v", c.line, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "allowed_signers:3:") {
			t.Errorf("%s: not refused for %q: %v", c.line, c.want, err)
		}
	}
	if _, err := ParseSigners("s", []byte("ann "+key)); err == nil {
		t.Error("a torn file is read")
	}
}

func FuzzParseSigners(f *testing.F) {
	f.Add([]byte("ann,bob namespaces=\"a\",valid-before=\"20270101Z\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== x\n"))
	f.Add([]byte("# x\n\nann ssh-rsa AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseSigners("s", data)
		if err == nil {
			for _, s := range list {
				if len(s.Principals) == 0 || s.Key == nil {
					t.Errorf("%+v", s)
				}
			}
		}
		_, _ = ParseRevoked("r", data)
	})
}
