package agent

import (
	"cmp"
	"context"
	"errors"
	"time"

	"trysail/internal/api"
)

// sends ends when ctx does. It sends blobs that control asked for and this
// machine's depot has; what could not be sent is asked for again.
func (a *Agent) sends(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case digests := <-a.wanted:
			for _, dg := range digests {
				if !a.o.Depot.Has(dg) {
					continue
				}
				if err := a.send(ctx, dg); err != nil && ctx.Err() == nil {
					a.o.Log.Warn("send what control lost", "digest", dg, "err", err)
				}
			}
		}
	}
}

// A control that was frozen takes a request and never answers: its kernel keeps the
// connection. So what is small has a deadline, and what may take as long as it is
// large ends when another control has answered a report.

// answering is for how long control may be at a request that is small.
const answering = 20 * time.Second

// briefly is ctx for one try of such a request.
func (a *Agent) briefly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, cmp.Or(a.patience, answering))
}

// transfer is a request for which no deadline can be given.
type transfer struct {
	address string // of the control that was to be asked
	stop    context.CancelCauseFunc
}

// transferred does it. If another control decides by now it ends as if the one that
// was asked had not answered: it is to be tried again.
func (a *Agent) transferred(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	t := &transfer{a.o.Client.Address(), stop}
	a.mu.Lock()
	if a.transfers == nil {
		a.transfers = map[*transfer]bool{}
	}
	a.transfers[t] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.transfers, t)
	}()
	err := do(ctx)
	var moved *api.UnreachableError
	if err != nil && errors.As(context.Cause(ctx), &moved) {
		return moved
	}
	return err
}

// leave ends what was asked of another control than the one that has just answered.
// The lock is held.
func (a *Agent) leave(answered string) {
	for t := range a.transfers {
		if t.address != answered {
			t.stop(&api.UnreachableError{Address: t.address, Sent: true, Err: errors.New("another control decides by now")})
		}
	}
}
