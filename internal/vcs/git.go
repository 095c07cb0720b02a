package vcs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// gitCopy is a git working copy, named by its top; it is used in the worker only.
type gitCopy struct{ root string }

func (c gitCopy) git(ctx context.Context, args ...string) (string, error) {
	out, err := run(ctx, c.root, nil, "git", args...)
	return strings.TrimRight(out, "\n"), err
}

func (c gitCopy) read(ctx context.Context) (a answer, err error) {
	top, err := c.git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return a, fmt.Errorf("%s has no commit to build: %w", c.root, err)
	}
	if top != c.root {
		return a, &RefusedError{c.root, "its files are in " + top + " (core.worktree)", "go there and run again, or: git -C " + quote(c.root) + " config --unset core.worktree"}
	}
	if a.Revision, err = c.git(ctx, "rev-parse", "--verify", "HEAD^{commit}"); err != nil {
		return a, fmt.Errorf("%s has no commit to build: %w", c.root, err)
	}
	text, err := c.git(ctx, "show", "--no-patch", "--no-show-signature", "--format=%cI%n%ae", a.Revision)
	if err != nil {
		return a, err
	}
	stamp, author, _ := strings.Cut(text, "\n")
	if a.Committed, err = time.Parse(time.RFC3339, stamp); err != nil {
		return a, fmt.Errorf("commit time of %s: %w", a.Revision, err)
	}
	a.Author = author
	status, err := c.git(ctx, "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
	if err != nil {
		return a, err
	}
	for line := range strings.SplitSeq(status, "\x00") {
		if len(line) > 3 {
			a.Changed = append(a.Changed, line[3:])
		}
	}
	a.URL = c.origin(ctx)
	return a, nil
}

// origin is where the copy comes from, without a password; "" if it does not say.
func (c gitCopy) origin(ctx context.Context) string {
	address, err := c.git(ctx, "remote", "get-url", "origin")
	if err != nil {
		return ""
	}
	return withoutPassword(address)
}

// withoutPassword takes the password out of an address, and leaves the user.
func withoutPassword(address string) string {
	before, user, after := splitUser(address)
	name, _, _ := strings.Cut(user, ":")
	if name == "" {
		return before + after
	}
	return before + name + "@" + after
}

// WithoutUser takes user and password out of an address.
func WithoutUser(address string) string {
	before, _, after := splitUser(address)
	return before + after
}

// splitUser splits an address around its user and password, which stand between // and @. They
// end before the path; in an address that is none, at the last @: a password may have a slash.
func splitUser(address string) (before, user, after string) {
	i := strings.Index(address, "//")
	if i < 0 || i > 0 && address[i-1] != ':' {
		return address, "", ""
	}
	before, after = address[:i+2], address[i+2:]
	end := len(after)
	if _, err := url.Parse(address); err == nil && strings.ContainsAny(after, "/?#") {
		end = strings.IndexAny(after, "/?#")
	}
	if at := strings.LastIndexByte(after[:end], '@'); at >= 0 {
		user, after = after[:at], after[at+1:]
	}
	return before, user, after
}

// uploadPack is git's program on the side of the copy; git clears the environment's
// settings for it. Any revision may be asked for, as HEAD need not be on a branch.
func uploadPack() string {
	words := []string{"git"}
	for _, kv := range append(settings(), [2]string{"uploadpack.allowAnySHA1InWant", "true"}, [2]string{"pack.threads", "1"}) {
		words = append(words, "-c", quote(kv[0]+"="+kv[1]))
	}
	return strings.Join(append(words, "upload-pack"), " ")
}

// fetch takes what is committed out of the copy into a new repository.
func (c gitCopy) fetch(ctx context.Context, into string, refs ...string) error {
	format, err := c.git(ctx, "rev-parse", "--show-object-format")
	if err != nil {
		return err
	}
	args := []string{"init", "--quiet", "--template=", "--object-format=" + format}
	if refs == nil {
		args, refs = append(args, "--bare"), []string{"+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"}
	}
	if _, err := run(ctx, "/", nil, "git", append(args, into)...); err != nil {
		return err
	}
	_, err = run(ctx, into, nil, "git", append([]string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow", "--update-head-ok", "--upload-pack", uploadPack(), c.root}, refs...)...)
	if err != nil && c.partial(ctx) {
		return &RefusedError{c.root, "it is a partial clone, and lacks files of the revision or of its history", "git -C " + quote(c.root) + " fetch --refetch --no-filter, while its server can be reached"}
	}
	return err
}

func (c gitCopy) partial(ctx context.Context) bool {
	name, err := c.git(ctx, "config", "--get-regexp", `^(extensions\.partialclone|remote\..*\.promisor)$`)
	return err == nil && name != ""
}

func (c gitCopy) checkout(ctx context.Context, dir, revision string, committed time.Time) (inner []string, err error) {
	err = c.into(ctx, dir, revision, "", committed, &inner)
	return inner, err
}

// into makes a checkout with its submodules, from the copy's own clones of them, so that no
// network is needed. A submodule that the copy has not initialised stays empty.
func (c gitCopy) into(ctx context.Context, dir, revision, below string, committed time.Time, inner *[]string) error {
	err := c.fetch(ctx, dir, revision, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+refs/remotes/*:refs/remotes/*", "+refs/notes/*:refs/notes/*", "+refs/replace/*:refs/replace/*")
	if err != nil {
		return err
	}
	env, done, err := c.configure(ctx, dir)
	if err != nil {
		return err
	}
	defer done()
	how := []string{"--detach"}
	if branch, err := c.git(ctx, "symbolic-ref", "--short", "-q", "HEAD"); err == nil && below == "" {
		how = []string{"-B", branch}
	}
	_, said, err := runBoth(ctx, dir, env, "git", append(append([]string{"checkout", "--quiet"}, how...), revision)...)
	if err != nil || strings.Contains(said, "external filter") {
		return fmt.Errorf("git checkout of %s: %w", c.root, errors.Join(err, errors.New(said)))
	}
	links, err := run(ctx, dir, nil, "git", "ls-tree", "-r", "-z", "--full-tree", revision)
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(links, "\x00") {
		head, name, _ := strings.Cut(line, "\t")
		if f := strings.Fields(head); len(f) == 3 && f[0] == "160000" {
			if err := c.submodule(ctx, dir, name, f[2], filepath.Join(below, name), committed, inner); err != nil {
				return err
			}
		}
	}
	if err := setTimes(dir, committed); err != nil {
		return err
	}
	return settle(ctx, dir, env)
}

func (c gitCopy) submodule(ctx context.Context, dir, name, revision, whole string, committed time.Time, inner *[]string) error {
	for part := range strings.SplitSeq(name, "/") {
		if !local(name) || isDotGit(part) {
			return &RefusedError{c.root, fmt.Sprintf("a submodule is called %q", whole), "rename it"}
		}
	}
	// Neither in the copy nor in the checkout does a link lead elsewhere.
	for _, top := range []string{c.root, dir} {
		for p := name; p != "."; p = filepath.Dir(p) {
			info, err := os.Lstat(filepath.Join(top, p))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if !info.IsDir() {
				return &RefusedError{c.root, fmt.Sprintf("%s is not a directory, and the submodule %s is in it", filepath.Join(top, p), whole), "git -C " + quote(c.root) + " submodule update --init --force"}
			}
		}
	}
	sub := gitCopy{filepath.Join(c.root, name)}
	if _, err := os.Lstat(filepath.Join(sub.root, ".git")); err != nil {
		return nil // not initialised
	}
	if err := trusted(sub.root, ".git"); err != nil {
		return err
	}
	*inner = append(*inner, whole)
	if err := sub.into(ctx, filepath.Join(dir, name), revision, whole, committed, inner); err != nil {
		return fmt.Errorf("submodule %s: %w", whole, err)
	}
	return nil
}

// configure gives the checkout the copy's settings for the content of files and for its
// remotes, and what filters need of the repository until done is called. The rest of the
// settings is people's own. A setting may depend on where the copy is (includeIf), so the
// environment for git in the checkout has all those that decide the content.
func (c gitCopy) configure(ctx context.Context, dir string) (env []string, done func(), err error) {
	set := func(key, value string) error {
		_, err := run(ctx, dir, nil, "git", "config", "--local", "--add", key, value)
		return err
	}
	text, err := c.git(ctx, "config", "--show-scope", "--includes", "--list", "-z")
	if err != nil {
		return nil, nil, err
	}
	given := settings()
	for words := strings.Split(text, "\x00"); len(words) > 1; words = words[2:] {
		key, value, ok := strings.Cut(words[1], "\n")
		if !ok {
			value = "true" // as git reads a name alone
		}
		content := slices.Contains([]string{"core.autocrlf", "core.eol", "core.symlinks"}, key) || strings.HasPrefix(key, "filter.")
		if content {
			given = append(given, [2]string{key, value})
		}
		if own := words[0] == "local" || words[0] == "worktree"; own && (content || ofRemotes(key)) {
			if strings.HasSuffix(key, ".url") {
				value = withoutPassword(value)
			}
			if err := set(key, value); err != nil {
				return nil, nil, err
			}
		}
	}
	if file, err := c.git(ctx, "config", "--includes", "--type=path", "--get", "core.attributesFile"); err == nil {
		given = append(given, [2]string{"core.attributesFile", file})
	}
	// Unchanged files stay unchanged although times, owners and inodes will differ from
	// those of this checkout.
	for _, kv := range [][2]string{{"core.checkStat", "minimal"}, {"core.trustctime", "false"}} {
		if err := set(kv[0], kv[1]); err != nil {
			return nil, nil, err
		}
	}
	links, err := c.git(ctx, "for-each-ref", "--format=%(refname) %(symref)", "refs/remotes")
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.SplitSeq(links, "\n") {
		if name, target, _ := strings.Cut(line, " "); target != "" {
			if _, err := run(ctx, dir, nil, "git", "symbolic-ref", name, target); err != nil {
				return nil, nil, err
			}
		}
	}
	common, err := c.git(ctx, "rev-parse", "--path-format=absolute", "--git-common-dir")
	if err != nil {
		return nil, nil, err
	}
	if err := copyIfThere(filepath.Join(common, "info", "attributes"), filepath.Join(dir, ".git", "info", "attributes")); err != nil {
		return nil, nil, err
	}
	// The key of git-crypt must not leave with the checkout.
	keys := filepath.Join(dir, ".git", "git-crypt")
	if _, err := os.Stat(filepath.Join(common, "git-crypt")); err == nil {
		if err := os.CopyFS(keys, os.DirFS(filepath.Join(common, "git-crypt"))); err != nil {
			return nil, nil, err
		}
	}
	// Git LFS finds its files where the copy has them.
	given = append(given, [2]string{"lfs.storage", filepath.Join(common, "lfs")})
	return variables(given), func() { os.RemoveAll(keys) }, nil
}

// ofRemotes tells the settings by which git finds the upstream of a branch.
func ofRemotes(key string) bool {
	section, _, _ := strings.Cut(key, ".")
	name := key[strings.LastIndexByte(key, '.')+1:]
	return section == "branch" && (name == "remote" || name == "merge") || section == "remote" && (name == "url" || name == "fetch")
}

func copyIfThere(from, to string) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o666)
}

// mirror makes a bare repository with all that the copy or bare repository has.
func (c gitCopy) mirror(ctx context.Context, dir string) error {
	if err := c.fetch(ctx, dir); err != nil {
		return err
	}
	for _, kv := range [][2]string{{"receive.denyNonFastForwards", "true"}, {"receive.denyDeletes", "true"}, {"uploadpack.allowAnySHA1InWant", "true"}} {
		if _, err := run(ctx, dir, nil, "git", "config", kv[0], kv[1]); err != nil {
			return err
		}
	}
	head, err := c.git(ctx, "symbolic-ref", "-q", "HEAD")
	if err != nil {
		return nil // detached: the new one keeps its own
	}
	_, err = run(ctx, dir, nil, "git", "symbolic-ref", "HEAD", head)
	return err
}

// setTimes gives everything the commit's time: that of a checkout is no fact of the
// source, and builds that keep it would never be the same twice.
func setTimes(dir string, at time.Time) error {
	ts := unix.NsecToTimespec(at.Truncate(time.Second).UnixNano())
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// settle lets git see an unchanged tree, here and wherever the checkout is laid out.
func settle(ctx context.Context, dir string, env []string) error {
	// Some filters do not give back what they took: such a file stays changed, as it is in the copy.
	if _, err := run(ctx, dir, env, "git", "update-index", "-q", "--refresh"); err != nil {
		return err
	}
	return steady(filepath.Join(dir, ".git", "index"))
}
