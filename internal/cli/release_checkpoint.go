package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/tree"
	"trysail/internal/witness"
)

// checkpointOptions say what a checkpoint is held against, and where it is kept.
type checkpointOptions struct {
	since  string // one that was kept
	key    bool
	commit bool // into the working copy
	push   bool
	stamp  string // address of a time stamping authority
	into   string
}

// releaseCheckpoint prints the signed head of a release's ledger, holds one
// that was kept against it, and keeps it elsewhere.
func (a *app) releaseCheckpoint(ctx context.Context, version string, o checkpointOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	switch {
	case o.push && !o.commit:
		return usage("--push needs --commit")
	case o.stamp != "" && o.into == "" && !o.commit:
		return usage("say where checkpoint and time stamp go: --into FILE, or --commit")
	}
	var kept []byte
	from := o.since
	if o.since != "" {
		if kept, err = tree.ReadFile(o.since, maxDocument); err != nil {
			return err
		}
	} else if o.commit { // what stands there already is to be the beginning
		list, err := witness.Committed(".", version)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			kept, from = list[len(list)-1].Note, "the checkpoint in version control"
		}
	}
	now, at, broken, err := follows(ctx, c, version, kept, from)
	if err != nil || broken != "" {
		return errors.Join(err, a.printCheckpoint(now, at, broken, o.key))
	}
	if o.commit {
		if err := a.commitCheckpoint(ctx, version, []byte(now.Note), o); err != nil {
			return err
		}
	}
	if o.into != "" {
		if err := tree.WriteFile(o.into, []byte(now.Note), 0o644); err != nil {
			return err
		}
	}
	if o.stamp != "" && o.into != "" {
		token, err := stamp(ctx, o.stamp, []byte(now.Note))
		if err != nil {
			return err
		}
		if err := tree.WriteFile(o.into+witness.StampEnd, token, 0o644); err != nil {
			return err
		}
	}
	return a.printCheckpoint(now, at, "", o.key)
}

// commitCheckpoint keeps a checkpoint in the working copy's version control.
func (a *app) commitCheckpoint(ctx context.Context, version string, note []byte, o checkpointOptions) error {
	said := func(revision string, err error) error {
		if revision != "" {
			fmt.Fprintf(a.stderr, "Committed as %s.\n", revision)
		}
		return err
	}
	if err := said(witness.Commit(ctx, ".", version, note)); err != nil {
		return err
	}
	if o.stamp != "" {
		if err := said(witness.CommitStamp(ctx, ".", version, stamper(o.stamp))); err != nil {
			return err
		}
	}
	if o.push {
		return said(witness.Commit(ctx, ".", version, note, witness.Push))
	}
	return nil
}

// stamper asks one authority.
func stamper(address string) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, data []byte) ([]byte, error) { return stamp(ctx, address, data) }
}

func stamp(ctx context.Context, address string, data []byte) ([]byte, error) {
	return witness.Stamp(ctx, &http.Client{Timeout: time.Minute}, address, data)
}

// follows asks for a checkpoint, and says what is wrong if it does not follow the one
// that was kept.
func follows(ctx context.Context, c *api.Client, version string, kept []byte, from string) (now api.Checkpoint, at evidence.Checkpoint, broken string, err error) {
	path := "/releases/" + version + "/checkpoint"
	var old *evidence.Checkpoint
	if kept != nil {
		// Whose it is will be seen: first how long it is.
		if old, err = evidence.ReadNote(kept, nil); err != nil {
			return now, at, "", fmt.Errorf("%s: %w", from, err)
		}
	}
	if err := c.Do(ctx, http.MethodGet, path, nil, &now); err != nil {
		return now, at, "", err
	}
	verifier, err := note.NewVerifier(now.Key)
	if err != nil {
		return now, at, "", fmt.Errorf("control's key: %w", err)
	}
	read := func() error {
		p, err := evidence.ReadNote([]byte(now.Note), verifier)
		if err != nil {
			return fmt.Errorf("control's checkpoint: %w", err)
		}
		at = *p
		return nil
	}
	if err := read(); err != nil || old == nil {
		return now, at, "", err
	}
	if _, err := evidence.ReadNote(kept, verifier); err != nil {
		return now, at, fmt.Sprintf("%s is not signed by this fleet: %v", from, err), nil
	}
	if old.Stream != at.Stream {
		return now, at, fmt.Sprintf("%s is of %s", from, old.Stream), nil
	}
	if old.Size > at.Size {
		return now, at, fmt.Sprintf("the ledger had %d events, and has %d", old.Size, at.Size), nil
	}
	if old.Size == 0 {
		return now, at, "", nil
	}
	if err := c.Do(ctx, http.MethodGet, fmt.Sprintf("%s?since=%d", path, old.Size), nil, &now); err != nil {
		return now, at, "", err
	}
	if err := read(); err != nil { // it may have grown in between
		return now, at, "", err
	}
	var proof tlog.TreeProof
	for _, h := range now.Proof {
		var x tlog.Hash
		copy(x[:], h)
		proof = append(proof, x)
	}
	if err := tlog.CheckTree(proof, at.Size, at.Root, old.Size, old.Root); err != nil {
		broken = fmt.Sprintf("the first %d events are not those of %s: the ledger was changed", old.Size, from)
	}
	return now, at, broken, nil
}

// printCheckpoint gives the answer: the note, and why it does not follow the one
// that was kept.
func (a *app) printCheckpoint(c api.Checkpoint, at evidence.Checkpoint, broken string, key bool) error {
	switch {
	case c.Note == "":
		return nil // there was none
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
		a.print(c.Note)
	}
	if broken != "" {
		return answerNo{}
	}
	return nil
}
