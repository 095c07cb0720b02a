package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"trysail/release"
)

// load makes the targets of a document beside files.
func load(t *testing.T, doc string, files map[string]string) []Target {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, dir, name, text, 0o600)
	}
	c, err := Load(write(t, dir, "notify.yaml", doc, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return c.Targets
}

func certificate(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// Other people's programs read the event and check the signature.
func TestWebhook(t *testing.T) {
	var mu sync.Mutex
	var got *http.Request
	var body []byte
	status := 204
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got, body = r, data
		if r.URL.Path == "/hook" {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	doc := "webhooks:\n- url: " + s.URL + "/hook?token=hunter2\n  secret_file: s\n  ca_file: ca.pem\n"
	files := map[string]string{"s": secret, "ca.pem": certificate(s.Certificate())}
	w := load(t, doc, files)[0]
	m := message()
	if err := w.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodPost || got.Header.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" || got.URL.RawQuery != "token=hunter2" {
		t.Errorf("%s %s %v", got.Method, got.URL, got.Header)
	}
	var e cloudevents.Event
	if err := e.UnmarshalJSON(body); err != nil || e.Validate() != nil || e.ID() != m.ID() || e.Subject() != "tried" || !e.Time().Equal(m.At) {
		t.Errorf("%s\n%v %v", body, err, e.Validate())
	}
	check, err := standardwebhooks.NewWebhook(strings.TrimSpace(secret))
	if err != nil {
		t.Fatal(err)
	}
	if err := check.Verify(body, got.Header); err != nil {
		t.Error(err)
	}
	if check.Verify(append(body, ' '), got.Header) == nil {
		t.Error("the signature is good for other bytes")
	}
	first := got.Header.Get("webhook-id")
	if err := w.Send(t.Context(), m); err != nil || got.Header.Get("webhook-id") != first {
		t.Errorf("sent again it is another: %v", err)
	}

	for code, refused := range map[int]bool{200: false, 302: true, 400: true, 404: true, 410: true, 429: false, 500: false, 503: false} {
		mu.Lock()
		status = code
		mu.Unlock()
		err := w.Send(t.Context(), m)
		var no *RefusedError
		if (err == nil) != (code == 200) || errors.As(err, &no) != refused {
			t.Errorf("answer %d: %v", code, err)
		}
		if got.URL.Path != "/hook" {
			t.Errorf("answer %d: it went to %s", code, got.URL)
		}
	}
	bare := load(t, "webhooks:\n- url: "+s.URL+"/hook?token=hunter2\n", nil)[0]
	if err := bare.Send(t.Context(), m); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an authority that nobody trusts: %v", err)
	}
	s.Close()
	if err := w.Send(t.Context(), m); err == nil || strings.Contains(err.Error()+w.Name(), "hunter2") {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Send(ctx, m); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWebhookWithoutSecret(t *testing.T) {
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer s.Close()
	if err := load(t, "webhooks: [{url: '"+s.URL+"'}]\n", nil)[0].Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	if got.Get("webhook-signature") != "" || got.Get("webhook-id") == "" {
		t.Errorf("%v", got)
	}
}

// post is a mail server that keeps what it takes.
type post struct {
	from string
	to   []string
	data string
	user string
	no   *smtp.SMTPError // to RCPT
	rude bool            // it hangs up when the good-bye comes
}

// line is a connection on which the good-bye is heard first.
type line struct {
	net.Conn
	p *post
}

func (l line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if l.p.rude && strings.HasPrefix(string(b[:n]), "QUIT") {
		return 0, errors.Join(io.EOF, l.Close())
	}
	return n, err
}

type lines struct {
	net.Listener
	p *post
}

func (l lines) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return line{c, l.p}, err
}

type session struct{ p *post }

func (p *post) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{p}, nil }
func (s *session) Reset()                                   {}
func (s *session) Logout() error                            { return nil }
func (s *session) AuthMechanisms() []string                 { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != "swordfish" {
			return smtp.ErrAuthFailed
		}
		s.p.user = user
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.p.from, s.p.to = from, nil
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.p.no != nil {
		return s.p.no
	}
	s.p.to = append(s.p.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	s.p.data = string(data)
	return err
}

// office starts it; with how it speaks.
func office(t *testing.T, p *post, how string) (address, ca string) {
	t.Helper()
	h := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(h.Close)
	s := smtp.NewServer(p)
	s.Domain, s.ErrorLog = "localhost", log.New(io.Discard, "", 0)
	conf := &tls.Config{Certificates: h.TLS.Certificates}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	switch how {
	case "starttls":
		s.TLSConfig = conf
	case "tls":
		l = tls.NewListener(l, conf)
	default:
		s.AllowInsecureAuth = true
		l = lines{l, p}
	}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String(), certificate(h.Certificate())
}

func TestEmail(t *testing.T) {
	for _, how := range []string{"starttls", "tls", "none"} {
		p := &post{}
		address, ca := office(t, p, how)
		doc := "email:\n  smtp: " + address + "\n  from: Trysail <trysail@example.com>\n  tls: " + how +
			"\n  user: u\n  password_file: p\n  ca_file: ca.pem\n  always: [ann@example.com]\n"
		box := load(t, doc, map[string]string{"p": "swordfish\n", "ca.pem": ca})[0]
		m := message()
		if err := box.Send(t.Context(), m); err != nil {
			t.Errorf("%s: %v", how, err)
			continue
		}
		msg, err := mail.ReadMessage(strings.NewReader(p.data))
		if err != nil {
			t.Fatalf("%s: %v\n%s", how, err, p.data)
		}
		if p.user != "u" || p.from != "trysail@example.com" || strings.Join(p.to, " ") != "ann@example.com" {
			t.Errorf("%s: as %s, from %s, to %s", how, p.user, p.from, p.to)
		}
		if id := msg.Header.Get("Message-Id"); id != "<"+m.key()+"@trysail.invalid>" || msg.Header.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("%s: %v", how, msg.Header)
		}
		if strings.Contains(p.data, "swordfish") || !strings.Contains(p.data, "trysail release status 4.2") {
			t.Errorf("%s: %s", how, p.data)
		}

		wrong := load(t, doc, map[string]string{"p": "hunter2\n", "ca.pem": ca})[0]
		if err := wrong.Send(t.Context(), m); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s, another password: %v", how, err)
		}
		if how != "none" {
			strange := load(t, strings.Replace(doc, "  ca_file: ca.pem\n", "", 1), map[string]string{"p": "swordfish\n"})[0]
			if err := strange.Send(t.Context(), m); err == nil {
				t.Errorf("%s: an authority that nobody trusts is trusted", how)
			}
		}
	}
}

// A server without STARTTLS gets neither mail nor password.
func TestEmailInsistsOnTLS(t *testing.T) {
	p := &post{}
	address, ca := office(t, p, "none")
	for _, user := range []string{"", "  user: u\n  password_file: p\n"} {
		box := load(t, "email:\n  smtp: "+address+"\n  from: t@example.com\n  tls: starttls\n"+user+"  ca_file: ca.pem\n  always: [ann@example.com]\n",
			map[string]string{"p": "swordfish\n", "ca.pem": ca})[0]
		if err := box.Send(t.Context(), message()); err == nil || p.user != "" || p.data != "" {
			t.Errorf("%v; it has %+v", err, p)
		}
	}
}

func TestEmailRefused(t *testing.T) {
	no := func(code int) *smtp.SMTPError {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCodeNotSet, Message: "no"}
	}
	for _, x := range []struct {
		name           string
		p              *post
		taken, refused bool
	}{
		{"no such address", &post{no: no(550)}, false, true},
		{"later", &post{no: no(450)}, false, false},
		{"taken, and cut off at the good-bye", &post{rude: true}, true, false},
	} {
		address, _ := office(t, x.p, "none")
		box := load(t, "email:\n  smtp: "+address+"\n  from: t@example.com\n  tls: none\n  always: [ann@example.com]\n", nil)[0]
		err := box.Send(t.Context(), message())
		var no *RefusedError
		if (err == nil) != x.taken || errors.As(err, &no) != x.refused || (x.p.data != "") != x.taken {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// What people and machines wrote stays on its line.
func TestSubject(t *testing.T) {
	m := message()
	m.Notice = release.Notice{What: "a\r\nBcc: eve@example.com\n\n" + strings.Repeat("ä", 200)}
	if s := subject(&m); strings.ContainsAny(s, "\r\n") || len([]rune(s)) > 130 {
		t.Errorf("%q", s)
	}
	p := &post{}
	address, _ := office(t, p, "none")
	box := load(t, "email:\n  smtp: "+address+"\n  from: t@example.com\n  tls: none\n  always: [ann@example.com]\n", nil)[0]
	if err := box.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	msg, err := mail.ReadMessage(strings.NewReader(p.data))
	if err != nil || msg.Header.Get("Bcc") != "" {
		t.Errorf("%v %s", err, p.data)
	}
}
