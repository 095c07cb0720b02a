package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/evidence"
	"trysail/internal/api"
)

// releaseCheckpoint prints a signed word on how a release's ledger stands, or
// holds one that was kept against it.
func (a *app) releaseCheckpoint(ctx context.Context, version string, o releaseOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	path := "/releases/" + version + "/checkpoint"
	var kept []byte
	var old *evidence.Checkpoint
	if o.since != "" {
		if kept, err = os.ReadFile(o.since); err != nil {
			return err
		}
		// Whose it is will be seen: first how long it is.
		if old, err = evidence.ReadNote(kept, nil); err != nil {
			return fmt.Errorf("%s: %w", o.since, err)
		}
	}
	var now api.Checkpoint
	if err := c.Do(ctx, http.MethodGet, path, nil, &now); err != nil {
		return err
	}
	verifier, err := note.NewVerifier(now.Key)
	if err != nil {
		return fmt.Errorf("control's key: %w", err)
	}
	at, err := evidence.ReadNote([]byte(now.Note), verifier)
	if err != nil {
		return fmt.Errorf("control's checkpoint: %w", err)
	}
	if old == nil {
		return a.printCheckpoint(now, *at, "", o.key)
	}
	if _, err := evidence.ReadNote(kept, verifier); err != nil {
		return a.printCheckpoint(now, *at, fmt.Sprintf("%s is not signed by this fleet: %v", o.since, err), o.key)
	}
	if old.Stream != at.Stream {
		return a.printCheckpoint(now, *at, fmt.Sprintf("%s is of %s", o.since, old.Stream), o.key)
	}
	if old.Size > at.Size {
		return a.printCheckpoint(now, *at, fmt.Sprintf("the ledger had %d events, and has %d", old.Size, at.Size), o.key)
	}
	if old.Size > 0 {
		if err := c.Do(ctx, http.MethodGet, fmt.Sprintf("%s?since=%d", path, old.Size), nil, &now); err != nil {
			return err
		}
		// It may have grown in between.
		if at, err = evidence.ReadNote([]byte(now.Note), verifier); err != nil {
			return fmt.Errorf("control's checkpoint: %w", err)
		}
		var proof tlog.TreeProof
		for _, h := range now.Proof {
			var x tlog.Hash
			copy(x[:], h)
			proof = append(proof, x)
		}
		if err := tlog.CheckTree(proof, at.Size, at.Root, old.Size, old.Root); err != nil {
			return a.printCheckpoint(now, *at, fmt.Sprintf("the first %d events are not those of %s: the ledger was changed", old.Size, o.since), o.key)
		}
	}
	return a.printCheckpoint(now, *at, "", o.key)
}

// printCheckpoint gives the answer: the note, and why it does not follow the one
// that was kept.
func (a *app) printCheckpoint(c api.Checkpoint, at evidence.Checkpoint, broken string, key bool) error {
	switch {
	case a.json:
		if err := a.printJSON(struct {
			Events int64  `json:"events"`
			Note   string `json:"note"`
			Key    string `json:"key"`
			Broken string `json:"broken,omitempty"`
		}{at.Size, c.Note, c.Key, broken}); err != nil {
			return err
		}
	case broken != "":
		fmt.Fprintln(a.stderr, "Broken:", broken)
	case key:
		a.printf("%s\n", c.Key)
	default:
		a.printf("%s", c.Note)
	}
	if broken != "" {
		return answerNo{}
	}
	return nil
}
