package notify

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"trysail/internal/strict"
	"trysail/release"
)

const good = `slack_under: 24h
webhooks:
- url: https://hooks.example.com/trysail
  kinds: [gold-differs, shipped]
  secret_file: hook.secret
- url: http://127.0.0.1:8080/
email:
  smtp: mail.example.com:587
  from: Trysail <trysail@example.com>
  tls: starttls
  user: trysail
  password_file: mail.password
  to:
    ann: ann@example.com
    bob: releases@example.com
  always: [releases@example.com]
  kinds: [sign-off-wanted, shipped]
`

// secret is whsec_ and 32 bytes.
const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"

func write(t testing.TB, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "hook.secret", secret, 0o600)
	write(t, dir, "mail.password", "swordfish\n", 0o600)
	c, err := Load(write(t, dir, "notify.yaml", good, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	if c.SlackUnder == nil || *c.SlackUnder != 24*time.Hour {
		t.Errorf("slack under %v", c.SlackUnder)
	}
	sign := release.Notice{Kind: release.SignOffWanted, People: []string{"ann"}}
	var got []string
	for _, x := range c.Targets {
		line := x.Name()
		for _, n := range []release.Notice{sign, {Kind: release.MachineLost}, {Kind: release.ReleaseShipped}} {
			if x.Wants(n) {
				line += " " + string(n.Kind)
			}
		}
		got = append(got, line)
	}
	want := "webhook hooks.example.com b3d07ac3 shipped\nwebhook 127.0.0.1:8080 8fbc0f3a sign-off-wanted machine-lost shipped\n" +
		"email ann@example.com sign-off-wanted\nemail releases@example.com sign-off-wanted shipped"
	hex := regexp.MustCompile(` [0-9a-f]{8}\b`)
	if g := strings.Join(got, "\n"); hex.ReplaceAllString(g, "") != hex.ReplaceAllString(want, "") {
		t.Errorf("the targets are\n%s", g)
	}
}

func TestRefusedConfig(t *testing.T) {
	for _, x := range []struct {
		name, old, new string // of good
		line           int
		what           string
	}{
		{"nothing", good, "\n", 0, "empty"},
		{"nobody", good, "slack_under: 1h\n", 0, "nobody is told"},
		{"an unknown key", "slack_under", "slak_under", 1, "slak_under"},
		{"an unknown key of a webhook", "  secret_file", "  secret", 5, "secret"},
		{"a secret in it", "secret_file: hook.secret", "secret: whsec_x", 5, "secret"},
		{"a key twice", "  tls: starttls\n", "  tls: starttls\n  tls: none\n", 11, "tls"},
		{"no duration", "24h", "1 day", 1, "is not a time"},
		{"a fraction", "24h", "1.5d", 1, "has a fraction"},
		{"a negative one", "24h", "-1h", 1, "is not a time"},
		{"no address", "https://hooks.example.com/trysail", "hooks.example.com", 3, "no address of a webhook"},
		{"another scheme", "https://hooks", "ftp://hooks", 3, "no address of a webhook"},
		{"a password in an address", "https://hooks", "https://u:p@hooks", 3, "name or password"},
		{"plain http", "https://hooks", "http://hooks", 3, "plain http"},
		{"an address twice", "http://127.0.0.1:8080/", "https://hooks.example.com/trysail", 6, "twice"},
		{"an unknown kind", "gold-differs", "gold-differ", 4, "no kind of notice"},
		{"an unknown kind of mail", "kinds: [sign-off-wanted", "kinds: [sign-off", 17, "no kind of notice"},
		{"no port", "mail.example.com:587", "mail.example.com", 8, "no address of a mail server"},
		{"no sender", "Trysail <trysail@example.com>", "trysail", 9, "no mail address"},
		{"no TLS", "tls: starttls", "tls: yes please", 10, "not known"},
		{"TLS left out", "  tls: starttls\n", "", 0, "not known"},
		{"no encryption", "tls: starttls", "tls: none", 10, "without encryption"},
		{"a password without encryption", "tls: starttls", "tls: none\n  insecure: true", 10, "without encryption"},
		{"a user without a password", "  password_file: mail.password\n", "", 0, "go together"},
		{"nobody always", "  always: [releases@example.com]\n", "", 0, "always is empty"},
		{"no mail address", "ann@example.com", "ann", 14, "no mail address"},
		{"a name in an address", "[releases@example.com]", "['R <releases@example.com>']", 16, "no mail address"},
		{"a header in an address", "[releases@example.com]", `["a@example.com\r\nBcc: b@example.com"]`, 16, "no mail address"},
	} {
		text := strings.Replace(good, x.old, x.new, 1)
		_, err := parse("notify.yaml", []byte(text))
		var e *strict.Error
		if !errors.As(err, &e) || !strings.Contains(e.What, x.what) || e.Hint() == "" || (x.line > 0 && e.Line != x.line) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

func TestRefusedSecrets(t *testing.T) {
	for _, x := range []struct {
		name, secret string
		mode         os.FileMode
		what         string
	}{
		{"others read it", secret, 0o640, "mode 0640"},
		{"others write it", secret, 0o602, "mode 0602"},
		{"no prefix", strings.TrimPrefix(secret, "whsec_"), 0o600, "not whsec_"},
		{"short", "whsec_MDEyMw==\n", 0o600, "not whsec_"},
		{"empty", "", 0o600, "not whsec_"},
		{"large", strings.Repeat("a", maxSecret+1), 0o600, "more than"},
		{"missing", "-", 0, "no such file"},
	} {
		dir := t.TempDir()
		if x.secret != "-" {
			write(t, dir, "hook.secret", x.secret, x.mode)
		}
		write(t, dir, "mail.password", "swordfish\n", 0o600)
		_, err := Load(write(t, dir, "notify.yaml", good, 0o644))
		var e *strict.Error
		if !errors.As(err, &e) || !strings.Contains(e.What, x.what) || e.Line != 5 || e.Hint() == "" {
			t.Errorf("%s: %v", x.name, err)
		}
		if err != nil && len(x.secret) > 20 && strings.Contains(err.Error(), x.secret[6:20]) {
			t.Errorf("%s: the error holds the secret: %v", x.name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	for line := range strings.Lines(good) {
		f.Add([]byte(strings.Replace(good, line, "", 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("f", data)
		if err != nil {
			var e *strict.Error
			if !errors.As(err, &e) || e.Hint() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		for _, h := range c.Webhooks {
			if _, err := c.webhook(hookDoc{URL: h.URL, Kinds: h.Kinds}, "webhooks[0]"); err != nil {
				t.Fatalf("%q is accepted and cannot be used: %v", h.URL, err)
			}
		}
		if c.Email != nil {
			c.Email.PasswordFile, c.Email.CAFile = "", ""
			if list, err := c.mailboxes(); err != nil || len(list) == 0 {
				t.Fatalf("%+v is accepted and cannot be used: %v", c.Email, err)
			}
		}
	})
}

// message is one of each thing that may make trouble.
func message() Message {
	at := time.Date(2026, 11, 24, 14, 38, 8, 0, time.UTC)
	return Message{
		Notice:  release.Notice{Kind: release.SignOffWanted, Item: "tried", People: []string{"ann", "bob"}, What: "tried wants 1 sign-off(s) of ann, bob: installed\nand tried, größer"},
		Release: "4.2", Begun: at.Add(-14 * time.Second), Ship: at.AddDate(0, 0, 7), Event: 11, At: at,
	}
}

func TestMessage(t *testing.T) {
	m := message()
	if m.ID() != "4.2/11/sign-off-wanted/tried" {
		t.Error(m.ID())
	}
	other := m
	other.Begun = other.Begun.Add(time.Second)
	if m.key() == other.key() || strings.Contains(m.key(), ".") {
		t.Errorf("keys %s %s", m.key(), other.key())
	}
	m.Kind, m.Item, m.People = release.ReleaseShipped, "", nil
	data, err := m.JSON()
	if err != nil || m.ID() != "4.2/11/shipped" || !strings.Contains(string(data), `"people":[]`) || strings.Contains(string(data), "subject") {
		t.Errorf("%s %s %v", m.ID(), data, err)
	}
	if !json.Valid(data) {
		t.Errorf("%s", data)
	}
}
