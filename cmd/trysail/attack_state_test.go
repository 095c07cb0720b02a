package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trysail/release"
)

// TestAttackFleetFiles: a user of the machines on which control and an agent run
// knows the names of all their files, and gets at none: ledger, tokens, keys,
// secrets, logs, originals and unreleased gold. An older version and a lax
// administrator made the directories for all to read.
func TestAttackFleetFiles(t *testing.T) {
	w := prepareWorld(t, "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Build\n\n```sh {\"name\":\"make\",\"timeout\":\"5m\",\"out\":\"gold.txt\",\"secrets\":\"UPLOAD_TOKEN\"}\n"+
		"echo unreleased > gold.txt; echo said\n```\n\n```sh {\"name\":\"gold\",\"in\":\"gold.txt\",\"timeout\":\"5m\",\"out\":\"gold.gz\",\"gold\":\"true\"}\ngzip -nk gold.txt\n```\n")
	for _, dir := range []string{filepath.Dir(w.dir), w.dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"control/control", "control/depot", "a/agent", "a/depot"} {
		w.write(dir+"/.keep", "")
	}
	w.startControl()
	w.agent("a", 11, "--plain")
	w.begin()
	w.until("the step is complete", func() bool { return w.item("make").Status == release.Complete })
	for _, state := range []string{"control", "a"} {
		var names strings.Builder
		n := 0
		err := filepath.WalkDir(filepath.Join(w.dir, state), func(p string, _ os.DirEntry, err error) error {
			n++
			names.WriteString(p + "\x00")
			return err
		})
		if err != nil || n < 10 {
			t.Fatalf("%s has %d files: %v", state, n, err)
		}
		nobody := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "find", "-files0-from", "-", "-maxdepth", "0", "(", "-readable", "-o", "-writable", "-o", "-executable", ")")
		nobody.Stdin, nobody.Dir = strings.NewReader(names.String()), "/"
		if out, _ := nobody.Output(); len(out) > 0 { // it fails at what it cannot reach, as it should
			t.Errorf("nobody gets at\n%s", out)
		}
	}
	nobody := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", w.dir)
	nobody.Dir = "/"
	if out, err := nobody.CombinedOutput(); err != nil || !strings.Contains(string(out), "control") {
		t.Errorf("nobody cannot get as far as the state, so this test shows nothing: %v %s", err, out)
	}
}
