package sbom

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Whatever a bill holds, it is valid by CycloneDX's own schema, which the
// library carries, and by our invariants, which Parse checks.
func validate(t testing.TB, b *BOM) {
	t.Helper()
	data, err := Marshal(b)
	must(t, err)
	if _, err := Parse(data); err != nil {
		t.Fatal(err)
	}
	s, err := schema()
	must(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	must(t, err)
	if err := s.Validate(doc); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
}

var schema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, file := range map[string]string{
		"http://cyclonedx.org/schema/bom-1.6.schema.json":  "bom-1.6.schema.json",
		"http://cyclonedx.org/schema/spdx.schema.json":     "spdx.schema.json",
		"http://cyclonedx.org/schema/jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "schema", file))
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		if err := c.AddResource(name, doc); err != nil {
			return nil, err
		}
	}
	return c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
})

// The test of bills would pass with a schema that takes anything.
func TestTheSchemaRefuses(t *testing.T) {
	b := shipped(t, artifact("a", []byte("hello")))
	data, err := Marshal(b)
	must(t, err)
	s, err := schema()
	must(t, err)
	for _, c := range [][2]string{{`"type": "file"`, `"type": "thing"`}, {"urn:uuid:", "uuid:"}, {`"alg": "SHA-256"`, `"alg": "sha256"`}, {"2026-11-26T05:00:00Z", "yesterday"}} {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(strings.Replace(string(data), c[0], c[1], 1)))
		must(t, err)
		if s.Validate(doc) == nil {
			t.Errorf("%s is valid", c[1])
		}
	}
}

func TestGoProgramInATarInAZip(t *testing.T) {
	bin := goBinary(t)
	tgz := gz(t, makeTar(t, text1("app/README", "hello"), file{"app/bin/app", bin}))
	forms := map[string][]byte{
		"app.zip":     makeZip(t, file{"linux/app.tar.gz", tgz}),
		"app.tar.xz":  xzip(t, makeTar(t, file{"app", bin})),
		"app.tar.zst": zst(t, makeTar(t, file{"app", bin})),
		"app":         bin,
	}
	places := map[string]string{"app.zip": "app.zip!linux/app.tar.gz!app/bin/app", "app.tar.xz": "app.tar.xz!app", "app.tar.zst": "app.tar.zst!app", "app": "app"}
	info, err := buildinfo.Read(bytes.NewReader(bin))
	must(t, err)
	std := "pkg:golang/stdlib@" + strings.TrimPrefix(strings.Fields(info.GoVersion)[0], "go")
	for name, data := range forms {
		b := shipped(t, artifact(name, data))
		validate(t, b)
		a := find(b, "artifact:"+name)
		if u := values(a, propUnread); u != "" {
			t.Errorf("%s: unread: %s", name, u)
		}
		ref := "binary:" + places[name]
		if dependsOn(b, "artifact:"+name) != ref {
			t.Fatalf("%s: the artifact depends on %q", name, dependsOn(b, "artifact:"+name))
		}
		if got, want := dependsOn(b, ref), "pkg:golang/example.org/dep "+std; got != want {
			t.Errorf("%s: the program depends on %q, want %q", name, got, want)
		}
		if c := find(b, ref); c.PackageURL != "pkg:golang/example.org/app#cmd/app" || values(c, propGo) != info.GoVersion {
			t.Errorf("%s: program: %+v", name, c)
		}
		if c := find(b, "pkg:golang/example.org/dep"); values(c, propReplaces) != "example.org/dep@v1.2.3 (by a directory)" {
			t.Errorf("%s: replaced: %q", name, values(c, propReplaces))
		}
	}
}

func TestGoModules(t *testing.T) {
	sum := "h1:" + strings.Repeat("A", 43) + "="
	p, err := goProgram("app", &debug.BuildInfo{
		GoVersion: "go1.26.8 X:nodwarf5", Path: "example.org/app", Main: debug.Module{Path: "example.org/app", Version: "v1.0.0+dirty"},
		Deps: []*debug.Module{
			{Path: "github.com/BurntSushi/toml", Version: "v1.5.0", Sum: sum},
			{Path: "example.org/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/fork", Version: "v2.0.0+incompatible", Sum: sum}},
		},
	})
	must(t, err)
	var got []string
	for _, m := range p.modules {
		got = append(got, m.purl.String()+" "+m.digest+" "+m.replaces)
	}
	want := "pkg:golang/stdlib@1.26.8  \npkg:golang/github.com/BurntSushi/toml@v1.5.0 " + sum + " \npkg:golang/example.org/fork@v2.0.0%2Bincompatible " + sum + " example.org/old@v1.0.0"
	if strings.Join(got, "\n") != want || p.main.String() != "pkg:golang/example.org/app@v1.0.0%2Bdirty" {
		t.Errorf("%s\nmain %s", strings.Join(got, "\n"), p.main)
	}
	if p, err := goProgram("app", &debug.BuildInfo{GoVersion: "devel go1.27-abcdef", Path: "command-line-arguments"}); err != nil || len(p.modules) != 0 || p.main.kind != "" {
		t.Errorf("a program without modules: %+v %v", p, err)
	}
	if _, err := goProgram("app", &debug.BuildInfo{Deps: []*debug.Module{{Path: "../../etc", Version: "v1"}}}); err == nil {
		t.Error("a module path that climbs is taken")
	}
}

// Each row is an artifact and what the bill says of it: packages, then what is unread.
func TestPackagesInArtifacts(t *testing.T) {
	npm := func(name, version, more string) string {
		return `{"name":"` + name + `","version":"` + version + `"` + more + `}`
	}
	pom := "#Generated\ngroupId=org.example\nartifactId=lib\nversion=1.0\n"
	control := makeTar(t, text1("./control", "Package: tool\nVersion: 1:2.0-1\nArchitecture: amd64\nDescription: x\n"))
	deb := func(data ...file) []byte {
		return makeAr(text1("debian-binary", "2.0\n"), file{"control.tar.xz", xzip(t, control)}, file{"data.tar.gz", gz(t, makeTar(t, data...))})
	}
	deep := gz(t, makeTar(t, text1("node_modules/a/package.json", npm("a", "1.0.0", ""))))
	nest := func(n int) []byte {
		data := deep
		for range n {
			data = makeZip(t, file{"x.tgz", data})
		}
		return data
	}
	encrypted := makeZip(t, text1("secret", "x"))
	for _, sig := range []string{"PK\x03\x04", "PK\x01\x02"} {
		i := bytes.Index(encrypted, []byte(sig))
		encrypted[i+6+2*strings.Count(sig, "\x01")] |= 1
	}
	torn := gz(t, makeTar(t, text1("a", strings.Repeat("x", 5000)), text1("node_modules/a/package.json", npm("a", "1.0.0", ""))))
	for _, c := range []struct {
		what, name string
		data       []byte
		refs       []string
		own        string // references of the team's own
		licences   string // of the first
		unread     []string
	}{
		{what: "an npm package", name: "app-1.0.0.tgz", data: gz(t, makeTar(t, text1("package/package.json", npm("@acme/app", "1.0.0", `,"license":"MIT"`)))), refs: []string{"pkg:npm/%40acme/app@1.0.0"}, own: "pkg:npm/%40acme/app@1.0.0", licences: "MIT"},
		{what: "what an npm package bundles", name: "app.zip", data: makeZip(t, text1("node_modules/b/package.json", npm("b", "2.0.0", `,"licenses":[{"type":"BSD"},"MIT"]`)), text1("app/node_modules/@x/y/package.json", npm("@x/y", "0.1.0-beta.1", ""))), refs: []string{"pkg:npm/%40x/y@0.1.0-beta.1", "pkg:npm/b@2.0.0"}},
		{what: "a package.json that configures a directory", name: "a.zip", data: makeZip(t, text1("dist/esm/package.json", `{"type":"module"}`))},
		{what: "a package.json in test data", name: "a.zip", data: makeZip(t, text1("node_modules/b/test/fixture/package.json", npm("c", "1.0.0", ""))), unread: []string{"a.zip!node_modules/b/test/fixture/package.json: a package.json that is not where npm puts"}},
		{what: "a package.json with a hostile name", name: "a.zip", data: makeZip(t, text1("node_modules/b/package.json", npm("../../b", "1.0.0", ""))), unread: []string{"no valid name"}},
		{what: "a package.json that is no JSON", name: "a.zip", data: makeZip(t, text1("package.json", "{")), unread: []string{"cannot be read"}},
		{what: "a wheel", name: "My_App-1.0-py3-none-any.whl", data: makeZip(t, text1("My_App-1.0.dist-info/METADATA", "Metadata-Version: 2.4\nName: My_App\nVersion: 1.0\nLicense-Expression: Apache-2.0\nLicense: no\n\nName: other\n")), refs: []string{"pkg:pypi/my-app@1.0"}, own: "pkg:pypi/my-app@1.0", licences: "Apache-2.0"},
		{what: "installed Python packages", name: "venv.tar", data: makeTar(t, text1("lib/python3/site-packages/six-1.16.0.dist-info/METADATA", "Name: six\nVersion: 1.16.0\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n")), refs: []string{"pkg:pypi/six@1.16.0"}, licences: "MIT License"},
		{what: "a jar", name: "lib-1.0.jar", data: makeZip(t, text1("META-INF/maven/org.example/lib/pom.properties", pom), text1("META-INF/maven/org.example/lib/pom.xml", `<project xmlns="http://maven.apache.org/POM/4.0.0"><licenses><license><name>Apache License,
 2.0</name></license></licenses></project>`)), refs: []string{"pkg:maven/org.example/lib@1.0"}, own: "pkg:maven/org.example/lib@1.0", licences: "Apache License, 2.0"},
		{what: "a jar in a war", name: "app.war", data: makeZip(t, file{"WEB-INF/lib/lib-1.0.jar", makeZip(t, text1("META-INF/maven/org.example/lib/pom.properties", pom))}, file{"WEB-INF/lib/x.jar", makeZip(t, text1("X.class", "\xca\xfe\xba\xbe\x00\x00\x00\x34"))}), refs: []string{"pkg:maven/org.example/lib@1.0"}, unread: []string{"app.war!WEB-INF/lib/x.jar: a Java archive that does not name", "app.war: a Java archive that does not name"}},
		{what: "a Debian package", name: "tool.deb", data: deb(text1("./usr/share/tool/node_modules/a/package.json", npm("a", "1.0.0", ""))), refs: []string{"pkg:deb/tool@1:2.0-1?arch=amd64", "pkg:npm/a@1.0.0"}, own: "pkg:deb/tool@1:2.0-1?arch=amd64"},
		{what: "three archives deep", name: "a.zip", data: nest(2), refs: []string{"pkg:npm/a@1.0.0"}},
		{what: "four archives deep", name: "a.zip", data: nest(3), unread: []string{"a.zip!x.tgz!x.tgz!x.tgz: an archive in 3 others is not opened"}},
		{what: "a package in a package in an archive", name: "a.tar", data: makeTar(t, file{"tool.deb", deb(file{"lib.zip", makeZip(t, text1("node_modules/a/package.json", npm("a", "1.0.0", "")))})}), refs: []string{"pkg:deb/tool@1:2.0-1?arch=amd64", "pkg:npm/a@1.0.0"}},
		{what: "compressed over and over", name: "a.gz", data: gz(t, gz(t, gz(t, gz(t, gz(t, deep))))), unread: []string{"more than 3 archives around it"}},
		{what: "an encrypted member", name: "a.zip", data: encrypted, unread: []string{"a.zip!secret: it is encrypted"}},
		{what: "torn", name: "a.tgz", data: torn[:len(torn)-30], unread: []string{"a.tgz"}},
		{what: "native code", name: "a.tar", data: makeTar(t, text1("bin/true", "\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 100))), unread: []string{"a.tar!bin/true: native code"}},
		{what: "an archive of another kind", name: "a.7z", data: []byte("7z\xbc\xaf\x27\x1c and so on"), unread: []string{"a.7z: a 7z archive"}},
		{what: "no archive", name: "a.tar.gz", data: []byte("hello"), unread: []string{"by its name an archive"}},
		{what: "a static library", name: "a.a", data: makeAr(text1("x.o", "object")), unread: []string{"a static library"}},
		{what: "a sparse member", name: "a.tar", data: sparseTar(), unread: []string{"a.tar!big: a sparse member"}},
		{what: "a file without anything in it", name: "a.txt", data: []byte("hello")},
		{what: "an empty file", name: "empty", data: nil},
		{what: "names that would hide", name: "a\u202egnp.zip", data: makeZip(t, text1("node_modules/b/package.json\n", "x"), text1("x\x1b[2J.7z", "7z\xbc\xaf\x27\x1c")), unread: []string{"!x\ufffd[2J.7z: a 7z archive"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := shipped(t, artifact(c.name, c.data))
			validate(t, b)
			var refs, own []string
			for _, x := range components(b) {
				if strings.HasPrefix(x.BOMRef, "pkg:") {
					refs = append(refs, x.BOMRef)
					if property(x, propOwn) == "true" {
						own = append(own, x.BOMRef)
					}
				}
			}
			if strings.Join(refs, " ") != strings.Join(c.refs, " ") || strings.Join(own, " ") != c.own {
				t.Errorf("packages %q, own %q; want %q, %q", refs, own, c.refs, c.own)
			}
			if c.licences != "" {
				l := find(b, c.refs[0]).Licenses
				if l == nil || (*l)[0].License.Name != c.licences {
					t.Errorf("licences: %+v", l)
				}
			}
			u := values(find(b, "artifact:"+text(c.name)), propUnread)
			for _, w := range c.unread {
				if !strings.Contains(u, w) {
					t.Errorf("unread: %q lacks %q", u, w)
				}
			}
			if len(c.unread) == 0 && u != "" {
				t.Errorf("unread: %q", u)
			}
			data, err := Marshal(b)
			must(t, err)
			if strings.ContainsAny(string(data), "\x1b\u202e") || strings.Contains(string(data), "me:pw") {
				t.Error("the bill holds what must not be printed")
			}
			if c.unread != nil != strings.Contains(string(data), `"incomplete"`) {
				t.Error("whether the artifact is incomplete is not said")
			}
		})
	}
}

// sparseTar is a member of the old GNU kind that claims 8 EiB.
func sparseTar() []byte {
	h := make([]byte, 512)
	copy(h, "big")
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	copy(h[148:], "        ")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[483:], "77777777777\x00")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	return append(h, make([]byte, 1024)...)
}

func TestDebianPackage(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not there")
	}
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "p/DEBIAN"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "p/usr/bin"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "p/DEBIAN/control"), []byte("Package: app\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: A <a@example.org>\nDescription: x\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "p/usr/bin/app"), goBinary(t), 0o755))
	for _, z := range []string{"xz", "gzip", "zstd", "none"} {
		out := filepath.Join(dir, "app.deb")
		if text, err := exec.Command("dpkg-deb", "-Z"+z, "--root-owner-group", "-b", filepath.Join(dir, "p"), out).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, text)
		}
		data, err := os.ReadFile(out)
		must(t, err)
		a := artifact("app.deb", data)
		a.Open = onDisk(out)
		b := shipped(t, a)
		validate(t, b)
		if got := dependsOn(b, "artifact:app.deb"); got != "binary:app.deb!./usr/bin/app pkg:deb/app@1.0-1?arch=amd64" || values(find(b, a.Path), propUnread) != "" {
			t.Errorf("%s: %q %q", z, got, values(find(b, "artifact:app.deb"), propUnread))
		}
	}
}

// A bomb ends the look into its artifact, by name; what was found before stays,
// and the next artifact is read.
func TestBombs(t *testing.T) {
	zeros := gz(t, make([]byte, 8<<20))
	bomb := makeTar(t, text1("node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`), file{"bomb.tar.gz", gz(t, zeros)}, text1("node_modules/b/package.json", `{"name":"b","version":"1.0.0"}`))
	// A tar, so that it is read to its end.
	big := gz(t, makeTar(t, file{"zeros", make([]byte, 8<<20)}))
	var list []file
	for range 60 {
		list = append(list, text1("x", ""))
	}
	many := makeTar(t, list...)
	o := options()
	o.MaxBytes, o.MaxMembers = 1<<20, 50
	b, err := Shipped(context.Background(), Release{}, []Artifact{
		artifact("a.tar", bomb), artifact("b.tar", makeTar(t, text1("node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`), file{"big.tgz", big}, text1("node_modules/b/package.json", `{"name":"b","version":"1.0.0"}`))), artifact("many.tar", many), artifact("z.zip", makeZip(t, text1("node_modules/z/package.json", `{"name":"z","version":"1.0.0"}`))),
	}, o)
	must(t, err)
	validate(t, b)
	if u := values(find(b, "artifact:b.tar"), propUnread); !strings.Contains(u, "b.tar!big.tgz") || !strings.Contains(u, "expand beyond 1048576 bytes") || !strings.Contains(u, "not looked into") {
		t.Errorf("bomb: %q", u)
	}
	if got := dependsOn(b, "artifact:b.tar"); got != "pkg:npm/a@1.0.0" {
		t.Errorf("beside the bomb: %q", got)
	}
	if u := values(find(b, "artifact:many.tar"), propUnread); !strings.Contains(u, "too many members") {
		t.Errorf("many: %q", u)
	}
	if got := dependsOn(b, "artifact:z.zip"); got != "pkg:npm/z@1.0.0" {
		t.Errorf("after the bomb: %q", got)
	}
}

func TestTheBillIsTheSameEachTime(t *testing.T) {
	list := []Artifact{
		artifact("b.zip", makeZip(t, text1("node_modules/a/package.json", `{"name":"a","version":"1.0.0","license":"MIT"}`))),
		artifact("a.zip", makeZip(t, text1("node_modules/a/package.json", `{"name":"a","version":"1.0.0","license":"ISC"}`), text1("x/node_modules/a/package.json", `{"name":"a","version":"1.0.0","license":"MIT"}`))),
	}
	one, err := Marshal(shipped(t, list[0], list[1]))
	must(t, err)
	two, err := Marshal(shipped(t, list[1], list[0]))
	must(t, err)
	if !bytes.Equal(one, two) {
		t.Errorf("two bills:\n%s\n%s", one, two)
	}
	b, err := Parse(one)
	must(t, err)
	// One package URL, two licences: two components, and no one's place is lost.
	if dependsOn(b, "artifact:a.zip") != "pkg:npm/a@1.0.0 pkg:npm/a@1.0.0~2" || dependsOn(b, "artifact:b.zip") != "pkg:npm/a@1.0.0~2" {
		t.Errorf("%s", one)
	}
	if again, err := Marshal(b); err != nil || !bytes.Equal(one, again) {
		t.Error("what was read is written otherwise", err)
	}
	other, err := Marshal(shipped(t, list[0]))
	must(t, err)
	if b2, err := Parse(other); err != nil || b2.SerialNumber == b.SerialNumber {
		t.Error("another bill has the same serial number")
	}
}

func TestArtifactsAreWhatTheyShouldBe(t *testing.T) {
	good := artifact("a", []byte("hello"))
	for _, c := range []struct {
		want string
		make func(a *Artifact)
	}{
		{"its digest is", func(a *Artifact) { a.SHA256 = artifact("b", []byte("hallo")).SHA256 }},
		{"has not the 4 bytes", func(a *Artifact) { a.Size = 4 }},
		{"has not the 6 bytes", func(a *Artifact) { a.Size = 6 }},
		{"not a digest", func(a *Artifact) { a.SHA256 = "abc" }},
		{"cannot be opened", func(a *Artifact) { a.Open = onDisk("/nonexistent/file") }},
		{"cannot be read", func(a *Artifact) {
			a.Open = func() (io.ReadCloser, error) { return io.NopCloser(failing{}), nil }
		}},
	} {
		a := good
		c.make(&a)
		_, err := Shipped(context.Background(), Release{}, []Artifact{a}, options())
		var e *ArtifactError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || e.Hint() == "" {
			t.Errorf("%s: %v", c.want, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Shipped(ctx, Release{}, []Artifact{good}, options()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestParseRefuses(t *testing.T) {
	data, err := Marshal(shipped(t, artifact("a", []byte("hello"))))
	must(t, err)
	for old, now := range map[string]string{
		`"bomFormat": "CycloneDX"`:  `"bomFormat": "SPDX"`,
		`"specVersion": "1.6"`:      `"specVersion": "1.5"`,
		`"ref": "artifact:a"`:       `"ref": "artifact:b"`,
		`"bom-ref": "artifact:a"`:   `"bom-ref": "release"`,
		`"content": "2cf24d`:        `"content": "2CF24D`,
		`"type": "file"`:            `"kind": "file"`,
		"        \"artifact:a\"\n ": "        \"artifact:c\"\n ",
	} {
		bad := strings.Replace(string(data), old, now, 1)
		if bad == string(data) && old != `"ref": "artifact:a"` {
			t.Errorf("%s is not there:\n%s", old, data)
		}
		if _, err := Parse([]byte(bad)); err == nil && bad != string(data) {
			t.Errorf("%s is taken", now)
		}
	}
	var raw map[string]any
	must(t, json.Unmarshal(data, &raw))
	if _, err := Parse(append(data, '{', '}')); err == nil {
		t.Error("a second document is taken")
	}
}

// onDisk opens an artifact that is a file.
func onDisk(name string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return os.Open(name) }
}
