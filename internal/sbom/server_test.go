package sbom

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"trysail/blueprint"
)

func digest(c byte) string { return "sha256:" + strings.Repeat(string(c), 64) }

func server() (*blueprint.Blueprint, blueprint.Sum, []Download) {
	p := &blueprint.Blueprint{
		Name: "build1", Captured: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		Machine: blueprint.Machine{Distribution: "debian", Release: "12", Architecture: "amd64", Kernel: "6.1"},
		Packages: []blueprint.Package{
			{Name: "libstdc++6", Version: "12.2.0-14+deb12u1", Architecture: "amd64", File: "libstdc++6_12.2.0-14+deb12u1_amd64.deb", Why: "needed"},
			{Name: "git", Version: "1:2.39.5-0", Architecture: "amd64", File: "git_1%3a2.39.5-0_amd64.deb", Why: "used", Repacked: "the original is gone"},
			{Name: "libc6", Version: "2.36", Architecture: "i386", File: "libc6_2.36_i386.deb", Why: "needed"},
			{Name: "libc6", Version: "2.36", Architecture: "amd64", File: "libc6_2.36_amd64.deb", Why: "needed"},
		},
		Software: []blueprint.Software{{Path: "/opt/sdk", File: "opt_sdk.tar.zst", Files: 3, Size: 99}},
		LiveDependencies: []blueprint.LiveDependency{
			{Name: "licences", Kind: "tcp", Address: "lic.example.org:27000", Owner: "ann", Expires: "2027-01-01", Fallback: "call"},
			{Name: "dongle", Kind: "device", Address: "/dev/ttyUSB0", Proposed: true},
			{Name: "six", Kind: "udp", Address: "[2001:db8::1]:53"},
		},
	}
	sum := blueprint.Sum{}
	for i, n := range p.Names() {
		sum[n] = digest("0123456789"[i%10])
	}
	return p, sum, []Download{
		{URL: "https://bob:pw@proxy.golang.org/github.com/!burnt!sushi/toml/@v/v1.5.0.zip", SHA256: digest('a'), Size: 10},
		{URL: "https://mirror.example.org/toml.zip", SHA256: digest('a'), Size: 10},
		{URL: "https://registry.npmjs.org/@babel/core/-/core-7.26.0.tgz", SHA256: digest('b'), Size: 11},
		{URL: "https://registry.npmjs.org/@babel/core", SHA256: digest('c'), Size: 12},
		{URL: "https://example.org/empty", Size: 0},
	}
}

func TestServer(t *testing.T) {
	p, sum, downloads := server()
	before := *p
	b, err := Server(p, sum, downloads, options())
	must(t, err)
	validate(t, b)
	if p.Packages[0].Name != before.Packages[0].Name || p.Packages[0].Name != "libstdc++6" {
		t.Error("the caller's blueprint was sorted")
	}
	var refs []string
	for _, c := range components(b) {
		refs = append(refs, c.BOMRef)
	}
	want := []string{
		"download:" + digest('a'), "download:" + digest('b'), "download:" + digest('c'), "live:dongle",
		"pkg:deb/debian/git@1:2.39.5-0?arch=amd64", "pkg:deb/debian/libc6@2.36?arch=amd64", "pkg:deb/debian/libc6@2.36?arch=i386",
		"pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64", "software:/opt/sdk",
	}
	if strings.Join(refs, "\n") != strings.Join(want, "\n") {
		t.Errorf("components:\n%s", strings.Join(refs, "\n"))
	}
	if c := find(b, want[4]); values(c, propRepacked) != "the original is gone" || digestOf(*c) != sum["deb/git_1%3a2.39.5-0_amd64.deb"] {
		t.Errorf("repacked: %+v", c)
	}
	if c := find(b, want[0]); c.PackageURL != "pkg:golang/github.com/BurntSushi/toml@v1.5.0" || len(*c.ExternalReferences) != 2 || strings.Contains((*c.ExternalReferences)[1].URL, "pw") {
		t.Errorf("download: %+v", c)
	}
	if c := find(b, want[1]); c.PackageURL != "pkg:npm/%40babel/core@7.26.0" || c.Group != "@babel" || c.Name != "core" {
		t.Errorf("download: %+v", c)
	}
	if len(*b.Services) != 2 || (*(*b.Services)[0].Endpoints)[0] != "tcp://lic.example.org:27000" || (*(*b.Services)[1].Endpoints)[0] != "udp://[2001:db8::1]:53" {
		t.Errorf("services: %+v", b.Services)
	}
	if n := len(strings.Fields(dependsOn(b, "server"))); n != 11 {
		t.Errorf("the server depends on %d: %s", n, dependsOn(b, "server"))
	}
	one, err := Marshal(b)
	must(t, err)
	p.Packages[0], p.Packages[3] = p.Packages[3], p.Packages[0]
	downloads[0], downloads[3] = downloads[3], downloads[0]
	b, err = Server(p, sum, downloads, options())
	must(t, err)
	if two, err := Marshal(b); err != nil || string(one) != string(two) {
		t.Error("another order of the same input gives another bill")
	}
	delete(sum, "software/opt_sdk.tar.zst")
	var e *MissingDigestError
	if _, err := Server(p, sum, nil, options()); !errors.As(err, &e) || e.Name != "software/opt_sdk.tar.zst" || e.Hint() == "" {
		t.Errorf("no digest: %v", err)
	}
}

func TestPackageURLsOfAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"https://proxy.golang.org/golang.org/x/mod/@v/v0.43.0.zip":                                                "pkg:golang/golang.org/x/mod@v0.43.0",
		"https://proxy.golang.org/golang.org/x/mod/@v/v0.43.0.mod":                                                "",
		"https://proxy.golang.org/golang.org/x/mod/@v/list":                                                       "",
		"https://example.org/golang.org/x/mod/@v/v0.43.0.zip":                                                     "",
		"https://proxy.golang.org/..%2f..%2fx/@v/v0.43.0.zip":                                                     "",
		"https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz":                                                "pkg:npm/left-pad@1.3.0",
		"https://registry.npmjs.org/left-pad/-/other-1.3.0.tgz":                                                   "",
		"https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz?x=1":                                            "",
		"https://nexus.corp/repository/npm/@a/b/-/b-1.0.0-rc.1.tgz":                                               "pkg:npm/%40a/b@1.0.0-rc.1?repository_url=https:%2F%2Fnexus.corp%2Frepository%2Fnpm",
		"https://files.pythonhosted.org/packages/aa/bb/cc/Foo_Bar-1.0-py3-none-any.whl":                           "pkg:pypi/foo-bar@1.0",
		"https://files.pythonhosted.org/packages/aa/bb/cc/python-dateutil-2.8.2.tar.gz":                           "pkg:pypi/python-dateutil@2.8.2",
		"https://files.pythonhosted.org/packages/aa/bb/cc/foo-1-2.tar.gz":                                         "",
		"https://files.pythonhosted.org/packages/aa/bb/cc/Foo_Bar-1.0-py3-none-any.whl.metadata":                  "",
		"https://pypi.org/simple/foo/":                                                                            "",
		"https://repo.maven.apache.org/maven2/org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0.jar":   "pkg:maven/org.apache.commons/commons-lang3@3.14.0",
		"https://repo1.maven.org/maven2/org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0.pom":         "pkg:maven/org.apache.commons/commons-lang3@3.14.0?type=pom",
		"https://repo1.maven.org/maven2/org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0-sources.jar": "pkg:maven/org.apache.commons/commons-lang3@3.14.0?classifier=sources",
		"https://repo1.maven.org/maven2/org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0.jar.sha1":    "",
		"https://repo1.maven.org/maven2/org/apache/commons/commons-lang3/maven-metadata.xml":                      "",
		"https://plugins.gradle.org/m2/org/x/y/1.0/y-1.0.jar":                                                     "pkg:maven/org.x/y@1.0?repository_url=https:%2F%2Fplugins.gradle.org%2Fm2",
		"ftp://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz":                                                  "",
		"https://github.com/x/y/releases/download/v1.0.0/y-1.0.0.tgz":                                             "",
		"https://registry.npmjs.org/%2e%2e/-/..-1.0.0.tgz":                                                        "",
	} {
		got := ""
		if p := fromURL(address); p != nil {
			got = p.String()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

func TestDiff(t *testing.T) {
	bom := func(list ...cdx.Component) *BOM { return &BOM{Components: &list} }
	c := func(purl, version, hash string) cdx.Component {
		full := purl + "@" + version
		x := cdx.Component{BOMRef: full + hash, Name: purl, Version: version, PackageURL: full}
		if hash != "" {
			x.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hash}}
		}
		return x
	}
	own := c("pkg:npm/app", "1.0.0", "")
	own.Properties = props(propOwn, "true")
	module := func(sum string) cdx.Component {
		x := c("pkg:golang/m", "v1", "")
		x.Properties = props(propGoSum, sum)
		return x
	}
	software := func(hash string) cdx.Component {
		return cdx.Component{BOMRef: "software:/opt/sdk", Name: "/opt/sdk", Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hash}}}
	}
	before := bom(own, c("pkg:deb/a", "1", "aa"), c("pkg:deb/b", "1", "bb"), c("pkg:deb/c", "1", "cc"), c("pkg:npm/two", "1", ""), c("pkg:npm/two", "2", ""), c("pkg:npm/more", "1", ""), module("h1:x"), software("aa"), cdx.Component{BOMRef: "artifact:a", Name: "a"})
	after := bom(software("bb"), module("h1:y"), c("pkg:npm/more", "2", ""), c("pkg:npm/more", "3", ""), c("pkg:npm/two", "3", ""), c("pkg:npm/two", "2", ""), c("pkg:deb/d", "1", "dd"), c("pkg:deb/c", "2", "c2"), c("pkg:deb/b", "1", "b2"), c("pkg:deb/a", "1", "aa"))
	var got []string
	for _, x := range Diff(before, after) {
		got = append(got, strings.Join([]string{x.Kind, x.Name, x.Old, x.New, x.OldDigest, x.NewDigest}, " "))
	}
	want := []string{
		"rebuilt /opt/sdk   sha256:aa sha256:bb", "rebuilt pkg:deb/b 1 1 sha256:bb sha256:b2", "changed pkg:deb/c 1 2 sha256:cc sha256:c2", "added pkg:deb/d  1  sha256:dd",
		"rebuilt pkg:golang/m v1 v1 h1:x h1:y", "removed pkg:npm/more 1   ", "added pkg:npm/more  2  ", "added pkg:npm/more  3  ", "changed pkg:npm/two 1 3  ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if list := Diff(before, before); len(list) != 0 {
		t.Errorf("a bill differs from itself: %v", list)
	}
	if list := Diff(nil, bom(c("pkg:npm/x", "1", ""))); len(list) != 1 || list[0].Kind != Added {
		t.Errorf("from nothing: %v", list)
	}
	var b strings.Builder
	must(t, WriteChanges(&b, []Change{{Rebuilt, "pkg:npm/a|b", "1", "1", "sha256:aa", "sha256:bb"}, {Kind: Added, Name: "x", New: "<2>"}}))
	if w := "| component | change | before | after |\n|---|---|---|---|\n| pkg:npm/a\\|b | rebuilt | 1 sha256:aa | 1 sha256:bb |\n| x | added |  | &lt;2&gt; |\n"; b.String() != w {
		t.Errorf("%s", b.String())
	}
}

func TestCopyright(t *testing.T) {
	const head = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n"
	for _, c := range []struct{ what, data, want, err string }{
		{what: "files", data: head + "\nFiles: *\nCopyright: a\nLicense: GPL-2+\n This is free.\n\nFiles: debian/*\nLicense:  Expat \n\nLicense: Expat\n text\n\nLicense: unused\n text\n", want: "Expat; GPL-2+"},
		{what: "a licence of all", data: head + "License: MIT\n", want: "MIT"},
		{what: "an older format", data: "Format: http://dep.debian.net/deps/dep5\n\nFiles: *\nLicense: BSD-3-clause or Apache-2.0\n", want: "BSD-3-clause or Apache-2.0"},
		{what: "with carriage returns and comments", data: strings.ReplaceAll(head+"# no\n\nFILES: *\nlicense: Zlib\n", "\n", "\r\n"), want: "Zlib"},
		{what: "prose", data: "This package was debianized by A.\n\nLicense: GPL\n", err: "not machine-readable"},
		{what: "files without a licence", data: head + "\nFiles: *\nCopyright: a\n\nFiles: b\nLicense: MIT\n", err: "names no licence for the files"},
		{what: "a text and no name", data: head + "\nFiles: *\nLicense:\n Permission is granted\n", err: "names no licence for the files"},
		{what: "nothing but texts", data: head + "\nLicense: MIT\n text\n", err: "names no licence"},
		{what: "prose without a field", data: "This is free.\n", err: "not machine-readable"},
		{what: "empty", data: "", err: "not machine-readable"},
		{what: "a line without end", data: head + "\nFiles: *\nLicense: " + strings.Repeat("x", 501) + "\n", err: "a text where"},
	} {
		got, err := parseCopyright([]byte(c.data))
		if strings.Join(got, "; ") != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q %v", c.what, got, err)
		}
	}
}

func TestLicences(t *testing.T) {
	p, sum, downloads := server()
	b, err := Server(p, sum, downloads, options())
	must(t, err)
	list := Licences(b, fstest.MapFS{
		"usr/share/doc/git/copyright":   {Data: []byte("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2\n")},
		"usr/share/doc/libc6/copyright": {Data: []byte("This is the Debian GNU C library.\n")},
	})
	var out strings.Builder
	must(t, WriteLicences(&out, list))
	for _, w := range []string{
		"8 components, 7 of them with an unknown licence.",
		"| GPL-2 | 1 |",
		"| pkg:deb/debian/libc6?arch=amd64 | 2.36 | its copyright file is not machine-readable |",
		"| pkg:deb/debian/libstdc\\+\\+6?arch=amd64 | 12.2.0-14\\+deb12u1 | it has no copyright file |",
		"| /opt/sdk |  | nothing in it says so",
		"| pkg:npm/@babel/core | 7.26.0 | a download is not looked into |",
		"| pkg:deb/debian/git?arch=amd64 | 1:2.39.5-0 | GPL-2 | usr/share/doc/git/copyright |",
	} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("lacks %q:\n%s", w, out.String())
		}
	}
	for _, l := range Licences(b, nil) {
		if len(l.Licences) != 0 || l.Why == "" || l.Text() != Unknown {
			t.Errorf("without a root: %+v", l)
		}
	}
	b = shipped(t, artifact("a.zip", makeZip(t,
		text1("node_modules/b/package.json", `{"name":"b","version":"1.0.0","license":"MIT"}`), text1("node_modules/c/package.json", `{"name":"c","version":"1.0.0"}`),
		file{"x.deb", makeAr(text1("debian-binary", "2.0\n"), file{"control.tar", makeTar(t, text1("control", "Package: git\nVersion: 1\nArchitecture: all\n"))}, file{"data.tar", makeTar(t)})})))
	out.Reset()
	must(t, WriteLicences(&out, Licences(b, fstest.MapFS{"usr/share/doc/git/copyright": {Data: []byte("Format: copyright-format\nLicense: GPL-2\n")}})))
	for _, w := range []string{"3 components, 2 of them", "| pkg:npm/b | 1.0.0 | MIT | the package's metadata |", "| pkg:npm/c | 1.0.0 | its metadata names none |", "| pkg:deb/git?arch=all | 1 | a package in an artifact"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("lacks %q:\n%s", w, out.String())
		}
	}
}

// A link out of the rebuilt root is not followed, and said.
func TestLicencesStayInTheRoot(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "root/usr/share/doc/git"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "outside"), []byte("Format: copyright-format\nLicense: stolen\n"), 0o644))
	must(t, os.Symlink("../../../../../outside", filepath.Join(dir, "root/usr/share/doc/git/copyright")))
	root, err := os.OpenRoot(filepath.Join(dir, "root"))
	must(t, err)
	defer root.Close()
	p, sum, _ := server()
	b, err := Server(p, sum, nil, options())
	must(t, err)
	for _, l := range Licences(b, root.FS()) {
		if l.Name == "git" && (l.Licences != nil || !strings.Contains(l.Why, "cannot be read")) {
			t.Errorf("%+v", l)
		}
	}
	var _ fs.FS = root.FS()
}
