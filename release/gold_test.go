package release

import (
	"slices"
	"strings"
	"testing"

	"trysail/runbook"
)

// TestGoldOfAnotherServer: a build that began before the server was amended is no gold:
// what says of which server it is would be wrong.
func TestGoldOfAnotherServer(t *testing.T) {
	g := begin(t)
	g.s.Item("test").Again = "" // or gold, which needs it, would be void with it
	g.run("compile", "a", "obj/a", "obj")
	g.run("test", "a", "", "")
	epoch := g.must(Granted{Item: "gold", Machine: "a"})
	if why := g.s.Void("gold"); why != "" {
		t.Errorf("before it is amended: %s", why)
	}
	open := g.must(Amended{What: []string{"machines"}, Machines: []Machine{{Role: "build", Blueprint: "sha256:bp2"}}, Reason: "new compiler", By: "eve"})
	g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
	r := Report{Machine: "a"}
	r.Item, r.Epoch, r.Outputs = "gold", epoch, out("dist/app", "old")
	if b, ok := g.s.Result(r).(Lost); !ok || !strings.Contains(b.Why, "server was amended") {
		t.Fatalf("it amounts to %#v", g.s.Result(r))
	}
	if g.s.Void("gold") == "" || g.s.Void("compile") != "" || g.s.Void("other") != "" {
		t.Errorf("void: gold %q, compile %q, other %q", g.s.Void("gold"), g.s.Void("compile"), g.s.Void("other"))
	}
	g.must(g.s.Result(r))
	g.run("gold", "b", "dist/app", "new")
	g.status(map[string]Status{"gold": Confirming})
}

// TestGoldWithFailedTests: nobody can waive them, so it is none. The linter refuses such
// a step; whoever sends a result has not read it.
func TestGoldWithFailedTests(t *testing.T) {
	g := begin(t)
	g.run("compile", "a", "obj/a", "obj")
	g.run("test", "a", "", "")
	r := Report{Machine: "a"}
	r.Item, r.Outputs, r.Failing = "gold", out("dist/app", "gold"), []string{"t1", "t2"}
	r.Epoch = g.must(Granted{Item: "gold", Machine: "a"})
	if b, ok := g.s.Result(r).(Finished); !ok || b.Exit == 0 || !strings.Contains(b.Why, "t1, t2") || b.Failing != nil {
		t.Fatalf("it amounts to %#v", g.s.Result(r))
	}
	g.must(g.s.Result(r))
	g.status(map[string]Status{"gold": Stopped})
	g.must(Retried{Item: "gold", Reason: "mended"})
	g.run("gold", "a", "dist/app", "gold")
	// And the second build is not compared.
	r.Machine, r.Compared = "b", Identical
	r.Epoch = g.must(Granted{Item: "gold", Machine: "b", Confirm: true})
	g.must(g.s.Result(r))
	if g.s.Gold.Confirmed != nil {
		t.Error("a second build whose tests fail confirms gold")
	}
	g.status(map[string]Status{"gold": Stopped})
}

// TestInputs: each artifact comes from the one item that makes what is asked for, and
// what is published from gold.
func TestInputs(t *testing.T) {
	g := begin(t)
	g.run("compile", "a", "dist/app", "not gold") // it has another out; who knows what it made
	g.run("test", "a", "", "")
	g.run("gold", "a", "dist/app", "gold")
	for _, x := range []struct {
		kind runbook.Kind
		in   string
		outs []string // of compile
		want []string
	}{
		{runbook.Publish, "dist/app", nil, []string{"sha256:gold"}},
		{runbook.Publish, "dist/*", nil, []string{"sha256:gold"}},
		{runbook.Publish, "dist/*", []string{"dist/app"}, []string{"sha256:gold"}},
		{runbook.Publish, "dist/app", []string{"dist/app"}, []string{"sha256:gold"}},
		{runbook.Step, "dist/*", []string{"dist/app"}, []string{"sha256:gold"}}, // it makes dist/app, and not dist/*
		{runbook.Step, "obj/**", nil, nil},
	} {
		if x.outs != nil {
			g.s.Item("compile").Out = x.outs
		}
		var got []string
		for _, a := range g.s.Inputs(&runbook.Item{Kind: x.kind, In: []string{x.in}, Needs: []string{"compile", "gold"}}) {
			got = append(got, a.Digest)
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s takes %s in: %v, not %v", x.kind, x.in, got, x.want)
		}
	}
}

// TestPublishLost: what publishes and cannot be repeated stops when its machine is lost,
// until a person has looked; any other runs again.
func TestPublishLost(t *testing.T) {
	for lost, want := range map[string]Status{"": Ready, "ask": Stopped} {
		g := begin(t)
		g.s.Item("upload").Lost = lost
		g.run("compile", "a", "obj/a", "obj")
		g.run("test", "a", "", "")
		g.run("gold", "a", "dist/app", "gold")
		g.must(Confirmed{Epoch: g.must(Granted{Item: "gold", Machine: "b", Confirm: true}), Verdict: Identical})
		for _, who := range []string{"ann", "bob"} {
			g.sign("tried", who)
		}
		g.sign("legal", "eve")
		g.must(Passed{Item: "hold"})
		epoch := g.must(Granted{Item: "upload", Machine: "a"})
		g.must(Lost{Item: "upload", Epoch: epoch, Machine: "a", Why: "silence"})
		g.status(map[string]Status{"upload": want})
		if lost == "" {
			continue
		}
		if asks := g.s.Asks(); len(asks) != 1 || asks[0].Item != "upload" || asks[0].Type != "retry" || !strings.Contains(asks[0].What, "silence: look") {
			t.Errorf("asks %+v", asks)
		}
		g.refused(Granted{Item: "upload", Machine: "b"}, "stopped")
		g.must(Retried{Item: "upload", Reason: "it is not there"})
		g.status(map[string]Status{"upload": Ready})
	}
}

// TestStopping: a lease that no result ended is told to whoever gives the step away: its
// machine may still be at it.
func TestStopping(t *testing.T) {
	after := func(g *game) *Lease {
		t.Helper()
		for _, w := range g.s.Next() {
			if w.Item == "compile" {
				return w.After
			}
		}
		t.Fatal("compile does not want a machine")
		return nil
	}
	for _, c := range []struct {
		name string
		ends func(g *game, epoch int64)
	}{
		{"lost", func(g *game, epoch int64) {
			g.must(Lost{Item: "compile", Epoch: epoch, Machine: "a", Why: "retired"})
		}},
		{"another source", func(g *game, _ int64) {
			open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: "def", Original: "sha256:src2"}, Reason: "r", By: "eve"})
			g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
		}},
		{"another source twice", func(g *game, _ int64) {
			for _, r := range []string{"def", "ghi"} {
				open := g.must(Amended{What: []string{"source"}, Source: &Source{VCS: "git", Revision: r, Original: "sha256:src2"}, Reason: "r", By: "eve"})
				g.must(Agreed{Amendment: open, Person: "bob", Decision: Approve})
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := begin(t)
			if after(g) != nil {
				t.Error("nobody began it")
			}
			epoch := g.must(Granted{Item: "compile", Machine: "a"})
			c.ends(g, epoch)
			if l := after(g); l == nil || l.Machine != "a" || l.Epoch != epoch {
				t.Errorf("it may begin after %+v", l)
			}
		})
	}
}
