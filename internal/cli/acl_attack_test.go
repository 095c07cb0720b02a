package cli

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAttackAccessListOfABlueprint: root lets a stranger write a file by an access list,
// which its mode shows as the rights of root's group.
func TestAttackAccessListOfABlueprint(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	file := filepath.Join(t.TempDir(), "blueprint.yaml")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if why, err := callers().writer(file, false); err != nil || why != "" {
		t.Fatalf("root's own file: %q, %v", why, err)
	}
	// acl(5) as the kernel keeps it: owner rw, user 4242 rw, group r, mask rw, others none.
	const stranger = 4242
	list := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, stranger & 255, stranger >> 8, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}
	if err := unix.Setxattr(file, "system.posix_acl_access", list, 0); err != nil {
		t.Fatal(err)
	}
	if why, err := callers().writer(file, false); err != nil || why == "" {
		t.Errorf("user %d can write the file: %q, %v", stranger, why, err)
	}
}
