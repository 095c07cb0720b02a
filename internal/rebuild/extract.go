package rebuild

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"trysail/internal/debian"
)

// Extract unpacks a tar.zst below root, which no member can leave, neither by
// its name nor through a link that an earlier member made.
func Extract(ctx context.Context, root *os.Root, r io.Reader, rename func(string) string) error {
	zr, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(512<<20))
	if err != nil {
		return err
	}
	defer zr.Close()
	tr := tar.NewReader(zr)
	type directory struct {
		name string
		head *tar.Header
	}
	var dirs []directory
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if rename != nil {
			name = rename(name)
			if h.Typeflag == tar.TypeLink {
				h.Linkname = rename(path.Clean(h.Linkname))
			}
		}
		if strings.HasPrefix(name, "/") || name == ".." || strings.HasPrefix(name, "../") {
			return fmt.Errorf("member %q leaves the root", h.Name)
		}
		if name == "." {
			continue
		}
		if err := member(root, name, h, tr); err != nil {
			return fmt.Errorf("member %s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, directory{name, h})
		}
	}
	// What comes into a directory needs to be allowed in, and changes its time.
	for _, d := range slices.Backward(dirs) {
		if err := permit(root, d.name, d.head); err != nil {
			return fmt.Errorf("member %s: %w", d.head.Name, err)
		}
		if err := root.Chtimes(d.name, d.head.ModTime, d.head.ModTime); err != nil {
			return fmt.Errorf("member %s: %w", d.head.Name, err)
		}
	}
	// zstd's checksum is at the end of its stream, and the depot's digest is
	// checked at the end of its own. The decoder reads in the background, so it
	// must be done before anyone else reads.
	if _, err := io.Copy(io.Discard, zr); err != nil {
		return err
	}
	zr.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func member(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		info, err := root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
				return err
			}
			return root.Mkdir(name, 0o700)
		case err != nil:
			return err
		case !info.IsDir():
			return errors.New("something else stands where it has a directory")
		}
		return nil
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := permit(root, name, h); err != nil {
			return err
		}
		return root.Chtimes(name, h.ModTime, h.ModTime)
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return root.Lchown(name, h.Uid, h.Gid)
	case tar.TypeLink:
		return root.Link(path.Clean(h.Linkname), name)
	default:
		return fmt.Errorf("type %q does not belong here", h.Typeflag)
	}
}

func permit(root *os.Root, name string, h *tar.Header) error {
	if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	return root.Chmod(name, debian.FileMode(h.Mode))
}
