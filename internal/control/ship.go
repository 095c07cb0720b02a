package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/release"
)

// ship ends a release. Nothing undoes that, so its evidence is rehearsed first: the bundle is
// made with the event that would end it, and verified, before anybody appends the event. If
// the release went on meanwhile, the rehearsal was of another one, and begins again.
func (c *Control) ship(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Ship](r)
	if err != nil {
		return nil, err
	}
	version, rehearsed := r.PathValue("version"), int64(-1)
	for {
		answer, err := c.say(ctx, q, r, func(st *release.State) (release.Body, error) {
			switch err := st.Clone().Apply(shipped(c, q, st.Head)); {
			case b.Head != 0 && b.Head != st.Head:
				return nil, &movedError{version, b.Head, st.Head}
			case err == nil && rehearsed != st.Head:
				return nil, errNotRehearsed
			}
			return release.Shipped{}, nil // or the rules refuse it
		})
		if !errors.Is(err, errNotRehearsed) {
			return answer, err
		}
		if rehearsed, err = c.rehearse(ctx, q, version); err != nil {
			return nil, err
		}
	}
}

var errNotRehearsed = errors.New("the evidence was not rehearsed")

// shipped is the event that ends a release whose ledger has so many events.
func shipped(c *Control, q *caller, head int64) release.Event {
	e := release.New(c.o.Now(), q.name(), release.Shipped{})
	e.Seq = head + 1
	return e
}

// rehearse makes the evidence of a release as if it shipped now, and says what of it would
// not verify. It gives the number of events that the release has. The release key is
// elsewhere: another one takes its place.
func (c *Control) rehearse(ctx context.Context, q *caller, version string) (int64, error) {
	s, err := c.stream(version)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	head, lines, machines := s.state.Head, slices.Clone(s.lines), slices.Clone(s.state.Machines)
	var gold release.Made
	if s.state.Gold != nil {
		gold = s.state.Gold.Made()
	}
	signed, err := c.signCheckpoint(s)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	m := evidence.Material{
		Lines: lines, Checkpoint: signed.note, LogKey: signed.key, Files: map[string][]byte{},
		Blobs: func(digest string) ([]byte, error) { return c.evidenceOf(ctx, digest) },
	}
	if m.Pending, err = json.Marshal(shipped(c, q, head)); err != nil {
		return 0, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	m.Key, m.Sign = &key.PublicKey, func(message []byte) ([]byte, error) {
		sum := sha256.Sum256(message)
		return ecdsa.SignASN1(rand.Reader, key, sum[:])
	}
	wrong := func(err error) (int64, error) { return 0, &unprovenError{version, err.Error()} }
	err = c.files(ctx, gold, func(a release.Artifact) error {
		if a.Digest != "" && !c.o.Depot.Has(a.Digest) {
			return fmt.Errorf("%s (%s) is not in control's depot", a.Path, a.Digest)
		}
		return nil
	})
	if err != nil {
		return wrong(err)
	}
	for _, x := range machines {
		if x.Blueprint == "" {
			continue
		}
		for name, digest := range map[string]string{"blueprint.yaml": x.Blueprint, "blueprint.sum": x.Sum} {
			data, err := c.evidenceOf(ctx, digest)
			if err != nil {
				return wrong(fmt.Errorf("the blueprint of role %s: %w", x.Role, err))
			}
			m.Files[path.Join("blueprint", x.Role, name)] = data
		}
	}
	report, err := evidence.Rehearse(m)
	switch {
	case err != nil:
		return wrong(err)
	case !report.Verified:
		return wrong(errors.New(report.Problems[0].String()))
	}
	return head, nil
}

// evidenceOf reads what a bundle holds whole.
func (c *Control) evidenceOf(ctx context.Context, digest string) ([]byte, error) {
	f, err := c.o.Depot.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = release.MostList
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("%s has more than %d MB", digest, most>>20)
	}
	return data, err
}

// unprovenError says that no evidence of a release would verify.
type unprovenError struct{ version, what string }

func (e *unprovenError) Error() string {
	return fmt.Sprintf("release %s does not ship: its evidence would not verify: %s", e.version, e.what)
}

// Hint says what to do.
func (e *unprovenError) Hint() string {
	return "nothing has changed: mend what it names and ship again, or trysail release abort " + e.version
}

// movedError says that a release is not any more the one that somebody looked at.
type movedError struct {
	version    string
	seen, head int64
}

func (e *movedError) Error() string {
	return fmt.Sprintf("release %s has %d events, and had %d when its evidence was made", e.version, e.head, e.seen)
}

// Hint says what to do.
func (e *movedError) Hint() string {
	return "look at it and ship again: trysail release ship " + e.version
}
