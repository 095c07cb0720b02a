package sbom

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// file is one member of an archive that a test makes.
type file struct {
	name string
	data []byte
}

func text1(name, data string) file { return file{name, []byte(data)} }

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		must(t, w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Format: tar.FormatPAX}))
		_, err := w.Write(f.data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func makeZip(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		m, err := w.Create(f.name)
		must(t, err)
		_, err = m.Write(f.data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	return packed(t, &b, gzip.NewWriter(&b), data)
}

func xzip(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	must(t, err)
	return packed(t, &b, w, data)
}

func zst(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	must(t, err)
	return packed(t, &b, w, data)
}

func packed(t testing.TB, b *bytes.Buffer, w io.WriteCloser, data []byte) []byte {
	t.Helper()
	_, err := w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// makeAr writes a .deb by hand, where dpkg-deb would refuse to.
func makeAr(files ...file) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, f := range files {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", f.name, 0, 0, 0, "100644", len(f.data))
		b.Write(f.data)
		if len(f.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func artifact(name string, data []byte) Artifact {
	return Artifact{
		Path: name, Size: int64(len(data)), SHA256: fmt.Sprintf("sha256:%x", sha256.Sum256(data)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}
}

func options() Options {
	return Options{Time: time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC), Tool: "test"}
}

func shipped(t testing.TB, list ...Artifact) *BOM {
	t.Helper()
	b, err := Shipped(context.Background(), Release{Name: "app", Version: "4.2", Revision: "abc", URL: "https://me:pw@git.example.org/app"}, list, options())
	must(t, err)
	return b
}

func find(b *BOM, ref string) *cdx.Component {
	for _, c := range components(b) {
		if c.BOMRef == ref {
			return &c
		}
	}
	return nil
}

func dependsOn(b *BOM, ref string) string {
	for _, d := range deref(b.Dependencies) {
		if d.Ref == ref {
			return strings.Join(deref(d.Dependencies), " ")
		}
	}
	return ""
}

func values(c *cdx.Component, name string) string {
	var list []string
	if c != nil {
		for _, p := range deref(c.Properties) {
			if p.Name == name {
				list = append(list, p.Value)
			}
		}
	}
	return strings.Join(list, "\n")
}

// goBinary builds a program of two modules, without the network.
func goBinary(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"go.mod":            "module example.org/app\n\ngo 1.24\n\nrequire example.org/dep v1.2.3\n\nreplace example.org/dep v1.2.3 => ./dep\n",
		"cmd/app/main.go":   "package main\n\nimport \"example.org/dep\"\n\nfunc main() { println(dep.Answer()) }\n",
		"dep/go.mod":        "module example.org/dep\n\ngo 1.24\n",
		"dep/dep.go":        "package dep\n\n//go:noinline\nfunc Answer() int { return 42 }\n",
		"dep/dep_unused.go": "package dep\n",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644))
	}
	out := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-p", "1", "-trimpath", "-ldflags=-s -w", "-o", out, "./cmd/app")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	must(t, err)
	return data
}
