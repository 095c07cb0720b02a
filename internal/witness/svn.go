package witness

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// svnCopy is a Subversion working copy, named by its top.
type svnCopy struct{ root string }

func (c svnCopy) svn(ctx context.Context, command string, args ...string) ([]byte, error) {
	out, err := run(ctx, c.root, "subversion", "svn", append([]string{command, "--non-interactive"}, args...)...)
	var failed *failedError
	if !errors.As(err, &failed) {
		return out, err
	}
	for _, x := range []struct{ code, what, remedy string }{
		{"E155015", "a merge left a conflict here", "svn status shows it; svn resolve settles it"},
		{"E155011", "the repository has a newer file", "svn update, then type the same again"},
		{"E160024", "the repository has a newer file", "svn update, then type the same again"},
		{"E155004", "another svn is at work here, or was killed", "wait for it; if there is none: svn cleanup"},
		{"E155037", "another svn was killed here", "svn cleanup"},
		{"E155036", "the working copy is of another version of Subversion", "svn upgrade"},
		{"E170001", "the server does not let you in", "svn info, then svn update: it asks for the password and keeps it"},
		{"E215004", "the server does not let you in", "svn info, then svn update: it asks for the password and keeps it"},
	} {
		if strings.Contains(failed.out, x.code+":") {
			return nil, &CopyError{c.root, x.what + ": " + failed.out, x.remedy}
		}
	}
	if strings.Contains(failed.out, "E165001:") {
		return nil, &RefusedError{c.root, failed.out}
	}
	return nil, err
}

// peg keeps an @ in a name from being read as a revision.
func peg(name string) string { return name + "@" }

// schedule tells what the next commit does with a path: normal, add, delete,
// replace; or nothing, because it is not known.
func (c svnCopy) schedule(ctx context.Context, name string) (string, error) {
	out, err := c.svn(ctx, "info", "--xml", "--", peg(name))
	var failed *failedError
	if errors.As(err, &failed) && (strings.Contains(failed.out, "W155010:") || strings.Contains(failed.out, "E155010:") || strings.Contains(failed.out, "W155007:") || strings.Contains(failed.out, "E155007:")) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var info struct {
		Schedule string `xml:"entry>wc-info>schedule"`
	}
	if err := xml.Unmarshal(out, &info); err != nil {
		return "", fmt.Errorf("svn info of %s: %w", name, err)
	}
	if info.Schedule == "" {
		return "", fmt.Errorf("svn info of %s: no schedule", name)
	}
	return info.Schedule, nil
}

func (c svnCopy) committed(ctx context.Context, name string) ([]byte, error) {
	s, err := c.schedule(ctx, name)
	if err != nil || s == "" || s == "add" {
		return nil, err
	}
	data, err := c.svn(ctx, "cat", "--revision", "BASE", "--", peg(name))
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}

// ready has nothing to ask: a conflict elsewhere does not touch the commit, and the
// server knows who somebody is.
func (c svnCopy) ready(context.Context) error { return nil }

func (c svnCopy) commit(ctx context.Context, name, subject string) (func(context.Context) error, error) {
	var added []string // by this call
	undo := func(ctx context.Context) error {
		if len(added) == 0 {
			return nil
		}
		args := []string{"--quiet", "--depth", "empty", "--"}
		for _, p := range slices.Backward(added) {
			args = append(args, peg(p))
		}
		_, err := c.svn(ctx, "revert", args...)
		return err
	}
	// A directory is part of the commit if it is new, and nothing else in it.
	var paths []string
	for p := name; p != c.root; p = filepath.Dir(p) {
		paths = append(paths, p)
	}
	slices.Reverse(paths)
	commit := []string{"--quiet", "--depth", "empty", "--message", subject, "--"}
	for _, p := range paths {
		s, err := c.schedule(ctx, p)
		if err != nil {
			return undo, err
		}
		if s == "" {
			// What people have set for new files must not translate this one.
			added = append(added, p)
			if _, err := c.svn(ctx, "add", "--quiet", "--depth", "empty", "--no-auto-props", "--", peg(p)); err != nil {
				return undo, err
			}
		}
		if s == "" || s == "add" || p == name {
			commit = append(commit, peg(p))
		}
	}
	_, err := c.svn(ctx, "commit", commit...)
	return undo, err
}

func (c svnCopy) check(ctx context.Context, name string, data []byte) (string, error) {
	out, err := c.svn(ctx, "info", "--show-item", "last-changed-revision", "--", peg(name))
	if err != nil {
		return "", err
	}
	revision := strings.TrimSpace(string(out))
	held, err := c.committed(ctx, name)
	if err == nil && !bytes.Equal(held, data) {
		err = &CopyError{c.root, fmt.Sprintf("revision %s holds other bytes of %s than were written", revision, name), "look at its properties: svn proplist -v " + quote(peg(name))}
	}
	return revision, err
}

func (c svnCopy) push(context.Context) error { return nil }

func (c svnCopy) changed(name string) error {
	return &CopyError{name, "the file is not as it was committed: it only grows", "svn revert " + quote(peg(name))}
}
