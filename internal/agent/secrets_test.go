package agent

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/internal/api"
	"trysail/internal/mask"
)

// TestAttackReportNamesSecrets is a step whose failed tests, errors and differences name
// its secrets, in base64 too.
func TestAttackReportNamesSecrets(t *testing.T) {
	m := maskOf(map[string]string{"TOKEN": "hunter2!"})
	coded := base64.StdEncoding.EncodeToString([]byte("user:hunter2!"))
	r := &api.Report{}
	r.Why, r.Failing = "no results match "+coded, []string{"login.hunter2!", "login." + coded}
	if err := hide(m, r, nil); err != nil {
		t.Fatal(err)
	}
	cause := &NoSecretError{"hunter2!", coded}
	err := hide(m, nil, fmt.Errorf("run: %w", cause))
	var as *NoSecretError
	if !errors.As(err, &as) || as != cause {
		t.Errorf("the error has lost its cause: %v", err)
	}
	for _, text := range append(r.Failing, r.Why, err.Error(), named(m, "dist/hunter2!", strings.Repeat("x", longest-30)+coded, "")) {
		if strings.Contains(text, "hunter2") || strings.Contains(text, coded[4:8]) || !strings.Contains(text, mask.Text) {
			t.Errorf("%q shows the secret", text)
		}
	}
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
