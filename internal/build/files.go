package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Files reads single files of a source archive, as a checkout of the revision has them.
type Files struct {
	open  func() (io.ReadCloser, error)
	links map[string]string // targets by name
}

const (
	maxLinks = 1 << 20
	maxFiles = 256 << 20 // bytes that are read into memory
)

// OpenFiles finds out which links an archive (tar.zst) holds. open gives the archive from its
// beginning.
func OpenFiles(ctx context.Context, open func() (io.ReadCloser, error)) (*Files, error) {
	f := &Files{open: open, links: map[string]string{}}
	size := 0
	return f, f.each(ctx, func(name string, h *tar.Header, _ io.Reader) error {
		if h.Typeflag == tar.TypeSymlink {
			f.links[strings.Clone(name)] = strings.Clone(h.Linkname) // of a long header nothing else stays
			size += len(name) + len(h.Linkname)
		}
		if len(f.links) > maxLinks || size > maxFiles {
			return fmt.Errorf("the source has more than %d links, or %d MB of them", maxLinks, maxFiles>>20)
		}
		return nil
	})
}

func (f *Files) each(ctx context.Context, visit func(name string, h *tar.Header, r io.Reader) error) (err error) {
	in, err := f.open()
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	zr, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(512<<20))
	if err != nil {
		return err
	}
	defer zr.Close()
	tr := tar.NewReader(zr)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = visit(path.Clean(h.Name), h, tr)
		}
		if err != nil {
			return err
		}
	}
}

// Read gives the files of these names; of a name that is a directory, all files below it. They
// are named as they were asked for: links lead on inside of the archive only, and a name that
// is not there is left out.
func (f *Files) Read(ctx context.Context, names ...string) (map[string][]byte, error) {
	at := map[string]string{} // what was asked for, by where it is
	for _, name := range names {
		place, err := f.resolve(name)
		if err != nil {
			return nil, err
		}
		at[place] = path.Clean(name)
	}
	found, size := map[string][]byte{}, int64(0)
	err := f.each(ctx, func(name string, h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		for dir := name; ; dir = path.Dir(dir) {
			if asked, ok := at[dir]; ok {
				if size += h.Size + int64(len(name)); size > maxFiles {
					return fmt.Errorf("%s and what else is read of the source have more than %d MB", name, maxFiles>>20)
				}
				data, err := io.ReadAll(r)
				found[strings.Clone(asked+strings.TrimPrefix(name, dir))] = data
				return err
			}
			if dir == "." || dir == "/" {
				return nil
			}
		}
	})
	return found, err
}

// resolve follows the links on the way to a name.
func (f *Files) resolve(name string) (string, error) {
	done, rest := ".", strings.Split(path.Clean(name), "/")
	for hops := 0; len(rest) > 0; {
		next := path.Join(done, rest[0])
		rest = rest[1:]
		if next == ".." || strings.HasPrefix(next, "../") || strings.HasPrefix(next, "/") {
			return "", fmt.Errorf("%s is not in the revision: a link leads out of the working copy", name)
		}
		target, ok := f.links[next]
		if !ok {
			done = next
			continue
		}
		if hops++; hops > 40 || path.IsAbs(target) {
			return "", fmt.Errorf("%s is not in the revision: the link %s leads to %s", name, next, target)
		}
		rest = append(strings.Split(path.Clean(target), "/"), rest...)
	}
	return done, nil
}
