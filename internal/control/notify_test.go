package control

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/depot"
	"trysail/internal/ledger"
	"trysail/internal/machine"
	"trysail/internal/notify"
	"trysail/release"
	"trysail/runbook"
)

// receiver is a webhook that keeps the ids of what it took.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	down  bool
	never string // an id that it refuses
	tried int
	ids   []string
}

func receive(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		data, err := io.ReadAll(q.Body)
		var e struct{ ID string }
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil {
			t.Errorf("%s: %v", data, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tried++
		switch {
		case r.down:
			w.WriteHeader(http.StatusBadGateway)
		case r.never == e.ID:
			w.WriteHeader(http.StatusBadRequest)
		default:
			r.ids = append(r.ids, e.ID)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) set(down bool, never string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down, r.never, r.tried = down, never, 0
}

func (r *receiver) got() (ids []string, tried int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids), r.tried
}

// crew is a ledger of real etcd with one control after another.
type crew struct {
	t     *testing.T
	dir   string
	store *ledger.Store
	depot *depot.Depot
	now   atomic.Int64
	c     *Control
	stop  func()
	begun int // releases
}

func newCrew(t *testing.T) *crew {
	t.Helper()
	dir := t.TempDir()
	w := &crew{t: t, dir: dir}
	var err error
	if w.store, err = ledger.Start(t.Context(), ledger.StartOptions{Dir: filepath.Join(dir, "etcd"), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.stop()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if w.depot, err = depot.Open(filepath.Join(dir, "depot")); err != nil {
		t.Fatal(err)
	}
	w.now.Store(noon().now.UnixNano())
	return w
}

func (w *crew) time() time.Time { return time.Unix(0, w.now.Load()).UTC() }

// control takes over.
func (w *crew) control(slack string, hooks ...*receiver) {
	w.t.Helper()
	if w.stop != nil {
		w.stop()
	}
	doc := slack
	for _, h := range hooks {
		if doc == slack {
			doc += "webhooks:\n"
		}
		doc += "- url: " + h.URL + "/\n"
	}
	file := filepath.Join(w.dir, "notify.yaml")
	if err := os.WriteFile(file, []byte(doc), 0o644); err != nil {
		w.t.Fatal(err)
	}
	conf, err := notify.Load(file)
	if err != nil {
		w.t.Fatal(err)
	}
	w.c = New(Options{Ledger: w.store.Ledger, Depot: w.depot, Dir: w.dir, Actor: "control", Log: slog.New(slog.DiscardHandler), Now: w.time, Notify: conf})
	if err := w.c.load(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.c.clock = steady{wall: w.time().AddDate(9, 0, 0), boot: machine.BootTime()} // the tests' clock is right
	w.c.members["m"] = &member{heard: time.Now().Add(time.Hour), told: time.Now().Add(time.Hour)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context())) // it outlives no test: Cleanup stops it
	done := make(chan error, 1)
	go func() { done <- w.c.Run(ctx) }()
	w.stop = func() {
		cancel()
		if done != nil {
			if err := <-done; err != nil {
				w.t.Error(err)
			}
			done = nil
		}
	}
	w.until("it has folded the ledger, and its targets have begun", func() bool {
		folded := len(w.c.versions()) == w.begun
		w.c.notices.mu.Lock()
		defer w.c.notices.mu.Unlock()
		return folded && len(w.c.notices.told) == len(hooks)
	})
}

func (w *crew) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("in vain: %s", what)
		}
	}
}

// start begins a release, of which legal is asked at once.
func (w *crew) start(version string) {
	w.t.Helper()
	r, err := runbook.Parse("RELEASE.md", []byte("---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Build\n\n"+
		"```sh {\"name\":\"gold\",\"budget\":\"1h\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake\n```\n\n- [ ] **legal** (@ann, budget 1h): licences\n"), time.LoadLocation)
	if err != nil {
		w.t.Fatal(err)
	}
	e := release.New(w.time(), "test", release.Started{Version: version, Items: r.Items, Approver: r.Approvers, Ship: w.time().Add(100 * time.Hour)})
	e.Seq = 1
	line, err := json.Marshal(e)
	if err == nil {
		err = w.store.Append(w.t.Context(), releaseStream(version), 0, line)
	}
	w.begun++
	if err == nil && w.c != nil {
		err = w.c.refresh(w.t.Context(), releaseStream(version))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *crew) say(version string, decide func(s *release.State) release.Body) {
	w.t.Helper()
	if _, err := w.c.update(w.t.Context(), version, "test", func(s *release.State) (release.Body, error) { return decide(s), nil }); err != nil {
		w.t.Fatal(err)
	}
}

// fails lets gold fail on a machine that is well.
func (w *crew) fails(version string) {
	w.t.Helper()
	w.say(version, func(*release.State) release.Body { return release.Granted{Item: "gold", Machine: "m"} })
	w.say(version, func(s *release.State) release.Body {
		r := release.Report{Machine: "m"}
		r.Item, r.Epoch, r.Exit = "gold", s.Progress["gold"].Lease.Epoch, 1
		return s.Result(r)
	})
}

// hears waits for what a webhook has taken, in order, and sees that it stays so.
func (w *crew) hears(what string, r *receiver, want ...string) {
	w.t.Helper()
	w.until(what, func() bool { ids, _ := r.got(); return len(ids) >= len(want) })
	time.Sleep(100 * time.Millisecond)
	if ids, _ := r.got(); !slices.Equal(ids, want) {
		w.t.Fatalf("%s: it was told\n%s\nnot\n%s", what, strings.Join(ids, "\n"), strings.Join(want, "\n"))
	}
}

// A target that is down, and a control that dies meanwhile: each target is told
// all, once, and nobody waits for another.
func TestTell(t *testing.T) {
	well, ill := receive(t), receive(t)
	w := newCrew(t)
	w.start("1.0") // before anybody listens
	w.control("", well, ill)
	ill.set(true, "")
	w.start("4.2")
	w.say("4.2", func(*release.State) release.Body { return release.Granted{Item: "gold", Machine: "x"} }) // of no fleet: lost
	all := []string{"4.2/1/sign-off-wanted/legal", "4.2/3/machine-lost/gold"}
	w.hears("a machine is lost", well, all...)
	w.fails("4.2")
	all = append(all, "4.2/5/action-wanted/gold")
	w.hears("gold failed", well, all...)
	if ids, tried := ill.got(); tried == 0 || len(ids) > 0 {
		t.Errorf("who is down was tried %d times and has %q", tried, ids)
	}

	w.control("", well, ill) // another takes over
	w.until("who is down is tried again", func() bool { _, tried := ill.got(); return tried > 1 })
	ill.set(false, "")
	w.hears("who is up again", ill, all...)
	w.control("", well, ill)
	w.say("1.0", func(*release.State) release.Body { return release.Aborted{Reason: "r"} })
	w.hears("nothing twice", well, append(slices.Clone(all), "1.0/2/aborted")...)
	w.hears("nothing lost", ill, append(slices.Clone(all), "1.0/2/aborted")...)

	// Who leaves and comes back is told what happens from then on.
	w.control("", well)
	w.say("4.2", func(*release.State) release.Body { return release.Aborted{Reason: "r"} })
	all = append(all, "1.0/2/aborted", "4.2/6/aborted")
	w.hears("who stayed", well, all...)
	w.control("", well, ill)
	w.start("5.0")
	all = append(all, "5.0/1/sign-off-wanted/legal")
	w.hears("who stayed", well, all...)
	w.hears("who came back", ill, slices.DeleteFunc(slices.Clone(all), func(id string) bool { return id == "4.2/6/aborted" })...)

	// Agents copy the stream, and a copy of it is a ledger again.
	answer, err := w.c.beat(t.Context(), &caller{machine: "m"}, httptest.NewRequest(http.MethodPost, "/v1/beat", strings.NewReader("{}")))
	if err != nil || !slices.ContainsFunc(answer.(api.BeatAnswer).Streams, func(s api.Copied) bool { return s.Stream == noticesStream && s.Events == w.c.notices.size() }) {
		t.Errorf("agents are to copy %+v: %v", answer, err)
	}
	lines, err := w.store.Read(t.Context(), noticesStream, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range lines {
		var e struct{ Seq int64 }
		if err := json.Unmarshal(line, &e); err != nil || e.Seq != int64(i)+1 || strings.Contains(string(line), well.URL+"/") {
			t.Errorf("event %d: %s %v", i+1, line, err)
		}
	}
}

// One notice that is refused holds up no other, and is given up after a day.
func TestTellGivesUp(t *testing.T) {
	r := receive(t)
	w := newCrew(t)
	w.control("", r)
	r.set(false, "4.2/1/sign-off-wanted/legal")
	w.start("4.2")
	w.fails("4.2")
	w.hears("the next", r, "4.2/3/action-wanted/gold")
	w.now.Add(int64(giveUp - time.Minute))
	_, before := r.got()
	w.until("it is tried still", func() bool { _, n := r.got(); return n > before })
	w.now.Add(int64(2 * time.Minute))
	metric := func() string {
		q := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		secret, err := w.c.LocalToken(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+secret)
		a := httptest.NewRecorder()
		w.c.Handler().ServeHTTP(a, q)
		return a.Body.String()
	}
	given := func() bool {
		return regexp.MustCompile(`(?m)^trysail_notices_pending\{target="webhook [^"]+"\} 0\n(?s:.*)^trysail_notices_undelivered_total\{target="webhook [^"]+"\} 1$`).MatchString(metric())
	}
	w.until("it is given up", given)
	r.set(false, "")
	w.control("", r)
	w.say("4.2", func(*release.State) release.Body { return release.Aborted{Reason: "r"} })
	w.hears("what was given up stays so", r, "4.2/3/action-wanted/gold", "4.2/4/aborted")
	if !given() {
		t.Errorf("it is forgotten what was given up:\n%s", metric())
	}
}

// Slack is told once a crossing, whichever control looks.
func TestTellSlack(t *testing.T) {
	r := receive(t)
	w := newCrew(t)
	w.control("slack_under: 24h\n", r)
	w.start("4.2") // 100 h to the ship date, two for gold or one for legal
	w.hears("the start", r, "4.2/1/sign-off-wanted/legal")
	w.now.Add(int64(75 * time.Hour))
	w.c.moved()
	w.hears("slack is low", r, "4.2/1/sign-off-wanted/legal", "4.2/1/slack-low")
	w.control("slack_under: 24h\n", r)
	w.now.Add(int64(time.Hour))
	w.c.moved()
	w.fails("4.2") // at another event it would be another notice
	w.c.moved()
	w.hears("slack is low still", r, "4.2/1/sign-off-wanted/legal", "4.2/1/slack-low", "4.2/3/action-wanted/gold")
}
