package recorder

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

const recordingVersion = 1

// Exchange is one request and its answer.
type Exchange struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Accept and Range are the request's headers that choose among answers.
	Accept string `json:"accept,omitempty"`
	Range  string `json:"range,omitempty"`
	// Request is the digest of the request's body, "" if there was none.
	Request string              `json:"request,omitempty"`
	Status  int                 `json:"status"`
	Header  map[string][]string `json:"header,omitempty"`
	Trailer map[string][]string `json:"trailer,omitempty"`
	Body    string              `json:"body,omitempty"` // digest; "" is empty
	Size    int64               `json:"size"`
	Seq     int                 `json:"seq"`
}

// Connection is one that cannot be recorded.
type Connection struct {
	Network string `json:"network"`
	Address string `json:"address"`
	Why     string `json:"why"` // ssh, tcp, tls-refused …
	Allowed bool   `json:"allowed,omitempty"`
	Blocked bool   `json:"blocked,omitempty"`
	Count   int    `json:"count"`
}

// Recording is everything that a build asked of the network.
type Recording struct {
	Version     int          `json:"version"`
	Exchanges   []Exchange   `json:"exchanges"`
	Connections []Connection `json:"connections,omitempty"`
	// Names lists the names that were asked for and exist.
	Names []string `json:"names,omitempty"`
	// Unknown lists names that did not exist.
	Unknown []string `json:"unknown_names,omitempty"`
}

func (r *Recording) sort() {
	slices.SortStableFunc(r.Exchanges, func(a, b Exchange) int {
		return cmp.Or(strings.Compare(a.URL, b.URL), strings.Compare(a.Method, b.Method), cmp.Compare(a.Seq, b.Seq))
	})
	// The sequence only orders the answers of one request.
	last := ""
	n := 0
	for i := range r.Exchanges {
		x := &r.Exchanges[i]
		if k := x.Method + " " + x.URL; k != last {
			last, n = k, 0
		}
		x.Seq = n
		n++
	}
	slices.SortFunc(r.Connections, func(a, b Connection) int {
		return cmp.Or(strings.Compare(a.Address, b.Address), strings.Compare(a.Why, b.Why))
	})
	slices.Sort(r.Unknown)
	slices.Sort(r.Names)
}

// Bodies lists the digests and sizes of everything the recording refers to.
func (r *Recording) Bodies() map[string]int64 {
	m := map[string]int64{}
	for _, x := range r.Exchanges {
		if x.Body != "" {
			m[x.Body] = x.Size
		}
	}
	return m
}

// Marshal writes the recording as JSON.
func (r *Recording) Marshal() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(r); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

var digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseRecording reads what Marshal wrote, and nothing else.
func ParseRecording(data []byte) (*Recording, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var r Recording
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	if r.Version != recordingVersion {
		return nil, fmt.Errorf("recording: version %d is not known; this program reads version %d", r.Version, recordingVersion)
	}
	for i, x := range r.Exchanges {
		u, err := url.Parse(x.URL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("recording: exchange %d: %.80q is not a web address", i, x.URL)
		}
		if x.Status < 100 || x.Status > 999 || x.Size < 0 || (x.Body != "" && !digestRE.MatchString(x.Body)) || (x.Request != "" && !digestRE.MatchString(x.Request)) {
			return nil, fmt.Errorf("recording: exchange %d (%s): status, size or digest is not valid", i, x.URL)
		}
	}
	return &r, nil
}

// sensitiveParameters are those of signed addresses and tokens: never kept,
// and never the same twice.
func sensitiveParameter(name string) bool {
	n := strings.ToLower(name)
	for _, p := range []string{"x-amz-", "x-goog-", "x-oss-"} {
		if strings.HasPrefix(n, p) {
			return true
		}
	}
	return slices.Contains([]string{"signature", "sig", "se", "sp", "sv", "sr", "skoid", "sktid", "skt", "ske", "sks", "skv", "spr", "st", "expires", "key-pair-id", "policy", "token", "access_token", "private_token", "job_token", "auth", "apikey", "api_key", "key", "jwt", "password", "passwd", "secret", "client_secret", "hmac", "x-signature", "response-content-disposition"}, n)
}

// signed tells that an address carries a signature: only then are its short,
// common parameter names taken for parts of one.
func signed(q url.Values) bool {
	for k := range q {
		n := strings.ToLower(k)
		if strings.HasPrefix(n, "x-amz-") || strings.HasPrefix(n, "x-goog-") || n == "signature" || n == "sig" || n == "x-signature" || n == "hmac" {
			return true
		}
	}
	return false
}

// cleanURL takes credentials and signatures out of an address.
func cleanURL(u *url.URL) string {
	c := *u
	c.User = nil
	c.Fragment = ""
	q := c.Query()
	always := []string{"token", "access_token", "private_token", "job_token", "apikey", "api_key", "jwt", "password", "passwd", "secret", "client_secret"}
	sig := signed(q)
	changed := false
	for k := range q {
		if (sig && sensitiveParameter(k)) || slices.Contains(always, strings.ToLower(k)) {
			q.Del(k)
			changed = true
		}
	}
	if changed {
		c.RawQuery = q.Encode()
	}
	return c.String()
}

// cleanHeader copies an answer's headers without cookies, credentials, hop by
// hop fields, and with cleaned addresses.
func cleanHeader(h map[string][]string) map[string][]string {
	out := map[string][]string{}
	for k, v := range h {
		switch strings.ToLower(k) {
		case "set-cookie", "set-cookie2", "authorization", "proxy-authorization", "www-authenticate-token", "connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "te", "trailer", "alt-svc", "x-auth-token", "x-amz-security-token", "x-vault-token", "private-token", "x-api-key":
			continue
		case "location", "content-location", "link":
			for _, s := range v {
				if u, err := url.Parse(s); err == nil && u.RawQuery != "" {
					s = cleanURL(u)
				}
				out[k] = append(out[k], s)
			}
		default:
			out[k] = slices.Clone(v)
		}
	}
	return out
}

// index finds answers on replay.
type index struct {
	byKey   map[string][]*Exchange
	served  map[string]int
	hosts   map[string]bool
	unknown map[string]bool
}

func newIndex(r *Recording) *index {
	x := &index{byKey: map[string][]*Exchange{}, served: map[string]int{}, hosts: map[string]bool{}, unknown: map[string]bool{}}
	for i := range r.Exchanges {
		e := &r.Exchanges[i]
		k := recordingKey(e.Method, e.URL, e.Request)
		x.byKey[k] = append(x.byKey[k], e)
		if u, err := url.Parse(e.URL); err == nil {
			x.hosts[u.Hostname()] = true
		}
	}
	for _, n := range r.Names {
		x.hosts[n] = true
	}
	for _, n := range r.Unknown {
		x.unknown[n] = true
	}
	return x
}

// recordingKey is what a request must agree in to get a recorded answer.
func recordingKey(method, address, body string) string { return method + " " + address + " " + body }

// find chooses the answer: the same Range and Accept first, then the same
// Range, then a whole body of which a range can be cut. Several answers to one
// request are given in their order, the last one again and again.
func (x *index) find(method, address, body, accept, rng string) *Exchange {
	for _, m := range []string{method, "GET"} {
		if m != method && method != "HEAD" {
			break
		}
		all := x.byKey[recordingKey(m, address, body)]
		for _, fits := range []func(*Exchange) bool{
			func(e *Exchange) bool { return e.Range == rng && e.Accept == accept },
			func(e *Exchange) bool { return e.Range == rng },
			func(e *Exchange) bool { return e.Range == "" && e.Status == 200 },
		} {
			var list []*Exchange
			for _, e := range all {
				if fits(e) {
					list = append(list, e)
				}
			}
			if len(list) > 0 {
				k := fmt.Sprintf("%s %s %s %p", m, rng, accept, list[0])
				n := min(x.served[k], len(list)-1)
				x.served[k]++
				return list[n]
			}
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
