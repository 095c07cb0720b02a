package tree

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// FS gives the tree to code that reads an [fs.FS], under the directory's rule
// for links. Opening anything but a regular file is a [KindError].
func (d *Dir) FS() fs.FS { return files{d} }

type files struct{ d *Dir }

func (f files) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	file, err := f.d.Open(name)
	if err != nil {
		return nil, err // not a typed nil
	}
	return file, nil
}

// maxPart bounds what [fs.ReadFile] reads as a whole, in bytes.
const maxPart = 64 << 20

func (f files) ReadFile(name string) ([]byte, error) { return f.d.ReadFile(name, maxPart) }

func (f files) Stat(name string) (fs.FileInfo, error) {
	fd, err := f.d.descriptor(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	info, err := fstat(fd, name)
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (f files) Lstat(name string) (fs.FileInfo, error) {
	info, err := f.d.Lstat(name)
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (f files) ReadLink(name string) (string, error) { return f.d.Readlink(name) }

func (f files) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := f.d.ReadDir(name)
	var entries []fs.DirEntry
	for _, info := range list {
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	return entries, err
}
