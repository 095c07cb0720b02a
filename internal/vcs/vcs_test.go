package vcs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"trysail/internal/account"
	"trysail/internal/vcs"
)

const stranger = 4242

// TestMain is a caller that is not root, too.
func TestMain(m *testing.M) {
	if os.Args[0] == "trysail-test-caller" {
		c, err := vcs.Find(context.Background(), os.Args[1])
		if err == nil {
			err = c.Archive(context.Background(), os.Args[2], 1, 1, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, hint(err))
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// world is a machine on which a stranger has a working copy.
type world struct {
	t   *testing.T
	top string // root's, open to all
	uid int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	// Not below the test's own directory, which is closed to strangers.
	top, err := os.MkdirTemp("/var/tmp", "vcs-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	w := &world{t, top, stranger}
	w.must(os.Chmod(top, 0o755))
	w.must(os.Mkdir(w.path("home"), 0o755))
	w.must(os.Chown(w.path("home"), stranger, stranger))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(p string) string { return filepath.Join(w.top, p) }

// sh runs a shell script as the stranger, in the stranger's directory.
func (w *world) sh(script string) string {
	w.t.Helper()
	return w.shAs(w.uid, script)
}

func (w *world) shAs(uid int, script string) string {
	w.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = w.path("home")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.path("home"), "TOP=" + w.top, "LC_ALL=C.UTF-8",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ALLOW_PROTOCOL=file:ext",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s\n%v: %s", script, err, out)
	}
	return string(out)
}

// member is a file of an archive.
type member struct {
	head *tar.Header
	data string
}

func read(t *testing.T, r io.Reader) (list []member) {
	t.Helper()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, member{h, string(data)})
	}
}

// archive is what capture and release start do with a working copy.
func (w *world) archive(dir string) ([]byte, *vcs.Copy, error) {
	c, err := vcs.Find(context.Background(), dir)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	err = c.Archive(context.Background(), w.t.TempDir(), 77, 78, &b)
	return b.Bytes(), c, err
}

func (w *world) files(dir string) map[string]string {
	w.t.Helper()
	data, _, err := w.archive(dir)
	w.must(err)
	files := map[string]string{}
	for _, m := range read(w.t, bytes.NewReader(data)) {
		files[m.head.Name] = m.data
		if m.head.Typeflag == tar.TypeSymlink {
			files[m.head.Name] = "-> " + m.head.Linkname
		}
		if m.head.Uid != 77 || m.head.Gid != 78 {
			w.t.Errorf("%s belongs to %d:%d", m.head.Name, m.head.Uid, m.head.Gid)
		}
	}
	return files
}

// lay unpacks an archive as root's, to ask git about it.
func (w *world) lay(data []byte) string {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.top, "laid-")
	w.must(err)
	cmd := exec.Command("tar", "-x", "--no-same-owner", "-C", dir)
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// hint is the error with its remedy.
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return err.Error() + " → " + h.Hint()
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestGitCheckoutIsTheCommittedRevision(t *testing.T) {
	w := newWorld(t)
	w.sh(`git init -q -b main app; cd app
		echo one > file; mkdir sub; echo '#!/bin/sh' > sub/run; chmod +x sub/run; ln -s /etc/passwd link
		git add .; git commit -qm one; git tag v1; git remote add origin https://user:secret@example.com/app
		echo changed > file; touch "left
over"; mkfifo pipe; echo x > "sub/odd name"`)
	data, c, err := w.archive(w.path("home/app/sub"))
	w.must(err)
	if c.Directory != "sub" || c.Source.VCS != "git" || c.Source.URL != "https://user@example.com/app" || c.Author != "a@example.com" || !slices.Equal(c.Changed, []string{"file"}) {
		t.Errorf("%+v", c)
	}
	files := w.files(w.path("home/app"))
	if files["file"] != "one\n" || files["link"] != "-> /etc/passwd" || files["sub/run"] == "" {
		t.Errorf("%q", files)
	}
	for _, name := range []string{"pipe", "left\nover", "sub/odd name"} {
		if _, ok := files[name]; ok {
			t.Errorf("%s is there", name)
		}
	}
	dir := w.lay(data)
	out, err := exec.Command("git", "-C", dir, "-c", "safe.directory=*", "describe", "--dirty", "--tags").CombinedOutput()
	if string(out) != "v1\n" {
		t.Errorf("git describe: %v: %s", err, out)
	}
	if out, err := exec.Command("git", "-C", dir, "-c", "safe.directory=*", "diff-index", "--quiet", "HEAD").CombinedOutput(); err != nil {
		t.Errorf("git sees changes: %v: %s", err, out)
	}
	again, _, err := w.archive(w.path("home/app"))
	w.must(err)
	same(t, data, again)
}

func same(t *testing.T, a, b []byte) {
	t.Helper()
	if bytes.Equal(a, b) {
		return
	}
	t.Errorf("the same revision gives %d bytes, then %d", len(a), len(b))
	other := read(t, bytes.NewReader(b))
	for i, m := range read(t, bytes.NewReader(a)) {
		if other[i].data != m.data || other[i].head.Name != m.head.Name {
			t.Errorf("%s differs", m.head.Name)
			for j := range m.data {
				if m.data[j] != other[i].data[j] {
					t.Errorf("first at %d: %q %q", j, m.data[max(0, j-60):j+20], other[i].data[max(0, j-60):j+20])
					break
				}
			}
		}
	}
}

func TestSvnCheckoutIsTheCommittedRevision(t *testing.T) {
	w := newWorld(t)
	w.sh(`svnadmin create repo; svn -q mkdir -m x file://$PWD/repo/lib file://$PWD/repo/app
		svn -q co file://$PWD/repo/lib lib; echo "lib 1" > lib/lib.h; svn -q add lib/lib.h; svn -q ci -m first lib
		svn -q co file://$PWD/repo/app app; cd app; echo one > file; ln -s file link; svn -q add file link; svn -q ci -m one
		svn -q up; svn -q propset svn:externals "file://$PWD/../repo/lib lib" .; svn -q ci -m ext; svn -q up
		echo changed > file; echo hacked > lib/lib.h; touch lib/left-over left-over; mkfifo pipe; echo new > new; svn -q add new`)
	data, c, err := w.archive(w.path("home/app"))
	w.must(err)
	if c.Source.VCS != "svn" || c.Source.Revision != "4" || !slices.Equal(c.Changed, []string{"file", "new", "lib/lib.h"}) {
		t.Errorf("%+v", c)
	}
	files := w.files(w.path("home/app"))
	if files["file"] != "one\n" || files["lib/lib.h"] != "lib 1\n" || files["link"] != "-> file" {
		t.Errorf("%q", files["lib/lib.h"])
	}
	for _, name := range []string{"pipe", "left-over", "lib/left-over", "new"} {
		if _, ok := files[name]; ok {
			t.Errorf("%s is there", name)
		}
	}
	dir := w.lay(data)
	if out, err := exec.Command("svn", "status", dir).CombinedOutput(); err != nil || strings.Contains(string(out), "M ") {
		t.Errorf("%v: %s", err, out)
	}
	// What svn restores leaves traces in unused bytes of its database, so: of a clean copy.
	w.sh(`cd app; svn -q revert -R --remove-added . lib; svn -q cleanup --remove-unversioned . lib`)
	data, _, err = w.archive(w.path("home/app"))
	w.must(err)
	again, _, err := w.archive(w.path("home/app"))
	w.must(err)
	same(t, data, again)
}

// What git takes for unchanged is compared all the same, and named.
func TestGitNamesWhatTheCheckoutDiffersIn(t *testing.T) {
	w := newWorld(t)
	w.sh(`git init -q -b main app; cd app
		for i in assumed skipped kept ended marked; do echo $i > $i; done; ln -s kept link; git add .; git commit -qm one
		git update-index --assume-unchanged assumed; git update-index --skip-worktree skipped
		echo changed > assumed; rm skipped; printf 'ended\r\n' > ended; chmod +x marked
		git config core.autocrlf input; git config core.fileMode false; git add --renormalize ended; git status >&2`)
	_, c, err := w.archive(w.path("home/app"))
	w.must(err)
	slices.Sort(c.Changed)
	if !slices.Equal(c.Changed, []string{"assumed", "ended", "marked", "skipped"}) {
		t.Errorf("%q differ", c.Changed)
	}
	w.sh(`git init -q -b main many; cd many; mkdir "$(printf %0200d 1)"; cd 0*; for i in $(seq 400); do : > $i; done; git add .; git commit -qm one; rm *; for i in $(seq 400); do git update-index --skip-worktree $i; done`)
	_, c, err = w.archive(w.path("home/many"))
	w.must(err)
	if len(c.Changed) == 0 || len(c.Changed)+c.More != 400 {
		t.Errorf("%d and %d more differ, not 400", len(c.Changed), c.More)
	}
}

// Git takes its settings from more places than the repository's own file.
func TestGitSettingsOfThePlaceDecideTheContent(t *testing.T) {
	w := newWorld(t)
	w.sh(`git init -q -b main app; cd app; printf 'one\n' > one.txt; printf 'two\n' > two.bin; git add .; git commit -qm one
		git remote add up https://user:secret@example.com/up; git update-ref refs/remotes/up/main HEAD; git symbolic-ref refs/remotes/up/HEAD refs/remotes/up/main
		git branch -q --set-upstream-to=up/main
		git worktree add -q ../linked; cd ../linked; git config extensions.worktreeConfig true; git config --worktree core.autocrlf true; rm one.txt; git checkout -q one.txt`)
	_, c, err := w.archive(w.path("home/linked"))
	w.must(err)
	if files := w.files(w.path("home/linked")); files["one.txt"] != "one\r\n" {
		t.Errorf("core.autocrlf of the working tree: %q", files["one.txt"])
	}
	if !slices.Equal(c.Changed, []string{"two.bin"}) { // it was checked out before the setting
		t.Errorf("%q differ", c.Changed)
	}
	data, _, err := w.archive(w.path("home/app"))
	w.must(err)
	dir := w.lay(data)
	out, err := exec.Command("git", "-c", "safe.directory=*", "-C", dir, "rev-parse", "--symbolic-full-name", "@{upstream}", "up/HEAD").CombinedOutput()
	if string(out) != "refs/remotes/up/main\nrefs/remotes/up/main\n" {
		t.Errorf("the upstream: %v: %s", err, out)
	}
	if text, err := os.ReadFile(filepath.Join(dir, ".git", "config")); err != nil || strings.Contains(string(text), "secret") || !strings.Contains(string(text), "https://user@example.com/up") {
		t.Errorf("%v: %s", err, text)
	}
}

// Subversion takes a file for unchanged whatever its rights and the words in its keywords.
func TestSvnCheckoutIsMadeOfCommittedFilesAlone(t *testing.T) {
	w := newWorld(t)
	w.sh(`svnadmin create repo; svn -q mkdir -m x file://$PWD/repo/trunk file://$PWD/repo/other; svn -q co file://$PWD/repo/trunk app; cd app
		echo '$Revision$' > keyword; echo 'echo run' > plain; printf '#!/bin/sh\n' > program; echo listed > listed; mkdir sub "a dir@"; echo odd > "a dir@/odd@2"
		svn -q add keyword plain program listed sub "a dir@@"; svn -q propset svn:keywords Revision keyword; svn -q propset svn:executable on program; svn -q ci -m one; svn -q up
		echo '$Revision: 4711 $' > keyword; chmod +x plain; chmod -x program; svn -q changelist mine listed; echo changed > listed; rm -r "a dir@"`)
	data, c, err := w.archive(w.path("home/app"))
	w.must(err)
	slices.Sort(c.Changed)
	if !slices.Equal(slices.DeleteFunc(slices.Clone(c.Changed), func(s string) bool { return s == "a dir@" }), []string{"a dir@/odd@2", "keyword", "listed", "plain", "program"}) {
		t.Errorf("%q differ", c.Changed)
	}
	for _, m := range read(t, bytes.NewReader(data)) {
		switch executable := m.head.Mode&0o100 != 0; m.head.Name {
		case "keyword":
			if m.data != "$Revision: 2 $\n" {
				t.Errorf("%q", m.data)
			}
		case "listed":
			if m.data != "listed\n" {
				t.Errorf("%q", m.data)
			}
		case "plain", "program":
			if executable != (m.head.Name == "program") {
				t.Errorf("%s has mode %#o", m.head.Name, m.head.Mode)
			}
		}
	}
	if c.Mixture != "" || w.files(w.path("home/app"))["a dir@/odd@2"] != "odd\n" {
		t.Errorf("%q: the directory that was removed is not there", c.Mixture)
	}
	// A copy that no revision is like.
	for _, x := range []struct{ does, want string }{
		{"echo more >> plain; svn -q ci -m two plain", "2:3"},
		{"svn -q up; svn -q switch --ignore-ancestry ^/other sub", "3S"},
		{"svn -q switch --ignore-ancestry ^/trunk/sub sub; svn -q up --set-depth exclude sub", "3P"},
	} {
		w.sh("cd app; svn -q revert -R .; " + x.does)
		if _, c, err = w.archive(w.path("home/app")); err != nil || c.Mixture != x.want {
			t.Errorf("%s: %q, not %q: %v", x.does, c.Mixture, x.want, err)
		}
	}
}

func TestGitSubmodulesComeFromTheCopy(t *testing.T) {
	w := newWorld(t)
	w.sh(`for i in inner outer; do git init -q -b main $i; echo $i > $i/$i; git -C $i add .; git -C $i commit -qm $i; done
		cd outer; git -c protocol.file.allow=always submodule --quiet add ../inner "a sub/in	tab"; git commit -qm sub; cd ..
		git -c protocol.file.allow=always clone -q --recurse-submodules outer app
		cd app; git -C "a sub/in	tab" fetch -q; echo more > "a sub/in	tab/more"`)
	data, _, err := w.archive(w.path("home/app"))
	w.must(err)
	files := w.files(w.path("home/app"))
	if files["a sub/in\ttab/inner"] != "inner\n" || files["a sub/in\ttab/more"] != "" {
		t.Errorf("%q", files)
	}
	dir := w.lay(data)
	out, err := exec.Command("git", "-c", "safe.directory=*", "-C", dir, "status", "--porcelain").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWithoutRootTheCopyIsTheCallers(t *testing.T) {
	w := newWorld(t)
	w.sh(`git init -q -b main app; cd app; echo one > file; git add .; git commit -qm one; mkdir ../scratch`)
	a, err := account.Lookup(stranger)
	w.must(err)
	out, err := a.Self(context.Background(), account.Options{}, "trysail-test-caller", w.path("home/app"), w.path("home/scratch")).Output()
	w.must(err)
	found := false
	for _, m := range read(t, bytes.NewReader(out)) {
		found = found || m.head.Name == "file" && m.data == "one\n"
	}
	if !found {
		t.Errorf("%d bytes without the file", len(out))
	}
	w.must(os.Chmod(w.path("home"), 0o755))
	w.shAs(0, `git init -q -b main roots; cd roots; echo one > file; git add .; git commit -qm one; chown 4242 $TOP`)
	cmd := a.Self(context.Background(), account.Options{}, "trysail-test-caller", w.path("home/roots"), w.path("home/scratch"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "belongs to user 0") {
		t.Errorf("%v: %s", err, said.String())
	}
}

func TestNoCopy(t *testing.T) {
	var none *vcs.NoCopyError
	if _, err := vcs.Find(context.Background(), "/proc"); !errors.As(err, &none) {
		t.Error(err)
	}
	if _, err := vcs.FindRoot("/no/such"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
