package witness

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type gitTeam struct{ top string }

func newGit(t *testing.T) *gitTeam {
	t.Helper()
	w := &gitTeam{filepath.Join(t.TempDir(), "copy ä")}
	must(t, "/", "git", "init", "--quiet", "--initial-branch=main", w.top)
	w.git(t, "config", "user.name", "Ann")
	w.git(t, "config", "user.email", "ann@example.com")
	for _, name := range []string{"changed", "staged", "both", "deleted", "staged-deleted", "renamed", "mode"} {
		put(t, filepath.Join(w.top, "src", name), name+"\n", 0o644)
	}
	put(t, filepath.Join(w.top, ".gitignore"), "*.note\n", 0o644)
	w.git(t, "add", ".")
	w.git(t, "commit", "--quiet", "-m", "begun")
	put(t, filepath.Join(w.top, "src/changed"), "other\n", 0o644)
	put(t, filepath.Join(w.top, "src/staged"), "other\n", 0o644)
	put(t, filepath.Join(w.top, "src/both"), "other\n", 0o644)
	put(t, filepath.Join(w.top, "src/new"), "new\n", 0o644)
	put(t, filepath.Join(w.top, "src/mode"), "mode\n", 0o755)
	w.git(t, "add", "src/staged", "src/both", "src/new", "src/mode")
	put(t, filepath.Join(w.top, "src/both"), "another\n", 0o644)
	put(t, filepath.Join(w.top, "src/intent"), "intent\n", 0o644)
	w.git(t, "add", "--intent-to-add", "src/intent")
	put(t, filepath.Join(w.top, "src/untracked"), "untracked\n", 0o644)
	w.git(t, "rm", "--quiet", "src/staged-deleted")
	w.git(t, "mv", "src/renamed", "src/renamed-to")
	if err := os.Remove(filepath.Join(w.top, "src/deleted")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *gitTeam) git(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, w.top, "git", args...)
}

func (w *gitTeam) dir() string { return w.top }

// others has the index entry by entry, what differs from it, and what from HEAD.
func (w *gitTeam) others(t *testing.T) string {
	t.Helper()
	s := ""
	for _, args := range [][]string{
		{"ls-files", "--stage"}, {"ls-files", "--others"}, {"diff"}, {"diff", "--cached"}, {"status", "--porcelain=v2"}, {"stash", "list"},
	} {
		args = append(args, "--", ".", ":(exclude)trysail")
		if args[0] == "stash" {
			args = args[:2]
		}
		s += w.git(t, args...)
	}
	return s
}

func (w *gitTeam) history(t *testing.T) string {
	t.Helper()
	s := ""
	for _, line := range strings.Split(w.git(t, "log", "--format=>%s", "--name-status", "--no-renames"), "\n") {
		if f := strings.Split(line, "\t"); len(f) == 2 && strings.Contains(f[1], "trysail") {
			s += " " + f[1] + "\n"
		} else if subject, ok := strings.CutPrefix(line, ">"); ok {
			s += subject + "\n"
		} else if len(f) == 2 && !strings.HasPrefix(s[max(0, len(s)-6):], "begun\n") {
			s += " " + f[1] + "\n"
		}
	}
	return s
}

func (w *gitTeam) hook(t *testing.T, refuse bool) {
	t.Helper()
	name := filepath.Join(w.top, ".git/hooks/pre-commit")
	if refuse {
		put(t, name, "#!/bin/sh\necho no commits on Fridays >&2\nexit 1\n", 0o755)
	} else if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func (w *gitTeam) known(name string) bool {
	out, err := try(w.top, "git", "ls-files", "--", name)
	return err != nil || out != ""
}

// alone is a git team without another.
func alone(t *testing.T) *gitTeam {
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	return newGit(t)
}

func TestGitMessageHookRefuses(t *testing.T) {
	w := alone(t)
	put(t, filepath.Join(w.top, "hooks/commit-msg"), "#!/bin/sh\ngrep -q TICKET- $1 || { echo no ticket; exit 1; }\n", 0o755)
	w.git(t, "config", "core.hooksPath", "hooks")
	others := w.others(t)
	_, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
	var e *RefusedError
	if !errors.As(err, &e) || !strings.Contains(e.Out, "no ticket") || w.others(t) != others {
		t.Error(err)
	}
}

func TestGitHookAddsMore(t *testing.T) {
	w := alone(t)
	put(t, filepath.Join(w.top, ".git/hooks/pre-commit"), "#!/bin/sh\ngit add src/untracked\n", 0o755)
	revision, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
	var e *CopyError
	if !errors.As(err, &e) || !strings.Contains(e.What, "src/untracked too: a hook added it") || revision == "" {
		t.Errorf("%q %v", revision, err)
	}
}

func TestGitFilterChangesTheFile(t *testing.T) {
	w := alone(t)
	w.git(t, "config", "filter.big.clean", "tr a-z A-Z")
	put(t, filepath.Join(w.top, ".git/info/attributes"), "*.note filter=big\n", 0o644)
	revision, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
	var e *CopyError
	if !errors.As(err, &e) || !strings.Contains(e.What, "holds other bytes") || revision == "" {
		t.Errorf("%q %v", revision, err)
	}
}

func TestGitIdentity(t *testing.T) {
	w := alone(t)
	w.git(t, "config", "--unset", "user.email")
	w.git(t, "config", "user.useConfigOnly", "true")
	others := w.others(t)
	_, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
	var e *CopyError
	if !errors.As(err, &e) || !strings.Contains(e.What, "whose commit") || !strings.Contains(e.Hint(), "config user.email") || w.others(t) != others {
		t.Error(err)
	}
}

func TestGitInTheMiddle(t *testing.T) {
	for what, begin := range map[string]func(t *testing.T, w *gitTeam){
		"a merge is in progress": func(t *testing.T, w *gitTeam) {
			if out, err := try(w.top, "git", "merge", "other"); err == nil {
				t.Fatal(out)
			}
		},
		"a cherry-pick is in progress": func(t *testing.T, w *gitTeam) {
			if out, err := try(w.top, "git", "cherry-pick", "other"); err == nil {
				t.Fatal(out)
			}
		},
		"a rebase is in progress": func(t *testing.T, w *gitTeam) {
			if out, err := try(w.top, "git", "rebase", "other"); err == nil {
				t.Fatal(out)
			}
		},
		"a revert is in progress": func(t *testing.T, w *gitTeam) {
			if out, err := try(w.top, "git", "revert", "--no-edit", "HEAD~1"); err == nil {
				t.Fatal(out)
			}
		},
	} {
		w := alone(t)
		w.git(t, "reset", "--quiet", "--hard")
		w.git(t, "switch", "--quiet", "-c", "other")
		put(t, filepath.Join(w.top, "src/changed"), "theirs\n", 0o644)
		w.git(t, "commit", "--quiet", "-am", "theirs")
		w.git(t, "switch", "--quiet", "main")
		for _, text := range []string{"ours\n", "ours again\n"} {
			put(t, filepath.Join(w.top, "src/changed"), text, 0o644)
			w.git(t, "commit", "--quiet", "-am", "ours")
		}
		begin(t, w)
		others, history := w.others(t), w.history(t)
		revision, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
		var e *CopyError
		if !errors.As(err, &e) || revision != "" || !strings.Contains(e.What, what) || !strings.Contains(e.Hint(), "--abort") || w.others(t) != others || w.history(t) != history {
			t.Errorf("%s: %q %v", what, revision, err)
		}
	}
}

func TestGitDetachedHead(t *testing.T) {
	w := alone(t)
	w.git(t, "checkout", "--quiet", "--detach")
	revision, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
	if err != nil || strings.TrimSpace(w.git(t, "rev-parse", "HEAD")) != revision {
		t.Errorf("%q %v", revision, err)
	}
	var e *PushError
	if again, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'), Push); !errors.As(err, &e) || again != "" || e.Revision != revision {
		t.Errorf("%q %v", again, err)
	}
}

func TestGitWithoutACommit(t *testing.T) {
	w := alone(t)
	dir := filepath.Join(t.TempDir(), "new")
	must(t, "/", "git", "init", "--quiet", dir)
	w.top = dir
	w.git(t, "config", "user.name", "Ann")
	w.git(t, "config", "user.email", "ann@example.com")
	put(t, filepath.Join(dir, "staged"), "staged\n", 0o644)
	w.git(t, "add", "staged")
	others := w.others(t)
	w.hook(t, true)
	var e *RefusedError
	if _, err := Commit(t.Context(), dir, "4.2", sign(t, "4.2", 3, 'a')); !errors.As(err, &e) || w.others(t) != others {
		t.Error(err)
	}
	w.hook(t, false)
	if revision, err := Commit(t.Context(), dir, "4.2", sign(t, "4.2", 3, 'a')); err != nil || revision == "" {
		t.Errorf("%q %v", revision, err)
	}
	if got := w.git(t, "show", "--format=", "--name-only"); got != "trysail/checkpoints/4.2.note\n" {
		t.Error(got)
	}
	if got := w.git(t, "status", "--porcelain"); got != "A  staged\n" {
		t.Error(got)
	}
}

// The directory may be one of several projects in a working copy, or in a worktree.
func TestGitBelowTheTop(t *testing.T) {
	w := alone(t)
	tree := filepath.Join(t.TempDir(), "tree")
	w.git(t, "worktree", "add", "--quiet", "--detach", tree)
	for _, dir := range []string{filepath.Join(w.top, "src"), filepath.Join(tree, "src")} {
		t.Setenv("GIT_DIR", "/nowhere") // as in a hook of another repository
		if _, err := Commit(t.Context(), dir, "4.2", sign(t, "4.2", 3, 'a')); err != nil {
			t.Error(err)
		}
		if err := os.Unsetenv("GIT_DIR"); err != nil {
			t.Fatal(err)
		}
		if got := must(t, dir, "git", "show", "--format=", "--name-only"); got != "src/trysail/checkpoints/4.2.note\n" {
			t.Error(got)
		}
	}
}

func TestGitPush(t *testing.T) {
	w := alone(t)
	bare := filepath.Join(t.TempDir(), "bare")
	must(t, "/", "git", "init", "--quiet", "--bare", "--initial-branch=main", bare)
	w.git(t, "remote", "add", "origin", bare)
	w.git(t, "push", "--quiet", "-u", "origin", "main")
	at := func() string { return strings.TrimSpace(must(t, bare, "git", "rev-parse", "main")) }
	begun := at()
	first, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
	if err != nil || at() != begun {
		t.Errorf("%v: pushed without being asked", err)
	}
	if _, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'), Push); err != nil || at() != first {
		t.Errorf("what is not new and was not pushed: %v", err)
	}
	second, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 4, 'a'), Push)
	if err != nil || at() != second {
		t.Error(err)
	}
	put(t, filepath.Join(bare, "hooks/pre-receive"), "#!/bin/sh\necho closed\nexit 1\n", 0o755)
	third, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 5, 'a'), Push)
	var e *PushError
	if !errors.As(err, &e) || third == "" || e.Revision != third || !strings.Contains(e.Out, "closed") || at() != second {
		t.Errorf("%q %v", third, err)
	}
}

func TestGitIsLocked(t *testing.T) {
	w := alone(t)
	name := filepath.Join(w.top, ".git/index.lock")
	put(t, name, "", 0o644)
	var e *CopyError
	if _, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a')); !errors.As(err, &e) || !strings.Contains(e.What, "another git") {
		t.Error(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(w.top, "trysail")); err == nil {
		t.Error("something is left")
	}
}
