package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
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
	made := []string{dir}
	for _, name := range names {
		p := filepath.Join(dir, name)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("blueprint file %q leaves its directory", name)
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := renameio.WriteFile(p, all[name], 0o644); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("%w: the disk is full; nothing was lost: free space and run the same command again", err)
			}
			return err
		}
		for d := p; d != dir && d != "/" && d != "."; d = filepath.Dir(d) {
			made = append(made, d)
		}
	}
	err := filepath.WalkDir(filepath.Join(dir, "config"), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || all[rel] != nil {
			return err
		}
		return os.Remove(p)
	})
	if err != nil {
		return err
	}
	for _, p := range made {
		if err := os.Lchown(p, uid, gid); err != nil {
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
