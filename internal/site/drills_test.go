//go:build drills

package site

// What takes long is there with the tag drills only, as make drills has it: a test that
// does not run must not say that it passed.

import (
	"os"
	"os/exec"
	"testing"

	"trysail/drill"
)

// Every scenario of the library, as in a lab: the machines, three controls where it has
// them, and services, each on a host of its own.
func TestDrillLibraryOverSSH(t *testing.T) {
	y := newYard(t, "control", "control2", "control3", "primary", "backup", "spare", "second", "mirror", "images", "vcs")
	y.mark()
	y.scenarios("plain")
	y.scenarios("services")
}

// Both build servers are lost, and others are made, on hosts over SSH. It takes
// two minutes.
func TestDrillBlankOverSSH(t *testing.T) {
	y := newYard(t, "control", "primary", "backup", "blank", "second")
	y.app = t.TempDir()
	if err := os.CopyFS(y.app, os.DirFS("../../cmd/trysail/testdata/blank")); err != nil {
		t.Fatal(err)
	}
	signers := "ssh-keygen -q -t ed25519 -N '' -f ../ann; mkdir -p trysail; echo \"ann $(cat ../ann.pub)\" >trysail/allowed_signers; rm ../ann ../ann.pub\n"
	commit := "git add -A; git -c user.name=t -c user.email=t@example.org commit -qm x\n"
	cmd := exec.Command("sh", "-euc", "chmod 755 release.sh; git init -q\n"+signers+commit+y.bin+" --state "+y.state+" capture --yes --output 'dist/*' -- ./release.sh\n"+commit)
	cmd.Dir = y.app
	cmd.Env = append(os.Environ(), "TRYSAIL_DEPOT=", "TRYSAIL_STATE=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	y.mark()
	if v := y.over(y.all(), "drill.yaml"); v.Value != drill.Pass {
		t.Errorf("%s\nsystem: %v\nharness: %v\nclean-up: %v", v.Sentence, v.System, v.Harness, v.Cleanup)
	}
}
