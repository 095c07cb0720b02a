package control

import (
	"bytes"
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
// machine's copy says otherwise (diverged.go).
//
// It holds up nothing: version control may be away while a release goes on. It is
// tried again, and until then people are told.

const (
	keepTime = 5 * time.Minute // for one round, of which most is a network's
	// fromVCS stands in doubts where a machine's name would.
	fromVCS = ""
)

// vcsAnchor is what is known of the checkpoints that are kept in version control.
type vcsAnchor struct {
	mu   sync.Mutex
	gate map[string]int64  // by release: the gate up to which they are there
	size map[string]int64  // by release: events of the last one
	why  map[string]string // by release, or of all (""): what keeps them from it, as people are told
}

func newVCSAnchor() *vcsAnchor {
	return &vcsAnchor{gate: map[string]int64{}, size: map[string]int64{}, why: map[string]string{}}
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
		c.anchor.mu.Lock()
		if gate > c.anchor.gate[v] {
			due[v] = gate
		}
		c.anchor.mu.Unlock()
	}
	if len(due) == 0 {
		return true
	}
	// What a machine has not yet may be lost with this one, and must not be there alone:
	// it is given its time, as an answer is.
	c.isReplicated(ctx)
	whole = true
	for v := range due {
		// Before anything is asked of a network: what is here is enough to see it.
		if err := c.follows(ctx, v); err != nil {
			c.hindered(v, "", err)
			delete(due, v)
			whole = false
		}
	}
	dir := c.o.Checkpoints
	if err := witness.Update(ctx, dir); err != nil {
		c.hindered("", "checkpoints are not kept in version control", err)
		return false
	}
	kept := map[string]int64{}
	for _, v := range slices.Sorted(maps.Keys(due)) {
		size, err := c.keepCheckpoint(ctx, v)
		if err != nil {
			whole = false
			continue
		}
		kept[v] = size
	}
	if err := witness.Send(ctx, dir); err != nil {
		c.hindered("", "checkpoints are not sent to where the team's version control is", err)
		return false
	}
	c.anchor.mu.Lock()
	defer c.anchor.mu.Unlock()
	if c.anchor.why[""] != "" {
		delete(c.anchor.why, "")
		c.o.Log.Info("checkpoints are kept in version control again")
	}
	for v, size := range kept {
		delete(c.anchor.why, v)
		c.anchor.gate[v], c.anchor.size[v] = due[v], size
	}
	return whole
}

// keepCheckpoint commits how a release's ledger stands, of how many events.
func (c *Control) keepCheckpoint(ctx context.Context, version string) (size int64, err error) {
	what := "the checkpoint of " + version + " is not kept in version control"
	defer func() {
		if err != nil {
			c.hindered(version, what, err)
		}
	}()
	if err := c.o.Ledger.ConfirmLeader(ctx); err != nil {
		return 0, err // another may decide
	}
	if err := c.follows(ctx, version); err != nil { // others may have added to it
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
		what = "the checkpoint of " + version + " is kept in version control, and not time-stamped"
		if _, err := witness.CommitStamp(ctx, c.o.Checkpoints, version, c.o.Stamp); err != nil {
			return 0, err
		}
	}
	return signed.at.Size, nil
}

// compareKept holds every release that version control knows against the ledger, before
// anything is appended to it: also one that the ledger has lost.
func (c *Control) compareKept(ctx context.Context) error {
	if c.o.Checkpoints == "" {
		return nil
	}
	list, err := witness.Releases(c.o.Checkpoints)
	if err != nil {
		return err
	}
	for _, v := range list {
		if err := c.follows(ctx, v); err != nil {
			if ctx.Err() != nil {
				return err
			}
			c.hindered(v, "the checkpoint of "+v+" in version control says nothing", err)
		}
	}
	return nil
}

// follows holds what is in version control against the ledger. One that does not go on
// from there is in doubt.
func (c *Control) follows(ctx context.Context, version string) error {
	list, err := witness.Committed(c.o.Checkpoints, version)
	if err != nil {
		return err
	}
	_, key, err := c.o.Identity.checkpointKey()
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	file := filepath.Join(c.o.Checkpoints, "trysail/checkpoints", version+".note")
	why := ""
	var strange error
	for _, last := range slices.Backward(list) {
		// Only this fleet's own word is a reason to stop; what somebody else wrote after
		// it does not take it back.
		if _, err := evidence.ReadNote(last.Note, verifier); err != nil {
			strange = &strangeNoteError{file, last.Line, err}
			continue
		}
		size, root, err := c.rootAt(ctx, releaseStream(version), last.Size)
		switch {
		case err != nil:
			return err
		case size < last.Size:
			why = fmt.Sprintf("%s:%d has a checkpoint of %d events, and control has %d", file, last.Line, last.Size, size)
		case !bytes.Equal(root, last.Root[:]):
			why = fmt.Sprintf("the first %d events are not those of %s:%d", last.Size, file, last.Line)
		}
		break
	}
	c.doubt(releaseStream(version), fromVCS, why)
	return errors.Join(c.doubted(releaseStream(version)), strange)
}

// hindered keeps for people what went wrong; a round that ends well takes it back.
func (c *Control) hindered(version, what string, err error) {
	var doubted *DivergedError
	if errors.As(err, &doubted) {
		return // they are told in stronger words
	}
	if what == "" {
		what = "the checkpoint of " + version + " is not kept in version control"
	}
	why := what + ": " + err.Error()
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		why += " (" + h.Hint() + ")"
	}
	c.anchor.mu.Lock()
	known := c.anchor.why[version]
	c.anchor.why[version] = why
	c.anchor.mu.Unlock()
	if why != known {
		c.o.Log.Error(why + "; it is tried again")
	}
}

// notKept lists what keeps checkpoints from version control.
func (c *Control) notKept() []string {
	c.anchor.mu.Lock()
	defer c.anchor.mu.Unlock()
	var list []string
	for _, v := range slices.Sorted(maps.Keys(c.anchor.why)) {
		list = append(list, c.anchor.why[v])
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
