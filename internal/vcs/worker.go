package vcs

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trysail/internal/account"
)

// workerName is the argv[0] of the worker, which runs as the owner of the copy.
const workerName = "trysail-vcs"

// What a worker does.
const (
	doRead     = "read"
	doCheckout = "checkout"
	doMirror   = "mirror"
)

// request is what the worker is asked for.
type request struct {
	Do        string    `json:"do"`
	Mark      string    `json:"mark"` // .git or .svn
	Root      string    `json:"root"`
	Temp      string    `json:"temp,omitempty"`
	Revision  string    `json:"revision,omitempty"`
	Committed time.Time `json:"committed,omitzero"`
	Compare   bool      `json:"compare,omitempty"` // with the files of the copy
}

// answer is what it says of a copy.
type answer struct {
	URL       string    `json:"url"`
	Revision  string    `json:"revision"`
	Committed time.Time `json:"committed"`
	Author    string    `json:"author"`
	Changed   []string  `json:"changed"`
	Mixture   string    `json:"mixture,omitempty"`
}

// failure is its error, on standard error.
type failure struct {
	Error  string `json:"error"`
	Why    string `json:"why,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Every program that links this package can be the worker, tests too.
func init() {
	if len(os.Args) != 2 || os.Args[0] != workerName {
		return
	}
	err := serve(context.Background(), os.Args[1], os.Stdout)
	if err == nil {
		os.Exit(0)
	}
	f := failure{Error: err.Error()}
	var refused *RefusedError
	if errors.As(err, &refused) {
		f.Why, f.Remedy = refused.Why, refused.Remedy
	}
	if err := json.NewEncoder(os.Stderr).Encode(f); err != nil {
		os.Exit(2)
	}
	os.Exit(1)
}

// copyOf is one of the two systems, in the worker.
type copyOf interface {
	read(ctx context.Context) (answer, error)
	// checkout makes a clean checkout, and names the directories in it, relative and
	// sorted, that have a repository of their own.
	checkout(ctx context.Context, dir, revision string, committed time.Time) (inner []string, err error)
}

func serve(ctx context.Context, text string, out io.Writer) error {
	var q request
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	var c copyOf = gitCopy{q.Root}
	if q.Mark == ".svn" {
		c = svnCopy{q.Root}
	}
	if err := trusted(q.Root, q.Mark); err != nil {
		return err
	}
	switch q.Do {
	case doRead:
		a, err := c.read(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(a)
	case doMirror:
		dir := filepath.Join(q.Temp, "mirror")
		if err := (gitCopy{q.Root}).mirror(ctx, dir); err != nil {
			return err
		}
		return writeTree(out, dir, heading{})
	case doCheckout:
		dir := filepath.Join(q.Temp, "checkout")
		inner, err := c.checkout(ctx, dir, q.Revision, q.Committed)
		if err != nil {
			return err
		}
		h := heading{Inner: inner}
		if q.Compare {
			if h.Changed, h.More, err = differences(dir, q.Root); err != nil {
				return err
			}
		}
		return writeTree(out, dir, h)
	}
	return fmt.Errorf("the worker cannot %q", q.Do)
}

// environment is that of the worker and of what it runs: what the owner has in a home is
// found too, as some keep their filters there.
func environment(a account.Account) []string {
	env := []string{
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:" + a.Home + "/.local/bin:" + a.Home + "/bin",
		"LC_ALL=C.UTF-8", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "GIT_PAGER=cat", "GIT_EDITOR=false", "GIT_SEQUENCE_EDITOR=false",
		"GIT_ASKPASS=false", "SSH_ASKPASS=false", "GIT_SSH_COMMAND=false", "GIT_NO_LAZY_FETCH=1", "GIT_LITERAL_PATHSPECS=1", "GIT_ADVICE=0",
	}
	return append(env, variables(settings())...)
}

// variables are git's way to be given settings by the environment.
func variables(list [][2]string) []string {
	env := []string{fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(list))}
	for i, kv := range list {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, kv[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, kv[1]))
	}
	return env
}

// settings overrule those of the copy: nothing runs but filters, and nothing leaves this machine.
func settings() [][2]string {
	return [][2]string{
		{"core.hooksPath", "/dev/null"},
		{"core.fsmonitor", "false"},
		{"core.untrackedCache", "false"},
		{"core.pager", "cat"},
		{"core.editor", "false"},
		{"core.askPass", "false"},
		{"core.sshCommand", "false"},
		{"core.gitProxy", "none"},
		{"core.alternateRefsCommand", "true"},
		{"diff.external", ""},
		{"credential.helper", ""},
		{"log.showSignature", "false"},
		{"protocol.allow", "never"},
		{"protocol.file.allow", "always"},
		{"protocol.ext.allow", "never"},
		{"core.protectHFS", "true"},
		{"core.protectNTFS", "true"},
		{"submodule.recurse", "false"},
		{"fetch.recurseSubmodules", "false"},
		{"gc.auto", "0"},
		{"maintenance.auto", "false"},
		{"advice.detachedHead", "false"},
		{"init.templateDir", ""},
		{"color.ui", "false"},
		{"core.logAllRefUpdates", "false"},
		{"index.version", "2"},
		{"fetch.unpackLimit", "1"},
		{"fetch.writeCommitGraph", "false"},
		{"core.quotePath", "false"},
		{"status.renames", "false"},
		{"safe.bareRepository", "all"},
	}
}

// run runs git or svn and gives what it prints.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	out, said, err := runBoth(ctx, dir, env, name, args...)
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args[0]), " "), err, said)
	}
	return out, nil
}

// runBoth gives what it prints as errors too.
func runBoth(ctx context.Context, dir string, env []string, name string, args ...string) (out, said string, err error) {
	file, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		pkg := map[string]string{"svn": "subversion", "svnversion": "subversion"}[name]
		if pkg == "" {
			pkg = name
		}
		return "", "", fmt.Errorf("%s is not installed: apt-get install %s", name, pkg)
	}
	if err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	list, errs := &capped{most: 64 << 20}, &tail{most: 8 << 10}
	cmd.Stdout, cmd.Stderr = list, errs
	err = cmd.Run()
	return list.String(), strings.TrimSpace(string(errs.data)), err
}

// writeTree writes what is below a directory, in the order of a walk. Who owns it and
// when it was made is root's to say.
func writeTree(out io.Writer, dir string, head heading) error {
	tw := tar.NewWriter(out)
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{headingRecord: string(text)}}); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		return writeEntry(tw, root, p)
	})
	return errors.Join(err, tw.Close())
}

func writeEntry(tw *tar.Writer, root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Format: tar.FormatPAX}
	switch {
	case info.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return tw.WriteHeader(h)
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = root.Readlink(name); err != nil {
			return err
		}
		return tw.WriteHeader(h)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: a checkout has no files of type %s", name, info.Mode().Type())
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.Copy(tw, io.LimitReader(f, h.Size)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
