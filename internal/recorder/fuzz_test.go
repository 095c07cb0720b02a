package recorder

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzRequest reads what a build sends to its recorder, and answers it from a recording. What
// is kept of an address holds no secret, whatever else is in it.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET /file?a=1 HTTP/1.1\r\nHost: a.example.com:80\r\nRange: bytes=1-2\r\nAccept: %zz\r\nIf-None-Match: \"v1\"\r\n\r\n",
		"POST http://u:p@A.example.com/x?X-Amz-Signature=1;b=2 HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\nx",
		"HEAD * HTTP/1.0\r\nConnection: close, x\r\n\r\n", "GET / HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
	} {
		f.Add(s)
	}
	index := newIndex(&Recording{Exchanges: []Exchange{{Method: "GET", URL: "http://a.example.com/file?a=1", Status: 200, Size: 10}}})
	const secret = "hunter2-hunter2"
	f.Fuzz(func(t *testing.T, s string) {
		sniff([]byte(s))
		q, err := http.ReadRequest(bufio.NewReader(strings.NewReader(s)))
		if err != nil || strings.Contains(s, secret) {
			return
		}
		u := address(q, meant{host: "h", port: "80"})
		u.User = url.UserPassword("ann", secret)
		u.RawQuery = "access_token=" + secret + "&" + u.RawQuery + "&private-token=" + secret
		clean := cleanURL(u)
		if strings.Contains(clean, secret) {
			t.Errorf("%q is kept as %q", s, clean)
		}
		hopByHop(q.Header)
		q.Header.Set("X-Auth-Token", secret)
		q.Header.Set("Location", "https://ann:"+secret+"@example.com/?token="+secret)
		q.Header.Set("Link", "https://ann:"+secret+"@example.com/"+q.Header.Get("Accept")+"?token="+secret)
		for k, v := range cleanHeader(q.Header) {
			if strings.Contains(fmt.Sprint(v), secret) {
				t.Errorf("%s is kept as %q", k, v)
			}
		}
		x := asked(q, u, "")
		index.find(&x)
		if from, n, ok := cut(q.Header.Get("Range"), 10); ok && (from < 0 || n < 1 || from+n > 10) {
			t.Errorf("%q are %d bytes from %d of 10", q.Header.Get("Range"), n, from)
		}
		notModified(q, &Exchange{Status: 200, Header: map[string][]string{"Etag": {`"v1"`}}})
	})
}

// FuzzGrant reads JSON that grants a token: what is kept of it does not.
func FuzzGrant(f *testing.F) {
	f.Add([]byte(`{"a":[{"b":1.50}],"u":"https://a/?sig=1&x=2"}`), "")
	f.Add([]byte(`[]`), "gzip")
	const secret = "hunter2-hunter2"
	f.Fuzz(func(t *testing.T, data []byte, encoding string) {
		withoutTokens(data, encoding)
		if !json.Valid(data) || strings.Contains(string(data), secret) {
			return
		}
		whole := []byte(`{"access_token":"` + secret + `","x":` + string(data) + `,"y":{"client_secret":"` + secret + `"}}`)
		kept, changed := withoutTokens(whole, "")
		if !changed || strings.Contains(string(kept), secret) || !json.Valid(kept) {
			t.Errorf("%q is kept as %q (%t)", whole, kept, changed)
		}
	})
}

// answered is a question's writer that holds what is answered against the question.
type answered struct {
	dns.ResponseWriter
	t *testing.T
	n int
}

func (a *answered) WriteMsg(m *dns.Msg) error {
	a.n++
	if _, err := m.Pack(); err != nil {
		a.t.Errorf("the answer %v cannot be sent: %v", m, err)
	}
	for _, rr := range m.Answer {
		if x, ok := rr.(*dns.A); ok && x.A.String() != "127.0.0.1" && !strings.HasPrefix(x.A.String(), "198.18.") {
			a.t.Errorf("%s is %s", x.Hdr.Name, x.A)
		}
	}
	return nil
}

// FuzzQuestion reads what a build asks the resolver.
func FuzzQuestion(f *testing.F) {
	for _, name := range []string{"a.example.com.", "localhost.", "1.0.0.127.in-addr.arpa.", "."} {
		m := new(dns.Msg)
		data, err := m.SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q := new(dns.Msg)
		if q.Unpack(data) != nil {
			return
		}
		for _, replay := range []*Recording{nil, {}} {
			r := &Recorder{names: map[string]string{}, addrs: map[string]string{}, unanswered: map[string]int{}, rec: &Recording{}, questions: make(places, 1), ctx: t.Context()}
			r.o.Lookup = func(context.Context, string) []net.IP { return []net.IP{net.IPv4(192, 0, 2, 1)} }
			r.o.Upstream = func(*url.URL) (*url.URL, error) { return nil, nil }
			if r.o.Replay = replay; replay != nil {
				r.index = newIndex(replay)
			}
			a := &answered{t: t}
			if r.resolve(a, q); a.n != 1 {
				t.Errorf("%v is answered %d times", q, a.n)
			}
		}
	})
}
