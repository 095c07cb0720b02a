package rebuild

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/klauspost/compress/zstd"

	"trysail/blueprint"
	"trysail/internal/depot"
	"trysail/internal/memorytest"
)

// TestAttackPackagesTakeMemory: a blueprint has many packages of some kilobytes, each of which has
// as large a control part as a package may have. What is known of all packages stays in memory.
func TestAttackPackagesTakeMemory(t *testing.T) {
	dep, err := depot.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{Options: Options{Depot: dep, Blueprint: &blueprint.Blueprint{}, Sum: blueprint.Sum{}, Log: slog.New(slog.DiscardHandler), Progress: func(string) {}}, root: t.TempDir(), status: map[string][]byte{}}
	m.Blueprint.Machine.Architecture = "amd64"
	junk := make([]byte, 30<<20)
	for i := range 30 {
		p := blueprint.Package{Name: fmt.Sprintf("p%d", i), Version: "1", Architecture: "amd64", File: fmt.Sprintf("p%d_1_amd64.deb", i)}
		control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: amd64\n", p.Name)
		var deb bytes.Buffer
		deb.WriteString("!<arch>\n")
		part := func(name string, data []byte) {
			fmt.Fprintf(&deb, "%-16s%-12s%-6s%-6s%-8s%-10d`\n%s", name, "0", "0", "0", "100644", len(data), data)
			if len(data)%2 == 1 {
				deb.WriteByte('\n')
			}
		}
		part("debian-binary", []byte("2.0\n"))
		part("control.tar.zst", packed(t, map[string][]byte{"control": []byte(control), "junk": junk, "more": junk}))
		part("data.tar.zst", packed(t, nil))
		dg, err := dep.PutBytes(t.Context(), deb.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		m.Blueprint.Packages = append(m.Blueprint.Packages, p)
		m.Sum[p.DebName()] = dg
	}
	most := memorytest.InUse(func() { err = m.unpack(t.Context()) })
	if most > 1500<<20 || err == nil {
		t.Errorf("30 packages take %d MB of memory (%v)", most>>20, err)
	}
}

// packed is an archive of files.
func packed(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	for name, data := range files {
		err = errors.Join(err, tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}))
		_, werr := tw.Write(data)
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
