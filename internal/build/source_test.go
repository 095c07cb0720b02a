package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"

	"trysail/internal/tree"
)

type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

func directory(name string, mode int64) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, ""}
}

func link(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}, ""}
}

func hard(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}

var stamp = time.Unix(1_700_000_000, 0)

func tarZst(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	zw, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	for _, e := range entries {
		h := e.Header
		h.Size, h.Uid, h.Gid, h.ModTime = int64(len(e.body)), os.Getuid(), os.Getgid(), stamp
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// place is a directory beside one with a secret.
func place(t testing.TB) (root *tree.Dir, outside string) {
	t.Helper()
	return placed(t, tree.Open)
}

func placed(t testing.TB, open func(string) (*tree.Dir, error)) (root *tree.Dir, outside string) {
	t.Helper()
	top := t.TempDir()
	outside = filepath.Join(top, "outside")
	if err := errors.Join(os.Mkdir(filepath.Join(top, "root"), 0o755), os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := open(filepath.Join(top, "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, outside
}

func untouched(t testing.TB, outside string) {
	t.Helper()
	names, err := os.ReadDir(outside)
	if err != nil || len(names) != 1 {
		t.Errorf("outside of the root: %v %v", names, err)
	}
	data, err := os.ReadFile(filepath.Join(outside, "secret"))
	info, serr := os.Stat(filepath.Join(outside, "secret"))
	if err := errors.Join(err, serr); err != nil || string(data) != "secret" || info.Mode() != 0o600 {
		t.Errorf("a file outside of the root was changed: %q %v %v", data, info, err)
	}
}

func TestExtract(t *testing.T) {
	root, _ := place(t)
	setuid := file("opt/x/su", "#!")
	setuid.Mode = 0o4755
	raw := tarZst(t, directory("opt", 0o755), directory("opt/x", 0o2750), file("./opt/x/a", "1"), setuid, link("opt/x/l", "a"), hard("opt/x/h", "opt/x/a"), file("deep/er/b", "2"), file("opt/x/a", "again"), directory("opt/x/ro", 0o555), file("opt/x/ro/c", "3"))
	if err := Extract(context.Background(), root, iotest.HalfReader(bytes.NewReader(raw)), nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"opt/x/a": "again", "opt/x/h": "1", "deep/er/b": "2", "opt/x/l": "again", "opt/x/ro/c": "3"} {
		if data, err := os.ReadFile(filepath.Join(root.Name(), name)); err != nil || string(data) != want {
			t.Errorf("%s holds %q (%v), want %q", name, data, err, want)
		}
	}
	for name, want := range map[string]fs.FileMode{"opt/x": fs.ModeDir | fs.ModeSetgid | 0o750, "opt/x/su": fs.ModeSetuid | 0o755, "opt/x/l": fs.ModeSymlink | 0o777, "opt/x/ro": fs.ModeDir | 0o555} {
		info, err := root.Lstat(name)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v (%v), want %v", name, info.Mode(), err, want)
		}
		if want&fs.ModeSymlink == 0 && !info.ModTime().Equal(stamp) {
			t.Errorf("%s has the time %v", name, info.ModTime())
		}
	}
	renamed, _ := place(t)
	if err := Extract(context.Background(), renamed, bytes.NewReader(raw), func(n string) string { return path.Join("other", n) }); err != nil {
		t.Fatal(err)
	}
	if data, err := renamed.ReadFile("other/deep/er/b", 10); err != nil || string(data) != "2" {
		t.Errorf("renamed: %q %v", data, err)
	}
}

// TestExtractHostile: no member leaves the root, whatever came before it.
func TestExtractHostile(t *testing.T) {
	for _, c := range []struct {
		name string
		list func(o string) []entry
		ok   bool
	}{
		{"climbs", func(o string) []entry { return []entry{file("../outside/x", "bad")} }, false},
		{"climbs within", func(o string) []entry { return []entry{file("a/../../outside/x", "bad")} }, false},
		{"absolute", func(o string) []entry { return []entry{file(o+"/x", "bad")} }, false},
		{"through an absolute link", func(o string) []entry { return []entry{link("l", o), file("l/x", "bad")} }, false},
		{"through a relative link", func(o string) []entry { return []entry{link("l", "../outside"), file("l/x", "bad")} }, false},
		{"through two links", func(o string) []entry {
			return []entry{link("a", "b/../.."), directory("b", 0o755), file("a/outside/x", "bad")}
		}, false},
		{"over a link", func(o string) []entry { return []entry{link("x", o+"/secret"), file("x", "bad")} }, true},
		{"directory over a link", func(o string) []entry { return []entry{link("d", o), directory("d", 0o777)} }, false},
		{"hard link out", func(o string) []entry { return []entry{hard("h", "../outside/secret")} }, false},
		{"hard link absolute", func(o string) []entry { return []entry{hard("h", o+"/secret")} }, false},
		{"hard link through a link", func(o string) []entry { return []entry{link("l", o), hard("h", "l/secret")} }, false},
		{"hard link to a link, then written", func(o string) []entry { return []entry{link("l", o+"/secret"), hard("h", "l"), file("h", "bad")} }, true},
		{"time of a link's target", func(o string) []entry { return []entry{directory("d", 0o755), file("d/f", "x"), link("d2", o)} }, true},
		{"a directory that became a link", func(o string) []entry { return []entry{directory("d", 0o755), link("d", o)} }, false},
		{"device", func(o string) []entry {
			return []entry{{tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}, ""}}
		}, false},
		{"pipe", func(o string) []entry {
			return []entry{{tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o666}, ""}}
		}, false},
		{"the root itself", func(o string) []entry { return []entry{directory("./", 0o777), file("a", "x")} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, outside := place(t)
			err := Extract(context.Background(), root, bytes.NewReader(tarZst(t, c.list(outside)...)), nil)
			if (err == nil) != c.ok {
				t.Errorf("error %v, want none: %v", err, c.ok)
			}
			untouched(t, outside)
			// In a root file system links lead somewhere, and never out of it.
			root, outside = placed(t, tree.OpenRoot)
			_ = Extract(context.Background(), root, bytes.NewReader(tarZst(t, c.list(outside)...)), nil)
			untouched(t, outside)
		})
	}
}

func TestExtractDamage(t *testing.T) {
	raw := tarZst(t, file("a", strings.Repeat("text ", 1000)), file("b", "x"))
	wrong := errors.New("other bytes than the digest promises")
	for i := 1; i < len(raw); i++ {
		root, _ := place(t)
		if err := Extract(context.Background(), root, bytes.NewReader(raw[:i]), nil); err == nil {
			t.Fatalf("cut at %d of %d, it is whole", i, len(raw))
		}
	}
	root, _ := place(t)
	if err := Extract(context.Background(), root, io.MultiReader(bytes.NewReader(raw), iotest.ErrReader(wrong)), nil); !errors.Is(err, wrong) {
		t.Errorf("the depot's word at the end of the stream is not heard: %v", err)
	}
	// The checksum of zstd stands behind what tar reads.
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	flipped := enc.EncodeAll(append(plain, make([]byte, 64<<20)...), nil)
	flipped[len(flipped)-1] ^= 1
	if err := Extract(context.Background(), root, bytes.NewReader(flipped), nil); err == nil {
		t.Error("a wrong checksum at the end is not seen")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Extract(ctx, root, bytes.NewReader(raw), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := Extract(context.Background(), root, strings.NewReader("no zstd"), nil); err == nil {
		t.Error("garbage is extracted")
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(tarZst(f, directory("d", 0o755), file("d/a", "x"), link("l", "/"), hard("h", "d/a")))
	f.Add(tarZst(f, link("a", ".."), file("a/x", "bad")))
	f.Fuzz(func(t *testing.T, plain []byte) {
		var b bytes.Buffer
		zw, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := zw.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		root, outside := place(t)
		_ = Extract(context.Background(), root, &b, nil) // an error is an answer
		untouched(t, outside)
		if names, err := os.ReadDir(filepath.Dir(outside)); err != nil || len(names) != 2 {
			t.Fatal(fmt.Sprint("beside the root: ", names, err))
		}
	})
}
