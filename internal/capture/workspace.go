package capture

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trysail/blueprint"
)

// Workspace is a working copy and the committed revision in it.
type Workspace struct {
	Root      string // absolute, without symbolic links
	Directory string // where the command runs, below Root; "" is Root
	Source    blueprint.Source
	Committed time.Time
	// Changed lists files that differ from the revision, and will not be in the build.
	Changed []string
	inner   []string // submodules of the checkout, each after the one around it
}

// NoWorkingCopyError says that a directory is under no version control.
type NoWorkingCopyError struct{ Dir string }

func (e *NoWorkingCopyError) Error() string {
	return e.Dir + " is not in a git or Subversion working copy"
}

// Hint says what to do.
func (e *NoWorkingCopyError) Hint() string {
	return "a release is built from a committed revision: commit the source (git init && git add -A && git commit) and run again"
}

// FindWorkspace finds the working copy that holds dir.
func FindWorkspace(ctx context.Context, dir string) (*Workspace, error) {
	root, mark, err := findRoot(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	w := &Workspace{Root: root}
	if root != dir {
		w.Directory, _ = filepath.Rel(root, dir)
	}
	if mark == ".svn" {
		return w, openSvn(ctx, w)
	}
	return w, openGit(ctx, w)
}

// FindRoot finds the root of the working copy that holds dir, whatever state it is in.
func FindRoot(dir string) (string, error) {
	root, _, err := findRoot(dir)
	return root, err
}

func findRoot(dir string) (root, mark string, err error) {
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
			return "", "", &NoWorkingCopyError{Dir: dir}
		}
	}
}

// vcs runs git or svn.
func vcs(ctx context.Context, name string, args ...string) (string, error) {
	return vcsAs(ctx, nil, name, args...)
}

// vcsAs runs git or svn as the owner of a working copy, if root does so and the
// copy is another's: git refuses such a copy, and the programs that its own
// settings name (filters, monitors) must not run as root.
func vcsAs(ctx context.Context, owner *account, name string, args ...string) (string, error) {
	if _, err := exec.LookPath(name); err != nil {
		pkg := map[string]string{"svn": "subversion"}[name]
		if pkg == "" {
			pkg = name
		}
		return "", fmt.Errorf("%s is not installed: apt-get install %s", name, pkg)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	if owner != nil {
		cmd.Env = append(cmd.Env, "HOME="+owner.home, "USER="+owner.name, "LOGNAME="+owner.name, "XDG_CONFIG_HOME=")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &owner.credential}
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("%s %s: %w: %s", name, args[len(args)-1], err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

// account is another user, to run programs as.
type account struct {
	name, home string
	credential syscall.Credential
}

// ownerOfCopy is the account that owns a working copy, nil if it is the caller's
// own, or if the caller may not become another.
func ownerOfCopy(dir string) *account {
	var st syscall.Stat_t
	if os.Geteuid() != 0 || syscall.Stat(dir, &st) != nil || st.Uid == 0 {
		return nil
	}
	a := &account{name: strconv.Itoa(int(st.Uid)), home: "/", credential: syscall.Credential{Uid: st.Uid, Gid: st.Gid, Groups: []uint32{st.Gid}}}
	u, err := user.LookupId(a.name)
	if err != nil {
		return a // a number without a name can own files too
	}
	a.name, a.home = u.Username, u.HomeDir
	if gid, err := strconv.ParseUint(u.Gid, 10, 32); err == nil {
		a.credential.Gid = uint32(gid)
	}
	if ids, err := u.GroupIds(); err == nil {
		for _, id := range ids {
			if gid, err := strconv.ParseUint(id, 10, 32); err == nil {
				a.credential.Groups = append(a.credential.Groups, uint32(gid))
			}
		}
	}
	return a
}

func openGit(ctx context.Context, w *Workspace) error {
	git := func(args ...string) (string, error) { return w.git(ctx, args...) }
	rev, err := git("rev-parse", "--verify", "HEAD^{commit}")
	if err != nil {
		return fmt.Errorf("%s has no commit to build: %w", w.Root, err)
	}
	stamp, err := git("log", "-1", "--format=%cI", rev)
	if err != nil {
		return err
	}
	if w.Committed, err = time.Parse(time.RFC3339, stamp); err != nil {
		return fmt.Errorf("commit time of %s: %w", rev, err)
	}
	status, err := git("status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(status, "\n") {
		if len(line) > 3 {
			w.Changed = append(w.Changed, line[3:])
		}
	}
	w.Source = blueprint.Source{VCS: "git", Revision: rev}
	if remote, err := git("remote", "get-url", "origin"); err == nil {
		w.Source.URL = withoutPassword(remote)
	}
	return nil
}

// Author is who wrote the revision: the e-mail of git's commit, the name that Subversion
// has.
func (w *Workspace) Author(ctx context.Context) (string, error) {
	var out string
	var err error
	if w.Source.VCS == "svn" {
		out, err = vcs(ctx, "svn", "info", "--non-interactive", "--show-item", "last-changed-author", w.Root)
	} else {
		out, err = w.git(ctx, "show", "--no-patch", "--no-show-signature", "--format=%ae", w.Source.Revision)
	}
	if err != nil {
		return "", fmt.Errorf("who wrote revision %s: %w", w.Source.Revision, err)
	}
	return strings.TrimSpace(out), nil
}

// git asks the working copy itself, as its owner.
func (w *Workspace) git(ctx context.Context, args ...string) (string, error) {
	return vcsAs(ctx, ownerOfCopy(w.Root), "git", append([]string{"-C", w.Root}, args...)...)
}

func openSvn(ctx context.Context, w *Workspace) error {
	text, err := vcs(ctx, "svn", "info", "--non-interactive", "--xml", w.Root)
	if err != nil {
		return err
	}
	var info struct {
		Entry struct {
			Revision string `xml:"revision,attr"`
			URL      string `xml:"url"`
			Commit   struct {
				Revision string    `xml:"revision,attr"`
				Date     time.Time `xml:"date"`
			} `xml:"commit"`
		} `xml:"entry"`
	}
	if err := xml.Unmarshal([]byte(text), &info); err != nil {
		return fmt.Errorf("svn info of %s: %w", w.Root, err)
	}
	// The working copy's root may be older than a file committed from it, so
	// the revision that is built is the youngest one that the copy holds.
	versions, err := vcs(ctx, "svn", "status", "--non-interactive", "--quiet", w.Root)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(versions, "\n") {
		if len(line) > 8 && line[0] != ' ' {
			rel, err := filepath.Rel(w.Root, line[8:])
			if err != nil {
				return err
			}
			w.Changed = append(w.Changed, rel)
		}
	}
	span, err := vcs(ctx, "svnversion", "--committed", "--no-newline", w.Root)
	if err != nil {
		return err
	}
	w.Committed = info.Entry.Commit.Date
	w.Source = blueprint.Source{VCS: "svn", URL: withoutPassword(info.Entry.URL), Revision: youngest(span, info.Entry.Revision)}
	return nil
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

func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	u.User = url.User(u.User.Username())
	return u.String()
}

// Checkout makes a clean checkout of the revision in dir, which must not exist,
// and gives every file the commit's time: the time of a checkout is no fact of
// the source, and builds that keep it would never be the same twice.
func (w *Workspace) Checkout(ctx context.Context, dir string) error {
	var err error
	switch w.Source.VCS {
	case "git":
		err = w.checkoutGit(ctx, dir)
	case "svn":
		// An export would lack .svn, which builds ask for their revision; the
		// working copy itself is copied and reverted, so no server is needed.
		err = w.checkoutSvn(ctx, dir)
	default:
		err = fmt.Errorf("version control %q is not known", w.Source.VCS)
	}
	if err != nil {
		return err
	}
	if err := w.normalise(dir); err != nil {
		return err
	}
	if w.Source.VCS != "git" {
		return nil
	}
	for _, inner := range slices.Backward(append([]string{"."}, w.inner...)) {
		if err := settle(ctx, filepath.Join(dir, inner)); err != nil {
			return err
		}
	}
	return w.normalise(dir)
}

// settle lets git see an unchanged tree although times, owners and inodes differ
// from those of its own checkout, here and wherever the source is laid out.
func settle(ctx context.Context, dir string) error {
	for _, args := range [][]string{{"config", "core.checkStat", "minimal"}, {"config", "core.trustctime", "false"}, {"update-index", "-q", "--refresh"}} {
		if _, err := vcs(ctx, "git", append([]string{"-C", dir}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (w *Workspace) checkoutGit(ctx context.Context, dir string) error {
	if err := cloneGit(ctx, w.Root, dir); err != nil {
		return err
	}
	git := func(args ...string) error {
		_, err := vcs(ctx, "git", append([]string{"-C", dir, "-c", "advice.detachedHead=false"}, args...)...)
		return err
	}
	if branch, err := w.git(ctx, "symbolic-ref", "--short", "-q", "HEAD"); err == nil {
		if err := git("checkout", "--quiet", "-B", branch, w.Source.Revision); err != nil {
			return err
		}
	} else if err := git("checkout", "--quiet", "--detach", w.Source.Revision); err != nil {
		return err
	}
	if err := w.submodules(ctx, dir); err != nil {
		return err
	}
	if w.Source.URL != "" {
		return git("remote", "set-url", "origin", w.Source.URL)
	}
	return git("remote", "remove", "origin")
}

// cloneGit copies a repository of this machine, whoever owns it.
func cloneGit(ctx context.Context, from, to string) error {
	_, err := vcs(ctx, "git", "-c", "protocol.file.allow=always", "clone", "--quiet", "--no-checkout",
		"--upload-pack", "git -c 'safe.directory=*' upload-pack", "file://"+from, to)
	return err
}

// submodules fills in the working copy's submodules, each in the revision that
// the one around it has committed. They come from the working copy's own clones,
// so no network is needed; one that it has not initialised stays empty.
func (w *Workspace) submodules(ctx context.Context, dir string) error {
	text, err := w.git(ctx, "submodule", "--quiet", "foreach", "--recursive", `printf '%s\t%s\n' "$displaypath" "$sm_path"`)
	w.inner = nil
	if err != nil || text == "" {
		return err
	}
	for line := range strings.SplitSeq(text, "\n") {
		whole, own, ok := strings.Cut(line, "\t")
		if !ok || !filepath.IsLocal(whole) || !strings.HasSuffix("/"+whole, "/"+own) {
			return fmt.Errorf("submodule %q: its name cannot be read", line)
		}
		around := filepath.Join(dir, strings.TrimSuffix(whole, own))
		rev, err := vcs(ctx, "git", "-C", around, "rev-parse", "--verify", "--quiet", "HEAD:"+own)
		if err != nil {
			continue // it is not in the committed revision
		}
		sub := filepath.Join(dir, whole)
		if err := os.RemoveAll(sub); err != nil {
			return err
		}
		if err := cloneGit(ctx, filepath.Join(w.Root, whole), sub); err != nil {
			return err
		}
		if _, err := vcs(ctx, "git", "-C", sub, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", rev); err != nil {
			return fmt.Errorf("submodule %s: %w", whole, err)
		}
		if url, err := vcsAs(ctx, ownerOfCopy(w.Root), "git", "-C", filepath.Join(w.Root, whole), "remote", "get-url", "origin"); err == nil {
			if _, err := vcs(ctx, "git", "-C", sub, "remote", "set-url", "origin", withoutPassword(url)); err != nil {
				return err
			}
		}
		w.inner = append(w.inner, whole)
	}
	return nil
}

func (w *Workspace) checkoutSvn(ctx context.Context, dir string) error {
	if err := os.CopyFS(dir, os.DirFS(w.Root)); err != nil {
		return fmt.Errorf("copy working copy: %w", err)
	}
	for _, args := range [][]string{
		{"revert", "--quiet", "--recursive", "--remove-added", dir},
		{"cleanup", "--quiet", "--remove-unversioned", "--remove-ignored", dir},
	} {
		if _, err := vcs(ctx, "svn", append([]string{args[0], "--non-interactive"}, args[1:]...)...); err != nil {
			return err
		}
	}
	return nil
}

func (w *Workspace) normalise(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		return os.Chtimes(p, w.Committed, w.Committed)
	})
}

// WriteTree writes the files below dir as a tar stream with sorted names
// relative to dir, numeric owners as given, so the same tree gives the same bytes.
func WriteTree(dir string, out io.Writer, uid, gid int) error {
	tw := tar.NewWriter(out)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		return addToTar(tw, p, rel, func(h *tar.Header) { h.Uid, h.Gid, h.Uname, h.Gname = uid, gid, "", "" })
	})
	return errors.Join(err, tw.Close())
}

// addToTar adds one file, link or directory; other kinds are passed over, as
// sockets and pipes are not originals of anything.
func addToTar(tw *tar.Writer, path, name string, mend func(*tar.Header)) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	if info.IsDir() {
		h.Name += "/"
	}
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.ModTime = h.ModTime.Truncate(time.Second)
	h.Uname, h.Gname = "", ""
	if mend != nil {
		mend(h)
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(tw, io.LimitReader(f, h.Size)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// TrackedFiles lists what the checkout holds, relative to its root, sorted.
func TrackedFiles(dir string) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		list = append(list, rel)
		return err
	})
	slices.Sort(list)
	return list, err
}
