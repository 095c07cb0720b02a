package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trysail/drill"
)

// blob lays one before a machine, and gives its file and its digest.
func blob(t *testing.T, h *Host, text string) (file, digest string) {
	t.Helper()
	hash := strings.Repeat("0", 64)
	file = filepath.Join(h.Disk(), "depot/blobs/sha256", hash)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return file, "sha256:" + hash
}

// TestNoDisk: where the machine's disk is gone, a fault of the disk is refused, whether
// the disk went before it was made ready or after; and nothing is written in its place,
// which is a file system of this host. Here that is a small one, which may be broken.
func TestNoDisk(t *testing.T) {
	root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=300m,nr_inodes=3000"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	h := machineOn(t, newLabIn(t, dir), "one")
	_, digest := blob(t, h, "original")
	if err := h.Keep("depot"); err != nil {
		t.Fatal(err)
	}
	prepare := func(f drill.Fault) (*Fault, error) {
		if strings.HasSuffix(string(f), "-corrupted") {
			return h.Prepare(f, digest)
		}
		return h.Prepare(f, "")
	}
	ready := map[drill.Fault]*Fault{}
	for _, k := range drill.Faults() {
		if k.Fault.OnDisk() {
			f, err := prepare(k.Fault)
			if err != nil {
				t.Fatalf("%s: %v", k.Fault, err)
			}
			ready[k.Fault] = f
		}
	}
	if len(ready) != 7 {
		t.Errorf("%d faults of the disk", len(ready))
	}
	gone, err := h.Prepare("disk-destroyed", "")
	if err == nil {
		err = gone.Inject()
	}
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "one has no disk any more") {
			t.Errorf("%s: %v", what, err)
		}
		if list, err := os.ReadDir(h.Disk()); err != nil || len(list) > 0 {
			t.Errorf("%s: in the disk's place: %v (%v)", what, list, err)
		}
	}
	for fault, f := range ready {
		refused(string(fault), f.Inject())
		_, err := prepare(fault)
		refused(string(fault)+", made ready", err)
	}
	refused("the depot is whole", h.Verify(t.Context()))
	refused("the probe of a full disk", ready["disk-full"].Probe(t.Context()))
	h.gone = false // as whoever undoes that the machine was lost has it
	refused("the machine, again", h.Restart())
}

// TestCorruptStays: what is not a digest names no blob, and what a build left for a blob
// leads to no file outside of the depot.
func TestCorruptStays(t *testing.T) {
	l := newLab(t)
	h := machineOn(t, l, "one")
	file, digest := blob(t, h, "original")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("somebody else's"), 0o600); err != nil {
		t.Fatal(err)
	}
	up, err := filepath.Rel(filepath.Dir(file), outside)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []string{"sha256:" + up, up, outside, "dist/app.gz", "sha256:00", "sha256:", "sha512:" + strings.Repeat("0", 64), strings.ToUpper(digest), "sha256:" + strings.Repeat("A", 64)} {
		if _, err := h.Prepare("artifact-corrupted", of); err == nil || !strings.Contains(err.Error(), "64 digits") {
			t.Errorf("%s: %v", of, err)
		}
	}
	f, err := h.Prepare("artifact-corrupted", digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{outside, up} {
		if err := errors.Join(os.Remove(file), os.Symlink(to, file)); err != nil {
			t.Fatal(err)
		}
		if err := f.Inject(); err == nil {
			t.Errorf("a link to %s is followed", to)
		}
		if _, err := h.Prepare("artifact-corrupted", digest); err == nil {
			t.Errorf("a link to %s is read", to)
		}
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "somebody else's" {
		t.Errorf("%q %v", data, err)
	}
}

// TestDepotGone: a depot that is not there is not whole.
func TestDepotGone(t *testing.T) {
	h := machineOn(t, newLab(t), "one")
	file, _ := blob(t, h, "original")
	if err := h.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "one has no depot") {
		t.Errorf("no layout: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(h.Disk(), "depot")); err != nil {
		t.Fatal(err)
	}
	if err := h.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "one has no depot") {
		t.Errorf("nothing: %v", err)
	}
	if _, err := os.Stat(filepath.Join(h.Disk(), "depot")); err == nil {
		t.Error("one was made")
	}
	blob(t, h, "original")
	if err := os.WriteFile(filepath.Join(h.Disk(), "depot/oci-layout"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The program that is asked is this test, which knows no such command.
	if err := h.Verify(t.Context()); err == nil || strings.Contains(err.Error(), "no depot") {
		t.Errorf("%s is there: %v", file, err)
	}
}
