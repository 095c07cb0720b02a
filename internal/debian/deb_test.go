package debian

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// arMember is one member of an ar archive.
type arMember struct {
	name string
	data []byte
}

func ar(members ...arMember) []byte {
	b := bytes.NewBufferString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// entry is one member of a tar archive; its owner is who runs the test.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func link(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, ""}
}

func hard(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o644}, ""}
}

func tarball(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size, h.Uid, h.Gid, h.ModTime = int64(len(e.body)), os.Getuid(), os.Getgid(), time.Unix(1_700_000_000, 0)
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const control = "Package: hello\nVersion: 1:2.10-3\nArchitecture: amd64\nDescription: greets\n several lines\n"

// deb makes a package; extra control files come as name, text pairs.
func deb(t testing.TB, control string, files map[string]string, entries ...entry) []byte {
	t.Helper()
	ctl := []entry{file("./control", control)}
	for name, text := range files {
		ctl = append(ctl, file("./"+name, text))
	}
	return ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar.gz", gz(t, tarball(t, ctl...))}, arMember{"data.tar.gz", gz(t, tarball(t, entries...))})
}

func readDeb(t testing.TB, data []byte) *Deb {
	t.Helper()
	d, err := ReadDeb(context.Background(), "test", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReadDeb(t *testing.T) {
	d := readDeb(t, deb(t, control, map[string]string{"conffiles": "/etc/hello\nremove-on-upgrade /etc/old\n\n/etc/my file \n", "triggers": "interest /usr/share/x\n", "postinst": "#!/bin/sh\n"}, file("./usr/bin/hello", "x")))
	if d.Package.Key() != "hello:amd64" || d.Package.Version != "1:2.10-3" || d.Package.FileName() != "hello_1%3a2.10-3_amd64.deb" {
		t.Errorf("package %+v", d.Package)
	}
	if got := d.Conffiles(); len(got) != 2 || got[0] != "/etc/hello" || got[1] != "/etc/my file" {
		t.Errorf("conffiles %q", got)
	}
	if got := d.Interests(); len(got) != 1 || got[0] != (Trigger{"/usr/share/x", true}) {
		t.Errorf("interests %+v", got)
	}
	if f := d.File("postinst"); f == nil || string(f.Data) != "#!/bin/sh\n" {
		t.Errorf("postinst %+v", f)
	}
	if d.File("prerm") != nil {
		t.Error("found a file that is not there")
	}
	want := "Package: hello\nStatus: install ok unpacked\nVersion: 1:2.10-3\nArchitecture: amd64\nDescription: greets\n several lines\nConffiles:\n /etc/hello newconffile\n /etc/my file newconffile\n\n"
	if got := string(d.StatusEntry()); got != want {
		t.Errorf("status entry\n%s\nwant\n%s", got, want)
	}
	if again, err := ParseStatus("status", d.StatusEntry()); err != nil || len(again) != 1 || again[0].Status != "install ok unpacked" {
		t.Errorf("its status entry is read as %+v, %v", again, err)
	}
}

// TestStatusEntryOwnFields: a control file that brings dpkg's own fields does
// not make them stand twice.
func TestStatusEntryOwnFields(t *testing.T) {
	d := readDeb(t, deb(t, "Package: hello\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nConffiles:\n /etc/x 0123\n", nil))
	if list, err := ParseStatus("status", d.StatusEntry()); err != nil || list[0].Status != "install ok unpacked" || list[0].Conffiles != nil {
		t.Errorf("%v\n%s", err, d.StatusEntry())
	}
}

func TestReadDebCompressions(t *testing.T) {
	ctl, data := tarball(t, file("control", control)), tarball(t, file("./usr/bin/hello", "x"))
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var xb bytes.Buffer
	xw, err := xz.NewWriter(&xb)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := xw.Write(ctl); err != nil {
		t.Fatal(err)
	}
	if err := xw.Close(); err != nil {
		t.Fatal(err)
	}
	binary := arMember{"debian-binary", []byte("2.0\n")}
	for name, raw := range map[string][]byte{
		"plain":          ar(binary, arMember{"control.tar", ctl}, arMember{"data.tar", data}),
		"zst":            ar(binary, arMember{"control.tar.zst", zw.EncodeAll(ctl, nil)}, arMember{"data.tar", data}),
		"xz":             ar(binary, arMember{"control.tar.xz", xb.Bytes()}, arMember{"data.tar", data}),
		"slash in names": ar(arMember{"debian-binary/", []byte("2.0\n")}, arMember{"control.tar.gz/", gz(t, ctl)}, arMember{"data.tar/", data}),
		"others before":  ar(binary, arMember{"_gpgbuilder", []byte("odd")}, arMember{"control.tar", ctl}, arMember{"_x", []byte("1")}, arMember{"data.tar", data}),
		"odd version":    ar(arMember{"debian-binary", []byte("2.0 x")}, arMember{"control.tar", ctl}, arMember{"data.tar", data}),
		"long version":   ar(arMember{"debian-binary", []byte("2.1\n" + strings.Repeat("x", 99))}, arMember{"control.tar", ctl}, arMember{"data.tar", data}),
	} {
		d, err := ReadDeb(context.Background(), name, iotest.OneByteReader(bytes.NewReader(raw)))
		if err != nil || d.Package.Name != "hello" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(d.data); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: data of %d bytes, %v", name, len(got), err)
		}
	}
}

// TestReadDebDamage: torn, wrong and hostile archives are refused with the
// member's name.
func TestReadDebDamage(t *testing.T) {
	ctl, data := gz(t, tarball(t, file("control", control))), gz(t, tarball(t, file("./x", "y")))
	binary, cm, dm := arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar.gz", ctl}, arMember{"data.tar.gz", data}
	with := func(entries ...entry) []byte {
		return ar(binary, arMember{"control.tar.gz", gz(t, tarball(t, entries...))}, dm)
	}
	flipped := bytes.Clone(ctl)
	flipped[len(flipped)-6] ^= 1 // in gzip's checksum
	negative := ar(binary, cm, dm)
	copy(negative[8+48:], "-4        ")
	badMagic := ar(binary, cm, dm)
	badMagic[8+58] = 'x'
	huge := ar(binary, cm, dm)
	copy(huge[8+60+4+48:], "9999999999")
	for _, c := range []struct {
		name string
		raw  []byte
		what string
	}{
		{"empty", nil, "not an ar archive"},
		{"not an archive", []byte("PK\x03\x04 this is a zip"), "not an ar archive"},
		{"ends at once", []byte("!<arch>\n"), "truncated"},
		{"header", badMagic, "damaged ar header"},
		{"negative size", negative, "damaged ar size"},
		{"huge control", huge, "too many"},
		{"version 3", ar(arMember{"debian-binary", []byte("3.0\n")}, cm, dm), "2.x"},
		{"no version", ar(arMember{"debian-binary", nil}, cm, dm), "2.x"},
		{"data first", ar(binary, dm, cm), "before control.tar"},
		{"no data", ar(binary, cm), "no data.tar"},
		{"no control", with(file("postinst", "x")), "no control file"},
		{"compression", ar(binary, arMember{"control.tar.lz", ctl}, dm), "not known"},
		{"control is no tar", ar(binary, arMember{"control.tar", []byte(strings.Repeat("x", 1024))}, dm), "control.tar"},
		{"control climbs", with(file("control", control), file("../../etc/cron.d/x", "x")), "plain name"},
		{"control is a path", with(file("control", control), file("a/b", "x")), "plain name"},
		{"control is the root", with(file("control", control), file("/.", "x")), "plain name"},
		{"control is here", with(file("control", control), file(".", "x")), "plain name"},
		{"control is above", with(file("control", control), file("..", "x")), "plain name"},
		{"control twice", with(file("control", control), file("./control", "Package: other\n")), "stands twice"},
		{"control cut", ar(binary, arMember{"control.tar.gz", ctl[:len(ctl)-9]}, dm), "control.tar.gz"},
		{"control flipped", ar(binary, arMember{"control.tar.gz", flipped}, dm), "checksum"},
		{"garbage after control", ar(binary, arMember{"control.tar.gz", append(bytes.Clone(ctl), "garbage"...)}, dm), "control.tar.gz"},
		{"control without a name", with(file("control", "Version: 1\n")), "Package field"},
		{"control with a path for a name", with(file("control", "Package: ../x\nVersion: 1\nArchitecture: all\n")), "not valid"},
		{"control with two paragraphs", with(file("control", control+"\nPackage: other\n")), "not a field"},
		{"truncated within control", ar(binary, cm, dm)[:100], "truncated"},
	} {
		d, err := ReadDeb(context.Background(), c.name, bytes.NewReader(c.raw))
		if err == nil || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%s: %+v, %v; want an error with %q", c.name, d, err, c.what)
		}
		var ae *ArchiveError
		var fe *FileError
		if !errors.As(err, &ae) && !errors.As(err, &fe) {
			t.Errorf("%s: %T has no remedy", c.name, err)
		}
	}
	whole := deb(t, control, nil, file("./x", "y"))
	for i := range len(whole) {
		d, err := ReadDeb(context.Background(), "cut", bytes.NewReader(whole[:i]))
		if err != nil {
			continue
		}
		if _, err := io.Copy(io.Discard, d.data); i < len(whole)-1 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d: %v", i, len(whole), err)
		}
	}
}

// TestReadDebBomb: what unpacks to more than any real control archive is
// refused before it fills the memory.
func TestReadDebBomb(t *testing.T) {
	// gzip streams may follow each other, so a mebibyte is packed only once.
	const mib = 1 << 20
	zeros := gz(t, make([]byte, mib))
	header := func(name string, size int64) []byte {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
			t.Fatal(err)
		}
		return gz(t, b.Bytes())
	}
	var many []byte
	for i := range 3 {
		many = append(many, header(fmt.Sprint("part", i), maxControlFile)...)
		many = append(many, bytes.Repeat(zeros, maxControlFile/mib)...)
	}
	for name, ctl := range map[string][]byte{
		"many": many,
		"one":  append(header("control", maxControlFile+1), zeros...),
		"tail": append(gz(t, tarball(t, file("control", control))), bytes.Repeat(zeros, maxControl/mib)...),
	} {
		_, err := ReadDeb(context.Background(), name, bytes.NewReader(ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar.gz", ctl}, arMember{"data.tar", nil})))
		if err == nil || !strings.Contains(err.Error(), "many") && !strings.Contains(err.Error(), "over the limit") {
			t.Errorf("%s: %d bytes: %v", name, len(ctl), err)
		}
	}
}

// TestReadDebXZ: the xz program's failure is seen, and it is not left running.
func TestReadDebXZ(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed: apt-get install xz-utils")
	}
	r, err := decompress(context.Background(), "data.tar.xz", strings.NewReader("no xz at all"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "xz") {
		t.Errorf("garbage is decompressed: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	r, err = decompress(context.Background(), "data.tar.xz", rand.New(rand.NewSource(1)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("closing it early hangs")
	}
}

func FuzzReadDeb(f *testing.F) {
	f.Add(deb(f, control, map[string]string{"conffiles": "/etc/x\n"}, dir("./"), file("./etc/x", "y"), link("./l", "/etc"), hard("./h", "./etc/x")))
	f.Add(ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar", tarball(f, file("control", control))}, arMember{"data.tar", tarball(f, link("./a", "/"), file("./a/b", "x"))}))
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, name := range []string{"control.tar.xz", "control.tar.zst", "data.tar.xz", "data.tar.zst"} {
			if bytes.Contains(raw, []byte(name)) {
				return // starts a program or allocates much
			}
		}
		d, err := ReadDeb(context.Background(), "fuzz", bytes.NewReader(raw))
		if err != nil {
			return
		}
		if _, err := ParseStatus("status", d.StatusEntry()); err != nil {
			t.Fatalf("its status entry cannot be read: %v\n%q", err, d.StatusEntry())
		}
		top := t.TempDir()
		root := top + "/root"
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		target, err := NewTarget(root)
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		_, _ = target.Unpack(context.Background(), d) // an error is an answer
		if names, err := os.ReadDir(top); err != nil || len(names) != 1 {
			t.Fatalf("written outside of the root: %v %v", names, err)
		}
	})
}
