package witness

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

type svnTeam struct{ repository, top string }

func newSvn(t *testing.T) *svnTeam {
	t.Helper()
	base := t.TempDir()
	w := &svnTeam{filepath.Join(base, "repository"), filepath.Join(base, "copy ä@1")}
	must(t, "/", "svnadmin", "create", w.repository)
	must(t, "/", "svn", "checkout", "--quiet", "file://"+w.repository, w.top)
	for _, name := range []string{"changed", "deleted", "missing", "moved", "property"} {
		put(t, filepath.Join(w.top, "src", name), name+"\n", 0o644)
	}
	w.svn(t, "add", "--quiet", "src")
	w.svn(t, "commit", "--quiet", "-m", "begun")
	w.svn(t, "update", "--quiet")
	put(t, filepath.Join(w.top, "src/changed"), "other\n", 0o644)
	put(t, filepath.Join(w.top, "src/new"), "new\n", 0o644)
	put(t, filepath.Join(w.top, "src/untracked"), "untracked\n", 0o644)
	w.svn(t, "add", "--quiet", "src/new")
	w.svn(t, "delete", "--quiet", "src/deleted")
	w.svn(t, "move", "--quiet", "src/moved", "src/moved-to")
	w.svn(t, "propset", "--quiet", "svn:executable", "*", "src/property")
	w.svn(t, "propset", "--quiet", "svn:ignore", "trysail", ".")
	w.svn(t, "changelist", "--quiet", "later", "src/changed")
	if err := os.Remove(filepath.Join(w.top, "src/missing")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *svnTeam) svn(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, w.top, "svn", args...)
}

func (w *svnTeam) dir() string { return w.top }

func (w *svnTeam) others(t *testing.T) string {
	t.Helper()
	s := ""
	for _, line := range strings.Split(w.svn(t, "status", "--no-ignore"), "\n") {
		if !strings.HasSuffix(line, " trysail") {
			s += line + "\n"
		}
	}
	return s + w.svn(t, "diff", "--depth", "empty", ".") + w.svn(t, "diff", "src")
}

func (w *svnTeam) history(t *testing.T) string {
	t.Helper()
	log := must(t, "/", "svn", "log", "--verbose", "file://"+w.repository)
	s := ""
	for _, entry := range strings.Split(log, strings.Repeat("-", 72)+"\n") {
		m := regexp.MustCompile(`(?s)^r\d+ .*?\nChanged paths:\n(.*?)\n\n(.*)\n$`).FindStringSubmatch(entry)
		if m == nil {
			continue
		}
		s += m[2] + "\n"
		for _, p := range strings.Split(m[1], "\n") {
			// The directories come with the first file.
			if p = strings.TrimSpace(p)[2:]; m[2] != "begun" && p != "/trysail" && p != "/trysail/checkpoints" {
				s += " " + p[1:] + "\n"
			}
		}
	}
	return s
}

func (w *svnTeam) hook(t *testing.T, refuse bool) {
	t.Helper()
	name := filepath.Join(w.repository, "hooks/pre-commit")
	if refuse {
		put(t, name, "#!/bin/sh\necho no commits on Fridays >&2\nexit 1\n", 0o755)
	} else if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func (w *svnTeam) known(name string) bool {
	_, err := try(w.top, "svn", "info", name+"@")
	return err == nil
}

// What others committed must be there before ours can follow.
func TestSvnIsBehind(t *testing.T) {
	w := newSvn(t)
	if _, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a')); err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "second")
	must(t, "/", "svn", "checkout", "--quiet", "file://"+w.repository, second)
	if _, err := Commit(t.Context(), second, "4.2", sign(t, "4.2", 5, 'a')); err != nil {
		t.Fatal(err)
	}
	others := w.others(t)
	revision, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 5, 'a'))
	var e *CopyError
	if !errors.As(err, &e) || revision != "" || !strings.HasPrefix(e.Hint(), "svn update") || w.others(t) != others {
		t.Fatalf("%q %v", revision, err)
	}
	w.svn(t, "update", "--quiet", "trysail")
	if revision, err = Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 5, 'a')); err != nil || revision != "" {
		t.Errorf("%q %v", revision, err)
	}
}

// A directory that somebody has added goes with the file, and nothing else in it.
func TestSvnDirectoryIsNew(t *testing.T) {
	w := newSvn(t)
	put(t, filepath.Join(w.top, "trysail/blueprint.yaml"), "a: b\n", 0o644)
	w.svn(t, "add", "--quiet", "--no-ignore", "trysail")
	revision, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a'))
	if err != nil || revision != "2" {
		t.Fatalf("%q %v", revision, err)
	}
	if got := w.svn(t, "status", "trysail"); got != "A       trysail/blueprint.yaml\n" {
		t.Error(got)
	}
}

func TestSvnConflict(t *testing.T) {
	w := newSvn(t)
	if _, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 3, 'a')); err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "second")
	must(t, "/", "svn", "checkout", "--quiet", "file://"+w.repository, second)
	put(t, filepath.Join(second, folder, "4.2.note"), "other\n", 0o644)
	must(t, second, "svn", "commit", "--quiet", "-m", "rewritten")
	put(t, filepath.Join(w.top, folder, "4.2.note"), string(sign(t, "4.2", 3, 'a'))+"\n"+string(sign(t, "4.2", 5, 'a')), 0o644)
	w.svn(t, "update", "--quiet", "--non-interactive", "trysail")
	var e *CopyError
	if _, err := Commit(t.Context(), w.top, "4.2", sign(t, "4.2", 7, 'a')); !errors.As(err, &e) || e.Hint() == "" {
		t.Error(err)
	}
}
