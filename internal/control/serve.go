package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/ledger"
	"trysail/internal/strict"
	"trysail/release"
)

const (
	maxBody  = 2 << 20 // bytes of a request that is no blob and no log: an event has at most one megabyte
	pollTime = 20 * time.Second
)

// handler is a request that gave an answer, or an error.
type handler func(ctx context.Context, q *caller, r *http.Request) (any, error)

// route is one path of the API. It answers with JSON (a handler), or in its own
// way and with its own look at who asks (raw).
type route struct {
	pattern string // of http.ServeMux
	need    Role   // "": a machine of the fleet
	handler handler
	raw     http.HandlerFunc
	lasts   bool // whoever is answered may count on it: it is on a second disk first
}

// routes is the API. internal/api/openapi.yaml describes it; a test holds the
// two together.
func (c *Control) routes() []route {
	person := func(pattern string, need Role, h handler) route {
		return route{pattern, need, h, nil, strings.HasPrefix(pattern, http.MethodPost)}
	}
	machine := func(pattern string, h handler) route { return route{pattern, "", h, nil, false} }
	result := func(pattern string, h handler) route { return route{pattern, "", h, nil, true} }
	raw := func(pattern string, h http.HandlerFunc) route { return route{pattern, "", nil, h, false} }
	return []route{
		raw("POST /v1/enrol", c.enrol),
		raw("POST /v1/controls", c.joinControl),
		machine("POST /v1/renew", c.renew),
		machine("POST /v1/terms", c.terms),
		machine("POST /v1/beat", c.beat),
		machine("GET /v1/work", c.work),
		result("POST /v1/report", c.report),
		result("POST /v1/checked", c.checked),
		machine("POST /v1/releases/{version}/logs/{item}/{epoch}", c.appendLog),
		machine("POST /v1/releases/{version}/logs/{item}/{epoch}/keep", c.keepLog),

		person("GET /v1/releases", Viewer, c.list),
		person("POST /v1/releases", Operator, c.start),
		person("GET /v1/releases/{version}", Viewer, c.status),
		person("POST /v1/releases/{version}/sign", Approver, c.sign),
		person("POST /v1/replays", Operator, c.replay),
		person("POST /v1/releases/{version}/withdraw", Approver, c.step(withdrawn)),
		person("POST /v1/releases/{version}/retry", Operator, c.retry),
		person("POST /v1/releases/{version}/waive", Approver, c.step(waived)),
		person("POST /v1/releases/{version}/except", Approver, c.except),
		person("POST /v1/releases/{version}/amend", Operator, c.amend),
		person("POST /v1/releases/{version}/agree", Approver, c.agree),
		person("POST /v1/releases/{version}/hold", Operator, c.reason(func(s string) release.Body { return release.Held{Reason: s} })),
		person("POST /v1/releases/{version}/resume", Operator, c.reason(func(string) release.Body { return release.Resumed{} })),
		person("POST /v1/releases/{version}/abort", Operator, c.abort),
		person("POST /v1/releases/{version}/ship", Operator, c.ship),
		person("GET /v1/fleet", Viewer, c.fleetStatus),
		person("GET /v1/told", Viewer, c.reaches),
		person("POST /v1/fleet/{name}/{what}", Operator, c.setMachine),
		person("POST /v1/tokens", Approver, c.makeToken),
		person("POST /v1/tokens/revoke", Approver, c.revoke),
		person("GET /v1/controls", Viewer, c.controls),
		person("POST /v1/controls/{name}/dismiss", Approver, c.dismiss),

		person("GET /v1/releases/{version}/checkpoint", Viewer, c.checkpoint),

		raw("GET /v1/releases/{version}/events", c.events),
		raw("GET /v1/releases/{version}/logs/{item}/{epoch}", c.readLog),
		raw("GET /v1/streams/{stream}", c.readStream),
		raw("GET /v1/blobs/{digest}", c.getBlob), // and HEAD
		raw("PUT /v1/blobs/{digest}", c.putBlob),
		machine("POST /v1/blobs", c.missingBlobs),
		raw("GET /v1/openapi.yaml", c.openAPI),
		raw("GET /metrics", c.metrics()),
	}
}

// Handler is the API.
func (c *Control) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range c.routes() {
		if r.raw != nil {
			mux.HandleFunc(r.pattern, r.raw)
		} else {
			c.handle(mux, r)
		}
	}
	return c.admit(mux)
}

// openAPI answers with the description of the API, to anybody: it holds no secret.
func (c *Control) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	if _, err := w.Write(api.OpenAPI); err != nil {
		c.o.Log.Debug("answer", "err", err)
	}
}

func (c *Control) handle(mux *http.ServeMux, at route) {
	mux.HandleFunc(at.pattern, func(w http.ResponseWriter, r *http.Request) {
		q, err := c.caller(r)
		switch {
		case err != nil:
		case at.need == "" && q.machine == "":
			err = &DeniedError{"only machines of the fleet ask this", "trysail agent --join"}
		case at.need != "" && !q.may(at.need):
			err = &DeniedError{fmt.Sprintf("%s may not: this needs a token with role %s", q.name(), at.need), "ask an approver"}
		}
		if err == nil && strings.HasSuffix(at.pattern, "/{epoch}") {
			err = patient(w, r) // it is a log
		} else if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			var done func()
			if done, err = c.bodies.read(r, q.name()); err == nil {
				defer done()
			}
		}
		if err == nil {
			var answer any
			if answer, err = at.handler(r.Context(), q, r); err == nil {
				if at.lasts {
					c.awaitReplica(r.Context())
				}
				c.answer(w, answer)
				return
			}
		}
		c.fail(w, r, err)
	})
}

func (c *Control) answer(w http.ResponseWriter, v any) {
	if v == nil {
		v = struct{}{}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		c.o.Log.Debug("answer", "err", err)
	}
}

// fail says what is wrong and what to do next.
func (c *Control) fail(w http.ResponseWriter, r *http.Request, err error) {
	var slow *slowError
	if !errors.As(err, &slow) && r.Context().Err() != nil {
		return // whoever asked is gone
	}
	p := api.Problem{Message: err.Error()}
	status := http.StatusInternalServerError
	var rule *release.RuleError
	var denied *DeniedError
	var missing *NotFoundError
	var noBlob *depot.NotFoundError
	var unknown *ledger.UnknownError
	var damaged *depot.DigestError
	var bad *badRequest
	var plan *mismatchError
	var unproven *unprovenError
	var moved *movedError
	var size *ledger.SizeError
	var unfit *unfitError
	var full *NoRoomError
	var fullDepot *depot.FullError
	var standby *standbyError
	var deposed *ledger.DeposedError
	var doubted *DivergedError
	switch {
	case errors.As(err, &standby), errors.As(err, &deposed):
		status, p.Code, p.Leader = http.StatusServiceUnavailable, api.Standby, c.leader()
	case errors.As(err, &moved):
		status, p.Code = http.StatusConflict, api.Moved
	case errors.As(err, &rule), errors.As(err, &unproven):
		status, p.Code = http.StatusConflict, "rule"
	case errors.As(err, &denied):
		status, p.Code = http.StatusForbidden, "denied"
	case errors.As(err, &missing), errors.As(err, &noBlob):
		status, p.Code = http.StatusNotFound, "not-found"
	case errors.As(err, &full):
		status, p.Code = http.StatusInsufficientStorage, api.Full
		c.reportDiskFull(full)
	case errors.As(err, &fullDepot):
		status, p.Code = http.StatusInsufficientStorage, api.Full
		c.reportDiskFull(fullDepot)
	case errors.As(err, &damaged):
		status, p.Code = http.StatusServiceUnavailable, api.Damaged
	case errors.As(err, &doubted):
		status, p.Code = http.StatusServiceUnavailable, api.Doubted
	case errors.As(err, &unknown):
		status, p.Code = http.StatusGatewayTimeout, "unknown"
	case slow != nil:
		status, p.Code = http.StatusRequestTimeout, api.Slow
	case errors.As(err, &size), errors.As(err, &unfit):
		status, p.Code = http.StatusRequestEntityTooLarge, api.Unfit
	case errors.As(err, &bad), errors.As(err, &plan):
		status, p.Code = http.StatusBadRequest, "usage"
	default:
		c.o.Log.Error("request", "path", r.URL.Path, "err", err)
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		p.Hint = h.Hint()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		c.o.Log.Debug("answer", "err", err)
	}
}

type badRequest struct{ err error }

func (e *badRequest) Error() string { return "the request is not readable: " + e.err.Error() }
func (e *badRequest) Unwrap() error { return e.err }

// body reads a request strictly.
func body[T any](r *http.Request) (T, error) {
	var v T
	data, err := io.ReadAll(r.Body)
	if err == nil {
		err = strict.Dense(data)
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err = d.Decode(&v)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return v, &slowError{}
	case err != nil:
		return v, &badRequest{err}
	}
	return v, nil
}

// mostSlots is how many steps a machine may run at once.
const mostSlots = 1000

// enrol lets a machine in that has a join token.
func (c *Control) enrol(w http.ResponseWriter, r *http.Request) {
	answer, err := func() (*api.Enrolled, error) {
		q, err := body[api.Enrol](r)
		if err != nil {
			return nil, err
		}
		if q.Token, err = c.joinToken(r, q.Token); err != nil {
			return nil, err
		}
		if err := api.CheckMachineName(q.Name); err != nil {
			return nil, &badRequest{err}
		}
		if q.Slots < 1 || q.Slots > mostSlots {
			return nil, &badRequest{fmt.Errorf("%d steps at once: 1 to %d", q.Slots, mostSlots)}
		}
		if !slices.Contains(fleet.Ranks(), q.Rank) {
			return nil, &badRequest{fmt.Errorf("%q is no rank: primary, backup or spare", q.Rank)}
		}
		cert, key, err := c.o.Identity.authority.sign(q.Request, q.Name, c.o.Now())
		if err != nil {
			return nil, &badRequest{err}
		}
		if c.reachable(q.Name) {
			return nil, &DeniedError{"a machine of the name " + q.Name + " is at work", "give this one another name: trysail agent --name NAME"}
		}
		if err := c.useJoin(r.Context(), "machine "+q.Name, q.Token, false); err != nil {
			return nil, err
		}
		e := membership{Actor: "machine " + q.Name, Joined: &enrolled{q.Name, q.Rank, q.Serves, q.Plain, q.Slots, key}}
		if err := c.enlist(r.Context(), c.anew(e)); err != nil {
			return nil, err
		}
		return &api.Enrolled{Certificate: cert, Authority: c.o.Identity.authority.pem}, nil
	}()
	if err != nil {
		c.fail(w, r, err)
		return
	}
	c.answer(w, answer)
}

// renew certifies a machine of the fleet anew, before its certificate ends, with the
// key that it has: whoever has another is not that machine.
func (c *Control) renew(_ context.Context, q *caller, r *http.Request) (any, error) {
	asks, err := body[api.Renew](r)
	if err != nil {
		return nil, err
	}
	cert, key, err := c.o.Identity.authority.sign(asks.Request, q.machine, c.o.Now())
	if err != nil {
		return nil, &badRequest{err}
	}
	if key != keyDigest(shown(r)) {
		return nil, &DeniedError{"machine " + q.machine + " asks for a certificate of another key", "join it again: trysail fleet token"}
	}
	return &api.Enrolled{Certificate: cert, Authority: c.o.Identity.authority.pem}, nil
}

// beat notes that a machine lives and says which of its leases are in force.
func (c *Control) beat(ctx context.Context, q *caller, r *http.Request) (any, error) {
	b, err := body[api.Beat](r)
	if err != nil {
		return nil, err
	}
	// A control that was deposed and does not know it yet must not renew: the
	// leader marks machines lost that do not report to it.
	if err := c.o.Ledger.ConfirmLeader(ctx); err != nil {
		return nil, &standbyError{err}
	}
	if err := c.compare(ctx, q.machine, b.Copies); err != nil {
		return nil, err // it tells again with its next report, and gets nothing before
	}
	c.mu.Lock()
	m := c.members[q.machine] // caller has seen that it is there
	if !m.heard.IsZero() {
		c.measure(m, b.Warm)
	}
	// Every answer moves the machine's fence, so every answer counts: its leases end
	// here only [fleet.LostAfter] after the last.
	m.heard = time.Now()
	if b.Control == c.id {
		if m.told.IsZero() {
			m.news.ring() // what it holds it may be given now
		}
		m.told = m.heard // else it gets nothing before it has told what its disk says
	}
	m.warm, m.has, m.holding, m.copied = b.Warm, b.Has, b.Holding, b.Events
	if b.Clock != nil {
		m.skew = b.Clock.Sub(c.o.Now())
	}
	c.copies(m, b.Copied)
	answer := api.BeatAnswer{Renewed: []api.Holding{}, Control: c.id, Controls: c.others(true)}
	answer.Want = slices.Clone(c.wanted[:min(len(c.wanted), mostWant)])
	for _, h := range b.Holding {
		if c.leases.by[q.machine][h] && c.doubtedLocked(releaseStream(h.Release)) == nil {
			answer.Renewed = append(answer.Renewed, h)
		}
	}
	answer.Streams, answer.Mark = c.heads.since(c.marked(b.Copied)), c.mark()
	c.mu.Unlock()
	return answer, nil
}

// mark says how far the streams have moved. It is this control's own: a machine
// that shows another's, or none, is told of all streams.
func (c *Control) mark() string { return c.id + "." + strconv.FormatInt(c.heads.moves, 10) }

// marked reads what mark wrote.
func (c *Control) marked(s string) int64 {
	id, moves, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(moves, 10, 64)
	if id != c.id || err != nil {
		return 0
	}
	return n
}

// holds tells whether a machine has a lease.
func (c *Control) holds(machine string, h api.Holding) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leases.by[machine][h]
}

// work answers with the leases of a machine that it does not hold yet; it waits
// until there is one.
func (c *Control) work(ctx context.Context, q *caller, r *http.Request) (any, error) {
	have := map[string]bool{}
	for _, h := range r.URL.Query()["have"] {
		have[h] = true
	}
	deadline := time.NewTimer(pollTime)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		news, held := c.members[q.machine].news.next(), c.leases.held(q.machine)
		copying, behind := c.tells(q.machine, r.URL.Query().Get("seen"))
		if c.members[q.machine].told.IsZero() {
			held = nil // it has yet to tell what its disk says
		}
		held = slices.DeleteFunc(held, func(h api.Holding) bool { return c.doubtedLocked(releaseStream(h.Release)) != nil })
		c.mu.Unlock()
		list := []api.Assignment{}
		for _, h := range held {
			if have[h.Release+" "+strconv.FormatInt(h.Epoch, 10)] {
				continue
			}
			if a := c.assignment(h); a != nil {
				list = append(list, *a)
			}
		}
		if check := c.check(q.machine, r.URL.Query().Get("check")); check != nil {
			list = append(list, api.Assignment{Check: check})
		}
		if len(list) > 0 || behind {
			return list, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return list, nil
		case <-c.over:
			return nil, &standbyError{nil}
		case <-news:
		case <-copying:
		}
	}
}

// badlyLost is what a machine's own word that it could not go on counts, in lost
// leases: enough that any other machine is preferred.
const badlyLost = 2

// assignment is a lease with all that its step needs; nil if it is over by now.
func (c *Control) assignment(h api.Holding) *api.Assignment {
	var a *api.Assignment
	c.look(h.Release, func(st *release.State) {
		x := st.Item(h.Item)
		if x == nil || st.Progress[h.Item].Lease == nil || st.Progress[h.Item].Lease.Epoch != h.Epoch {
			return
		}
		a = &api.Assignment{
			Holding: h, Confirm: st.Progress[h.Item].Lease.Confirm,
			Step: *x, Source: st.Source, Machine: st.Machine(x.Role), Inputs: st.Inputs(x),
		}
		for _, t := range st.Takes(x) {
			if t.Made.Tree != "" {
				a.Lists = append(a.Lists, t)
			}
		}
		if a.Confirm {
			a.Gold = st.Gold.Outputs
			if m := st.Gold.Made(); m.Tree != "" {
				a.GoldList = &m
			}
		}
		a.Keep = slices.DeleteFunc([]string{st.Runbook, st.Signers, st.Revoked}, func(dg string) bool { return dg == "" })
	})
	return a
}

// putBlob streams a request's body into the depot.
func (c *Control) putBlob(w http.ResponseWriter, r *http.Request) {
	q, err := c.caller(r)
	if err == nil && q.machine == "" && !q.control && !q.may(Operator) {
		err = &DeniedError{q.name() + " may not write to the depot", "use a token with role operator"}
	}
	if err == nil {
		err = patient(w, r)
	}
	if err == nil {
		_, err = c.o.Depot.PutExpected(r.Context(), c.limitToDiskSpace(r.Body), r.PathValue("digest"))
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func (c *Control) getBlob(w http.ResponseWriter, r *http.Request) {
	if _, err := c.caller(r); err != nil {
		c.fail(w, r, err)
		return
	}
	dg := r.PathValue("digest")
	if !c.o.Depot.Has(dg) {
		if r.Method == http.MethodGet {
			c.lists.doubt()
		}
		c.fail(w, r, &NotFoundError{"blob " + dg})
		return
	}
	head := func() {
		w.Header().Set("Content-Length", strconv.FormatInt(c.o.Depot.Size(dg), 10))
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	if r.Method == http.MethodHead {
		head()
		return
	}
	// Read before it is sent: a blob that is damaged is named, not cut short.
	if err := c.verifyBlob(r.Context(), dg); err != nil {
		var damaged *depot.DigestError
		if errors.As(err, &damaged) {
			c.o.Log.Error("a blob is damaged, and set aside; agents that have it are asked for it", "digest", dg)
			c.lists.doubt()
			if aerr := c.o.Depot.SetAside(r.Context(), dg); aerr != nil {
				c.o.Log.Error("set aside", "digest", dg, "err", aerr)
			}
		}
		c.fail(w, r, err)
		return
	}
	f, err := c.o.Depot.Get(r.Context(), dg)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	defer f.Close()
	head()
	if _, err := io.Copy(w, f); err != nil {
		c.o.Log.Error("blob", "digest", dg, "err", err)
	}
}
