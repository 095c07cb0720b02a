// Package depot keeps originals: packages as their makers published them,
// software trees, downloads, sources, all by the sha256 of their bytes.
//
// On disk a depot is an OCI image layout (oci-layout, index.json,
// blobs/sha256/…), so that skopeo, oras, crane or a person with sha256sum can
// read it without Trysail; in a registry it is the same content under a tag.
// Nothing outside this package knows which of the two it is.
//
// A named reference ("blueprint/age") is an OCI image index of manifests of at
// most [maxLayers] layers each: registries limit both the layers and the bytes
// of one manifest, and a build server has hundreds of originals. A layer's name
// is its annotation org.opencontainers.image.title, the same name as in
// blueprint.sum. A set that is named anew stays, under "blueprint/age@sha256:…":
// the machine of an old release must be made again years later, and two projects
// of one name must not take each other's originals away. Untag lets it go.
//
// Every read is verified: a reader that meets other bytes than its digest
// promises returns a [DigestError] instead of the end of the file. Every write
// goes to a temporary file, is synced and renamed, so that a name in
// blobs/sha256 is either whole or absent. index.json is replaced under a lock.
package depot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// ArtifactType marks manifests that Trysail wrote.
const ArtifactType = "application/vnd.trysail.originals.v1"

const (
	maxLayers   = 100     // per manifest: registries refuse more than a few hundred
	maxManifest = 4 << 20 // bytes, the limit of the distribution specification
	layerType   = "application/vnd.trysail.original"
)

// Depot is a directory of originals. It may be used by several processes at once.
type Depot struct{ dir string }

// Item is one original under its name.
type Item struct {
	Name   string
	Digest string // "sha256:…"
	Size   int64
}

// Reference is a named set of originals.
type Reference struct {
	Name    string
	Digest  string
	Items   []Item
	Created time.Time
}

// Size is the sum of the sizes of the items, in bytes.
func (r *Reference) Size() int64 {
	var n int64
	for _, it := range r.Items {
		n += it.Size
	}
	return n
}

// DigestError says that bytes are not what their digest promises.
type DigestError struct{ Want, Got string }

func (e *DigestError) Error() string {
	return fmt.Sprintf("original %s holds other bytes (%s)", e.Want, e.Got)
}

// Hint says what to do.
func (e *DigestError) Hint() string {
	return "the depot's disk or the network changed it: trysail depot verify lists all such originals; delete the bad blob and pull it again or capture again"
}

// NotFoundError says that the depot lacks something.
type NotFoundError struct{ What, Depot string }

func (e *NotFoundError) Error() string { return e.What + " is not in the depot " + e.Depot }

// Hint says what to do.
func (e *NotFoundError) Hint() string {
	return "name the right one with --depot, or fetch it: trysail depot pull REGISTRY/REPOSITORY:TAG"
}

// FullError says that the disk under the depot is full.
type FullError struct {
	Dir string
	Err error
}

func (e *FullError) Error() string {
	return "no space left for the depot " + e.Dir + ": " + e.Err.Error()
}
func (e *FullError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *FullError) Hint() string {
	return "free space there, or use a depot on a larger disk with --depot DIR; what was stored already stays"
}

var (
	digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	refRE    = regexp.MustCompile(`^[a-z0-9]+(?:[._/-][a-z0-9]+)*$`)
)

// Open opens a depot, and makes one where there is nothing or an empty directory.
func Open(dir string) (*Depot, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	d := &Depot{dir: dir}
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("depot: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, v1.ImageLayoutFile))
	switch {
	case err == nil:
		var l v1.ImageLayout
		if json.Unmarshal(data, &l) != nil || l.Version != v1.ImageLayoutVersion {
			return nil, fmt.Errorf("depot %s: oci-layout is damaged or of another version than %s", dir, v1.ImageLayoutVersion)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("depot: %w", err)
	case slices.ContainsFunc(names, func(e fs.DirEntry) bool { return e.Name() != "blobs" && !strings.HasPrefix(e.Name(), ".") }):
		return nil, fmt.Errorf("depot: %s is neither empty nor an OCI layout: choose another directory", dir)
	}
	if err := d.private(); err != nil {
		return nil, err
	}
	if data == nil {
		layout, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
		if err != nil {
			return nil, err
		}
		if err := renameio.WriteFile(filepath.Join(dir, v1.ImageLayoutFile), layout, 0o600); err != nil {
			return nil, d.full(err)
		}
	}
	return d, nil
}

// Dir is the depot's directory.
func (d *Depot) Dir() string { return d.dir }

func (d *Depot) blobs() string { return filepath.Join(d.dir, "blobs", "sha256") }

func (d *Depot) path(dg string) string {
	return filepath.Join(d.blobs(), strings.TrimPrefix(dg, "sha256:"))
}

func (d *Depot) full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &FullError{d.dir, err}
	}
	return fmt.Errorf("depot: %w", err)
}

// Put keeps a stream and returns its digest and size. What is there already and
// whole is not written twice.
func (d *Depot) Put(ctx context.Context, r io.Reader) (string, int64, error) {
	return d.put(ctx, r, "")
}

// PutExpected is Put for bytes whose digest is known; others are refused.
func (d *Depot) PutExpected(ctx context.Context, r io.Reader, want string) (int64, error) {
	_, n, err := d.put(ctx, r, want)
	return n, err
}

func (d *Depot) put(ctx context.Context, r io.Reader, want string) (dg string, n int64, err error) {
	f, err := os.CreateTemp(d.blobs(), ".new-*")
	if err != nil {
		return "", 0, d.full(err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	h := sha256.New()
	n, err = io.Copy(io.MultiWriter(f, h), contextReader{ctx, r})
	if err != nil {
		return "", 0, d.full(err)
	}
	dg = "sha256:" + hex.EncodeToString(h.Sum(nil))
	if want != "" && dg != want {
		return "", 0, &DigestError{Want: want, Got: dg}
	}
	// What is there is kept if it is whole: a changed one is replaced, and the
	// time of the other is renewed, so that Prune leaves it to this writer.
	if have, cerr := d.check(ctx, dg); cerr == nil && have == n {
		now := time.Now()
		if err := os.Chtimes(d.path(dg), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", 0, d.full(err)
		} else if err == nil {
			return dg, n, os.Remove(f.Name())
		}
	}
	if err = f.Chmod(0o400); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), d.path(dg))
	}
	if err != nil {
		return "", 0, d.full(err)
	}
	return dg, n, nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// PutBytes is Put for what is in memory.
func (d *Depot) PutBytes(ctx context.Context, data []byte) (string, error) {
	dg, _, err := d.Put(ctx, bytes.NewReader(data))
	return dg, err
}

// PutFile is Put for a file.
func (d *Depot) PutFile(ctx context.Context, path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return d.Put(ctx, f)
}

// Has tells whether an original is there, by its name alone.
func (d *Depot) Has(dg string) bool {
	_, err := os.Stat(d.path(dg))
	return err == nil && digestRE.MatchString(dg)
}

// Size is an original's size in bytes, 0 where it is not there.
func (d *Depot) Size(dg string) int64 {
	info, err := os.Stat(d.path(dg))
	if err != nil || !digestRE.MatchString(dg) {
		return 0
	}
	return info.Size()
}

// Get opens an original. The reader fails with a DigestError at the end if the
// bytes were not those of the digest.
func (d *Depot) Get(_ context.Context, dg string) (io.ReadCloser, error) {
	if !digestRE.MatchString(dg) {
		return nil, fmt.Errorf("depot: %q is not a sha256 digest", dg)
	}
	f, err := os.Open(d.path(dg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{"original " + dg, d.dir}
	}
	if err != nil {
		return nil, fmt.Errorf("depot: %w", err)
	}
	return &verifier{f: f, h: sha256.New(), want: dg}, nil
}

type verifier struct {
	f    *os.File
	h    hash.Hash
	want string
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.f.Read(p)
	v.h.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := "sha256:" + hex.EncodeToString(v.h.Sum(nil)); got != v.want {
			return n, &DigestError{Want: v.want, Got: got}
		}
	}
	return n, err
}

func (v *verifier) Close() error { return v.f.Close() }

// ReadAll reads a small original whole, at most limit bytes.
func (d *Depot) ReadAll(ctx context.Context, dg string, limit int64) ([]byte, error) {
	r, err := d.Get(ctx, dg)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("depot: original %s is larger than %d bytes", dg, limit)
	}
	return data, nil
}

// Tag names a set of originals, all of which must be there. An earlier set of
// that name stays under its name and digest.
func (d *Depot) Tag(ctx context.Context, name string, created time.Time, items []Item) (string, error) {
	if !refRE.MatchString(name) {
		return "", fmt.Errorf("depot: reference %q may hold only a-z 0-9 . _ - and /", name)
	}
	empty := []byte("{}")
	if _, err := d.PutBytes(ctx, empty); err != nil {
		return "", err
	}
	index := v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, ArtifactType: ArtifactType,
		Manifests:   []v1.Descriptor{},
		Annotations: map[string]string{v1.AnnotationCreated: created.UTC().Format(time.RFC3339), v1.AnnotationRefName: name},
	}
	names := map[string]string{}
	for part := range slices.Chunk(items, maxLayers) {
		m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: ArtifactType, Config: v1.DescriptorEmptyJSON}
		m.Config.Data = nil
		for _, it := range part {
			if err := checkItem(it); err != nil {
				return "", err
			}
			if old, twice := names[it.Name]; twice {
				return "", fmt.Errorf("depot: %s stands twice in reference %s (%s and %s)", it.Name, name, old, it.Digest)
			}
			names[it.Name] = it.Digest
			info, err := os.Stat(d.path(it.Digest))
			if err != nil {
				return "", &NotFoundError{it.Name + " (" + it.Digest + ")", d.dir}
			}
			m.Layers = append(m.Layers, v1.Descriptor{MediaType: layerType, Digest: digest.Digest(it.Digest), Size: info.Size(), Annotations: map[string]string{v1.AnnotationTitle: it.Name}})
		}
		desc, err := d.putJSON(ctx, m, v1.MediaTypeImageManifest)
		if err != nil {
			return "", err
		}
		index.Manifests = append(index.Manifests, desc)
	}
	desc, err := d.putJSON(ctx, index, v1.MediaTypeImageIndex)
	if err != nil {
		return "", err
	}
	return string(desc.Digest), d.name(name, desc, items)
}

// name gives a reference's index its name, if everything it needs is there.
func (d *Depot) name(name string, desc v1.Descriptor, items []Item) error {
	desc.Annotations = map[string]string{v1.AnnotationRefName: name}
	return d.updateIndex(func(ix *v1.Index) error {
		// Looked at again under the lock that Prune holds.
		for _, it := range items {
			if !d.Has(it.Digest) {
				return &NotFoundError{it.Name + " (" + it.Digest + ")", d.dir}
			}
		}
		ix.Manifests = slices.DeleteFunc(ix.Manifests, func(m v1.Descriptor) bool { return m.Digest == desc.Digest && is(m, name) })
		for i, m := range ix.Manifests {
			if m.Annotations[v1.AnnotationRefName] == name {
				ix.Manifests[i].Annotations[v1.AnnotationRefName] = name + "@" + string(m.Digest)
			}
		}
		ix.Manifests = append(ix.Manifests, desc)
		return nil
	})
}

// is tells whether an entry has a name, now or before another set took it over.
func is(m v1.Descriptor, name string) bool {
	have := m.Annotations[v1.AnnotationRefName]
	return have == name || have == name+"@"+string(m.Digest)
}

// Untag removes a name, or the set of it that name@sha256:… pins; Prune removes
// what it alone referred to.
func (d *Depot) Untag(name string) error {
	bare, pin, pinned := strings.Cut(name, "@")
	return d.updateIndex(func(ix *v1.Index) error {
		before := len(ix.Manifests)
		ix.Manifests = slices.DeleteFunc(ix.Manifests, func(m v1.Descriptor) bool {
			if pinned {
				return is(m, bare) && pin == string(m.Digest)
			}
			return m.Annotations[v1.AnnotationRefName] == name
		})
		if len(ix.Manifests) == before {
			return &NotFoundError{"reference " + name, d.dir}
		}
		return nil
	})
}

func checkItem(it Item) error {
	if !digestRE.MatchString(it.Digest) {
		return fmt.Errorf("depot: %s: %q is not a sha256 digest", it.Name, it.Digest)
	}
	if it.Name == "" || strings.HasPrefix(it.Name, "/") || strings.Contains("/"+it.Name+"/", "/../") || strings.ContainsFunc(it.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("depot: %q is not a name for an original", it.Name)
	}
	return nil
}

func (d *Depot) putJSON(ctx context.Context, v any, mediaType string) (v1.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if len(data) > maxManifest {
		return v1.Descriptor{}, fmt.Errorf("depot: manifest of %d bytes is larger than registries take (%d)", len(data), maxManifest)
	}
	dg, err := d.PutBytes(ctx, data)
	return v1.Descriptor{MediaType: mediaType, Digest: digest.Digest(dg), Size: int64(len(data)), ArtifactType: ArtifactType}, err
}

// lock waits until no other process changes index.json or removes blobs. It
// ends when the file is closed.
func (d *Depot) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(d.dir, ".lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, d.full(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("depot: lock: %w", err)
	}
	return f, nil
}

// updateIndex replaces index.json under the lock.
func (d *Depot) updateIndex(change func(*v1.Index) error) error {
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	ix, err := d.index()
	if err != nil {
		return err
	}
	if err := change(ix); err != nil {
		return err
	}
	// The blobs' names are on the disk before one that leads to them.
	if err := syncDir(d.blobs()); err != nil {
		return d.full(err)
	}
	data, err := json.MarshalIndent(ix, "", " ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(d.dir, v1.ImageIndexFile), data, 0o600); err != nil {
		return d.full(err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// IndexError says that the list of references cannot be read.
type IndexError struct {
	File string
	Err  error
}

func (e *IndexError) Error() string { return "depot: " + e.File + " is damaged: " + e.Err.Error() }
func (e *IndexError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *IndexError) Hint() string {
	return "the originals are not touched: restore the file from a backup, or move it away and capture or pull each reference again (what is there is not moved twice)"
}

func (d *Depot) index() (*v1.Index, error) {
	file := filepath.Join(d.dir, v1.ImageIndexFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("depot: %w", err)
	}
	ix := &v1.Index{}
	if err := json.Unmarshal(data, ix); err != nil {
		return nil, &IndexError{file, err}
	}
	if ix.SchemaVersion != 2 {
		return nil, &IndexError{file, fmt.Errorf("schema version %d is not 2", ix.SchemaVersion)}
	}
	return ix, nil
}

// Resolve finds a reference by name, or by name@sha256:….
func (d *Depot) Resolve(ctx context.Context, name string) (*Reference, error) {
	bare, pin, pinned := strings.Cut(name, "@")
	ix, err := d.index()
	if err != nil {
		return nil, err
	}
	for _, m := range ix.Manifests {
		if (pinned && is(m, bare) && pin == string(m.Digest)) || (!pinned && m.Annotations[v1.AnnotationRefName] == name) {
			return d.readReference(ctx, bare, string(m.Digest))
		}
	}
	return nil, &NotFoundError{"reference " + name, d.dir}
}

// List reads every reference, sorted by name. Earlier sets of a name stand as
// name@sha256:….
func (d *Depot) List(ctx context.Context) ([]*Reference, error) {
	ix, err := d.index()
	if err != nil {
		return nil, err
	}
	var list []*Reference
	for _, m := range ix.Manifests {
		r, err := d.readReference(ctx, m.Annotations[v1.AnnotationRefName], string(m.Digest))
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *Reference) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (d *Depot) readReference(ctx context.Context, name, dg string) (*Reference, error) {
	var index v1.Index
	if err := d.readJSON(ctx, dg, &index); err != nil {
		return nil, err
	}
	r := &Reference{Name: name, Digest: dg}
	if t, err := time.Parse(time.RFC3339, index.Annotations[v1.AnnotationCreated]); err == nil {
		r.Created = t
	}
	for _, md := range index.Manifests {
		var m v1.Manifest
		if err := d.readJSON(ctx, string(md.Digest), &m); err != nil {
			return nil, err
		}
		for _, l := range m.Layers {
			it := Item{Name: l.Annotations[v1.AnnotationTitle], Digest: string(l.Digest), Size: l.Size}
			if err := checkItem(it); err != nil {
				return nil, fmt.Errorf("reference %s: %w", name, err)
			}
			r.Items = append(r.Items, it)
		}
	}
	return r, nil
}

func (d *Depot) readJSON(ctx context.Context, dg string, v any) error {
	data, err := d.ReadAll(ctx, dg, maxManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("depot: manifest %s: %w", dg, err)
	}
	return nil
}
