package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"trysail/blueprint"
	"trysail/internal/debian"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/tree"
)

// Source lays out a source's archive in a scratch directory that belongs to the
// build's user.
func Source(ctx context.Context, n *machine.Session, d *depot.Depot, original string, user blueprint.User) (string, error) {
	dir, err := n.MkdirAll(0o755, "checkout")
	if err != nil {
		return "", err
	}
	r, err := d.Get(ctx, original)
	if err != nil {
		return "", fmt.Errorf("source: %w", err)
	}
	defer r.Close()
	root, err := tree.Open(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := Extract(ctx, root, r, nil); err != nil {
		return "", fmt.Errorf("source: %w", err)
	}
	return dir, root.Lchown(".", user.UID, user.GID)
}

// maxDirectories bounds the memory for an archive's directories, in bytes: nearly a million of them.
const maxDirectories = 512 << 20

// Extract unpacks a tar.zst below root, which no member can leave, neither by
// its name nor through a link that an earlier member made. A directory of
// [tree.Open] refuses members that go through links; one of [tree.OpenRoot]
// puts them where a program in the root would.
func Extract(ctx context.Context, root *tree.Dir, r io.Reader, rename func(string) string) error {
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
	held := 0
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
			d := directory{strings.Clone(name), &tar.Header{Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, PAXRecords: tree.Kept(h.PAXRecords)}}
			held += len(name) + 512
			for key, value := range d.head.PAXRecords {
				held += len(key) + len(value)
			}
			if dirs = append(dirs, d); held > maxDirectories {
				return fmt.Errorf("its directories and their attributes take more than %d MB", maxDirectories>>20)
			}
		}
	}
	// What comes into a directory needs to be allowed in, and changes its time.
	for _, d := range slices.Backward(dirs) {
		if err := permit(root, d.name, d.head); err != nil {
			return fmt.Errorf("member %s: %w", d.name, err)
		}
		if err := root.Chtimes(d.name, d.head.ModTime); err != nil {
			return fmt.Errorf("member %s: %w", d.name, err)
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

func member(root *tree.Dir, name string, h *tar.Header, r io.Reader) error {
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
		f, err := root.Create(name, 0o600)
		if err != nil {
			return err
		}
		sparse, err := tree.NewSparse(f, h.PAXRecords, h.Size)
		if err == nil {
			_, err = io.Copy(sparse, r)
		}
		if err == nil {
			err = sparse.Close()
		}
		if err == nil {
			err = f.Chown(h.Uid, h.Gid) // before the mode: it takes setuid away
		}
		if err == nil {
			err = f.Chmod(debian.FileMode(h.Mode))
		}
		if err == nil {
			err = root.SetRecords(name, h.PAXRecords)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		return root.Chtimes(name, h.ModTime)
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
			return err
		}
		return root.Chtimes(name, h.ModTime)
	case tar.TypeLink:
		return root.Link(path.Clean(h.Linkname), name)
	default:
		return fmt.Errorf("type %q does not belong here", h.Typeflag)
	}
}

func permit(root *tree.Dir, name string, h *tar.Header) error {
	if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	return errors.Join(root.Chmod(name, debian.FileMode(h.Mode)), root.SetRecords(name, h.PAXRecords))
}
