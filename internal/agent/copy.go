package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"

	"trysail/evidence"
	"trysail/internal/api"
	"trysail/internal/ledger"
)

// keepCopies ends when ctx does. It fetches what control has and this disk has
// not; the next report says so, after it was synced.
func (a *Agent) keepCopies(ctx context.Context) error {
	dir := filepath.Join(a.o.Dir, "ledger")
	open := map[string]*ledger.Copy{}
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	// All that is there is told before control is, so that it can see what it lost.
	names, err := ledger.Replicas(dir)
	if err != nil {
		a.o.Log.Error("copies of the ledger", "err", err)
	}
	copies := map[string]api.Copy{}
	for _, name := range names {
		c, told := a.openCopy(dir, name)
		if c != nil {
			open[name] = c
		}
		if told != nil {
			copies[name] = *told
		}
	}
	a.mu.Lock()
	a.copies = copies
	a.mu.Unlock()
	a.hasten()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case answer := <-a.behind:
			all := true
			for _, s := range answer.Streams {
				var c *ledger.Copy
				err := a.transferred(ctx, func(ctx context.Context) (err error) {
					c, err = a.bring(ctx, dir, open[s.Stream], s)
					return err
				})
				delete(open, s.Stream)
				if c != nil {
					open[s.Stream] = c
				}
				if err != nil {
					all = false
					if ctx.Err() == nil {
						a.o.Log.Error("copy of the ledger", "stream", s.Stream, "err", err)
					}
				}
			}
			if all { // else control names them again
				a.mu.Lock()
				grew := a.copied != answer.Mark
				a.copied = answer.Mark
				a.mu.Unlock()
				if grew {
					a.hasten() // somebody may wait for it
				}
			}
		}
	}
}

// openCopy opens the copy of a release's ledger. It also returns what the agent reports of
// it: the checkpoint that control signed for it. A damaged copy is reported as damaged and
// not opened; repair makes it anew.
func (a *Agent) openCopy(dir, stream string) (c *ledger.Copy, told *api.Copy) {
	r, note, err := ledger.Examine(dir, stream)
	if err == nil && r.Damage == "" {
		c, err = ledger.OpenCopy(dir, stream)
	}
	if err != nil {
		a.o.Log.Error("copy of the ledger", "stream", stream, "err", err)
		return nil, nil
	}
	if c != nil {
		a.count(c.Size())
	} else {
		a.o.Log.Error("a copy of the ledger is damaged: it is fetched again", "stream", stream, "why", r.Damage)
	}
	switch {
	case r.Signed != nil:
		told = &api.Copy{Stream: stream, Events: r.Signed.Size, Root: r.Signed.Root[:], Signature: evidence.Signature(note)}
	case c != nil:
		told = &api.Copy{Stream: stream, Events: r.Events, Root: r.Root[:]}
	}
	return c, told
}

// count counts events that are on this disk.
func (a *Agent) count(events int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events += events
}

// tells keeps for the next report what there is of a stream.
func (a *Agent) tells(x api.Copy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.copies[x.Stream].Signature != x.Signature {
		delete(a.shown, x.Stream)
	}
	a.copies[x.Stream] = x
}

// show gives the run of control that was told of all copies, and those that grew
// since. Of another run than the one that answers it is asked anew. The lock is held.
func (a *Agent) show() (control string, list []api.Copy) {
	for _, name := range slices.Sorted(maps.Keys(a.copies)) {
		if n, ok := a.shown[name]; !ok || n != a.copies[name].Events {
			list = append(list, a.copies[name])
		}
	}
	return a.told, list
}

// showed notes what a run of control has been told, and tells whether there is
// more to tell at once: it is another than the one that the report was for. The
// lock is held.
func (a *Agent) showed(b api.Beat, control string) (more bool) {
	if control != b.Control {
		a.shown = map[string]int64{}
		if a.copies == nil {
			return false // the copy loop is about to look
		}
		a.told = control
		return true
	}
	for _, c := range b.Copies {
		a.shown[c.Stream] = c.Events
	}
	return false
}

// bring brings the copy of a stream to the length that an answer named, or further, and
// gives it back: nil if it is damaged and could not be made anew.
func (a *Agent) bring(ctx context.Context, dir string, c *ledger.Copy, s api.Copied) (*ledger.Copy, error) {
	if c == nil {
		r, _, err := ledger.Examine(dir, s.Stream)
		if err != nil {
			return nil, err
		}
		if r.Damage != "" {
			return a.repair(ctx, dir, s.Stream, r)
		}
		if c, err = ledger.OpenCopy(dir, s.Stream); err != nil {
			return nil, err
		}
		a.count(c.Size())
	}
	had := c.Size()
	err := a.follow(ctx, c, s.Stream, s.Events)
	a.count(c.Size() - had)
	var other *ledger.OtherHistoryError
	if !errors.As(err, &other) {
		return c, err
	}
	// This disk or control has another history: what control signed says which.
	a.count(-c.Size())
	if err := c.Close(); err != nil {
		return nil, err
	}
	r, _, err := ledger.Examine(dir, s.Stream)
	if err != nil {
		return nil, err
	}
	return a.repair(ctx, dir, s.Stream, r)
}

// follow appends to a copy what control has more. The answer may be an older one than that
// after which this copy grew, so before it says that control has lost events it asks for
// the last that this disk has.
func (a *Agent) follow(ctx context.Context, c *ledger.Copy, stream string, events int64) error {
	size := c.Size()
	if size > events {
		last, _, err := a.lines(ctx, stream, size-1)
		if err == nil && len(last) == 0 {
			err = fmt.Errorf("control has %d events and this copy %d: control lost some, which trysail release status says too", events, size)
		}
		return err
	}
	a.mu.Lock()
	signed := a.copies[stream].Events == size && a.copies[stream].Signature != ""
	a.mu.Unlock()
	if size == events && signed {
		return nil
	}
	lines, note, err := a.lines(ctx, stream, size)
	if err == nil && len(lines) == 0 && size < events {
		err = errors.New("the events came cut short")
	}
	if err == nil && (len(lines) > 0 || note != nil) {
		err = c.Extend(lines, note)
	}
	if err != nil {
		return err
	}
	root, err := c.Tree.Root(c.Size())
	if err != nil {
		return err
	}
	a.tells(api.Copy{Stream: stream, Events: c.Size(), Root: root[:], Signature: evidence.Signature(note)})
	return nil
}

// repair makes a copy anew from control, if what control signed for it shows that control
// is right. The damaged file is kept.
func (a *Agent) repair(ctx context.Context, dir, stream string, r evidence.Replica) (*ledger.Copy, error) {
	lines, note, err := a.lines(ctx, stream, 0)
	if err != nil {
		return nil, err
	}
	var has evidence.Tree
	for _, l := range lines {
		if err := has.Add(l); err != nil {
			return nil, err
		}
	}
	finding, err := r.Against(&has)
	switch {
	case err != nil:
		return nil, err
	case finding == evidence.ControlLost:
		return nil, fmt.Errorf("control had signed %d events of it and has %d, or others: control lost some, which trysail release status says too", r.Signed.Size, has.Size())
	case finding == evidence.Unproven:
		return nil, errors.New("control has other events than this copy, and no signature says which are right")
	}
	if note != nil {
		root, err := has.Root(has.Size())
		if err != nil {
			return nil, err
		}
		signed, err := evidence.ReadNote(note, nil)
		if err != nil {
			return nil, err
		}
		if *signed != (evidence.Checkpoint{Stream: stream, Size: has.Size(), Root: root}) {
			return nil, fmt.Errorf("what control signed is not of the %d events that came", has.Size())
		}
	}
	aside, err := ledger.Replace(dir, stream, lines, note)
	if err != nil {
		return nil, err
	}
	a.o.Log.Warn("a copy of the ledger was damaged, and was fetched again", "stream", stream, "why", r.Damage, "events", len(lines), "kept", aside)
	c, told := a.openCopy(dir, stream)
	if c == nil {
		return nil, errors.New("the copy that was just made cannot be opened")
	}
	a.tells(*told)
	return c, nil
}

// lines are the events of a stream after one, as control has them, and the note that it
// signed of all up to the last of them; nil from an older control.
func (a *Agent) lines(ctx context.Context, stream string, after int64) (lines [][]byte, note []byte, err error) {
	res, err := a.o.Client.Open(ctx, http.MethodGet, fmt.Sprintf("/streams/%s?after=%d", stream, after), nil, nil)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, nil, err
	}
	if text := res.Header.Get(api.CheckpointHeader); text != "" {
		if note, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, nil, fmt.Errorf("what control signed of %s: %w", stream, err)
		}
	}
	switch {
	case len(data) == 0:
		return nil, note, nil
	case data[len(data)-1] != '\n':
		return nil, nil, errors.New("the events came cut short")
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")), note, nil
}
