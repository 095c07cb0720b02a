package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestAsks: who is asked at the terminal approves or not, and why; and a drill that ends
// waits for nobody who says nothing.
func TestAsks(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader("y fine\nno, it leaks\n"), stderr: &out, ui: newUI(&out, false)}
	ask := a.asks(t.Context())
	for _, x := range []struct {
		yes    bool
		reason string
		err    string
	}{{true, "fine", ""}, {false, "it leaks", ""}, {false, "", "nobody answered"}} {
		yes, reason, err := ask(t.Context(), "ann", "review", "look at it")
		if yes != x.yes || reason != x.reason || (err == nil) != (x.err == "") || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%t %q %v, and not %+v", yes, reason, err, x)
		}
	}
	if s := out.String(); !strings.Contains(s, "ann, review is for you: look at it") {
		t.Errorf("asked: %s", s)
	}

	silent, w := io.Pipe()
	defer w.Close()
	a.stdin = silent
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, stop)
	answered := make(chan error, 1)
	go func() {
		_, _, err := a.asks(t.Context())(ctx, "ann", "review", "look at it")
		answered <- err
	}()
	select {
	case err := <-answered:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the drill was ended: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the drill was ended, and still waits for an answer")
	}
}
