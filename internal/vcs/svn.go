package vcs

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// svnCopy is a Subversion working copy, named by its top; it is used in the worker only.
type svnCopy struct{ root string }

func (c svnCopy) svn(ctx context.Context, command string, args ...string) (string, error) {
	return run(ctx, c.root, nil, "svn", append([]string{command, "--non-interactive"}, args...)...)
}

func (c svnCopy) read(ctx context.Context) (a answer, err error) {
	text, err := c.svn(ctx, "info", "--xml", ".")
	if err != nil {
		return a, err
	}
	var info struct {
		Entry struct {
			Revision string `xml:"revision,attr"`
			URL      string `xml:"url"`
			Root     string `xml:"wc-info>wcroot-abspath"`
			Commit   struct {
				Author string    `xml:"author"`
				Date   time.Time `xml:"date"`
			} `xml:"commit"`
		} `xml:"entry"`
	}
	if err := xml.Unmarshal([]byte(text), &info); err != nil {
		return a, fmt.Errorf("svn info of %s: %w", c.root, err)
	}
	if info.Entry.Root != c.root {
		return a, &RefusedError{c.root, "svn says that its top is " + info.Entry.Root, "check it out again"}
	}
	status, err := c.svn(ctx, "status", "--xml", ".")
	if err != nil {
		return a, err
	}
	a.Changed, err = paths(status, func(item, props string) bool {
		same := slices.Contains([]string{"normal", "none", "unversioned", "ignored", "external"}, item)
		return !same || props == "modified" || props == "conflicted"
	})
	if err != nil {
		return a, fmt.Errorf("svn status of %s: %w", c.root, err)
	}
	// The top may be older than a file committed from the copy, so the revision that is
	// built is the youngest one that the copy holds.
	span, err := run(ctx, c.root, nil, "svnversion", "--committed", "--no-newline", ".")
	if err != nil {
		return a, err
	}
	state, err := run(ctx, c.root, nil, "svnversion", "--no-newline", ".")
	if err != nil {
		return a, err
	}
	if state = strings.ReplaceAll(state, "M", ""); strings.ContainsAny(state, ":SP") {
		a.Mixture = state
	}
	a.URL, a.Revision = withoutPassword(info.Entry.URL), youngest(span, info.Entry.Revision)
	a.Committed, a.Author = info.Entry.Commit.Date, info.Entry.Commit.Author
	return a, nil
}

// paths lists those that svn status, as XML, has in a state that is looked for.
func paths(status string, is func(item, props string) bool) (list []string, err error) {
	type entry struct {
		Path   string `xml:"path,attr"`
		Status struct {
			Item  string `xml:"item,attr"`
			Props string `xml:"props,attr"`
		} `xml:"wc-status"`
	}
	var all struct {
		Entries []entry `xml:"target>entry"`
		Listed  []entry `xml:"changelist>entry"` // not listed above
	}
	if err := xml.Unmarshal([]byte(status), &all); err != nil {
		return nil, err
	}
	for _, e := range append(all.Entries, all.Listed...) {
		if is(e.Status.Item, e.Status.Props) {
			list = append(list, e.Path)
		}
	}
	return list, nil
}

// youngest reads the last revision of svnversion's answer, such as "4123:4168MS".
func youngest(span, otherwise string) string {
	if i := strings.LastIndexByte(span, ':'); i >= 0 {
		span = span[i+1:]
	}
	if span = strings.TrimRight(span, "MSP"); span == "" || strings.Trim(span, "0123456789") != "" {
		return otherwise
	}
	return span
}

// checkout makes the files anew from the committed ones that the copy keeps in .svn, and so for
// its externals: an export would lack .svn, which builds ask for their revision, and a checkout
// needs the server. Of the files themselves nothing is taken, as Subversion takes a
// file for unchanged that has other rights, or other words in its keywords.
func (c svnCopy) checkout(ctx context.Context, dir, _ string, committed time.Time) (inner []string, err error) {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	src, err := os.OpenRoot(c.root)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	dst, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	all := []string{"."}
	for i := 0; i < len(all); i++ {
		at := svnCopy{filepath.Join(dir, all[i])}
		if err := copyTree(src, dst, filepath.Join(all[i], ".svn")); err != nil {
			return nil, fmt.Errorf("copy %s: %w", filepath.Join(c.root, all[i], ".svn"), err)
		}
		if err := pristine(at.root, c.root); err != nil {
			return nil, err
		}
		if _, err := at.svn(ctx, "revert", "--quiet", "--recursive", "--remove-added", "."); err != nil {
			return nil, err
		}
		// Svn names an external only where its directory is there.
		status, err := (svnCopy{filepath.Join(c.root, all[i])}).svn(ctx, "status", "--xml", "--ignore-externals", ".")
		if err != nil {
			return nil, err
		}
		list, err := paths(status, func(item, _ string) bool { return item == "external" })
		if err != nil {
			return nil, fmt.Errorf("svn status of %s: %w", at.root, err)
		}
		for _, e := range list {
			p := filepath.Join(all[i], e)
			// One that is a file was made with the rest, and one that was never fetched is not there.
			if _, err := src.Lstat(filepath.Join(p, ".svn")); err != nil {
				continue
			}
			if err := trusted(filepath.Join(c.root, p), ".svn"); err != nil {
				return nil, err
			}
			all = append(all, p)
		}
	}
	if err := setTimes(dir, committed); err != nil {
		return nil, err
	}
	// Svn notes the times of files; those of this checkout would differ in the next.
	for _, p := range all {
		if _, err := (svnCopy{filepath.Join(dir, p)}).svn(ctx, "cleanup", "--quiet", "."); err != nil {
			return nil, err
		}
	}
	return all[1:], nil
}

// pristine compares the committed files that svn keeps with their names, which are their sums:
// svn itself does not when it reverts.
func pristine(dir, root string) error {
	top := filepath.Join(dir, ".svn", "pristine")
	return filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == top {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha1.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		if name, _, _ := strings.Cut(d.Name(), "."); name != hex.EncodeToString(h.Sum(nil)) {
			return &RefusedError{root, "a committed file in .svn/pristine was changed: " + d.Name(), "check it out again"}
		}
		return nil
	})
}

// copyTree copies the files and directories of a copy's .svn. What else is there svn has not
// made, and is not opened.
func copyTree(src, dst *os.Root, name string) error {
	if err := dst.MkdirAll(name, 0o777); err != nil {
		return err
	}
	return fs.WalkDir(src.FS(), name, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || p == name:
			return err
		case d.IsDir():
			return dst.Mkdir(p, 0o777)
		case d.Type().IsRegular():
			return copyFile(src, dst, p)
		}
		return nil
	})
}

func copyFile(src, dst *os.Root, name string) error {
	in, err := src.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	out, err := dst.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666|info.Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
