package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"trysail/internal/api"
)

// answering is a control that gives these answers by path, and to every word event 7.
type answering struct {
	answers map[string]any
	said    []string // paths and bodies of words
	link    string
}

func answers(t *testing.T, list map[string]any) *answering {
	t.Helper()
	c := &answering{answers: list}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, api.Version)
		var x any = map[string]int{"event": 7}
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			c.said = append(c.said, path+" "+strings.TrimSpace(string(body)))
		} else if r.Method == http.MethodPut { // a blob
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
		} else if x = c.answers[path]; x == nil {
			w.WriteHeader(http.StatusNotFound)
			x = &api.Problem{Message: path + " is unknown"}
		}
		if err := json.NewEncoder(w).Encode(x); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	sum := sha256.Sum256(s.Certificate().Raw)
	c.link = api.Link{Address: s.Listener.Addr().String(), Fingerprint: hex.EncodeToString(sum[:]), Secret: strings.Repeat("0", 48)}.String()
	return c
}

// run is the program with this control.
func (c *answering) run(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), append([]string{"--control", c.link, "--state", t.TempDir()}, args...), 0o022, strings.NewReader(""), &o, &e)
	return o.String(), e.String(), code
}
