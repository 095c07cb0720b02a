package control

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"trysail/fleet"
)

// Role is what a token allows. Each includes those before it.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator" // starts, retries, holds, aborts
	Approver Role = "approver" // signs, as the person that the token is for
)

func roles() []Role { return []Role{Viewer, Operator, Approver} }

// token is a secret that control knows by its hash.
type token struct {
	Hash    string    `json:"hash"`
	Person  string    `json:"person"` // whose; "*": may speak for anybody, on this machine
	Role    Role      `json:"role"`
	Join    bool      `json:"join,omitempty"` // lets one machine join, once
	Expires time.Time `json:"expires,omitzero"`
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func newSecret() (string, error) {
	b := make([]byte, 24)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}

func (c *Control) tokensFile() string { return filepath.Join(c.o.Dir, "tokens.json") }

// tokens reads them once: no other process writes them.
func (c *Control) tokens() ([]token, error) {
	if c.known != nil {
		return c.known, nil
	}
	data, err := os.ReadFile(c.tokensFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []token
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", c.tokensFile(), err)
	}
	c.known = list
	return list, nil
}

func (c *Control) saveTokens(list []token) error {
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(c.tokensFile(), append(data, '\n'), 0o600); err != nil {
		return err
	}
	c.known = list
	return nil
}

// addToken makes a secret; control keeps its hash only.
func (c *Control) addToken(t token) (secret string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if secret, err = newSecret(); err != nil {
		return "", err
	}
	list, err := c.tokens()
	if err != nil {
		return "", err
	}
	t.Hash = hash(secret)
	return secret, c.saveTokens(append(slices.Clone(list), t))
}

// LocalToken is the token of whoever can read control's directory: it may do
// everything, and speak for anybody. It is made at the first start.
func (c *Control) LocalToken() (string, error) {
	file := filepath.Join(c.o.Dir, "token")
	data, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	secret, err := c.addToken(token{Person: "*", Role: Approver})
	if err != nil {
		return "", err
	}
	return secret, renameio.WriteFile(file, []byte(secret+"\n"), 0o600)
}

// useJoin spends a join token: whoever comes second is refused.
func (c *Control) useJoin(secret string, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, err := c.tokens()
	if err != nil {
		return err
	}
	h := hash(secret)
	i := slices.IndexFunc(list, func(t token) bool {
		return t.Join && subtle.ConstantTimeCompare([]byte(t.Hash), []byte(h)) == 1
	})
	if i < 0 || now.After(list[i].Expires) {
		return &DeniedError{"the join token is not known, was used, or has expired", "make another on control: trysail fleet token"}
	}
	return c.saveTokens(slices.Delete(slices.Clone(list), i, i+1))
}

// DeniedError refuses a request.
type DeniedError struct{ What, Remedy string }

func (e *DeniedError) Error() string { return e.What }

// Hint says what to do.
func (e *DeniedError) Hint() string { return e.Remedy }

// caller is who asks.
type caller struct {
	machine string // of an agent, by its certificate
	person  string
	role    Role
}

func (c *Control) caller(r *http.Request) (*caller, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		cert := r.TLS.VerifiedChains[0][0]
		if slices.Contains(cert.Subject.OrganizationalUnit, "machine") {
			name := cert.Subject.CommonName
			c.mu.Lock()
			m := c.members[name]
			in := m != nil && m.set != fleet.Retired
			c.mu.Unlock()
			if !in {
				return nil, &DeniedError{"machine " + name + " does not belong to the fleet", "on control: trysail fleet readmit " + name}
			}
			return &caller{machine: name}, nil
		}
	}
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, &DeniedError{"the request carries no token", "run it on the control machine as root, or give the link of trysail fleet token: --control FILE"}
	}
	c.mu.Lock()
	list, err := c.tokens()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	h := hash(secret)
	for _, t := range list {
		if !t.Join && subtle.ConstantTimeCompare([]byte(t.Hash), []byte(h)) == 1 && (t.Expires.IsZero() || c.o.Now().Before(t.Expires)) {
			return &caller{person: t.Person, role: t.Role}, nil
		}
	}
	return nil, &DeniedError{"the token is not known", "ask whoever runs control for another: trysail fleet token --person NAME --role approver"}
}

// may tells whether a caller has at least a role.
func (q *caller) may(r Role) bool {
	return q.machine == "" && slices.Index(roles(), q.role) >= slices.Index(roles(), r)
}

// as gives the person that a caller speaks for.
func (q *caller) as(person string) (string, error) {
	switch {
	case q.person != "*" && (person == "" || person == q.person):
		return q.person, nil
	case q.person == "*" && person != "":
		return person, nil
	case q.person == "*":
		return "", &DeniedError{"nobody is named who signs", "say who you are: --as NAME"}
	}
	return "", &DeniedError{q.person + " cannot speak for " + person, "sign with that person's own token"}
}

// name is how events name a caller.
func (q *caller) name() string {
	switch {
	case q.machine != "":
		return "machine " + q.machine
	case q.person == "*":
		return "root on control"
	}
	return q.person
}
