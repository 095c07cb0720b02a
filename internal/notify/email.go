package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"trysail/release"
	"trysail/runbook"
)

// sender is the mail server that takes all mail.
type sender struct {
	host, user, password string
	port                 int
	from                 string
	tls                  string // starttls, tls, none
	roots                *x509.CertPool
}

// mailbox is a target that is told by mail: one address.
type mailbox struct {
	*sender
	address string
	always  bool     // everything of its kinds
	people  []string // whose address it is
	kinds   []release.NoticeKind
}

func (b *mailbox) Name() string { return "email " + b.address }

func (b *mailbox) Wants(n release.Notice) bool {
	if len(b.kinds) > 0 && !slices.Contains(b.kinds, n.Kind) {
		return false
	}
	return b.always || slices.ContainsFunc(b.people, func(p string) bool { return slices.Contains(n.People, p) })
}

func (b *mailbox) Send(ctx context.Context, m Message) error {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(b.from), msg.To(b.address)); err != nil {
		return err
	}
	msg.SetMessageIDWithValue(m.key() + "@trysail.invalid")
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // nobody's absence is answered to it
	msg.SetDate()
	msg.Subject(subject(&m))
	msg.SetBodyString(mail.TypeTextPlain, text(&m))
	client, err := b.client()
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, msg)
	var no *mail.SendError
	switch {
	case err == nil, msg.IsDelivered(): // a good-bye that failed is no reason to send it twice
		return nil
	case errors.As(err, &no) && no.ErrorCode()/100 == 5:
		return &RefusedError{no.Error()}
	}
	return err
}

func (s *sender) client() (*mail.Client, error) {
	options := []mail.Option{
		mail.WithPort(s.port), mail.WithTimeout(10 * time.Second),
		mail.WithTLSConfig(&tls.Config{ServerName: s.host, RootCAs: s.roots, MinVersion: tls.VersionTLS12}),
	}
	switch s.tls {
	case "tls":
		options = append(options, mail.WithSSL())
	case "starttls":
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	default:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	}
	if s.user != "" {
		auth := mail.SMTPAuthAutoDiscover
		if s.tls == "none" {
			auth = mail.SMTPAuthPlainNoEnc // to this machine only
		}
		options = append(options, mail.WithSMTPAuth(auth), mail.WithUsername(s.user), mail.WithPassword(s.password))
	}
	return mail.NewClient(s.host, options...)
}

// subject is one line whatever people and machines wrote.
func subject(m *Message) string {
	what := strings.Join(strings.Fields(m.What), " ")
	if r := []rune(what); len(r) > 120 {
		what = string(r[:119]) + "…"
	}
	if m.Drill != "" {
		return "drill " + m.Item + ": " + what
	}
	return m.Release + ": " + what
}

func text(m *Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", m.What)
	if len(m.People) > 0 {
		fmt.Fprintf(&b, "Asked: %s\n", strings.Join(m.People, ", "))
	}
	if m.Drill != "" {
		fmt.Fprintf(&b, "Drill %s: %s, %s\n\nMore: trysail drill report %s\n", m.Drill, m.Verdict, runbook.FormatTime(m.At, m.Zone), m.Drill)
		return b.String()
	}
	fmt.Fprintf(&b, "Release %s, event %d, %s\n", m.Release, m.Event, runbook.FormatTime(m.At, m.Zone))
	if !m.Ship.IsZero() {
		fmt.Fprintf(&b, "Ship date: %s\n", runbook.FormatTime(m.Ship, m.Zone))
	}
	fmt.Fprintf(&b, "\nMore: trysail release status %s\n", m.Release)
	return b.String()
}
