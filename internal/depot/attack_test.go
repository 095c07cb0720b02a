package depot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"trysail/internal/tree"
)

// TestAttackDepotOfAStranger: a user makes a depot whose blobs are a link to a directory
// in which root's files do something, such as /etc/cron.d, and root puts an original there.
func TestAttackDepotOfAStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, aim := filepath.Join(t.TempDir(), "depot"), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "blobs"), 0o755),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644),
		os.Symlink(aim, filepath.Join(dir, "blobs", "sha256")),
		os.Lchown(filepath.Join(dir, "blobs", "sha256"), 4242, 4242), os.Chown(filepath.Join(dir, "blobs"), 4242, 4242), os.Chown(dir, 4242, 4242),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(dir)
	if err == nil {
		_, err = d.PutBytes(t.Context(), []byte("* * * * * root id\n"))
	}
	var other *tree.NotOursError
	if !errors.As(err, &other) {
		t.Errorf("%v", err)
	}
	list, err := os.ReadDir(aim)
	if err != nil || len(list) > 0 {
		t.Errorf("root wrote %v there (%v)", list, err)
	}
}
