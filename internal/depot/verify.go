package depot

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Problem is one original that is not as it should be.
type Problem struct {
	Digest string   `json:"digest"`
	Names  []string `json:"names"` // "blueprint/age: deb/gcc_12_amd64.deb"
	What   string   `json:"what"`
}

// Report is the result of reading a whole depot.
type Report struct {
	Originals    int       `json:"originals"`
	Bytes        int64     `json:"bytes"`
	Problems     []Problem `json:"problems"`
	Unreferenced int       `json:"unreferenced"` // blobs no reference names; trysail depot prune removes them
}

// Verify reads every original again and checks that every reference is whole.
func (d *Depot) Verify(ctx context.Context, progress func(done, total int64)) (*Report, error) {
	names, sizes, bad, err := d.referenced(ctx)
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(d.blobs())
	if err != nil {
		return nil, err
	}
	rep := &Report{Problems: append([]Problem{}, bad...)}
	var total, done int64
	var blobs []string
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue
		}
		dg := "sha256:" + f.Name()
		blobs = append(blobs, dg)
		if info, err := f.Info(); err == nil {
			total += info.Size()
		}
		if names[dg] == nil {
			rep.Unreferenced++
		}
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, dg := range blobs {
		g.Go(func() error {
			n, err := d.check(ctx, dg)
			mu.Lock()
			defer mu.Unlock()
			rep.Originals++
			rep.Bytes += n
			done += n
			if progress != nil {
				progress(done, total)
			}
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				rep.Problems = append(rep.Problems, Problem{dg, names[dg], err.Error()})
			case names[dg] != nil && sizes[dg] != n:
				rep.Problems = append(rep.Problems, Problem{dg, names[dg], "its size is not the one its manifest gives"})
			}
			return nil
		})
	}
	err = g.Wait()
	slices.SortStableFunc(rep.Problems, func(a, b Problem) int { return strings.Compare(a.Digest, b.Digest) })
	return rep, err
}

func (d *Depot) check(ctx context.Context, dg string) (int64, error) {
	r, err := d.Get(ctx, dg)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, contextReader{ctx, r})
}

// referenced maps every digest that a reference needs to the names it has.
// References that cannot be read are problems, not errors: the rest is checked.
func (d *Depot) referenced(ctx context.Context) (names map[string][]string, sizes map[string]int64, bad []Problem, err error) {
	ix, err := d.index()
	if err != nil {
		return nil, nil, nil, err
	}
	names, sizes = map[string][]string{}, map[string]int64{}
	for _, m := range ix.Manifests {
		ref := m.Annotations[v1.AnnotationRefName]
		r, err := d.readReference(ctx, ref, string(m.Digest))
		if err != nil {
			bad = append(bad, Problem{string(m.Digest), []string{ref}, err.Error()})
			continue
		}
		manifests, err := d.manifests(ctx, string(m.Digest))
		if err != nil {
			return nil, nil, nil, err
		}
		for _, md := range manifests {
			info, err := os.Stat(d.path(md))
			if err != nil {
				return nil, nil, nil, err
			}
			names[md], sizes[md] = append(names[md], ref+": manifest"), info.Size()
		}
		for _, it := range r.Items {
			names[it.Digest], sizes[it.Digest] = append(names[it.Digest], ref+": "+it.Name), it.Size
			if !d.Has(it.Digest) {
				bad = append(bad, Problem{it.Digest, []string{ref + ": " + it.Name}, "missing"})
			}
		}
	}
	return names, sizes, bad, nil
}

// Prune removes temporary files of killed runs and blobs that no reference
// names. Blobs younger than an hour stay: a running capture names its own last.
func (d *Depot) Prune(ctx context.Context, now time.Time) (removed int, bytes int64, err error) {
	lock, err := d.lock()
	if err != nil {
		return 0, 0, err
	}
	defer lock.Close()
	if _, err := os.Stat(filepath.Join(d.dir, v1.ImageIndexFile)); errors.Is(err, fs.ErrNotExist) {
		return 0, 0, errors.New("depot: index.json is not there, so no original is known to be needed, and nothing is pruned")
	}
	names, _, bad, err := d.referenced(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range bad {
		if p.What != "missing" {
			return 0, 0, errors.New("depot: a reference cannot be read, so nothing is pruned: run trysail depot verify")
		}
	}
	files, err := os.ReadDir(d.blobs())
	if err != nil {
		return 0, 0, err
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || now.Sub(info.ModTime()) < time.Hour || names["sha256:"+f.Name()] != nil {
			continue
		}
		if err := os.Remove(filepath.Join(d.blobs(), f.Name())); err != nil {
			return removed, bytes, err
		}
		removed++
		bytes += info.Size()
	}
	return removed, bytes, nil
}

// SetAside moves a blob whose bytes are not those of its digest out of the way,
// into damaged/, so that it can be put again. A blob that is whole stays.
func (d *Depot) SetAside(ctx context.Context, dg string) error {
	r, err := d.Get(ctx, dg)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	r.Close()
	var wrong *DigestError
	if !errors.As(err, &wrong) {
		return err
	}
	dir := filepath.Join(d.dir, "damaged")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Rename(d.path(dg), filepath.Join(dir, filepath.Base(d.path(dg))))
}
