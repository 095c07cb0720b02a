// Package witness puts a release's signed checkpoints where whoever holds the
// release key cannot rewrite them: into the team's version control, and under a
// time stamp of somebody else (RFC 3161).
//
// A ledger proves that nothing in it was changed only to those who kept an earlier
// checkpoint, and only as far as the key that signs checkpoints is honest: with it a
// second history can be signed. What every member of the team has in a clone of the
// repository, and what an outside authority has dated, cannot be signed again later.
//
// In version control there is one file a release, trysail/checkpoints/RELEASE.note,
// which only grows: signed notes (C2SP tlog-checkpoint) as control gives them, an
// empty line between two. A person reads it, a review shows what was added to it,
// and [Committed] reads it back strictly. [Commit] appends a checkpoint that is
// longer than the last, and refuses one that contradicts it; that the one extends the
// other is proved before, by the caller, who can ask control for the proof. Nobody
// looks at signatures here: the caller knows the key. What is committed is that file
// alone, whatever else is changed or staged; the rest of the working copy and git's
// index stay as they were, and if the commit fails so does the file. Nothing is pushed
// unless asked. Control does the same by itself (unattended.go). In a copy of somebody else
// root has the owner do it (worker.go). The team's hooks run, its settings hold. The programs git and svn do
// the work: they know formats, locks and hooks better than any library.
//
// [Stamp] asks an authority for a token over the SHA-256 of some bytes; [VerifyStamp]
// checks one years later, at the time that it states: a certificate that has run out
// since is no fault. Libraries (digitorus/timestamp and digitorus/pkcs7) write the
// request, read the token and check its signature. They leave out, and token.go adds:
// DER and nothing else; one signer, whose certificate is named in what is signed; a signed content type
// that is a time stamp's; no SHA-1; a certificate that is for time stamping alone and
// says so critically; the chain at the stamped time; nonce and imprint. Revocation is
// not looked at: whoever doubts an authority takes it out of the roots.
package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trysail/evidence"
	"trysail/internal/strict"
	"trysail/internal/tree"
	"trysail/runbook"
)

// folder is where the files are, under the directory that a caller gives.
const folder = "trysail/checkpoints"

// Option is how else a checkpoint is committed.
type Option int

// Push sends what is committed on (git push), also if nothing is new: it may not
// have been sent before. A Subversion commit is with the server anyway.
const Push Option = 1

// CopyError says why nothing can be committed in a working copy, or why what was
// committed is not as it should be.
type CopyError struct {
	Dir    string
	What   string
	Remedy string
}

func (e *CopyError) Error() string { return e.Dir + ": " + e.What }

// Hint is what to type next.
func (e *CopyError) Hint() string { return e.Remedy }

// RefusedError says that a hook of the team did not want the commit.
type RefusedError struct {
	Dir string
	Out string // what the hook said
}

func (e *RefusedError) Error() string {
	if e.Out == "" {
		return e.Dir + ": a hook refused the commit, and said nothing"
	}
	return e.Dir + ": a hook refused the commit: " + e.Out
}

// Hint says what to do.
func (e *RefusedError) Hint() string {
	return "nothing was changed: settle what the hook says, then type the same again"
}

// PushError says that a commit was made, and is here only.
type PushError struct {
	Dir      string
	Revision string
	Out      string
}

func (e *PushError) Error() string {
	return fmt.Sprintf("%s: %.12s is committed, and was not pushed: %s", e.Dir, e.Revision, e.Out)
}

// Hint says what to do.
func (e *PushError) Hint() string { return "git pull --rebase, then git push" }

// ContradictionError says that a checkpoint cannot follow the one kept last: the
// ledger, or the file, is not what it was.
type ContradictionError struct {
	File string
	Line int // where the kept one begins
	Kept evidence.Checkpoint
	New  evidence.Checkpoint
}

func (e *ContradictionError) Error() string {
	if e.New.Size < e.Kept.Size {
		return fmt.Sprintf("%s:%d: the ledger had %d events, and has %d", e.File, e.Line, e.Kept.Size, e.New.Size)
	}
	return fmt.Sprintf("%s:%d: the first %d events were others", e.File, e.Line, e.Kept.Size)
}

// Hint says what to do.
func (e *ContradictionError) Hint() string {
	return "keep both checkpoints, they are the evidence; then ask who changed the ledger: trysail release log"
}

// Committed reads the checkpoints of a release in a working copy, oldest first;
// none if there is no file. Signatures are not looked at.
func Committed(dir, release string) ([]Kept, error) {
	path, err := file(dir, release)
	if err != nil {
		return nil, err
	}
	data, err := read(path)
	if err != nil || data == nil {
		return nil, err
	}
	return parse(path, release, data)
}

// Releases lists the releases of which a working copy has checkpoints.
func Releases(dir string) ([]string, error) {
	path, err := file(dir, "0") // where they are
	if err != nil {
		return nil, err
	}
	list, err := tree.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var releases []string
	for _, f := range list {
		if name, ok := strings.CutSuffix(f.Name(), ".note"); ok && runbook.VersionRE().MatchString(name) {
			releases = append(releases, name)
		}
	}
	return releases, nil
}

// Commit appends a checkpoint to the file of a release and commits the file. The
// revision is empty if there was nothing to commit. With an error there is one only
// if a commit was made: it was not pushed, or holds something else.
func Commit(ctx context.Context, dir, release string, note []byte, options ...Option) (revision string, err error) {
	a, err := do(ctx, request{Do: doCommit, Dir: dir, Release: release, Note: note, Push: slices.Contains(options, Push)})
	return a.Revision, err
}

func commit(ctx context.Context, dir, release string, note []byte, push bool) (revision string, err error) {
	c, name, free, err := begin(ctx, dir, release)
	if err != nil {
		return "", err
	}
	defer free()
	one, err := parse("the new checkpoint", release, note)
	if err != nil {
		return "", err
	}
	if len(one) != 1 {
		return "", &strict.Error{File: "the new checkpoint", Line: one[1].Line, What: "a second note begins here", Remedy: seeCheckpoint}
	}
	old, err := c.committed(ctx, name)
	if err != nil {
		return "", err
	}
	disk, err := read(name)
	if err != nil {
		return "", err
	}
	// More than was committed is what an earlier call left that was killed; less or
	// other is somebody's.
	if !bytes.HasPrefix(disk, old) || (disk == nil && old != nil) {
		return "", c.changed(name)
	}
	data, err := follow(name, release, disk, one[0])
	if err != nil {
		return "", err
	}
	if !bytes.Equal(data, old) {
		subject := fmt.Sprintf("trysail: checkpoint of release %s at event %d", release, one[0].Size)
		if revision, err = keep(ctx, c, name, subject, disk, data); err != nil {
			return revision, err
		}
	}
	if push {
		return revision, c.push(ctx)
	}
	return revision, nil
}

// begin finds the working copy and the file of a release's checkpoints in it, and keeps
// others from both until free is called.
func begin(ctx context.Context, dir, release string) (c workingCopy, name string, free func(), err error) {
	if name, err = file(dir, release); err != nil {
		return nil, "", nil, err
	}
	if c, err = open(ctx, dir); err != nil {
		return nil, "", nil, err
	}
	free, err = lock(ctx, dir)
	return c, name, free, err
}

// follow is the file with one more checkpoint, or as it was if that is its last.
func follow(name, release string, data []byte, next Kept) ([]byte, error) {
	if len(data) == 0 {
		return next.Note, nil
	}
	list, err := parse(name, release, data)
	if err != nil {
		return nil, err
	}
	last := list[len(list)-1]
	switch {
	case next.Size < last.Size, next.Size == last.Size && next.Root != last.Root:
		return nil, &ContradictionError{name, last.Line, last.Checkpoint, next.Checkpoint}
	case next.Size == last.Size:
		return data, nil
	}
	return slices.Concat(data, []byte("\n"), next.Note), nil
}

// keep writes the file and commits it, or leaves everything as it was.
func keep(ctx context.Context, c workingCopy, name, subject string, old, data []byte) (string, error) {
	if err := c.ready(ctx); err != nil {
		return "", err
	}
	made, err := folders(filepath.Dir(name))
	if err != nil {
		return "", err
	}
	restore := func() error {
		if old != nil {
			return tree.WriteFile(name, old, 0o644)
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, dir := range slices.Backward(made) {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
		return nil
	}
	if err := tree.WriteFile(name, data, 0o644); err != nil {
		return "", errors.Join(err, restore())
	}
	undo, err := c.commit(ctx, name, subject)
	// From here on it is to be finished, whoever has lost patience.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err != nil {
		// The program may have been stopped after it had done it.
		if now, lerr := c.committed(ctx, name); lerr != nil || !bytes.Equal(now, data) {
			return "", errors.Join(err, undo(ctx), restore())
		}
	}
	return c.check(ctx, name, data)
}

// folders makes a directory and tells which ones it made, from the top.
func folders(dir string) ([]string, error) {
	var made []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		made = append(made, d)
	}
	slices.Reverse(made)
	return made, tree.MakeDir(dir, 0o755)
}

// file is the path of a release's checkpoints. A link on the way would lead out of
// the working copy.
func file(dir, release string) (string, error) {
	if !runbook.VersionRE().MatchString(release) {
		return "", &CopyError{dir, fmt.Sprintf("%q is no release", release), "trysail release list"}
	}
	// The working copy is found by the real path, and so must the file be.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if real, err = filepath.Abs(real); err != nil {
		return "", err
	}
	p := real
	for _, part := range []string{"trysail", "checkpoints"} {
		p = filepath.Join(p, part)
		info, err := os.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return "", err
		}
		if !info.IsDir() {
			return "", &CopyError{p, "is no directory", "move it away"}
		}
	}
	return filepath.Join(real, folder, release+".note"), nil
}

// read gives the file, nil if there is none.
func read(name string) ([]byte, error) {
	info, err := tree.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &CopyError{name, "is no file", "move it away"}
	}
	if info.Size() > maxFile {
		return nil, &strict.Error{File: name, What: fmt.Sprintf("%d bytes is too large, %d is the most", info.Size(), maxFile), Remedy: seeLog}
	}
	data, err := tree.ReadFile(name, maxFile)
	if data == nil {
		data = []byte{}
	}
	return data, err
}

// lock lets one call at a time change what is under a directory: two would lose
// one's lines. It ends with the process.
func lock(ctx context.Context, dir string) (func(), error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			d.Close()
			return nil, fmt.Errorf("%s: another commit of a checkpoint does not end: %w", dir, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
