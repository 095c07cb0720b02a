package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"trysail/internal/memorytest"
)

// TestAttackPackageListsFilesWithoutEnd: a package of some kilobytes has one directory again and
// again, and dpkg's list of its files, which is made in memory, has each of them.
func TestAttackPackageListsFilesWithoutEnd(t *testing.T) {
	for name, long := range map[string]string{"long": "/" + strings.Repeat("d", 250) + "/" + strings.Repeat("d", 250) + "/" + strings.Repeat("d", 250), "slashes": "/dir" + strings.Repeat("/", 500_000)} {
		var head, data bytes.Buffer
		if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: strings.TrimPrefix(long, "/") + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		zw, err := zstd.NewWriter(&data)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 768<<20; n += head.Len() {
			if _, err := zw.Write(head.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		raw := ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar.gz", gz(t, tarball(t, file("./control", control)))}, arMember{"data.tar.zst", data.Bytes()})
		tg, _, _ := target(t)
		d := readDeb(t, raw)
		most := memorytest.InUse(func() {
			_, _ = tg.Unpack(t.Context(), d) // it may refuse the package, or not
		})
		if most > 400<<20 {
			t.Errorf("%s: a package of %d KB takes %d MB of memory", name, len(raw)>>10, most>>20)
		}
	}
}

// TestAttackPackageWithALargeWindow: a package of some kilobytes says that its decoder is to keep
// half a gigabyte. As many packages as the machine has processors are unpacked at a time.
func TestAttackPackageWithALargeWindow(t *testing.T) {
	var data bytes.Buffer
	zw, err := zstd.NewWriter(&data, zstd.WithWindowSize(zstd.MaxWindowSize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zw.Write(tarball(t, file("./file", "text"))); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 1200 { // behind the archive's end
		if _, err := zw.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	zw = nil
	raw := ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar.gz", gz(t, tarball(t, file("./control", control)))}, arMember{"data.tar.zst", data.Bytes()})
	tg, _, _ := target(t)
	d := readDeb(t, raw)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = tg.Unpack(t.Context(), d)
	runtime.ReadMemStats(&after)
	if size := after.TotalAlloc - before.TotalAlloc; size > 300<<20 || err == nil {
		t.Errorf("a package of %d KB takes %d MB of memory (%v)", len(raw)>>10, size>>20, err)
	}
}

// TestAttackPackageWithLinesWithoutEnd: a package of some kilobytes has a field, or a list, of
// millions of lines. Root takes them apart for hours, or for as long as there is memory.
func TestAttackPackageWithLinesWithoutEnd(t *testing.T) {
	for name, files := range map[string][]entry{
		"field":     {file("./control", control+strings.Repeat(" x\n", 10<<20))},
		"conffiles": {file("./control", control), file("./conffiles", strings.Repeat("/\n", 15<<20))},
	} {
		raw := ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar.gz", gz(t, tarball(t, files...))}, arMember{"data.tar.gz", gz(t, tarball(t))})
		done := make(chan error, 1)
		go func() {
			_, err := ReadDeb(context.Background(), "test", bytes.NewReader(raw))
			done <- err
		}()
		select {
		case err := <-done:
			var hostile *ArchiveError
			if !errors.As(err, &hostile) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: a package of %d KB is read for longer than 5 s", name, len(raw)>>10)
		}
	}
	// What is short enough takes no time either.
	begin := time.Now()
	p, err := parseParagraph("test", 1, []byte(control+strings.Repeat(" x\n", maxLines/3)))
	if err != nil || p.Name != "hello" || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %s (%v)", p, time.Since(begin), err)
	}
}
