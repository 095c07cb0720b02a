package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"trysail/evidence"
	"trysail/internal/ledger"
)

// noticesStream holds who was told what, so that a control that takes over
// neither forgets nor repeats.
const noticesStream = "notices"

// noted is one event of that stream: a target begins or ends, a notice was handed
// over or given up, or a release's slack crossed its limit.
type noted struct {
	Seq    int64     `json:"seq"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"`
	Target string    `json:"target,omitempty"`
	Begins *begins   `json:"begins,omitempty"`
	Ends   bool      `json:"ends,omitempty"` // when it comes back it begins anew
	ID     string    `json:"id,omitempty"`   // of the notice that Target got
	// Undelivered says why Target did not get it, and never will.
	Undelivered string    `json:"undelivered,omitempty"`
	Slack       *slacks   `json:"slack,omitempty"`
	Machine     *unserved `json:"machine,omitempty"`
}

// begins is where a target comes in: what happened before is history to it.
type begins struct {
	Heads map[string]int64 `json:"heads"` // of the releases that there were
}

// slacks is a crossing of the limit. It is no event of the release: nothing
// happened there, only time passed.
type slacks struct {
	Release string `json:"release"`
	Event   int64  `json:"event"` // the head of the release then
	Low     bool   `json:"low"`
	What    string `json:"what,omitempty"`
}

// unserved says that no machine can run a step of a release, or that one can again. As with
// slack, nothing happened to the release itself.
type unserved struct {
	Release string `json:"release"`
	Event   int64  `json:"event"` // the head of the release then
	Item    string `json:"item"`
	Wanted  bool   `json:"wanted"`
	What    string `json:"what,omitempty"`
}

// notices is that stream, folded. The zero value is an empty one.
type notices struct {
	write sync.Mutex // held by whoever appends; never by who reads
	mu    sync.Mutex
	head  int64
	tree  evidence.Tree    // over its lines
	told  map[string]*told // by target
	slack []noted          // crossings, in order
	low   map[string]bool  // releases whose slack is under the limit
	none  []noted          // steps that no machine can run, in order
	want  map[string]bool  // those that wait for one now, by release and item
	lost  map[string]int   // notices given up, by target
	open  map[string]int   // notices on their way, by target; not from the stream
}

// told is what one target knows.
type told struct {
	since int64 // number of the event with which it began
	heads map[string]int64
	ids   map[string]bool
}

func (n *notices) size() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.head
}

// take folds an event that is in the ledger.
func (n *notices) take(e noted, line []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.told == nil {
		n.told, n.low, n.want, n.lost, n.open = map[string]*told{}, map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]int{}
	}
	if e.Seq != n.head+1 {
		return fmt.Errorf("%s: event %d follows event %d", noticesStream, e.Seq, n.head)
	}
	if err := n.tree.Add(line); err != nil {
		return err
	}
	n.head = e.Seq
	t := n.told[e.Target]
	switch {
	case e.Slack != nil:
		n.slack, n.low[e.Slack.Release] = append(n.slack, e), e.Slack.Low
	case e.Machine != nil:
		n.none, n.want[e.Machine.Release+" "+e.Machine.Item] = append(n.none, e), e.Machine.Wanted
	case e.Begins != nil:
		n.told[e.Target] = &told{e.Seq, e.Begins.Heads, map[string]bool{}}
	case e.Ends:
		delete(n.told, e.Target)
	case t != nil && e.ID != "" && !t.ids[e.ID]:
		t.ids[e.ID] = true
		if e.Undelivered != "" {
			n.lost[e.Target]++
		}
	}
	return nil
}

// refreshNotices folds the stream to its head.
func (c *Control) refreshNotices(ctx context.Context) error {
	c.notices.write.Lock()
	defer c.notices.write.Unlock()
	return c.catchUpNotices(ctx)
}

func (c *Control) catchUpNotices(ctx context.Context) error {
	lines, err := c.o.Ledger.Read(ctx, noticesStream, c.notices.size())
	if err != nil {
		return err
	}
	for _, line := range lines {
		var e noted
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("%s: %w", noticesStream, err)
		}
		if err := c.notices.take(e, line); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads.put(noticesStream, c.notices.size())
	return nil
}

// note appends a fact. One that is there twice is there once: take says so.
func (c *Control) note(ctx context.Context, e noted) error {
	n := &c.notices
	n.write.Lock()
	defer n.write.Unlock()
	for {
		head := n.size()
		e.Seq, e.Time, e.Actor = head+1, c.o.Now().UTC().Truncate(time.Millisecond), c.o.Actor
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		err = c.o.Ledger.Append(ctx, noticesStream, head, line)
		if err == nil {
			err := n.take(e, line)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.heads.put(noticesStream, e.Seq)
			return err
		}
		var conflict *ledger.ConflictError
		if !errors.As(err, &conflict) || ctx.Err() != nil {
			return err
		}
		if err := c.catchUpNotices(ctx); err != nil {
			return err
		}
	}
}
