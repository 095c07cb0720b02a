package depot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/renameio/v2"
	digest "github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// TransferOptions say how a reference goes to or comes from a registry.
type TransferOptions struct {
	Insecure bool // plain HTTP to a registry that is not on loopback
	Progress func(done, total int64)
}

// Transfer says what a push or pull did.
type Transfer struct {
	Digest  string `json:"digest"`
	Items   int    `json:"items"`
	Skipped int    `json:"skipped"` // already there
	Bytes   int64  `json:"bytes"`   // moved
}

// Push copies a reference to a registry. Blobs that the registry has are
// skipped, so that a push that was cut goes on where it stopped.
func (d *Depot) Push(ctx context.Context, refName, target string, o TransferOptions) (*Transfer, error) {
	ref, err := parseTarget(target, o)
	if err != nil {
		return nil, err
	}
	r, err := d.Resolve(ctx, refName)
	if err != nil {
		return nil, err
	}
	// Nothing goes out that is not what it should be.
	for _, it := range r.Items {
		if _, err := d.check(ctx, it.Digest); err != nil {
			return nil, fmt.Errorf("%s: %w", it.Name, err)
		}
	}
	h, err := ggcr.NewHash(r.Digest)
	if err != nil {
		return nil, err
	}
	li, err := layout.ImageIndexFromPath(d.dir)
	if err != nil {
		return nil, fmt.Errorf("depot: %w", err)
	}
	ix, err := li.ImageIndex(h)
	if err != nil {
		return nil, fmt.Errorf("depot: %w", err)
	}
	t := &Transfer{Digest: r.Digest, Items: len(r.Items)}
	updates := make(chan ggcr.Update, 64)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for u := range updates {
			if o.Progress != nil && u.Total > 0 {
				o.Progress(u.Complete, u.Total)
			}
		}
	}()
	m := &meter{next: remote.DefaultTransport, stored: map[string]bool{}, sending: map[*http.Request]bool{}}
	err = remote.WriteIndex(ref, ix, remote.WithContext(ctx), remote.WithAuthFromKeychain(credentials{}), remote.WithTransport(m), remote.WithRetryPredicate(passing(func() bool { return ctx.Err() != nil })), remote.WithProgress(updates), remote.WithJobs(4))
	<-drained
	t.Bytes = m.sent.Load()
	seen := map[string]bool{}
	for _, it := range r.Items {
		if seen[it.Digest] || !m.has(it.Digest) {
			t.Skipped++
		}
		seen[it.Digest] = true
	}
	if err != nil {
		return nil, fmt.Errorf("push to %s: %w", target, explain(ref.Context().RegistryStr(), err))
	}
	return t, nil
}

// passing tells errors that a second try may mend, while there is a use for it:
// the library waits some seconds between tries, whatever happened meanwhile.
func passing(over func() bool) func(error) bool {
	return func(err error) bool {
		if err == nil || over() || errors.Is(err, context.Canceled) {
			return false
		}
		var t interface{ Temporary() bool }
		return errors.As(err, &t) && t.Temporary() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
	}
}

// meter counts what a push really sends, and which blobs the registry took.
type meter struct {
	next http.RoundTripper
	sent atomic.Int64
	mu   sync.Mutex
	// stored holds the digests of blobs whose upload ended well.
	stored map[string]bool
	// sending holds the requests whose body was read.
	sending map[*http.Request]bool
}

// RoundTrip is http.RoundTripper's.
func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		m.mu.Lock()
		sent := m.sending[r]
		m.sending[r] = true
		m.mu.Unlock()
		body := r.Body
		if sent && r.GetBody != nil { // its token ended, and the library sends it again with a new one
			var err error
			if body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
		r = r.Clone(r.Context())
		r.Body = &meteredBody{body, &m.sent}
	}
	resp, err := m.next.RoundTrip(r)
	if dg := r.URL.Query().Get("digest"); err == nil && dg != "" && r.Method == http.MethodPut && resp.StatusCode == http.StatusCreated {
		m.mu.Lock()
		m.stored[dg] = true
		m.mu.Unlock()
	}
	return resp, err
}

func (m *meter) has(dg string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stored[dg]
}

type meteredBody struct {
	io.ReadCloser
	sent *atomic.Int64
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sent.Add(int64(n))
	return n, err
}

// Pull copies a reference from a registry. Every blob is checked against its
// digest before it gets its name; blobs that are there are skipped.
func (d *Depot) Pull(ctx context.Context, source, refName string, o TransferOptions) (*Transfer, error) {
	ref, err := parseTarget(source, o)
	if err != nil {
		return nil, err
	}
	var failed atomic.Bool
	puller, err := remote.NewPuller(remote.WithAuthFromKeychain(credentials{}), remote.WithRetryPredicate(passing(func() bool { return failed.Load() || ctx.Err() != nil })))
	if err != nil {
		return nil, err
	}
	desc, err := puller.Get(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("pull from %s: %w", source, explain(ref.Context().RegistryStr(), err))
	}
	if len(desc.Manifest) > maxManifest {
		return nil, fmt.Errorf("pull from %s: manifest of %d bytes is too large", source, len(desc.Manifest))
	}
	var index v1.Index
	if err := json.Unmarshal(desc.Manifest, &index); err != nil || index.MediaType != v1.MediaTypeImageIndex || index.ArtifactType != ArtifactType {
		return nil, fmt.Errorf("%s is not a set of originals that trysail depot push made", source)
	}
	if refName == "" {
		refName = index.Annotations[v1.AnnotationRefName]
	}
	if !refRE.MatchString(refName) {
		return nil, fmt.Errorf("%s carries no usable reference name: give one with --as", source)
	}
	// The manifests first: they say what else there is.
	if _, err := d.PutBytes(ctx, desc.Manifest); err != nil {
		return nil, err
	}
	t := &Transfer{Digest: desc.Digest.String()}
	var items []Item
	for _, md := range index.Manifests {
		if md.Size > maxManifest {
			return nil, fmt.Errorf("pull from %s: manifest of %d bytes is too large", source, md.Size)
		}
		sub, err := puller.Get(ctx, ref.Context().Digest(string(md.Digest)))
		if err != nil {
			return nil, fmt.Errorf("pull from %s: %w", source, explain(ref.Context().RegistryStr(), err))
		}
		var m v1.Manifest
		if err := json.Unmarshal(sub.Manifest, &m); err != nil {
			return nil, fmt.Errorf("pull from %s: manifest %s: %w", source, md.Digest, err)
		}
		for _, l := range m.Layers {
			it := Item{l.Annotations[v1.AnnotationTitle], string(l.Digest), l.Size}
			if err := checkItem(it); err != nil {
				return nil, fmt.Errorf("pull from %s: %w", source, err)
			}
			items = append(items, it)
		}
		if _, err := d.PutExpected(ctx, bytes.NewReader(sub.Manifest), string(md.Digest)); err != nil {
			return nil, err
		}
	}
	if _, err := d.PutBytes(ctx, []byte("{}")); err != nil {
		return nil, err
	}
	fetched, err := d.pullItems(ctx, puller, ref, items, t, o, &failed)
	if perr := d.recordProvenance(fetched, ref.Context().String()); perr != nil && err == nil {
		err = perr
	}
	if err != nil {
		return nil, err
	}
	top := v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: digest.Digest(t.Digest), Size: int64(len(desc.Manifest)), ArtifactType: ArtifactType}
	return t, d.name(refName, top, items)
}

// pullItems fetches what is not there yet and returns what it fetched, also
// when it was cut: those items came from elsewhere.
func (d *Depot) pullItems(ctx context.Context, puller *remote.Puller, ref name.Reference, items []Item, t *Transfer, o TransferOptions, failed *atomic.Bool) ([]Item, error) {
	var total int64
	var todo, fetched []Item
	seen := map[string]bool{}
	for _, it := range items {
		t.Items++
		info, err := os.Stat(d.path(it.Digest))
		if seen[it.Digest] || (err == nil && info.Size() == it.Size) { // a torn one is fetched again
			t.Skipped++
			continue
		}
		seen[it.Digest] = true
		todo = append(todo, it)
		total += it.Size
	}
	var done atomic.Int64
	whole := make([]atomic.Bool, len(todo))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, it := range todo {
		g.Go(func() (err error) {
			defer func() {
				if err != nil {
					failed.Store(true)
				}
			}()
			l, err := puller.Layer(ctx, ref.Context().Digest(it.Digest))
			if err != nil {
				return fmt.Errorf("pull %s: %w", it.Name, explain(ref.Context().RegistryStr(), err))
			}
			rc, err := l.Compressed()
			if err != nil {
				return fmt.Errorf("pull %s: %w", it.Name, explain(ref.Context().RegistryStr(), err))
			}
			defer rc.Close()
			n, err := d.PutExpected(ctx, io.LimitReader(rc, it.Size+1), it.Digest)
			if err != nil {
				return fmt.Errorf("pull %s: %w", it.Name, err)
			}
			if n != it.Size {
				return fmt.Errorf("pull %s: it has %d bytes, and its manifest says %d", it.Name, n, it.Size)
			}
			whole[i].Store(true)
			if now := done.Add(n); o.Progress != nil {
				o.Progress(now, total)
			}
			return nil
		})
	}
	err := g.Wait()
	t.Bytes = done.Load()
	for i, it := range todo {
		if whole[i].Load() {
			fetched = append(fetched, it)
		}
	}
	return fetched, err
}

const provenanceFile = ".trysail-pulled.json"

// Provenance tells where an original was pulled from ("host/repository"). An
// original that was always on this disk has none: its loss would be total.
func (d *Depot) Provenance(dg string) (string, bool) {
	from, ok := d.provenance()[dg]
	return from, ok
}

func (d *Depot) provenance() map[string]string {
	m := map[string]string{}
	data, err := os.ReadFile(filepath.Join(d.dir, provenanceFile))
	if err != nil || json.Unmarshal(data, &m) != nil {
		return map[string]string{} // unknown: nothing is claimed for it
	}
	return m
}

func (d *Depot) recordProvenance(items []Item, from string) error {
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	m := d.provenance()
	for _, it := range items {
		if _, ok := m[it.Digest]; !ok {
			m[it.Digest] = from
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(d.dir, provenanceFile), data, 0o600); err != nil {
		return d.full(err)
	}
	return nil
}

// manifests lists the digests of a reference's own index and manifests.
func (d *Depot) manifests(ctx context.Context, dg string) ([]string, error) {
	var index v1.Index
	if err := d.readJSON(ctx, dg, &index); err != nil {
		return nil, err
	}
	list := []string{dg, string(v1.DescriptorEmptyJSON.Digest)}
	for _, m := range index.Manifests {
		list = append(list, string(m.Digest))
	}
	return list, nil
}
