package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

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

// load folds everything once.
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
	version, ok := strings.CutPrefix(name, releaseStream(""))
	s, err := c.stream(version)
	if !ok || err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.lines)) >= head
}

// refresh folds one stream to its head.
func (c *Control) refresh(ctx context.Context, name string) error {
	switch name {
	case fleetStream:
		return c.refreshFleet(ctx)
	case accessStream:
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
	err := s.catchUp(ctx, c.o.Ledger)
	s.mu.Unlock()
	c.moved()
	return err
}

func (c *Control) refreshFleet(ctx context.Context) error {
	lines, err := c.o.Ledger.Read(ctx, fleetStream, 0)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.joined = int64(len(lines))
	for _, line := range lines {
		var e membership
		if err := json.Unmarshal(line, &e); err != nil {
			c.mu.Unlock()
			return fmt.Errorf("fleet, event: %w", err)
		}
		if e.Joined != nil {
			m := c.members[e.Joined.Name]
			if m == nil {
				m = &member{copies: map[string]int64{}}
				c.members[e.Joined.Name] = m
			}
			m.enrolled, m.set, m.since, m.why = *e.Joined, e.Set, e.Seq, e.Reason
		} else if m := c.members[e.Name]; m != nil {
			m.set, m.since, m.why = e.Set, e.Seq, e.Reason
			if e.Set == fleet.Up {
				m.set, m.losses = "", 0
			}
		}
	}
	c.mu.Unlock()
	c.moved()
	return nil
}

// enlist appends a fact to the fleet's stream.
func (c *Control) enlist(ctx context.Context, e membership) error {
	return c.decide(ctx, func() (membership, error) { return e, nil })
}

// decide appends to the fleet's stream what is decided on its members as they are
// at its head, with c.mu held.
func (c *Control) decide(ctx context.Context, decide func() (membership, error)) error {
	for {
		if err := c.refreshFleet(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		head := c.joined
		e, err := decide()
		c.mu.Unlock()
		if err != nil {
			return err
		}
		e.Seq, e.Time = head+1, c.o.Now().UTC().Truncate(time.Millisecond)
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		err = c.o.Ledger.Append(ctx, fleetStream, head, line)
		var conflict *ledger.ConflictError
		if errors.As(err, &conflict) && ctx.Err() == nil {
			continue // Read refuses a stream whose head is not its last event: this ends
		}
		if err != nil {
			return err
		}
		return c.refreshFleet(ctx)
	}
}
