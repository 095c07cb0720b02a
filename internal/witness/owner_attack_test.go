package witness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAttackCopyOfAnother: root keeps checkpoints in the working copy of user 4242, whose
// hooks, settings and remote name programs. They run as that user, or not at all, and the
// checkpoints are kept.
func TestAttackCopyOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives a directory away and needs root: make test")
	}
	for _, kind := range []string{"git", "svn"} {
		t.Run(kind, func(t *testing.T) {
			base, err := os.MkdirTemp("", "witness") // as others reach it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.RemoveAll(base); err != nil {
					t.Error(err)
				}
			})
			if err := os.Chmod(base, 0o755); err != nil {
				t.Fatal(err)
			}
			mark, repository, dir := filepath.Join(base, "mark"), filepath.Join(base, "repository"), filepath.Join(base, "copy")
			if err := os.Mkdir(mark, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(mark, 0o777); err != nil {
				t.Fatal(err)
			}
			says := func(name string) string { return "#!/bin/sh\nid -u >>" + mark + "/" + name + "\n" }
			if kind == "git" {
				must(t, base, "git", "init", "--quiet", "--bare", repository)
				must(t, base, "git", "clone", "--quiet", repository, dir)
				must(t, dir, "git", "config", "user.name", "owner")
				must(t, dir, "git", "config", "user.email", "owner@example.com")
				for _, h := range []string{"pre-commit", "post-commit", "pre-push"} {
					put(t, filepath.Join(dir, ".git/hooks", h), says(h), 0o755)
				}
				put(t, filepath.Join(dir, ".git/monitor"), says("fsmonitor")+"false\n", 0o755)
				must(t, dir, "git", "config", "core.fsmonitor", filepath.Join(dir, ".git/monitor"))
				put(t, filepath.Join(repository, "hooks/post-receive"), says("post-receive"), 0o755)
			} else {
				must(t, base, "svnadmin", "create", repository)
				put(t, filepath.Join(repository, "hooks/post-commit"), says("post-commit"), 0o755)
				must(t, base, "svn", "checkout", "--quiet", "file://"+repository, dir)
			}
			for _, d := range []string{repository, dir} {
				must(t, base, "chown", "-R", "4242:4242", d)
			}
			if err := Usable(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			if err := Update(t.Context(), dir); err != nil {
				t.Error(err)
			}
			for size := int64(3); size < 6; size += 2 {
				revision, err := Commit(t.Context(), dir, "4.2", sign(t, "4.2", size, 'a'))
				if err != nil || revision == "" {
					t.Fatalf("revision %q: %v", revision, err)
				}
			}
			stamp := func(context.Context, []byte) ([]byte, error) {
				if os.Geteuid() != 0 {
					t.Error("the authority is asked by the owner")
				}
				return []byte("a token"), nil
			}
			if revision, err := CommitStamp(t.Context(), dir, "4.2", stamp); err != nil || revision == "" {
				t.Errorf("the stamp: revision %q: %v", revision, err)
			}
			if err := Send(t.Context(), dir); err != nil {
				t.Error(err)
			}
			list, err := Committed(dir, "4.2")
			if err != nil || len(list) != 2 || list[1].Size != 5 {
				t.Errorf("kept are %d checkpoints: %v", len(list), err)
			}
			ran, err := filepath.Glob(filepath.Join(mark, "*"))
			if err != nil || len(ran) == 0 {
				t.Errorf("nothing of the owner's ran: the test shows nothing (%v)", err)
			}
			for _, f := range ran {
				who, err := os.ReadFile(f)
				if err != nil || strings.Trim(string(who), "42\n") != "" {
					t.Errorf("%s ran as\n%s(%v)", filepath.Base(f), who, err)
				}
			}
			if out, err := exec.Command("find", dir, repository, "!", "-user", "4242").CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("not the owner's: %s (%v)", out, err)
			}
			// What is wrong there is said with what to type.
			if kind == "git" {
				must(t, dir, "git", "-c", "safe.directory=*", "config", "user.email", "")
				put(t, filepath.Join(dir, ".git/hooks/pre-commit"), "#!/bin/sh\necho no checkpoints today\nexit 1\n", 0o755)
				must(t, base, "chown", "-R", "4242:4242", dir)
				_, err := Commit(t.Context(), dir, "4.2", sign(t, "4.2", 7, 'a'))
				h, ok := err.(interface{ Hint() string })
				if !ok || h.Hint() == "" {
					t.Errorf("a copy that takes no commit: %v", err)
				}
			}
		})
	}
}
