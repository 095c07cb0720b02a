package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/internal/witness"
	"trysail/release"
)

// Whoever holds control's keys could write its ledger anew, on every machine of the
// fleet. So where a working copy is named, the checkpoint of each release is committed
// there by itself whenever somebody decided ([release.State.Gate]), sent to where the
// team has it, and time-stamped if there is an authority. What was committed is a
// witness in turn: a ledger that does not go on from there is in doubt, as it is if a
// machine's copy says otherwise (doubt.go).
//
// It holds up nothing: version control may be away while a release goes on. It is
// tried again, and until then people are told.

const (
	keepTime = 5 * time.Minute // for one round, of which most is a network's
	// fromVCS stands in doubts where a machine's name would.
	fromVCS = ""
)

// elsewhere is what is known of the checkpoints that are kept in version control.
type elsewhere struct {
	mu   sync.Mutex
	gate map[string]int64  // by release: the gate up to which they are there
	size map[string]int64  // by release: events of the last one
	why  map[string]string // by release, or of all (""): what keeps them from it
}

func newElsewhere() *elsewhere {
	return &elsewhere{gate: map[string]int64{}, size: map[string]int64{}, why: map[string]string{}}
}

// witness ends when ctx does.
func (c *Control) witness(ctx context.Context) error {
	if c.o.Checkpoints == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	wait := time.Duration(0)
	for {
		news := c.news()
		round, cancel := context.WithTimeout(ctx, keepTime)
		whole := c.keepCheckpoints(round)
		cancel()
		var again <-chan time.Time
		if whole {
			wait = 0
		} else {
			wait = min(max(2*wait, firstWait), mostWait)
			again, news = time.After(wait), nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-again:
		}
	}
}

// keepCheckpoints commits what is due, and tells whether all of it is where it is to be.
func (c *Control) keepCheckpoints(ctx context.Context) (whole bool) {
	due := map[string]int64{}
	for _, v := range c.versions() {
		gate := int64(0)
		c.look(v, func(s *release.State) { gate = s.Gate })
		c.elsewhere.mu.Lock()
		if gate > c.elsewhere.gate[v] {
			due[v] = gate
		}
		c.elsewhere.mu.Unlock()
	}
	if len(due) == 0 {
		return true
	}
	// What a machine has not yet may be lost with this one, and must not be there alone.
	c.safe(ctx)
	dir := c.o.Checkpoints
	if c.hindered("", witness.Update(ctx, dir)) {
		return false
	}
	whole = true
	kept := map[string]int64{}
	for _, v := range slices.Sorted(maps.Keys(due)) {
		size, err := c.keepCheckpoint(ctx, v)
		if c.hindered(v, err) {
			whole = false
			continue
		}
		kept[v] = size
	}
	if c.hindered("", witness.Send(ctx, dir)) {
		return false
	}
	c.elsewhere.mu.Lock()
	defer c.elsewhere.mu.Unlock()
	for v, size := range kept {
		c.elsewhere.gate[v], c.elsewhere.size[v] = due[v], size
	}
	return whole
}

// keepCheckpoint commits how a release's ledger stands, of how many events.
func (c *Control) keepCheckpoint(ctx context.Context, version string) (size int64, err error) {
	if err := c.o.Ledger.Sure(ctx); err != nil {
		return 0, err // another may decide
	}
	if err := c.follows(ctx, version); err != nil {
		return 0, err
	}
	s, err := c.stream(version)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	signed, err := c.signCheckpoint(s)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if _, err := witness.Commit(ctx, c.o.Checkpoints, version, signed.note); err != nil {
		return 0, err
	}
	if c.o.Stamp != nil {
		_, err = witness.CommitStamp(ctx, c.o.Checkpoints, version, c.o.Stamp)
	}
	return signed.at.Size, err
}

// follows holds what is in version control against the ledger. One that does not go on
// from there is in doubt.
func (c *Control) follows(ctx context.Context, version string) error {
	list, err := witness.Committed(c.o.Checkpoints, version)
	if err != nil {
		return err
	}
	why := ""
	if len(list) > 0 {
		last := list[len(list)-1]
		_, key, err := c.o.Identity.checkpointKey()
		if err != nil {
			return err
		}
		verifier, err := note.NewVerifier(key)
		if err != nil {
			return err
		}
		file := filepath.Join(c.o.Checkpoints, "trysail/checkpoints", version+".note")
		// Only this fleet's own word is a reason to stop.
		if _, err := evidence.ReadNote(last.Note, verifier); err != nil {
			return &strangeNoteError{file, last.Line, err}
		}
		size, root, err := c.rootAt(ctx, releaseStream(version), last.Size)
		switch {
		case err != nil:
			return err
		case size < last.Size:
			why = fmt.Sprintf("%s:%d has a checkpoint of %d events, and control has %d", file, last.Line, last.Size, size)
		case string(root) != string(last.Root[:]):
			why = fmt.Sprintf("the first %d events are not those of %s:%d", last.Size, file, last.Line)
		}
	}
	c.doubt(releaseStream(version), fromVCS, why)
	return c.doubted(releaseStream(version))
}

// hindered tells whether something went wrong, and keeps it for people until it does not.
func (c *Control) hindered(version string, err error) bool {
	c.elsewhere.mu.Lock()
	defer c.elsewhere.mu.Unlock()
	known := c.elsewhere.why[version]
	var doubted *DoubtedError
	switch {
	case err == nil:
		delete(c.elsewhere.why, version)
	case errors.As(err, &doubted):
		delete(c.elsewhere.why, version) // they are told in stronger words
	default:
		c.elsewhere.why[version] = err.Error()
		var h interface{ Hint() string }
		if errors.As(err, &h) {
			c.elsewhere.why[version] += " (" + h.Hint() + ")"
		}
	}
	if why := c.elsewhere.why[version]; why != known && why != "" {
		c.o.Log.Error("checkpoints are not kept in version control; it is tried again", "release", version, "err", why)
	} else if known != "" && why == "" {
		c.o.Log.Info("checkpoints are kept in version control again", "release", version)
	}
	return err != nil
}

// notKept lists, for people, what keeps checkpoints from version control.
func (c *Control) notKept() []string {
	c.elsewhere.mu.Lock()
	defer c.elsewhere.mu.Unlock()
	var list []string
	for _, v := range slices.Sorted(maps.Keys(c.elsewhere.why)) {
		what := "checkpoints are"
		if v != "" {
			what = "the checkpoint of " + v + " is"
		}
		list = append(list, fmt.Sprintf("%s not kept in version control: %s", what, c.elsewhere.why[v]))
	}
	return list
}

// strangeNoteError says that a checkpoint in version control is none of this fleet's.
type strangeNoteError struct {
	file string
	line int
	err  error
}

func (e *strangeNoteError) Error() string {
	return fmt.Sprintf("%s:%d is not signed by this fleet: %v", e.file, e.line, e.err)
}

func (e *strangeNoteError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *strangeNoteError) Hint() string {
	return "another fleet released this version, or somebody changed the file: look at its history, and move it away if it is not of this release"
}
