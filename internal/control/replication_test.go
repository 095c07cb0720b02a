package control

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"trysail/fleet"
	"trysail/internal/ledger"
)

// crowd is a cluster as a test has it. It lets nobody in.
type crowd struct{ members []ledger.Member }

func (x *crowd) Controls() []ledger.Member { return x.members }

func (x *crowd) Leader() string {
	for _, m := range x.members {
		if m.Leads {
			return m.Name
		}
	}
	return ""
}

func (x *crowd) AddControl(context.Context, string, string) (string, error) {
	return "", &ledger.AloneError{}
}

func (x *crowd) Dismiss(context.Context, string) error { return &ledger.AloneError{} }

// TestSafe: what is on the disk of one control alone is on a machine's too before anybody
// is answered. A control that does not vote yet makes no majority.
func TestSafe(t *testing.T) {
	one, two := ledger.Member{Name: "one:1", Votes: true, Leads: true}, ledger.Member{Name: "two:1", Votes: true}
	learns, unborn := ledger.Member{Name: "two:1"}, ledger.Member{Peer: "two:2"}
	for _, x := range []struct {
		what    string
		cluster Cluster
		waits   bool
	}{
		{"without a cluster", nil, true},
		{"one of one", &crowd{[]ledger.Member{one}}, true},
		{"one that has yet to begin", &crowd{[]ledger.Member{one, unborn}}, true},
		{"one that learns", &crowd{[]ledger.Member{one, learns}}, true},
		{"two that vote", &crowd{[]ledger.Member{one, two}}, false},
		{"two that vote and one that learns", &crowd{[]ledger.Member{one, two, {Name: "three:1"}}}, false},
	} {
		t.Run(x.what, func(t *testing.T) {
			c := station(t, "a")
			c.o.Name, c.o.Cluster = one.Name, x.cluster
			c.chooseReplicas()
			answered := make(chan struct{})
			go func() {
				c.awaitReplica(t.Context())
				close(answered)
			}()
			select {
			case <-answered:
				if x.waits {
					t.Fatal("it answers with what no other disk has")
				}
				return
			case <-time.After(300 * time.Millisecond):
				if !x.waits {
					t.Fatal("it waits for a machine, and a majority has it")
				}
			}
			c.mu.Lock()
			c.copies(c.members["a"], c.mark())
			c.mu.Unlock()
			<-answered
			if len(c.troubles()) > 0 {
				t.Errorf("a machine has copied it, and people are told %q", c.troubles())
			}
		})
	}
}

// TestWitnesses: every machine that copies may be the second disk; those that are up
// come first. Where machines belong to the fleet and none copies, people are told.
func TestWitnesses(t *testing.T) {
	const now, long, never = time.Duration(0), time.Hour, time.Duration(-1)
	type is struct {
		name string
		set  fleet.Condition
		ago  time.Duration // it was heard of
	}
	for _, x := range []struct {
		what     string
		machines []is
		want     []string
		told     bool // that nobody copies
	}{
		{"no machine", nil, nil, false},
		{"one that is up", []is{{"a", "", now}}, []string{"a"}, true},
		{"those that are up first", []is{{"a", fleet.Draining, now}, {"b", "", now}, {"c", fleet.Proving, now}, {"d", "", now}}, []string{"b", "d", "a"}, true},
		{"all drain", []is{{"a", fleet.Draining, now}, {"b", fleet.Draining, now}}, []string{"a", "b"}, true},
		{"all prove themselves", []is{{"a", fleet.Proving, now}}, []string{"a"}, true},
		{"one that drained is lost", []is{{"a", fleet.Draining, long}}, nil, true},
		{"all are lost", []is{{"a", "", long}, {"b", "", never}}, nil, true},
		{"all are retired", []is{{"a", fleet.Retired, now}}, nil, false},
	} {
		t.Run(x.what, func(t *testing.T) {
			t.Parallel() // it has patience
			c := New(Options{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
			c.begun = time.Now().Add(-2 * long)
			for _, m := range x.machines {
				c.members[m.name] = &member{enrolled: enrolled{Name: m.name}, set: m.set}
				if m.ago != never {
					hears(c, m.name, time.Now().Add(-m.ago))
				}
			}
			c.chooseReplicas()
			if !slices.Equal(c.witnesses, x.want) {
				t.Errorf("the witnesses are %q, want %q", c.witnesses, x.want)
			}
			c.heads.put(fleetStream, 1)
			c.awaitReplica(t.Context()) // nobody copies
			if told := len(c.troubles()) > 0; told != x.told {
				t.Errorf("people are told %q", c.troubles())
			}
			if len(x.want) == 0 {
				for _, m := range c.members {
					m.set = fleet.Retired
				}
				if len(c.troubles()) > 0 {
					t.Errorf("of a fleet without machines people are told %q", c.troubles())
				}
				return
			}
			c.copies(c.members[x.want[0]], c.mark())
			if len(c.troubles()) > 0 {
				t.Errorf("after %s has copied people are told %q", x.want[0], c.troubles())
			}
		})
	}
}
