package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"
)

// A control that was frozen keeps its connections: its kernel answers for it, and who
// waits for the rest of a blob waits for as long as it is frozen. Nor can a blob be given
// a deadline: it may be large, and a control reads all of it before it sends any. So
// where nothing came for a while, control is asked something small.

// FetchBlob is [Client.GetBlob] of the control that is asked next, and of no other. It ends
// with an [UnreachableError] when nothing came for as long as there is patience, and
// then no answer to a question either.
func (c *Client) FetchBlob(ctx context.Context, digest string, patience time.Duration) (io.ReadCloser, error) {
	f := &fetched{from: NewClient([]string{c.Address()}, c.token, c.http), digest: digest, patience: patience}
	f.ctx, f.stop = context.WithCancelCause(ctx)
	f.late = time.AfterFunc(math.MaxInt64, f.ask)
	err := f.wait(func() (err error) {
		f.body, err = f.from.GetBlob(f.ctx, digest)
		return err
	})
	if err != nil {
		f.end()
		return nil, err
	}
	return f, nil
}

// fetched is a blob on its way.
type fetched struct {
	from     *Client
	digest   string
	patience time.Duration
	ctx      context.Context // of this one request
	stop     context.CancelCauseFunc
	body     io.ReadCloser
	late     *time.Timer
	waited   atomic.Int64 // how often something came that was waited for
}

// wait does what waits for control, and says why it was given up if it was.
func (f *fetched) wait(do func() error) error {
	f.late.Reset(f.patience)
	err := do()
	f.waited.Add(1)
	f.late.Stop()
	var silent *UnreachableError
	if err != nil && errors.As(context.Cause(f.ctx), &silent) {
		return silent
	}
	return err
}

// ask gives up what does not come, unless control answers: then it is at it.
func (f *fetched) ask() {
	waited := f.waited.Load()
	ctx, cancel := context.WithTimeout(f.ctx, f.patience)
	defer cancel()
	_, err := f.from.HasBlob(ctx, f.digest)
	var said *Problem
	switch {
	case f.waited.Load() != waited: // it came meanwhile
	case err == nil, errors.As(err, &said):
		f.late.Reset(f.patience)
	default:
		f.stop(&UnreachableError{f.from.Address(), false, fmt.Errorf("nothing of the blob came for %s: %w", f.patience, err)})
	}
}

func (f *fetched) end() {
	f.late.Stop()
	f.stop(nil)
}

func (f *fetched) Read(p []byte) (n int, err error) {
	err = f.wait(func() error {
		n, err = f.body.Read(p)
		return err
	})
	return n, err
}

func (f *fetched) Close() error {
	f.end()
	return f.body.Close()
}
