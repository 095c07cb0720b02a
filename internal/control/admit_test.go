package control

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"trysail/release"
)

// TestAttackBodiesWithoutCredentials is a peer that shows no token, or a wrong one: its
// body is never read, whatever it asks for, and it learns nothing but that it is denied.
func TestAttackBodiesWithoutCredentials(t *testing.T) {
	inFront(t, false, false, func(t *testing.T, d *doorway) {
		for _, path := range []string{
			"/v1/enrol", "/v1/controls", "/v1/beat", "/v1/releases", "/v1/releases/nowhere/sign", "/v1/releases/1/logs/build/1",
			"/v1/tokens", "/v1/blobs/sha256:0", "/v1/fleet/m1/retire", "/metrics", "/nowhere",
		} {
			for _, secret := range []string{"", "wrong"} {
				if secret == "" && (path == "/v1/enrol" || path == "/v1/controls") {
					continue // the token of agents of before is in the body
				}
				r, err := http.NewRequest(http.MethodPost, "https://control.example"+path, strings.NewReader("{"))
				if err != nil {
					t.Fatal(err)
				}
				r.ContentLength = 8 << 20
				r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), stuck{}))
				if secret != "" {
					r.Header.Set("Authorization", "Bearer "+secret)
				}
				begin := time.Now()
				res, err := d.client.Do(r)
				if err != nil {
					t.Errorf("%s with token %q: %v", path, secret, err)
					continue
				}
				text, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if took := time.Since(begin); res.StatusCode != http.StatusForbidden || took > 5*time.Second || !strings.Contains(string(text), `"denied"`) {
					t.Errorf("%s with token %q: %d after %s: %s", path, secret, res.StatusCode, took, text)
				}
				for _, known := range []string{"m1", "nowhere", "build"} {
					if strings.Contains(string(text), known) {
						t.Errorf("%s with token %q learns of %s: %s", path, secret, known, text)
					}
				}
			}
		}
	})
}

// stuck never comes to its end.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { time.Sleep(time.Minute); return 0, io.EOF }

// TestAttackManyStreams is a person who opens one stream after the other and reads none:
// there is an end to it, machines are answered, and so is whoever closes one.
func TestAttackManyStreams(t *testing.T) {
	inFront(t, false, false, func(t *testing.T, d *doorway) {
		viewer := token{Hash: hash("viewer's"), Person: "ann", Role: Viewer}
		d.c.tokens = append(d.c.tokens, viewer)
		d.c.streams["1"] = &stream{name: releaseStream("1"), state: release.Empty()}
		ask := func(secret string) *http.Response {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://control.example/v1/releases/1/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+secret)
			r.Header.Set("Accept", "text/event-stream")
			res, err := d.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		var open []*http.Response
		for range mostOfPerson().Connections {
			res := ask("viewer's")
			if res.StatusCode != http.StatusOK {
				t.Fatalf("stream %d: %s", len(open), res.Status)
			}
			open = append(open, res)
		}
		if res := ask("viewer's"); res.StatusCode != http.StatusTooManyRequests {
			t.Errorf("one stream too many: %s", res.Status)
		}
		if res := ask(d.secret); res.StatusCode != http.StatusOK {
			t.Errorf("somebody else: %s", res.Status)
		} else {
			open = append(open, res)
		}
		open[0].Body.Close()
		time.Sleep(time.Second)
		res := ask("viewer's")
		if res.StatusCode != http.StatusOK {
			t.Errorf("after one was closed: %s", res.Status)
		}
		for _, res := range append(open, res) {
			res.Body.Close()
		}
	})
}
