package evidence

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"trysail/release"
)

// goldOf makes gold of files by name, all with the same bytes, and ships it.
func (x *story) goldOf(names ...string) {
	x.t.Helper()
	x.begin()
	x.run("compile", "a", "obj/a", "object")
	var list []release.Artifact
	for _, n := range names {
		list = append(list, release.Artifact{Path: n, Digest: x.blob("unit"), Size: 4, Mode: "0644"})
	}
	r := release.Report{Machine: "a"}
	r.Item, r.Epoch, r.Log = "gold", x.must(release.Granted{Item: "gold", Machine: "a"}), x.blob("log of gold")
	if release.FitsEvent(list) {
		r.Outputs = list
	} else {
		var b bytes.Buffer
		m, err := release.WriteList(&b, list)
		if err != nil {
			x.t.Fatal(err)
		}
		x.blobs[m.Tree] = b.Bytes()
		r.Tree, r.Files, r.Bytes, r.First = m.Tree, m.Files, m.Bytes, m.First
	}
	x.must(x.s.Result(r))
	epoch := x.must(release.Granted{Item: "gold", Machine: "b", Confirm: true})
	x.must(release.Confirmed{Epoch: epoch, Verdict: release.Identical, Log: x.blob("second log")})
	x.sign("tried", "ann", release.Approve)
	x.sign("tried", "bob", release.Approve)
	x.sign("legal", "eve", release.Approve)
	x.must(release.Shipped{})
}

// TestBundleOfManyFiles: gold of any number of files is signed for, and its bundle verifies:
// the ledger, the statements and the provenance name the list of the files, which is in the
// bundle. Any change of the list or of a file is seen.
func TestBundleOfManyFiles(t *testing.T) {
	for _, n := range []int{release.Few, release.Few + 1, 6000, 100_000} {
		x := newStory(t, "4.2")
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("dist/%06d", i))
		}
		x.goldOf(names...)
		for i, line := range x.lines {
			if len(line) > 200_000 {
				t.Errorf("%d files: event %d has %d bytes", n, i+1, len(line))
			}
		}
		b := x.bundle()
		r := Verify(b, x.trust())
		if !r.Verified || len(r.Shipped) != n {
			t.Fatalf("%d files: %v", n, r.Problems)
		}
		if n <= release.Few {
			if len(r.Gold) != n || b[goldFile] != nil {
				t.Errorf("%d files: gold is %d subjects, the list is there: %v", n, len(r.Gold), b[goldFile] != nil)
			}
			continue
		}
		if len(r.Gold) != 1 || r.Gold[0].Name != goldFile || len(b[readmeFile].Data) > 20_000 {
			t.Errorf("%d files: gold is %v, the readme has %d bytes", n, r.Gold, len(b[readmeFile].Data))
		}
		var statement string
		for name, f := range b {
			if strings.HasPrefix(name, signOffDir) && strings.HasSuffix(name, "ann.json") {
				statement = string(f.Data)
			}
		}
		for _, want := range []string{strings.TrimPrefix(x.s.Gold.Tree, "sha256:"), fmt.Sprintf(`"files": %d`, n), fmt.Sprintf(`"bytes": %d`, 4*n), "dist/000000"} {
			if !strings.Contains(statement, want) {
				t.Errorf("the statement does not say %s:\n%.2000s", want, statement)
			}
		}
		if n > 6000 {
			continue
		}
		for what, c := range map[string]struct {
			do   func(fstest.MapFS)
			want string
		}{
			"a line of the list changed": {func(b fstest.MapFS) {
				b[goldFile] = &fstest.MapFile{Data: bytes.Replace(b[goldFile].Data, []byte("0644"), []byte("0755"), 1)}
			}, "is not the list"},
			"no list": {func(b fstest.MapFS) { delete(b, goldFile) }, "is not the list"},
			"a file changed": {func(b fstest.MapFS) {
				b["artifacts/dist/000007"] = &fstest.MapFile{Data: []byte("evil")}
			}, "is not gold"},
			"a file is gone":  {func(b fstest.MapFS) { delete(b, "artifacts/dist/000007") }, "gold has it"},
			"a file too many": {func(b fstest.MapFS) { b["artifacts/dist/x"] = &fstest.MapFile{Data: []byte("x")} }, "does not speak of it"},
		} {
			changed := fstest.MapFS{}
			for name, f := range b {
				changed[name] = f
			}
			c.do(changed)
			r := Verify(changed, x.trust())
			if r.Verified || !strings.Contains(fmt.Sprint(r.Problems), c.want) {
				t.Errorf("%s: %.2000v", what, r.Problems)
			}
		}
	}
}

// TestListOfFewFiles: a list that the ledger does not speak of has no place.
func TestListOfFewFiles(t *testing.T) {
	x := newStory(t, "4.2")
	x.goldOf("dist/app")
	b := x.bundle()
	b[goldFile] = &fstest.MapFile{Data: []byte("x\n")}
	if r := Verify(b, x.trust()); r.Verified || !strings.Contains(fmt.Sprint(r.Problems), goldFile+": the ledger does not speak of it") {
		t.Error(r.Problems)
	}
}

// TestBundleOfOddNames: a bundle holds what a file system and tar can hold, and sha256sum
// reads its list.
func TestBundleOfOddNames(t *testing.T) {
	x := newStory(t, "4.2")
	names := []string{"-rf", "dist/a\nb", `dist/dev-disk-by\x2dlabel.mount`, "dist/e\x1b[31m", "dist/r\rn", "dist/two words", "dist/ä", `dist/\n`, "dist/" + strings.Repeat("x", 255)}
	x.goldOf(names...)
	b := x.bundle()
	if r := Verify(b, x.trust()); !r.Verified || len(r.Shipped) != len(names) {
		t.Fatal(r.Problems)
	}
	dir := t.TempDir()
	for name, f := range b {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if r := Verify(os.DirFS(dir), x.trust()); !r.Verified {
		t.Error(r.Problems)
	}
	if path, err := exec.LookPath("sha256sum"); err == nil {
		c := exec.Command(path, "--check", "--strict", "--quiet", sumsFile)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("sha256sum: %v\n%s", err, out)
		}
	}
	for text, want := range map[string]string{
		strings.Repeat("0", 64) + `  a\b` + "\n":                          "as sha256sum writes it",
		`\` + strings.Repeat("0", 64) + "  a\n":                           "as sha256sum writes it",
		`\` + strings.Repeat("0", 64) + `  a\x` + "\n":                    "as sha256sum writes it",
		strings.Repeat("0", 64) + "  ../a\n":                              "leads out",
		`\` + strings.Repeat("0", 64) + `  artifacts/../..\n/../b` + "\n": "leads out",
	} {
		if _, err := readSums(sumsFile, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
