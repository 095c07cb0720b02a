package capture

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/tree"
	"trysail/internal/tree/treetest"
)

// A tree comes back from its archive as it was: names of one file, holes, access lists,
// capabilities, attributes, and times to the nanosecond.
func TestSoftwareComesBackAsItWas(t *testing.T) {
	top := treetest.Dir(t)
	was := filepath.Join(top, "was", "tool")
	treetest.Make(t, was)
	var archive bytes.Buffer
	zw, err := zstd.NewWriter(&archive)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	kept := &softwareTree{kept: blueprint.Software{Path: was}, private: func(string) bool { return false }, secrets: map[string][]string{}, names: map[inode]string{}, seen: func(int, int64) {}}
	for _, err := range []error{kept.write(context.Background(), tw), tw.Close(), zw.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if size := int64(5000 + 2*3 + 64<<20 + 65536 + 300000 + 1); kept.kept.Size != size || kept.kept.Files != 11 {
		t.Errorf("%d files of %d bytes, not 11 of %d", kept.kept.Files, kept.kept.Size, size)
	}
	data := bytes.Clone(archive.Bytes())
	is := filepath.Join(top, "is")
	if err := os.Mkdir(is, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := tree.OpenRoot(is)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := build.Extract(context.Background(), root, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	want := treetest.Describe(t, was)
	treetest.Equal(t, want, treetest.Describe(t, filepath.Join(is, was)), nil)
	// A person's tar makes the same of it, but for the holes.
	zr, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	other := filepath.Join(top, "tar")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--extract", "--directory", other, "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--warning=no-unknown-keyword")
	cmd.Stdin = zr
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	treetest.Equal(t, want, treetest.Describe(t, filepath.Join(other, was)), func(_ string, e *treetest.Entry) { e.Holes = false })
}
