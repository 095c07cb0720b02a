package compare

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"trysail/blueprint"
)

func at(sec int) time.Time { return time.Date(2026, 11, 23, 12, 0, sec, 0, time.UTC) }

// entry is a member of an archive that a test makes.
type entry struct {
	name, data string
	time       time.Time
	mode       int64
	uid        int
}

func makeTar(t testing.TB, list ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range list {
		h := &tar.Header{Name: e.name, Size: int64(len(e.data)), ModTime: e.time, Mode: e.mode | 0o644, Uid: e.uid, Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func makeZip(t testing.TB, list ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range list {
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Modified: e.time, Method: zip.Deflate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func makeAr(list ...entry) []byte {
	b := bytes.NewBufferString("!<arch>\n")
	for _, e := range list {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", e.name, e.time.Unix(), e.uid, 0, 0o100644|e.mode, len(e.data), e.data)
		if len(e.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func gz(t testing.TB, data []byte, mtime time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.ModTime = mtime
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func xzip(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func files(t testing.TB, a, b []byte, itself *Report) *Report {
	t.Helper()
	r, err := Files(context.Background(), "out", Bytes(a), Bytes(b), Options{Itself: itself})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func show(list []blueprint.Difference) string {
	var b strings.Builder
	for _, d := range list {
		fmt.Fprintf(&b, "%s: %s (%s)\n", d.Path, d.What, d.Cause)
	}
	return b.String()
}

// TestDifferences says where two files differ and why.
func TestDifferences(t *testing.T) {
	deb := func(sec int) []byte {
		control := gz(t, makeTar(t, entry{name: "./control", data: "Package: x\n", time: at(sec)}), time.Time{})
		data := xzip(t, makeTar(t, entry{name: "./usr/bin/x", data: fmt.Sprintf("built %s\n", at(sec).Format(time.RFC3339)), time: at(0)}))
		return makeAr(entry{name: "debian-binary", data: "2.0\n", time: at(sec)}, entry{name: "control.tar.gz", data: string(control), time: at(sec)}, entry{name: "data.tar.xz", data: string(data), time: at(sec)})
	}
	for _, c := range []struct {
		name string
		a, b []byte
		want string
	}{
		{"the same", []byte("x"), []byte("x"), ""},
		{"text", []byte("a\nbuilt 12:00:01\n"), []byte("a\nbuilt 12:00:09\n"), "out: line 2: “built 12:00:09” instead of “built 12:00:01” (time stamp)\n"},
		{"gzip header", gz(t, []byte("x"), at(1)), gz(t, []byte("x"), at(2)), "out: gzip header: time 2026-11-23T12:00:02Z instead of 2026-11-23T12:00:01Z (time stamp)\n"},
		{"tar time", makeTar(t, entry{name: "a", time: at(1)}), makeTar(t, entry{name: "a", time: at(2)}), "out!a: time 2026-11-23T12:00:02Z instead of 2026-11-23T12:00:01Z (time stamp)\n"},
		{"tar owner", makeTar(t, entry{name: "a", uid: 1}), makeTar(t, entry{name: "a", uid: 2}), "out!a: owner 2:0 instead of 1:0 (owner)\n"},
		{"tar mode", makeTar(t, entry{name: "a"}), makeTar(t, entry{name: "a", mode: 0o111}), "out!a: mode 0755 instead of 0644 (mode)\n"},
		{"tar order", makeTar(t, entry{name: "a"}, entry{name: "b"}), makeTar(t, entry{name: "b"}, entry{name: "a"}), "out: its members stand in another order, from b (order)\n"},
		{"tar members", makeTar(t, entry{name: "a"}), makeTar(t, entry{name: "b"}), "out!a: the member is missing ()\nout!b: the member was added ()\n"},
		{"tar name with a date", makeTar(t, entry{name: "x-20261123/a", data: "1"}), makeTar(t, entry{name: "x-20261124/a", data: "1"}), "out!x-20261123/a: named x-20261124/a instead of x-20261123/a (time stamp)\n"},
		{"nested", gz(t, makeTar(t, entry{name: "l.zip", data: string(makeZip(t, entry{name: "v", data: "3 of 2026-01-02"}))}), at(0)), gz(t, makeTar(t, entry{name: "l.zip", data: string(makeZip(t, entry{name: "v", data: "3 of 2026-01-03"}))}), at(0)), "out!l.zip!v: line 1: “3 of 2026-01-03” instead of “3 of 2026-01-02” (time stamp)\n"},
		{
			"deb", deb(1), deb(2), "out!control.tar.gz: time 2026-11-23T12:00:02Z instead of 2026-11-23T12:00:01Z (time stamp)\n" +
				"out!control.tar.gz!./control: time 2026-11-23T12:00:02Z instead of 2026-11-23T12:00:01Z (time stamp)\n" +
				"out!data.tar.xz: time 2026-11-23T12:00:02Z instead of 2026-11-23T12:00:01Z (time stamp)\n" +
				"out!data.tar.xz!./usr/bin/x: line 1: “built 2026-11-23T12:00:02” instead of “built 2026-11-23T12:00:01” (time stamp)\n" +
				"out!debian-binary: time 2026-11-23T12:00:02Z instead of 2026-11-23T12:00:01Z (time stamp)\n",
		},
		{"zstd", zst(t, []byte("a /build/1/x")), zst(t, []byte("a /build/2/x")), "out: line 1: “a /build/2” instead of “a /build/1” (path)\n"},
		{"order of lines", []byte("a\nb\nc\n"), []byte("c\nb\na\n"), "out: the same 3 lines in another order, from line 1 (order)\n"},
		{"added line", []byte("a\nc\n"), []byte("a\nb\nc\n"), "out: line 2 was added: b ()\n"},
		{"compression", gz(t, bytes.Repeat([]byte("a b"), 100), at(0)), gzFast(t, bytes.Repeat([]byte("a b"), 100), at(0)), "out: compressed with other settings (compression)\n"},
		{"torn archive", gz(t, []byte("abc"), at(0))[:15], gz(t, []byte("abd"), at(0))[:14], "out: bytes differ from offset 13; 14 bytes instead of 15 (it cannot be opened: unexpected EOF) ()\n"},
		{"uuid", []byte("id 3b241101-e2bb-4255-8caf-4136c566a962"), []byte("id 00241101-e2bb-4255-8caf-4136c566a962"), "out: line 1: “id 00241101-e2bb-4255-8caf-4136c566a962” instead of “id 3b241101-e2bb-4255-8caf-4136c566a962” (random data)\n"},
		{"png", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x07tIME\x07\xea\x0b\x17\x0c\x00\x01crc1\x00\x00\x00\x00IENDcrc3"), []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x07tIME\x07\xea\x0b\x17\x0c\x00\x09crc2\x00\x00\x00\x00IENDcrc3"), "out [tIME]: another value (time stamp)\n"},
		{"zip order", makeZip(t, entry{name: "a"}, entry{name: "b"}), makeZip(t, entry{name: "b"}, entry{name: "a"}), "out: its members stand in another order, from b (order)\nout: the members' data stand in another order (order)\n"},
		{"zip compression", makeZip(t, entry{name: "a", data: strings.Repeat("a b", 100)}), storeZip(t, "a", strings.Repeat("a b", 100)), "out!a: local method 0 flags 0x8 instead of 8 flags 0x8 (compression)\nout!a: method 0 flags 0x8 instead of 8 flags 0x8 (compression)\nout!a: the content is the same, compressed in another way (compression)\n"},
		{"file names", []byte("see /build/alpha/x.c\n"), []byte("see /build/gamma/x.c\n"), "out: line 1: “see /build/gamma” instead of “see /build/alpha” (path)\n"},
		{"an escape sequence", []byte("\x1b[31ma 1"), []byte("\x1b[31ma 2"), "out: line 1: “\\x1b[31ma 2” instead of “\\x1b[31ma 1” ()\n"},
		{"pyc", []byte("\xcb\x0d\r\n\x00\x00\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00code"), []byte("\xcb\x0d\r\n\x00\x00\x00\x00\x02\x02\x03\x04\x00\x00\x00\x00code"), "out [source time]: another value (time stamp)\n"},
		{"pdf", []byte("%PDF-1.4\n\xff\x00/CreationDate (D:20261123120001+01'00') /ID [<01><02>] end"), []byte("%PDF-1.4\n\xff\x00/CreationDate (D:20261123120002+01'00') /ID [<01><03>] end"), "out [CreationDate]: offset 17: “/CreationDate (D:20261123120002” instead of “/CreationDate (D:20261123120001” (time stamp)\nout [ID]: another value (random data)\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := files(t, c.a, c.b, nil)
			if got := show(r.Differences); got != c.want {
				t.Errorf("got:\n%swant:\n%s", got, c.want)
			}
		})
	}
}

func gzFast(t testing.TB, data []byte, mtime time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w.ModTime = mtime
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func storeZip(t testing.TB, name, data string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestXzDictionary: a block that wants a dictionary of 4 GiB is refused.
func TestXzDictionary(t *testing.T) {
	data := xzip(t, []byte("abc"))
	i := bytes.Index(data[12:], []byte{0x21, 1}) + 12
	data[i+2] = 40
	r, _, err := expand("xz", Bytes(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "dictionary") {
		t.Errorf("got %v", err)
	}
}

// TestXz reads what the xz program writes, of one block and of many.
func TestXz(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("no xz program")
	}
	file := filepath.Join(t.TempDir(), "x")
	data := bytes.Repeat([]byte("some text 0123456789\n"), 20_000)
	for _, args := range [][]string{{"-0"}, {"-9"}, {"--check=sha256", "--block-size=65536"}, {"-T2", "--block-size=100000"}} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("xz", append(args, "-c", file)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		// Two streams with padding between them, as cat a.xz b.xz gives.
		out = append(append(out, 0, 0, 0, 0), out...)
		r, _, err := expand("xz", Bytes(out))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), append(append([]byte{}, data...), data...)) {
			t.Errorf("%v: %d bytes, %v", args, got.Len(), err)
		}
	}
}
