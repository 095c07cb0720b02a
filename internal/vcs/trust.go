package vcs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"trysail/internal/account"
)

// trusted refuses a copy that others than the user who runs this can change: they
// would decide what is released, and by a filter or hook what runs as that user. It runs in the
// worker, before git or svn do.
func trusted(root, mark string) error {
	self, err := account.Current()
	if err != nil {
		return err
	}
	t := trust{self: self, root: root}
	for d := filepath.Dir(root); ; d = filepath.Dir(d) {
		if err := t.around(d); err != nil {
			return err
		}
		if d == "/" {
			break
		}
	}
	if err := t.own(root); err != nil {
		return err
	}
	if mark == ".git" {
		if err := t.committed(); err != nil {
			return err
		}
	}
	for _, dir := range t.repositories(mark) {
		if err := t.below(dir); err != nil {
			return err
		}
	}
	return nil
}

type trust struct {
	self account.Account
	root string
}

// committed refuses a git repository in a Subversion working copy. Subversion lets whoever
// may commit put one there, with hooks and settings that name programs. (git lets nobody
// put a .git there.)
func (t trust) committed() error {
	for d := t.root; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".svn")); err == nil {
			return &RefusedError{
				t.root, "a git repository stands in the Subversion working copy of " + d + ", and whoever may commit there may have put it there",
				"see who committed it: svn log " + quote(filepath.Join(t.root, ".git")) + "; if nobody did, move the git one elsewhere",
			}
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func (t trust) stat(name string) (st unix.Stat_t, err error) {
	if err := unix.Lstat(name, &st); err != nil {
		return st, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return st, nil
}

// around checks a directory above the copy: who can write it can put another copy there.
func (t trust) around(dir string) error {
	st, err := t.stat(dir)
	if err != nil {
		return err
	}
	if int(st.Uid) != t.self.UID && st.Uid != 0 {
		return &RefusedError{t.root, fmt.Sprintf("%s above it belongs to user %d, who can replace it", dir, st.Uid), "move it to a directory that belongs to " + t.self.Name + " or root, or give it to that user: chown -R " + fmt.Sprint(st.Uid) + " " + quote(t.root)}
	}
	if st.Mode&unix.S_ISVTX != 0 {
		return nil // others cannot rename what is there
	}
	return t.shared(dir, st, "above it ")
}

// own checks one file or directory of the copy.
func (t trust) own(name string) error {
	st, err := t.stat(name)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return nil // it leads nowhere
		}
		if st, err = t.stat(name); err != nil {
			return err
		}
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		return &RefusedError{t.root, name + " is a FIFO or a device, which git would wait for", "rm " + quote(name)}
	}
	if int(st.Uid) != t.self.UID && (st.Uid != 0 || name == t.root) {
		return &RefusedError{t.root, fmt.Sprintf("%s belongs to user %d, and the copy to %s", name, st.Uid, t.self.Name), "chown -R " + t.self.Name + " " + quote(t.root)}
	}
	return t.shared(name, st, "")
}

func (t trust) shared(name string, st unix.Stat_t, where string) error {
	remedy := "chmod -R go-w " + quote(t.root) + ", or make a clone of your own"
	if where != "" {
		remedy = "chmod go-w " + quote(name) + ", or move the copy"
	}
	if st.Mode&unix.S_IWOTH != 0 {
		return &RefusedError{t.root, name + " " + where + "can be written by every user", remedy}
	}
	if st.Mode&unix.S_IWGRP == 0 {
		return nil
	}
	// With an access list, the group's bits are the most that the list gives to anybody.
	if n, err := unix.Lgetxattr(name, "system.posix_acl_access", nil); err == nil && n > 0 {
		return &RefusedError{t.root, name + " " + where + "can be written by those in its access list", "setfacl -b " + quote(name)}
	}
	if st.Gid != 0 && !t.self.Alone(int(st.Gid)) {
		return &RefusedError{t.root, fmt.Sprintf("%s %scan be written by group %d", name, where, st.Gid), remedy}
	}
	return nil
}

// repositories are the directories that git or svn read settings from. What cannot be
// read here is left to git, which refuses it.
func (t trust) repositories(mark string) []string {
	first := filepath.Join(t.root, mark)
	info, err := os.Lstat(first)
	if errors.Is(err, fs.ErrNotExist) && mark == ".git" {
		return []string{t.root} // a bare one
	}
	list := []string{first}
	if err != nil || mark != ".git" {
		return list
	}
	if info.Mode().IsRegular() {
		// A linked working tree, or a submodule.
		if dir, ok := strings.CutPrefix(line(first), "gitdir: "); ok {
			if !filepath.IsAbs(dir) {
				dir = filepath.Join(t.root, dir)
			}
			list = append(list, dir)
			if common := line(filepath.Join(dir, "commondir")); common != "" {
				if !filepath.IsAbs(common) {
					common = filepath.Join(dir, common)
				}
				list = append(list, common)
			}
		}
	}
	return list
}

// line is the first line of a small file, empty if there is none.
func line(name string) string {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 4096)
	n, err := f.Read(buf)
	if err != nil {
		return ""
	}
	text, _, _ := strings.Cut(string(buf[:n]), "\n")
	return text
}

// below checks all of a repository, and what is above it if that is not the copy.
func (t trust) below(dir string) error {
	if !strings.HasPrefix(dir+"/", t.root+"/") {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return &RefusedError{t.root, "its repository " + dir + " cannot be reached: " + err.Error(), "clone it again"}
		}
		dir = real
		for d := filepath.Dir(dir); ; d = filepath.Dir(d) {
			if err := t.around(d); err != nil {
				return err
			}
			if d == "/" {
				break
			}
		}
	}
	if st, err := t.stat(dir); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return &RefusedError{t.root, dir + " is a symbolic link", "name the working tree that it leads to, or clone it again"}
	}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // git was at work
		}
		if err != nil {
			return err
		}
		if err := t.own(p); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// quote makes a path one word of a shell.
func quote(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@", r))
	}) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
