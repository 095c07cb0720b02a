package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trysail/evidence"
	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

// TestFleetFoldsOnce: two controls that write to the same streams, many at a time,
// have the same fleet and the same tokens in the end, and fold each event once.
func TestFleetFoldsOnce(t *testing.T) {
	k, at := newDisk(t), noon()
	controls := []*Control{begin(t, k, at), begin(t, k, at)}
	secret := made(t, controls[0], token{Join: true, Expires: at.now})
	var wg sync.WaitGroup
	var spent sync.Map
	for i, c := range controls {
		for j := range 5 {
			wg.Go(func() {
				joins(t, c, fmt.Sprintf("m%d-%d", i, j))
				var denied *DeniedError
				switch err := c.useJoin(t.Context(), "test", secret, false); {
				case err == nil:
					if _, twice := spent.LoadOrStore(secret, true); twice {
						t.Error("a join token was used twice")
					}
				case !errors.As(err, &denied):
					t.Error(err)
				}
				made(t, c, token{Person: fmt.Sprintf("p%d-%d", i, j), Role: Viewer})
			})
		}
	}
	wg.Wait()
	for _, c := range controls {
		if err := c.load(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(c.members) != 10 || c.joined != 10 || len(c.tokens) != 10 || c.accesses != 12 {
			t.Errorf("%d machines after %d events, %d tokens after %d", len(c.members), c.joined, len(c.tokens), c.accesses)
		}
		if !c.has(fleetStream, 10) || c.has(fleetStream, 11) || !c.has(AccessStream, 12) || c.has(AccessStream, 13) {
			t.Errorf("the heads of the streams are %v", c.heads.last)
		}
	}
}

// TestReadmittedOnce: that a machine was readmitted once does not clear what it
// loses later.
func TestReadmittedOnce(t *testing.T) {
	c := station(t, "a")
	if err := c.enlist(t.Context(), membership{Actor: "test", Name: "a", Set: fleet.Up}); err != nil {
		t.Fatal(err)
	}
	c.members["a"].losses = 3
	joins(t, c, "b")
	if n := c.members["a"].losses; n != 3 {
		t.Errorf("after another machine joined, a has lost %d steps of 3", n)
	}
}

// TestReleaseOfAnotherStreamsName: a release may be named as a stream that is no
// release's, and neither is taken for the other.
func TestReleaseOfAnotherStreamsName(t *testing.T) {
	c := station(t, "a", "b")
	started(t, c, fleetStream)
	for name, want := range map[string]struct {
		events int
		says   string
	}{fleetStream: {2, `"joined"`}, releaseStream(fleetStream): {1, `"started"`}} {
		if !c.has(name, int64(want.events)) || c.has(name, int64(want.events)+1) {
			t.Errorf("%s is not folded up to event %d", name, want.events)
		}
		lines, err := c.linesOf(t.Context(), name, 0)
		if err != nil || len(lines) != want.events || !strings.Contains(string(lines[0]), want.says) {
			t.Errorf("%s has %q: %v", name, lines, err)
		}
	}
}

// TestUnfolded: a release with an event that this control does not know stands still.
// It keeps control from nothing else, neither from beginning nor from the report of a
// machine that has a copy of it, which is still held against the ledger.
func TestUnfolded(t *testing.T) {
	first := station(t, "a")
	for _, v := range []string{"1", "2"} {
		started(t, first, v)
	}
	epoch := granted(t, first, "1", "a")
	newer := fmt.Sprintf(`{"seq":%d,"time":"2026-11-24T12:00:00Z","actor":"control","type":"newer","body":{}}`, epoch+1)
	if err := first.o.Ledger.Append(t.Context(), releaseStream("1"), epoch, []byte(newer)); err != nil {
		t.Fatal(err)
	}
	c := New(first.o)
	if err := c.load(t.Context()); err != nil {
		t.Fatalf("it does not begin: %v", err)
	}
	hears(c, "a", time.Now())
	change := func(version string) error {
		_, err := c.update(t.Context(), version, "test", func(*release.State) (release.Body, error) { return release.Held{Reason: "r"}, nil })
		return err
	}
	var unfolded *UnfoldedError
	if err := change("1"); !errors.As(err, &unfolded) || unfolded.Event != epoch+1 || unfolded.Hint() == "" {
		t.Errorf("an append to what does not fold: %v", err)
	}
	if err := change("2"); err != nil {
		t.Errorf("an append to the other: %v", err)
	}
	list, err := c.list(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list.([]api.Listed) {
		if (l.Error != "") != (l.Version == "1") {
			t.Errorf("release %s is listed with %q", l.Version, l.Error)
		}
	}
	h := &herald{c: c, releases: map[string]*followed{}}
	if err := h.events("1"); err != nil {
		t.Errorf("notices of what folded: %v", err)
	}
	var tree evidence.Tree
	lines, err := c.o.Ledger.Read(t.Context(), releaseStream("1"), 0)
	for _, l := range lines {
		err = errors.Join(err, tree.Add(l))
	}
	root, rerr := tree.Root(tree.Size())
	if err := errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	held := api.Holding{Release: "1", Item: "build", Epoch: epoch}
	whole := api.Copy{Stream: releaseStream("1"), Events: tree.Size(), Root: root[:]}
	answer := report(t, c, "a", api.Beat{Copies: []api.Copy{whole}, Holding: []api.Holding{held}})
	if err := c.doubted(releaseStream("1")); err != nil {
		t.Error(err)
	}
	if len(answer.Renewed) > 0 {
		t.Error("a lease is renewed that may be over")
	}
	if copied, err := c.linesOf(t.Context(), releaseStream("1"), epoch); err != nil || len(copied) != 1 || string(copied[0]) != newer {
		t.Errorf("machines copy %q after event %d: %v", copied, epoch, err)
	}
	other := whole
	other.Root = slices.Clone(whole.Root)
	other.Root[0] ^= 1
	report(t, c, "a", api.Beat{Copies: []api.Copy{other}})
	if c.doubted(releaseStream("1")) == nil {
		t.Error("a copy that has something else leaves no doubt")
	}
}

// TestUnfoldedFleet: who belongs to the fleet concerns every release.
func TestUnfoldedFleet(t *testing.T) {
	c := station(t, "a")
	if err := c.o.Ledger.Append(t.Context(), fleetStream, 1, []byte(`{"seq":"2"}`)); err != nil {
		t.Fatal(err)
	}
	if err := New(c.o).load(t.Context()); err == nil {
		t.Error("it begins without knowing its fleet")
	}
}

// TestKnown: a copy is refused with an event that could not be folded; what the ledger
// has is not.
func TestKnown(t *testing.T) {
	c := station(t, "a")
	started(t, c, "1")
	made(t, c, token{Person: "p", Role: Operator})
	if err := c.note(t.Context(), noted{Target: "x", Ends: true}); err != nil {
		t.Fatal(err)
	}
	list, err := c.o.Ledger.Streams(t.Context())
	if err != nil || len(list) != 4 {
		t.Fatalf("%q %v", list, err)
	}
	for _, name := range list {
		lines, err := c.o.Ledger.Read(t.Context(), name, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := Known(name, lines[0]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, line := range map[string]string{
		releaseStream("1"): `{"seq":2,"time":"2026-11-24T12:00:00Z","actor":"control","type":"newer","body":{}}`,
		releaseStream("2"): `{"seq":1,"time":"2026-11-24T12:00:00Z","actor":"control","type":"held","body":{"reasom":"r"}}`,
		fleetStream:        `{"seq":1,"joined":"a"}`,
		AccessStream:       `{"seq":1,"made":"a"}`,
		noticesStream:      `{"seq":1,"slack":1}`,
		"plans":            `{"seq":1}`,
	} {
		if Known(name, []byte(line)) == nil {
			t.Errorf("%s: %s is taken", name, line)
		}
	}
}

// TestReadStreamWritesNowhere: lines are shared by all who read a stream.
func TestReadStreamWritesNowhere(t *testing.T) {
	c := station(t)
	started(t, c, "1")
	secret := made(t, c, token{Person: "p", Role: Operator})
	s := c.streamOf(releaseStream("1"))
	n := len(s.lines[0])
	s.lines[0] = slices.Grow(s.lines[0], 1)
	s.lines[0][:n+1][n] = 'x'
	r := httptest.NewRequest(http.MethodGet, "/v1/streams/release.1", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, r)
	if w.Body.String() != string(s.lines[0])+"\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if s.lines[0][:n+1][n] != 'x' {
		t.Error("it wrote into what others read")
	}
}
