package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
	"trysail/internal/api"
)

// history are the events of a stream; what tells one history from another.
func history(n int, what string) [][]byte {
	var list [][]byte
	for i := range n {
		list = append(list, fmt.Appendf(nil, `{"seq":%d,"what":%q}`, i+1, what))
	}
	return list
}

// signer signs as control does.
func signer(t *testing.T) func(lines [][]byte) []byte {
	t.Helper()
	private, _, err := note.GenerateKey(rand.Reader, "trysail.fleet.0123")
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return func(lines [][]byte) []byte {
		t.Helper()
		var tree evidence.Tree
		for _, l := range lines {
			if err := tree.Add(l); err != nil {
				t.Fatal(err)
			}
		}
		root, err := tree.Root(tree.Size())
		if err != nil {
			t.Fatal(err)
		}
		signed, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Stream: "one", Size: tree.Size(), Root: root}.Text()}, key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
}

func text(lines [][]byte) string {
	return string(bytes.Join(append(slices.Clip(lines), nil), []byte("\n")))
}

// TestReplicas: an agent that begins mends a copy that is not what control gave it, keeps
// the damaged file, and tells control of nothing but what control signed. A copy that shows
// that control lost events stays as it is.
func TestReplicas(t *testing.T) {
	sign := signer(t)
	ten := history(10, "a")
	changed := slices.Clone(ten)
	changed[3] = []byte(`{"seq":4,"what":"x"}`)
	forked := slices.Concat(ten[:6], history(10, "b")[6:])
	for _, x := range []struct {
		what    string
		disk    string   // of the copy
		signed  [][]byte // under the note that is there; nil: there is none
		control [][]byte
		old     bool // control signs nothing

		after string // the copy
		aside bool   // the damaged one is kept
		tells int64  // events that control is told of in the end; -1: of none
		ready bool   // it says that all of it is on this disk
	}{
		{"nothing is there", "", nil, ten, false, text(ten), false, 10, true},
		{"all is there", text(ten), ten, ten, false, text(ten), false, 10, true},
		{"control has more", text(ten[:6]), ten[:6], ten, false, text(ten), false, 10, true},
		{"killed before the events were written", text(ten[:6]), ten[:8], ten, false, text(ten), false, 10, true},
		{"cut short", text(ten[:3]), ten, ten, false, text(ten), false, 10, true},
		{"gone", "", ten, ten, false, text(ten), false, 10, true},
		{"half a line", text(ten)[:200], ten, ten, false, text(ten), false, 10, true},
		{"written by two", text(ten) + text(ten[8:]), ten, ten, false, text(ten), true, 10, true},
		{"an event is missing", text(slices.Concat(ten[:3], ten[4:])), ten, ten, false, text(ten), true, 10, true},
		{"an event was changed", text(changed), ten, ten, false, text(ten), true, 10, true},
		{"an event was changed, and the end is gone", text(changed[:6]), ten, ten, false, text(ten), true, 10, true},
		{"no text at all", string(make([]byte, 5000)) + "\n", ten, ten, false, text(ten), true, 10, true},
		{"more than control signed", text(ten), ten[:8], ten[:8], false, text(ten[:8]), true, 8, true},
		{"the note is damaged too", text(changed) + "x\n", nil, ten, false, text(ten), true, 10, true},
		{"an older copy", text(ten), nil, ten, false, text(ten), false, 10, true},
		{"an older control", text(ten[:6]), ten[:6], ten, true, text(ten), false, 10, true},
		{"damaged, and an older control", text(changed), ten, ten, true, text(ten), true, 10, true},

		{"control was put back", text(ten), ten, ten[:6], false, text(ten), false, 10, false},
		{"control was put back and went on", text(ten), ten, append(slices.Clip(forked), []byte(`{"seq":11}`)), false, text(ten), false, 10, false},
		{"control was put back, and the copy is cut short", text(ten[:3]), ten, ten[:6], false, text(ten[:3]), false, 10, false},
		{"control was put back, and the copy is damaged", text(changed), ten, ten[:6], false, text(changed), false, 10, false},
	} {
		t.Run(x.what, func(t *testing.T) {
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				after, err := strconv.Atoi(r.URL.Query().Get("after"))
				if err != nil {
					t.Error(err)
				}
				if !x.old && after <= len(x.control) {
					w.Header().Set(api.CheckpointHeader, base64.StdEncoding.EncodeToString(sign(x.control)))
				}
				fmt.Fprint(w, text(x.control[min(after, len(x.control)):]))
			}))
			defer srv.Close()
			dir := t.TempDir()
			at := filepath.Join(dir, "ledger")
			if err := os.Mkdir(at, 0o700); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(at, "one.jsonl")
			if x.disk != "" {
				if err := os.WriteFile(file, []byte(x.disk), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if x.signed != nil {
				if err := os.WriteFile(filepath.Join(at, "one.note"), sign(x.signed), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var log bytes.Buffer
			a := &Agent{
				o:      Options{Client: api.NewClient([]string{srv.Listener.Addr().String()}, "", srv.Client()), Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))},
				behind: make(chan api.BeatAnswer),
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- a.keepCopies(ctx) }()
			a.behind <- api.BeatAnswer{Mark: "c.1", Streams: []api.Copied{{Stream: "one", Events: int64(len(x.control))}}}
			a.behind <- api.BeatAnswer{Mark: "c.1"} // the one before is done with
			cancel()
			<-ended
			after, err := os.ReadFile(file)
			if err != nil || string(after) != x.after {
				t.Errorf("the copy is %q, want %q (%v)", after, x.after, err)
			}
			kept, err := os.ReadFile(file + ".damaged-1")
			if (err == nil) != x.aside || (x.aside && string(kept) != x.disk) {
				t.Errorf("kept of the damaged one: %q (%v)", kept, err)
			}
			told := a.copies["one"]
			if told.Events != x.tells || (told.Signature == "") != x.old {
				t.Errorf("control is told of %d events, want %d (signed: %q)", told.Events, x.tells, told.Signature)
			}
			// An answer that names nothing counts as copied, so it tells nothing here.
			if x.ready != !bytes.Contains(log.Bytes(), []byte("control lost some")) {
				t.Errorf("it says\n%s", &log)
			}
			if x.ready {
				for _, l := range []string{"cannot", "err="} {
					if bytes.Contains(log.Bytes(), []byte(l)) {
						t.Errorf("it says\n%s", &log)
					}
				}
			}
		})
	}
}
