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
	"trysail/release"
	"trysail/runbook"
)

// start begins a release. All that it names is in the depot already.
func (c *Control) start(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Start](r)
	if err != nil {
		return nil, err
	}
	need := map[string]string{"the runbook": b.Started.Runbook, "the source": b.Started.Source.Original, "who may sign": b.Started.Signers, "who may not": b.Started.Revoked}
	if err := c.inDepot(ctx, need, b.Started.Machines); err != nil {
		return nil, err
	}
	if _, _, err := c.signers(ctx, b.Started.Signers, b.Started.Revoked); err != nil {
		return nil, &badRequest{err}
	}
	if !c.o.AsSent {
		book, err := c.document(ctx, b.Started.Runbook)
		if err != nil {
			return nil, err
		}
		if what := b.Started.Differs(book); what != "" {
			return nil, &otherPlanError{what}
		}
		b.Started.Named = book.Ship
	}
	b.Started.Rules = release.RulesNow
	e := release.New(c.o.Now(), q.name(), b.Started)
	e.Seq = 1
	st := release.Empty()
	if err := st.Apply(e); err != nil {
		return nil, err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if err := c.doubted(releaseStream(b.Started.Version)); err != nil {
		return nil, err // it was started once, says a machine
	}
	err = c.o.Ledger.Append(ctx, releaseStream(b.Started.Version), 0, line)
	var conflict *ledger.ConflictError
	if errors.As(err, &conflict) {
		return nil, &release.RuleError{Type: "started", What: "release " + b.Started.Version + " has been started already"}
	}
	if err != nil {
		return nil, err
	}
	if err := c.refresh(ctx, releaseStream(b.Started.Version)); err != nil {
		return nil, err
	}
	return nil, c.keep(ctx, b.Started.Version, "")
}

// otherPlanError says that a plan is not what control reads in the document that it
// names: what people approved and auditors are shown is the document.
type otherPlanError struct{ what string }

func (e *otherPlanError) Error() string {
	return "the plan is not what control reads in its runbook: " + e.what
}

// Hint says what to do.
func (e *otherPlanError) Hint() string {
	return "use a trysail of the version that control is of (trysail version); a runbook with other roles or signers wants --machines or --signers too"
}

// document reads a runbook of the depot. A plan is worth what control itself reads there.
func (c *Control) document(ctx context.Context, digest string) (*runbook.Runbook, error) {
	data, err := c.text(ctx, digest)
	if err != nil {
		return nil, &badRequest{fmt.Errorf("the runbook: %w", err)}
	}
	r, err := runbook.Parse("the runbook", data, time.LoadLocation)
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
	if err := c.room(); err != nil {
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

func (c *Control) sign(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Decide](r)
	if err != nil {
		return nil, err
	}
	person, err := q.as(b.Person)
	if err != nil {
		return nil, err
	}
	s, err := c.stream(r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return c.say(ctx, q, r, func(st *release.State) (release.Body, error) {
		e := release.Signed{
			Item: b.Item, Person: person, Decision: b.Decision, Subject: b.Subject, Reason: b.Reason, Spent: b.Spent,
			Statement: b.Statement, Signature: b.Signature, Nonce: b.Nonce,
		}
		return e, c.signature(ctx, s, st, e)
	})
}

// signature holds a person's against the release as it is. Without allowed signers
// there is nothing that one could be held against.
func (c *Control) signature(ctx context.Context, s *stream, st *release.State, e release.Signed) error {
	switch {
	case st.Signers == "" && e.Signature != "":
		return &badRequest{errors.New("the release has no allowed signers, so a signature says nothing: name the file as signers: in the runbook")}
	case st.Signers == "" || e.Statement == "":
		return nil // the rules refuse it
	}
	_, verifier, err := c.o.Identity.checkpointKey()
	if err != nil {
		return err
	}
	m := evidence.Moment{State: st, At: c.o.Now(), Stream: evidence.Stream(st.Started.Version), Root: s.tree.Root}
	if m.Log, err = note.NewVerifier(verifier); err != nil {
		return err
	}
	if m.Signers, m.Revoked, err = c.signers(ctx, st.Signers, st.Revoked); err != nil {
		return err
	}
	_, err = m.Check(e)
	var wrong *evidence.Error
	if errors.As(err, &wrong) {
		return &DeniedError{wrong.What, wrong.Remedy}
	}
	return err
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

// step answers requests that name a step, a person and a reason.
func (c *Control) step(ctx context.Context, q *caller, r *http.Request, person bool, say func(b api.Step, person string, s *release.State) (release.Body, error)) (any, error) {
	b, err := body[api.Step](r)
	if err != nil {
		return nil, err
	}
	who := ""
	if person {
		if who, err = q.as(b.Person); err != nil {
			return nil, err
		}
	}
	return c.say(ctx, q, r, func(s *release.State) (release.Body, error) { return say(b, who, s) })
}

func (c *Control) withdraw(ctx context.Context, q *caller, r *http.Request) (any, error) {
	return c.step(ctx, q, r, true, func(b api.Step, who string, _ *release.State) (release.Body, error) {
		return release.Withdrawn{Item: b.Item, Person: who, Reason: b.Reason}, nil
	})
}

func (c *Control) retry(ctx context.Context, q *caller, r *http.Request) (any, error) {
	return c.step(ctx, q, r, false, func(b api.Step, _ string, _ *release.State) (release.Body, error) {
		return release.Retried{Item: b.Item, Reason: b.Reason}, nil
	})
}

func (c *Control) waive(ctx context.Context, q *caller, r *http.Request) (any, error) {
	return c.step(ctx, q, r, true, func(b api.Step, who string, _ *release.State) (release.Body, error) {
		return release.Waived{Item: b.Item, Test: b.Test, Person: who, Reason: b.Reason}, nil
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
	return c.say(ctx, q, r, func(*release.State) (release.Body, error) { return b, nil })
}

func (c *Control) amend(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[release.Amended](r)
	if err != nil {
		return nil, err
	}
	if b.By, err = q.as(b.By); err != nil {
		return nil, err
	}
	need := map[string]string{"the runbook": b.Runbook, "who may sign": b.Signers, "who may not": b.Revoked}
	if b.Source != nil {
		need["the source"] = b.Source.Original
	}
	if err := c.inDepot(ctx, need, b.Machines); err != nil {
		return nil, err
	}
	if _, _, err := c.signers(ctx, b.Signers, b.Revoked); err != nil {
		return nil, &badRequest{err}
	}
	var book *runbook.Runbook // that of the machines
	if now := c.state(r.PathValue("version")); now != nil && (b.Runbook != "" || b.Machines != nil) {
		if book, err = c.document(ctx, cmp.Or(b.Runbook, now.Runbook)); err != nil {
			return nil, err
		}
	}
	return c.say(ctx, q, r, func(st *release.State) (release.Body, error) {
		if what := b.Differs(book, st); what != "" {
			return nil, &otherPlanError{what}
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
	said, err := c.say(ctx, q, r, func(*release.State) (release.Body, error) { return b, nil })
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
		return nil, &badRequest{errors.New("name the person whose tokens are to be worthless")}
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
