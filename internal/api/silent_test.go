package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestFetchBlob: a blob comes whole from a control that takes its time, and is given up
// where the control does not answer at all, before the first byte or after some.
func TestFetchBlob(t *testing.T) {
	const patience = 800 * time.Millisecond
	blob := bytes.Repeat([]byte("blob"), 1<<16)
	for _, x := range []struct {
		what   string
		sent   int           // bytes before it pauses
		pause  time.Duration // 0: for ever
		frozen bool          // it answers nothing else
		whole  bool
	}{
		{"it reads the blob first", 0, 3 * patience, false, true},
		{"its disk is slow", len(blob) / 2, 3 * patience, false, true},
		{"it is frozen for a moment", len(blob) / 2, patience * 3 / 2, true, true},
		{"it is frozen before it answers", 0, 0, true, false},
		{"it is frozen while it sends", len(blob) / 2, 0, true, false},
	} {
		t.Run(x.what, func(t *testing.T) {
			t.Parallel()
			frozen, over := atomic.Bool{}, make(chan struct{})
			control := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					if frozen.Load() {
						<-over
					}
					return
				}
				if x.sent > 0 {
					w.Write(blob[:x.sent])
					w.(http.Flusher).Flush()
				}
				frozen.Store(x.frozen)
				if x.pause == 0 {
					<-over
				}
				time.Sleep(x.pause)
				frozen.Store(false)
				rest := blob[x.sent:]
				w.Write(rest[:len(rest)/2])
				w.(http.Flusher).Flush()
				time.Sleep(patience) // until what was asked while it was frozen has no answer
				w.Write(rest[len(rest)/2:])
			}))
			defer control.Close()
			defer close(over) // before the server waits for its answers
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			begun := time.Now()
			var got []byte
			r, err := NewClient([]string{control.Listener.Addr().String()}, "", control.Client()).FetchBlob(ctx, "sha256:x", patience)
			if err == nil {
				got, err = io.ReadAll(r)
				err = errors.Join(err, r.Close())
			}
			var away *UnreachableError
			switch {
			case x.whole && (err != nil || !bytes.Equal(got, blob)):
				t.Errorf("%d bytes came: %v", len(got), err)
			case !x.whole && !errors.As(err, &away):
				t.Errorf("%d bytes came: %v", len(got), err)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("it waited for %s", took)
			}
		})
	}
}
