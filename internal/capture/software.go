package capture

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"time"

	"trysail/blueprint"
	"trysail/internal/tree"
)

// softwareTree is one tree of software while it is written to an archive.
type softwareTree struct {
	kept    blueprint.Software
	skip    []string            // directories that are not part of it
	private func(p string) bool // only root may read the file
	refused []string            // what the build's user may not read
	secrets map[string][]string // by why they are secrets
	names   map[inode]string    // the first name of each file that has several
	seen    func(files int, size int64)
}

// inode is a file, whatever its names.
type inode struct{ device, number uint64 }

// write walks the tree with the rights of the calling thread, and follows no link:
// what stands in it is archived, whatever its owner does meanwhile.
func (t *softwareTree) write(ctx context.Context, tw *tar.Writer) error {
	above, err := tree.Open(path.Dir(t.kept.Path))
	if err != nil {
		return err
	}
	defer above.Close()
	return above.Walk(path.Base(t.kept.Path), func(e *tree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := path.Join(path.Dir(t.kept.Path), e.Path)
		if p != t.kept.Path && slices.Contains(t.skip, p) {
			return fs.SkipDir
		}
		switch {
		case e.Mode().IsRegular():
			return t.file(tw, p, e)
		case e.Mode()&fs.ModeSymlink != 0:
			target, err := e.Readlink()
			if err != nil {
				return err
			}
			return addToTar(tw, p[1:], e, target, nil, nil)
		case !e.IsDir():
			return nil // sockets and pipes are not originals of anything
		}
		records, err := e.Records()
		if err != nil {
			return err
		}
		if err := addToTar(tw, p[1:], e, "", nil, records); err != nil {
			return err
		}
		err = e.Listable()
		if errors.Is(err, fs.ErrPermission) {
			t.refused = append(t.refused, p)
			return fs.SkipDir
		}
		return err
	})
}

// file archives a file of the tree, if it may be kept. It is opened once: what is
// looked at for secrets is what is archived.
func (t *softwareTree) file(tw *tar.Writer, p string, e *tree.Entry) error {
	f, err := e.Open()
	if errors.Is(err, fs.ErrPermission) {
		t.refused = append(t.refused, p)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := bounded(f, p); err != nil {
		return err
	}
	why, err := screen(p, f, info.Size())
	if err != nil {
		return err
	}
	if why == "" && t.private(p) {
		why = onlyRoot
	}
	if why != "" {
		t.secrets[why] = append(t.secrets[why], p)
		return nil
	}
	t.kept.Files++
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		file := inode{st.Dev, st.Ino}
		if first := t.names[file]; first != "" {
			return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: p[1:], Linkname: first, Format: tar.FormatPAX})
		}
		t.names[file] = p[1:]
	}
	t.kept.Size += info.Size()
	t.seen(t.kept.Files, t.kept.Size)
	records, err := e.Records()
	if err != nil {
		return err
	}
	key, holes, err := tree.Holes(f, info.Size())
	if err != nil {
		return err
	}
	if holes != "" {
		records[key] = holes
	}
	return addToTar(tw, p[1:], info, "", f, records)
}

// addToTar adds one file, link or directory.
func addToTar(tw *tar.Writer, name string, info fs.FileInfo, link string, body io.Reader, records map[string]string) error {
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format, h.PAXRecords = name, tar.FormatPAX, records
	if info.IsDir() {
		h.Name += "/"
	}
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.Uname, h.Gname = "", ""
	if err := tw.WriteHeader(h); err != nil || body == nil {
		return err
	}
	if _, err := io.Copy(tw, io.LimitReader(body, h.Size)); err != nil {
		return fmt.Errorf("/%s: %w", name, err)
	}
	return nil
}

// secrets keeps the secrets of a tree as configuration, encrypted, which is laid
// on top of the tree; without recipients, and where one is large, it is withheld.
func (c *capture) secrets(ctx context.Context, found map[string][]string) error {
	const most = 1 << 20
	for _, why := range sortedKeys(found) {
		var left []string
		for _, p := range found[why] {
			st := statPath(p)
			if len(c.b.Recipients) == 0 || st.Size > most {
				left = append(left, p)
				continue
			}
			data, err := c.rights.readFile(p)
			if err != nil {
				return err
			}
			f := blueprint.File{Path: p, Mode: modeText(st.Mode), Owner: st.Owner, Why: "in a tree of software; encrypted, because " + why}
			if err := c.keepConfig(ctx, f, data, true); err != nil {
				return err
			}
		}
		c.withhold(why, left...)
	}
	return nil
}
