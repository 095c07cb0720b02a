package lab

import (
	"errors"
	"io"
	"path"

	"trysail/internal/tree"
)

// File is one of a directory that goes from one machine to another.
type File struct {
	Name string // below the directory, with slashes
	Data []byte
}

// MostFiles bounds what [ReadFiles] reads, in bytes: it is held in memory, and goes over
// SSH.
const MostFiles = 64 << 20

// ReadFiles reads what is in a directory: regular files only, through no link.
func ReadFiles(dir string) ([]File, error) { return readFiles(dir, MostFiles) }

func readFiles(dir string, most int64) ([]File, error) {
	d, err := tree.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var list []File
	var size int64
	err = d.Walk(".", func(e *tree.Entry) error {
		if e.IsDir() {
			return nil
		}
		if size += e.Size(); size > most {
			return &tree.LimitError{Path: dir, What: "bytes", Limit: most}
		}
		data, err := d.ReadFile(e.Path, most)
		list = append(list, File{e.Path, data})
		return err
	})
	return list, err
}

// CopyFiles makes a directory of what is in another: regular files only, through no
// link, and at most [ServiceDisk] bytes. The other may be a user's, who makes links to
// what only root may read.
func CopyFiles(to, from string) error {
	src, err := tree.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := tree.MkdirAll(to, 0o755)
	if err != nil {
		return err
	}
	defer dst.Close()
	left := int64(ServiceDisk)
	return src.Walk(".", func(e *tree.Entry) error {
		if e.IsDir() {
			return dst.MkdirAll(e.Path, 0o755)
		}
		in, err := e.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := dst.Create(e.Path, 0o644)
		if err != nil {
			return err
		}
		n, err := io.Copy(out, io.LimitReader(in, left+1))
		if left -= n; err == nil && left < 0 {
			err = &tree.LimitError{Path: from, What: "bytes", Limit: ServiceDisk}
		}
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
		return dst.Chtimes(e.Path, e.ModTime())
	})
}

// WriteFiles makes a directory of them, which no name can leave.
func WriteFiles(dir string, list []File) error {
	d, err := tree.MkdirAll(dir, 0o700)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, f := range list {
		if err := d.MkdirAll(path.Dir(f.Name), 0o700); err != nil {
			return err
		}
		if err := d.Put(f.Name, f.Data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
