package depot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

func TestTargets(t *testing.T) {
	for _, c := range []struct{ target, host, hint string }{
		{"registry.example.com/build/app:2", "registry.example.com", ""},
		{"localhost/build/app", "localhost", ""},
		{"127.0.0.1:5000/app:1.0-RC1", "127.0.0.1:5000", ""},
		{"[::1]:5000/app", "[::1]:5000", ""},
		{"docker.io/team/app:1", "index.docker.io", ""}, // who names it means it
		{"build/app:2", "", "registry.example.com/build/app:2"},
		{"app", "", "registry.example.com/app"},
		{"app:5000", "", "registry.example.com/app:5000"},
		{"http://127.0.0.1:5000/app", "", "write 127.0.0.1:5000/app"},
		{"oci://registry.example.com/app", "", "write registry.example.com/app"},
		{"registry.example.com/Build/App:RC1", "", "write registry.example.com/build/app:RC1"},
		{"registry.example.com/App", "", "write registry.example.com/app"},
		{"registry.example.com/build app", "", "write it like"},
		{"registry.example.com/", "", "write it like"},
	} {
		ref, err := parseTarget(c.target, TransferOptions{})
		var r *RegistryError
		switch {
		case c.hint == "" && (err != nil || ref.Context().RegistryStr() != c.host):
			t.Errorf("%s: %v, %v", c.target, ref, err)
		case c.hint != "" && (!errors.As(err, &r) || !strings.Contains(r.Hint(), c.hint)):
			t.Errorf("%s: %v, hint %q", c.target, err, r.Hint())
		}
	}
}

// moody is a registry that does not always do what it is asked.
type moody struct {
	next http.Handler
	mood string
	mu   sync.Mutex
	good map[string]int // requests that a token is still good for
	n    int
	url  string
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	writes := r.Method != http.MethodGet && r.Method != http.MethodHead
	say := func(status int, code string) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"no"}]}`, code)
	}
	switch m.mood {
	case "token":
		if r.URL.Path == "/token" {
			// The first token ends in the middle of the transfer. Later ones last:
			// a client asks for one new token a request, and uploads run side by side.
			m.n++
			m.good[fmt.Sprint("t", m.n)] = 1000
			if m.n == 1 {
				m.good["t1"] = 5
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"token": fmt.Sprint("t", m.n), "expires_in": 1})
			return
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if m.good[token] == 0 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+m.url+`/token",service="r",scope="repository:build/app:pull,push"`)
			say(http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		m.good[token]--
	case "small":
		body, _ := io.ReadAll(r.Body)
		if len(body) > 1000 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			fmt.Fprint(w, "<html>413 Request Entity Too Large</html>")
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
	case "read-only":
		if writes {
			say(http.StatusMethodNotAllowed, "UNSUPPORTED")
			return
		}
	case "denied":
		if writes {
			say(http.StatusForbidden, "DENIED")
			return
		}
	case "locked":
		if r.URL.Path != "/v2/" {
			say(http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
	case "limited":
		if m.n++; m.n < 3 && r.URL.Path != "/v2/" {
			w.Header().Set("Retry-After", "1")
			say(http.StatusTooManyRequests, "TOOMANYREQUESTS")
			return
		}
	}
	m.next.ServeHTTP(w, r)
}

func TestMoodyRegistries(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for mood, want := range map[string]struct{ what, hint string }{
		"":          {},
		"token":     {},
		"limited":   {},
		"small":     {"takes no upload of this size (413)", "client_max_body_size"},
		"read-only": {"it is read-only", "takes uploads"},
		"denied":    {"does not permit this", "permission"},
		"locked":    {"does not accept the credentials", "docker login 127.0.0.1:"},
	} {
		t.Run("mood "+mood, func(t *testing.T) {
			m := &moody{next: registry.New(registry.Logger(log.New(io.Discard, "", 0))), mood: mood, good: map[string]int{}}
			s := httptest.NewServer(m)
			t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
			m.url = s.URL
			d := fresh(t)
			fill(t, d, "a", 6, 5000)
			target := s.Listener.Addr().String() + "/build/app:1"
			_, err := d.Push(context.Background(), "a", target, TransferOptions{})
			var r *RegistryError
			switch {
			case want.what == "" && err != nil:
				t.Fatal(err)
			case want.what != "" && (!errors.As(err, &r) || !strings.Contains(err.Error(), want.what) || !strings.Contains(r.Hint(), want.hint)):
				t.Fatalf("%v, hint %q", err, r.Hint())
			case want.what != "":
				return
			}
			if mood == "token" && m.n < 2 {
				t.Fatal("the token did not end during the push")
			}
			m.n, m.good = 0, map[string]int{}
			if _, err := fresh(t).Pull(context.Background(), target, "a", TransferOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	for name, c := range map[string]struct{ config, what, hint string }{
		"no helper":              {`{"credsStore":"desktop"}`, "docker-credential-desktop, and it is not installed", "install docker-credential-desktop, or remove credsStore"},
		"no helper of this host": {`{"credHelpers":{"127.0.0.1:1":"vault"}}`, "docker-credential-vault, and it is not installed", "install docker-credential-vault"},
		"torn":                   {`{"auths":{`, "cannot be read from", "mend or remove that file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("HOME", dir)
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("PATH", dir)
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			d := fresh(t)
			fill(t, d, "a", 1, 10)
			_, err := d.Push(context.Background(), "a", "127.0.0.1:1/app:1", TransferOptions{})
			var r *RegistryError
			if !errors.As(err, &r) || !strings.Contains(err.Error(), c.what) || !strings.Contains(err.Error(), dir+"/config.json") || !strings.Contains(r.Hint(), c.hint) {
				t.Errorf("%v, hint %q", err, r.Hint())
			}
		})
	}
}
