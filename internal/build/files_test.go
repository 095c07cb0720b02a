package build

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestFiles: files are read out of an archive as a checkout of it has them, and links lead
// nowhere else.
func TestFiles(t *testing.T) {
	var b bytes.Buffer
	zw, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	for _, x := range [][2]string{
		{"RELEASE.md", "-> docs/release.md"},
		{"docs/", ""},
		{"docs/release.md", "the process"},
		{"docs/back", "-> ../docs"},
		{"out", "-> /etc"},
		{"up", "-> ../../etc/passwd"},
		{"round", "-> round"},
		{"server", "-> machines/a"},
		{"machines/a/blueprint.yaml", "yaml"},
		{"machines/a/config/etc/app.conf", "conf"},
		{"machines/ab/blueprint.yaml", "other"},
	} {
		h := &tar.Header{Name: x[0], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(x[1]))}
		if target, is := strings.CutPrefix(x[1], "-> "); is {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		} else if strings.HasSuffix(x[0], "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(tw, x[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFiles(t.Context(), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		names string
		want  string
	}{
		{"docs/release.md", "docs/release.md=the process"},
		{"RELEASE.md", "RELEASE.md=the process"},
		{"docs/back/release.md", "docs/back/release.md=the process"},
		{"nothing", ""},
		{"server", "server/blueprint.yaml=yaml server/config/etc/app.conf=conf"},
		{"machines/a RELEASE.md", "RELEASE.md=the process machines/a/blueprint.yaml=yaml machines/a/config/etc/app.conf=conf"},
		{"out/passwd", "error: the link out leads to /etc"},
		{"up", "error: a link leads out of the working copy"},
		{"round", "error: the link round leads to round"},
		{"../RELEASE.md", "error: out of the working copy"},
	} {
		got, err := f.Read(t.Context(), strings.Fields(c.names)...)
		var list []string
		for _, name := range slices.Sorted(maps.Keys(got)) {
			list = append(list, fmt.Sprintf("%s=%s", name, got[name]))
		}
		text := strings.Join(list, " ")
		if err != nil {
			text = "error: " + err.Error()
		}
		wrong, fails := strings.CutPrefix(c.want, "error: ")
		if fails && (err == nil || !strings.Contains(text, wrong)) || !fails && text != c.want {
			t.Errorf("%s: %s\nnot: %s", c.names, text, c.want)
		}
	}
}
