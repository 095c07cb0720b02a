package depot

import (
	"context"
	"io"
)

// PutWritten is Put for what a function writes.
func (d *Depot) PutWritten(ctx context.Context, write func(io.Writer) error) (string, int64, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		done <- err
	}()
	dg, n, err := d.Put(ctx, r)
	r.CloseWithError(err)
	if werr := <-done; err == nil {
		err = werr
	}
	return dg, n, err
}
