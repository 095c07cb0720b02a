package control

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"trysail/evidence"
	"trysail/fleet"
	"trysail/internal/api"
)

// What was acknowledged is on the disks of machines too, each of which says what
// its copy amounts to: how many events, and the root of the Merkle tree over them.
// A control whose ledger was put back to an earlier day, or was changed, would not
// notice by itself, and could let a second gold master through. So a copy that has
// more than the ledger, or something else, is a doubt about that stream, and
// nothing is appended to a release in doubt until a person has recovered the
// ledger, or retired the machine whose copy is the wrong one.

// doubts are what machines' copies say against the ledger, and version control
// (elsewhere.go), by stream and machine.
type doubts map[string]map[string]string

// compare holds a machine's copies against the ledger.
func (c *Control) compare(ctx context.Context, machine string, copies []api.Copy) error {
	for _, x := range copies {
		size, root, err := c.rootAt(ctx, x.Stream, x.Events)
		why := ""
		switch {
		case err != nil:
			return fmt.Errorf("compare the copy of %s on %s: %w", x.Stream, machine, err)
		case size < x.Events:
			why = fmt.Sprintf("%s has %d events of it on its disk, and control %d", machine, x.Events, size)
		case !bytes.Equal(root, x.Root):
			why = fmt.Sprintf("the first %d events on the disk of %s are not those of control", x.Events, machine)
		}
		c.doubt(x.Stream, machine, why)
	}
	return nil
}

// doubt keeps why a witness does not agree with a stream; "" if it does.
func (c *Control) doubt(stream, witness, why string) {
	c.mu.Lock()
	known := c.doubts[stream][witness]
	switch {
	case why == "":
		delete(c.doubts[stream], witness)
	case c.doubts[stream] == nil:
		c.doubts[stream] = map[string]string{witness: why}
	default:
		c.doubts[stream][witness] = why
	}
	c.mu.Unlock()
	switch {
	case why == known:
	case why == "":
		c.o.Log.Warn("the ledger is in doubt no more", "stream", stream, "witness", witness)
	default:
		c.o.Log.Error("the ledger is in doubt", "stream", stream, "why", why)
	}
}

// rootAt gives the length of a stream and, if it is long enough, the root over
// its first events. It reads the ledger again before it says that they are not there.
func (c *Control) rootAt(ctx context.Context, stream string, events int64) (size int64, root []byte, err error) {
	if size, root, err = c.folding(stream, events); err != nil || size >= events {
		return size, root, err
	}
	list, err := c.o.Ledger.Streams(ctx)
	if err != nil || !slices.Contains(list, stream) {
		return size, nil, err
	}
	if err := c.refresh(ctx, stream); err != nil {
		return 0, nil, err
	}
	return c.folding(stream, events)
}

// folding is rootAt of what is folded.
func (c *Control) folding(stream string, events int64) (size int64, root []byte, err error) {
	of := func(t *evidence.Tree) error {
		if t == nil {
			return nil
		}
		if size = t.Size(); size < events {
			return nil
		}
		h, err := t.Root(events)
		root = h[:]
		return err
	}
	if stream == noticesStream {
		c.notices.mu.Lock()
		defer c.notices.mu.Unlock()
		err = of(&c.notices.tree)
		return size, root, err
	}
	if version, ok := strings.CutPrefix(stream, releaseStream("")); ok {
		s, err := c.stream(version)
		if err != nil {
			return 0, nil, nil // there is none: it has no events
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		err = of(&s.tree)
		return size, root, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err = of(c.trees[stream])
	return size, root, err
}

// DoubtedError refuses to append to a stream of which a machine's copy, or version
// control, says otherwise than the ledger.
type DoubtedError struct {
	Stream, Why string
	FromVCS     bool
}

func (e *DoubtedError) Error() string {
	return fmt.Sprintf("the ledger of %s is in doubt: %s", strings.TrimPrefix(e.Stream, releaseStream("")), e.Why)
}

// Hint says what to do.
func (e *DoubtedError) Hint() string {
	if e.FromVCS {
		return "the ledger was put back or changed: stop control, move its etcd/ away, and begin it from a machine's copy that goes on from there: trysail serve --recover DIR; if none does, what came after is lost: revert the commit of that file, whose history keeps it"
	}
	return "the ledger was put back or changed: stop control, move its etcd/ away, and begin it from that machine's copy: trysail serve --recover DIR; if it is the machine's copy that is wrong: trysail fleet retire MACHINE"
}

// doubted is the doubt about a stream, if there is one.
func (c *Control) doubted(stream string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doubtedLocked(stream)
}

func (c *Control) doubtedLocked(stream string) error {
	for _, machine := range slices.Sorted(maps.Keys(c.doubts[stream])) {
		if m := c.members[machine]; machine == fromVCS || m != nil && m.set != fleet.Retired {
			return &DoubtedError{stream, c.doubts[stream][machine], machine == fromVCS}
		}
	}
	return nil
}

// troubles lists what people must know of the ledger, without the doubts.
func (c *Control) troubles() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	if c.alone && !c.lonely() {
		list = append(list, "no machine copies the ledger: what happened last is on control's disk alone")
	}
	return append(list, c.notKept()...)
}

// inDoubt lists the doubts, for people.
func (c *Control) inDoubt() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, stream := range slices.Sorted(maps.Keys(c.doubts)) {
		if err := c.doubtedLocked(stream); err != nil {
			list = append(list, err.Error())
		}
	}
	return list
}
