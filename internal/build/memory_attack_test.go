package build

import (
	"archive/tar"
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// inUse gives how many bytes of memory were in use at a time while do ran.
func inUse(do func()) (most uint64) {
	runtime.GC()
	var before, m runtime.MemStats
	runtime.ReadMemStats(&before)
	done := make(chan struct{})
	go func() { do(); close(done) }()
	for {
		select {
		case <-done:
			return most
		case <-time.After(10 * time.Millisecond):
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse-min(m.HeapInuse, before.HeapInuse))
		}
	}
}

// TestAttackDirectoriesTakeMemory: an archive of some kilobytes has one directory again and
// again, each time with a record of a megabyte, which is kept until the last member is there.
func TestAttackDirectoriesTakeMemory(t *testing.T) {
	var head, packed bytes.Buffer
	junk := strings.Repeat("x", 1000_000)
	for _, record := range []string{"TRYSAIL.junk", "SCHILY.xattr.user.junk"} {
		head.Reset()
		packed.Reset()
		h := tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{record: junk}}
		if err := tar.NewWriter(&head).WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		zw, err := zstd.NewWriter(&packed)
		if err != nil {
			t.Fatal(err)
		}
		for range 1200 {
			if _, err := zw.Write(head.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		root, _ := place(t)
		most := inUse(func() { err = Extract(t.Context(), root, io.Reader(&packed), nil) })
		if most > 900<<20 {
			t.Errorf("%s: an archive of %d KB takes %d MB of memory (%v)", record, packed.Cap()>>10, most>>20, err)
		}
	}
}
