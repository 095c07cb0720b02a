package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/release"
)

// Ledger is a release's ledger as control gives it, held against its checkpoint.
type Ledger struct {
	Lines  [][]byte
	Events []release.Event
	State  *release.State
	Note   string // the signed checkpoint
	Key    string // that verifies it
	Tree   *evidence.Tree
}

// ReadLedger reads the ledger of a release whole, and refuses one that is not what the
// control of that fingerprint signed.
func ReadLedger(ctx context.Context, c *Client, version, fingerprint string) (*Ledger, error) {
	var at Checkpoint
	if err := c.Do(ctx, http.MethodGet, "/releases/"+version+"/checkpoint", nil, &at); err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(at.Key)
	if err != nil {
		return nil, fmt.Errorf("control's key: %w", err)
	}
	now, err := evidence.ReadNote([]byte(at.Note), verifier)
	if err != nil {
		return nil, fmt.Errorf("control's checkpoint: %w", err)
	}
	if want := evidence.LedgerName(fingerprint); verifier.Name() != want {
		return nil, &evidence.Error{What: fmt.Sprintf("control signs its ledger as %s, and is %s", verifier.Name(), want), Remedy: "it is not the control that your link is to: ask whoever runs it"}
	}
	res, err := c.Open(ctx, http.MethodGet, "/releases/"+version+"/events", nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	l := &Ledger{Note: at.Note, Key: at.Key, Tree: &evidence.Tree{}, State: release.Empty()}
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, maxEvent)
	for in.Scan() && l.Tree.Size() < now.Size { // it may have grown since
		line := bytes.Clone(in.Bytes())
		var e release.Event
		if err := e.UnmarshalJSON(line); err != nil {
			return nil, err
		}
		if err := errors.Join(l.Tree.Add(line), l.State.Apply(e)); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Seq, err)
		}
		l.Lines, l.Events = append(l.Lines, line), append(l.Events, e)
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	root, err := l.Tree.Root(l.Tree.Size())
	if err != nil {
		return nil, err
	}
	if l.Tree.Size() != now.Size || root != now.Root || now.Stream != evidence.Stream(version) {
		return nil, errors.New("control's ledger is not the one that it signed")
	}
	return l, nil
}
