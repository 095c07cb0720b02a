package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// gitCopy is a git working copy, named by its top.
type gitCopy struct{ root string }

func (c gitCopy) git(ctx context.Context, args ...string) ([]byte, error) {
	out, err := run(ctx, c.root, "git", "git", append([]string{"--literal-pathspecs"}, args...)...)
	var failed *failedError
	if !errors.As(err, &failed) {
		return out, err
	}
	for _, x := range []struct{ says, what, remedy string }{
		{"dubious ownership", "git does not trust this working copy: it is another user's", "type the same as its owner"},
		{"index.lock", "another git is at work here, or was killed", "wait for it; if there is none: rm " + quote(filepath.Join(c.root, ".git/index.lock"))},
		{"tell me who you are", "git does not know whose commit it would be", c.identity()},
	} {
		if strings.Contains(failed.out, x.says) {
			return nil, &CopyError{c.root, x.what, x.remedy}
		}
	}
	return nil, err
}

func (c gitCopy) identity() string {
	return fmt.Sprintf("git -C %s config user.email ann@example.com, and user.name", quote(c.root))
}

// in is a path as git names it.
func (c gitCopy) in(name string) (string, error) {
	rel, err := filepath.Rel(c.root, name)
	return filepath.ToSlash(rel), err
}

func status(err error) int {
	var failed *failedError
	if errors.As(err, &failed) {
		return failed.status
	}
	return -1
}

func (c gitCopy) committed(ctx context.Context, name string) ([]byte, error) {
	if _, err := c.git(ctx, "rev-parse", "--quiet", "--verify", "HEAD^{commit}"); status(err) == 1 {
		return nil, nil // there is no commit yet
	} else if err != nil {
		return nil, err
	}
	return c.blob(ctx, "HEAD", name)
}

// blob is a file in a commit, nil if it is not there.
func (c gitCopy) blob(ctx context.Context, commit, name string) ([]byte, error) {
	rel, err := c.in(name)
	if err != nil {
		return nil, err
	}
	list, err := c.git(ctx, "ls-tree", "--full-tree", commit, "--", rel)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	data, err := c.git(ctx, "cat-file", "blob", commit+":"+rel)
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}

func (c gitCopy) ready(ctx context.Context) error {
	under := []struct{ file, what, end string }{
		{"MERGE_HEAD", "a merge", "merge"},
		{"CHERRY_PICK_HEAD", "a cherry-pick", "cherry-pick"},
		{"REVERT_HEAD", "a revert", "revert"},
		{"rebase-merge", "a rebase", "rebase"},
		{"rebase-apply", "a rebase or git am", "rebase"},
	}
	args := []string{"rev-parse"}
	for _, x := range under {
		args = append(args, "--git-path", x.file)
	}
	out, err := c.git(ctx, args...)
	if err != nil {
		return err
	}
	for i, p := range strings.Split(strings.TrimRight(string(out), "\n"), "\n") {
		if !filepath.IsAbs(p) {
			p = filepath.Join(c.root, p)
		}
		if _, err := os.Lstat(p); err == nil && i < len(under) {
			x := under[i]
			return &CopyError{c.root, x.what + " is in progress: a commit would become part of it", fmt.Sprintf("git %s --continue, or git %s --abort", x.end, x.end)}
		}
	}
	for _, who := range []string{"GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"} {
		if _, err := c.git(ctx, "var", who); status(err) > 0 {
			return &CopyError{c.root, "git does not know whose commit it would be", c.identity()}
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (c gitCopy) commit(ctx context.Context, name, subject string) (func(context.Context) error, error) {
	undo := func(context.Context) error { return nil }
	rel, err := c.in(name)
	if err != nil {
		return undo, err
	}
	// --only takes what git knows: a new file is made known, without its content.
	known, err := c.git(ctx, "ls-files", "--", rel)
	if err != nil {
		return undo, err
	}
	if len(known) == 0 {
		undo = func(ctx context.Context) error {
			_, err := c.git(ctx, "update-index", "--force-remove", "--", rel)
			return err
		}
		if _, err := c.git(ctx, "add", "--force", "--intent-to-add", "--", rel); err != nil {
			return undo, err
		}
	}
	_, err = c.git(ctx, "commit", "--quiet", "--only", "--cleanup=verbatim", "--message", subject, "--", rel)
	var failed *failedError
	// What git itself dies of is 128; with 1 somebody said no.
	if errors.As(err, &failed) && failed.status == 1 && c.hooks(ctx) {
		err = &RefusedError{c.root, failed.out}
	}
	return undo, err
}

// hooks tells whether there is one that can refuse a commit.
func (c gitCopy) hooks(ctx context.Context) bool {
	for _, h := range []string{"pre-commit", "prepare-commit-msg", "commit-msg", "reference-transaction"} {
		out, err := c.git(context.WithoutCancel(ctx), "rev-parse", "--git-path", "hooks/"+h)
		if err != nil {
			return false
		}
		p := strings.TrimRight(string(out), "\n")
		if !filepath.IsAbs(p) {
			p = filepath.Join(c.root, p)
		}
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

func (c gitCopy) check(ctx context.Context, name string, data []byte) (string, error) {
	rel, err := c.in(name)
	if err != nil {
		return "", err
	}
	// Not HEAD: somebody may have committed something else by now.
	out, err := c.git(ctx, "log", "-1", "--format=%H", "HEAD", "--", rel)
	if err != nil {
		return "", err
	}
	revision := strings.TrimSpace(string(out))
	held, err := c.blob(ctx, revision, name)
	if err != nil {
		return revision, err
	}
	if !bytes.Equal(held, data) {
		return revision, &CopyError{c.root, fmt.Sprintf("commit %.12s holds other bytes of %s than were written: a filter or a hook changes it", revision, rel), "say in .gitattributes: trysail/checkpoints/*.note -text -filter"}
	}
	out, err = c.git(ctx, "diff-tree", "--root", "--no-commit-id", "--name-only", "--no-renames", "-r", "-z", revision)
	if err != nil {
		return revision, err
	}
	for p := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if p != rel {
			return revision, &CopyError{c.root, fmt.Sprintf("commit %.12s holds %s too: a hook added it", revision, p), "look at it: git show " + revision}
		}
	}
	return revision, nil
}

func (c gitCopy) push(ctx context.Context) error {
	_, err := c.git(ctx, "push", "--quiet")
	var failed *failedError
	if !errors.As(err, &failed) {
		return err
	}
	head, herr := c.git(ctx, "rev-parse", "--verify", "HEAD")
	if herr != nil {
		return herr
	}
	return &PushError{c.root, strings.TrimSpace(string(head)), failed.out}
}

func (c gitCopy) changed(name string) error {
	return &CopyError{name, "the file is not as it was committed: it only grows", fmt.Sprintf("git -C %s checkout HEAD -- %s", quote(filepath.Dir(filepath.Dir(filepath.Dir(name)))), folder+"/"+filepath.Base(name))}
}
