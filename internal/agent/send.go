package agent

import "context"

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
