package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"trysail/internal/vcs"
)

// workingCopy is what git and Subversion differ in. All names are absolute.
type workingCopy interface {
	// committed is a file as it was last committed, nil if it never was.
	committed(ctx context.Context, name string) ([]byte, error)
	// ready tells what would keep a commit from being made.
	ready(ctx context.Context) error
	// commit commits one file. If it fails, undo makes it as unknown as it was.
	commit(ctx context.Context, name, subject string) (undo func(context.Context) error, err error)
	// check tells the revision that was made, and whether it holds what it should.
	check(ctx context.Context, name string, data []byte) (string, error)
	push(ctx context.Context) error
	// follows tells whether what is committed can be sent anywhere; update takes what
	// others sent there.
	follows(ctx context.Context) (bool, error)
	update(ctx context.Context) error
	// changed is the error for a file that is not as it was committed.
	changed(name string) error
}

// open finds the working copy in which a directory's checkpoints are: the nearest,
// as the programs do.
func open(ctx context.Context, dir string) (workingCopy, error) {
	root, mark, err := find(dir)
	switch {
	case err != nil:
		return nil, err
	case mark == ".git":
		return gitCopy{root}, vcs.Own(root, mark)
	}
	return svnCopy{root}, vcs.Own(root, mark)
}

// find finds its root, and which kind it is.
func find(dir string) (root, mark string, err error) {
	start, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", "", err
	}
	if start, err = filepath.Abs(start); err != nil {
		return "", "", err
	}
	outer := start
	for _, below := range []string{folder, "trysail"} {
		if info, err := os.Stat(filepath.Join(start, below)); err == nil && info.IsDir() {
			start = filepath.Join(start, below)
			break
		}
	}
	// A working copy of another kind that stands in this one is what somebody committed:
	// git tracks no .git, and any .svn.
	for d := start; d != outer; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".svn")); err != nil {
			continue
		}
		for up := outer; ; up = filepath.Dir(up) {
			if _, err := os.Lstat(filepath.Join(up, ".git")); err == nil {
				return "", "", &CopyError{d, "a Subversion working copy stands in the git one of " + up, "see who committed it: git log " + quote(filepath.Join(d, ".svn"))}
			}
			if up == filepath.Dir(up) {
				break
			}
		}
	}
	for d := start; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			return d, ".git", nil
		}
		if _, err := os.Lstat(filepath.Join(d, ".svn")); err == nil {
			return d, ".svn", nil
		}
		if d == filepath.Dir(d) {
			return "", "", &CopyError{dir, "this is no git or Subversion working copy", "give the directory of one: git clone URL, or svn checkout URL"}
		}
	}
}

// failedError is a program that ran and failed.
type failedError struct {
	program string
	command string // its first argument that is no option
	status  int
	out     string
}

func (e *failedError) Error() string {
	out := e.out
	if out == "" {
		out = fmt.Sprintf("exit status %d", e.status)
	}
	return e.program + " " + e.command + ": " + out
}

// run runs a program in a directory and gives what it prints.
func run(ctx context.Context, dir, pkg, program string, args ...string) ([]byte, error) {
	cmd := vcs.InOwn(ctx, dir, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// Asked to end, it takes its locks away.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		err = nil // a hook left something behind that holds the pipe
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out.Bytes(), nil
	case errors.Is(err, exec.ErrNotFound):
		return nil, &CopyError{dir, program + " is not installed", "apt-get install " + pkg}
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %s was stopped: %w", dir, program, ctx.Err())
	case !errors.As(err, &exit):
		return nil, fmt.Errorf("%s: %s: %w", dir, program, err)
	}
	// A hook may print anywhere.
	said := strings.TrimSpace(strings.TrimSpace(out.String()) + "\n" + strings.TrimSpace(errs.String()))
	command := slices.IndexFunc(args, func(s string) bool { return !strings.HasPrefix(s, "-") })
	return nil, &failedError{program, args[max(command, 0)], exit.ExitCode(), clip(said)}
}

// clip keeps the end of a long text: the reason is there.
func clip(s string) string {
	const most = 4 << 10
	if len(s) > most {
		return "…" + strings.ToValidUTF8(s[len(s)-most:], "")
	}
	return s
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
