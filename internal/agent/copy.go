package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"

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
	names, err := ledger.Copies(dir)
	if err != nil {
		a.o.Log.Error("copies of the ledger", "err", err)
	}
	for _, name := range names {
		c, err := ledger.OpenCopy(dir, name)
		if err != nil {
			a.o.Log.Error("copy of the ledger", "stream", name, "err", err)
			continue
		}
		open[name] = c
		a.safe(name, c, c.Size())
	}
	a.mu.Lock()
	if a.copies == nil {
		a.copies = map[string]api.Copy{}
	}
	a.mu.Unlock()
	a.hasten()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case answer := <-a.behind:
			all := true
			for _, s := range answer.Streams {
				c := open[s.Stream]
				if c == nil {
					var err error
					if c, err = ledger.OpenCopy(dir, s.Stream); err != nil {
						all = false
						a.o.Log.Error("copy of the ledger", "stream", s.Stream, "err", err)
						continue
					}
					open[s.Stream] = c
					a.safe(s.Stream, c, c.Size())
				}
				had := c.Size()
				if err := a.transferred(ctx, func(ctx context.Context) error { return a.follow(ctx, c, s.Stream, s.Events) }); err != nil {
					all = false
					if ctx.Err() == nil {
						a.o.Log.Error("copy of the ledger", "stream", s.Stream, "err", err)
					}
				}
				a.safe(s.Stream, c, c.Size()-had)
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

// safe counts events that are on this disk, and keeps for the next report what
// the copy of them amounts to.
func (a *Agent) safe(stream string, c *ledger.Copy, events int64) {
	root, err := c.Tree.Root(c.Size())
	if err != nil {
		a.o.Log.Error("copy of the ledger", "stream", stream, "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events += events
	if a.copies == nil {
		a.copies = map[string]api.Copy{}
	}
	a.copies[stream] = api.Copy{Stream: stream, Events: c.Size(), Root: root[:]}
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

// follow brings a copy to the length that an answer named, or further. The answer may
// be an older one than that after which this copy grew, so before it says that control
// has lost events it asks for the last that this disk has.
func (a *Agent) follow(ctx context.Context, c *ledger.Copy, stream string, events int64) error {
	size := c.Size()
	if size == events {
		return nil
	}
	if size > events {
		last, err := a.lines(ctx, stream, size-1)
		if err == nil && len(last) == 0 {
			err = fmt.Errorf("control has %d events and this copy %d: control lost some; trysail serve --recover brings them back", events, size)
		}
		return err
	}
	lines, err := a.lines(ctx, stream, size)
	if err == nil && len(lines) == 0 {
		err = errors.New("the events came cut short")
	}
	if err != nil {
		return err
	}
	return c.Append(size, lines)
}

// lines are the events of a stream after one, as control has them.
func (a *Agent) lines(ctx context.Context, stream string, after int64) ([][]byte, error) {
	res, err := a.o.Client.Open(ctx, http.MethodGet, fmt.Sprintf("/streams/%s?after=%d", stream, after), nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, err
	case len(data) == 0:
		return nil, nil
	case data[len(data)-1] != '\n':
		return nil, errors.New("the events came cut short")
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")), nil
}
