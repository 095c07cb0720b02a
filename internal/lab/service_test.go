package lab

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"trysail/drill"
	"trysail/internal/vcs"
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
		t.Errorf("it has no effect: %v", err)
	}
	if err := f.Undo(); err != nil {
		t.Fatal(err)
	}
	if err := f.Probe(t.Context()); err == nil {
		t.Error("it bites after it was undone")
	}
}

// TestGitHostIsNobodys: what a git host has is another's, and no git of root reads it.
func TestGitHostIsNobodys(t *testing.T) {
	// The owner's hooks and monitors name programs.
	from, err := os.MkdirTemp("/var/tmp", "lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(from) })
	out, err := exec.Command("sh", "-euc", "cd "+from+`; git init -q; echo one > file; git add file; git -c user.name=t -c user.email=t@example.org commit -q -m x
		git config core.fsmonitor "id -u >>$PWD/ran; false"; git config uploadpack.packObjectsHook "id -u >>$PWD/ran; false"; chown -R 4242:4242 .`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := newLab(t)
	h, err := l.Service(t.Context(), drill.Service{Name: "vcs", Kind: drill.Git}, from)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(from, "ran")); err == nil {
		t.Errorf("programs of the repository ran as %s", data)
	}
	clone := filepath.Join(l.Dir, "source")
	if err := h.Clone(t.Context(), clone); err != nil {
		t.Fatal(err)
	}
	c, err := vcs.Find(t.Context(), clone)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Archive(t.Context(), l.Dir, 0, 0, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{clone, h.bare()} {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if st := info.Sys().(*syscall.Stat_t); st.Uid != 65534 {
				t.Errorf("%s belongs to user %d", p, st.Uid)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	f, err := h.Prepare("history-rewritten", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Inject(); err != nil {
		t.Fatal(err)
	}
	if err := f.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAttackServicesOfAStrangersCopy: the owner of a working copy makes links to what only
// root may read, and FIFOs, in what a mirror and a registry of a drill are to give. Every
// step of the drill could read it there, or the drill would wait for ever.
func TestAttackServicesOfAStrangersCopy(t *testing.T) {
	l := newLab(t)
	copy, err := os.MkdirTemp("/var/tmp", "lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(copy) })
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of root alone"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-euc", "cd "+copy+"; mkdir -p file/r/t fifo/r/t; ln -s "+secret+" file/r/t/key; ln -s "+filepath.Dir(secret)+" directory; mkfifo fifo/r/t/wait; chown -hR 4242:4242 .").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, kind := range []drill.OfHosts{drill.Mirror, drill.Registry} {
		if _, err := exec.LookPath("docker-registry"); err != nil && kind == drill.Registry {
			continue
		}
		for _, from := range []string{"file", "directory", "fifo"} {
			name := string(kind) + "-" + from
			ended := make(chan error, 1)
			go func() {
				_, err := l.Service(t.Context(), drill.Service{Name: name, Kind: kind}, filepath.Join(copy, from))
				ended <- err
			}()
			select {
			case err := <-ended:
				if err == nil || strings.Contains(err.Error(), "no REPOSITORY") {
					t.Errorf("%s: root followed what the owner made: %v", name, err)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%s: root waits for ever", name)
			}
			if data, err := os.ReadFile(filepath.Join(l.Get(name).site(), "r/t/key")); err == nil {
				t.Errorf("%s: everybody in the drill reads %q", name, data)
			}
		}
	}
}
