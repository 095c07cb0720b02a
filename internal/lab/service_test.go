package lab

import (
	"os/exec"
	"path/filepath"
	"testing"

	"trysail/drill"
)

// TestIdleServiceHangs: a service that nobody asks for anything is not taken for one that
// hangs.
func TestIdleServiceHangs(t *testing.T) {
	from := filepath.Join(t.TempDir(), "release")
	out, err := exec.Command("sh", "-euc", "git init -q "+from+"; git -C "+from+" -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m x").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h, err := newLab(t).Service(t.Context(), drill.Service{Name: "vcs", Kind: drill.Git}, from)
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.Prepare("machine-hung", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Probe(t.Context()); err == nil {
		t.Error("its probe says yes before it was injected")
	}
	if err := f.Inject(); err != nil {
		t.Fatal(err)
	}
	if err := f.Probe(t.Context()); err != nil {
		t.Errorf("it does not bite: %v", err)
	}
	if err := f.Undo(); err != nil {
		t.Fatal(err)
	}
	if err := f.Probe(t.Context()); err == nil {
		t.Error("it bites after it was undone")
	}
}
