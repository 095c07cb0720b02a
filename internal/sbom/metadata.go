package sbom

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"trysail/internal/debian"
)

// add keeps a package that was found.
func (s *scan) add(f found) error {
	if len(s.found) >= maxFound {
		return errFound
	}
	s.found = append(s.found, f)
	return nil
}

// executable reads the modules of a Go program. Other programs do not say what
// they are made of.
func (s *scan) executable(it item) error {
	c, done, err := s.random(it, maxProgram)
	defer func() { done() }()
	if err != nil {
		return err
	}
	// A program's tables may lead its reader in circles.
	info, err := buildinfo.Read(&limited{c.ReaderAt, 2*c.size + 1<<20, "its tables lead to more bytes than it has"})
	if err != nil {
		s.note(it.at, "native code that does not say what it is made of ("+err.Error()+")")
		return nil
	}
	p, err := goProgram(it.at, info)
	if err != nil {
		s.note(it.at, err.Error())
		return nil
	}
	if len(s.found)+len(p.modules) > maxFound {
		return errFound
	}
	s.programs = append(s.programs, p)
	s.found = append(s.found, p.modules...)
	return nil
}

func okModule(p string) bool { return len(p) < 500 && module.CheckImportPath(p) == nil }

// goVersion is a version that module paths may have, "" for none.
func goVersion(v string) (string, bool) {
	if v == "" || v == "(devel)" {
		return "", true
	}
	return v, okVersion(v)
}

// goProgram turns what the linker wrote into packages.
func goProgram(at string, info *debug.BuildInfo) (program, error) {
	p := program{at: at, path: info.Path, goVersion: text(info.GoVersion)}
	if m := info.Main; m.Path != "" {
		v, ok := goVersion(m.Version)
		if !okModule(m.Path) || !ok {
			return p, fmt.Errorf("a Go program whose main module has no valid name: %s %s", m.Path, m.Version)
		}
		sub, _ := strings.CutPrefix(info.Path, m.Path+"/")
		if sub == info.Path || !okModule(info.Path) {
			sub = ""
		}
		p.main = purl{kind: "golang", name: m.Path, version: v, subpath: sub}
	}
	for _, x := range info.Settings {
		switch x.Key {
		case "vcs.revision":
			p.revision = text(x.Value)
		case "vcs.modified":
			p.modified = text(x.Value)
		}
	}
	// "go1.26.8 X:experiment" is the library of 1.26.8.
	word, _, _ := strings.Cut(info.GoVersion, " ")
	if v := strings.TrimPrefix(word, "go"); regexp.MustCompile(`^go\d{1,3}(\.\d{1,3}){0,2}((rc|beta)\d{1,3})?$`).MatchString(word) {
		p.modules = append(p.modules, found{purl: purl{kind: "golang", name: "stdlib", version: v}, name: "stdlib", at: at})
	}
	for _, m := range info.Deps {
		f := found{at: at}
		if m.Replace != nil {
			f.replaces = text(m.Path + "@" + m.Version)
			m = m.Replace
		}
		v, ok := goVersion(m.Version)
		switch {
		case f.replaces != "" && v == "" && (strings.HasPrefix(m.Path, ".") || strings.HasPrefix(m.Path, "/")):
			// Replaced by a directory: what the module is called is known, what is in it is not.
			name, _, _ := strings.Cut(f.replaces, "@")
			if !okModule(name) {
				return p, fmt.Errorf("a Go program with a module that has no valid name: %s", name)
			}
			f.name, f.purl = name, purl{kind: "golang", name: name}
			f.replaces += " (by a directory)"
		case !ok || !okModule(m.Path):
			return p, fmt.Errorf("a Go program with a module that has no valid name: %s %s", m.Path, m.Version)
		default:
			f.name, f.purl = m.Path, purl{kind: "golang", name: m.Path, version: v}
			if regexp.MustCompile(`^h1:[A-Za-z0-9+/]{43}=$`).MatchString(m.Sum) {
				f.digest = m.Sum
			}
		}
		p.modules = append(p.modules, f)
	}
	return p, nil
}

// metadata reads a file in which a package says what it is.
func (s *scan) metadata(it item) error {
	if it.box == nil {
		return nil // an artifact that is but such a file is no package
	}
	name := strings.TrimPrefix(path.Clean("/"+it.name), "/")
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	var read func(it item, dir string, data []byte) error
	switch {
	case base == "package.json":
		read = s.npm
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info"), base == "PKG-INFO" && (strings.HasSuffix(dir, ".egg-info") || !strings.Contains(dir, "/")):
		read = s.python
	case base == "pom.properties" && mavenDir(dir):
		it.box.maven++
		read = s.maven
	case base == "pom.xml" && mavenDir(dir):
		read = s.pom
	default:
		return nil
	}
	data, err := readBounded(it.in)
	if err != nil {
		return err
	}
	if err := read(it, dir, data); err != nil {
		if s.stops(err) {
			return err
		}
		s.note(it.at, err.Error())
	}
	return nil
}

func mavenDir(dir string) bool {
	parts := strings.Split(dir, "/")
	n := len(parts)
	return n >= 4 && parts[n-4] == "META-INF" && parts[n-3] == "maven"
}

// npm reads the package.json of a package: one at the top of an archive, or
// where npm puts it. Those elsewhere are test data as often as packages.
func (s *scan) npm(it item, dir string, data []byte) error {
	var p struct {
		Name     any `json:"name"`
		Version  any `json:"version"`
		License  any `json:"license"`
		Licenses any `json:"licenses"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &p); err != nil {
		return fmt.Errorf("a package.json that cannot be read: %w", err)
	}
	name, _ := p.Name.(string)
	version, _ := p.Version.(string)
	if name == "" || version == "" {
		return nil // it configures a directory, and is no package
	}
	top := !strings.Contains(dir, "/") && dir != "node_modules"
	below := ""
	if i := strings.LastIndex("/"+dir, "/node_modules/"); i >= 0 {
		below = dir[i+len("node_modules/"):]
	}
	placed := below != "" && strings.Count(below, "/") == strings.Count(below[:1], "@")
	if !top && !placed {
		return errors.New("a package.json that is not where npm puts a package's")
	}
	if !okNPM(name) || !okVersion(version) {
		return fmt.Errorf("a package.json with no valid name or version: %.100q %.100q", name, version)
	}
	f := found{purl: purl{kind: "npm", name: name, version: version}, name: name, at: it.at, own: it.depth == 1 && dir == "package"}
	if scope, base, ok := strings.Cut(name, "/"); ok {
		f.group, f.name = scope, base
	}
	f.licences = append(npmLicences(p.License), npmLicences(p.Licenses)...)
	return s.add(f)
}

// npmLicences reads "MIT", {"type": "MIT"}, and lists of both.
func npmLicences(v any) []string {
	switch v := v.(type) {
	case string:
		return licence(v)
	case map[string]any:
		t, _ := v["type"].(string)
		return licence(t)
	case []any:
		var list []string
		for _, x := range v {
			if _, nested := x.([]any); !nested && len(list) < 50 {
				list = append(list, npmLicences(x)...)
			}
		}
		return list
	}
	return nil
}

// licence takes a name of a licence as it was written; a whole text is no name.
func licence(v string) []string {
	v = strings.TrimSpace(v)
	if v == "" || len(v) > 200 || strings.Contains(v, "\n") || strings.EqualFold(v, "unknown") {
		return nil
	}
	return []string{text(v)}
}

// python reads the headers of METADATA or PKG-INFO.
func (s *scan) python(it item, dir string, data []byte) error {
	var name, version, plain string
	var expression, classifiers []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break // the description follows
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(key) {
		case "name":
			name = value
		case "version":
			version = value
		case "license-expression":
			expression = licence(value)
		case "license":
			plain = value
		case "classifier":
			if l, ok := strings.CutPrefix(value, "License ::"); ok && len(classifiers) < 50 {
				classifiers = append(classifiers, licence(strings.TrimPrefix(strings.TrimSpace(l), "OSI Approved :: "))...)
			}
		}
	}
	if !okPyPI(name) || !okVersion(version) {
		return fmt.Errorf("metadata of a Python package with no valid name or version: %.100q %.100q", name, version)
	}
	f := found{purl: purl{kind: "pypi", name: pypiName(name), version: version}, name: name, at: it.at}
	for _, l := range [][]string{expression, licence(plain), classifiers} {
		if len(f.licences) == 0 {
			f.licences = l
		}
	}
	f.own = it.depth == 1 && (strings.HasSuffix(it.box.name, ".whl") && !strings.Contains(dir, "/") || path.Base(it.name) == "PKG-INFO")
	return s.add(f)
}

// maven reads pom.properties.
func (s *scan) maven(it item, _ string, data []byte) error {
	v := map[string]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if k, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			v[strings.TrimSpace(k)] = strings.TrimSpace(value)
		}
	}
	group, artifact, version := v["groupId"], v["artifactId"], v["version"]
	if !okMaven(group) || !okMaven(artifact) || !okVersion(version) {
		return fmt.Errorf("a pom.properties with no valid coordinates: %.100q %.100q %.100q", group, artifact, version)
	}
	return s.add(found{
		purl: purl{kind: "maven", name: group + "/" + artifact, version: version}, group: group, name: artifact, at: it.at,
		own: it.depth == 1 && strings.TrimSuffix(path.Base(it.box.name), ".jar") == artifact+"-"+version,
	})
}

// pom keeps the licences of a pom.xml for the pom.properties beside it.
func (s *scan) pom(it item, _ string, data []byte) error {
	var p struct {
		Licences []struct {
			Name string `xml:"name"`
		} `xml:"licenses>license"`
	}
	if err := xml.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("a pom.xml that cannot be read: %w", err)
	}
	var list []string
	for _, l := range p.Licences {
		if len(list) < 50 {
			list = append(list, licence(strings.Join(strings.Fields(l.Name), " "))...)
		}
	}
	s.poms[path.Dir(it.at)] = list
	return nil
}

// debian reads a package's control file. It does not say whose package it is, so
// its package URL names no distribution.
func (s *scan) debian(it item, at string, data []byte) error {
	if !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	list, err := debian.ParseStatus("control", data)
	if err != nil || len(list) != 1 || !okVersion(list[0].Version) || list[0].Architecture == "" {
		if err == nil {
			err = errors.New("a control file that is not one paragraph with a version and an architecture")
		}
		return s.refuse(at, err)
	}
	p := list[0]
	return s.add(found{
		purl: purl{kind: "deb", name: p.Name, version: p.Version, qualifiers: map[string]string{"arch": p.Architecture}},
		name: p.Name, at: it.at, own: it.depth == 0, program: true,
	})
}

// joined gives what was found, with the licences that stand beside it.
func (s *scan) joined() []found {
	for i := range s.found {
		f := &s.found[i]
		if f.purl.kind == "maven" {
			f.licences = s.poms[path.Dir(f.at)]
		}
		slices.Sort(f.licences)
		f.licences = slices.Compact(f.licences)
	}
	return s.found
}
