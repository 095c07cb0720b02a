package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"

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
					a.safe(c.Size())
				}
				had := c.Size()
				if err := a.follow(ctx, c, s.Stream, s.Events); err != nil {
					all = false
					if ctx.Err() == nil {
						a.o.Log.Error("copy of the ledger", "stream", s.Stream, "err", err)
					}
				}
				a.safe(c.Size() - had)
			}
			if all { // else control names them again
				a.mu.Lock()
				a.copied = answer.Mark
				a.mu.Unlock()
			}
		}
	}
}

// safe counts events that are on this disk.
func (a *Agent) safe(events int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events += events
}

func (a *Agent) follow(ctx context.Context, c *ledger.Copy, stream string, events int64) error {
	if c.Size() > events {
		return fmt.Errorf("control has %d events and this copy %d: control lost some; trysail serve --recover brings them back", events, c.Size())
	}
	if c.Size() == events {
		return nil
	}
	res, err := a.o.Client.Open(ctx, http.MethodGet, fmt.Sprintf("/streams/%s?after=%d", stream, c.Size()), nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if len(data) == 0 || data[len(data)-1] != '\n' {
		return errors.New("the events came cut short")
	}
	return c.Append(c.Size(), bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")))
}
