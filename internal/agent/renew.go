package agent

import (
	"context"
	"time"
)

// renewing is how often an agent looks whether its certificate ends soon.
const renewing = 10 * time.Second

// renews ends when ctx does. Months are left when the first try is made, so one that
// fails is no trouble yet, and is said.
func (a *Agent) renews(ctx context.Context) error {
	t := time.NewTicker(renewing)
	defer t.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		tried, cancel := context.WithTimeout(ctx, renewing)
		err := a.o.Renew(tried)
		cancel()
		switch {
		case ctx.Err() != nil:
		case err == nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			a.o.Log.Warn("this machine's certificate is not renewed", "err", err)
		}
	}
}
