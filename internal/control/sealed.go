package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"trysail/internal/ledger"
	"trysail/internal/secret"
)

// The fleet's authority is a key on control's disk. Without it no machine believes a
// control that begins again on another disk, so it is sealed to people, by age, and the
// sealed key is in the ledger, of which every machine has a copy.

// sealed is the authority of a fleet, whose key only some people can read.
type sealed struct {
	Certificate string   `json:"certificate"` // PEM
	Key         []byte   `json:"key"`         // PEM, in a file of age
	To          []string `json:"to"`          // recipients
}

// Seal keeps the authority's key in the ledger for whoever holds one of the recipients'
// keys (age, or SSH), unless it is kept so already.
func (c *Control) Seal(ctx context.Context, recipients []string) error {
	to, err := secret.Recipients(recipients)
	if err != nil {
		return err
	}
	key, err := c.o.Identity.authority.keyPEM()
	if err != nil {
		return err
	}
	data, err := secret.Encrypt(key, to)
	if err != nil {
		return err
	}
	names := slices.Compact(slices.Sorted(slices.Values(recipients)))
	s := &sealed{string(c.o.Identity.authority.pem), data, names}
	err = c.record(ctx, access{Actor: c.o.Actor, Sealed: s}, func([]token) error {
		if old := c.sealed; old != nil && old.Certificate == s.Certificate && slices.Equal(old.To, s.To) {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// Restore brings the authority back that a lost disk held: dir is control's, lines are
// those of the access stream of the ledger that is left, and the file of identities opens
// what they hold; "" if nobody gave one. It does nothing where dir has its authority.
func Restore(dir string, lines [][]byte, identity string) error {
	if _, err := os.Stat(filepath.Join(dir, "authority.pem")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var last *sealed
	for _, l := range lines {
		var e access
		if err := json.Unmarshal(l, &e); err != nil {
			return fmt.Errorf("stream %s: %w", AccessStream, err)
		}
		if e.Sealed != nil {
			last = e.Sealed
		}
	}
	if last == nil || identity == "" {
		lost := &NoAuthorityError{Dir: dir}
		if last != nil {
			lost.To = last.To
		}
		return lost
	}
	ids, err := secret.ReadIdentities(identity)
	if err != nil {
		return err
	}
	r, err := age.Decrypt(bytes.NewReader(last.Key), ids...)
	if err != nil {
		return fmt.Errorf("%s does not open the authority of the fleet, which is sealed to %s: %w", identity, strings.Join(last.To, ", "), err)
	}
	key, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err != nil {
		return err
	}
	if _, err := tls.X509KeyPair([]byte(last.Certificate), key); err != nil {
		return fmt.Errorf("the authority that was sealed: %w", err)
	}
	return AdoptAuthority(dir, []byte(last.Certificate), key)
}

// RestoreFrom is [Restore] from an agent's copy of the ledger.
func RestoreFrom(dir, copied, identity string) error {
	switch names, err := ledger.Copies(copied); {
	case err != nil:
		return err
	case len(names) == 0:
		return &ledger.NoCopyError{Dir: copied}
	}
	lines, err := ledger.ReadCopy(copied, AccessStream)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return Restore(dir, lines, identity)
}

// NoAuthorityError says that control's directory has lost the authority of its fleet.
type NoAuthorityError struct {
	Dir string
	To  []string // recipients who can open it; none if it was not sealed
}

func (e *NoAuthorityError) Error() string {
	return "the authority of the fleet is not in " + e.Dir + ": no machine would believe this control"
}

// Hint says how it comes back.
func (e *NoAuthorityError) Hint() string {
	anew := "--new-authority makes another one: every machine then joins again, and everybody needs another link"
	if len(e.To) > 0 {
		return "the ledger has it, sealed to " + strings.Join(e.To, ", ") + ": give that key by --identity FILE; " + anew
	}
	return "put authority.pem and authority.key there, from a backup of it; " + anew
}

// OnThisDiskAlone tells whether the authority is: it was never sealed, and no other control
// holds it.
func (c *Control) OnThisDiskAlone() bool {
	if c.o.Cluster != nil && len(c.o.Cluster.Controls()) > 1 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sealed == nil
}
