package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"trysail/release"
)

// Events reads the ledger of a release as it is now.
func (c *Client) Events(ctx context.Context, version string) ([]release.Event, error) {
	res, err := c.Open(ctx, http.MethodGet, "/releases/"+version+"/events", nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	list, in := []release.Event{}, &io.LimitedReader{R: res.Body, N: maxLedger}
	for d := json.NewDecoder(in); ; {
		var e release.Event
		if err := d.Decode(&e); errors.Is(err, io.EOF) && in.N > 0 {
			return list, nil
		} else if in.N <= 0 {
			return nil, fmt.Errorf("the ledger of release %s has more than %d MB", version, maxLedger>>20)
		} else if err != nil {
			return nil, fmt.Errorf("the ledger of release %s: %w", version, err)
		}
		list = append(list, e)
	}
}

// Follow gives the events of a release after the one with a number, each a line of
// JSON, as they happen. Whoever is cut off, or whose control is gone, goes on after
// the last one. It ends when event says that it has seen enough, or with its error,
// or ctx's, or control's.
func (c *Client) Follow(ctx context.Context, version string, after int64, event func(line []byte) (enough bool, err error)) error {
	for {
		enough, err := c.follow(ctx, version, &after, event)
		var away *UnreachableError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case enough, err != nil && !errors.As(err, &away):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(asking):
		}
	}
}

// maxEvent bounds the line of one event: more than any request that made one may have.
const maxEvent = 16 << 20

// follow does so until it is cut off.
func (c *Client) follow(ctx context.Context, version string, after *int64, event func(line []byte) (bool, error)) (enough bool, err error) {
	res, err := c.Open(ctx, http.MethodGet, "/releases/"+version+"/events", nil, http.Header{
		"Accept": {"text/event-stream"}, "Last-Event-Id": {strconv.FormatInt(*after, 10)},
	})
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if enough, err := event(data); enough || err != nil {
			return enough, err
		}
		*after++ // they are numbered without a gap
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return false, lines.Err()
	}
	return false, nil // cut off
}
