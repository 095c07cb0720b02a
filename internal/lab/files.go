package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// File is one of a directory that goes from one machine to another.
type File struct {
	Name string // below the directory, with slashes
	Data []byte
}

// MostFiles bounds what [ReadFiles] reads, in bytes: it is held in memory, and goes over
// SSH.
const MostFiles = 64 << 20

// ReadFiles reads what is in a directory.
func ReadFiles(dir string) ([]File, error) {
	var list []File
	var size int64
	from := os.DirFS(dir)
	err := fs.WalkDir(from, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := fs.Stat(from, p)
		if err != nil {
			return err
		}
		if size += info.Size(); !info.Mode().IsRegular() || size > MostFiles {
			return fmt.Errorf("%s: more than regular files of %d MB together", filepath.Join(dir, p), MostFiles>>20)
		}
		data, err := fs.ReadFile(from, p)
		list = append(list, File{p, data})
		return err
	})
	return list, err
}

// WriteFiles makes a directory of them, which no name can leave.
func WriteFiles(dir string, list []File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range list {
		if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(f.Name, f.Data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
