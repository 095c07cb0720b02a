package sbom

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzShipped: whatever an artifact holds, there is a valid bill, the same each
// time, and what it says can be printed.
func FuzzShipped(f *testing.F) {
	pkg := text1("package/package.json", `{"name":"@a/b","version":"1.0.0","license":{"type":"MIT"}}`)
	control := makeTar(f, text1("control", "Package: a\nVersion: 1\nArchitecture: all\n"))
	for name, data := range map[string][]byte{
		"a.tgz":     gz(f, makeTar(f, pkg)),
		"a.tar.xz":  xzip(f, makeTar(f, pkg)),
		"a.tar.zst": zst(f, makeTar(f, pkg)),
		"a.zip":     makeZip(f, pkg, file{"b.tgz", gz(f, makeTar(f, pkg))}),
		"a.whl":     makeZip(f, text1("a-1.dist-info/METADATA", "Name: a\nVersion: 1\nLicense: MIT\n")),
		"a.jar":     makeZip(f, text1("META-INF/maven/g/a/pom.properties", "groupId=g\nartifactId=a\nversion=1\n"), text1("META-INF/maven/g/a/pom.xml", "<project><licenses><license><name>MIT</name></license></licenses></project>")),
		"a.deb":     makeAr(text1("debian-binary", "2.0\n"), file{"control.tar.gz", gz(f, control)}, file{"data.tar", makeTar(f, pkg)}),
		"a.bz2":     []byte("BZh91AY&SY"),
		"a":         []byte("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 60)),
		"a.exe":     []byte("MZ" + strings.Repeat("\x00", 70)),
		"a.mac":     []byte("\xca\xfe\xba\xbe\x00\x00\x00\x02" + strings.Repeat("\x00", 60)),
		"a.tar":     sparseTar(),
	} {
		f.Add(name, data)
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		o := options()
		o.MaxBytes, o.MaxMembers, o.Scratch = 4<<20, 1000, t.TempDir()
		bill := func() []byte {
			b, err := Shipped(context.Background(), Release{Name: name}, []Artifact{artifact(name, data)}, o)
			must(t, err)
			out, err := Marshal(b)
			must(t, err)
			must(t, WriteLicences(&bytes.Buffer{}, Licences(b, nil)))
			if list := Diff(b, b); len(list) != 0 {
				t.Fatalf("differs from itself: %v", list)
			}
			return out
		}
		one := bill()
		if !bytes.Equal(one, bill()) {
			t.Fatal("two bills of one artifact")
		}
		if _, err := Parse(one); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(o.Scratch)
		must(t, err)
		if len(left) != 0 {
			t.Fatalf("scratch files are left: %v", left)
		}
	})
}

// FuzzMetadata mutates the small formats, without an archive around them.
func FuzzMetadata(f *testing.F) {
	f.Add("package/package.json", []byte(`{"name":"a","version":"1.0.0","license":"MIT","licenses":[["x"],{"type":"y"}]}`))
	f.Add("node_modules/@a/b/package.json", []byte(`{"name":"@a/b","version":"1.0.0"}`))
	f.Add("a-1.dist-info/METADATA", []byte("Name: a\nVersion: 1\nClassifier: License :: OSI Approved :: MIT License\n"))
	f.Add("PKG-INFO", []byte("Name: a\nVersion: 1\n"))
	f.Add("META-INF/maven/g/a/pom.properties", []byte("groupId=g\nartifactId=a\nversion=1\n"))
	f.Add("META-INF/maven/g/a/pom.xml", []byte("<project><licenses><license><name>MIT</name></license></licenses></project>"))
	f.Add("control", []byte("Package: a\nVersion: 1\nArchitecture: all\n"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		s := &scan{ctx: t.Context(), bytes: 1 << 20, members: 100, noted: map[string]bool{}, poms: map[string][]string{}}
		it := item{at: "a!" + text(name), name: name, in: bytes.NewReader(data), depth: 1, box: &box{at: "a", name: "a.jar"}}
		must(t, s.metadata(it))
		must(t, s.debian(it, it.at, data))
		for _, p := range s.joined() {
			u := p.purl.String()
			if !strings.HasPrefix(u, "pkg:"+p.purl.kind+"/") || strings.ContainsAny(u, " \n\"<>|\\") || !utf8.ValidString(u) || p.name == "" {
				t.Fatalf("%q %q", u, p.name)
			}
			for _, l := range p.licences {
				if text(l) != l || l == "" {
					t.Fatalf("licence %q", l)
				}
			}
		}
	})
}

// FuzzCopyright: a copyright file gives names or a reason, never both or neither.
func FuzzCopyright(f *testing.F) {
	f.Add([]byte("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: MIT\n text\n"))
	f.Add([]byte("Format-Specification: dep5\nLicense: GPL\n"))
	f.Add([]byte("This is prose.\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		names, err := parseCopyright(data)
		if (len(names) > 0) == (err != nil) {
			t.Fatalf("%q %v", names, err)
		}
		for _, n := range names {
			if n == "" || text(n) != n {
				t.Fatalf("%q", n)
			}
		}
	})
}

// FuzzAddress: an address names a package whose URL has the same name without
// its version, or none.
func FuzzAddress(f *testing.F) {
	f.Add("https://proxy.golang.org/golang.org/x/mod/@v/v0.43.0.zip")
	f.Add("https://corp/npm/@a/b/-/b-1.0.0.tgz")
	f.Add("https://files.pythonhosted.org/packages/a/Foo_Bar-1.0-py3-none-any.whl")
	f.Add("https://repo1.maven.org/maven2/a/b/c/1.0/c-1.0-sources.jar")
	f.Fuzz(func(t *testing.T, address string) {
		p := fromURL(address)
		if p == nil {
			return
		}
		u := p.String()
		q := *p
		q.version = ""
		if unversioned(u) != q.String() || p.version == "" || strings.ContainsAny(u, " \n\"<>|\\") {
			t.Fatalf("%s: %s", address, u)
		}
	})
}

// FuzzParse: a document is refused, or is written as something that is read again.
func FuzzParse(f *testing.F) {
	p, sum, downloads := server()
	b, err := Server(p, sum, downloads, options())
	must(f, err)
	data, err := Marshal(b)
	must(f, err)
	f.Add(data)
	f.Add([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			return
		}
		_ = Diff(b, nil)
		must(t, WriteLicences(&bytes.Buffer{}, Licences(b, nil)))
	})
}
