// Package secret finds private keys, tokens and passwords in files that a
// capture would keep, and encrypts such files to the people who may read them.
//
// The rules are one table ([rules]). They look for what cannot be mistaken:
// private keys by their armour, tokens by the prefixes that their makers gave
// them for this purpose, passwords where a known format puts them. A finding
// never holds the secret itself, because findings are printed and logged.
// General entropy is not measured: checksums and keys that are public would
// drown the rest.
//
// Encryption is age's, to age recipients or to the SSH public keys that a team
// already has.
package secret

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"trysail/internal/tree"
)

// Finding is one secret in a file.
type Finding struct {
	Path string `json:"path"`
	Line int    `json:"line,omitempty"` // 0: the file as a whole
	Rule string `json:"rule"`
	What string `json:"what"`
}

// rule finds one kind of secret in a line.
type rule struct {
	name, what string
	re         *regexp.Regexp
	value      int // the group that holds the secret; 0: the whole match
}

func rules() []rule {
	c := regexp.MustCompile
	return []rule{
		{"private-key", "a private key", c(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----`), 0},
		{"putty-key", "a PuTTY private key", c(`^PuTTY-User-Key-File-\d:`), 0},
		{"age-key", "an age secret key", c(`AGE-SECRET-KEY-1[0-9A-Z]{20,}`), 0},
		{"aws-key", "an AWS access key", c(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`), 0},
		{"aws-secret", "an AWS secret key", c(`(?i)aws_secret_access_key\s*[=:]\s*["']?([A-Za-z0-9/+=]{40})`), 1},
		{"github-token", "a GitHub token", c(`\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})`), 0},
		{"gitlab-token", "a GitLab token", c(`\bgl(?:pat|dt|rt|cbt|ptt|soat)-[A-Za-z0-9_-]{18,}`), 0},
		{"npm-token", "an npm token", c(`\bnpm_[A-Za-z0-9]{30,}`), 0},
		{"npm-auth", "an npm registry credential", c(`(?i)_(?:authToken|auth|password)\s*=\s*["']?([^\s"']+)`), 1},
		{"pypi-token", "a PyPI token", c(`\bpypi-[A-Za-z0-9_-]{32,}`), 0},
		{"slack-token", "a Slack token", c(`\bxox[abprs]-[A-Za-z0-9-]{10,}`), 0},
		{"stripe-key", "a Stripe key", c(`\b[rs]k_live_[A-Za-z0-9]{16,}`), 0},
		{"google-key", "a Google API key", c(`\bAIza[A-Za-z0-9_-]{35}\b`), 0},
		{"google-account", "a Google service account", c(`"private_key"\s*:\s*"-----BEGIN`), 0},
		{"docker-token", "a Docker Hub token", c(`\bdckr_pat_[A-Za-z0-9_-]{20,}`), 0},
		{"vault-token", "a Vault token", c(`\bhv[sbr]\.[A-Za-z0-9_-]{24,}`), 0},
		{"huggingface-token", "a Hugging Face token", c(`\bhf_[A-Za-z0-9]{30,}`), 0},
		{"azure-key", "an Azure storage key", c(`(?i)AccountKey=([A-Za-z0-9+/=]{40,})`), 1},
		{"jwt", "a signed token (JWT)", c(`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`), 0},
		{"url-password", "a password in an address", c(`\b[a-z][a-z0-9+.-]*://[^\s/:@"'<>]+:([^\s/@"'<>]+)@`), 1},
		{"netrc", "a password for a machine", c(`(?i)\bmachine\s+\S+.*\bpassword\s+(\S+)`), 1},
		{"docker-auth", "a registry credential", c(`"auth"\s*:\s*"([A-Za-z0-9+/=]{8,})"`), 1},
		{"password", "a password", c(`(?i)(?:^|[\s;{,"'<._-])(?:password|passwd|passphrase|secret_key|secretkey|client_secret|api[_-]?key|auth[_-]?token|access[_-]?token|private[_-]?token)["']?\s*(?:=|:|>)\s*["']?([^\s"'<>;,]{6,})`), 1},
	}
}

// placeholder tells values that stand for a secret and are none.
func placeholder(v string) bool {
	l := strings.ToLower(v)
	if strings.ContainsAny(v, "${}()*") || strings.HasPrefix(v, "%") || strings.HasPrefix(v, "@") || strings.Trim(l, "x.-_") == "" {
		return true
	}
	for _, w := range []string{"changeme", "example", "placeholder", "your", "password", "secret", "redacted", "prompt", "not-kept", "required", "optional", "false", "true", "none", "null", "disable", "sufficient", "include", "string", "pam_"} {
		if strings.Contains(l, w) {
			return true
		}
	}
	return strings.HasPrefix(v, "/") || strings.HasPrefix(v, "./") // a path to a file
}

// certain tells rules whose match needs no second look at the value.
func certain(name string) bool {
	switch name {
	case "password", "netrc", "npm-auth", "url-password", "docker-auth", "aws-secret", "azure-key":
		return false
	}
	return true
}

// byName knows files that are secrets whatever they hold.
func byName(p string) string {
	base := path.Base(p)
	switch {
	case base == "shadow" || base == "gshadow" || base == "shadow-" || base == "gshadow-":
		return "password hashes"
	case strings.HasPrefix(p, "/etc/ssl/private/") || strings.HasPrefix(p, "/etc/letsencrypt/archive/") && strings.HasPrefix(base, "privkey"):
		return "a private key"
	case strings.HasPrefix(base, "ssh_host_") && strings.HasSuffix(base, "_key"):
		return "a host's private key"
	case base == ".vault-token", base == ".git-credentials", base == "application_default_credentials.json":
		return "stored credentials"
	}
	switch path.Ext(base) {
	case ".kdbx", ".p12", ".pfx", ".jks", ".keystore", ".ppk", ".gpg-agent":
		return "a store of keys"
	}
	if strings.Contains(p, "/.gnupg/private-keys-v1.d/") || base == "secring.gpg" {
		return "a private key"
	}
	return ""
}

const (
	// maxLine is how much of a line is looked at in one piece, and overlap how
	// much of it again in the next, so that no secret is cut in two.
	maxLine = 64 << 10
	overlap = 4 << 10
)

// netrc knows files in the format of netrc(5), where a password stands in a line
// of its own.
func netrc(p string) bool {
	base := path.Base(p)
	return base == ".netrc" || base == "_netrc" || base == "netrc" || base == ".authinfo" || strings.HasPrefix(p, "/etc/apt/auth.conf")
}

// Scan looks for secrets in one file, whose name is the one on its machine.
func Scan(name string, r io.Reader) ([]Finding, error) {
	if what := byName(name); what != "" {
		return []Finding{{Path: name, Rule: "name", What: what}}, nil
	}
	var list []Finding
	table := rules()
	if netrc(name) {
		table = append(table, rule{"netrc", "a password for a machine", regexp.MustCompile(`(?i)(?:^|\s)password\s+(\S+)`), 1})
	}
	seen := map[string]bool{}
	br := bufio.NewReaderSize(r, maxLine)
	var before []byte // the end of the piece before, of the same line
	for n := 1; ; {
		piece, err := br.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		text := piece
		if len(before) > 0 {
			text = append(before, piece...)
		}
		for _, ru := range table {
			m := ru.re.FindSubmatch(text)
			if m == nil || seen[ru.name] {
				continue
			}
			if v := string(m[ru.value]); !certain(ru.name) && placeholder(v) {
				continue
			}
			seen[ru.name] = true
			list = append(list, Finding{Path: name, Line: n, Rule: ru.name, What: ru.what})
		}
		switch {
		case full:
			before = bytes.Clone(piece[len(piece)-overlap:])
			continue
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return list, err
		}
		before = nil
		n++
	}
}

// Variable tells whether an environment variable holds a secret.
func Variable(name, value string) (Finding, bool) {
	f, err := Scan("environment", strings.NewReader(value))
	if err == nil && len(f) > 0 {
		return Finding{Path: name, Rule: f[0].Rule, What: f[0].What}, true
	}
	n := strings.ToUpper(name)
	for _, w := range []string{"TOKEN", "PASSWORD", "PASSWD", "SECRET", "PRIVATE_KEY", "APIKEY", "API_KEY", "CREDENTIAL"} {
		if strings.Contains(n, w) && len(value) >= 6 && !placeholder(value) {
			return Finding{Path: name, Rule: "name", What: "a secret by its name"}, true
		}
	}
	return Finding{}, false
}

// RecipientError says which recipient cannot be used.
type RecipientError struct {
	Line string
	Err  error
}

func (e *RecipientError) Error() string {
	return fmt.Sprintf("recipient %.40q: %v", e.Line, e.Err)
}
func (e *RecipientError) Unwrap() error { return e.Err }

// Hint says what is accepted.
func (e *RecipientError) Hint() string {
	return "a recipient is age1… (age-keygen) or an SSH public key of type ssh-ed25519 or ssh-rsa"
}

// Recipients reads age recipients and SSH public keys.
func Recipients(lines []string) ([]age.Recipient, error) {
	var list []age.Recipient
	for _, l := range lines {
		if private(l) {
			return nil, &RecipientError{"(not shown)", errors.New("this is a private key, which belongs to one person alone: give the public one")}
		}
		var r age.Recipient
		var err error
		if strings.HasPrefix(l, "ssh-") {
			r, err = agessh.ParseRecipient(l)
		} else {
			r, err = age.ParseX25519Recipient(strings.TrimSpace(l))
		}
		if err != nil {
			return nil, &RecipientError{l, err}
		}
		list = append(list, r)
	}
	return list, nil
}

// private tells a private key that was given by mistake: it must not be printed.
func private(l string) bool {
	return strings.Contains(strings.ToUpper(l), "AGE-SECRET-KEY-") || strings.Contains(l, "-----BEGIN ")
}

// Encrypt encrypts to all recipients.
func Encrypt(data []byte, recipients []age.Recipient) ([]byte, error) {
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, recipients...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// maxIdentities bounds a file of identities, in bytes.
const maxIdentities = 1 << 20

// ReadIdentities reads an age identity file or an SSH private key.
func ReadIdentities(file string) ([]age.Identity, error) {
	data, err := tree.ReadFile(file, maxIdentities)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		id, err := agessh.ParseIdentity(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w (a key with a passphrase must be opened first: ssh-keygen -p -f COPY)", file, err)
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return ids, nil
}
