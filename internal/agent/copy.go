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
		case streams := <-a.behind:
			for _, s := range streams {
				c := open[s.Stream]
				if c == nil {
					var err error
					if c, err = ledger.OpenCopy(dir, s.Stream); err != nil {
						a.o.Log.Error("copy of the ledger", "stream", s.Stream, "err", err)
						continue
					}
					open[s.Stream] = c
				}
				if err := a.follow(ctx, c, s.Stream, s.Events); err != nil && ctx.Err() == nil {
					a.o.Log.Error("copy of the ledger", "stream", s.Stream, "err", err)
				}
				a.mu.Lock()
				a.copies[s.Stream] = c.Size()
				a.mu.Unlock()
			}
		}
	}
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
