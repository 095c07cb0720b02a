package sbom

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/module"
)

// purl is a package URL: pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS#SUBPATH.
//
// Names keep their case where the package's own world tells names apart by it.
// The specification asks for Go modules in lower case, but then
// github.com/BurntSushi/toml is no longer the module that scanners look up.
type purl struct {
	kind       string
	name       string // with its namespace, separated by slashes
	version    string
	qualifiers map[string]string
	subpath    string
}

func (p purl) String() string {
	var b strings.Builder
	b.WriteString("pkg:" + p.kind)
	for s := range strings.SplitSeq(p.name, "/") {
		b.WriteString("/" + escape(s))
	}
	if p.version != "" {
		b.WriteString("@" + escape(p.version))
	}
	sep := "?"
	for _, k := range slices.Sorted(maps.Keys(p.qualifiers)) {
		if v := p.qualifiers[k]; v != "" {
			b.WriteString(sep + k + "=" + escape(v))
			sep = "&"
		}
	}
	if p.subpath != "" {
		sep := "#"
		for s := range strings.SplitSeq(p.subpath, "/") {
			b.WriteString(sep + escape(s))
			sep = "/"
		}
	}
	return b.String()
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_~:", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// unversioned is what a package is called in every version.
func unversioned(p string) string {
	p, _, _ = strings.Cut(p, "#")
	head, query, asked := strings.Cut(p, "?")
	head, _, _ = strings.Cut(head, "@") // an @ in a name is escaped
	if asked {
		return head + "?" + query
	}
	return head
}

// pypiName is a name as the index compares it.
func pypiName(s string) string {
	return strings.ToLower(regexp.MustCompile(`[-_.]+`).ReplaceAllString(s, "-"))
}

func okNPM(s string) bool {
	return len(s) <= 214 && regexp.MustCompile(`^(@[A-Za-z0-9~_.-]+/)?[A-Za-z0-9~_.-]+$`).MatchString(s) && !strings.Contains("/"+s, "/.")
}

func okPyPI(s string) bool {
	return len(s) <= 200 && regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`).MatchString(s)
}

func okMaven(s string) bool {
	return len(s) <= 300 && regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`).MatchString(s)
}

// okVersion takes any text without blanks and what addresses treat specially.
func okVersion(s string) bool {
	return s != "" && len(s) <= 200 && regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+:~!_-]*$`).MatchString(s)
}

// fromURL names the package that an address plainly is, or nil. Only addresses
// that hold the name and the version in the place which the package's own world
// gives them are taken.
func fromURL(address string) *purl {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.RawQuery != "" {
		return nil
	}
	for _, f := range []func(u *url.URL) *purl{golangURL, npmURL, pypiURL, mavenURL} {
		if p := f(u); p != nil {
			return p
		}
	}
	return nil
}

// golangURL knows the public module proxies. The .mod and .info of a module are
// not the module.
func golangURL(u *url.URL) *purl {
	if !slices.Contains([]string{"proxy.golang.org", "goproxy.io", "goproxy.cn"}, u.Hostname()) {
		return nil
	}
	mod, file, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/@v/")
	ver, zip := strings.CutSuffix(file, ".zip")
	if !ok || !zip {
		return nil
	}
	name, err := module.UnescapePath(mod)
	if err != nil {
		return nil
	}
	version, err := module.UnescapeVersion(ver)
	if err != nil || module.Check(name, version) != nil {
		return nil
	}
	return &purl{kind: "golang", name: name, version: version}
}

// npmURL knows REGISTRY/NAME/-/NAME-VERSION.tgz, on any registry: the name
// stands there twice.
func npmURL(u *url.URL) *purl {
	before, file, ok := strings.Cut(u.Path, "/-/")
	if !ok || strings.Contains(file, "/") {
		return nil
	}
	prefix, base := path.Split(before)
	name := base
	if scope := path.Base(prefix); strings.HasPrefix(scope, "@") {
		name = scope + "/" + base
		prefix = strings.TrimSuffix(strings.TrimSuffix(prefix, "/"), scope)
	}
	version, ok := strings.CutPrefix(strings.TrimSuffix(file, ".tgz"), base+"-")
	if !ok || !strings.HasSuffix(file, ".tgz") || !okNPM(name) || !okVersion(version) || version[0] < '0' || version[0] > '9' {
		return nil
	}
	p := &purl{kind: "npm", name: name, version: version}
	if h := u.Hostname(); h != "registry.npmjs.org" && h != "registry.yarnpkg.com" {
		p.qualifiers = map[string]string{"repository_url": u.Scheme + "://" + u.Host + strings.TrimSuffix(prefix, "/")}
	}
	return p
}

// pypiURL knows wheels and source archives of the public index.
func pypiURL(u *url.URL) *purl {
	if !slices.Contains([]string{"files.pythonhosted.org", "pypi.org", "pypi.python.org"}, u.Hostname()) {
		return nil
	}
	file := path.Base(u.Path)
	var name, version string
	if stem, ok := strings.CutSuffix(file, ".whl"); ok {
		parts := strings.Split(stem, "-")
		if len(parts) != 5 && len(parts) != 6 {
			return nil
		}
		name, version = parts[0], parts[1]
	} else {
		stem := file
		for _, ext := range []string{".tar.gz", ".zip", ".tar.bz2"} {
			stem = strings.TrimSuffix(stem, ext)
		}
		i := strings.LastIndexByte(stem, '-')
		if stem == file || i < 0 {
			return nil
		}
		name, version = stem[:i], stem[i+1:]
		// In foo-1-2.tar.gz it is not plain where the version begins.
		if regexp.MustCompile(`-[0-9]`).MatchString(name) {
			return nil
		}
	}
	if !okPyPI(name) || !okVersion(version) || version[0] < '0' || version[0] > '9' {
		return nil
	}
	return &purl{kind: "pypi", name: pypiName(name), version: version}
}

// mavenURL knows GROUP/ARTIFACT/VERSION/ARTIFACT-VERSION(-CLASSIFIER).EXT below
// the public repositories.
func mavenURL(u *url.URL) *purl {
	roots := map[string]string{
		"repo1.maven.org": "/maven2/", "repo.maven.apache.org": "/maven2/", "plugins.gradle.org": "/m2/",
		"maven.google.com": "/", "dl.google.com": "/dl/android/maven2/",
	}
	root, known := roots[u.Hostname()]
	rest, ok := strings.CutPrefix(u.Path, root)
	parts := strings.Split(rest, "/")
	if !known || !ok || len(parts) < 4 {
		return nil
	}
	n := len(parts)
	group, artifact, version, file := strings.Join(parts[:n-3], "."), parts[n-3], parts[n-2], parts[n-1]
	tail, ok := strings.CutPrefix(file, artifact+"-"+version)
	ext := path.Ext(tail)
	if !ok || !okMaven(group) || !okMaven(artifact) || !okVersion(version) || !slices.Contains([]string{".jar", ".pom", ".war", ".aar", ".zip"}, ext) {
		return nil
	}
	q := map[string]string{}
	if ext != ".jar" {
		q["type"] = ext[1:]
	}
	if c := strings.TrimSuffix(tail, ext); c != "" {
		if c[0] != '-' || !okMaven(c[1:]) {
			return nil
		}
		q["classifier"] = c[1:]
	}
	if h := u.Hostname(); h != "repo1.maven.org" && h != "repo.maven.apache.org" {
		q["repository_url"] = u.Scheme + "://" + u.Host + strings.TrimSuffix(root, "/")
	}
	return &purl{kind: "maven", name: group + "/" + artifact, version: version, qualifiers: q}
}
