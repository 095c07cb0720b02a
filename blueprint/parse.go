package blueprint

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// maxSize bounds a blueprint: the largest real one (900 packages) is 150 kB.
const maxSize = 16 << 20

// ParseError says where a blueprint cannot be read and what to do about it.
type ParseError struct {
	File   string
	Line   int // 0 when it is not about one line
	What   string
	Remedy string
}

func (e *ParseError) Error() string {
	at := e.File
	if e.Line > 0 {
		at += ":" + strconv.Itoa(e.Line)
	}
	return at + ": " + e.What
}

// Hint is what to type or do next.
func (e *ParseError) Hint() string { return e.Remedy }

const remedyRestore = "restore the file from version control, or capture again"

var yamlPosition = regexp.MustCompile(`^\[(\d+):(\d+)\] (.*)`)

// Parse reads a blueprint strictly. The file name is used in errors only.
func Parse(file string, data []byte) (*Blueprint, error) {
	if len(data) > maxSize {
		return nil, &ParseError{File: file, What: fmt.Sprintf("%d bytes is too large for a blueprint", len(data)), Remedy: remedyRestore}
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil, &ParseError{File: file, What: "the file is empty", Remedy: remedyRestore}
	}
	if data[len(data)-1] != '\n' {
		return nil, &ParseError{File: file, Line: 1 + strings.Count(string(data), "\n"), What: "the last line has no end: the file is torn", Remedy: remedyRestore}
	}
	b := new(Blueprint)
	if err := decode(data, b); err != nil {
		pe := &ParseError{File: file, What: err.Error(), Remedy: remedyRestore}
		if m := yamlPosition.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0]); m != nil {
			pe.Line, _ = strconv.Atoi(m[1])
			pe.What = m[3]
		}
		return nil, pe
	}
	if err := b.Validate(); err != nil {
		var inv *invalidError
		if errors.As(err, &inv) {
			return nil, &ParseError{File: file, Line: lineOf(data, inv.needle), What: inv.what, Remedy: inv.remedy}
		}
		return nil, &ParseError{File: file, What: err.Error(), Remedy: remedyRestore}
	}
	return b, nil
}

// decode guards the YAML library: a parser that panics on hostile input must
// not take the program down.
func decode(data []byte, b *Blueprint) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not readable as YAML: %v", r)
		}
	}()
	return yaml.UnmarshalWithOptions(data, b, yaml.Strict(), yaml.DisallowUnknownField())
}

// lineOf finds the first line that holds the offending value.
func lineOf(data []byte, needle string) int {
	if needle == "" {
		return 0
	}
	i := strings.Index(string(data), needle)
	if i < 0 {
		return 0
	}
	return 1 + strings.Count(string(data[:i]), "\n")
}

// Marshal writes the blueprint in its canonical form.
func (b *Blueprint) Marshal() ([]byte, error) {
	b.Sort()
	body, err := yaml.MarshalWithOptions(b, yaml.IndentSequence(false), yaml.Indent(2))
	if err != nil {
		return nil, fmt.Errorf("write blueprint: %w", err)
	}
	return append([]byte("# The definition of a build server. Written by trysail capture; the format is in docs/blueprint.md.\n"), body...), nil
}

type invalidError struct {
	what, needle, remedy string
}

func (e *invalidError) Error() string { return e.what }

func invalid(needle, remedy, format string, args ...any) error {
	return &invalidError{what: fmt.Sprintf(format, args...), needle: needle, remedy: remedy}
}

var (
	nameRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	pkgRE     = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	archRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	versionRE = regexp.MustCompile(`^[A-Za-z0-9.+:~-]+$`)
	fileRE    = regexp.MustCompile(`^[A-Za-z0-9%][A-Za-z0-9.+~%_@=,-]*$`)
	modeRE    = regexp.MustCompile(`^[0-7]{3,5}$`)
	digestRE  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	ownerRE   = regexp.MustCompile(`^[A-Za-z0-9_.$-]+:[A-Za-z0-9_.$-]+$`)
	userRE    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.$-]*$`)
)

// Validate checks everything that later code relies on: versions, absolute and
// clean paths, digests, modes, and that no item stands twice.
func (b *Blueprint) Validate() error {
	if b.Trysail != Version {
		return invalid(b.Trysail, "this program reads "+Version+"; a newer Trysail may read this file", "format %q is not %s", b.Trysail, Version)
	}
	if !nameRE.MatchString(b.Name) {
		return invalid(b.Name, "use lower-case letters, digits, dots and dashes", "name %q is not usable", b.Name)
	}
	if b.Machine.Distribution == "" || !archRE.MatchString(b.Machine.Architecture) {
		return invalid("machine:", remedyRestore, "machine: distribution and architecture must be given")
	}
	seen := map[string]bool{}
	once := func(kind, key string) error {
		if k := kind + " " + key; seen[k] {
			return invalid(key, "remove one of the two", "%s %s stands twice", kind, key)
		} else {
			seen[k] = true
		}
		return nil
	}
	for _, d := range b.Machine.MergedUsr {
		if !nameRE.MatchString(d) {
			return invalid(d, remedyRestore, "merged_usr: %q is not a directory name", d)
		}
	}
	for _, p := range b.Packages {
		switch {
		case !pkgRE.MatchString(p.Name):
			return invalid(p.Name, remedyRestore, "package name %q is not valid", p.Name)
		case !versionRE.MatchString(p.Version):
			return invalid(p.Version, remedyRestore, "package %s: version %q is not valid", p.Name, p.Version)
		case !archRE.MatchString(p.Architecture):
			return invalid(p.Architecture, remedyRestore, "package %s: architecture %q is not valid", p.Name, p.Architecture)
		case !fileRE.MatchString(p.File):
			return invalid(p.File, remedyRestore, "package %s: file %q is not a plain file name", p.Name, p.File)
		}
		if err := once("package", p.Key()); err != nil {
			return err
		}
	}
	for _, s := range b.Software {
		if err := checkPath("software", s.Path); err != nil {
			return err
		}
		if !fileRE.MatchString(s.File) {
			return invalid(s.File, remedyRestore, "software %s: file %q is not a plain file name", s.Path, s.File)
		}
		if err := once("software", s.Path); err != nil {
			return err
		}
	}
	for kind, files := range map[string][]File{"config": b.Config, "generated": b.Generated} {
		for _, f := range files {
			if err := f.validate(kind); err != nil {
				return err
			}
			if err := once("file", f.Path); err != nil {
				return err
			}
		}
	}
	for _, d := range b.Directories {
		if err := checkPath("directory", d.Path); err != nil {
			return err
		}
		if !modeRE.MatchString(d.Mode) || !ownerRE.MatchString(d.Owner) {
			return invalid(d.Path, remedyRestore, "directory %s: mode %q or owner %q is not valid", d.Path, d.Mode, d.Owner)
		}
		if err := once("directory", d.Path); err != nil {
			return err
		}
	}
	for _, a := range b.Alternatives {
		if !fileRE.MatchString(a.Name) {
			return invalid(a.Name, remedyRestore, "alternative name %q is not valid", a.Name)
		}
		paths := []string{a.Link, a.Value}
		for _, s := range a.Slaves {
			if !fileRE.MatchString(s.Name) {
				return invalid(s.Name, remedyRestore, "alternative %s: slave name %q is not valid", a.Name, s.Name)
			}
			paths = append(paths, s.Link, s.Path)
		}
		for _, p := range paths {
			if err := checkPath("alternative "+a.Name, p); err != nil {
				return err
			}
		}
		if err := once("alternative", a.Name); err != nil {
			return err
		}
	}
	for _, d := range b.Diversions {
		for _, p := range []string{d.From, d.To} {
			if err := checkPath("diversion", p); err != nil {
				return err
			}
		}
	}
	return cmpErr(b.validatePeople(once), b.validateBuilds(once))
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Blueprint) validatePeople(once func(kind, key string) error) error {
	for _, u := range b.Users {
		if !userRE.MatchString(u.Name) || strings.ContainsAny(u.Gecos+u.Home+u.Shell, ":\n") || u.UID < 0 || u.GID < 0 {
			return invalid(u.Name, remedyRestore, "user %q is not a valid passwd entry", u.Name)
		}
		if err := once("user", u.Name); err != nil {
			return err
		}
	}
	for _, g := range b.Groups {
		if !userRE.MatchString(g.Name) || strings.ContainsAny(strings.Join(g.Members, ","), ":\n") || g.GID < 0 {
			return invalid(g.Name, remedyRestore, "group %q is not a valid group entry", g.Name)
		}
		if err := once("group", g.Name); err != nil {
			return err
		}
	}
	return nil
}

func (b *Blueprint) validateBuilds(once func(kind, key string) error) error {
	for _, l := range b.LiveDependencies {
		switch l.Kind {
		case "tcp", "udp", "unix", "device", "file", "other":
		default:
			return invalid(l.Kind, "use tcp, udp, unix, device, file or other", "live dependency %s: kind %q is not known", l.Name, l.Kind)
		}
		if err := once("live dependency", l.Name); err != nil {
			return err
		}
	}
	for _, r := range b.Ignore {
		if r.Name == "" || r.Why == "" || !strings.HasPrefix(r.Glob, "/") {
			return invalid(r.Glob, "give name, why and an absolute glob", "ignore rule %q is not complete", r.Name)
		}
	}
	for _, x := range b.Builds {
		if !nameRE.MatchString(x.Name) {
			return invalid(x.Name, "use lower-case letters, digits, dots and dashes", "build name %q is not usable", x.Name)
		}
		if err := once("build", x.Name); err != nil {
			return err
		}
		if len(x.Command) == 0 {
			return invalid(x.Name, remedyRestore, "build %s has no command", x.Name)
		}
		for _, p := range []string{x.Workspace, x.Home} {
			if err := checkPath("build "+x.Name, p); err != nil {
				return err
			}
		}
		if x.Directory != "" && !localPath(x.Directory) {
			return invalid(x.Directory, remedyRestore, "build %s: directory %q leaves the workspace", x.Name, x.Directory)
		}
		if !userRE.MatchString(x.User) || !modeRE.MatchString(x.Umask) {
			return invalid(x.Name, remedyRestore, "build %s: user %q or umask %q is not valid", x.Name, x.User, x.Umask)
		}
		for _, d := range []string{x.Source.Original, x.Downloads, x.Observation} {
			if d != "" && !digestRE.MatchString(d) {
				return invalid(d, remedyRestore, "build %s: %q is not a sha256 digest", x.Name, d)
			}
		}
		for _, o := range x.Made {
			if !localPath(o.Path) || (o.SHA256 != "" && !digestRE.MatchString(o.SHA256)) || (o.Again != "" && !digestRE.MatchString(o.Again)) {
				return invalid(o.Path, remedyRestore, "build %s: output %q is not valid", x.Name, o.Path)
			}
		}
		for _, g := range x.Outputs {
			if !localPath(g) {
				return invalid(g, "give globs relative to the root of the working copy", "build %s: output glob %q leaves the workspace", x.Name, g)
			}
		}
		for k := range x.Environment {
			if k == "" || strings.ContainsAny(k, "=\x00\n") {
				return invalid(k, remedyRestore, "build %s: variable name %q is not valid", x.Name, k)
			}
		}
	}
	return nil
}

func (f File) validate(kind string) error {
	if err := checkPath(kind, f.Path); err != nil {
		return err
	}
	if !ownerRE.MatchString(f.Owner) {
		return invalid(f.Path, remedyRestore, "%s %s: owner %q is not user:group", kind, f.Path, f.Owner)
	}
	if f.Link != "" {
		return nil
	}
	if !modeRE.MatchString(f.Mode) || !digestRE.MatchString(f.SHA256) {
		return invalid(f.Path, remedyRestore, "%s %s: mode %q or sha256 %q is not valid", kind, f.Path, f.Mode, f.SHA256)
	}
	return nil
}

func checkPath(what, p string) error {
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsAny(p, "\x00\n") || p == "/" {
		return invalid(p, remedyRestore, "%s: path %q is not absolute and clean", what, p)
	}
	return nil
}

// localPath reports whether p stays below the directory it is relative to.
func localPath(p string) bool {
	return p != "" && !strings.HasPrefix(p, "/") && p != ".." && !strings.HasPrefix(path.Clean(p), "../") && !strings.ContainsAny(p, "\x00\n")
}
