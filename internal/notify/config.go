package notify

import (
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/mail"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"trysail/internal/strict"
	"trysail/internal/tree"
	"trysail/release"
	"trysail/runbook"
)

const (
	maxSize   = 1 << 20
	maxSecret = 64 << 10 // bytes of a secret or of certificates
	leastKey  = 24       // bytes of a webhook's secret, by Standard Webhooks
	seeDocs   = "see docs/notices.md for an example"
)

// Config is who is told what.
type Config struct {
	Targets    []Target
	SlackUnder *time.Duration // nil: slack is not told
}

// file is the document as people write it.
type file struct {
	SlackUnder string    `yaml:"slack_under"`
	Webhooks   []hookDoc `yaml:"webhooks"`
	Email      *mailDoc  `yaml:"email"`

	name       string
	data       []byte
	slackUnder *time.Duration
}

type hookDoc struct {
	URL        string               `yaml:"url"`
	Kinds      []release.NoticeKind `yaml:"kinds"`
	SecretFile string               `yaml:"secret_file"`
	CAFile     string               `yaml:"ca_file"`
	Insecure   bool                 `yaml:"insecure"`
}

type mailDoc struct {
	SMTP         string               `yaml:"smtp"`
	From         string               `yaml:"from"`
	TLS          string               `yaml:"tls"`
	User         string               `yaml:"user"`
	PasswordFile string               `yaml:"password_file"`
	CAFile       string               `yaml:"ca_file"`
	Insecure     bool                 `yaml:"insecure"`
	To           map[string]string    `yaml:"to"`
	Always       []string             `yaml:"always"`
	Kinds        []release.NoticeKind `yaml:"kinds"`
}

// maxConfig bounds the document, in bytes.
const maxConfig = 4 << 20

// Load reads a file strictly, and the files of secrets and certificates that it
// names, which may be relative to it.
func Load(name string) (*Config, error) {
	data, err := tree.ReadFile(name, maxConfig)
	if err != nil {
		return nil, err
	}
	f, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	c := &Config{SlackUnder: f.slackUnder}
	for i, h := range f.Webhooks {
		t, err := f.webhook(h, fmt.Sprintf("webhooks[%d]", i))
		if err != nil {
			return nil, err
		}
		c.Targets = append(c.Targets, t)
	}
	if f.Email != nil {
		list, err := f.mailboxes()
		if err != nil {
			return nil, err
		}
		c.Targets = append(c.Targets, list...)
	}
	return c, nil
}

func (f *file) fail(at, remedy, format string, args ...any) *strict.Error {
	return &strict.Error{File: f.name, Line: strict.Line(f.data, at), What: fmt.Sprintf(format, args...), Remedy: remedy}
}

// parse reads and checks the document, and nothing else.
func parse(name string, data []byte) (*file, error) {
	f := &file{name: name, data: data}
	if err := strict.Text(name, data, maxSize, seeDocs); err != nil {
		return nil, err
	}
	if err := strict.YAML(name, data, f, seeDocs); err != nil {
		return nil, err
	}
	if len(f.Webhooks) == 0 && f.Email == nil {
		return nil, f.fail("", seeDocs, "nobody is told anything: neither webhooks nor email")
	}
	if f.SlackUnder != "" {
		d, err := runbook.ParseDelay(f.SlackUnder)
		if err != nil {
			return nil, f.fail("slack_under", "slack_under: 24h", "slack_under: %v", err)
		}
		f.slackUnder = &d
	}
	seen := map[string]bool{}
	for i, h := range f.Webhooks {
		at := fmt.Sprintf("webhooks[%d]", i)
		if err := f.checkURL(h, at+".url"); err != nil {
			return nil, err
		}
		if seen[h.URL] {
			return nil, f.fail(at+".url", "give each address once, with all its kinds", "this address stands twice")
		}
		seen[h.URL] = true
		if err := f.checkKinds(h.Kinds, at+".kinds"); err != nil {
			return nil, err
		}
	}
	if f.Email != nil {
		if err := f.checkEmail(f.Email); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *file) checkKinds(list []release.NoticeKind, at string) error {
	for i, k := range list {
		if !slices.Contains(kinds(), k) {
			return f.fail(fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("the kinds are %v", kinds()), "%q is no kind of notice", k)
		}
	}
	return nil
}

// checkURL never repeats the address: it may be a secret.
func (f *file) checkURL(h hookDoc, at string) error {
	u, err := url.Parse(h.URL)
	switch {
	case err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return f.fail(at, "write it whole: url: https://hooks.example.com/trysail", "the url is no address of a webhook")
	case u.User != nil:
		return f.fail(at, "sign with secret_file instead", "the url holds a name or password")
	case u.Fragment != "":
		return f.fail(at, "leave out # and what follows", "the url holds a fragment, which is never sent")
	case u.Scheme == "http" && !loopback(u.Hostname()) && !h.Insecure:
		return f.fail(at, "use https; or say insecure: true, and everybody on the way reads and changes it", "plain http to another machine")
	}
	return nil
}

// loopback tells whether a host is this one, without asking a name server.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func (f *file) checkEmail(m *mailDoc) error {
	host, port, err := net.SplitHostPort(m.SMTP)
	if err != nil || host == "" || !number(port) {
		return f.fail("email.smtp", "write host and port: smtp: mail.example.com:587", "smtp %q is no address of a mail server", m.SMTP)
	}
	if _, err := mail.ParseAddress(m.From); err != nil {
		return f.fail("email.from", "write an address: from: trysail@example.com", "from %q is no mail address", m.From)
	}
	switch m.TLS {
	case "starttls", "tls":
	case "none":
		if !loopback(host) && (!m.Insecure || m.User != "") {
			return f.fail("email.tls", "use starttls or tls; without a user, insecure: true allows it", "mail to another machine without encryption")
		}
	default:
		return f.fail("email.tls", "write tls: starttls (port 587), tls (port 465) or none", "tls %q is not known", m.TLS)
	}
	if (m.User == "") != (m.PasswordFile == "") {
		return f.fail("email", "give both, or none", "user and password_file go together")
	}
	if len(m.Always) == 0 {
		return f.fail("email", "name at least one address: always: [releases@example.com]", "always is empty: what asks nobody by name would reach nobody")
	}
	for i, a := range m.Always {
		if err := f.checkAddress(a, fmt.Sprintf("email.always[%d]", i)); err != nil {
			return err
		}
	}
	for _, person := range slices.Sorted(maps.Keys(m.To)) {
		at := "email.to"
		if plain(person) {
			at += "." + person
		}
		if err := f.checkAddress(m.To[person], at); err != nil {
			return err
		}
	}
	return f.checkKinds(m.Kinds, "email.kinds")
}

// plain tells names that a YAML path can hold.
func plain(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	})
}

func number(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func (f *file) checkAddress(a, at string) error {
	if x, err := mail.ParseAddress(a); err != nil || x.Address != a {
		return f.fail(at, "write the address alone: ann@example.com", "%q is no mail address", a)
	}
	return nil
}

// read gives a file that the document names.
func (f *file) read(name, at string, secret bool) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(f.name), name)
	}
	r, err := tree.OpenFile(name)
	if err != nil {
		return nil, f.fail(at, "make the file, or mend its name", "%v", err)
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, f.fail(at, "give a file", "%s is no file", name)
	case secret && info.Mode().Perm() != 0o600:
		return nil, f.fail(at, "chmod 600 "+name, "%s holds a secret and has mode %04o, not 0600", name, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSecret {
		return nil, f.fail(at, "give another file", "%s has more than %d bytes", name, maxSecret)
	}
	return data, nil
}

// roots are the certificates that a target is checked against; nil: the system's.
func (f *file) roots(name, at string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	data, err := f.read(name, at, false)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, f.fail(at, "give the authority's certificate in PEM", "%s holds no certificate", name)
	}
	return pool, nil
}

func (f *file) webhook(h hookDoc, at string) (*webhook, error) {
	u, err := url.Parse(h.URL)
	if err != nil {
		return nil, err // parse has seen that it is one
	}
	roots, err := f.roots(h.CAFile, at+".ca_file")
	if err != nil {
		return nil, err
	}
	var key []byte
	if h.SecretFile != "" {
		data, err := f.read(h.SecretFile, at+".secret_file", true)
		if err != nil {
			return nil, err
		}
		text, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "whsec_")
		key, err = base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(key) < leastKey {
			return nil, f.fail(at+".secret_file", `make one: echo "whsec_$(openssl rand -base64 32)"`, "the secret is not whsec_ and %d bytes or more in base64", leastKey)
		}
	}
	return newWebhook(u, h.Kinds, key, roots), nil
}

// mailboxes makes a target of each address, with the people it belongs to.
func (f *file) mailboxes() ([]Target, error) {
	m := f.Email
	roots, err := f.roots(m.CAFile, "email.ca_file")
	if err != nil {
		return nil, err
	}
	s := &sender{from: m.From, user: m.User, tls: m.TLS, roots: roots}
	host, port, err := net.SplitHostPort(m.SMTP)
	if err != nil {
		return nil, err // parse has seen that it is one
	}
	s.host = host
	if s.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	if m.PasswordFile != "" {
		data, err := f.read(m.PasswordFile, "email.password_file", true)
		if err != nil {
			return nil, err
		}
		if s.password = strings.TrimRight(string(data), "\r\n"); s.password == "" {
			return nil, f.fail("email.password_file", "write the password into it", "the file is empty")
		}
	}
	boxes := map[string]*mailbox{}
	box := func(address string) *mailbox {
		if boxes[address] == nil {
			boxes[address] = &mailbox{sender: s, address: address, kinds: m.Kinds}
		}
		return boxes[address]
	}
	for _, a := range m.Always {
		box(a).always = true
	}
	for person, a := range m.To {
		b := box(a)
		b.people = append(b.people, person)
	}
	var list []Target
	for _, a := range slices.SortedFunc(maps.Keys(boxes), cmp.Compare) {
		list = append(list, boxes[a])
	}
	return list, nil
}
