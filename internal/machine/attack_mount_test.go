package machine

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAttackReadOnlyMountKeepsItsRestrictions: a user has a set-user-ID program and a
// device node on a stick that the machine mounts with nosuid and nodev, and the container
// gets a directory of it. Runc mounts what is read-only a second time, with new flags.
func TestAttackReadOnlyMountKeepsItsRestrictions(t *testing.T) {
	needRoot(t)
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	s, err := Spec{Root: "/", Mounts: []Mount{{Source: at, Target: "/stick", ReadOnly: true}}}.oci("/self", "id", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Mounts {
		if m.Destination == "/stick" && (!slices.Contains(m.Options, "nosuid") || !slices.Contains(m.Options, "nodev")) {
			t.Errorf("the options are %v", m.Options)
		}
	}
}
