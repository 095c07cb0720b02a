package witness

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestAttackACommitterNamesPrograms: somebody who may commit to Subversion commits a git
// repository, with hooks and settings that name programs, in a directory in which control
// keeps checkpoints. Control takes it with the next update, and works there.
func TestAttackACommitterNamesPrograms(t *testing.T) {
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	for _, at := range []string{".git", "trysail/.git", "trysail/checkpoints/.git"} {
		t.Run(at, func(t *testing.T) {
			base := t.TempDir()
			repository, mine, theirs, mark := filepath.Join(base, "repository"), filepath.Join(base, "mine"), filepath.Join(base, "theirs"), filepath.Join(base, "mark")
			must(t, "/", "svnadmin", "create", repository)
			for _, dir := range []string{mine, theirs} {
				must(t, "/", "svn", "checkout", "--quiet", "file://"+repository, dir)
			}
			if _, err := Commit(t.Context(), mine, "4.2", sign(t, "4.2", 3, 'a')); err != nil {
				t.Fatal(err)
			}
			must(t, theirs, "svn", "update", "--quiet")
			root := filepath.Join(theirs, filepath.Dir(at))
			must(t, "/", "git", "init", "--quiet", root)
			put(t, filepath.Join(theirs, at, "config"), fmt.Sprintf("[core]\n\trepositoryformatversion = 0\n\tfsmonitor = \"id -u >%s; false\"\n[user]\n\tname = x\n\temail = x@example.com\n", mark), 0o644)
			put(t, filepath.Join(theirs, at, "refs", "heads", "keep"), "", 0o644)
			put(t, filepath.Join(theirs, at, "hooks", "pre-commit"), "#!/bin/sh\nid -u >"+mark+"\n", 0o755)
			must(t, theirs, "svn", "add", "--quiet", at)
			must(t, theirs, "svn", "commit", "--quiet", "-m", "theirs")
			must(t, mine, "svn", "update", "--quiet")
			var errs []error
			errs = append(errs, Usable(t.Context(), mine), Update(t.Context(), mine))
			_, err := Commit(t.Context(), mine, "4.2", sign(t, "4.2", 5, 'a'))
			errs = append(errs, err, Send(t.Context(), mine))
			if who, err := os.ReadFile(mark); err == nil {
				t.Errorf("a program of the committer ran as user %s (%v)", who, errs)
			}
		})
	}
}

// TestAttackACommitterNamesRepositories: somebody who may commit to Subversion names another
// repository as an external, which control reaches as its own user: a path on its machine,
// or a host to which ssh goes with its keys.
func TestAttackACommitterNamesRepositories(t *testing.T) {
	base := t.TempDir()
	repository, mine, theirs := filepath.Join(base, "repository"), filepath.Join(base, "mine"), filepath.Join(base, "theirs")
	must(t, "/", "svnadmin", "create", repository)
	must(t, "/", "svnadmin", "create", filepath.Join(base, "private"))
	for _, dir := range []string{mine, theirs} {
		must(t, "/", "svn", "checkout", "--quiet", "file://"+repository, dir)
	}
	must(t, theirs, "svn", "propset", "--quiet", "svn:externals", "file://"+filepath.Join(base, "private")+" taken", ".")
	must(t, theirs, "svn", "commit", "--quiet", "-m", "theirs")
	if err := Update(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(mine, "taken")); err == nil {
		t.Error("control reads a repository that the committer names")
	}
}
