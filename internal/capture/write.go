package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"trysail/internal/tree"
)

// writeFiles writes a blueprint directory: each file complete or not at all, and
// blueprint.yaml last. Configuration files of an earlier capture that are no
// longer part of it are removed; version control has them.
//
// The directory is in somebody's working copy. Root writes there with the file
// rights of that user and follows no link: nothing changes that the user could
// not change, and the user can commit what root wrote. private names the files that not
// everybody could read where they were: only that user may read them here.
func writeFiles(dir string, files, config map[string][]byte, private map[string]bool) error {
	all := map[string][]byte{}
	var names []string
	for _, m := range []map[string][]byte{files, config} {
		for name, data := range m {
			if !filepath.IsLocal(name) {
				return fmt.Errorf("blueprint file %q leaves its directory", name)
			}
			all[name] = data
			names = append(names, name)
		}
	}
	slices.Sort(names)
	slices.SortStableFunc(names, func(a, b string) int { return last(a) - last(b) })
	return inDirectory(dir, func(d *tree.Dir) error {
		for _, name := range names {
			mode := fs.FileMode(0o644)
			if private[name] {
				mode = 0o600
			}
			err := d.MkdirAll(path.Dir(name), 0o755)
			if err == nil {
				err = d.WriteFile(name, all[name], mode)
			}
			if errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("%w: the disk is full; nothing was lost: free space and run the same command again", err)
			}
			if err != nil {
				return err
			}
		}
		return removeOthers(d, all)
	})
}

// removeOthers removes the configuration files that are not in keep.
func removeOthers(d *tree.Dir, keep map[string][]byte) error {
	config, err := d.Sub("config")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer config.Close()
	return config.Walk(".", func(e *tree.Entry) error {
		if _, kept := keep["config/"+e.Path]; kept || e.IsDir() {
			return nil
		}
		return config.Remove(e.Path)
	})
}

// CheckDirectory tells, before anything is built, whether a blueprint can be
// written to a directory. It makes nothing.
func CheckDirectory(dir string) error {
	up, err := tree.Open(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer up.Close()
	d, err := blueprintDirectory(up, filepath.Base(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.Close()
}

// inDirectory makes a blueprint directory if it is missing, and does something
// in it with the rights of the owner of the directory above: the owner of the
// working copy.
func inDirectory(dir string, do func(*tree.Dir) error) error {
	up, err := tree.MkdirAll(filepath.Dir(dir), 0o755)
	if err != nil {
		return err
	}
	defer up.Close()
	owner, err := up.Stat()
	if err != nil {
		return err
	}
	return tree.As(owner.UID(), owner.GID(), func() error {
		base := filepath.Base(dir)
		if err := up.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		d, err := blueprintDirectory(up, base)
		if err != nil {
			return err
		}
		defer d.Close()
		return do(d)
	})
}

// blueprintDirectory opens a blueprint directory, which is no link and belongs to
// the owner of the directory above it.
func blueprintDirectory(up *tree.Dir, base string) (*tree.Dir, error) {
	owner, err := up.Stat()
	if err != nil {
		return nil, err
	}
	d, err := up.Sub(base)
	if err != nil {
		return nil, err
	}
	have, err := d.Stat()
	if err == nil && have.UID() != owner.UID() && os.Geteuid() == 0 {
		err = &OwnerError{Dir: filepath.Join(up.Name(), base), UID: have.UID(), Want: owner.UID()}
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// OwnerError says that a blueprint directory is not of the user who owns the
// working copy.
type OwnerError struct {
	Dir       string
	UID, Want int // user numbers
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("%s belongs to user %d, and the directory above it to user %d", e.Dir, e.UID, e.Want)
}

// Hint says what to do.
func (e *OwnerError) Hint() string {
	return fmt.Sprintf("see what it is, then remove it or give it to the owner of the working copy: chown -R %d %s", e.Want, e.Dir)
}

func last(name string) int {
	if strings.HasSuffix(name, "blueprint.yaml") {
		return 1
	}
	return 0
}
