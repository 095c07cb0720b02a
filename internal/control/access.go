package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
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

// token is a secret that the ledger knows by its hash.
type token struct {
	Hash    string    `json:"hash"`
	Person  string    `json:"person"` // whose; "*": may speak for anybody, on this machine
	Role    Role      `json:"role"`
	Join    bool      `json:"join,omitempty"`    // lets one machine join, once
	Control bool      `json:"control,omitempty"` // or one control
	By      string    `json:"by,omitempty"`      // who made a join token; "" in ledgers of before
	Expires time.Time `json:"expires,omitzero"`
}

// of tells whether it is a person's own, or lets in whom that person asked to join: it
// is worth no more than they are.
func (t token) of(person string) bool {
	whose := t.Person
	if t.Join {
		whose = t.By
	}
	return person != "" && whose == person
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

// access is one event of the stream of the same name: a token was made, or a join
// token was spent. In the ledger, so that a control that takes over knows them.
type access struct {
	Seq   int64     `json:"seq"`
	Time  time.Time `json:"time"`
	Actor string    `json:"actor"`
	Nonce string    `json:"nonce"` // no two events are the same, or two writers would take one for theirs
	Made  *token    `json:"made,omitempty"`
	Spent string    `json:"spent,omitempty"` // hash
	// Revoked is a person none of whose tokens, and of the join tokens that they made,
	// is good any more.
	Revoked string `json:"revoked,omitempty"`
	// Sealed is the authority, for a control that begins again on another disk.
	Sealed *sealed `json:"sealed,omitempty"`
}

// AccessStream is the stream of the ledger with tokens and the sealed authority.
const AccessStream = "access"

// refreshAccess folds the stream to its head.
func (c *Control) refreshAccess(ctx context.Context) error {
	return c.follow(ctx, AccessStream, &c.accesses, func(line []byte) error {
		var e access
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		if e.Made != nil {
			c.tokens = append(c.tokens, *e.Made)
		}
		if e.Sealed != nil {
			c.sealed = e.Sealed
		}
		if over := func(t token) bool { return t.Hash == e.Spent || t.of(e.Revoked) }; slices.ContainsFunc(c.tokens, over) {
			c.tokens = slices.DeleteFunc(slices.Clone(c.tokens), over) // somebody may read the old list
		}
		return nil
	})
}

// record appends to the stream unless decide, which sees the tokens at its head,
// forbids it.
func (c *Control) record(ctx context.Context, e access, decide func([]token) error) error {
	return c.append(ctx, AccessStream, &c.accesses, c.refreshAccess, func(seq int64, at time.Time) (any, error) {
		e.Nonce, e.Seq, e.Time = rand.Text(), seq, at
		return e, decide(c.tokens)
	})
}

// addToken makes a secret; the ledger has its hash only. A join token that a person
// makes wants one of that person's own at the head: it may have been revoked since the
// request was let in.
func (c *Control) addToken(ctx context.Context, actor string, t token) (secret string, err error) {
	if secret, err = newSecret(); err != nil {
		return "", err
	}
	t.Hash = hash(secret)
	return secret, c.record(ctx, access{Actor: actor, Made: &t}, func(list []token) error {
		if t.By != "" && !slices.ContainsFunc(list, func(x token) bool { return !x.Join && x.of(t.By) }) {
			return &DeniedError{t.By + " has no token any more", "ask whoever runs control"}
		}
		return nil
	})
}

// LocalToken is the token of whoever can read control's directory: it may do
// everything, and speak for anybody. It is made at the first start, and made
// known again to a ledger that was lost.
func (c *Control) LocalToken(ctx context.Context) (string, error) {
	file := filepath.Join(c.o.Dir, "token")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err := c.addToken(ctx, c.o.Actor, rootToken())
		if err != nil {
			return "", err
		}
		return secret, renameio.WriteFile(file, []byte(secret+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(data))
	t := rootToken()
	t.Hash = hash(secret)
	err = c.record(ctx, access{Actor: c.o.Actor, Made: &t}, func(list []token) error {
		if slices.ContainsFunc(list, func(x token) bool { return x.Hash == t.Hash }) {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return secret, err
}

// rootToken is what whoever is root on a control may do.
func rootToken() token { return token{Person: "*", Role: Approver} }

// useJoin spends a join token of a machine or a control: whoever comes second is
// refused.
func (c *Control) useJoin(ctx context.Context, actor, secret string, control bool) error {
	return c.record(ctx, access{Actor: actor, Spent: hash(secret)}, func(list []token) error { return c.joins(list, secret, control) })
}

// mayJoin tells whether a join token of a machine or a control is good, and leaves it so.
func (c *Control) mayJoin(secret string, control bool) error {
	c.mu.Lock()
	list := c.tokens
	c.mu.Unlock()
	return c.joins(list, secret, control)
}

func (c *Control) joins(list []token, secret string, control bool) error {
	h := hash(secret)
	if slices.ContainsFunc(list, func(t token) bool {
		return t.Join && t.Control == control && same(t.Hash, h) && !c.o.Now().After(t.Expires)
	}) {
		return nil
	}
	remedy := "make another on control: trysail fleet token"
	if control {
		remedy += " --for-control"
	}
	return &DeniedError{"the join token is not known, was used, or has expired", remedy}
}

// same compares without telling by its time where two hashes differ.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// DeniedError refuses a request.
type DeniedError struct{ What, Remedy string }

func (e *DeniedError) Error() string { return e.What }

// Hint says what to do.
func (e *DeniedError) Hint() string { return e.Remedy }

// caller is who asks.
type caller struct {
	machine string // of an agent, by its certificate
	control bool   // another control, by its certificate
	person  string
	role    Role
}

func (c *Control) caller(r *http.Request) (*caller, error) {
	if cert := shown(r); cert != nil {
		if slices.Contains(cert.Subject.OrganizationalUnit, "machine") {
			name := cert.Subject.CommonName
			c.mu.Lock()
			m := c.members[name]
			in := m != nil && m.set != fleet.Retired
			known := m == nil || m.Key == "" || m.Key == keyDigest(cert)
			c.mu.Unlock()
			if !known {
				return nil, &DeniedError{"another machine has joined as " + name + " since", "join this one again under a name of its own: trysail fleet token"}
			}
			if !in {
				return nil, &DeniedError{"machine " + name + " does not belong to the fleet", "on control: trysail fleet readmit " + name}
			}
			return &caller{machine: name}, nil
		}
		if slices.Contains(cert.Subject.OrganizationalUnit, controlUnit) {
			return &caller{control: true}, nil
		}
	}
	secret, ok := secretOf(r)
	if !ok {
		return nil, &DeniedError{"the request carries no token", "run it on the control machine as root, or give the link of trysail fleet token: --control FILE"}
	}
	c.mu.Lock()
	list := c.tokens
	c.mu.Unlock()
	h := hash(secret)
	for _, t := range list {
		if !t.Join && same(t.Hash, h) && (t.Expires.IsZero() || c.o.Now().Before(t.Expires)) {
			return &caller{person: t.Person, role: t.Role}, nil
		}
	}
	return nil, &DeniedError{"the token is not known", "ask whoever runs control for another: trysail fleet token --person NAME --role approver"}
}

// may tells whether a caller has at least a role.
func (q *caller) may(r Role) bool {
	return q.machine == "" && !q.control && slices.Index(roles(), q.role) >= slices.Index(roles(), r)
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
	case q.control:
		return "another control"
	case q.person == "*":
		return "root on control"
	}
	return q.person
}
