package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/ledger"
)

// Of several controls one decides. The others hold the ledger too, as members of
// its etcd, and fetch into their depots what releases need, so that any of them
// can go on in its place: it folds the ledger, waits as one that has just started
// ([Control.gone]), and decides. Nothing is handed over.

// Door is what a control's listener serves: the control while it decides, else
// word of who does.
type Door struct{ in atomic.Pointer[http.Handler] }

func (d *Door) open(h http.Handler) { d.in.Store(&h) }

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := hurry(w, r); err != nil {
		w.WriteHeader(http.StatusInternalServerError) // the connection takes no limit: nobody waits on it
		return
	}
	done, ok := admitCertified(w, r)
	if !ok {
		return
	}
	defer done()
	if h := d.in.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable) // it has not begun
}

const again = 200 * time.Millisecond // after which a control that could not begin tries to

// Serve decides while this control may, and stands by while another does, until
// ctx ends. It calls began each time that it decides, and stands each time that
// another does.
func Serve(ctx context.Context, o Options, store *ledger.Store, d *Door, began func(*Control) error, stands func()) error {
	for {
		term, err := await(ctx, o, store, d, stands)
		if err == nil {
			err = decide(ctx, o, term, d, began)
			err = errors.Join(err, term.End())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if o.Cluster != nil && ledger.Transient(err) {
			// It led, and another is elected while it takes over.
			o.Log.Warn("this control could not begin, and stands by", "err", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(again):
			}
			continue
		}
		if err != nil {
			return err
		}
		if o.Cluster == nil {
			return errors.New("etcd did not answer for so long that another control may be the leader by now")
		}
		o.Log.Warn("another control decides")
	}
}

// await stands by until this control decides.
func await(ctx context.Context, o Options, store *ledger.Store, d *Door, stands func()) (*ledger.Term, error) {
	o.Ledger = store.Ledger
	c := New(o)
	d.open(c.standby())
	waiting, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before wg.Wait
	if len(c.others(false)) > 0 {
		wg.Go(func() {
			select {
			case <-waiting.Done():
				return
			case <-time.After(time.Second): // more than an election takes
			}
			stands()
			if err := c.loops(waiting, c.fold, c.mirror); err != nil && waiting.Err() == nil {
				o.Log.Error("stand by", "err", err)
			}
		})
	}
	return store.Campaign(ctx)
}

func decide(ctx context.Context, o Options, term *ledger.Term, d *Door, began func(*Control) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-term.Over:
			cancel()
		}
	}()
	o.Ledger = term.Ledger
	c := New(o)
	err := c.load(ctx)
	if err == nil {
		err = began(c)
	}
	if err == nil {
		d.open(c.Handler())
		err = c.Run(ctx)
	}
	var deposed *ledger.DeposedError
	if ctx.Err() != nil || errors.As(err, &deposed) {
		return nil
	}
	return err
}

// standbyError refuses because another control decides, or none.
type standbyError struct{ err error }

func (e *standbyError) Error() string {
	if e.err != nil {
		return fmt.Sprintf("this control does not decide now: %v", e.err)
	}
	return "this control does not decide now"
}

func (e *standbyError) Unwrap() error { return e.err }

// leaderless says that no control decides.
type leaderless struct{ controls int }

func (e *leaderless) Error() string {
	return fmt.Sprintf("no majority of the %d controls answers", e.controls)
}

// Hint says what to do.
func (e *leaderless) Hint() string {
	return "start those that are down; if they do not come back: stop this one, move etcd below its state's control away, and begin one again from a machine's copy: trysail serve --recover DIR (docs/controls.md)"
}

// standby answers while another control decides: other controls and machines may
// fetch blobs, and everything else is asked elsewhere.
func (c *Control) standby() http.Handler {
	mux := http.NewServeMux()
	// Who belongs to the fleet it may not know yet, or not any more: it refuses nobody
	// for that, and lets those whom it does not know ask elsewhere, or again.
	known := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if _, err := c.caller(r); err != nil {
				c.deny(w, r, &standbyError{err})
				return
			}
			h(w, r)
		}
	}
	mux.HandleFunc("GET /v1/blobs/{digest}", known(c.getBlob))
	mux.HandleFunc("PUT /v1/blobs/{digest}", known(c.putBlob))
	mux.HandleFunc("GET /v1/openapi.yaml", c.openAPI)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		e := &standbyError{}
		if n := len(c.others(true)); n > 0 && c.leader() == "" {
			e.err = &leaderless{n}
		}
		c.deny(w, r, e)
	})
	return mux
}

func (c *Control) leader() string {
	if c.o.Cluster == nil {
		return ""
	}
	return c.o.Cluster.Leader()
}

// others are the addresses of the controls, this one among them if so wanted; none
// if this one is alone.
func (c *Control) others(self bool) []string {
	if c.o.Cluster == nil {
		return nil
	}
	var list []string
	all := c.o.Cluster.Controls()
	for _, m := range all {
		if m.Name != "" && (self || m.Name != c.o.Name) {
			list = append(list, m.Name)
		}
	}
	if len(all) < 2 {
		return nil
	}
	return list
}

// mirror ends when ctx does. It fetches what releases need, so that this depot
// has it when this control decides, and names it so that it stays.
func (c *Control) mirror(ctx context.Context) error {
	t := time.NewTicker(looking)
	defer t.Stop()
	for kept := map[string]int64{}; ; {
		news := c.news()
		if missing := c.fetch(ctx, c.missing(ctx, true)); len(missing) > 0 {
			c.o.Log.Debug("no control has what a release names", "blobs", len(missing))
		}
		for _, v := range c.versions() {
			st := c.state(v)
			if st == nil || kept[v] == st.Head {
				continue
			}
			if err := c.keep(ctx, v, ""); err != nil {
				var missing *depot.NotFoundError // still, and looked for again
				if !errors.As(err, &missing) && ctx.Err() == nil {
					c.o.Log.Error("keep", "release", v, "err", err)
				}
				continue
			}
			kept[v] = st.Head
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-t.C:
		}
	}
}

// fetch gets blobs from other controls, and gives those that none of them has.
func (c *Control) fetch(ctx context.Context, digests []string) (missing []string) {
	if len(digests) == 0 {
		return nil
	}
	if err := c.checkDiskSpace(); err != nil {
		c.o.Log.Error("fetch from other controls", "err", err)
		return digests
	}
	others := c.others(false)
	if leader := c.leader(); slices.Contains(others, leader) {
		others = append([]string{leader}, others...)
	}
	silent := map[string]bool{} // they are asked again with the next look
	for _, dg := range digests {
		got := slices.ContainsFunc(others, func(at string) bool {
			if silent[at] {
				return false
			}
			err := c.take(ctx, at, dg)
			var away *api.UnreachableError
			silent[at] = errors.As(err, &away)
			return err == nil
		})
		if !got {
			missing = append(missing, dg)
		}
	}
	return missing
}

// take gets a blob from another control.
func (c *Control) take(ctx context.Context, at, dg string) error {
	r, err := c.client(at).FetchBlob(ctx, dg, c.silence)
	if err != nil {
		c.o.Log.Debug("fetch from another control", "control", at, "digest", dg, "err", err)
		return err
	}
	defer r.Close()
	if _, err := c.o.Depot.PutExpected(ctx, c.limitToDiskSpace(r), dg); err != nil {
		c.o.Log.Warn("fetch from another control", "control", at, "digest", dg, "err", err)
		return err
	}
	return nil
}

const spreading = 10 * time.Second

// spread gives blobs to the other controls before what names them is acknowledged.
// One that does not answer fetches them when it does.
func (c *Control) spread(ctx context.Context, digests []string) {
	ctx, cancel := context.WithTimeout(ctx, spreading)
	defer cancel()
	var wg sync.WaitGroup
	for _, at := range c.others(false) {
		wg.Go(func() {
			for _, dg := range digests {
				if dg == "" {
					continue
				}
				if err := c.give(ctx, at, dg); err != nil {
					c.o.Log.Warn("another control does not take a blob; it fetches it later", "control", at, "digest", dg, "err", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func (c *Control) give(ctx context.Context, at, dg string) error {
	to := c.client(at)
	if has, err := to.HasBlob(ctx, dg); err != nil || has {
		return err
	}
	f, err := c.o.Depot.Get(ctx, dg)
	if err != nil {
		return err
	}
	defer f.Close()
	return to.PutBlob(ctx, dg, f)
}

// client speaks to another control.
func (c *Control) client(at string) *api.Client {
	return api.NewClient([]string{at}, "", c.o.Identity.client)
}

// joinControl lets a control in that has a token for it.
func (c *Control) joinControl(w http.ResponseWriter, r *http.Request) {
	answer, err := func() (*api.ControlJoined, error) {
		q, err := body[api.JoinControl](r)
		if err != nil {
			return nil, err
		}
		if q.Token, err = c.joinToken(r, q.Token); err != nil {
			return nil, err
		}
		if c.o.Cluster == nil {
			return nil, &ledger.AloneError{}
		}
		cluster, err := c.o.Cluster.AddControl(r.Context(), q.Name, q.Peer)
		if err != nil {
			return nil, err
		}
		if err := c.useJoin(r.Context(), "control "+q.Name, q.Token, true); err != nil {
			return nil, errors.Join(err, c.o.Cluster.Dismiss(r.Context(), q.Peer))
		}
		key, err := c.o.Identity.authority.keyPEM()
		if err != nil {
			return nil, err
		}
		secret, err := c.addToken(r.Context(), "control "+q.Name, rootToken())
		return &api.ControlJoined{Cluster: cluster, Authority: c.o.Identity.authority.pem, AuthorityKey: key, Secret: secret}, err
	}()
	if err != nil {
		c.fail(w, r, err)
		return
	}
	c.answer(w, answer)
}

// controls lists the controls, and asks each whether it answers.
func (c *Control) controls(ctx context.Context, _ *caller, _ *http.Request) (any, error) {
	list := []api.ControlStatus{}
	if c.o.Cluster == nil {
		return list, nil
	}
	for _, m := range c.o.Cluster.Controls() {
		list = append(list, api.ControlStatus{Name: m.Name, Peer: m.Peer, Leads: m.Leads, Votes: m.Votes, Answers: m.Name == c.o.Name})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range list {
		if x := &list[i]; !x.Answers && x.Name != "" {
			wg.Go(func() {
				res, err := c.client(x.Name).Open(ctx, http.MethodGet, "/openapi.yaml", nil, nil)
				if err == nil {
					x.Answers = true
					res.Body.Close()
				}
			})
		}
	}
	wg.Wait()
	return list, nil
}

func (c *Control) dismiss(ctx context.Context, q *caller, r *http.Request) (any, error) {
	if q.person != "*" {
		return nil, &DeniedError{"only root on control dismisses a control", "ask whoever runs control"}
	}
	if c.o.Cluster == nil {
		return nil, &ledger.AloneError{}
	}
	return nil, c.o.Cluster.Dismiss(ctx, r.PathValue("name"))
}
