package depot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// registries starts each registry that pushes and pulls are tested against, and
// gives its address.
func registries() map[string]func(t *testing.T) string {
	return map[string]func(t *testing.T) string{"in-process": inProcess, "docker-registry": dockerRegistry}
}

func inProcess(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.Listener.Addr().String()
}

// dockerRegistry runs the registry program that Debian packages, on a loopback port.
func dockerRegistry(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("docker-registry is not installed: apt-get install docker-registry")
		}
		t.Skip("docker-registry is not installed: apt-get install docker-registry")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s/data\nhttp:\n  addr: %s\n  relativeurls: true\n", dir, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: its status says nothing
	})
	for wait := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return addr
		}
		if time.Now().After(wait) {
			t.Fatalf("docker-registry does not answer: %v\n%s", err, out.String())
		}
	}
}

// between is a network between a depot and a registry that can be watched and cut.
type between struct {
	addr string
	// blobs counts bodies of blobs that went through, uploads those that were begun.
	blobs, uploads atomic.Int64
	// commits counts uploads that ended well, of those let through.
	commits, let atomic.Int64
	// left is how many more blobs may pass before every connection is dropped.
	left atomic.Int64
	// change makes another body of a blob that is pulled.
	change atomic.Pointer[func(digest string, body []byte) []byte]
}

func newBetween(t *testing.T, to string) *between {
	t.Helper()
	b := &between{}
	b.left.Store(1 << 40)
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	p.ErrorLog = log.New(io.Discard, "", 0)
	p.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method != http.MethodGet || !strings.Contains(r.Request.URL.Path, "/blobs/sha256:") {
			return nil
		}
		b.blobs.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		r.Body.Close()
		if change := b.change.Load(); change != nil {
			body = (*change)(r.Request.URL.Path[strings.Index(r.Request.URL.Path, "sha256:"):], body)
			r.ContentLength = int64(len(body))
			r.Header.Set("Content-Length", fmt.Sprint(len(body)))
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if left := b.left.Add(-1); left < -1 {
			r.StatusCode = http.StatusForbidden
		} else if left == -1 { // in the middle of the body
			r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), iotest.ErrReader(errors.New("connection lost"))))
		}
		return nil
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			b.uploads.Add(1)
			left := b.left.Add(-1)
			// What passed before arrives before anyone hears of the loss.
			for wait := time.Now().Add(2 * time.Second); left < 0 && b.commits.Load() < b.let.Load() && time.Now().Before(wait); {
				time.Sleep(5 * time.Millisecond)
			}
			if left == -1 {
				_, _ = io.CopyN(io.Discard, r.Body, 1000)
				panic(http.ErrAbortHandler)
			} else if left < -1 { // an answer, so that nobody waits and tries again
				w.WriteHeader(http.StatusForbidden)
				return
			}
		}
		p.ServeHTTP(w, r)
		if r.Method == http.MethodPut && r.URL.Query().Has("digest") {
			b.commits.Add(1)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	b.addr = s.Listener.Addr().String()
	return b
}

const blobSize = 20_000

func TestPushAndPull(t *testing.T) {
	for name, start := range registries() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			net := newBetween(t, start(t))
			from := fresh(t)
			// More than fit into one manifest, one of them twice.
			items := fill(t, from, "blueprint/a", maxLayers+5, 200)
			items = append(items, Item{"software/twice", items[0].Digest, 200})
			dg, err := from.Tag(ctx, "blueprint/a", time.Unix(1_800_000_000, 0), items)
			if err != nil {
				t.Fatal(err)
			}
			target := net.addr + "/team/depot:4.2"
			var last atomic.Int64
			out, err := from.Push(ctx, "blueprint/a", target, TransferOptions{Progress: func(done, total int64) { last.Store(total) }})
			if err != nil {
				t.Fatal(err)
			}
			if out.Digest != dg || out.Items != len(items) || out.Skipped != 1 || out.Bytes < (maxLayers+5)*200 || last.Load() == 0 {
				t.Errorf("pushed %+v, progress to %d", out, last.Load())
			}
			first := out.Bytes
			net.uploads.Store(0)
			if out, err = from.Push(ctx, "blueprint/a", target, TransferOptions{}); err != nil || net.uploads.Load() != 0 || out.Skipped != len(items) || out.Bytes >= first {
				t.Errorf("pushed again: %+v, %d blobs sent (%v)", out, net.uploads.Load(), err)
			}

			to := fresh(t)
			in, err := to.Pull(ctx, target, "", TransferOptions{Progress: func(done, total int64) { last.Store(total - done) }})
			if err != nil {
				t.Fatal(err)
			}
			if in.Digest != dg || in.Items != len(items) || in.Skipped != 1 || in.Bytes != (maxLayers+5)*200 || last.Load() != 0 {
				t.Errorf("pulled %+v, progress %d short", in, last.Load())
			}
			r, err := to.Resolve(ctx, "blueprint/a")
			if err != nil || r.Digest != dg || !slices.Equal(r.Items, items) || !r.Created.Equal(time.Unix(1_800_000_000, 0)) {
				t.Errorf("it arrives as %+v (%v)", r, err)
			}
			if rep, err := to.Verify(ctx, nil); err != nil || len(rep.Problems) != 0 {
				t.Errorf("verify: %+v %v", rep, err)
			}
			want := net.addr + "/team/depot"
			for _, it := range items {
				if at, ok := to.Provenance(it.Digest); !ok || at != want {
					t.Errorf("%s comes from %q, want %q", it.Name, at, want)
				}
				if at, ok := from.Provenance(it.Digest); ok {
					t.Errorf("%s, which was pushed, was pulled from %q", it.Name, at)
				}
			}
			net.blobs.Store(0)
			if in, err = to.Pull(ctx, target+"@"+dg, "blueprint/b", TransferOptions{}); err != nil || net.blobs.Load() != 0 || in.Skipped != len(items) || in.Bytes != 0 {
				t.Errorf("pulled again by digest: %+v, %d blobs (%v)", in, net.blobs.Load(), err)
			}
			if _, err := to.Resolve(ctx, "blueprint/b"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCutPush and TestCutPull lose the connection in the middle of a blob: what
// was whole is not moved again.
func TestCutPush(t *testing.T) {
	for name, start := range registries() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			net := newBetween(t, start(t))
			d := fresh(t)
			items := fill(t, d, "a", 12, blobSize)
			net.let.Store(5)
			net.left.Store(5)
			if out, err := d.Push(ctx, "a", net.addr+"/x:y", TransferOptions{}); err == nil {
				t.Fatalf("a push over a dead line succeeded: %+v", out)
			}
			net.left.Store(1 << 40)
			net.commits.Store(0)
			out, err := d.Push(ctx, "a", net.addr+"/x:y", TransferOptions{})
			if err != nil {
				t.Fatal(err)
			}
			// The empty config is a blob too, and may be in either half. Those that
			// ended well count: one that the cut push began may arrive only now.
			sent := int(net.commits.Load())
			if sent != 8 || out.Skipped < 4 || out.Bytes > int64(8*blobSize)+10_000 {
				t.Errorf("went on with %d blobs, %+v; 5 of 13 were there", sent, out)
			}
			to := fresh(t)
			if _, err := to.Pull(ctx, net.addr+"/x:y", "a", TransferOptions{}); err != nil {
				t.Fatal(err)
			}
			if r, err := to.Resolve(ctx, "a"); err != nil || !slices.Equal(r.Items, items) {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
}

func TestCutPull(t *testing.T) {
	for name, start := range registries() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			registry := start(t)
			net := newBetween(t, registry)
			from := fresh(t)
			items := fill(t, from, "a", 12, blobSize)
			if _, err := from.Push(ctx, "a", net.addr+"/x:y", TransferOptions{}); err != nil {
				t.Fatal(err)
			}
			to := fresh(t)
			net.left.Store(5)
			if in, err := to.Pull(ctx, net.addr+"/x:y", "", TransferOptions{}); err == nil {
				t.Fatalf("a pull over a dead line succeeded: %+v", in)
			}
			var nf *NotFoundError
			if _, err := to.Resolve(ctx, "a"); !errors.As(err, &nf) {
				t.Errorf("half a reference has a name: %v", err)
			}
			have := 0
			for _, it := range items {
				at, ok := to.Provenance(it.Digest)
				if to.Has(it.Digest) {
					have++
				}
				if to.Has(it.Digest) != ok || ok && at != net.addr+"/x" {
					t.Errorf("%s: there: %v, from %q", it.Name, to.Has(it.Digest), at)
				}
			}
			if have == 0 || have > 5 {
				t.Errorf("%d blobs arrived, of 5 that were let through", have)
			}
			// One that was torn by the disk since is fetched again.
			var whole string
			for _, it := range items {
				if to.Has(it.Digest) {
					whole = it.Digest
				}
			}
			damage(t, to, whole, func(b []byte) []byte { return b[:100] })
			// Over another line: on this one, requests of the pull that was cut may be
			// counted yet.
			net = newBetween(t, registry)
			in, err := to.Pull(ctx, net.addr+"/x:y", "", TransferOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if want := 12 - have + 1; int(net.blobs.Load()) != want || in.Skipped != have-1 || in.Bytes != int64(want*blobSize) {
				t.Errorf("went on with %d blobs, %+v; %d of 12 were there, one torn", net.blobs.Load(), in, have)
			}
			if rep, err := to.Verify(ctx, nil); err != nil || len(rep.Problems) != 0 {
				t.Errorf("verify: %+v %v", rep, err)
			}
			if left, err := filepath.Glob(filepath.Join(to.blobs(), ".new-*")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %q %v", left, err)
			}
		})
	}
}

// TestPullWrongBytes: a registry that serves other bytes than it promises is
// refused, and none of them gets a name.
func TestPullWrongBytes(t *testing.T) {
	ctx := context.Background()
	net := newBetween(t, inProcess(t))
	from := fresh(t)
	items := fill(t, from, "a", 3, 500)
	if _, err := from.Push(ctx, "a", net.addr+"/x:y", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"flipped": func(b []byte) []byte { b[7] ^= 1; return b },
		"shorter": func(b []byte) []byte { return b[:100] },
		"longer":  func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) },
		"other":   func([]byte) []byte { return noise(99, 500) },
	} {
		f := func(dg string, body []byte) []byte {
			if dg == items[1].Digest {
				return change(body)
			}
			return body
		}
		net.change.Store(&f)
		to := fresh(t)
		_, err := to.Pull(ctx, net.addr+"/x:y", "", TransferOptions{})
		if err == nil || !strings.Contains(err.Error(), items[1].Name) {
			t.Errorf("%s: %v, want an error that names %s", name, err, items[1].Name)
		}
		if to.Has(items[1].Digest) {
			t.Errorf("%s: the wrong bytes are kept", name)
		}
		if _, err := to.Resolve(ctx, "a"); err == nil {
			t.Errorf("%s: the reference has a name", name)
		}
		if _, ok := to.Provenance(items[1].Digest); ok {
			t.Errorf("%s: what was refused has a provenance", name)
		}
		rep, err := to.Verify(ctx, nil)
		if err != nil || len(rep.Problems) != 0 {
			t.Errorf("%s: verify: %+v %v", name, rep, err)
		}
	}
}

// TestPullHostile: manifests that no push of ours makes.
func TestPullHostile(t *testing.T) {
	ctx := context.Background()
	addr := inProcess(t)
	put := func(kind, name, mediaType string, data []byte) {
		t.Helper()
		target := "http://" + addr + "/v2/x/" + kind + "/" + name
		method := http.MethodPut
		if kind == "blobs/uploads" {
			target, method = "http://"+addr+"/v2/x/blobs/uploads/?digest="+sum(data), http.MethodPost
		}
		req, err := http.NewRequest(method, target, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s: %s", method, target, resp.Status)
		}
	}
	js := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	put("blobs/uploads", "", "", []byte("{}"))
	put("blobs/uploads", "", "", []byte("x"))
	manifest := func(title, layer string, size int64) []byte {
		return js(map[string]any{
			"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest, "artifactType": ArtifactType, "config": map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": sum([]byte("{}")), "size": 2},
			"layers": []any{map[string]any{"mediaType": layerType, "digest": layer, "size": size, "annotations": map[string]string{v1.AnnotationTitle: title}}},
		})
	}
	for _, c := range []struct {
		name, title, as, artifact, what string
		size                            int64
	}{
		{"right", "deb/x", "a", ArtifactType, "", 1},
		{"another artifact", "deb/x", "a", "application/vnd.other", "not a set of originals", 1},
		{"a name that climbs", "config/../../../etc/cron.d/x", "a", ArtifactType, "not a name for an original", 1},
		{"an absolute name", "/etc/cron.d/x", "a", ArtifactType, "not a name", 1},
		{"a reference that climbs", "deb/x", "../../x", ArtifactType, "usable reference name", 1},
		{"no reference name", "deb/x", "", ArtifactType, "usable reference name", 1},
		{"a size too small", "deb/x", "a", ArtifactType, "deb/x", 0},
		{"a size below nothing", "deb/x", "a", ArtifactType, "deb/x", -5},
	} {
		m := manifest(c.title, sum([]byte("x")), c.size)
		put("manifests", sum(m), v1.MediaTypeImageManifest, m)
		index := js(map[string]any{
			"schemaVersion": 2, "mediaType": v1.MediaTypeImageIndex, "artifactType": c.artifact, "annotations": map[string]string{v1.AnnotationRefName: c.as},
			"manifests": []any{map[string]any{"mediaType": v1.MediaTypeImageManifest, "digest": sum(m), "size": len(m)}},
		})
		put("manifests", "y", v1.MediaTypeImageIndex, index)
		to := fresh(t)
		_, err := to.Pull(ctx, addr+"/x:y", "", TransferOptions{})
		if c.what == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.what)
		}
		if list, err := to.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("%s: it has a name: %+v %v", c.name, list, err)
		}
	}
}

func TestTransferMistakes(t *testing.T) {
	ctx := context.Background()
	addr := inProcess(t)
	d := fresh(t)
	fill(t, d, "a", 1, 10)
	var nf *NotFoundError
	if _, err := d.Push(ctx, "b", addr+"/x:y", TransferOptions{}); !errors.As(err, &nf) {
		t.Errorf("an unknown reference: %v", err)
	}
	for _, target := range []string{"", "UPPER/case:x y", addr + "/x:y:z"} {
		if _, err := d.Push(ctx, "a", target, TransferOptions{}); err == nil || !strings.Contains(err.Error(), "REGISTRY/REPOSITORY:TAG") {
			t.Errorf("target %q: %v", target, err)
		}
	}
	if _, err := d.Pull(ctx, addr+"/nothing:here", "", TransferOptions{}); err == nil || !strings.Contains(err.Error(), "nothing:here") {
		t.Errorf("a tag that is not there: %v", err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := d.Push(stopped, "a", addr+"/x:y", TransferOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for target, insecure := range map[string]bool{"127.0.0.1:5000/x": true, "localhost/x:y": true, "[::1]:5000/x": true, "registry.example.com/x": false, "10.0.0.1:5000/x": false} {
		ref, err := parseTarget(target, TransferOptions{})
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if plain := ref.Context().Registry.Scheme() == "http"; plain != insecure && !strings.HasPrefix(target, "10.") {
			t.Errorf("%s: plain HTTP %v", target, plain)
		}
	}
}
