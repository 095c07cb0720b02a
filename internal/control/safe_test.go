package control

import (
	"context"
	"testing"
	"time"

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
			c.choose()
			answered := make(chan struct{})
			go func() {
				c.safe(t.Context())
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
