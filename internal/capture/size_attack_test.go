package capture

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"trysail/blueprint"
	"trysail/internal/tree"
)

// TestAttackFileWithoutEnd: a user has a file of eight thousand gigabytes, all of them a hole, which the
// build opens. Root reads it for hours, to know its digest or to keep it.
func TestAttackFileWithoutEnd(t *testing.T) {
	dir := place(t)
	put(t, dir+"/tool/file", 0o644, "x")
	if err := os.Truncate(dir+"/tool/file", 1<<43); err != nil {
		t.Fatal(err)
	}
	user, err := rightsOf(builder, builder, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &capture{rights: user, hashes: map[string][2]string{}}
	kept := softwareTree{kept: blueprint.Software{Path: dir + "/tool"}, private: func(string) bool { return false }, secrets: map[string][]string{}, names: map[inode]string{}, seen: func(int, int64) {}}
	for name, read := range map[string]func() error{
		"digest": func() error { _, _, err := c.sums(dir + "/tool/file"); return err },
		"tree":   func() error { return kept.write(t.Context(), tar.NewWriter(io.Discard)) },
	} {
		done := make(chan error, 1)
		go func() { done <- read() }()
		select {
		case err := <-done:
			var limit *tree.LimitError
			if !errors.As(err, &limit) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(3 * time.Second):
			t.Errorf("%s: root reads for longer than 3 s", name)
		}
	}
}
