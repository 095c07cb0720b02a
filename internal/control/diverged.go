package control

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/evidence"
	"trysail/fleet"
	"trysail/internal/api"
	"trysail/runbook"
)

// What was acknowledged is on the disks of machines too, each of which says what
// its copy amounts to: how many events, the root of the Merkle tree over them, and
// control's own signature of both. A control whose ledger was put back to an earlier
// day, or was changed, would not notice by itself, and could let a second gold master
// through. So a copy whose signed events control does not have is a doubt about that
// stream, and nothing is appended to a release in doubt until a person has recovered
// the ledger, or retired the machine.
//
// A disk that is damaged has no signature for what stands there ([evidence.Replica]):
// its machine fetches it again, and no release waits for that. A copy that an older
// Trysail wrote has no signature either way. It is in doubt too, and a person decides.

// doubts are what machines' copies say against the ledger, and version control
// (vcs_anchor.go), by stream and machine.
type doubts map[string]map[string]string

// mostDoubts is how many streams one machine may call in doubt. One that names more calls
// all of them in doubt: control keeps no list without end for it.
const mostDoubts = 1000

// allStreams stands in doubts for each of them. No stream has the name.
const allStreams = "*"

// compare holds a machine's copies against the ledger. What cannot be a stream is passed
// over.
func (c *Control) compare(ctx context.Context, machine string, copies []api.Copy) error {
	names := sync.OnceValues(func() ([]string, error) { return c.o.Ledger.Streams(ctx) })
	key := sync.OnceValues(c.checkpointVerifier)
	for _, x := range copies {
		if !streamName(x.Stream) {
			continue
		}
		why, err := c.against(ctx, machine, x, names, key)
		if err != nil {
			return fmt.Errorf("compare the copy of %s on %s: %w", x.Stream, machine, err)
		}
		c.doubt(x.Stream, machine, why)
	}
	return nil
}

// unproven ends what is said of a copy that nothing proves.
const unproven = " (control signed nothing that says which is right)"

// against says what speaks against control's ledger in one copy; "" if nothing does.
func (c *Control) against(ctx context.Context, machine string, x api.Copy, names func() ([]string, error), key func() (note.Verifier, error)) (why string, err error) {
	size, root, err := c.rootOf(ctx, x.Stream, x.Events, names)
	if err != nil || (size >= x.Events && bytes.Equal(root, x.Root)) {
		return "", err // as nearly always: no signature is needed
	}
	signed, err := signedFor(x, key)
	if err != nil {
		return "", err
	}
	r := evidence.Replica{Events: x.Events, Signed: signed}
	if len(x.Root) == tlog.HashSize {
		r.Root = tlog.Hash(x.Root)
	}
	finding, err := r.Against(&beginning{size, root})
	if err != nil || finding == evidence.Agrees {
		return "", err
	}
	why = fmt.Sprintf("the first %d events on the disk of %s are not those of control", x.Events, machine)
	if size < x.Events {
		why = fmt.Sprintf("%s has %d events of it on its disk, and control %d", machine, x.Events, size)
	}
	if finding == evidence.Unproven {
		why += unproven
	}
	return why, nil
}

// beginning is what control knows of a stream to compare it: its length, and the root of as
// many events as a machine has, if control has them.
type beginning struct {
	size int64
	root []byte
}

// Size implements evidence.Ledger.
func (b *beginning) Size() int64 { return b.size }

// Root implements evidence.Ledger.
func (b *beginning) Root(int64) (tlog.Hash, error) {
	if len(b.root) != tlog.HashSize {
		return (&evidence.Tree{}).Root(0) // of a stream that is not there
	}
	return tlog.Hash(b.root), nil
}

// streamName tells whether a stream may have a name.
func streamName(s string) bool {
	if version, ok := strings.CutPrefix(s, releaseStream("")); ok {
		return runbook.VersionRE().MatchString(version)
	}
	return s == fleetStream || s == AccessStream || s == noticesStream
}

// tooMany tells whether a witness calls too many streams in doubt to keep another. The lock
// is held.
func (x doubts) tooMany(stream, witness string) bool {
	if x[stream][witness] != "" {
		return false
	}
	n := 0
	for _, by := range x {
		if by[witness] != "" {
			n++
		}
	}
	return n >= mostDoubts
}

// doubt keeps why a witness does not agree with a stream; "" if it does.
func (c *Control) doubt(stream, witness, why string) {
	c.mu.Lock()
	if why != "" && c.doubts.tooMany(stream, witness) {
		stream, why = allStreams, witness+" has copies of more than "+strconv.Itoa(mostDoubts)+" streams that are not those of control"
	}
	known := c.doubts[stream][witness]
	switch {
	case why == "":
		if delete(c.doubts[stream], witness); len(c.doubts[stream]) == 0 {
			delete(c.doubts, stream)
		}
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
	return c.rootOf(ctx, stream, events, func() ([]string, error) { return c.o.Ledger.Streams(ctx) })
}

// rootOf is rootAt with a list of the ledger's streams, which takes long to make.
func (c *Control) rootOf(ctx context.Context, stream string, events int64, names func() ([]string, error)) (size int64, root []byte, err error) {
	if size, root, err = c.folding(stream, events); err != nil || size >= events {
		return size, root, err
	}
	list, err := names()
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

// DivergedError refuses to append to a stream of which a machine's copy, or version
// control, says otherwise than the ledger.
type DivergedError struct {
	Stream, Why string
	FromVCS     bool
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("the ledger of %s is in doubt: %s", strings.TrimPrefix(e.Stream, releaseStream("")), e.Why)
}

// Hint says what to do.
func (e *DivergedError) Hint() string {
	if e.FromVCS {
		return "the ledger was put back or changed: stop control, move its etcd/ away, and begin it from a machine's copy that goes on from there: trysail serve --recover DIR; if none does, what came after is lost: revert the commit of that file, whose history keeps it"
	}
	const recovers = "stop control, move its etcd/ away, and begin it from that machine's copy: trysail serve --recover DIR"
	if strings.HasSuffix(e.Why, unproven) {
		return "look at both first (trysail release events VERSION, and that machine's agent/ledger). If the ledger was put back or changed: " + recovers + ". If it is the machine's copy that is wrong: trysail fleet retire MACHINE"
	}
	return "control had signed these events, so the ledger was put back or changed: " + recovers
}

// doubted is the doubt about a stream, if there is one.
func (c *Control) doubted(stream string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doubtedLocked(stream)
}

func (c *Control) doubtedLocked(stream string) error {
	for _, of := range []string{stream, allStreams} {
		for _, machine := range slices.Sorted(maps.Keys(c.doubts[of])) {
			if m := c.members[machine]; machine == fromVCS || m != nil && m.set != fleet.Retired {
				return &DivergedError{stream, c.doubts[of][machine], machine == fromVCS}
			}
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
		list = append(list, "no machine copies the ledger: the latest events exist only on control's disk")
	}
	if n := len(c.wanted); n > 0 {
		list = append(list, fmt.Sprintf("the depot lacks %d originals or artifacts that releases need: machines that have them send them, so retire none of these until then", n))
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
