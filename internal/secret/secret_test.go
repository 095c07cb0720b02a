package secret

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"filippo.io/age/agessh"
)

// random is text that no rule takes for a placeholder.
func random(n int) string {
	const letters = "Kq7Zr2Wp9Lm4Tx8Vb3Nc6Hd5Jf1Gs0"
	return strings.Repeat(letters, n/len(letters)+1)[:n]
}

// secrets has one true finding for each rule and more; the secret part stands
// apart, so that the test can look for it. They are put together here so that no
// scanner takes this file for a leak.
func secrets() []struct{ rule, before, secret, after string } {
	upper := strings.ToUpper(random(60))
	return []struct{ rule, before, secret, after string }{
		{"private-key", "", "-----BEGIN " + "OPENSSH PRIVATE KEY-----", "\nb3BlbnNzaC1rZXk="},
		{"private-key", "", "-----BEGIN " + "PRIVATE KEY-----", ""},
		{"private-key", "", "-----BEGIN " + "RSA PRIVATE KEY-----", ""},
		{"private-key", "  key: ", "-----BEGIN " + "PGP PRIVATE KEY BLOCK-----", ""},
		{"putty-key", "", "PuTTY-User-" + "Key-File-3:", " ssh-ed25519"},
		{"age-key", "# a key\n", "AGE-SECRET-" + "KEY-1" + upper[:58], "\n"},
		{"aws-key", "aws_access_key_id = ", "AKIA" + upper[:16], "\n"},
		{"aws-secret", "aws_secret_access_key = ", random(40), "\n"},
		{"github-token", "token: ", "ghp_" + random(36), ""},
		{"github-token", "", "github_pat_" + random(40), ""},
		{"gitlab-token", "private_tok='", "glpat-" + random(20), "'"},
		{"npm-token", "", "npm_" + random(36), ""},
		{"npm-auth", "//registry.example.com/:_authToken=", random(30), "\n"},
		{"pypi-token", "", "pypi-" + random(60), ""},
		{"slack-token", "", "xoxb-" + random(20), ""},
		{"stripe-key", "", "sk_live_" + random(24), ""},
		{"google-key", "", "AIza" + random(35), ""},
		{"google-account", `{"private_` + `key": "-----BEGIN`, "", ` x"}`},
		{"docker-token", "", "dckr_pat_" + random(27), ""},
		{"vault-token", "", "hvs." + random(30), ""},
		{"huggingface-token", "", "hf_" + random(34), ""},
		{"azure-key", "DefaultEndpointsProtocol=https;AccountKey=", random(86), "==;EndpointSuffix=x"},
		{"jwt", "Authorization: Bearer ", "eyJ" + random(20) + ".eyJ" + random(30) + "." + random(20), ""},
		{"url-password", "url = https://deploy:", random(12), "@git.example.com/x.git\n"},
		{"netrc", "machine example.com login me password ", random(10), "\n"},
		{"docker-auth", `{"auths":{"x":{"auth": "`, random(24), `"}}}`},
		{"password", "db.password=", random(9), "\n"},
		{"password", "  <password>", random(9), "</password>\n"},
		{"password", `"client_secret": "`, random(20), `",`},
		{"password", "export API_KEY='", random(20), "'\n"},
		{"password", "password: ", random(12), ""},
		{"password", "first line\r\npassword=", random(12), "\r\n"},
	}
}

func scan(t testing.TB, name, text string) []Finding {
	t.Helper()
	list, err := Scan(name, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestScan finds each, says where, and never what.
func TestScan(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range secrets() {
		text := c.before + c.secret + c.after
		list := scan(t, "/etc/app.conf", text)
		found := false
		for _, f := range list {
			covered[f.Rule] = true
			if f.Rule != c.rule {
				continue
			}
			found = true
			if want := 1 + strings.Count(c.before, "\n"); f.Line != want || f.Path != "/etc/app.conf" || f.What == "" {
				t.Errorf("%s: %+v, want line %d", c.rule, f, want)
			}
		}
		if !found {
			t.Errorf("%s is not found in %q: %+v", c.rule, text, list)
		}
		out, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		if c.secret != "" && strings.Contains(string(out)+fmt.Sprint(list), c.secret) {
			t.Errorf("%s: the finding holds the secret: %s", c.rule, out)
		}
	}
	for _, r := range rules() {
		if !covered[r.name] {
			t.Errorf("rule %s has no example", r.name)
		}
	}
}

// TestScanHarmless: what looks like a secret to a rule that is too eager.
func TestScanHarmless(t *testing.T) {
	for _, text := range []string{
		"",
		"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----",
		"-----BEGIN CERTIFICATE-----\nMIIB" + random(60),
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + random(40) + " me@host",
		"age1" + strings.ToLower(random(58)),
		"sha256:" + strings.Repeat("0123456789abcdef", 4),
		"d41d8cd98f00b204e9800998ecf8427e  usr/bin/password",
		"password = changeme\n", "password=\n", "password: ${DB_PASSWORD}\n", "password: <your password here>\n", "password=$(cat /run/secret)\n", "passwd: files systemd\n", "password	[success=1 default=ignore]	pam_unix.so obscure yescrypt\n", "password requisite pam_deny.so\n",
		"password = xxxxxxxx\n", "password: /etc/keys/db\n", "password=%s\n", "client_secret = @SECRET@\n", "PasswordAuthentication no\n", "PermitRootLogin prohibit-password\n",
		"https://example.com/path:with@sign", "http://localhost:8080/", "http://user@example.com/", "https://user:${TOKEN}@example.com/", "git@github.com:user/repo.git", "https://user:password@example.com/",
		"aws_secret_access_key = your-key-here", "AKIAIOSFODNN7", "ghp_short", "token_endpoint = https://example.com",
		`{"auth": ""}`, "_auth_version=2", "machine example.com", "eyJhbGciOiJIUzI1NiJ9", "xoxo-hugs", "const passwordPrompt = \"Password: \"",
		"//registry.npmjs.org/:_authToken=${NPM_TOKEN}",
	} {
		if list := scan(t, "/etc/app.conf", text); len(list) != 0 {
			t.Errorf("%q: %+v", text, list)
		}
	}
}

func TestScanNames(t *testing.T) {
	for name, secret := range map[string]bool{
		"/etc/shadow": true, "/etc/gshadow-": true, "/etc/ssl/private/server.pem": true, "/etc/ssh/ssh_host_ed25519_key": true, "/etc/ssh/ssh_host_ed25519_key.pub": false, "/etc/letsencrypt/archive/x/privkey1.pem": true, "/etc/letsencrypt/archive/x/cert1.pem": false,
		"/home/rel/.git-credentials": true, "/home/rel/.vault-token": true, "/home/rel/.android/debug.keystore": true, "/home/rel/k.p12": true, "/home/rel/.gnupg/private-keys-v1.d/0A.key": true, "/home/rel/.gnupg/pubring.kbx": false, "/etc/passwd": false, "/etc/shadow.conf": false, "/etc/keystore": false,
	} {
		list := scan(t, name, "harmless")
		if (len(list) == 1) != secret || (secret && (list[0].Rule != "name" || list[0].Line != 0 || list[0].What == "")) {
			t.Errorf("%s: %+v, want a secret: %v", name, list, secret)
		}
	}
}

// TestScanNetrc: the usual form of netrc(5) has the password in another line than
// the machine.
func TestScanNetrc(t *testing.T) {
	text := "machine example.com\n\tlogin me\n\tpassword " + random(10) + "\n"
	for name, want := range map[string]bool{"/root/.netrc": true, "/etc/apt/auth.conf": true, "/etc/apt/auth.conf.d/team.conf": true, "/home/rel/.authinfo": true, "/usr/share/doc/netrc.txt": false} {
		if list := scan(t, name, text); (len(list) == 1 && list[0].Line == 3 && list[0].Rule == "netrc") != want {
			t.Errorf("%s: %+v", name, list)
		}
	}
	if list := scan(t, "/root/.netrc", "machine example.com\nlogin me\n"); len(list) != 0 {
		t.Errorf("without a password: %+v", list)
	}
}

// TestScanLongLines: a secret does not hide behind the end of the buffer, nor do
// long lines upset the count.
func TestScanLongLines(t *testing.T) {
	token := "ghp_" + random(36)
	for _, at := range []int{0, maxLine - 26, maxLine, 3*maxLine - 13} {
		text := "first\n" + strings.Repeat("x ", at/2) + strings.Repeat(" ", at%2) + token + strings.Repeat(" y", 10) + "\nnpm_" + random(36) + "\n"
		list := scan(t, "/f", text)
		if len(list) != 2 || list[0].Rule != "github-token" || list[0].Line != 2 || list[1].Line != 3 {
			t.Errorf("at byte %d of a line: %+v", at, list)
		}
	}
}

func TestScanReadError(t *testing.T) {
	broken := errors.New("disk")
	if _, err := Scan("/f", io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("an error of the disk: %v", err)
	}
	// Each rule is reported once.
	if list := scan(t, "/f", strings.Repeat("token ghp_"+random(36)+"\n", 100)); len(list) != 1 || list[0].Line != 1 {
		t.Errorf("%+v", list)
	}
}

func FuzzScan(f *testing.F) {
	for _, c := range secrets() {
		f.Add("/etc/x", c.before+c.secret+c.after)
	}
	f.Add("/etc/x", "password=\xff\xfe\x00abcdefg")
	f.Fuzz(func(t *testing.T, name, text string) {
		a := scan(t, name, text)
		b, err := Scan(name, iotest.OneByteReader(strings.NewReader(text)))
		if err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("read byte by byte it is %+v, at once %+v (%v)", b, a, err)
		}
		for _, x := range a {
			if x.Path != name || x.Line < 0 || x.Line > 1+strings.Count(text, "\n") || x.Rule == "" {
				t.Fatalf("%+v", x)
			}
		}
		Variable(name, text)
	})
}

func TestVariable(t *testing.T) {
	for _, c := range []struct {
		name, value string
		secret      bool
	}{
		{"GITHUB_TOKEN", random(20), true},
		{"DB_PASSWORD", random(9), true},
		{"MY_API_KEY", random(9), true},
		{"X", "ghp_" + random(36), true},
		{"PROXY", "http://u:" + random(9) + "@proxy:8080", true},
		{"CREDENTIALS", random(9), true},
		{"aws_secret", random(9), true},
		{"TOKEN", "", false},
		{"TOKEN", "abc", false},
		{"TOKEN_FILE", "/run/token", false},
		{"PATH", "/usr/bin:/bin", false},
		{"CFLAGS", "-O2 -DPASSWORD_MAX=64", false},
		{"GOFLAGS", "-mod=vendor", false},
		{"DB_PASSWORD", "${OTHER}", false},
	} {
		f, ok := Variable(c.name, c.value)
		if ok != c.secret || (ok && (f.Path != c.name || strings.Contains(fmt.Sprint(f), c.value))) {
			t.Errorf("%s=%s: %+v %v", c.name, c.value, f, ok)
		}
	}
}

// sshKey makes a key pair as ssh-keygen writes it.
func sshKey(t *testing.T) (file, public string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed: apt-get install openssh-client")
	}
	file = filepath.Join(t.TempDir(), "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, string(data)
}

func decrypt(data []byte, ids []age.Identity) (string, error) {
	r, err := age.Decrypt(bytes.NewReader(data), ids...)
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	return string(out), err
}

func TestEncrypt(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ageFile := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(ageFile, []byte("# created: now\n"+id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sshFile, sshPublic := sshKey(t)
	to, err := Recipients([]string{" " + id.Recipient().String() + "\n", sshPublic})
	if err != nil || len(to) != 2 {
		t.Fatal(err)
	}
	for _, text := range []string{"", "password=x\n", random(200_000)} {
		data, err := Encrypt([]byte(text), to)
		if err != nil {
			t.Fatal(err)
		}
		if text != "" && bytes.Contains(data, []byte(text)) {
			t.Error("the cipher holds the text")
		}
		for _, file := range []string{ageFile, sshFile} {
			ids, err := ReadIdentities(file)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := decrypt(data, ids); err != nil || got != text {
				t.Errorf("%s: %d bytes, %v", file, len(got), err)
			}
			flipped := bytes.Clone(data)
			flipped[len(flipped)-1] ^= 1
			if got, err := decrypt(flipped, ids); err == nil {
				t.Errorf("changed, it is decrypted to %q", got)
			}
		}
		other, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decrypt(data, []age.Identity{other}); err == nil {
			t.Error("anyone can read it")
		}
	}
	if _, err := Encrypt([]byte("x"), nil); err == nil {
		t.Error("encrypted to nobody")
	}
}

func TestRecipientsRefused(t *testing.T) {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"", "age1", "me@example.com", "ssh-ed25519", "ssh-ed25519 " + base64.StdEncoding.EncodeToString(pub), "ssh-dss AAAA", "AGE-SECRET-" + "KEY-1" + strings.ToUpper(random(58)), "-----BEGIN " + "OPENSSH PRIVATE KEY-----\n" + random(40)} {
		list, err := Recipients([]string{line})
		var re *RecipientError
		if !errors.As(err, &re) || re.Hint() == "" || errors.Unwrap(err) == nil {
			t.Fatalf("%q: %v, %v", line, list, err)
		}
		if strings.Contains(line, random(8)) && strings.Contains(err.Error(), random(8)) || strings.HasPrefix(line, "AGE-") && strings.Contains(err.Error(), line[:30]) {
			t.Errorf("the error shows a secret key: %v", err)
		}
	}
}

func TestIdentitiesRefused(t *testing.T) {
	locked, _ := sshKey(t)
	if out, err := exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", locked).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, what string }{
		"locked": {"", "passphrase"}, "empty": {"", "no identities"}, "text": {"hello\n", "text"}, "public": {"ssh-ed25519 AAAA me\n", "public"}, "pem": {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "pem"},
	} {
		file := filepath.Join(dir, name)
		if name == "locked" {
			file = locked
		} else if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if ids, err := ReadIdentities(file); err == nil || !strings.Contains(err.Error(), c.what) || !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Errorf("%s: %v, %v", name, ids, err)
		}
	}
	if _, err := ReadIdentities(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := agessh.ParseIdentity(nil); err == nil {
		t.Error("nothing is a key")
	}
}
