package vcs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// differences names the files of a checkout that are otherwise in the copy, or not there,
// whatever git or svn say of them. After some it only counts them: a copy that has a part of
// the revision lacks very many.
func differences(checkout, root string) (list []string, more int, err error) {
	const most = 64 << 10
	size := 0
	ours, err := os.OpenRoot(checkout)
	if err != nil {
		return nil, 0, err
	}
	defer ours.Close()
	theirs, err := os.OpenRoot(root)
	if err != nil {
		return nil, 0, err
	}
	defer theirs.Close()
	err = fs.WalkDir(ours.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".svn"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		same, err := sameFile(ours, theirs, p)
		switch {
		case err != nil || same:
		case size > most:
			more++
		default:
			list, size = append(list, p), size+len(p)
		}
		return err
	})
	return list, more, err
}

// sameFile tells whether a file or link is the same in two trees, times aside.
func sameFile(ours, theirs *os.Root, name string) (bool, error) {
	a, err := ours.Lstat(name)
	if err != nil {
		return false, err
	}
	b, err := theirs.Lstat(name)
	if err != nil {
		return false, nil // it is not there, or behind a link that leads out
	}
	const kind = fs.ModeType | 0o100
	switch {
	case a.Mode()&fs.ModeSymlink != 0 && b.Mode()&fs.ModeSymlink != 0:
		to, err := ours.Readlink(name)
		if err != nil {
			return false, err
		}
		other, err := theirs.Readlink(name)
		return err == nil && to == other, nil
	case a.Mode()&kind != b.Mode()&kind || a.Size() != b.Size():
		return false, nil
	}
	x, err := ours.Open(name)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := theirs.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, nil // the user may not read it
	}
	defer y.Close()
	return sameBytes(x, y)
}

// sameBytes tells whether two readers give the same.
func sameBytes(x, y io.Reader) (bool, error) {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(x, a)
		m, other := io.ReadFull(y, b)
		switch {
		case n != m || !bytes.Equal(a[:n], b[:m]):
			return false, nil
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return other == err, nil
		case err != nil:
			return false, err
		}
	}
}
