package control

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/evidence"
	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

// TestDoubt: a machine whose disk has more than the ledger, or something else,
// stops what is appended to that release and to no other, until its copy agrees or
// it is retired.
func TestDoubt(t *testing.T) {
	c := station(t, "a", "b")
	started(t, c, "1")
	started(t, c, "2")
	copyOf := func(stream string, events int64) api.Copy {
		t.Helper()
		_, root, err := c.folding(stream, events)
		if err != nil || root == nil {
			t.Fatalf("the root of %d events of %s: %v", events, stream, err)
		}
		return api.Copy{Stream: stream, Events: events, Root: root}
	}
	one, members := copyOf("release.1", 1), copyOf(fleetStream, 2)
	more, other, gone := one, one, one
	more.Events = 2
	other.Root = slices.Clone(one.Root)
	other.Root[0] ^= 1
	gone.Stream = "release.9"
	changed := members
	changed.Root = other.Root
	for _, x := range []struct {
		what    string
		machine string
		copies  []api.Copy
		doubts  []string // streams
	}{
		{"what it is", "a", []api.Copy{one, members}, nil},
		{"more events", "a", []api.Copy{more}, []string{"release.1"}},
		{"nothing new", "a", nil, []string{"release.1"}},
		{"another machine agrees", "b", []api.Copy{one}, []string{"release.1"}},
		{"it agrees again", "a", []api.Copy{one}, nil},
		{"another event", "b", []api.Copy{other}, []string{"release.1"}},
		{"that one agrees again", "b", []api.Copy{one}, nil},
		{"a release that is gone", "a", []api.Copy{gone}, []string{"release.9"}},
		{"the fleet's stream too", "a", []api.Copy{changed}, []string{fleetStream, "release.9"}},
	} {
		report(t, c, x.machine, api.Beat{Copies: x.copies})
		var got []string
		for _, stream := range []string{fleetStream, "release.1", "release.2", "release.9"} {
			if err := c.doubted(stream); err != nil {
				got = append(got, stream)
			}
		}
		if !slices.Equal(got, x.doubts) {
			t.Errorf("%s: in doubt are %v, want %v", x.what, got, x.doubts)
		}
		if n := len(c.inDoubt()); n != len(x.doubts) {
			t.Errorf("%s: %d troubles are told", x.what, n)
		}
	}

	report(t, c, "b", api.Beat{Copies: []api.Copy{more}})
	hold := func(version string) error {
		_, err := c.update(t.Context(), version, "test", func(*release.State) (release.Body, error) { return release.Held{Reason: "r"}, nil })
		return err
	}
	var doubted *DivergedError
	if err := hold("1"); !errors.As(err, &doubted) || !strings.Contains(doubted.Error(), "b has 2 events") || doubted.Hint() == "" {
		t.Errorf("an append in doubt: %v", err)
	}
	if err := hold("2"); err != nil {
		t.Errorf("an append to a release that is not in doubt: %v", err)
	}
	if _, err := c.update(t.Context(), "2", "test", func(*release.State) (release.Body, error) { return release.Resumed{}, nil }); err != nil {
		t.Fatal(err)
	}
	// Nor does it wait for a machine because of the other, which says why it does.
	p := newPending()
	c.read(p)
	if err := c.assign(t.Context(), p); err != nil {
		t.Error(err)
	}
	if on := c.state("2").Progress["build"].Lease; on == nil {
		t.Error("the release that is not in doubt gets no machine")
	}
	if why := c.waiting["1 build"]; !strings.Contains(why, "b has 2 events") {
		t.Errorf("the release in doubt waits for: %q", why)
	}
	c.members["b"].set = fleet.Retired
	if err := hold("1"); err != nil {
		t.Errorf("after the machine was retired: %v", err)
	}
	// The copy of the first event still agrees, although there are more.
	report(t, c, "a", api.Beat{Copies: []api.Copy{one}})
	if err := c.doubted("release.1"); err != nil {
		t.Error(err)
	}
}

// TestUnheardUntilTold: a machine gets nothing new before it has told this run of
// control what its disk says.
func TestUnheardUntilTold(t *testing.T) {
	c := station(t, "a")
	c.members["a"].told = time.Time{}
	answer := report(t, c, "a", api.Beat{Control: "another"})
	if !c.members["a"].told.IsZero() {
		t.Error("it counts before it has told")
	}
	report(t, c, "a", api.Beat{Control: answer.Control})
	if c.members["a"].told.IsZero() {
		t.Error("it does not count after it has told")
	}
}

// TestNotCompared: a copy that could not be compared leaves no doubt and no
// confidence: the report is not taken.
func TestNotCompared(t *testing.T) {
	c := station(t, "a")
	started(t, c, "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.compare(ctx, "a", []api.Copy{{Stream: "release.1", Events: 2}}); err == nil || c.doubted("release.1") != nil {
		t.Errorf("a ledger that was not read: %v, %v", err, c.doubted("release.1"))
	}
}

// TestSkew: a machine's clock is compared with control's when it reports.
func TestSkew(t *testing.T) {
	c := station(t, "a", "b")
	ahead := c.o.Now().Add(time.Hour)
	report(t, c, "a", api.Beat{Clock: &ahead})
	report(t, c, "b", api.Beat{})
	list, err := c.fleetStatus(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.([]api.MachineStatus) {
		want := map[string]float64{"a": 3600, "b": 0}[m.Name]
		if d := m.Skew - want; d < -5 || d > 5 {
			t.Errorf("the clock of %s is %g s ahead, not %g", m.Name, m.Skew, want)
		}
	}
}

// TestCheckpoint: whoever kept one can verify, with the code of Go's checksum
// database, that the ledger still begins so; all controls of a fleet sign with the
// same key.
func TestCheckpoint(t *testing.T) {
	at := &wall{time.Now()}
	c, ask := working(t, at)
	started(t, c, "1")
	get := func(query string) (api.Checkpoint, evidence.Checkpoint) {
		t.Helper()
		var a api.Checkpoint
		if p := ask(http.MethodGet, "/v1/releases/1/checkpoint"+query, nil, &a); p != nil {
			t.Fatal(p)
		}
		key, err := note.NewVerifier(a.Key)
		if err != nil {
			t.Fatal(err)
		}
		p, err := evidence.ReadNote([]byte(a.Note), key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.ReadNote([]byte(strings.Replace(a.Note, "release.1", "release.2", 1)), key); err == nil {
			t.Error("a changed checkpoint is verified")
		}
		return a, *p
	}
	first, kept := get("")
	for range 4 {
		for _, b := range []release.Body{release.Held{Reason: "r"}, release.Resumed{}} {
			if _, err := c.update(t.Context(), "1", "test", func(*release.State) (release.Body, error) { return b, nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	now, last := get("?since=1")
	var proof tlog.TreeProof
	for _, h := range now.Proof {
		proof = append(proof, tlog.Hash(h))
	}
	if kept.Size != 1 || last.Size != 9 || first.Key != now.Key || last.Stream != "release.1" {
		t.Errorf("first %+v %s, then %+v %s", kept, first.Key, last, now.Key)
	}
	if err := tlog.CheckTree(proof, last.Size, last.Root, kept.Size, kept.Root); err != nil {
		t.Errorf("the ledger extends what it was: %v", err)
	}
	kept.Root[0] ^= 1
	if err := tlog.CheckTree(proof, last.Size, last.Root, kept.Size, kept.Root); err == nil {
		t.Error("the ledger extends what it never was")
	}
	for _, since := range []string{"0", "10", "-1", "x"} {
		if p := ask(http.MethodGet, "/v1/releases/1/checkpoint?since="+since, nil, nil); p == nil || p.Status != http.StatusBadRequest {
			t.Errorf("since %s: %v", since, p)
		}
	}
	again, err := OpenIdentity(c.o.Identity.dir, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, key, err := again.checkpointKey(); err != nil || key != now.Key {
		t.Errorf("another control's key: %s, %v", key, err)
	}
	c.doubts["release.1"] = map[string]string{"m": "why"}
	c.members["m"] = &member{}
	if p := ask(http.MethodGet, "/v1/releases/1/checkpoint", nil, nil); p == nil || p.Code != api.Doubted {
		t.Errorf("a ledger in doubt is signed: %v", p)
	}
}
