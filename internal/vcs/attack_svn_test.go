package vcs_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"trysail/internal/vcs"
)

// TestAttackACommitterPutsAGitRepositoryIntoSubversion: somebody who may commit to
// Subversion commits a git repository, whose filters run for whoever reads the copy.
func TestAttackACommitterPutsAGitRepositoryIntoSubversion(t *testing.T) {
	base, err := os.MkdirTemp("/var/tmp", "vcs-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	out, err := exec.Command("sh", "-euc", "cd "+base+`; svnadmin create repository; svn checkout -q file://$PWD/repository theirs; cd theirs
		git init -q; echo one >file; echo '* filter=mine' >.gitattributes; git add file .gitattributes; git -c user.name=t -c user.email=t@example.org commit -q -m x; git pack-refs --all
		git config filter.mine.smudge "id -u >>../mark; cat"; git config filter.mine.clean "id -u >>$PWD/../mark; cat"; sleep 1; touch file
		rm -rf .git/hooks; svn add -q --force .git file .gitattributes; svn commit -q -m x; rm -f ../mark; cd ..; svn checkout -q file://$PWD/repository mine`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c, err := vcs.Find(context.Background(), filepath.Join(base, "mine"))
	if err == nil {
		t.Errorf("the committer's git repository is taken for the working copy: %+v", c.Source)
	}
	if who, err := os.ReadFile(filepath.Join(base, "mark")); err == nil {
		t.Errorf("a program of the committer ran as %s", who)
	}
}
