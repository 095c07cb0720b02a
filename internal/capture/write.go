package capture

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// writeFiles writes a blueprint directory: each file whole or not at all, the
// truth (blueprint.yaml) last. Configuration files of an earlier capture that
// are no longer part of it are removed; version control has them.
func writeFiles(dir string, files, config map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	uid, gid := ownerAbove(dir)
	var names []string
	all := map[string][]byte{}
	for _, m := range []map[string][]byte{files, config} {
		for name, data := range m {
			all[name] = data
			names = append(names, name)
		}
	}
	slices.Sort(names)
	slices.SortStableFunc(names, func(a, b string) int { return last(a) - last(b) })
	for _, name := range names {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("blueprint file %q leaves its directory", name)
		}
	}
	// The directory is in somebody's working copy, and root writes to it: a link
	// in there must not lead elsewhere.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	own := func(name string) error { return root.Lchown(name, uid, gid) }
	for _, name := range names {
		if err := writeFile(root, name, all[name], own); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("%w: the disk is full; nothing was lost: free space and run the same command again", err)
			}
			return err
		}
	}
	err = fs.WalkDir(root.FS(), "config", func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if _, kept := all[p]; kept {
			return nil
		}
		return root.Remove(p)
	})
	return errors.Join(err, own("."))
}

// writeFile writes one file, whole or not at all, and gives it and the
// directories above it their owner.
func writeFile(root *os.Root, name string, data []byte, own func(name string) error) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	tmp := path.Join(path.Dir(name), ".new-"+rand.Text())
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = own(tmp)
	}
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		if err := own(d); err != nil {
			return err
		}
	}
	return nil
}

func last(name string) int {
	if strings.HasSuffix(name, "blueprint.yaml") {
		return 1
	}
	return 0
}

// ownerAbove gives the owner of the nearest directory above dir: the working
// copy's user, who shall be able to commit what root wrote.
func ownerAbove(dir string) (uid, gid int) {
	if info, err := os.Stat(filepath.Dir(dir)); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return int(st.Uid), int(st.Gid)
		}
	}
	return os.Getuid(), os.Getgid()
}
