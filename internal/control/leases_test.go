package control

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

// TestLeasesInStep: whatever a release's leases become, the index has those and
// no others.
func TestLeasesInStep(t *testing.T) {
	x := newLeases()
	want := map[string]map[string]release.Lease{}
	for epoch := range int64(2000) {
		version, machine := strconv.Itoa(rand.IntN(5)), strconv.Itoa(rand.IntN(3))
		now := map[string]release.Lease{}
		for item, l := range want[version] {
			if rand.IntN(3) > 0 {
				now[item] = l
			}
		}
		item := "item" + strconv.Itoa(rand.IntN(4))
		now[item] = release.Lease{Epoch: epoch + 1, Machine: machine}
		wake := []string{machine}
		for item, l := range want[version] {
			if now[item].Epoch != l.Epoch {
				wake = append(wake, l.Machine)
			}
		}
		want[version] = now
		touched := x.put(version, now)
		slices.Sort(touched)
		slices.Sort(wake)
		if !slices.Equal(touched, wake) {
			t.Fatalf("%v gained or lost a lease, and %v did", touched, wake)
		}
		n := 0
		for version, items := range want {
			n += len(items)
			for item, l := range items {
				if !x.by[l.Machine][api.Holding{Release: version, Item: item, Epoch: l.Epoch}] {
					t.Fatalf("%s of %s is not in the index", item, version)
				}
			}
		}
		for _, held := range x.by {
			n -= len(held)
		}
		if n != 0 {
			t.Fatalf("the index has %d leases more than there are", -n)
		}
	}
	for version := range want {
		x.put(version, nil)
	}
	if len(x.by) != 0 || len(x.of) != 0 {
		t.Errorf("left: %v %v", x.by, x.of)
	}
}

// TestHeads: who knows all up to some move is told of each stream that moved
// since, once, with its length now.
func TestHeads(t *testing.T) {
	h := newHeads()
	knows := map[string]int64{}
	var mark int64
	for range 3000 {
		name := "stream" + strconv.Itoa(rand.IntN(20))
		h.put(name, h.last[name].events+1)
		h.put(name, h.last[name].events) // which is no move
		if rand.IntN(10) > 0 {
			continue
		}
		for _, s := range h.since(mark) {
			if knows[s.Stream] == s.Events {
				t.Fatalf("%s did not move, and was told of", s.Stream)
			}
			knows[s.Stream] = s.Events
		}
		mark = h.moves
		for name, last := range h.last {
			if knows[name] != last.events {
				t.Fatalf("%s has %d events, and %d are known", name, last.events, knows[name])
			}
		}
	}
	if len(h.since(0)) != len(h.last) || len(h.since(h.moves)) != 0 {
		t.Errorf("from the start: %v; from the end: %v", h.since(0), h.since(h.moves))
	}
	if len(h.order) > 2*len(h.last)+101 {
		t.Errorf("%d moves are kept of %d streams", len(h.order), len(h.last))
	}
}

// TestBell: a ring wakes all who took the channel before, and nobody else.
func TestBell(t *testing.T) {
	var b bell
	b.ring()
	first, again := b.next(), b.next()
	b.ring()
	<-first
	<-again
	select {
	case <-b.next():
		t.Error("a bell that was not rung since rang")
	default:
	}
}

func report(t testing.TB, c *Control, machine string, b api.Beat) api.BeatAnswer {
	t.Helper()
	answer, err := c.beat(t.Context(), &caller{machine: machine}, httptest.NewRequest(http.MethodPost, "/", sent(t, b)))
	if err != nil {
		t.Fatal(err)
	}
	return answer.(api.BeatAnswer)
}

func names(list []api.Copied) []string {
	var names []string
	for _, x := range list {
		names = append(names, x.Stream)
	}
	return names
}

// TestBeatTellsWhatMoved: an answer names the streams that the machine has not
// copied yet, all of them to one that shows no mark of this control; and it renews
// the leases that are the machine's own.
func TestBeatTellsWhatMoved(t *testing.T) {
	c := station(t, "a", "b")
	started(t, c, "1")
	started(t, c, "2")
	first := report(t, c, "a", api.Beat{})
	if got := names(first.Streams); !slices.Equal(got, []string{fleetStream, "release.1", "release.2"}) {
		t.Errorf("a machine that has nothing is told of %v", got)
	}
	if got := report(t, c, "a", api.Beat{Copied: first.Mark}); len(got.Streams) != 0 || got.Mark != first.Mark {
		t.Errorf("one that has everything is told of %v", got.Streams)
	}
	epoch := granted(t, c, "2", "a")
	h := api.Holding{Release: "2", Item: "build", Epoch: epoch}
	got := report(t, c, "a", api.Beat{Copied: first.Mark, Events: 4, Holding: []api.Holding{h}})
	if !slices.Equal(got.Streams, []api.Copied{{Stream: "release.2", Events: 2}}) || !slices.Equal(got.Renewed, []api.Holding{h}) {
		t.Errorf("after a step was given: %+v", got)
	}
	if got := report(t, c, "b", api.Beat{Holding: []api.Holding{h}}); len(got.Renewed) != 0 {
		t.Error("the lease of another machine was renewed")
	}
	if got := report(t, c, "a", api.Beat{Copied: "another." + strconv.Itoa(1<<30), Events: 4}); len(got.Streams) != 3 {
		t.Errorf("one that comes from another control is told of %v", got.Streams)
	}
	list, err := c.fleetStatus(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := list.([]api.MachineStatus)[0]; a.Events != 4 || !slices.Equal(a.Running, []api.Holding{h}) {
		t.Errorf("the status of a is %+v", a)
	}
}

// TestWorkWakesItsMachine: a poll ends with the lease of its machine, and goes on
// when another gets one.
func TestWorkWakesItsMachine(t *testing.T) {
	c := station(t, "a", "b")
	started(t, c, "1")
	started(t, c, "2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	polls := func(machine string) chan []api.Assignment {
		got := make(chan []api.Assignment, 1)
		go func() {
			list, err := c.work(ctx, &caller{machine: machine}, httptest.NewRequest(http.MethodGet, "/", nil))
			if err == nil {
				got <- list.([]api.Assignment)
			}
		}()
		return got
	}
	a, b := polls("a"), polls("b")
	time.Sleep(50 * time.Millisecond) // they wait
	c.mu.Lock()
	waits := c.members["b"].news.rung
	c.mu.Unlock()
	epoch := granted(t, c, "2", "a")
	select {
	case list := <-a:
		if len(list) != 1 || list[0].Holding != (api.Holding{Release: "2", Item: "build", Epoch: epoch}) || list[0].Step.Name != "build" {
			t.Errorf("a was given %+v", list)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nobody woke the machine that has a lease")
	}
	select {
	case <-waits:
		t.Error("the lease of a woke b")
	case <-b:
		t.Error("b was given a lease of a")
	default:
	}
}

// TestPlaceLooksAtWhatMoved: what waits for a machine is placed when one comes,
// what waits for its time passes then, and a lost machine's lease ends, although
// the releases themselves do not move.
func TestPlaceLooksAtWhatMoved(t *testing.T) {
	c := station(t)
	started(t, c, "1")
	p := newPending()
	turn := func() {
		t.Helper()
		c.read(p)
		if err := c.expire(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := c.assign(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	if len(c.fresh) != 0 || c.waiting["1 build"] == "" {
		t.Errorf("without a machine: %v still to look at, waiting: %v", c.fresh, c.waiting)
	}
	joins(t, c, "a")
	hears(c, "a", time.Now())
	turn()
	if held := c.leases.held("a"); len(held) != 1 {
		t.Fatalf("a machine that came has %v", held)
	}
	turn()
	if len(p.steps) != 0 || len(c.waiting) != 0 {
		t.Errorf("a step that runs waits: %v %v", p.steps, c.waiting)
	}
	hears(c, "a", time.Now().Add(-fleet.LostAfter))
	turn()
	if held := c.leases.held("a"); len(held) != 0 {
		t.Errorf("a lost machine has %v", held)
	}
	turn()
	if len(p.steps["1"]) != 1 {
		t.Errorf("the step of a lost machine does not wait for another: %v", p.steps)
	}
}

// TestWhoIsAnsweredIsHeard: an answer that renews a lease moves the machine's fence,
// so the lease is not given away before that fence has fallen, also where the answer
// was the first of a control that has just begun; and the machine gets nothing new
// before it has told what its disk says.
func TestWhoIsAnsweredIsHeard(t *testing.T) {
	c := station(t, "a")
	started(t, c, "1")
	h := api.Holding{Release: "1", Item: "build", Epoch: granted(t, c, "1", "a")}
	hears(c, "a", time.Time{})
	c.begun = time.Now().Add(-fleet.LostAfter + time.Second)
	sent := time.Now()
	if got := report(t, c, "a", api.Beat{Control: "another", Holding: []api.Holding{h}}); !slices.Equal(got.Renewed, []api.Holding{h}) {
		t.Fatalf("renewed: %v", got.Renewed)
	}
	if list := c.lost(sent.Add(fleet.FenceAfter)); len(list) != 0 {
		t.Errorf("given away while the machine may run it: %v", list)
	}
	if list := c.lost(time.Now().Add(fleet.LostAfter)); len(list) != 1 {
		t.Errorf("of a machine that fell silent: %v", list)
	}
	if m := c.machines()[0]; m.At(c.mono(time.Now())) != fleet.Lost {
		t.Errorf("it may be given something new: it is %s", m.At(c.mono(time.Now())))
	}
	report(t, c, "a", api.Beat{Control: c.id, Holding: []api.Holding{h}})
	if m := c.machines()[0]; m.At(c.mono(time.Now())) != fleet.Up {
		t.Errorf("after it has told it is %s", m.At(c.mono(time.Now())))
	}
}

// TestPlaceEndsWaits: a wait ends when its time has come, although its release
// does not move, and not before.
func TestPlaceEndsWaits(t *testing.T) {
	c := station(t)
	st := written(t, c, "1", "## Wait\n\n```yaml {\"name\":\"hold\",\"kind\":\"wait\",\"until\":\"ship\"}\n```\n")
	st.Ship = time.Now().Add(time.Second)
	asks(t, c.start, api.StartOf(st))
	p := newPending()
	passed := func() (is bool) {
		t.Helper()
		c.read(p)
		if err := c.expire(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		c.look("1", func(st *release.State) { is = st.Progress["hold"].Passed })
		return is
	}
	if passed() {
		t.Error("it ended too soon")
	}
	time.Sleep(1100 * time.Millisecond)
	if !passed() {
		t.Error("it did not end")
	}
	passed()
	if len(p.waits) != 0 {
		t.Errorf("a wait that is over is waited for: %v", p.waits)
	}
}

// TestNothingComesOfIt: a build of gold whose server is amended ends at once, and not
// with its result, which would be refused; its machine is not counted as lost.
func TestNothingComesOfIt(t *testing.T) {
	c := station(t, "a")
	asks(t, c.start, api.StartOf(written(t, c, "1", `---
people: {ann: {}, bob: {}}
approvers: [ann, bob]
roles:
  host: {plain: true}
---
## Build

`+"```sh {\"name\":\"build\",\"gold\":\"true\",\"out\":\"app\"}\ntrue\n```\n")))
	granted(t, c, "1", "a")
	look := func() *release.Lease {
		t.Helper()
		p := newPending()
		c.read(p)
		if err := c.giveUp(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return c.state("1").Progress["build"].Lease
	}
	if look() == nil {
		t.Fatal("it was given up before anything changed")
	}
	says := func(b release.Body) {
		t.Helper()
		if _, err := c.update(t.Context(), "1", "test", func(*release.State) (release.Body, error) { return b, nil }); err != nil {
			t.Fatal(err)
		}
	}
	says(release.Amended{What: []string{"machines"}, Machines: []release.Machine{{Role: "host", Blueprint: "sha256:other"}}, Reason: "r", By: "ann"})
	says(release.Agreed{Amendment: c.state("1").Amendment.Seq, Person: "bob", Decision: release.Approve})
	if l := look(); l != nil {
		t.Errorf("machine %s still builds", l.Machine)
	}
	if p := c.state("1").Progress["build"]; p.Moves != 1 || c.members["a"].losses != 0 {
		t.Errorf("it moved %d times, and its machine was lost %d times", p.Moves, c.members["a"].losses)
	}
}

// TestNobodyBeginsBeforeItHasStopped: a step whose lease ended by somebody's word is given
// to nobody while its machine may still run it.
func TestNobodyBeginsBeforeItHasStopped(t *testing.T) {
	for _, c := range []struct {
		name string
		ends func(t *testing.T, c *Control)
		then func(c *Control, h api.Holding) // and it has stopped
	}{
		{"retired, and its fence has fallen", retires, func(c *Control, _ api.Holding) {
			c.members["a"].heard = time.Now().Add(-fleet.LostAfter)
		}},
		{"given up, and it says so", loses, func(c *Control, _ api.Holding) { c.members["a"].holding = nil }},
		{"given up before it had begun", func(t *testing.T, c *Control) {
			c.members["a"].holding = nil
			loses(t, c)
		}, nil},
		{"control began anew, and it says so", func(t *testing.T, c *Control) {
			loses(t, c)
			c.members["a"].heard = time.Time{}
		}, func(c *Control, _ api.Holding) {
			hears(c, "a", time.Now())
			c.members["a"].holding = nil
		}},
		{"control began anew, and nothing is heard of it", func(t *testing.T, c *Control) {
			loses(t, c)
			c.members["a"].heard = time.Time{}
		}, func(c *Control, _ api.Holding) { c.begun = time.Now().Add(-fleet.LostAfter) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := station(t, "a", "b")
			started(t, k, "1")
			h := api.Holding{Release: "1", Item: "build", Epoch: granted(t, k, "1", "a")}
			k.members["a"].holding = []api.Holding{h}
			c.ends(t, k)
			place := func() *release.Lease {
				t.Helper()
				hears(k, "b", time.Now())
				p := newPending()
				k.fresh["1"] = true
				k.read(p)
				err := k.expire(t.Context(), p)
				k.read(p)
				if err = errors.Join(err, k.assign(t.Context(), p)); err != nil {
					t.Fatal(err)
				}
				return k.state("1").Progress["build"].Lease
			}
			if c.then != nil {
				if l := place(); l != nil {
					t.Fatalf("it was given to %s, while a may run it", l.Machine)
				}
				if why := k.waiting["1 build"]; !strings.HasPrefix(why, "a is stopping") {
					t.Errorf("it waits for: %q", why)
				}
				c.then(k, h)
			}
			if place() == nil {
				t.Errorf("it is given to nobody: %q", k.waiting["1 build"])
			}
		})
	}
}

func retires(t *testing.T, c *Control) {
	t.Helper()
	if err := c.enlist(t.Context(), membership{Actor: "test", Name: "a", Set: fleet.Retired, Reason: "r"}); err != nil {
		t.Fatal(err)
	}
}

// loses ends the lease of machine a.
func loses(t *testing.T, c *Control) {
	t.Helper()
	if _, err := c.update(t.Context(), "1", "test", func(s *release.State) (release.Body, error) {
		return release.Lost{Item: "build", Epoch: s.Progress["build"].Lease.Epoch, Machine: "a", Why: "test"}, nil
	}); err != nil {
		t.Fatal(err)
	}
}
