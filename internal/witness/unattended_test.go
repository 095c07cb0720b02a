package witness

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is a repository with two working copies, as two controls have.
type pair struct {
	one, other string
	send       func(t *testing.T, dir, name, text string) // somebody commits a file
	held       func(t *testing.T, name string) string     // what the repository has
	cut        func(t *testing.T)                         // it is away
}

func pairs(t *testing.T, f func(t *testing.T, p pair)) {
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	t.Run("git", func(t *testing.T) {
		base := t.TempDir()
		bare := filepath.Join(base, "bare")
		must(t, "/", "git", "init", "--quiet", "--bare", "--initial-branch=main", bare)
		p := pair{one: filepath.Join(base, "one"), other: filepath.Join(base, "other")}
		for _, dir := range []string{p.one, p.other} {
			must(t, "/", "git", "clone", "--quiet", bare, dir)
			must(t, dir, "git", "config", "user.name", "control")
			must(t, dir, "git", "config", "user.email", "control@example.com")
			must(t, dir, "git", "checkout", "--quiet", "-B", "main")
			must(t, dir, "git", "config", "branch.main.remote", "origin")
			must(t, dir, "git", "config", "branch.main.merge", "refs/heads/main")
		}
		p.send = func(t *testing.T, dir, name, text string) {
			t.Helper()
			put(t, filepath.Join(dir, name), text, 0o644)
			must(t, dir, "git", "add", name)
			must(t, dir, "git", "commit", "--quiet", "-m", "theirs")
			must(t, dir, "git", "push", "--quiet", "origin", "main")
		}
		p.held = func(t *testing.T, name string) string { t.Helper(); return must(t, bare, "git", "show", "main:"+name) }
		p.cut = func(t *testing.T) { t.Helper(); move(t, bare, bare+".away") }
		f(t, p)
	})
	t.Run("svn", func(t *testing.T) {
		base := t.TempDir()
		repository := filepath.Join(base, "repository")
		must(t, "/", "svnadmin", "create", repository)
		p := pair{one: filepath.Join(base, "one"), other: filepath.Join(base, "other")}
		for _, dir := range []string{p.one, p.other} {
			must(t, "/", "svn", "checkout", "--quiet", "file://"+repository, dir)
		}
		p.send = func(t *testing.T, dir, name, text string) {
			t.Helper()
			put(t, filepath.Join(dir, name), text, 0o644)
			must(t, dir, "svn", "add", "--quiet", "--force", "--parents", name)
			must(t, dir, "svn", "commit", "--quiet", "-m", "theirs")
		}
		p.held = func(t *testing.T, name string) string {
			t.Helper()
			return must(t, "/", "svn", "cat", "file://"+repository+"/"+name)
		}
		p.cut = func(t *testing.T) { t.Helper(); move(t, repository, repository+".away") }
		f(t, p)
	})
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

const keptFile = "trysail/checkpoints/4.2.note"

// keepIn is what control does.
func keepIn(ctx context.Context, dir string, note []byte) error {
	if err := Update(ctx, dir); err != nil {
		return err
	}
	if _, err := Commit(ctx, dir, "4.2", note); err != nil {
		return err
	}
	return Send(ctx, dir)
}

// TestTwoKeep: of two controls one goes on where the other stopped, with what a person
// committed in between, and with what could not be sent at its time.
func TestTwoKeep(t *testing.T) {
	pairs(t, func(t *testing.T, p pair) {
		ctx := t.Context()
		for _, dir := range []string{p.one, p.other} {
			if err := Usable(ctx, dir); err != nil {
				t.Fatal(err)
			}
		}
		for i, x := range []struct {
			dir  string
			size int64
		}{{p.one, 3}, {p.one, 5}, {p.other, 9}, {p.one, 12}} {
			if err := keepIn(ctx, x.dir, sign(t, "4.2", x.size, 'a')); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if n := strings.Count(p.held(t, keptFile), "trysail ledger"); n != i+1 {
				t.Errorf("after %d the repository has %d checkpoints", i+1, n)
			}
		}
		if err := Update(ctx, p.other); err != nil {
			t.Fatal(err)
		}
		p.send(t, p.other, "src/main.c", "int main;\n")
		if err := keepIn(ctx, p.one, sign(t, "4.2", 20, 'a')); err != nil {
			t.Fatal(err)
		}
		if p.held(t, "src/main.c") != "int main;\n" || strings.Count(p.held(t, keptFile), "trysail ledger") != 5 {
			t.Error("one of both was lost")
		}
		list, err := Committed(p.one, "4.2")
		if err != nil || len(list) != 5 || list[4].Size != 20 {
			t.Errorf("%v %v", list, err)
		}
		// The repository goes away, and nothing here is broken by that.
		p.cut(t)
		err = keepIn(ctx, p.one, sign(t, "4.2", 21, 'a'))
		var e *CopyError
		if !errors.As(err, &e) || !strings.Contains(e.What, "cannot be fetched") {
			t.Error(err)
		}
		if list, err := Committed(p.one, "4.2"); err != nil || len(list) != 5 {
			t.Errorf("%v %v", list, err)
		}
	})
}

// TestNotTogether: what somebody else sent first comes first; of what was not sent only
// checkpoints give way.
func TestNotTogether(t *testing.T) {
	pairs(t, func(t *testing.T, p pair) {
		ctx := t.Context()
		if err := keepIn(ctx, p.one, sign(t, "4.2", 3, 'a')); err != nil {
			t.Fatal(err)
		}
		if err := Update(ctx, p.other); err != nil {
			t.Fatal(err)
		}
		// Committed and not sent, where that can be; or on the way there.
		if _, err := Commit(ctx, p.one, "4.2", sign(t, "4.2", 7, 'a')); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(p.one, ".git")); err == nil {
			if err := keepIn(ctx, p.other, sign(t, "4.2", 8, 'a')); err != nil {
				t.Fatal(err)
			}
			// What was not sent gives way to what was, and a longer one follows.
			if err := keepIn(ctx, p.one, sign(t, "4.2", 9, 'a')); err != nil {
				t.Fatal(err)
			}
			list, err := Committed(p.one, "4.2")
			if err != nil || len(list) != 3 || list[1].Size != 8 || list[2].Size != 9 || strings.Count(p.held(t, keptFile), "trysail ledger") != 3 {
				t.Errorf("%v %v", list, err)
			}
			// A person's commit does not.
			put(t, filepath.Join(p.one, "theirs"), "x\n", 0o644)
			must(t, p.one, "git", "add", "theirs")
			must(t, p.one, "git", "commit", "--quiet", "-m", "theirs")
			if err := keepIn(ctx, p.other, sign(t, "4.2", 12, 'a')); err != nil {
				t.Fatal(err)
			}
			var e *CopyError
			if err := Update(ctx, p.one); !errors.As(err, &e) || !strings.Contains(e.What, "commits of somebody") || !strings.Contains(e.What, "theirs") || !strings.Contains(e.Remedy, "pull --rebase") {
				t.Errorf("%v", err)
			}
			if s := must(t, p.one, "git", "log", "-1", "--format=%s"); s != "theirs\n" {
				t.Errorf("a person's commit is gone: %s", s)
			}
			// What is changed and not committed stays as it is.
			must(t, p.one, "git", "reset", "--quiet", "--hard", "HEAD~1")
			put(t, filepath.Join(p.one, "notes"), "of a person\n", 0o644)
			if err := keepIn(ctx, p.one, sign(t, "4.2", 13, 'a')); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(p.one, "notes")); err != nil || string(data) != "of a person\n" {
				t.Errorf("what was not committed is %q %v", data, err)
			}
		} else if err := keepIn(ctx, p.other, sign(t, "4.2", 7, 'b')); err == nil {
			t.Error("another history was kept after the first")
		}
	})
}

// A copy that follows nothing is used as it is.
func TestFollowsNothing(t *testing.T) {
	w := alone(t)
	before := w.others(t)
	if err := keepIn(t.Context(), w.top, sign(t, "4.2", 3, 'a')); err != nil || w.others(t) != before {
		t.Error(err)
	}
	must(t, w.top, "git", "checkout", "--quiet", "--detach")
	if err := keepIn(t.Context(), w.top, sign(t, "4.2", 4, 'a')); err != nil {
		t.Error(err)
	}
	if err := Usable(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "no git or Subversion working copy") {
		t.Error(err)
	}
	must(t, w.top, "git", "config", "--unset", "user.email")
	t.Setenv("EMAIL", "")
	must(t, w.top, "git", "config", "user.useConfigOnly", "true")
	if err := Usable(t.Context(), w.top); err == nil || !strings.Contains(err.Error(), "whose commit") {
		t.Error(err)
	}
}

// What somebody commits into a git repository does not become a Subversion working copy
// of control's.
func TestForeignCopyInside(t *testing.T) {
	w := alone(t)
	if err := keepIn(t.Context(), w.top, sign(t, "4.2", 3, 'a')); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(w.top, "trysail/checkpoints/.svn/wc.db"), "x", 0o644)
	var e *CopyError
	if err := keepIn(t.Context(), w.top, sign(t, "4.2", 4, 'a')); !errors.As(err, &e) || !strings.Contains(e.What, "stands in the git one") {
		t.Error(err)
	}
}

// TestCommitStamp: the stamp is of the file as it was committed, made once, and made
// again when the file has grown; an authority that is away spoils nothing.
func TestCommitStamp(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		ctx := t.Context()
		others := w.others(t)
		a := newAuthority(t, ecKey(t), usage(t, true, stamping()))
		s := httptest.NewServer(a)
		asked := 0
		stamp := func(ctx context.Context, data []byte) ([]byte, error) {
			asked++
			return Stamp(ctx, s.Client(), s.URL, data)
		}
		if revision, err := CommitStamp(ctx, w.dir(), "4.2", stamp); err != nil || revision != "" || asked != 0 {
			t.Errorf("of nothing: %q %v", revision, err)
		}
		for i, size := range []int64{3, 9} {
			if _, err := Commit(ctx, w.dir(), "4.2", sign(t, "4.2", size, 'a')); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := CommitStamp(ctx, w.dir(), "4.2", stamp); err != nil {
					t.Fatal(err)
				}
			}
			if asked != i+1 {
				t.Errorf("asked %d times for %d stamps", asked, i+1)
			}
			data, err := os.ReadFile(filepath.Join(w.dir(), keptFile))
			if err != nil {
				t.Fatal(err)
			}
			token, err := os.ReadFile(filepath.Join(w.dir(), keptFile+StampEnd))
			if err != nil {
				t.Fatal(err)
			}
			if at, err := VerifyStamp(token, data, pool(a.root)); err != nil || time.Since(at) > time.Hour {
				t.Errorf("%v %v", at, err)
			}
			if out, err := a.openssl(token, data, a.root); err != nil {
				t.Errorf("openssl: %s", out)
			}
		}
		s.Close()
		if _, err := Commit(ctx, w.dir(), "4.2", sign(t, "4.2", 11, 'a')); err != nil {
			t.Fatal(err)
		}
		var e *AuthorityError
		if _, err := CommitStamp(ctx, w.dir(), "4.2", stamp); !errors.As(err, &e) {
			t.Error(err)
		}
		if w.others(t) != others {
			t.Error("something else was changed")
		}
		want := "trysail: checkpoint of release 4.2 at event 11\n " + keptFile + "\n" +
			"trysail: time stamp of the checkpoints of release 4.2\n " + keptFile + ".tsr\n" +
			"trysail: checkpoint of release 4.2 at event 9\n " + keptFile + "\n" +
			"trysail: time stamp of the checkpoints of release 4.2\n " + keptFile + ".tsr\n" +
			"trysail: checkpoint of release 4.2 at event 3\n " + keptFile + "\nbegun\n"
		if got := w.history(t); got != want {
			t.Errorf("the history is\n%s", got)
		}
	})
}
