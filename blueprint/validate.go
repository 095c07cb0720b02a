package blueprint

import (
	"encoding/base64"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The rules of a valid blueprint. A rebuild runs as root and lays down what the
// blueprint says, and a person types the commands of REBUILD.md as root, so a
// value that could mean something else than it seems (leave a directory, begin
// like an option, end a line) is refused here, once, for every use further down.

var (
	nameRE     = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`) // as in a reference of the depot and of a registry
	wordRE     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]*$`)
	hostnameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	mergedRE   = regexp.MustCompile(`^(?:bin|sbin|lib|lib32|lib64|libx32|libo32)$`)
	pkgRE      = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	archRE     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	versionRE  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+:~-]*$`)
	fileRE     = regexp.MustCompile(`^[A-Za-z0-9%][A-Za-z0-9.+~%_@=,-]*$`)
	modeRE     = regexp.MustCompile(`^0?[0-7]{3,4}$`)
	digestRE   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	ownerRE    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.$-]*:[A-Za-z0-9_][A-Za-z0-9_.$-]*$`)
	userRE     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.$-]*$`)
	limitRE    = regexp.MustCompile(`^RLIMIT_[A-Z]+$`)
	variableRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.:/@%()-]*$`)
	boundsRE   = regexp.MustCompile(`^(?:[0-9]{1,20}|unlimited):(?:[0-9]{1,20}|unlimited)$`)
)

// maxID is the largest number of a user or group; the one above it means none.
const maxID = 1<<32 - 2

// invalidError is a broken rule and the YAML path of the value that breaks it.
type invalidError struct {
	at, what, remedy string
}

func (e *invalidError) Error() string { return e.what }

// Hint is what to type or do next.
func (e *invalidError) Hint() string { return e.remedy }

// validator keeps the first broken rule.
type validator struct {
	err  error
	seen map[string]bool
}

// must records a broken rule at a YAML path such as "packages[3].name".
func (v *validator) must(ok bool, at, remedy, format string, args ...any) {
	if !ok && v.err == nil {
		v.err = &invalidError{at: at, what: fmt.Sprintf(format, args...), remedy: remedy}
	}
}

// once records a thing that stands a second time.
func (v *validator) once(kind, key, at string) {
	k := kind + " " + key
	v.must(!v.seen[k], at, "remove one of the two", "%s %s stands twice", kind, key)
	v.seen[k] = true
}

func (v *validator) path(what, p, at string) {
	v.must(path.IsAbs(p) && path.Clean(p) == p && p != "/" && plain(p), at, remedyRestore, "%s: path %q is not absolute and clean", what, p)
}

// plain reports whether a text is one line of printable UTF-8.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
	})
}

// localPath reports whether p, a path or a glob, stays below the directory it
// is relative to. No part of it may lead upwards, not even back again.
func localPath(p string) bool {
	if p == "" || path.IsAbs(p) || !plain(p) {
		return false
	}
	parts := strings.FieldsFunc(p, func(r rune) bool { return strings.ContainsRune("/{},\\", r) })
	return !slices.Contains(parts, "..")
}

// NameRemedy says what a name may hold.
const NameRemedy = "use lower-case letters and digits, and single dots, dashes or underscores between them, 64 characters at most"

// UsableName tells whether a blueprint or a build may have a name: the depot and every
// registry take it.
func UsableName(name string) bool { return len(name) <= 64 && nameRE.MatchString(name) }

// Validate checks everything that later code relies on: versions, absolute and
// clean paths, digests, modes, and that no item stands twice.
func (b *Blueprint) Validate() error {
	v := &validator{seen: map[string]bool{}}
	v.must(b.Trysail == Version, "trysail", "this program reads "+Version+"; a newer Trysail may read this file", "format %q is not %s", b.Trysail, Version)
	v.must(UsableName(b.Name), "name", NameRemedy, "name %q is not usable", b.Name)
	v.must(!b.Captured.IsZero(), "captured", "give the time as 2026-12-01T09:00:00Z", "the time of capture is missing or not a time")
	b.Machine.validate(v)
	b.validatePackages(v)
	b.validateFiles(v)
	b.validateLinks(v)
	b.validatePeople(v)
	b.validateNotes(v)
	for i, x := range b.Builds {
		x.validate(v, fmt.Sprintf("builds[%d]", i))
	}
	return v.err
}

func (m *Machine) validate(v *validator) {
	v.must(wordRE.MatchString(m.Distribution) && archRE.MatchString(m.Architecture), "machine", remedyRestore, "machine: distribution and architecture must be given")
	for _, f := range []struct{ key, value string }{
		{"release", m.Release}, {"codename", m.Codename}, {"identity", m.Identity}, {"timezone", m.Timezone}, {"locale", m.Locale}, {"kernel", m.Kernel}, {"cpu", m.CPU},
	} {
		v.must(plain(f.value), "machine."+f.key, remedyRestore, "machine: %s %q is not one line of text", f.key, f.value)
	}
	v.must(hostnameRE.MatchString(m.Hostname), "machine.hostname", "use letters, digits, dots and dashes, 64 at most", "machine: hostname %q is not valid", m.Hostname)
	for i, a := range m.Foreign {
		at := fmt.Sprintf("machine.foreign_architectures[%d]", i)
		v.must(archRE.MatchString(a), at, remedyRestore, "foreign architecture %q is not valid", a)
		v.once("foreign architecture", a, at)
	}
	for i, d := range m.MergedUsr {
		at := fmt.Sprintf("machine.merged_usr[%d]", i)
		v.must(mergedRE.MatchString(d), at, "use the names of the links into /usr: bin, sbin, lib, lib32, lib64, libx32", "merged_usr: %q is not a directory that /usr takes over", d)
		v.once("merged_usr", d, at)
	}
}

func (b *Blueprint) validatePackages(v *validator) {
	for i, p := range b.Packages {
		at := fmt.Sprintf("packages[%d]", i)
		v.must(pkgRE.MatchString(p.Name), at+".name", remedyRestore, "package name %q is not valid", p.Name)
		v.must(versionRE.MatchString(p.Version), at+".version", remedyRestore, "package %s: version %q is not valid", p.Name, p.Version)
		v.must(archRE.MatchString(p.Architecture), at+".arch", remedyRestore, "package %s: architecture %q is not valid", p.Name, p.Architecture)
		v.must(fileRE.MatchString(p.File) && strings.HasSuffix(p.File, ".deb"), at+".file", remedyRestore, "package %s: file %q is not a plain file name that ends in .deb", p.Name, p.File)
		for j, l := range p.Lacks {
			v.must(plain(l), fmt.Sprintf("%s.lacks[%d]", at, j), remedyRestore, "package %s: dependency %q is not one line of text", p.Name, l)
		}
		v.once("package", p.Key(), at)
		v.once("original", p.DebName(), at+".file")
	}
	for i, s := range b.Software {
		at := fmt.Sprintf("software[%d]", i)
		v.path("software", s.Path, at+".path")
		v.must(fileRE.MatchString(s.File), at+".file", remedyRestore, "software %s: file %q is not a plain file name", s.Path, s.File)
		v.once("software", s.Path, at)
		v.once("original", s.OriginalName(), at+".file")
	}
}

func (b *Blueprint) validateFiles(v *validator) {
	for i, f := range b.Config {
		at := fmt.Sprintf("config[%d]", i)
		b.validateFile(v, "config", f, at)
		v.once("original", f.ConfigName(), at)
	}
	for i, f := range b.Generated {
		at := fmt.Sprintf("generated[%d]", i)
		b.validateFile(v, "generated", f, at)
		v.must(!f.Encrypted, at+".encrypted", remedyRestore, "generated %s: only configuration is encrypted", f.Path)
	}
	for i, d := range b.Directories {
		at := fmt.Sprintf("directories[%d]", i)
		v.path("directory", d.Path, at+".path")
		v.must(modeRE.MatchString(d.Mode), at+".mode", remedyRestore, "directory %s: mode %q is not valid", d.Path, d.Mode)
		b.validateOwner(v, "directory "+d.Path, d.Owner, at+".owner")
		v.once("directory", d.Path, at)
	}
	for i, o := range b.Overrides {
		at := fmt.Sprintf("overrides[%d]", i)
		v.path("override", o.Path, at+".path")
		v.must(modeRE.MatchString(o.Mode), at+".mode", remedyRestore, "override %s: mode %q is not valid", o.Path, o.Mode)
		b.validateOwner(v, "override "+o.Path, o.Owner, at+".owner")
		for j, a := range o.Attributes {
			name := fmt.Sprintf("%s.attributes[%d].name", at, j)
			_, err := base64.StdEncoding.DecodeString(a.Value)
			v.must(err == nil, fmt.Sprintf("%s.attributes[%d].value", at, j), remedyRestore, "override %s: the value of %s is not base64", o.Path, a.Name)
			v.must(attributeRE.MatchString(a.Name), name, remedyRestore, "override %s: %q is no attribute that Trysail keeps", o.Path, a.Name)
		}
		v.once("override", o.Path, at)
	}
}

// queryRE matches the name of a query parameter as an address has it.
var queryRE = regexp.MustCompile(`^[A-Za-z0-9_.~%-]+$`)

// attributeRE matches the attributes that belong to a file wherever it is.
var attributeRE = regexp.MustCompile(`^(user\.[!-~]+|security\.capability|system\.posix_acl_(access|default))$`)

func (b *Blueprint) validateFile(v *validator, kind string, f File, at string) {
	v.path(kind, f.Path, at+".path")
	v.once("file", f.Path, at)
	if f.Absent {
		v.must(f.Link == "" && f.SHA256 == "" && !f.Encrypted && kind == "config", at, remedyRestore, "%s %s: what is absent has no content", kind, f.Path)
		return
	}
	b.validateOwner(v, kind+" "+f.Path, f.Owner, at+".owner")
	if f.Link != "" {
		v.must(plain(f.Link), at+".link", remedyRestore, "%s %s: link target %q is not one line of text", kind, f.Path, f.Link)
		v.must(f.SHA256 == "" && !f.Encrypted, at, remedyRestore, "%s %s: a link has no content", kind, f.Path)
		return
	}
	v.must(modeRE.MatchString(f.Mode), at+".mode", remedyRestore, "%s %s: mode %q is not valid", kind, f.Path, f.Mode)
	v.must(digestRE.MatchString(f.SHA256), at+".sha256", remedyRestore, "%s %s: sha256 %q is not valid", kind, f.Path, f.SHA256)
}

// validateOwner checks that both halves of an owner have a number: one that has
// none would become root's.
func (b *Blueprint) validateOwner(v *validator, what, owner, at string) {
	v.must(ownerRE.MatchString(owner), at, remedyRestore, "%s: owner %q is not user:group", what, owner)
	user, group, _ := strings.Cut(owner, ":")
	known := func(name string, in bool) bool {
		n, err := strconv.ParseUint(name, 10, 32)
		return in || name == "root" || (err == nil && n <= maxID)
	}
	v.must(known(user, slices.ContainsFunc(b.Users, func(u User) bool { return u.Name == user })), at, "restore the user's entry under users, or name the owner by number", "%s: owner %q is no user of this machine", what, user)
	v.must(known(group, slices.ContainsFunc(b.Groups, func(g Group) bool { return g.Name == group })), at, "restore the group's entry under groups, or name it by number", "%s: group %q is no group of this machine", what, group)
}

func (b *Blueprint) validateLinks(v *validator) {
	for i, a := range b.Alternatives {
		at := fmt.Sprintf("alternatives[%d]", i)
		v.must(fileRE.MatchString(a.Name), at+".name", remedyRestore, "alternative name %q is not valid", a.Name)
		v.path("alternative "+a.Name, a.Link, at+".link")
		v.path("alternative "+a.Name, a.Value, at+".value")
		for j, s := range a.Slaves {
			sat := fmt.Sprintf("%s.slaves[%d]", at, j)
			v.must(fileRE.MatchString(s.Name), sat+".name", remedyRestore, "alternative %s: slave name %q is not valid", a.Name, s.Name)
			v.path("alternative "+a.Name, s.Link, sat+".link")
			v.path("alternative "+a.Name, s.Path, sat+".path")
		}
		v.once("alternative", a.Name, at)
	}
	for i, d := range b.Diversions {
		at := fmt.Sprintf("diversions[%d]", i)
		v.path("diversion", d.From, at+".from")
		v.path("diversion", d.To, at+".to")
		v.once("diversion", d.From, at)
	}
}

func (b *Blueprint) validatePeople(v *validator) {
	field := func(s string) bool { return plain(s) && !strings.Contains(s, ":") }
	for i, u := range b.Users {
		at := fmt.Sprintf("users[%d]", i)
		v.must(userRE.MatchString(u.Name), at+".name", remedyRestore, "user %q is not a valid passwd entry", u.Name)
		for _, f := range []struct {
			key string
			ok  bool
		}{
			{"uid", u.UID >= 0 && u.UID <= maxID},
			{"gid", u.GID >= 0 && u.GID <= maxID},
			{"gecos", field(u.Gecos)},
			{"home", field(u.Home)},
			{"shell", field(u.Shell)},
		} {
			v.must(f.ok, at+"."+f.key, remedyRestore, "user %s is not a valid passwd entry: %s", u.Name, f.key)
		}
		v.once("user", u.Name, at)
	}
	for i, g := range b.Groups {
		at := fmt.Sprintf("groups[%d]", i)
		v.must(userRE.MatchString(g.Name), at+".name", remedyRestore, "group %q is not a valid group entry", g.Name)
		v.must(g.GID >= 0 && g.GID <= maxID, at+".gid", remedyRestore, "group %s is not a valid group entry: gid", g.Name)
		for j, m := range g.Members {
			v.must(m != "" && field(m) && !strings.Contains(m, ","), fmt.Sprintf("%s.members[%d]", at, j), remedyRestore, "group %s: member %q is not valid", g.Name, m)
		}
		v.once("group", g.Name, at)
	}
}

// validateNotes checks what informs people and rules that a rebuild reads.
func (b *Blueprint) validateNotes(v *validator) {
	for i, l := range b.LiveDependencies {
		at := fmt.Sprintf("live_dependencies[%d]", i)
		v.must(l.Name != "" && plain(l.Name), at+".name", "give it a name of one line", "live dependency name %q is not usable", l.Name)
		switch l.Kind {
		case "tcp", "udp", "other":
			v.must(plain(l.Address), at+".address", remedyRestore, "live dependency %s: address %q is not one line of text", l.Name, l.Address)
		case "unix":
			if !strings.HasPrefix(l.Address, "@") || !plain(l.Address) {
				v.path("live dependency "+l.Name, l.Address, at+".address")
			}
		case "device":
			v.path("live dependency "+l.Name, l.Address, at+".address")
			v.must(strings.HasPrefix(l.Address, "/dev/"), at+".address", "give the device's node below /dev", "live dependency %s: %s is not below /dev", l.Name, l.Address)
		case "file":
			v.path("live dependency "+l.Name, l.Address, at+".address")
		default:
			v.must(false, at+".kind", "use tcp, udp, unix, device, file or other", "live dependency %s: kind %q is not known", l.Name, l.Kind)
		}
		_, err := time.Parse(time.DateOnly, l.Expires)
		v.must(l.Expires == "" || err == nil, at+".expires", "write the date as YYYY-MM-DD, or leave it out if it never expires", "live dependency %s: expires %q is not a date", l.Name, l.Expires)
		v.once("live dependency", l.Name, at)
	}
	for i, r := range b.Ignore {
		at := fmt.Sprintf("ignore[%d]", i)
		v.must(r.Name != "" && r.Why != "" && path.IsAbs(r.Glob), at, "give name, why and an absolute glob", "ignore rule %q is not complete", r.Name)
		_, err := path.Match(r.Glob, "")
		v.must(err == nil && strings.Count(r.Glob, "{") == strings.Count(r.Glob, "}"), at+".glob", "close every bracket and brace", "ignore rule %s: glob %q is not one", r.Name, r.Glob)
	}
	for i, w := range b.Withheld {
		v.path("withheld", w.Path, fmt.Sprintf("withheld[%d].path", i))
	}
	for i, u := range b.Units {
		v.path("unit", u.Path, fmt.Sprintf("units[%d].path", i))
	}
	if b.Apt != nil {
		for i, f := range b.Apt.Files {
			at := fmt.Sprintf("apt.files[%d]", i)
			v.path("apt", f.Path, at+".path")
			v.must(digestRE.MatchString(f.SHA256), at+".sha256", remedyRestore, "apt %s: sha256 %q is not valid", f.Path, f.SHA256)
		}
	}
	for i, r := range b.Recipients {
		v.must(plain(r), fmt.Sprintf("recipients[%d]", i), remedyRestore, "recipient %.40q is not one line of text", r)
	}
}

func (x *Build) validate(v *validator, at string) {
	v.must(UsableName(x.Name), at+".name", NameRemedy, "build name %q is not usable", x.Name)
	v.once("build", x.Name, at)
	v.must(len(x.Command) > 0 && x.Command[0] != "", at, remedyRestore, "build %s has no command", x.Name)
	for i, name := range x.IgnoreQuery {
		v.must(queryRE.MatchString(name), fmt.Sprintf("%s.ignore_query[%d]", at, i), "write the name of one parameter, such as ts of ?ts=1700000000", "build %s: %q is no name of a query parameter", x.Name, name)
	}
	for i, a := range x.Command {
		v.must(!strings.Contains(a, "\x00") && utf8.ValidString(a), fmt.Sprintf("%s.command[%d]", at, i), remedyRestore, "build %s: word %d of the command holds bytes that no command can", x.Name, i+1)
	}
	v.path("build "+x.Name, x.Workspace, at+".workspace")
	v.path("build "+x.Name, x.Home, at+".home")
	v.must(x.Directory == "" || localPath(x.Directory), at+".directory", remedyRestore, "build %s: directory %q leaves the workspace", x.Name, x.Directory)
	v.must(userRE.MatchString(x.User), at+".user", remedyRestore, "build %s: user %q is not valid", x.Name, x.User)
	v.must(modeRE.MatchString(x.Umask), at+".umask", remedyRestore, "build %s: umask %q is not valid", x.Name, x.Umask)
	for _, f := range []struct{ key, value string }{{"source.vcs", x.Source.VCS}, {"source.url", x.Source.URL}, {"source.revision", x.Source.Revision}} {
		v.must(plain(f.value), at+"."+f.key, remedyRestore, "build %s: %s %q is not one line of text", x.Name, f.key, f.value)
	}
	for _, f := range []struct{ key, value string }{{"source.original", x.Source.Original}, {"downloads", x.Downloads}, {"observation", x.Observation}} {
		v.must(f.value == "" || digestRE.MatchString(f.value), at+"."+f.key, remedyRestore, "build %s: %q is not a sha256 digest", x.Name, f.value)
	}
	for i, o := range x.Made {
		oat := fmt.Sprintf("%s.made[%d]", at, i)
		v.must(localPath(o.Path) && path.Clean(o.Path) == o.Path && plain(o.Link), oat+".path", remedyRestore, "build %s: output %q is not valid", x.Name, o.Path)
		v.must(o.SHA256 == "" || digestRE.MatchString(o.SHA256), oat+".sha256", remedyRestore, "build %s: output %s: %q is not a sha256 digest", x.Name, o.Path, o.SHA256)
		v.must(o.Again == "" || digestRE.MatchString(o.Again), oat+".again", remedyRestore, "build %s: output %s: %q is not a sha256 digest", x.Name, o.Path, o.Again)
		v.once("output of build "+x.Name, o.Path, oat)
	}
	for i, g := range x.Outputs {
		v.must(localPath(g), fmt.Sprintf("%s.outputs[%d]", at, i), "give globs relative to the root of the working copy", "build %s: output glob %q leaves the workspace", x.Name, g)
	}
	for _, k := range slices.Sorted(maps.Keys(x.Environment)) {
		value := x.Environment[k]
		v.must(variableRE.MatchString(k), at+".environment", remedyRestore, "build %s: variable name %q is not valid", x.Name, k)
		v.must(!strings.Contains(value, "\x00") && utf8.ValidString(value), at+".environment", remedyRestore, "build %s: variable %s holds bytes that no variable can", x.Name, k)
	}
	for _, k := range slices.Sorted(maps.Keys(x.Limits)) {
		v.must(limitRE.MatchString(k) && boundsRE.MatchString(x.Limits[k]), at+".limits", "give RLIMIT_NAME: soft:hard, numbers or unlimited", "build %s: limit %s: %q is not valid", x.Name, k, x.Limits[k])
	}
}
