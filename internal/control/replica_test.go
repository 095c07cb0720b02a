package control

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"trysail/evidence"
	"trysail/internal/api"
)

// TestSignedCopy: control signs what it gives a machine to keep, of every stream; that
// signature, and none that somebody else makes, proves that control lost events.
func TestSignedCopy(t *testing.T) {
	at := &wall{time.Now()}
	c, _ := working(t, at)
	started(t, c, "1")
	joins(t, c, "m")
	hears(c, "m", time.Now())
	secret, err := c.LocalToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(c.Handler())
	defer srv.Close()
	copied := func(stream, after string) *evidence.Checkpoint {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/v1/streams/"+stream+"?after="+after, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text := res.Header.Get(api.CheckpointHeader)
		if text == "" {
			return nil
		}
		signed, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		key, err := c.checkpointVerifier()
		if err != nil {
			t.Fatal(err)
		}
		got, err := evidence.ReadNote(signed, key)
		if err != nil {
			t.Fatal(err)
		}
		if x := (api.Copy{Stream: got.Stream, Events: got.Size, Root: got.Root[:], Signature: evidence.Signature(signed)}); c.compare(t.Context(), "m", []api.Copy{x}) != nil || c.doubted(stream) != nil {
			t.Errorf("a copy of %s as control signed it is in doubt: %v", stream, c.doubted(stream))
		}
		return got
	}
	for stream, events := range map[string]int64{"release.1": 1, fleetStream: 1} {
		if got := copied(stream, "0"); got == nil || got.Stream != stream || got.Size != events {
			t.Errorf("control signs %v of %s, want %d events", got, stream, events)
		}
	}
	if got := copied(AccessStream, "0"); got == nil || got.Stream != AccessStream || got.Size < 1 {
		t.Errorf("control signs %v of who may ask what", got)
	}
	if got := copied("release.1", "1"); got == nil || got.Size != 1 {
		t.Errorf("to whom has all, control signs %v", got)
	}
	if got := copied("release.1", "7"); got != nil {
		t.Errorf("of more than there is control signs %v", got)
	}

	signer, _, err := c.o.Identity.checkpointKey()
	if err != nil {
		t.Fatal(err)
	}
	private, _, err := note.GenerateKey(rand.Reader, signer.Name())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key note.Signer, p evidence.Checkpoint) string {
		t.Helper()
		signed, err := note.Sign(&note.Note{Text: p.Text()}, key)
		if err != nil {
			t.Fatal(err)
		}
		return evidence.Signature(signed)
	}
	_, root, err := c.folding("release.1", 1)
	if err != nil {
		t.Fatal(err)
	}
	had := evidence.Checkpoint{Stream: "release.1", Size: 9, Root: tlog.Hash{1}} // and lost
	other := evidence.Checkpoint{Stream: "release.1", Size: 1, Root: tlog.Hash{2}}
	elsewhere := evidence.Checkpoint{Stream: "release.2", Size: 9, Root: tlog.Hash{1}}
	for _, x := range []struct {
		what      string
		p         evidence.Checkpoint
		signature string
		doubt     string
		proved    bool
	}{
		{"as it is", evidence.Checkpoint{Stream: "release.1", Size: 1, Root: tlog.Hash(root)}, "", "", false},
		{"more, signed", had, sign(signer, had), "m has 9 events of it on its disk, and control 1", true},
		{"other events, signed", other, sign(signer, other), "the first 1 events on the disk of m are not those of control", true},
		{"more, signed by nobody", had, "", "m has 9 events of it on its disk, and control 1", false},
		{"more, signed by another fleet", had, sign(stranger, had), "m has 9 events", false},
		{"more, with a signature of another stream", had, sign(signer, elsewhere), "m has 9 events", false},
		{"more, with no signature at all", had, "x", "m has 9 events", false},
		{"as it is again", evidence.Checkpoint{Stream: "release.1", Size: 1, Root: tlog.Hash(root)}, "x", "", false},
	} {
		if err := c.compare(t.Context(), "m", []api.Copy{{Stream: x.p.Stream, Events: x.p.Size, Root: slices.Clone(x.p.Root[:]), Signature: x.signature}}); err != nil {
			t.Fatal(err)
		}
		err := c.doubted("release.1")
		var doubted *DivergedError
		switch {
		case x.doubt == "":
			if err != nil {
				t.Errorf("%s: %v", x.what, err)
			}
		case !errors.As(err, &doubted) || !strings.Contains(doubted.Why, x.doubt):
			t.Errorf("%s: %v", x.what, err)
		case strings.Contains(doubted.Why, unproven) == x.proved, strings.HasPrefix(doubted.Hint(), "control had signed these events") != x.proved, !strings.Contains(doubted.Hint(), "trysail serve --recover DIR"):
			t.Errorf("%s: %v\n%s", x.what, err, doubted.Hint())
		}
	}
}
