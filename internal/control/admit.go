package control

import (
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"trysail/internal/api"
	"trysail/internal/limit"
)

const (
	// maxHeader bounds the headers of a request, in bytes: the longest come with the poll
	// of a machine that runs a thousand steps.
	maxHeader = 32 << 10
	maxJoin   = 16 << 10 // bytes of a request to join
	// unsigned is how many requests to join are read at a time whose token is in their
	// body, as agents of before send it.
	unsigned = 4
)

// Server answers for a control, on a listener of [limit.Listen].
func Server(d *Door, id *Identity, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: d, TLSConfig: id.TLS(), ConnContext: limit.Context,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 64, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 64 << 10},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what strangers do wrong is no news
	}
}

// What one caller may have open at a time. No person's slow connections take memory that
// machines need; machines send logs and fetch blobs for every slot.
func mostOfMachine() limit.Most { return limit.Most{Connections: 2048, Requests: 4096} }
func mostOfPerson() limit.Most  { return limit.Most{Connections: 128, Requests: 256} }
func mostOfJoining() limit.Most { return limit.Most{Connections: 32, Requests: 32} }

// shown is the certificate that a request's connection shows, which the fleet's authority
// signed ([Identity.TLS]); nil if there is none.
func shown(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

// admitCertified admits whoever shows a certificate of the fleet's authority, whether the
// machine belongs to the fleet or not: a control that stands by may not know it yet.
func admitCertified(w http.ResponseWriter, r *http.Request) (done func(), ok bool) {
	cert := shown(r)
	if cert == nil {
		return func() {}, true
	}
	// Whoever has the key of a machine before, of the same name, takes nothing of this one's.
	return admitAs(w, r, "machine "+cert.Subject.CommonName+" (key "+keyDigest(cert)[:16]+")", mostOfMachine())
}

// admitAs answers itself where who has too much open.
func admitAs(w http.ResponseWriter, r *http.Request, who string, most limit.Most) (done func(), ok bool) {
	if done, ok = limit.Admit(r.Context(), who, most); ok {
		return done, true
	}
	busy(w, who)
	return nil, false
}

// busy refuses what may be asked again in a moment.
func busy(w http.ResponseWriter, who string) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusTooManyRequests)
	// Whoever asked may be gone.
	_ = json.NewEncoder(w).Encode(api.Problem{Message: who + " has too many requests open", Hint: "let some of them end, and ask again", Code: api.Busy})
}

// asksToJoin tells whether a request asks to join, with a token that is good once.
func asksToJoin(r *http.Request) (control, ok bool) {
	control = r.URL.Path == "/v1/controls"
	return control, r.Method == http.MethodPost && (control || r.URL.Path == "/v1/enrol")
}

// admit looks at the credentials of a request before anything reads its body. Whoever
// has none is denied, whatever they ask, and learns nothing: not which paths, releases or
// machines there are.
func (c *Control) admit(next http.Handler) http.Handler {
	reading := make(chan struct{}, unsigned)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if control, ok := asksToJoin(r); ok {
			c.admitJoin(w, r, control, reading, next)
			return
		}
		if r.Method == http.MethodGet && r.URL.Path == "/v1/openapi.yaml" {
			next.ServeHTTP(w, r) // it is the same for everybody
			return
		}
		q, err := c.caller(r)
		if err != nil {
			c.deny(w, r, err)
			return
		}
		if q.person != "" {
			most := mostOfPerson()
			if q.person == "*" {
				most = mostOfMachine()
			}
			done, ok := admitAs(w, r, q.name(), most)
			if !ok {
				return
			}
			defer done()
		}
		next.ServeHTTP(w, r)
	})
}

// admitJoin looks at a join token before the body of its request is read. Agents of
// before send it in the body: a few of those are read at a time.
func (c *Control) admitJoin(w http.ResponseWriter, r *http.Request, control bool, reading chan struct{}, next http.Handler) {
	r.Body = http.MaxBytesReader(w, r.Body, maxJoin)
	if secret, ok := secretOf(r); ok {
		if err := c.mayJoin(secret, control); err != nil {
			c.deny(w, r, err)
			return
		}
		done, ok := admitAs(w, r, "whoever joins", mostOfJoining())
		if !ok {
			return
		}
		defer done()
		next.ServeHTTP(w, r)
		return
	}
	select {
	case reading <- struct{}{}:
		defer func() { <-reading }()
		w.Header().Set("Connection", "close")
		next.ServeHTTP(w, r)
	default:
		busy(w, "whoever shows no token")
	}
}

// secretOf is the secret that a request carries.
func secretOf(r *http.Request) (string, bool) {
	return strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// joinToken is the join token of a request. Admit has looked at one in a header; one in
// the body is looked at now.
func (c *Control) joinToken(r *http.Request, inBody string) (string, error) {
	if secret, ok := secretOf(r); ok {
		return secret, nil
	}
	control, _ := asksToJoin(r)
	return inBody, c.mayJoin(inBody, control)
}

// deny answers and closes the connection: nobody waits for the rest of a body that a
// stranger sends.
func (c *Control) deny(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Connection", "close")
	c.fail(w, r, err)
}
