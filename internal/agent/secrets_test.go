package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMasker: however a stream is cut, no secret is in what comes out, and
// everything else is.
func TestMasker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[ab]{4,8}`).Draw(t, "secret")
		m := newMasker(map[string]string{"A": secret, "B": "hunter2!", "C": "x"})
		var in, out strings.Builder
		for range rapid.IntRange(1, 20).Draw(t, "pieces") {
			piece := rapid.SampledFrom([]string{"a", "b", "ab", secret, secret[:2], "hunter", "2!", "hunter2!", "\n", "x"}).Draw(t, "piece")
			in.WriteString(piece)
			out.Write(m.write([]byte(piece)))
		}
		out.Write(m.end())
		if s := out.String(); strings.Contains(s, secret) || strings.Contains(s, "hunter2!") {
			t.Fatalf("%q shows a secret: %q", in.String(), s)
		}
		if !strings.Contains(in.String(), secret) && !strings.Contains(in.String(), "hunter2!") && out.String() != in.String() {
			t.Fatalf("%q became %q", in.String(), out.String())
		}
	})
}

func TestSecrets(t *testing.T) {
	a := &Agent{o: Options{Dir: t.TempDir()}}
	dir := filepath.Join(a.o.Dir, "secrets")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// What control calls a secret is no path to what this machine has besides.
	if err := os.WriteFile(filepath.Join(a.o.Dir, "key.pem"), []byte("private"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../key.pem", "..", ".", "", "/etc/passwd", "a/../../key.pem"} {
		if got, err := a.secrets([]string{name}); err == nil || !strings.Contains(err.Error(), "no name of a secret") {
			t.Errorf("a secret called %q: %v, %v", name, got, err)
		}
	}
	if _, err := a.secrets([]string{"TOKEN"}); err == nil || !strings.Contains(err.Error(), "is not on this machine") {
		t.Errorf("a secret that is not there: %v", err)
	}
	file := filepath.Join(dir, "TOKEN")
	if err := os.WriteFile(file, []byte("hunter2!\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := a.secrets([]string{"TOKEN"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret that others read: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := a.secrets([]string{"TOKEN"}); err != nil || list["TOKEN"] != "hunter2!" {
		t.Errorf("%q %v", list, err)
	}
}
