package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"trysail/internal/memorytest"
	"trysail/internal/tree"
	"trysail/internal/tree/treetest"
	"trysail/release"
)

// again gives an archive that has a member 800 times, a link each time by another name.
func again(t *testing.T, h tar.Header) []byte {
	t.Helper()
	var packed bytes.Buffer
	zw, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	name := h.Name
	for i := range 800 {
		if h.Typeflag == tar.TypeSymlink {
			h.Name = fmt.Sprintf("%s%d", name, i)
		}
		if err := tar.NewWriter(zw).WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// TestAttackLinksTakeMemory: the links of a source are kept, to find files through them. Each
// leads to a name of a megabyte, or has a record of one beside it.
func TestAttackLinksTakeMemory(t *testing.T) {
	long := strings.Repeat("x", 1000_000)
	for name, h := range map[string]tar.Header{
		"target": {Name: "l", Typeflag: tar.TypeSymlink, Linkname: long},
		"record": {Name: strings.Repeat("l", 120), Typeflag: tar.TypeSymlink, Linkname: "d", PAXRecords: map[string]string{"TRYSAIL.junk": long}},
	} {
		packed := again(t, h)
		var err error
		most := memorytest.InUse(func() {
			var f *Files
			f, err = OpenFiles(t.Context(), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil })
			runtime.GC()
			runtime.KeepAlive(f)
		})
		if most > 700<<20 {
			t.Errorf("%s: a source of %d KB takes %d MB of memory (%v)", name, len(packed)>>10, most>>20, err)
		}
	}
}

// TestAttackDirectoriesTakeMemory: an archive of some kilobytes has one directory again and
// again, each time with a record of a megabyte, which is kept until the last member is there.
func TestAttackDirectoriesTakeMemory(t *testing.T) {
	for _, record := range []string{"TRYSAIL.junk", "SCHILY.xattr.user.junk"} {
		packed := again(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{record: strings.Repeat("x", 1000_000)}})
		root, _ := place(t)
		var err error
		most := memorytest.InUse(func() { err = Extract(t.Context(), root, bytes.NewReader(packed), nil) })
		if most > 900<<20 {
			t.Errorf("%s: an archive of %d KB takes %d MB of memory (%v)", record, len(packed)>>10, most>>20, err)
		}
	}
}

// TestAttackOutputsWithLongNames: a step makes directories in one another, and files in the innermost, each of
// which has a name of a hundred kilobytes.
func TestAttackOutputsWithLongNames(t *testing.T) {
	top := t.TempDir()
	dir, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range 400 {
		name := strings.Repeat("d", 250)
		if err == nil {
			err = unix.Mkdirat(dir, name, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		above := dir
		dir, err = unix.Openat(above, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(above)
	}
	for i := 0; i < 9000 && err == nil; i++ {
		err = unix.Mknodat(dir, strconv.Itoa(i), unix.S_IFREG|0o644, 0)
	}
	if err := errors.Join(err, unix.Close(dir)); err != nil {
		t.Fatal(err)
	}
	var limit *tree.LimitError
	most := memorytest.InUse(func() { _, _, err = Outputs(top, []string{"**/*"}) })
	if most > 600<<20 || !errors.As(err, &limit) {
		t.Errorf("the outputs of a step take %d MB of memory (%.200v)", most>>20, err)
	}
}

// TestAttackOutputsWithManyAttributes: each file that a step makes has as many attributes as the
// file system keeps.
func TestAttackOutputsWithManyAttributes(t *testing.T) {
	top := treetest.Dir(t)
	value := bytes.Repeat([]byte("x"), 3900)
	for i := range 10 {
		name := filepath.Join(top, strconv.Itoa(i))
		if err := errors.Join(os.WriteFile(name, nil, 0o644), unix.Setxattr(name, "user.x", value, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for limit, ok := range map[int64]bool{0: true, 40_000: true, 39_000: false} {
		_, err := Collect(top, []string{"*"}, Limits{Files: 100, Bytes: 1 << 20, Attributes: limit}, release.CheckPath)
		var le *tree.LimitError
		if (err == nil) != ok || !ok && (!errors.As(err, &le) || !strings.Contains(err.Error(), "attributes")) {
			t.Errorf("39,060 bytes of attributes, and %d are allowed: %v", limit, err)
		}
	}
}
