package witness

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"trysail/evidence"
)

// sign makes the checkpoint of a release as control does. A history is told by a
// letter: the same one gives the same events.
func sign(t testing.TB, release string, size int64, history byte) []byte {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public, err := note.NewEd25519VerifierKey("trysail.fleet.0123456789abcdef", key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.SplitN(public, "+", 3)
	signer, err := note.NewSigner("PRIVATE+KEY+" + f[0] + "+" + f[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...)))
	if err != nil {
		t.Fatal(err)
	}
	var tree evidence.Tree
	for i := range size {
		if err := tree.Add(fmt.Appendf(nil, "%c %d", history, i)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	data, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Stream: "release." + release, Size: size, Root: root}.Text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// try runs a program and gives all it prints.
func try(dir, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs a program that has to be there and to succeed: a test that cannot run
// has not passed.
func must(t testing.TB, dir, program string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("this test needs %s: apt-get install git subversion openssl (%v)", program, err)
	}
	out, err := try(dir, program, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return out
}

func put(t testing.TB, name, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

// team is a repository with a working copy that has changes of every kind.
type team interface {
	dir() string
	// others is everything but the checkpoints: what is changed, and how.
	others(t *testing.T) string
	// history is the subjects and the paths of what was committed, newest first.
	history(t *testing.T) string
	// hook makes the repository refuse, or no more.
	hook(t *testing.T, refuse bool)
	// known tells whether the program knows the file of the checkpoints.
	known(name string) bool
}

// teams has one of each kind: what is said here holds for both.
func teams(t *testing.T, f func(t *testing.T, w team)) {
	// What this machine's user has set must not matter.
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	t.Run("git", func(t *testing.T) { f(t, newGit(t)) })
	t.Run("svn", func(t *testing.T) { f(t, newSvn(t)) })
}

func TestCommit(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		before := w.others(t)
		if list, err := Committed(w.dir(), "4.2"); err != nil || list != nil {
			t.Fatalf("before there is any: %v %v", list, err)
		}
		first, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 3, 'a'))
		if err != nil || first == "" {
			t.Fatalf("%q %v", first, err)
		}
		second, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 17, 'a'))
		if err != nil || second == "" || second == first {
			t.Fatalf("%q %v", second, err)
		}
		if other, err := Commit(t.Context(), w.dir(), "4.3-rc1+B", sign(t, "4.3-rc1+B", 5, 'a')); err != nil || other == "" {
			t.Fatalf("%q %v", other, err)
		}
		want := "trysail: checkpoint of release 4.3-rc1+B at event 5\n trysail/checkpoints/4.3-rc1+B.note\n" +
			"trysail: checkpoint of release 4.2 at event 17\n trysail/checkpoints/4.2.note\n" +
			"trysail: checkpoint of release 4.2 at event 3\n trysail/checkpoints/4.2.note\n" +
			"begun\n"
		if got := w.history(t); got != want {
			t.Errorf("the history is\n%s", got)
		}
		// The same once more is nothing new.
		if again, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 17, 'a')); err != nil || again != "" {
			t.Errorf("%q %v", again, err)
		}
		if got := w.history(t); got != want {
			t.Errorf("the history is\n%s", got)
		}
		if after := w.others(t); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
		list, err := Committed(w.dir(), "4.2")
		if err != nil || len(list) != 2 || list[0].Size != 3 || list[1].Size != 17 || list[0].Line != 1 || list[1].Line != 7 {
			t.Fatalf("%+v %v", list, err)
		}
		if !bytes.Equal(list[0].Note, sign(t, "4.2", 3, 'a')) || !bytes.Equal(list[1].Note, sign(t, "4.2", 17, 'a')) {
			t.Errorf("%s\n%s", list[0].Note, list[1].Note)
		}
	})
}

func TestContradiction(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 3, 'a')); err != nil {
			t.Fatal(err)
		}
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 9, 'a')); err != nil {
			t.Fatal(err)
		}
		history, others := w.history(t), w.others(t)
		for _, x := range []struct {
			size    int64
			history byte
			what    string
		}{
			{8, 'a', "4.2.note:7: the ledger had 9 events, and has 8"},
			{9, 'b', "4.2.note:7: the first 9 events were others"},
		} {
			revision, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", x.size, x.history))
			var e *ContradictionError
			if !errors.As(err, &e) || revision != "" || !strings.HasSuffix(err.Error(), x.what) || e.Kept.Size != 9 || e.New.Size != x.size || e.Hint() == "" {
				t.Errorf("%q %v", revision, err)
			}
		}
		if w.history(t) != history || w.others(t) != others {
			t.Error("something was committed or changed")
		}
	})
}

func TestHookRefuses(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		others := w.others(t)
		name := filepath.Join(w.dir(), folder, "4.2.note")
		refused := func(size int64) {
			t.Helper()
			revision, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", size, 'a'))
			var e *RefusedError
			if !errors.As(err, &e) || revision != "" || !strings.Contains(err.Error(), "no commits on Fridays") || e.Hint() == "" {
				t.Fatalf("%q %v", revision, err)
			}
			if w.others(t) != others {
				t.Errorf("before\n%s\nafter\n%s", others, w.others(t))
			}
		}
		w.hook(t, true)
		refused(3)
		if _, err := os.Lstat(filepath.Join(w.dir(), "trysail")); !errors.Is(err, fs.ErrNotExist) || w.known(name) {
			t.Errorf("something is left: %v, known: %v", err, w.known(name))
		}
		w.hook(t, false)
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 3, 'a')); err != nil {
			t.Fatal(err)
		}
		w.hook(t, true)
		refused(4)
		if list, err := Committed(w.dir(), "4.2"); err != nil || len(list) != 1 || list[0].Size != 3 {
			t.Errorf("%+v %v", list, err)
		}
		if h := w.history(t); strings.Count(h, "checkpoint of") != 1 {
			t.Errorf("the history is\n%s", h)
		}
	})
}

// A call that was killed has written its line and not committed it.
func TestFinishesWhatWasKilled(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 3, 'a')); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(w.dir(), folder, "4.2.note")
		put(t, name, string(sign(t, "4.2", 3, 'a'))+"\n"+string(sign(t, "4.2", 5, 'a')), 0o644)
		if revision, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 5, 'a')); err != nil || revision == "" {
			t.Errorf("%q %v", revision, err)
		}
		if h := w.history(t); !strings.HasPrefix(h, "trysail: checkpoint of release 4.2 at event 5\n") {
			t.Errorf("the history is\n%s", h)
		}
	})
}

func TestChangedFile(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		for _, size := range []int64{3, 5} {
			if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", size, 'a')); err != nil {
				t.Fatal(err)
			}
		}
		name, history := filepath.Join(w.dir(), folder, "4.2.note"), w.history(t)
		for what, text := range map[string]string{"shorter": string(sign(t, "4.2", 3, 'a')), "another": string(sign(t, "4.2", 7, 'b')), "empty": "", "gone": "-"} {
			put(t, name, text, 0o644)
			if text == "-" {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			revision, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 9, 'a'))
			var e *CopyError
			if !errors.As(err, &e) || revision != "" || !strings.Contains(e.What, "not as it was committed") || e.Hint() == "" {
				t.Errorf("%s: %q %v", what, revision, err)
			}
		}
		// What the hint says mends it.
		var e *CopyError
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 9, 'a')); !errors.As(err, &e) {
			t.Fatal(err)
		}
		must(t, "/", "sh", "-c", e.Hint())
		if w.history(t) != history {
			t.Error("something was committed")
		}
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 9, 'a')); err != nil {
			t.Error(err)
		}
	})
}

func TestNoWorkingCopy(t *testing.T) {
	dir := t.TempDir()
	_, err := Commit(t.Context(), dir, "4.2", sign(t, "4.2", 3, 'a'))
	var e *CopyError
	if !errors.As(err, &e) || !strings.Contains(e.What, "no git or Subversion working copy") || e.Hint() == "" {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestNoRelease(t *testing.T) {
	dir := t.TempDir()
	for _, release := range []string{"", "..", "../4.2", "a/b", "-4.2", "4.2\n", strings.Repeat("4", 65)} {
		var e *CopyError
		if _, err := Committed(dir, release); !errors.As(err, &e) {
			t.Errorf("%q: %v", release, err)
		}
		if _, err := Commit(t.Context(), dir, release, sign(t, "4.2", 3, 'a')); !errors.As(err, &e) {
			t.Errorf("%q: %v", release, err)
		}
	}
}

// A link would lead out of the working copy.
func TestLinks(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		out := t.TempDir()
		trysail := filepath.Join(w.dir(), "trysail")
		if err := os.Symlink(out, trysail); err != nil {
			t.Fatal(err)
		}
		var e *CopyError
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 3, 'a')); !errors.As(err, &e) || e.What != "is no directory" {
			t.Error(err)
		}
		if err := os.Remove(trysail); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(out, "there"), "", 0o644)
		if err := os.MkdirAll(filepath.Join(w.dir(), folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(out, "there"), filepath.Join(w.dir(), folder, "4.2.note")); err != nil {
			t.Fatal(err)
		}
		if _, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 3, 'a')); !errors.As(err, &e) || e.What != "is no file" {
			t.Error(err)
		}
		if err := os.RemoveAll(trysail); err != nil {
			t.Fatal(err)
		}
		// The way to the working copy may be one.
		link := filepath.Join(out, "link")
		if err := os.Symlink(w.dir(), link); err != nil {
			t.Fatal(err)
		}
		if _, err := Commit(t.Context(), link, "4.2", sign(t, "4.2", 3, 'a')); err != nil {
			t.Error(err)
		}
	})
}

// Two people record the same release at once: no line is lost, nothing is torn.
func TestTwoAtOnce(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		done := make(chan error, 4)
		for i := range 4 {
			go func() {
				_, err := Commit(t.Context(), w.dir(), fmt.Sprintf("4.%d", i/2), sign(t, fmt.Sprintf("4.%d", i/2), int64(3+i), 'a'))
				var late *ContradictionError // the longer one was first
				if errors.As(err, &late) {
					err = nil
				}
				done <- err
			}()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for _, r := range []string{"4.0", "4.1"} {
			if list, err := Committed(w.dir(), r); err != nil || len(list) == 0 {
				t.Errorf("%v %v", list, err)
			}
		}
	})
}

func TestLockHasAnEnd(t *testing.T) {
	dir := t.TempDir()
	free, err := lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	free()
	if free, err = lock(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	free()
}

func TestProgramIsAbsent(t *testing.T) {
	teams(t, func(t *testing.T, w team) {
		others := w.others(t)
		path := os.Getenv("PATH")
		t.Setenv("PATH", t.TempDir())
		_, err := Commit(t.Context(), w.dir(), "4.2", sign(t, "4.2", 3, 'a'))
		var e *CopyError
		if !errors.As(err, &e) || !strings.Contains(e.What, "is not installed") || !strings.HasPrefix(e.Hint(), "apt-get install ") {
			t.Error(err)
		}
		t.Setenv("PATH", path)
		if w.others(t) != others {
			t.Error("something was changed")
		}
	})
}
