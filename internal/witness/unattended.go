package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Control keeps checkpoints with nobody at the keyboard, in a working copy of its own:
// it asks first whether it can ([Usable]), takes what others have committed since
// ([Update]), commits, has the file stamped ([CommitStamp]) and sends all of it on
// ([Send]).

// StampEnd is that of a time stamp's file, beside what it is of.
const StampEnd = ".tsr"

// Usable tells what would keep checkpoints from being committed in a directory.
func Usable(ctx context.Context, dir string) error {
	_, err := do(ctx, request{Do: doUsable, Dir: dir})
	return err
}

func usable(ctx context.Context, dir string) error {
	c, err := open(ctx, dir)
	if err != nil {
		return err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return &os.PathError{Op: "write into", Path: dir, Err: err}
	}
	return c.ready(ctx)
}

// Update brings a working copy up to date with what it follows, if it follows anything:
// another control may have been at work. Commits that were not sent come after.
func Update(ctx context.Context, dir string) error {
	_, err := do(ctx, request{Do: doUpdate, Dir: dir})
	return err
}

func update(ctx context.Context, dir string) error {
	c, err := open(ctx, dir)
	if err != nil {
		return err
	}
	return c.update(ctx)
}

// Send sends what is committed to what a working copy follows, if it follows anything.
func Send(ctx context.Context, dir string) error {
	_, err := do(ctx, request{Do: doSend, Dir: dir})
	return err
}

func send(ctx context.Context, dir string) error {
	c, err := open(ctx, dir)
	if err != nil {
		return err
	}
	follows, err := c.follows(ctx)
	if err != nil || !follows {
		return err
	}
	return c.push(ctx)
}

// CommitStamp has the file of a release's checkpoints time-stamped as it was committed,
// into a file beside it, and commits that, unless the stamp that is there is of it
// already. The revision is empty if there was nothing to do.
func CommitStamp(ctx context.Context, dir, release string, stamp func(context.Context, []byte) ([]byte, error)) (revision string, err error) {
	a, err := do(ctx, request{Do: doDue, Dir: dir, Release: release})
	if err != nil || a.Data == nil {
		return "", err
	}
	token, err := stamp(ctx, a.Data)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(a.Data)
	a, err = do(ctx, request{Do: doStamp, Dir: dir, Release: release, Token: token, Digest: digest[:]})
	return a.Revision, err
}

// due is what is to be stamped; nil if there is nothing, or its stamp is there.
func due(ctx context.Context, dir, release string) ([]byte, error) {
	c, name, free, err := begin(ctx, dir, release)
	if err != nil {
		return nil, err
	}
	defer free()
	data, err := c.committed(ctx, name)
	if err != nil || data == nil {
		return nil, err
	}
	old, err := c.committed(ctx, name+StampEnd)
	if err != nil || Stamps(old, data) {
		return nil, err
	}
	return data, nil
}

func commitStamp(ctx context.Context, dir, release string, token, digest []byte) (revision string, err error) {
	c, name, free, err := begin(ctx, dir, release)
	if err != nil {
		return "", err
	}
	defer free()
	data, err := c.committed(ctx, name)
	if err != nil {
		return "", err
	}
	if now := sha256.Sum256(data); !bytes.Equal(now[:], digest) {
		return "", &CopyError{name, "another checkpoint was committed while the last one was time-stamped", "type the same again"}
	}
	disk, err := read(name + StampEnd)
	if err != nil {
		return "", err
	}
	return keep(ctx, c, name+StampEnd, "trysail: time stamp of the checkpoints of release "+release, disk, token)
}

// Stamps tells whether a token is of these bytes. Who made it is not looked at: see
// [VerifyStamp].
func Stamps(token, data []byte) bool {
	s, err := readToken(token)
	return err == nil && s.about(data) == nil
}

// following is what the branch that is checked out follows, elsewhere; both are empty if
// it follows nothing.
func (c gitCopy) following(ctx context.Context) (remote, branch string, err error) {
	out, err := c.git(ctx, "symbolic-ref", "--quiet", "--short", "HEAD")
	if status(err) == 1 {
		return "", "", nil // a commit is checked out, no branch
	}
	if err != nil {
		return "", "", err
	}
	// Not the branch's ref: there is none before its first commit.
	for key, value := range map[string]*string{"remote": &remote, "merge": &branch} {
		got, err := c.git(ctx, "config", "--get", "branch."+strings.TrimSpace(string(out))+"."+key)
		if status(err) == 1 {
			return "", "", nil
		}
		if err != nil {
			return "", "", err
		}
		*value = strings.TrimSpace(string(got))
	}
	return remote, branch, nil
}

func (c gitCopy) follows(ctx context.Context) (bool, error) {
	remote, _, err := c.following(ctx)
	return remote != "", err
}

func (c gitCopy) update(ctx context.Context) error {
	remote, branch, err := c.following(ctx)
	if err != nil || remote == "" {
		return err
	}
	var failed *failedError
	_, err = c.git(ctx, "ls-remote", "--quiet", "--exit-code", remote, branch)
	if status(err) == 2 {
		return nil // it has not been sent yet
	}
	if err == nil {
		_, err = c.git(ctx, "fetch", "--quiet", remote, branch)
	}
	if errors.As(err, &failed) {
		return &CopyError{c.root, "what others committed cannot be fetched: " + failed.out, "git -C " + quote(c.root) + " fetch"}
	}
	if err != nil {
		return err
	}
	const theirs = "FETCH_HEAD"
	if _, err := c.git(ctx, "rev-parse", "--quiet", "--verify", "HEAD^{commit}"); status(err) == 1 {
		_, err = c.git(ctx, "merge", "--quiet", "--ff-only", theirs) // nothing is here yet
		return err
	} else if err != nil {
		return err
	}
	if _, err := c.git(ctx, "merge-base", "--is-ancestor", theirs, "HEAD"); status(err) != 1 {
		return err // there is nothing new
	}
	// What was committed here and not sent are checkpoints, and longer ones will come:
	// they give way, in one step that leaves nothing half done.
	unsent, err := c.git(ctx, "log", "--format=", "--name-only", "--no-renames", "-z", theirs+"..HEAD")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(unsent), "\x00") {
		if name = strings.TrimSpace(name); name != "" && !strings.Contains("/"+name, "/"+folder+"/") {
			return &CopyError{c.root, "commits of somebody stand here that were not sent, of " + name + " among others", "git -C " + quote(c.root) + " pull --rebase, then git push"}
		}
	}
	_, err = c.git(ctx, "reset", "--quiet", "--keep", theirs)
	if errors.As(err, &failed) {
		return &CopyError{c.root, fmt.Sprintf("what is changed here and %s of %s do not go together: %s", strings.TrimPrefix(branch, "refs/heads/"), remote, failed.out), "git -C " + quote(c.root) + " status: settle there which is right"}
	}
	return err
}

// follows is so by nature: a working copy is of a repository.
func (c svnCopy) follows(context.Context) (bool, error) { return true, nil }

func (c svnCopy) update(ctx context.Context) error {
	// Externals are what a committer names, such as a repository that only control reads.
	_, err := c.svn(ctx, "update", "--quiet", "--ignore-externals", "--accept", "postpone", "--", peg(c.root))
	var failed *failedError
	if errors.As(err, &failed) {
		return &CopyError{c.root, "what others committed cannot be fetched: " + failed.out, "svn update " + quote(peg(c.root))}
	}
	return err
}
