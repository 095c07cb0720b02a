package build

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/blueprint"
	"trysail/internal/tree"
	"trysail/internal/tree/treetest"
	"trysail/release"
)

// handOn collects what is in a directory and lays it into another, as one step does for the
// next.
func handOn(t *testing.T, from, into string, out []string, set func(*ArtifactWriter)) {
	t.Helper()
	found, err := Collect(from, out, Limits{Files: 100, Bytes: 1 << 30}, release.CheckPath)
	if err != nil {
		t.Fatal(err)
	}
	was, err := tree.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer was.Close()
	root, err := tree.Open(into)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	name := map[string]string{}
	l := NewArtifactWriter(root, func(dg string) (io.ReadCloser, error) { return was.Open(name[dg]) })
	set(l)
	for _, a := range found.Artifacts(blueprint.User{}) {
		name[a.Digest] = a.Path
		if err := errors.Join(release.Finished{Outputs: []release.Artifact{a}}.Over(), l.Write(a)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStepsHandOnFilesAsTheyAre: type, mode, owner, names, holes, attributes and times.
func TestStepsHandOnFilesAsTheyAre(t *testing.T) {
	top := treetest.Dir(t)
	treetest.Make(t, top+"/was/out")
	if err := os.Mkdir(top+"/is", 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, top+"/is/out/plain", "of the source") // gives way
	put(t, top+"/is/out/source", "stays")
	as := func(owner func(release.Artifact) (int, int), attributes string) func(*ArtifactWriter) {
		return func(l *ArtifactWriter) {
			l.Replace, l.Owner = true, owner
			l.Keep = func(name string) bool { return strings.HasPrefix(name, attributes) }
		}
	}
	handOn(t, top+"/was", top+"/is", []string{"out"}, as(func(a release.Artifact) (int, int) {
		uid, gid, _ := a.Belongs()
		return uid, gid
	}, ""))
	was := treetest.Describe(t, top+"/was/out")
	newest := was["bin/one"].Modified // of what is in the directory itself, which no list names
	is := treetest.Describe(t, top+"/is/out")
	if is["source"].Size != int64(len("stays")) {
		t.Errorf("what the source has beside them: %+v", is["source"])
	}
	delete(is, "source")
	treetest.Equal(t, was, is, func(name string, e *treetest.Entry) {
		switch {
		case name == ".":
			e.Modified = newest
		case e.Size >= 64<<10 || name == "all-hole":
			e.Holes = true
		}
	})

	// A user of a plain step gets neither the files of others nor capabilities.
	if err := os.Mkdir(top+"/plain", 0o755); err != nil {
		t.Fatal(err)
	}
	handOn(t, top+"/was", top+"/plain", []string{"out"}, as(func(release.Artifact) (int, int) { return 4242, 4242 }, "user."))
	for name, e := range treetest.Describe(t, top+"/plain/out") {
		if e.UID != 4242 || e.GID != 4242 || strings.Contains(e.Attributes, "security") {
			t.Errorf("%s: %+v", name, e)
		}
	}

	// A person's copy has no set-id bits, also where the person is root.
	if err := os.Mkdir(top+"/fetched", 0o755); err != nil {
		t.Fatal(err)
	}
	handOn(t, top+"/was", top+"/fetched", []string{"out"}, func(*ArtifactWriter) {})
	treetest.Equal(t, was, treetest.Describe(t, top+"/fetched/out"), func(name string, e *treetest.Entry) {
		if e.UID, e.GID, e.Mode = 0, 0, e.Mode&^0o6000; name == "." {
			e.Modified = newest
		}
		kept := ""
		for a := range strings.FieldsSeq(e.Attributes) {
			if strings.HasPrefix(a, "user.") {
				kept = a + " "
			}
		}
		e.Attributes, e.Holes = kept, e.Size >= 64<<10
	})
}

// TestAttackSecondNames: a list of a hostile machine cannot name a file that it did not bring.
func TestAttackSecondNames(t *testing.T) {
	top := t.TempDir()
	put(t, top+"/root/secret", "secret")
	root, err := tree.Open(top + "/root")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	l := NewArtifactWriter(root, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("brought")), nil })
	dg := "sha256:" + strings.Repeat("0", 64)
	for _, a := range []release.Artifact{
		{Path: "a", Digest: dg, Mode: "0644"},
		{Path: "another-digest", Digest: "sha256:" + strings.Repeat("1", 64), Mode: "0644", HardLink: "a"},
		{Path: "of-the-source", Digest: dg, Mode: "0644", HardLink: "secret"},
		{Path: "outside", Digest: dg, Mode: "0644", HardLink: "../root/secret"},
		{Path: "second", Digest: dg, Mode: "0644", HardLink: "a"},
	} {
		if err := l.Write(a); err != nil {
			t.Fatal(err)
		}
	}
	for name, links := range map[string]uint64{"a": 2, "second": 2, "another-digest": 1, "of-the-source": 1, "outside": 1, "secret": 1} {
		data, err := os.ReadFile(filepath.Join(top, "root", name))
		if e := treetest.Describe(t, top+"/root")[name]; err != nil || e.Links != links || (string(data) == "secret") != (name == "secret") {
			t.Errorf("%s: %q with %d names (%v)", name, data, e.Links, err)
		}
	}
	was := treetest.Describe(t, top+"/root")
	for _, a := range []release.Artifact{
		{Path: "a", Digest: dg, Mode: "0600", Modified: time.Unix(1, 0)}, {Path: "secret", Link: "a", Modified: time.Unix(1, 0)},
	} {
		if err := l.Write(a); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s is written over: %v", a.Path, err)
		}
	}
	treetest.Equal(t, was, treetest.Describe(t, top+"/root"), nil)
}
