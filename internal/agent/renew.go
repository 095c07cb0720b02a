package agent

import (
	"context"
	"time"
)

// renewing is how often an agent looks whether its certificate ends soon, and how long
// it may take to have it made anew.
const renewing = 10 * time.Second

// renews ends when ctx does. Months are left when the first try is made, so one that
// fails is no trouble yet: it is said, and the next comes later and later.
func (a *Agent) renews(ctx context.Context) error {
	for wait := renewing; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		tried, cancel := context.WithTimeout(ctx, renewing)
		err := a.o.Renew(tried)
		cancel()
		if err == nil {
			wait = renewing
		} else if ctx.Err() == nil {
			wait = min(4*wait, time.Hour)
			a.o.Log.Warn("this machine's certificate is not renewed", "err", err)
		}
	}
}
