package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/ledger"
	"trysail/internal/notify"
	"trysail/release"
	"trysail/runbook"
)

// start begins a release. All that it names is in the depot already.
func (c *Control) start(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Start](r)
	if err != nil {
		return nil, err
	}
	if err := c.complete(ctx, b.Runbook, b.Source.Original, b.Signers, b.Revoked, b.Machines); err != nil {
		return nil, err
	}
	book, err := c.document(ctx, b.Runbook, release.RulesNow)
	if err != nil {
		return nil, err
	}
	st := release.Begin(book, b.Version)
	st.Ship, st.Named, st.Runbook, st.Source, st.Machines, st.Signers, st.Revoked, st.Origin, st.Forced = b.Ship, book.Ship, b.Runbook, b.Source, b.Machines, b.Signers, b.Revoked, b.Origin, b.Forced
	if what := st.Differs(book); what != "" {
		return nil, &mismatchError{what}
	}
	if why := release.ShipDate(st.Ship, book.Ship, c.o.Now(), book.Team.Zone); why != "" && st.Forced == "" {
		return nil, &release.RuleError{Type: "started", What: why + ": a release starts with it only by force, with a reason"}
	}
	if what := st.Origin.Differs(st.Source.Revision, st.Runbook); what != "" {
		return nil, &badRequest{errors.New(what)}
	}
	return nil, c.begin(ctx, q, st)
}

// replay begins a release of the past once more, in a lab.
func (c *Control) replay(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Replay](r)
	if err != nil {
		return nil, err
	}
	if !c.o.Lab {
		return nil, &DeniedError{"a release of the past is made again in a lab, and this control is a team's", "trysail reprove BUNDLE"}
	}
	st := b.Started
	if err := c.complete(ctx, st.Runbook, st.Source.Original, st.Signers, st.Revoked, st.Machines); err != nil {
		return nil, err
	}
	return nil, c.begin(ctx, q, st)
}

// begin appends the start of a release: to a new stream, or to that of a version which was
// aborted before it had gold.
func (c *Control) begin(ctx context.Context, q *caller, st release.Started) error {
	st.Rules = release.RulesNow
	var first *NotFoundError
	switch _, err := c.update(ctx, st.Version, q.name(), func(*release.State) (release.Body, error) { return st, nil }); {
	case err == nil:
		return c.keep(ctx, st.Version, "")
	case !errors.As(err, &first):
		return err
	}
	e := release.New(c.o.Now(), q.name(), st)
	e.Seq = 1
	if err := release.Empty().Apply(e); err != nil {
		return err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := c.doubted(releaseStream(st.Version)); err != nil {
		return err // it was started once, says a machine
	}
	err = c.o.Ledger.Append(ctx, releaseStream(st.Version), 0, line)
	var conflict *ledger.ConflictError
	if errors.As(err, &conflict) {
		return &release.RuleError{Type: "started", What: "release " + st.Version + " has been started already"}
	}
	if err != nil {
		return err
	}
	if err := c.refresh(ctx, releaseStream(st.Version)); err != nil {
		return err
	}
	return c.keep(ctx, st.Version, "")
}

// mismatchError says what of a request does not fit the runbook that it names.
type mismatchError struct{ what string }

func (e *mismatchError) Error() string { return "the request does not fit its runbook: " + e.what }

// Hint says what to do.
func (e *mismatchError) Hint() string {
	return "a runbook with other roles or signers needs --machines or --signers too"
}

// complete refuses what names originals that control does not have, or signers that cannot
// be read.
func (c *Control) complete(ctx context.Context, book, source, signers, revoked string, machines []release.Machine) error {
	need := map[string]string{"the runbook": book, "the source": source, "who may sign": signers, "who may not": revoked}
	if err := c.inDepot(ctx, need, machines); err != nil {
		return err
	}
	if _, _, err := c.signers(ctx, signers, revoked); err != nil {
		return &badRequest{err}
	}
	return nil
}

// document reads a runbook of the depot, as the rules of a release have it. A plan is worth
// what control itself reads there.
func (c *Control) document(ctx context.Context, digest string, rules int) (*runbook.Runbook, error) {
	data, err := c.text(ctx, digest)
	if err != nil {
		return nil, &badRequest{fmt.Errorf("the runbook: %w", err)}
	}
	read := runbook.Parse
	if rules < 3 {
		read = runbook.ParseOld
	}
	r, err := read("the runbook", data, time.LoadLocation)
	if err != nil {
		return nil, &badRequest{err}
	}
	return r, nil
}

// text reads a small original of the depot.
func (c *Control) text(ctx context.Context, digest string) ([]byte, error) {
	f, err := c.o.Depot.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 2<<20))
}

// inDepot refuses a request that names what control does not have: a machine
// that died with the only copy would stop the release. Other controls get it too.
func (c *Control) inDepot(ctx context.Context, need map[string]string, machines []release.Machine) error {
	if err := c.checkDiskSpace(); err != nil {
		return err
	}
	for _, m := range machines {
		need["the blueprint of role "+m.Role], need["the sum of role "+m.Role] = m.Blueprint, m.Sum
	}
	for what, dg := range need {
		if dg != "" && !c.o.Depot.Has(dg) {
			return &badRequest{fmt.Errorf("%s (%s) is not in the depot", what, dg)}
		}
	}
	c.spread(ctx, slices.Sorted(maps.Values(need)))
	return nil
}

// say appends what a request amounts to, as whoever asks.
func (c *Control) say(ctx context.Context, q *caller, r *http.Request, decide func(*release.State) (release.Body, error)) (any, error) {
	seq, err := c.update(ctx, r.PathValue("version"), q.name(), decide)
	if err != nil {
		return nil, err
	}
	return struct {
		Event int64 `json:"event"`
	}{seq}, nil
}

// mostSpent bounds the time that a person says a sign-off took.
const mostSpent = 10_000 * time.Hour

func (c *Control) sign(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Decide](r)
	if err != nil {
		return nil, err
	}
	person, err := q.as(b.Person)
	if err != nil {
		return nil, err
	}
	if b.Spent < 0 || b.Spent > mostSpent.Seconds() {
		return nil, &badRequest{fmt.Errorf("a time spent of %g s is not between 0 and %g hours", b.Spent, mostSpent.Hours())}
	}
	return c.takeDecision(ctx, q, r, func(*release.State) (release.Personal, error) {
		return release.Signed{
			Item: b.Item, Person: person, Decision: b.Decision, Subject: b.Subject, Reason: b.Reason, Spent: api.Spent(b.Spent),
			Statement: b.Statement, Signature: b.Signature, Nonce: b.Nonce,
		}, nil
	})
}

// takeDecision appends what a person decides, with the key that signed it.
func (c *Control) takeDecision(ctx context.Context, q *caller, r *http.Request, what func(*release.State) (release.Personal, error)) (any, error) {
	s, err := c.stream(r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return c.say(ctx, q, r, func(st *release.State) (release.Body, error) {
		b, err := what(st)
		if err != nil || b.Signed() == nil {
			return b, err // the rules refuse it where it must be signed
		}
		p := *b.Signed()
		p.Key = ""
		key, err := c.signature(ctx, s, st, b.Prove(&p))
		if st.Started.Rules >= 3 {
			p.Key = key
		}
		return b.Prove(&p), err
	})
}

// signature holds a person's against the release as it is, and gives the fingerprint of the
// key that it is of.
func (c *Control) signature(ctx context.Context, s *stream, st *release.State, e release.Personal) (string, error) {
	if st.Signers == "" {
		return "", &badRequest{errors.New("the release has no allowed signers, so a signature says nothing: name the file as signers: in the runbook")}
	}
	_, verifier, err := c.o.Identity.checkpointKey()
	if err != nil {
		return "", err
	}
	m := evidence.Moment{State: st, At: c.o.Now(), Stream: evidence.Stream(st.Started.Version), Root: s.tree.Root}
	if m.Log, err = note.NewVerifier(verifier); err != nil {
		return "", err
	}
	if m.Signers, m.Revoked, err = c.signers(ctx, st.Signers, st.Revoked); err != nil {
		return "", err
	}
	by, err := m.Check(e)
	var wrong *evidence.Error
	switch {
	case errors.As(err, &wrong):
		return "", &DeniedError{wrong.What, wrong.Remedy}
	case err != nil:
		return "", err
	}
	return ssh.FingerprintSHA256(by.Key), nil
}

// signers reads who may sign, and whose keys are good no more.
func (c *Control) signers(ctx context.Context, allowed, revoked string) (evidence.Signers, []ssh.PublicKey, error) {
	read := func(digest string) ([]byte, error) {
		if digest == "" {
			return nil, nil
		}
		return c.text(ctx, digest)
	}
	data, err := read(allowed)
	if err != nil {
		return nil, nil, err
	}
	list, err := evidence.ParseSigners("allowed_signers", data)
	if err != nil {
		return nil, nil, err
	}
	if data, err = read(revoked); err != nil {
		return nil, nil, err
	}
	gone, err := evidence.ParseRevoked("revoked", data)
	return list, gone, err
}

// reaches says which people have a way to hear that they are asked.
func (c *Control) reaches(_ context.Context, _ *caller, r *http.Request) (any, error) {
	t := api.Told{People: []string{}}
	if c.o.Notify == nil {
		return t, nil
	}
	for _, p := range r.URL.Query()["person"] {
		n := release.Notice{Kind: release.SignOffWanted, People: []string{p}}
		if slices.ContainsFunc(c.o.Notify.Targets, func(x notify.Target) bool { return x.Wants(n) }) {
			t.People = append(t.People, p)
		}
	}
	return t, nil
}

// step answers requests by which a person decides on a step, with a reason.
func (c *Control) step(decision func(b api.Step) release.Personal) handler {
	return func(ctx context.Context, q *caller, r *http.Request) (any, error) {
		b, err := body[api.Step](r)
		if err != nil {
			return nil, err
		}
		if b.Person, err = q.as(b.Person); err != nil {
			return nil, err
		}
		return c.takeDecision(ctx, q, r, func(*release.State) (release.Personal, error) { return decision(b), nil })
	}
}

func withdrawn(b api.Step) release.Personal {
	return release.Withdrawn{Item: b.Item, Person: b.Person, Reason: b.Reason, Proof: b.Proof}
}

func waived(b api.Step) release.Personal {
	return release.Waived{Item: b.Item, Test: b.Test, Person: b.Person, Reason: b.Reason, Proof: b.Proof}
}

func (c *Control) retry(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Step](r)
	if err != nil {
		return nil, err
	}
	return c.say(ctx, q, r, func(*release.State) (release.Body, error) {
		return release.Retried{Item: b.Item, Reason: b.Reason}, nil
	})
}

func (c *Control) except(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[release.Excepted](r)
	if err != nil {
		return nil, err
	}
	if b.Person, err = q.as(b.Person); err != nil {
		return nil, err
	}
	return c.takeDecision(ctx, q, r, func(*release.State) (release.Personal, error) { return b, nil })
}

func (c *Control) abort(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Abort](r)
	if err != nil {
		return nil, err
	}
	if q.person != "*" || b.Person != "" {
		if b.Person, err = q.as(b.Person); err != nil {
			return nil, err
		}
	}
	return c.takeDecision(ctx, q, r, func(*release.State) (release.Personal, error) {
		return release.Aborted{Reason: b.Reason, Person: b.Person, Proof: b.Proof}, nil
	})
}

func (c *Control) amend(ctx context.Context, q *caller, r *http.Request) (any, error) {
	in, err := body[api.Amend](r)
	if err != nil {
		return nil, err
	}
	b := in.Amended()
	if b.By, err = q.as(b.By); err != nil {
		return nil, err
	}
	source := ""
	if b.Source != nil {
		source = b.Source.Original
	}
	if err := c.complete(ctx, b.Runbook, source, b.Signers, b.Revoked, b.Machines); err != nil {
		return nil, err
	}
	var book *runbook.Runbook // that of the machines
	if now := c.state(r.PathValue("version")); now != nil && (b.Runbook != "" || b.Machines != nil) {
		if book, err = c.document(ctx, cmp.Or(b.Runbook, now.Runbook), now.Started.Rules); err != nil {
			return nil, err
		}
	}
	if b.Runbook != "" && book != nil {
		b = b.With(release.PlanOf(book))
	}
	return c.takeDecision(ctx, q, r, func(st *release.State) (release.Personal, error) {
		if what := b.Differs(book, st); what != "" {
			return nil, &mismatchError{what}
		}
		return b, nil
	})
}

func (c *Control) agree(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[release.Agreed](r)
	if err != nil {
		return nil, err
	}
	if b.Person, err = q.as(b.Person); err != nil {
		return nil, err
	}
	said, err := c.takeDecision(ctx, q, r, func(*release.State) (release.Personal, error) { return b, nil })
	if err != nil {
		return nil, err
	}
	return said, c.keep(ctx, r.PathValue("version"), "") // another runbook or source may be in force
}

func (c *Control) reason(event func(string) release.Body) handler {
	return func(ctx context.Context, q *caller, r *http.Request) (any, error) {
		b, err := body[api.Reason](r)
		if err != nil {
			return nil, err
		}
		return c.say(ctx, q, r, func(*release.State) (release.Body, error) { return event(b.Reason), nil })
	}
}

// revoke makes all tokens of a person worthless, and the join tokens that they made and
// nobody has used yet. What they have signed stays signed: it was theirs to say then.
func (c *Control) revoke(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Revoke](r)
	switch {
	case err != nil:
		return nil, err
	case q.person != "*":
		return nil, &DeniedError{"only root on control takes tokens back", "ask whoever runs control"}
	case b.Person == "" || b.Person == "*":
		return nil, &badRequest{errors.New("name the person whose tokens to revoke")}
	}
	return nil, c.record(ctx, access{Actor: q.name(), Revoked: b.Person}, func(list []token) error {
		if !slices.ContainsFunc(list, func(t token) bool { return t.of(b.Person) }) {
			return &NotFoundError{"token of " + b.Person}
		}
		return nil
	})
}

// joinTime is how long a join token may wait to be used.
const joinTime = time.Hour

func (c *Control) makeToken(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Token](r)
	if err != nil {
		return nil, err
	}
	t := token{Person: b.Person, Role: Role(b.Role)}
	switch {
	case b.Control && q.person != "*":
		return nil, &DeniedError{"only root on control lets another control in: it gets the fleet's authority", "ask whoever runs control"}
	case b.Join && b.Control:
		t = token{Join: true, Control: true, By: q.person, Expires: c.o.Now().Add(joinTime)}
	case b.Join:
		t = token{Join: true, By: q.person, Expires: c.o.Now().Add(joinTime)}
	case q.person != "*":
		return nil, &DeniedError{"only root on control makes tokens for people", "ask whoever runs control"}
	case b.Person == "" || b.Person == "*" || !(t.Role == Viewer || t.Role == Operator || t.Role == Approver):
		return nil, &badRequest{errors.New("a token is for a person, with role viewer, operator or approver")}
	}
	secret, err := c.addToken(ctx, q.name(), t)
	if err != nil {
		return nil, err
	}
	return api.TokenMade{Secret: secret, Fingerprint: c.o.Identity.Fingerprint()}, nil
}
