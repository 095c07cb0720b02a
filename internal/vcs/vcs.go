// Package vcs reads git and Subversion working copies as their owner.
//
// A working copy is another user's program: its settings name hooks, filters
// and monitors that git executes, and its index and database are parsed by C
// programs. So root runs neither git nor svn on it. As in OpenSSH's privilege
// separation, this program runs itself again as the owner of the copy
// ([trysail/internal/account]): that worker checks who can write the copy, asks
// git or svn, makes a clean checkout in a private directory, and writes it to a
// pipe as a tar stream. Root reads the stream with limits, and checks every
// name, type and mode before it passes an entry on ([check]). What a hostile
// copy can reach is the worker, which can do what its owner can do anyway.
//
// A copy that several users can write is refused: otherwise one of them would
// have the worker run programs as another.
//
// The environment is clean, so that no GIT_DIR of a hook leads elsewhere. Hooks,
// monitors, pagers, editors, external diff programs, prompts and transports are
// off. The owner's filters and line ends (Git LFS, git-crypt, core.autocrlf) are
// on: the checkout holds the bytes that the working copy holds.
//
// The same revision in the same copy gives the same bytes: entries are sorted,
// times are the commit's, and the index holds nothing of the disk it was made on.
package vcs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"trysail/blueprint"
	"trysail/internal/account"
)

// Copy is a working copy and the committed revision in it.
type Copy struct {
	Root      string // absolute, without symbolic links
	Directory string // the directory that was asked for, below Root; "" is Root
	Source    blueprint.Source
	Committed time.Time
	Author    string // the e-mail of git's commit, or the name that Subversion has
	// Changed lists files that differ from the revision, and are not in the checkout.
	// [Copy.Archive] adds those that git or svn take for unchanged, as some settings, keywords
	// and marks have it.
	Changed []string
	More    int // further ones that Changed does not name
	// Mixture is what svnversion says of a copy that is not at one revision of one directory.
	Mixture string
	owner   account.Account
	past    bool // at another revision than the files of the copy
}

// Owner is who owns the working copy.
func (c *Copy) Owner() account.Account { return c.owner }

// NoCopyError says that a directory is under no version control.
type NoCopyError struct{ Dir string }

func (e *NoCopyError) Error() string {
	return e.Dir + " is not in a git or Subversion working copy"
}

// Hint says what to do.
func (e *NoCopyError) Hint() string {
	return "a release is built from a committed revision: commit the source (git init && git add -A && git commit) and run again"
}

// RefusedError says why a working copy is not used, and what makes it usable.
type RefusedError struct{ Root, Why, Remedy string }

func (e *RefusedError) Error() string { return "the working copy " + e.Root + " is refused: " + e.Why }

// Hint says what to type.
func (e *RefusedError) Hint() string { return e.Remedy }

// FindRoot finds the root of the working copy that holds dir, in any state.
func FindRoot(dir string) (string, error) {
	root, _, err := findRoot(dir)
	return root, err
}

func findRoot(dir string) (root, mark string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		for _, mark := range []string{".git", ".svn"} {
			if _, err := os.Lstat(filepath.Join(d, mark)); err == nil {
				return d, mark, nil
			}
		}
		if d == filepath.Dir(d) {
			return "", "", &NoCopyError{Dir: dir}
		}
	}
}

// owner finds the account that owns a directory, not through a link.
func owner(dir string) (account.Account, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil {
		return account.Account{}, &os.PathError{Op: "find the owner of", Path: dir, Err: err}
	}
	if uid := os.Geteuid(); uid != 0 {
		return account.Lookup(uid) // it can only be itself
	}
	return account.Lookup(int(st.Uid))
}

// Find finds the working copy that holds dir, and reads its revision.
func Find(ctx context.Context, dir string) (*Copy, error) {
	root, mark, err := findRoot(dir)
	if err != nil {
		return nil, err
	}
	c := &Copy{Root: root}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if root != dir {
		if c.Directory, err = filepath.Rel(root, dir); err != nil {
			return nil, err
		}
	}
	if c.owner, err = owner(root); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = c.work(ctx, "", request{Do: doRead, Mark: mark, Root: root}, func(r io.Reader) error {
		const most = 64 << 20
		n, err := io.Copy(&out, io.LimitReader(r, most+1))
		if err == nil && n > most {
			err = &RefusedError{root, "its list of changed files has no end", "git status, or svn status"}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return nil, fmt.Errorf("what git or svn say of %s cannot be read: %w", root, err)
	}
	return c, c.take(mark, a)
}

// At is the copy with another revision that it holds, for [Copy.Archive]. A Subversion copy
// holds the one that it is at, and no other.
func (c *Copy) At(revision string) (*Copy, error) {
	if revision == c.Source.Revision {
		return c, nil
	}
	if c.Source.VCS != "git" {
		return nil, &RefusedError{c.Root, "it is at revision " + c.Source.Revision + ", and not at " + printable(revision), "svn update -r " + printable(revision)}
	}
	if !revisionForm("git").MatchString(revision) {
		return nil, fmt.Errorf("%q is not a revision", printable(revision))
	}
	other := *c
	other.Source.Revision, other.Changed, other.past = revision, nil, true
	return &other, nil
}

// revisionForm is how a revision is written.
func revisionForm(system string) *regexp.Regexp {
	if system == "svn" {
		return regexp.MustCompile(`^[0-9]{1,18}$`)
	}
	return regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
}

// take checks what the worker says: its owner may have written it.
func (c *Copy) take(mark string, a answer) error {
	c.Source = blueprint.Source{VCS: mark[1:], URL: printable(a.URL), Revision: a.Revision}
	if !revisionForm(c.Source.VCS).MatchString(a.Revision) {
		return &RefusedError{c.Root, fmt.Sprintf("%q is not a revision", printable(a.Revision)), "git log -1, or svn info, says what is wrong"}
	}
	if a.Committed.Year() < 1970 || a.Committed.Year() > 9999 {
		return &RefusedError{c.Root, fmt.Sprintf("the commit's time %s is not usable", a.Committed), "commit again with a right clock"}
	}
	c.Committed, c.Author, c.Mixture = a.Committed, printable(a.Author), printable(a.Mixture)
	for _, name := range a.Changed {
		c.Changed = append(c.Changed, printable(name))
	}
	return nil
}

// printable keeps what others wrote from moving the cursor of a person's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Archive writes a clean checkout of the revision as a tar stream: sorted, owned by the
// given numbers, with the commit's times. Scratch is a directory of the caller's session, which
// removes it (internal/machine); a directory is made below it and stays.
func (c *Copy) Archive(ctx context.Context, scratch string, uid, gid int, w io.Writer) error {
	return c.stream(ctx, scratch, request{Do: doCheckout, Mark: "." + c.Source.VCS, Compare: !c.past}, entries{uid: uid, gid: gid, time: c.Committed}, w)
}

func (c *Copy) stream(ctx context.Context, scratch string, q request, e entries, w io.Writer) error {
	temp, err := c.temp(scratch)
	if err != nil {
		return err
	}
	q.Root, q.Revision, q.Committed, q.Temp = c.Root, c.Source.Revision, c.Committed, account.TempPath(temp)
	e.most = limits()
	if err := c.work(ctx, temp, q, func(r io.Reader) error { return e.check(r, w) }); err != nil {
		return err
	}
	for _, name := range e.head.Changed {
		if name = printable(name); !slices.Contains(c.Changed, name) {
			c.Changed = append(c.Changed, name)
		}
	}
	c.More = e.head.More
	return nil
}

// temp makes a private directory of the owner.
func (c *Copy) temp(scratch string) (string, error) {
	for i := range 1000 {
		dir := filepath.Join(scratch, fmt.Sprintf("owner-%d", i))
		err := c.owner.MakeTemp(dir)
		if !errors.Is(err, os.ErrExist) {
			return dir, err
		}
	}
	return "", fmt.Errorf("%s is full", scratch)
}

// work runs the worker as the owner of the copy, and reads what it writes. If both fail,
// the worker's error is the cause; an error of read ends the worker.
func (c *Copy) work(ctx context.Context, temp string, q request, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	o := account.Options{Temp: temp, Reach: c.Root, Env: environment(c.owner)}
	cmd := c.owner.Self(ctx, o, workerName, string(text))
	said := &tail{most: 64 << 10}
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("read %s as %s: %w", c.Root, c.owner.Name, err)
	}
	readErr := read(out)
	if readErr != nil {
		cancel()
	}
	err = cmd.Wait()
	var refused *RefusedError
	switch {
	case errors.As(readErr, &refused):
		return readErr
	case ctx.Err() != nil && readErr == nil:
		return ctx.Err()
	case err != nil && len(said.data) > 0:
		return said.failure(c.Root)
	case readErr != nil:
		return fmt.Errorf("read %s as %s: %w", c.Root, c.owner.Name, readErr)
	case err != nil:
		return fmt.Errorf("read %s as %s: %w", c.Root, c.owner.Name, err)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	data []byte
	most int
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if n := len(t.data) - t.most; n > 0 {
		t.data = append(t.data[:0], t.data[n:]...)
	}
	return len(p), nil
}

// failure is the worker's error.
func (t *tail) failure(root string) error {
	var f failure
	if json.Unmarshal(t.data, &f) != nil {
		return fmt.Errorf("%s: %s", root, lines(string(t.data)))
	}
	if f.Why != "" {
		return &RefusedError{root, lines(f.Why), lines(f.Remedy)}
	}
	return errors.New(lines(f.Error))
}

// lines is printable, but for line ends.
func lines(s string) string {
	var list []string
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		list = append(list, printable(line))
	}
	return strings.Join(list, "\n")
}
