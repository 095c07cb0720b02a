package vcs_test

import (
	"bytes"
	"crypto/sha1"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// marks gives the stranger's programs a place to write who they are.
func (w *world) marks() {
	w.t.Helper()
	w.must(os.Mkdir(w.path("marks"), 0o777))
	w.must(os.Chmod(w.path("marks"), 0o777|os.ModeSticky))
	// A program that notes who runs it, and passes on what it reads.
	w.must(os.WriteFile(w.path("note"), []byte("#!/bin/sh\nid -u >>"+w.path("marks")+"/$1\ncat\n"), 0o755))
}

// ran tells as whom the stranger's programs ran.
func (w *world) ran() map[string]string {
	w.t.Helper()
	list, err := os.ReadDir(w.path("marks"))
	w.must(err)
	who := map[string]string{}
	for _, e := range list {
		data, err := os.ReadFile(w.path("marks/" + e.Name()))
		w.must(err)
		who[e.Name()] = strings.Join(strings.Fields(string(data)), " ")
	}
	return who
}

// onlyAsOwner fails where one of the stranger's programs ran as anybody else, or ran
// although it is none of those given.
func (w *world) onlyAsOwner(may ...string) {
	w.t.Helper()
	for name, who := range w.ran() {
		for id := range strings.FieldsSeq(who) {
			if id != "4242" {
				w.t.Errorf("%s of the stranger ran as user %s", name, id)
			}
		}
		if !strings.Contains(" "+strings.Join(may, " ")+" ", " "+name+" ") {
			w.t.Errorf("%s of the stranger ran", name)
		}
	}
}

// rename gives an entry of an index a name of the same length, which git refuses to do.
func (w *world) rename(index, from, to string) {
	w.t.Helper()
	data, err := os.ReadFile(index)
	w.must(err)
	n := len(data) - sha1.Size
	data = bytes.ReplaceAll(data[:n], []byte(from), []byte(to))
	sum := sha1.Sum(data)
	w.must(os.WriteFile(index, append(data, sum[:]...), 0o644))
}

// The stranger edits the index by hand, so that a submodule is called .git, and it has a
// submodule called hooks. Who goes by these names replaces the hooks of the checkout with the
// stranger's, and the next command of git runs one.
func TestAttackASubmoduleCalledDotGit(t *testing.T) {
	w := newWorld(t)
	w.marks()
	w.sh(`git init -q -b main app; cd app; echo one > file; git add file
		rm -rf .git/hooks; git init -q -b main .git/hooks
		printf '#!/bin/sh\n'"$TOP"'/note hook </dev/null\n' > .git/hooks/post-index-change; chmod +x .git/hooks/post-index-change
		git -C .git/hooks add .; git -C .git/hooks commit -qm hooks; hooks=$(git -C .git/hooks rev-parse HEAD)
		printf '[submodule "x"]\n\tpath = .git\n\turl = ../x\n[submodule "hooks"]\n\tpath = hooks\n\turl = ../hooks\n' > .gitmodules; git add .gitmodules
		git update-index --add --cacheinfo 160000,$hooks,hooks; git commit -qm one
		git update-index --add --cacheinfo 160000,$hooks,xgit
		git init -q -b main ../inner; cp .gitmodules ../inner; git -C ../inner add .
		git -C ../inner update-index --add --cacheinfo 160000,$hooks,hooks; git -C ../inner commit -qm inner
		mv ../inner/.git ../inner.git; cp .gitmodules .git; echo "gitdir: $PWD/../inner.git" > .git/.git; mkdir -p hooks; rm -f $TOP/marks/*`)
	w.rename(w.path("home/app/.git/index"), "xgit", ".git")
	if out := w.sh(`cd app; git submodule --quiet foreach --recursive 'echo "$displaypath"'`); !strings.Contains(out, ".git/hooks") {
		t.Fatalf("git itself no longer names it: %s", out)
	}
	w.sh(`rm -f $TOP/marks/*`)
	_, _, err := w.archive(w.path("home/app"))
	t.Log(hint(err))
	w.onlyAsOwner()
}

// The settings of the stranger's copy name programs for everything that git can run.
func TestAttackSettingsOfTheCopyNamePrograms(t *testing.T) {
	w := newWorld(t)
	w.marks()
	w.sh(`git init -q -b main app; cd app
		echo '* filter=mine diff=mine' > .gitattributes; echo one > file; git add .; git commit -qm one
		for h in post-checkout post-index-change reference-transaction pre-auto-gc post-merge fsmonitor-watchman; do
			printf '#!/bin/sh\n'"$TOP"'/note hook-'$h' </dev/null\n' > .git/hooks/$h; chmod +x .git/hooks/$h; done
		git config core.hooksPath "$PWD/.git/hooks"
		git config core.fsmonitor "$TOP/note fsmonitor"
		git config core.pager "$TOP/note pager"; git config pager.log true; git config pager.status true; git config pager.show true
		git config core.editor "$TOP/note editor"; git config core.sshCommand "$TOP/note ssh"; git config core.askPass "$TOP/note askpass"
		git config core.alternateRefsCommand "$TOP/note alternates"; git config credential.helper "!$TOP/note credential"
		git config diff.external "$TOP/note diff"; git config diff.mine.textconv "$TOP/note textconv"; git config diff.mine.command "$TOP/note diffmine"
		git config uploadpack.packObjectsHook "$TOP/note packobjects"; git config log.showSignature true; git config gpg.program "$TOP/note gpg"
		git config alias.status "!$TOP/note alias"; git config filter.mine.clean "$TOP/note clean"; git config filter.mine.smudge "$TOP/note smudge"
		git remote add origin "ext::$TOP/note ext"; git config remote.origin.promisor true; git config extensions.partialClone origin; git config core.repositoryFormatVersion 1
		git config submodule.recurse true; git config trace2.normalTarget "$PWD/trace"
		sleep 1; touch file; rm -f "$TOP"/marks/*`)
	data, _, err := w.archive(w.path("home/app"))
	t.Log(hint(err), w.ran())
	w.onlyAsOwner("clean", "smudge")
	if err == nil && w.ran()["smudge"] == "" {
		t.Error("the owner's filter did not run")
	}
	for _, m := range read(t, bytes.NewReader(data)) {
		if strings.HasPrefix(m.head.Name, ".git/hooks") || m.head.Name == ".git/config" && strings.Contains(m.data, "fsmonitor") {
			t.Errorf("%s came through: %s", m.head.Name, m.data)
		}
	}
}

// A filter leaves a daemon behind, which waits for what root does next.
func TestAttackAFilterLeavesADaemon(t *testing.T) {
	w := newWorld(t)
	w.marks()
	w.sh(`git init -q -b main app; cd app; echo '* filter=mine' > .gitattributes; echo one > file; git add .; git commit -qm one
		printf '#!/bin/sh\nsetsid setsid sleep 424242 >/dev/null 2>&1 &\ncat\n' > ../filter; chmod +x ../filter
		git config filter.mine.smudge "$PWD/../filter"`)
	_, _, err := w.archive(w.path("home/app"))
	w.must(err)
	if out, err := exec.Command("pgrep", "-f", "sleep 424242").CombinedOutput(); err == nil {
		t.Errorf("it still runs: %s", out)
	}
}

// The stranger changes the settings of svn's programs, its database and its committed files.
func TestAttackSvnDatabaseIsChanged(t *testing.T) {
	w := newWorld(t)
	w.marks()
	w.sh(`svnadmin create repo; svn -q co file://$PWD/repo app; cd app; echo one > file; svn -q add file; svn -q ci -m one
		chmod -R u+w .svn; for f in .svn/pristine/*/*; do echo evil > $f; done; echo changed > file`)
	_, _, err := w.archive(w.path("home/app"))
	if err == nil || !strings.Contains(hint(err), "pristine") {
		t.Errorf("a changed committed file: %s", hint(err))
	}
	// A database that is none, and one that is a link to root's secret.
	w.must(os.WriteFile(w.path("secret"), []byte("secret of root\n"), 0o600))
	w.sh(`cd app; mv .svn/wc.db .svn/old; ln -s $TOP/secret .svn/wc.db`)
	if _, _, err = w.archive(w.path("home/app")); err == nil || strings.Contains(err.Error(), "secret of root") {
		t.Errorf("a link as database: %v", err)
	}
	w.sh(`cd app; rm .svn/wc.db; head -c 100000 /dev/urandom > .svn/wc.db`)
	if _, _, err = w.archive(w.path("home/app")); err == nil {
		t.Error("a random database is read")
	}
	w.sh(`cd app; rm .svn/wc.db; mkfifo .svn/wc.db`)
	if _, _, err = w.archive(w.path("home/app")); err == nil || !strings.Contains(err.Error(), "FIFO") {
		t.Errorf("a FIFO as database: %v", err)
	}
	w.onlyAsOwner()
}

// Files, links and repositories of the copy lead to what only root can read.
func TestAttackTheCopyLeadsToSecrets(t *testing.T) {
	w := newWorld(t)
	w.shAs(0, `mkdir -m 700 $TOP/vault; cd $TOP/vault; git init -q -b main repo; echo secret-of-root > repo/secret; git -C repo add .; git -C repo commit -qm secret
		svnadmin create svn; svn -q co file://$PWD/svn wc; echo secret-of-root > wc/secret; svn -q add wc/secret; svn -q ci -m secret wc`)
	plain := `git init -q -b main app; cd app; echo one > file; git add .; git commit -qm one; cd ..;`
	for name, script := range map[string]string{
		"gitdir":           `mkdir app; echo "gitdir: $TOP/vault/repo/.git" > app/.git`,
		"link as .git":     `mkdir app; ln -s $TOP/vault/repo/.git app/.git`,
		"link as objects":  plain + `rm -rf app/.git/objects; ln -s $TOP/vault/repo/.git/objects app/.git/objects`,
		"alternates":       plain + `echo $TOP/vault/repo/.git/objects > app/.git/objects/info/alternates; echo ` + "$SECRET" + ` > app/.git/refs/heads/main`,
		"core.worktree":    plain + `git -C app config core.worktree $TOP/vault/repo`,
		"commondir":        plain + `echo $TOP/vault/repo/.git > app/.git/commondir`,
		"include":          plain + `git -C app config include.path $TOP/vault/repo/.git/config`,
		"submodule link":   plain + `cd app; git update-index --add --cacheinfo 160000,` + "$SECRET" + `,sub; git commit -qm sub; ln -s $TOP/vault/repo sub`,
		"link above":       plain + `cd app; git update-index --add --cacheinfo 160000,` + "$SECRET" + `,sub/repo; git commit -qm sub; ln -s $TOP/vault sub`,
		"submodule's .git": plain + `cd app; git update-index --add --cacheinfo 160000,` + "$SECRET" + `,sub; git commit -qm sub; mkdir sub; echo "gitdir: $TOP/vault/repo/.git" > sub/.git`,
		"svn external":     `svnadmin create repo; svn -q co file://$PWD/repo app; cd app; svn -q propset svn:externals "file://$TOP/vault/svn ext" .; svn -q ci -m x; ln -s $TOP/vault/wc ext; svn -q up --ignore-externals`,
		"svn link":         `mkdir app; ln -s $TOP/vault/wc/.svn app/.svn`,
		"svn file link":    `svnadmin create repo; svn -q co file://$PWD/repo app; cd app; echo x > file; svn -q add file; svn -q ci -m x; rm file; ln -s $TOP/vault/wc/secret file`,
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.must(os.RemoveAll(w.path("home")))
			w.must(os.Mkdir(w.path("home"), 0o755))
			w.must(os.Chown(w.path("home"), stranger, stranger))
			commit := strings.TrimSpace(w.shAs(0, `git -C $TOP/vault/repo rev-parse HEAD`))
			w.sh(strings.ReplaceAll(script, "$SECRET", commit))
			data, _, err := w.archive(w.path("home/app"))
			t.Log(hint(err))
			if err != nil {
				return
			}
			for _, m := range read(t, bytes.NewReader(data)) {
				if strings.Contains(m.data, "secret-of-root") {
					t.Errorf("%s holds root's secret", m.head.Name)
				}
			}
		})
	}
}

// Several users can write the copy, or put another one in its place.
func TestAttackOthersCanWriteTheCopy(t *testing.T) {
	const other = 4243
	for name, c := range map[string]struct{ script, want string }{
		"group .git":       {`chmod g+w app/.git; chgrp 4243 app/.git`, "chmod -R go-w"},
		"open config":      {`chmod o+w app/.git/config`, "every user"},
		"open hooks":       {`chmod o+w app/.git/hooks`, "every user"},
		"group refs":       {`chgrp 4243 app/.git/refs/heads/main; chmod g+w app/.git/refs/heads/main`, "group 4243"},
		"open top":         {`chmod o+w app`, "every user"},
		"other's .git":     {`chown -R 4243 app/.git`, "belongs to user 4243"},
		"other's config":   {`chown 4243 app/.git/config`, "belongs to user 4243"},
		"other above":      {`chown 4243 .`, "who can replace it"},
		"open above":       {`chmod o+w .`, "every user"},
		"open and sticky":  {`chmod o+w,o+t .`, ""},
		"group of its own": {`chmod -R o-w app`, ""},
		"svn":              {`rm -rf app; svnadmin create r; svn -q co file://$PWD/r app; chown -R 4242:4242 app; chmod o+w app/.svn/wc.db`, "every user"},
		"linked tree":      {`git -c safe.directory='*' -C app worktree add -q $PWD/linked; mv app far; chmod o+w far/.git; chown -R 4242:4242 far linked; mv linked app; echo "gitdir: $PWD/far/.git/worktrees/linked" > app/.git`, "every user"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.sh(`git init -q -b main app; cd app; echo one > file; git add .; git commit -qm one`)
			w.shAs(0, c.script)
			_, _, err := w.archive(w.path("home/app"))
			if c.want == "" && err != nil || c.want != "" && !strings.Contains(hint(err), c.want) {
				t.Errorf("%s", hint(err))
			}
		})
	}
	// Root's own copy, in which another user can plant a hook.
	w := newWorld(t)
	w.marks()
	w.must(os.Chown(w.path("home"), 0, 0))
	w.shAs(0, `git init -q -b main app; cd app; echo one > file; git add .; git commit -qm one; chgrp -R 4243 .git; chmod -R g+w .git`)
	w.shAs(other, `git -C app -c safe.directory='*' config core.fsmonitor "$TOP/note monitor"`)
	if _, _, err := w.archive(w.path("home/app")); err == nil || !strings.Contains(hint(err), "group 4243") {
		t.Errorf("%s", hint(err))
	}
	w.onlyAsOwner()
}

// The caller's environment leads git to another repository, as in a hook.
func TestAttackTheEnvironmentLeadsToAnotherRepository(t *testing.T) {
	w := newWorld(t)
	w.marks()
	w.sh(`git init -q -b main app; cd app; echo one > file; git add .; git commit -qm one`)
	w.shAs(0, `git init -q -b main $TOP/other; cd $TOP/other; echo two > file; git add .; git commit -qm two`)
	before, err := os.ReadFile(w.path("other/.git/config"))
	w.must(err)
	for k, v := range map[string]string{
		"GIT_DIR": w.path("other/.git"), "GIT_WORK_TREE": w.path("other"), "GIT_INDEX_FILE": w.path("other/.git/index"), "GIT_CONFIG_GLOBAL": w.path("evil"), "GIT_EXTERNAL_DIFF": w.path("note") + " diff",
		"GIT_CONFIG_PARAMETERS": "'core.fsmonitor'='" + w.path("note") + " monitor'", "GIT_EXEC_PATH": w.top, "GIT_OBJECT_DIRECTORY": w.path("other/.git/objects"), "GIT_SSH": w.path("note"), "SVN_EDITOR": w.path("note"), "GIT_TRACE": w.path("marks/trace"),
		"PATH": w.path("bin") + ":" + os.Getenv("PATH"),
	} {
		t.Setenv(k, v)
	}
	w.must(os.Mkdir(w.path("bin"), 0o777))
	w.must(os.WriteFile(w.path("bin/git"), []byte("#!/bin/sh\nid -u >>"+w.path("marks")+"/path\n"), 0o755))
	if files := w.files(w.path("home/app")); files["file"] != "one\n" {
		t.Errorf("%q", files)
	}
	after, err := os.ReadFile(w.path("other/.git/config"))
	w.must(err)
	if !bytes.Equal(before, after) {
		t.Errorf("the other repository was changed: %s", after)
	}
	w.onlyAsOwner()
}

// A copy of root with programs in its settings: none of them runs either.
func TestRootsOwnCopyRunsNothing(t *testing.T) {
	w := newWorld(t)
	w.marks()
	w.must(os.Chown(w.path("home"), 0, 0))
	w.shAs(0, `git init -q -b main app; cd app; echo one > file; git add .; git commit -qm one
		printf '#!/bin/sh\n'"$TOP"'/note hook </dev/null\n' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout
		git config core.fsmonitor "$TOP/note fsmonitor"; rm -f "$TOP"/marks/*`)
	if files := w.files(w.path("home/app")); files["file"] != "one\n" {
		t.Errorf("%q", files)
	}
	w.onlyAsOwner()
	if info, err := os.Lstat(filepath.Join(w.path("home/app/.git/index"))); err != nil || info.Mode()&0o022 != 0 {
		t.Error(err, info.Mode())
	}
}

// The copy changes all the time while it is read: what comes is a revision or an error.
func TestAttackTheCopyChangesWhileItIsRead(t *testing.T) {
	w := newWorld(t)
	w.sh(`git init -q -b main app; cd app; mkdir dir; for i in 1 2 3 4 5; do echo committed > dir/$i; done; git add .; git commit -qm one`)
	stop := w.path("stop")
	cmd := exec.Command("sh", "-c", `cd `+w.path("home/app")+`; while [ ! -e `+stop+` ]; do
		echo changed > dir/1; rm -rf dir/2; ln -s /etc dir/2; rm dir/3; mkfifo dir/3; mv dir other; ln -s /etc dir; rm dir; mv other dir; rm -rf dir/2 dir/3; done`)
	w.must(cmd.Start())
	for range 5 {
		data, _, err := w.archive(w.path("home/app"))
		if err != nil {
			continue
		}
		for _, m := range read(t, bytes.NewReader(data)) {
			if strings.HasPrefix(m.head.Name, "dir/") && m.head.Name != "dir/" && m.data != "committed\n" {
				t.Errorf("%s is %q", m.head.Name, m.data)
			}
		}
	}
	w.must(os.WriteFile(stop, nil, 0o644))
	_ = cmd.Wait() // its last commands may have failed
}

// Root shares a copy with the stranger by an access list, which a mode shows as the rights
// of root's group. The stranger names a filter in its settings, and root makes a checkout.
func TestAttackAnAccessListOfRootsCopy(t *testing.T) {
	w := newWorld(t)
	w.marks()
	w.shAs(0, `git init -q -b main $TOP/shared; cd $TOP/shared; echo '* filter=x' > .gitattributes; echo one > file; git add .; git commit -qm one; chmod 640 .git/config`)
	// acl(5) as the kernel keeps it: owner rw, user 4242 rw, group r, mask rw, others r.
	list := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, stranger & 255, stranger >> 8, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	w.must(unix.Setxattr(w.path("shared/.git/config"), "system.posix_acl_access", list, 0))
	w.sh(`printf '[filter "x"]\n\tsmudge = %s/note smudge\n\tclean = cat\n' $TOP >> $TOP/shared/.git/config`)
	_, _, err := w.archive(w.path("shared"))
	if err == nil || !strings.Contains(err.Error(), "access list") {
		t.Errorf("root takes the copy: %v", err)
	}
	w.onlyAsOwner()
}
