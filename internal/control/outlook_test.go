package control

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/notify"
	"trysail/release"
)

// steps is a runbook with so many plain steps of a role, and gold.
func steps(role string, names ...string) string {
	var b strings.Builder
	b.WriteString("---\nroles:\n  host: {plain: true}\n  " + role + ": {plain: true}\npeople:\n  ann: {}\n  bob: {}\napprovers: [ann, bob]\n---\n## Build\n\n")
	for _, n := range names {
		b.WriteString("```sh {\"name\":\"" + n + "\",\"role\":\"" + role + "\",\"timeout\":\"9h\",\"budget\":\"8h\"}\ntrue\n```\n\n")
	}
	b.WriteString("## Gold\n\n```sh {\"name\":\"gold\",\"role\":\"host\",\"needs\":\"build\",\"timeout\":\"2h\",\"budget\":\"1h\",\"out\":\"dist/*\",\"gold\":\"true\"}\ntrue\n```\n")
	return b.String()
}

// TestUrgentFirst: of two releases that want the only machine the one that ships in an hour
// gets it, and the other says why it waits, also while the first one's step runs.
func TestUrgentFirst(t *testing.T) {
	c := station(t)
	for v, ship := range map[string]time.Time{"1.0": time.Now().AddDate(0, 1, 0), "2.0-hotfix": time.Now().Add(time.Hour + time.Minute)} {
		s := written(t, c, v, steps("build", "compile"))
		s.Ship = ship
		asks(t, c.start, api.StartOf(s))
	}
	joins(t, c, "a")
	p := newPending()
	for i := range 2 {
		hears(c, "a", time.Now())
		c.read(p)
		if err := c.assign(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if held := c.leases.held("a"); len(held) != 1 || held[0].Release != "2.0-hotfix" {
			t.Fatalf("look %d: a has %v", i, held)
		}
		if why := c.waiting["1.0 compile"]; !strings.HasPrefix(why, "release 2.0-hotfix ships in 6") || !strings.HasSuffix(why, " and goes first: a is busy") {
			t.Errorf("look %d: 1.0 waits: %q", i, why)
		}
	}
}

// TestOutlookOfAFleet: a status knows what machines there are.
func TestOutlookOfAFleet(t *testing.T) {
	at := &wall{time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}
	c, ask := working(t, at)
	s := written(t, c, "1", steps("office", "x", "y"))
	s.Ship = at.now.Add(24 * time.Hour)
	if p := ask(http.MethodPost, "/v1/releases", api.StartOf(s), nil); p != nil {
		t.Fatal(p)
	}
	serves := func(name string, roles ...string) {
		joins(t, c, name)
		c.members[name].Serves = roles
		hears(c, name, time.Now())
	}
	check := func(what string, slack time.Duration, blocked ...release.BlockCode) {
		t.Helper()
		var st api.Status
		if p := ask(http.MethodGet, "/v1/releases/1", nil, &st); p != nil {
			t.Fatal(p)
		}
		var codes []release.BlockCode
		for _, b := range st.Blocked {
			codes = append(codes, b.Code)
		}
		if got := time.Duration(st.Slack * float64(time.Second)); got != slack || !slices.Equal(codes, blocked) {
			t.Errorf("%s: slack %s, and not %s; blocked by %v", what, got, slack, st.Blocked)
		}
	}
	check("no machine", 6*time.Hour, release.BlockNoMachine, release.BlockNoMachine, release.BlockSecondMachine)
	serves("m", "office")
	check("one of office: eight hours twice", 6*time.Hour, release.BlockNoMachine, release.BlockSecondMachine)
	serves("n", "office")
	serves("h1", "host")
	check("two of office, one for gold", 14*time.Hour, release.BlockSecondMachine)
	serves("h2", "host")
	check("all there is", 14*time.Hour)
	c.members["n"].set = "draining"
	check("one drains", 6*time.Hour)
	c.members["m"].heard, c.members["m"].told = time.Time{}, time.Time{}
	check("the other sends no heartbeat", 6*time.Hour, release.BlockNoMachine)
	serves("m", "office")
	started(t, c, "2")
	granted(t, c, "2", "h1") // of no budget: it may end at any time
	check("another release has a machine", 6*time.Hour)
}

// TestRebuildIsMeasured: how long a machine took to make a server is known from its reports,
// and a status says that it makes one.
func TestRebuildIsMeasured(t *testing.T) {
	at := &wall{time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}
	c, _ := working(t, at)
	joins(t, c, "m")
	m := c.members["m"]
	l := release.Lease{Epoch: 2, Machine: "m", Since: at.now, Blueprint: "sha256:b"}
	st := release.Empty()
	st.Progress["gold"] = &release.Progress{Lease: &l}
	c.leases.put("1", map[string]release.Lease{"gold": l})
	for _, x := range []struct {
		what   string
		after  time.Duration
		warm   []string
		making bool
		took   time.Duration
	}{
		{"at once", 0, nil, true, 0},
		{"another server", time.Minute, []string{"sha256:x"}, true, 0},
		{"it is ready", 40 * time.Second, []string{"sha256:x", "sha256:b"}, false, 100 * time.Second},
		{"later", time.Hour, []string{"sha256:b"}, false, 100 * time.Second},
	} {
		at.now = at.now.Add(x.after)
		c.mu.Lock()
		c.measure(m, x.warm)
		m.warm = x.warm
		took := c.rebuilds["sha256:b"]
		c.mu.Unlock()
		if making := c.making(st, "gold"); making != x.making || took != x.took {
			t.Errorf("%s: makes it: %v, took %s", x.what, making, took)
		}
	}
}

// TestMachineWanted: that no machine can run a step is told once, after a while, and again
// only after one could.
func TestMachineWanted(t *testing.T) {
	c := station(t)
	c.o.Notify = &notify.Config{}
	if err := c.note(t.Context(), noted{Target: "x", Begins: &begins{Heads: map[string]int64{}}}); err != nil {
		t.Fatal(err)
	}
	started := written(t, c, "1", steps("office", "compile"))
	started.Ship = time.Now().Add(100 * time.Hour)
	asks(t, c.start, api.StartOf(started))
	st := c.state("1")
	h := &herald{c: c, releases: map[string]*followed{}, since: map[string]time.Time{}}
	none := release.Outlook{Blocked: []release.Block{{Code: release.BlockNoMachine, Item: "compile", Role: "office", Plain: true, Why: "no machine for role office"}}}
	later := release.Outlook{Blocked: []release.Block{{Code: release.BlockNoMachine, Item: "compile", Role: "office", Why: "no machine for role office", Later: true}}}
	now := time.Now()
	for _, x := range []struct {
		what  string
		after time.Duration
		out   release.Outlook
		said  int
	}{
		{"its turn has not come", 0, later, 0},
		{"just now", time.Second, none, 0},
		{"for less than a minute", 58 * time.Second, none, 0},
		{"for a minute", 3 * time.Second, none, 1},
		{"still", time.Hour, none, 1},
		{"a machine came", time.Second, release.Outlook{}, 1},
		{"and went, just now", time.Second, none, 1},
		{"for a minute again", 2 * time.Minute, none, 2},
	} {
		now = now.Add(x.after)
		if err := h.machines(t.Context(), "1", st, x.out, now); err != nil {
			t.Fatal(err)
		}
		said := 0
		for _, e := range c.notices.none {
			if e.Machine.Wanted {
				said++
				if want := "compile waits: no machine for role office. On control: trysail fleet token > link; on a machine, with that file as LINK: sudo trysail agent --join LINK --role office --plain"; e.Machine.What != want {
					t.Errorf("%s: %s", x.what, e.Machine.What)
				}
			}
		}
		if said != x.said {
			t.Errorf("%s: told %d time(s)", x.what, said)
		}
	}
}
