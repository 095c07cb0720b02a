package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A stranger's working copy names programs in each place where git looks for them, and
// a person captures it, and starts a release from it, as root.
func TestAttackWorkingCopyOfAStranger(t *testing.T) {
	if ok, err := condition("root"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs root")
	}
	trysail := filepath.Join(buildBinary(t), "trysail")
	top, err := os.MkdirTemp("/var/tmp", "attack-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountBelow(t, top); os.RemoveAll(top) })
	marks := filepath.Join(top, "marks")
	for dir, mode := range map[string]os.FileMode{top: 0o755, marks: 0o777 | os.ModeSticky, filepath.Join(top, "home"): 0o755} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(top, "home")
	if err := os.Chown(home, 4242, 4242); err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(home, "app")
	note := func(name string) string { return "sh -c 'id -u >>" + marks + "/" + name + "; cat' #" }
	script := `git init -q -b main app; cd app
		printf -- '---\nship: 2030-01-01T09:00:00Z\nbudget: 1 person-hours\nroles:\n  build: {plain: true}\npeople:\n  ann: {name: Ann}\napprovers: [ann]\n---\n# Release\n\n## Build\n\n` + "```sh {\"name\":\"gold\",\"timeout\":\"1m\",\"budget\":\"1m\",\"out\":\"dist/x\",\"gold\":\"true\"}\\nmake\\n```" + `\n' > RELEASE.md
		echo one > file; echo '* filter=mine' > .gitattributes; git add .
		git -c user.name=a -c user.email=a@example.com commit -qm one
		git config core.fsmonitor "$FSMONITOR"; git config core.hooksPath "$PWD/.git/hooks"; git config filter.mine.smudge "$FILTER"; git config filter.mine.clean "$FILTER"
		for h in post-checkout post-index-change reference-transaction; do printf '#!/bin/sh\nid -u >>'$MARKS'/hook\n' > .git/hooks/$h; chmod +x .git/hooks/$h; done`
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "MARKS=" + marks, "FSMONITOR=" + note("fsmonitor"), "FILTER=" + note("filter")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 4242}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{
		{"capture", "--yes", "--user", "root", "--output", "dist/*", "--", "false"},
		{"release", "start", "1.0", "--yes", "--control", "trysail://127.0.0.1:1/" + strings.Repeat("a", 64) + "/" + strings.Repeat("a", 48)},
	} {
		cmd := exec.Command(trysail, append([]string{"--state", filepath.Join(top, "state")}, args...)...)
		cmd.Dir = app
		cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=", "TRYSAIL_CONTROL=", "NO_COLOR=1", "GIT_DIR="+app+"/.git")
		out, err := cmd.CombinedOutput()
		t.Logf("%v: %v\n%s", args, err, out)
		list, err := os.ReadDir(marks)
		if err != nil {
			t.Fatal(err)
		}
		filter := false
		for _, m := range list {
			data, err := os.ReadFile(filepath.Join(marks, m.Name()))
			if err != nil {
				t.Fatal(err)
			}
			for id := range strings.FieldsSeq(string(data)) {
				if id != "4242" {
					t.Errorf("%s: %s of the stranger ran as user %s", args[0], m.Name(), id)
				}
			}
			if m.Name() != "filter" {
				t.Errorf("%s: %s of the stranger ran", args[0], m.Name())
			}
			filter = filter || m.Name() == "filter"
			if err := os.Remove(filepath.Join(marks, m.Name())); err != nil {
				t.Fatal(err)
			}
		}
		if !filter {
			t.Errorf("%s: the owner's filter did not run:\n%s", args[0], out)
		}
	}
	// Nothing of root is in the stranger's copy.
	err = filepath.WalkDir(app, func(p string, _ os.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Lstat(p, &st)
		}
		if st.Uid != 4242 {
			t.Errorf("%s belongs to user %d", p, st.Uid)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
