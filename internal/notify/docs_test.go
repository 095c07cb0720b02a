package notify

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// documented is a block of docs/notices.md.
func documented(t *testing.T, info string) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/notices.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```" + info + "\n(.*?)^```$").FindSubmatch(data)
	if m == nil {
		t.Fatalf("docs/notices.md has no block %q", info)
	}
	return string(m[1])
}

func TestDocumentedFile(t *testing.T) {
	f, err := parse("docs/notices.md", []byte(documented(t, "yaml notify")))
	if err != nil || len(f.Webhooks) != 2 || f.Email == nil || len(f.Email.To) != 2 {
		t.Errorf("%+v %v", f, err)
	}
	data, err := os.ReadFile("../../docs/notices.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds() {
		if !strings.Contains(string(data), "`"+string(k)+"`") {
			t.Errorf("docs/notices.md does not say what %s is", k)
		}
	}
}

func TestDocumentedEvent(t *testing.T) {
	m := message()
	m.What = "tried wants 1 sign-off(s) of ann, bob: installed and tried"
	data, err := m.JSON()
	var is, said any
	if err == nil {
		err = json.Unmarshal(data, &is)
	}
	if err == nil {
		err = json.Unmarshal([]byte(documented(t, "json event")), &said)
	}
	if err != nil || !reflect.DeepEqual(is, said) {
		t.Errorf("the event is\n%s\n%v", data, err)
	}
}

// The documented commands make a secret that is taken, and check what is signed with it.
func TestDocumentedSignature(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	run := func(script string, env ...string) string {
		t.Helper()
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run(documented(t, "sh secret"))
	c, err := Load(write(t, dir, "notify.yaml", "webhooks: [{url: 'https://h.example.com', secret_file: webhook.secret}]\n", 0o644))
	if err != nil {
		t.Fatal(err)
	}
	m := message()
	body, err := m.JSON()
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "body", string(body), 0o644)
	h := http.Header{}
	sign(h, m.key(), time.Now(), body, c.Targets[0].(*webhook).key)
	id, stamp := "id="+h.Get("webhook-id"), "timestamp="+h.Get("webhook-timestamp")
	if got := run(documented(t, "sh verify"), id, stamp); got != h.Get("webhook-signature") {
		t.Errorf("the commands print %q, the header is %q", got, h.Get("webhook-signature"))
	}
	if err := os.WriteFile(filepath.Join(dir, "body"), append(body, ' '), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := run(documented(t, "sh verify"), id, stamp); got == h.Get("webhook-signature") {
		t.Error("other bytes have the same signature")
	}
}
