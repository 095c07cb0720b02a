package control

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

// TestReadmit: a machine that was retired is asked once to look at itself, and
// what it answers decides; an answer that is not to the last question does not.
func TestReadmit(t *testing.T) {
	c, ask := working(t, noon())
	if err := c.enlist(t.Context(), membership{Actor: "machine a", Joined: &enrolled{Name: "a", Rank: fleet.Primary, Slots: 1}}); err != nil {
		t.Fatal(err)
	}
	set := func(what string, b api.SetMachine, refused string) {
		t.Helper()
		p := ask(http.MethodPost, "/v1/fleet/a/"+what, b, nil)
		if (p != nil) != (refused != "") || (p != nil && (p.Code != "rule" || !strings.Contains(p.Message, refused))) {
			t.Errorf("%s %+v: %v", what, b, p)
		}
	}
	is := func(want fleet.Condition, why string) {
		t.Helper()
		var list []api.MachineStatus
		if p := ask(http.MethodGet, "/v1/fleet", nil, &list); p != nil || len(list) != 1 {
			t.Fatalf("%+v %v", list, p)
		}
		c.mu.Lock()
		m := *c.members["a"]
		c.mu.Unlock()
		if m.set != want || list[0].Why != why {
			t.Errorf("it is %q: %s; not %q: %s", m.set, list[0].Why, want, why)
		}
	}
	answer := func(event int64, f fleet.Findings, refused bool) {
		t.Helper()
		data, err := json.Marshal(api.Checked{Event: event, Found: f})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.checked(t.Context(), &caller{machine: "a"}, httptest.NewRequest(http.MethodPost, "/v1/checked", bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		if said, _ := json.Marshal(got); strings.Contains(string(said), "refused") != refused {
			t.Errorf("an answer to %d: %s", event, said)
		}
	}
	asked := func(at string) int64 {
		t.Helper()
		if q := c.check("a", at); q != nil {
			return q.Event
		}
		return 0
	}
	set("readmit", api.SetMachine{}, "neither drained nor retired")
	if asked("") != 0 {
		t.Error("a machine that is up is asked what it is like")
	}
	set("retire", api.SetMachine{Reason: "its disk"}, "")
	is(fleet.Retired, "its disk")
	set("drain", api.SetMachine{}, "readmit alone")
	is(fleet.Retired, "its disk")
	set("readmit", api.SetMachine{Reason: "new disk"}, "")
	is(fleet.Proving, "new disk")
	first := asked("")
	if first != 3 || asked("3") != 0 {
		t.Errorf("it is asked %d, and while it looks %d", first, asked("3"))
	}
	if m := c.machines()[0]; m.Set != fleet.Proving {
		t.Errorf("the rules see %+v", m)
	}
	bad := fleet.Findings{Why: "its depot: input/output error"}
	answer(first-1, fleet.Findings{}, true)
	answer(first, bad, false)
	is(fleet.Retired, bad.Why)
	answer(first, fleet.Findings{}, true) // once
	is(fleet.Retired, bad.Why)
	set("readmit", api.SetMachine{}, "")
	second := asked("3")
	set("retire", api.SetMachine{Reason: "not yet"}, "")
	answer(second, fleet.Findings{}, true)
	is(fleet.Retired, "not yet")
	set("readmit", api.SetMachine{}, "")
	answer(asked(""), fleet.Findings{Originals: 7}, false)
	is("", "not proven: no release names a blueprint of a role that it serves; 7 originals read again")

	set("drain", api.SetMachine{}, "")
	set("readmit", api.SetMachine{WithoutProof: true}, "give a reason")
	set("readmit", api.SetMachine{WithoutProof: true, Reason: "it was never broken"}, "")
	is("", "it was never broken")
	if p := ask(http.MethodPost, "/v1/fleet/b/readmit", api.SetMachine{}, nil); p == nil || p.Status != http.StatusNotFound {
		t.Errorf("a machine that is not there: %v", p)
	}
	if p := ask(http.MethodPost, "/v1/fleet/a/praise", api.SetMachine{}, nil); p == nil || p.Status != http.StatusNotFound {
		t.Errorf("a way that is not there: %v", p)
	}

	lines, err := c.o.Ledger.Read(t.Context(), fleetStream, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := lines[len(lines)-1]
	for line, want := range map[string]string{
		string(lines[3]): `"set":"retired","reason":"its depot: input/output error","proof":"disproved","found":{"originals":0,"why":"its depot: input/output error"}`,
		string(last):     `"actor":"root on control","name":"a","set":"up","reason":"it was never broken","proof":"without proof"`,
	} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
}

// TestServers: a machine makes the servers of its roles that releases name which
// run, or the last one.
func TestServers(t *testing.T) {
	at := noon().now
	bp := func(role, digest string) release.Machine {
		return release.Machine{Role: role, Blueprint: digest, Sum: "s" + digest}
	}
	st := func(age int, phase release.Phase, machines ...release.Machine) *release.State {
		return &release.State{Begun: at.Add(-time.Duration(age) * time.Hour), Phase: phase, Machines: machines}
	}
	old, older := st(5, release.Done, bp("build", "old")), st(6, release.Ended, bp("build", "older"))
	runs := st(3, release.Running, bp("build", "x"), bp("docs", "d"), release.Machine{Role: "host"})
	held := st(2, release.Holding, bp("build", "y"), bp("check", "d"))
	for _, c := range []struct {
		states []*release.State
		serves []string
		want   []string
	}{
		{nil, nil, nil},
		{[]*release.State{older, old}, nil, []string{"old"}},
		{[]*release.State{old, runs, older}, nil, []string{"x", "d"}},
		{[]*release.State{runs, held, old}, nil, []string{"y", "d", "x"}}, // one server for two roles
		{[]*release.State{runs, held, old}, []string{"docs"}, []string{"d"}},
		{[]*release.State{runs, held, old}, []string{"host"}, nil},
		{[]*release.State{st(1, release.Done, release.Machine{Role: "host"}), older, old}, nil, []string{"old"}},
	} {
		var got []string
		for _, m := range servers(c.states, c.serves) {
			got = append(got, m.Blueprint)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, not %q", c.serves, got, c.want)
		}
	}
}
