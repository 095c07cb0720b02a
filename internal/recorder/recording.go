package recorder

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
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
	Accept   string `json:"accept,omitempty"`
	Range    string `json:"range,omitempty"`
	Encoding string `json:"encoding,omitempty"` // Accept-Encoding
	// Condition is the validator of a conditional request.
	Condition string `json:"condition,omitempty"`
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

// TLSRefused is why a connection was not recorded whose program ended it when it saw the
// recorder's certificate: it trusts other authorities than the system's.
const TLSRefused = "tls-refused"

// Recording is everything that a build asked of the network.
type Recording struct {
	Version     int          `json:"version"`
	Exchanges   []Exchange   `json:"exchanges"`
	Connections []Connection `json:"connections,omitempty"`
	// Names lists the names that were asked for and exist.
	Names []string `json:"names,omitempty"`
	// Own lists names that are the loopback's own: the build's servers.
	Own []string `json:"own_names,omitempty"`
	// Loopback lists ports of 127.0.0.1 at which the build found what listened on the
	// captured machine.
	Loopback []uint16 `json:"loopback,omitempty"`
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
	slices.Sort(r.Own)
	slices.Sort(r.Loopback)
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

// index finds answers on replay.
type index struct {
	byKey   map[string][]*Exchange
	paths   map[string]bool // "GET https://…" without the query
	served  map[string]int
	hosts   map[string]bool
	own     map[string]bool
	unknown map[string]bool
	raw     map[string]bool // addresses of what speaks neither HTTP nor TLS
	ignore  []string        // query parameters
}

func newIndex(r *Recording, ignore ...string) *index {
	x := &index{byKey: map[string][]*Exchange{}, paths: map[string]bool{}, served: map[string]int{}, hosts: map[string]bool{}, own: map[string]bool{}, unknown: map[string]bool{}, raw: map[string]bool{}, ignore: ignore}
	for i := range r.Exchanges {
		e := &r.Exchanges[i]
		k := recordingKey(e.Method, x.counted(e.URL), e.Request)
		x.byKey[k] = append(x.byKey[k], e)
		x.paths[withoutQuery(e.Method+" "+e.URL)] = true
		if u, err := url.Parse(e.URL); err == nil {
			x.hosts[u.Hostname()] = true
		}
	}
	for _, l := range []struct {
		list []string
		set  map[string]bool
	}{{r.Names, x.hosts}, {r.Own, x.own}, {r.Unknown, x.unknown}} {
		for _, n := range l.list {
			l.set[n] = true
		}
	}
	for _, c := range r.Connections {
		if c.Why == "tcp" || c.Why == "ssh" {
			x.raw[c.Address] = true
		}
		if host, _, err := net.SplitHostPort(c.Address); err == nil && net.ParseIP(host) == nil {
			x.hosts[host] = true
		}
	}
	return x
}

// counted is the part of an address that counts: without the parameters that are ignored.
func (x *index) counted(address string) string {
	before, query, has := strings.Cut(address, "?")
	if !has || len(x.ignore) == 0 {
		return address
	}
	pairs := slices.DeleteFunc(strings.Split(query, "&"), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(x.ignore, name)
	})
	if len(pairs) == 0 {
		return before
	}
	return before + "?" + strings.Join(pairs, "&")
}

func withoutQuery(address string) string {
	address, _, _ = strings.Cut(address, "?")
	return address
}

// recordingKey is what a request must agree in to get a recorded answer.
func recordingKey(method, address, body string) string { return method + " " + address + " " + body }

// find chooses the answer to a request, given as an exchange without one: that
// of the most similar request, in the order of the tests below, and at last a
// whole body of which a range can be cut. Several answers to one request are
// given in their order, the last one again and again.
//
// An answer that demands credentials is passed over where a later one did not:
// credentials are not kept, so who replays has none to show.
func (x *index) find(q *Exchange) *Exchange {
	for _, m := range []string{q.Method, http.MethodGet} {
		if m != q.Method && q.Method != http.MethodHead {
			break
		}
		var all, challenges []*Exchange
		for _, e := range x.byKey[recordingKey(m, x.counted(q.URL), q.Request)] {
			switch {
			case e.Status == http.StatusNotModified && q.Condition == "":
			case e.Status == http.StatusUnauthorized:
				challenges = append(challenges, e)
			default:
				all = append(all, e)
			}
		}
		if len(all) == 0 {
			all = challenges
		}
		for i, fits := range []func(*Exchange) bool{
			func(e *Exchange) bool {
				return e.Range == q.Range && e.Condition == q.Condition && e.Accept == q.Accept && e.Encoding == q.Encoding
			},
			func(e *Exchange) bool { return e.Range == q.Range && e.Condition == q.Condition && e.readable(q) },
			func(e *Exchange) bool {
				return e.Range == q.Range && e.Status != http.StatusNotModified && e.readable(q)
			},
			func(e *Exchange) bool { return e.Range == "" && e.Status == http.StatusOK && e.readable(q) },
		} {
			var list []*Exchange
			for _, e := range all {
				if fits(e) {
					list = append(list, e)
				}
			}
			if len(list) > 0 {
				k := fmt.Sprintf("%s %d %p", m, i, list[0])
				n := min(x.served[k], len(list)-1)
				x.served[k]++
				return list[n]
			}
		}
	}
	return nil
}

// readable tells that a client can decode an answer that another one got.
func (x *Exchange) readable(q *Exchange) bool {
	for k, v := range x.Header {
		if strings.EqualFold(k, "Content-Encoding") && len(v) > 0 && v[0] != "identity" {
			return strings.Contains(q.Encoding, v[0])
		}
	}
	return true
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
