package sbom

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	godigest "github.com/opencontainers/go-digest"
)

// Whoever looks for something else is given every file, wherever it is, and whole.
func TestEach(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	big := strings.Repeat("0123456789abcdef", 1<<19) // more than is kept in memory
	for name, data := range map[string]string{"etc/key.pem": "a key", "data": big} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	a := Artifact{Path: "app.tar.gz", SHA256: godigest.FromBytes(b.Bytes()).String(), Size: int64(b.Len()), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }}
	var seen []string
	o := Options{Scratch: t.TempDir(), Each: func(at string, r io.Reader) error {
		data, err := io.ReadAll(r)
		seen = append(seen, fmt.Sprintf("%s %d", at, len(data)))
		return err
	}}
	if _, err := Shipped(t.Context(), Release{Version: "1"}, []Artifact{a}, o); err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	if want := []string{fmt.Sprint("app.tar.gz!data ", len(big)), "app.tar.gz!etc/key.pem 5"}; !slices.Equal(seen, want) {
		t.Errorf("seen: %q", seen)
	}
	o.Each = func(string, io.Reader) error { return errors.New("full") }
	if _, err := Shipped(t.Context(), Release{Version: "1"}, []Artifact{a}, o); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("an error of who looks: %v", err)
	}
}
