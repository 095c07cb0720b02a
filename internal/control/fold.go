package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"trysail/evidence"
	"trysail/fleet"
	"trysail/internal/ledger"
	"trysail/release"
)

// enrolled is a fact of the fleet's stream.
type enrolled struct {
	Name   string     `json:"name"`
	Rank   fleet.Rank `json:"rank"`
	Serves []string   `json:"serves,omitempty"`
	Plain  bool       `json:"plain,omitempty"`
	Slots  int        `json:"slots"`
	// Key is a digest of the machine's public key. One of the same name with another key
	// is not that machine: its disk was replaced, or was stolen.
	Key string `json:"key,omitempty"`
}

// membership is one event of the fleet's stream.
type membership struct {
	Seq    int64           `json:"seq"`
	Time   time.Time       `json:"time"`
	Actor  string          `json:"actor"`
	Joined *enrolled       `json:"joined,omitempty"`
	Name   string          `json:"name,omitempty"`
	Set    fleet.Condition `json:"set,omitempty"` // draining, retired; proving, then up again when readmitted
	Reason string          `json:"reason,omitempty"`
	// Of a machine that came back, or did not.
	Proof fleet.Proof     `json:"proof,omitempty"`
	Found *fleet.Findings `json:"found,omitempty"`
}

// load folds everything once. It says nothing of a release that does not fold, which
// keeps no other from going on; the fleet's and the other streams concern all of them.
func (c *Control) load(ctx context.Context) error {
	names, err := c.o.Ledger.Streams(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.refresh(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// Known says why an event is none that control could fold; nil if it could, for all
// that the line alone tells.
func Known(stream string, line []byte) error {
	switch stream {
	case fleetStream:
		return json.Unmarshal(line, &membership{})
	case AccessStream:
		return json.Unmarshal(line, &access{})
	case noticesStream:
		return json.Unmarshal(line, &noted{})
	}
	if !strings.HasPrefix(stream, releaseStream("")) {
		return fmt.Errorf("stream %q is none of a release", stream)
	}
	return json.Unmarshal(line, &release.Event{})
}

// fold ends when ctx does. A watch that breaks (the cluster lost its leader, its
// history was compacted) begins again with everything that was missed.
func (c *Control) fold(ctx context.Context) error {
	for {
		began := func() {
			if err := c.load(ctx); err != nil && ctx.Err() == nil {
				c.o.Log.Error("fold", "err", err)
			}
		}
		err := c.o.Ledger.Watch(ctx, began, func(stream string, head int64) {
			if c.has(stream, head) {
				return // this control wrote it
			}
			if err := c.refresh(ctx, stream); err != nil && ctx.Err() == nil {
				c.o.Log.Error("fold", "stream", stream, "err", err)
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.o.Log.Warn("the watch of the ledger broke, and begins again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// has tells whether a stream is folded up to an event.
func (c *Control) has(name string, head int64) bool {
	if s := c.streamOf(name); s != nil {
		s.mu.Lock() // what this control appends it folds before it lets go
		defer s.mu.Unlock()
		return int64(len(s.lines)) >= head
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heads.last[name].events >= head
}

// refresh folds one stream to its head.
func (c *Control) refresh(ctx context.Context, name string) error {
	switch name {
	case fleetStream:
		return c.refreshFleet(ctx)
	case AccessStream:
		return c.refreshAccess(ctx)
	case noticesStream:
		return c.refreshNotices(ctx)
	}
	version, ok := strings.CutPrefix(name, releaseStream(""))
	if !ok {
		return fmt.Errorf("the ledger holds a stream %q of no release", name)
	}
	c.mu.Lock()
	s := c.streams[version]
	if s == nil {
		s = &stream{name: version, state: release.Empty()}
		c.streams[version] = s
	}
	c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.catchUp(ctx, s)
}

// follow folds what a stream has and *folded, the number of its events that were,
// does not count. fold is called with the lock held.
func (c *Control) follow(ctx context.Context, stream string, folded *int64, fold func(line []byte) error) error {
	c.mu.Lock()
	after := *folded
	c.mu.Unlock()
	lines, err := c.o.Ledger.Read(ctx, stream, after)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, line := range lines {
		if after+int64(i) < *folded {
			continue // by another that followed at the same time
		}
		if err := fold(line); err != nil {
			return fmt.Errorf("%s, event %d: %w", stream, *folded+1, err)
		}
		if c.trees[stream] == nil {
			c.trees[stream] = &evidence.Tree{}
		}
		if err := c.trees[stream].Add(line); err != nil {
			return err
		}
		*folded++
	}
	c.heads.put(stream, *folded)
	return nil
}

func (c *Control) refreshFleet(ctx context.Context) error {
	defer c.moved()
	return c.follow(ctx, fleetStream, &c.joined, func(line []byte) error {
		var e membership
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		if e.Joined != nil {
			m := c.members[e.Joined.Name]
			if m == nil {
				m = &member{}
				c.members[e.Joined.Name] = m
			}
			m.enrolled, m.set, m.since, m.why = *e.Joined, e.Set, e.Seq, e.Reason
			m.terms = append(m.terms, e.Time)
			m.terms = m.terms[max(len(m.terms)-mostTerms, 0):]
		} else if m := c.members[e.Name]; m != nil {
			m.set, m.since, m.why = e.Set, e.Seq, e.Reason
			m.news.ring() // it may be asked what it is like
			if e.Set == fleet.Up {
				m.set, m.losses = "", 0
			}
		}
		return nil
	})
}

// enlist appends a fact to the fleet's stream.
func (c *Control) enlist(ctx context.Context, e membership) error {
	return c.decide(ctx, func() (membership, error) { return e, nil })
}

// decide appends to the fleet's stream what is decided on its members as they are
// at its head, with c.mu held.
func (c *Control) decide(ctx context.Context, decide func() (membership, error)) error {
	return c.append(ctx, fleetStream, &c.joined, c.refreshFleet, func(seq int64, at time.Time) (any, error) {
		e, err := decide()
		e.Seq, e.Time = seq, at
		return e, err
	})
}

// append adds to a stream what decide makes of it at its head, with c.mu held.
// *folded is the number of its events that refresh has folded.
func (c *Control) append(ctx context.Context, stream string, folded *int64, refresh func(context.Context) error, decide func(seq int64, at time.Time) (any, error)) error {
	for {
		if err := refresh(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		head := *folded
		e, err := decide(head+1, c.o.Now().UTC().Truncate(time.Millisecond))
		c.mu.Unlock()
		if err != nil {
			return err
		}
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		err = c.o.Ledger.Append(ctx, stream, head, line)
		var conflict *ledger.ConflictError
		if errors.As(err, &conflict) && ctx.Err() == nil {
			continue // Read refuses a stream whose head is not its last event: this ends
		}
		if err != nil {
			return err
		}
		return refresh(ctx)
	}
}
