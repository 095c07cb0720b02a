package control

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"trysail/internal/api"
	"trysail/internal/notify"
	"trysail/release"
)

const (
	sendTime  = 30 * time.Second // for one notice to one target
	firstWait = time.Second      // before a target that failed is tried again; it doubles
	mostWait  = time.Minute
	giveUp    = 24 * time.Hour // age of an event whose notices are old news
	slackLook = 5 * time.Second
)

// herald follows the releases a second time, for what people must know, and
// brings it to the targets, each in a loop of its own: one that is down keeps
// nobody waiting, and neither does it control.
type herald struct {
	c        *Control
	boxes    []*outbox
	releases map[string]*followed
	crossed  int                  // crossings of slack that were looked at
	unserved int                  // steps without a machine that were looked at
	since    map[string]time.Time // when each was seen first, by release and item
}

// machineWait is for how long a step has no machine until people are told: longer than a
// machine or control takes to come back.
const machineWait = time.Minute

// followed is a release as far as its notices are derived.
type followed struct {
	state *release.State
	lines int
}

// outbox is what one target is still to be told.
type outbox struct {
	notify.Target
	mu   sync.Mutex
	list []notify.Message
	more chan struct{}
	why  string // the last failure
}

// tell ends when ctx does. It tells people what they must know.
func (c *Control) tell(ctx context.Context) error {
	if c.o.Notify == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		err := c.beginTargets(ctx)
		if err == nil {
			break
		}
		c.o.Log.Error("notices", "err", err)
		if err := pause(ctx, firstWait); err != nil {
			return err
		}
	}
	h := &herald{c: c, releases: map[string]*followed{}, since: map[string]time.Time{}}
	g, gctx := errgroup.WithContext(ctx)
	for _, t := range c.o.Notify.Targets {
		b := &outbox{Target: t, more: make(chan struct{}, 1)}
		h.boxes = append(h.boxes, b)
		g.Go(func() error { return c.deliver(gctx, b) })
	}
	g.Go(func() error { return h.follow(gctx) })
	return g.Wait()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// beginTargets lets those begin that are new, from now on, and those end that the
// configuration does not name any more.
func (c *Control) beginTargets(ctx context.Context) error {
	c.notices.mu.Lock()
	var known []string
	for name := range c.notices.told {
		known = append(known, name)
	}
	c.notices.mu.Unlock()
	var wanted []string
	for _, t := range c.o.Notify.Targets {
		wanted = append(wanted, t.Name())
	}
	for _, name := range wanted {
		if slices.Contains(known, name) {
			continue
		}
		b := &begins{Heads: map[string]int64{}}
		for _, v := range c.versions() {
			if s, err := c.stream(v); err == nil {
				s.mu.Lock()
				b.Heads[v] = int64(len(s.lines))
				s.mu.Unlock()
			}
		}
		if err := c.note(ctx, noted{Target: name, Begins: b}); err != nil {
			return err
		}
	}
	for _, name := range known {
		if !slices.Contains(wanted, name) {
			if err := c.note(ctx, noted{Target: name, Ends: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow ends when ctx does. It derives notices from what is new.
func (h *herald) follow(ctx context.Context) error {
	t := time.NewTicker(slackLook)
	defer t.Stop()
	for {
		news := h.c.news()
		for _, v := range h.c.versions() {
			if err := h.events(v); err != nil {
				h.c.o.Log.Error("notices", "release", v, "err", err)
			}
			if err := h.outlook(ctx, v); err != nil && ctx.Err() == nil {
				h.c.o.Log.Error("notices", "release", v, "err", err) // looked at again
			}
		}
		h.crossings()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-t.C:
		}
	}
}

// events derives the notices of a release's new events.
func (h *herald) events(version string) error {
	f := h.releases[version]
	if f == nil {
		f = &followed{state: release.Empty()}
		h.releases[version] = f
	}
	s, err := h.c.stream(version)
	if err != nil {
		return err
	}
	s.mu.Lock()
	lines := s.lines[f.lines:s.state.Head] // what does not fold stands after those
	s.mu.Unlock()
	for _, line := range lines {
		var e release.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		before := f.state.Clone()
		if err := f.state.Apply(e); err != nil {
			return err // control folded it before: this cannot be
		}
		f.lines++
		for _, n := range release.Notices(before, e, f.state) {
			h.queue(f, n, e.Seq, e.Time, func(t *told) bool { return e.Seq > t.heads[version] })
		}
	}
	return nil
}

// outlook writes down what no event says: that a release's slack crossed the limit, and that
// no machine can run a step of it.
func (h *herald) outlook(ctx context.Context, version string) error {
	st := h.releases[version].state
	if st.Head == 0 || st.Over() || st.Ship.IsZero() {
		return nil
	}
	out, err := h.c.outlook(st)
	if err != nil {
		return err
	}
	return errors.Join(h.slack(ctx, version, st, out), h.machines(ctx, version, st, out, time.Now()))
}

func (h *herald) slack(ctx context.Context, version string, st *release.State, out release.Outlook) error {
	limit := h.c.o.Notify.SlackUnder
	if limit == nil {
		return nil
	}
	h.c.notices.mu.Lock()
	low := h.c.notices.low[version]
	h.c.notices.mu.Unlock()
	n, again := release.SlackNotice(out, *limit, low)
	if again == low {
		return nil
	}
	x := &slacks{Release: version, Event: st.Head, Low: again}
	if n != nil {
		x.What = n.What
	}
	return h.c.note(ctx, noted{Slack: x})
}

// machines writes down which steps have had no machine for a while, each once until it has one.
func (h *herald) machines(ctx context.Context, version string, st *release.State, out release.Outlook, now time.Time) error {
	wanted := release.MachineNotices(out)
	for i := range st.Items {
		item := st.Items[i].Name
		key := version + " " + item
		n, none := wanted[item]
		h.c.notices.mu.Lock()
		known := h.c.notices.want[key]
		h.c.notices.mu.Unlock()
		if _, seen := h.since[key]; none && !seen {
			h.since[key] = now
		}
		if !none {
			delete(h.since, key)
		}
		if none == known || none && now.Sub(h.since[key]) < machineWait {
			continue
		}
		if err := h.c.note(ctx, noted{Machine: &unserved{Release: version, Event: st.Head, Item: item, Wanted: none, What: n.What}}); err != nil {
			return err
		}
	}
	return nil
}

// crossings derives the notices of slack, and of steps without a machine.
func (h *herald) crossings() {
	h.c.notices.mu.Lock()
	list, none := h.c.notices.slack[h.crossed:], h.c.notices.none[h.unserved:]
	h.c.notices.mu.Unlock()
	for _, e := range none {
		h.unserved++
		if f := h.releases[e.Machine.Release]; f != nil && e.Machine.Wanted {
			n := release.Notice{Kind: release.MachineWanted, Item: e.Machine.Item, What: e.Machine.What}
			h.queue(f, n, e.Machine.Event, e.Time, func(t *told) bool { return e.Seq > t.since })
		}
	}
	for _, e := range list {
		h.crossed++
		f := h.releases[e.Slack.Release]
		if f == nil || !e.Slack.Low {
			continue
		}
		n := release.Notice{Kind: release.SlackLow, What: e.Slack.What}
		h.queue(f, n, e.Slack.Event, e.Time, func(t *told) bool { return e.Seq > t.since })
	}
}

// queue gives a notice to the targets that want it, for which it is news, and
// that have not got it.
func (h *herald) queue(f *followed, n release.Notice, seq int64, at time.Time, news func(*told) bool) {
	st := f.state
	m := notify.Message{Notice: n, Release: st.Started.Version, Begun: st.Begun, Ship: st.Ship, Event: seq, At: at, Zone: api.Zone(st.Team.Zone)}
	for _, b := range h.boxes {
		h.c.notices.mu.Lock()
		t := h.c.notices.told[b.Name()]
		due := t != nil && news(t) && !t.ids[m.ID()]
		h.c.notices.mu.Unlock()
		if due && b.Wants(n) {
			b.mu.Lock()
			b.list = append(b.list, m)
			b.mu.Unlock()
			h.c.isOpen(b.Name(), 1)
			select {
			case b.more <- struct{}{}:
			default: // it knows
			}
		}
	}
}

// isOpen counts what is on its way.
func (c *Control) isOpen(target string, by int) {
	c.notices.mu.Lock()
	defer c.notices.mu.Unlock()
	c.notices.open[target] += by
}

// deliver ends when ctx does. It brings one target what it is to be told, oldest
// first. While the target is down it waits ever longer; a notice that alone is
// refused holds up no other.
func (c *Control) deliver(ctx context.Context, b *outbox) error {
	wait := time.Duration(0)
	for {
		left, err := c.round(ctx, b)
		if err != nil {
			return err
		}
		if !left {
			if wait > 0 {
				c.o.Log.Info("the target of notices takes them again", "target", b.Name())
			}
			wait = 0
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-b.more:
			}
			continue
		}
		if wait == 0 {
			c.o.Log.Warn("a notice is not taken; it is tried again", "target", b.Name(), "err", b.why)
		}
		wait = min(max(2*wait, firstWait), mostWait)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// round tries all that a target is to be told, once. It tells whether any is left.
func (c *Control) round(ctx context.Context, b *outbox) (left bool, err error) {
	b.mu.Lock()
	list := slices.Clone(b.list)
	b.mu.Unlock()
	down := false
	for _, m := range list {
		e := noted{Target: b.Name(), ID: m.ID()}
		switch age := c.clock.sure(c.o.Now(), c.o.Boot()).Sub(m.At); {
		case age > giveUp:
			e.Undelivered = "not taken within " + giveUp.String()
			if b.why != "" {
				e.Undelivered += ": " + b.why
			}
			c.o.Log.Error("a notice is given up", "target", b.Name(), "id", m.ID(), "why", e.Undelivered)
		case down:
			left = true
			continue
		default:
			sctx, cancel := context.WithTimeout(ctx, sendTime)
			err := b.Send(sctx, m)
			cancel()
			if ctx.Err() != nil && err != nil {
				return true, ctx.Err()
			}
			if err != nil {
				var refused *notify.RefusedError
				b.why, left, down = err.Error(), true, !errors.As(err, &refused)
				continue
			}
		}
		if err := c.noteSurely(ctx, e); err != nil {
			return true, err
		}
		b.drop(m.ID())
		c.isOpen(b.Name(), -1)
	}
	return left, nil
}

func (b *outbox) drop(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = slices.DeleteFunc(b.list, func(m notify.Message) bool { return m.ID() == id })
}

// noteSurely tries until the ledger has it: what was handed over is not handed
// over again because the ledger was away, nor because control is asked to stop.
func (c *Control) noteSurely(ctx context.Context, e noted) error {
	for {
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		err := c.note(once, e)
		cancel()
		if err == nil {
			return nil
		}
		c.o.Log.Error("notices", "target", e.Target, "err", err)
		if err := pause(ctx, firstWait); err != nil {
			return err
		}
	}
}
