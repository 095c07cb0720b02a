package blueprint

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Step is one part of a rebuild. internal/rebuild executes it; [Blueprint.RebuildDocument]
// describes it and gives the commands by which a person does the same.
type Step struct {
	Name  string // check, seed, unpack …
	Title string
	Why   string
	// Commands are the lines of a shell script with standard tools only.
	Commands []string
}

// SeedFile is a file that must stand before the first package.
type SeedFile struct {
	Path, Mode, Text string
}

// UserNumbers maps the names of users to their numbers.
func (b *Blueprint) UserNumbers() map[string]int {
	m := map[string]int{}
	for _, u := range b.Users {
		m[u.Name] = u.UID
	}
	return m
}

// GroupNumbers maps the names of groups to their numbers.
func (b *Blueprint) GroupNumbers() map[string]int {
	m := map[string]int{}
	for _, g := range b.Groups {
		m[g.Name] = g.GID
	}
	return m
}

// MachineNames lists the originals that the root itself needs, without those
// of its builds.
func (b *Blueprint) MachineNames() []string {
	c := *b
	c.Builds = nil
	return c.Names()
}

// PackagesOnly is the part of a machine that packages and users alone make:
// what the distribution's own tools can be compared with.
func (b *Blueprint) PackagesOnly() *Blueprint {
	return &Blueprint{
		Trysail: b.Trysail, Name: b.Name, Captured: b.Captured, Machine: b.Machine,
		Packages: b.Packages, Diversions: b.Diversions, Users: b.Users, Groups: b.Groups,
	}
}

// SeedDirectories lists directories that must stand before the first package.
func (b *Blueprint) SeedDirectories() []string {
	dirs := []string{"etc", "usr", "var/lib/dpkg"}
	for _, l := range b.Machine.MergedUsr {
		dirs = append(dirs, "usr/"+l)
	}
	return dirs
}

// SeedFiles gives users and groups their numbers before any package asks for
// them, and the machine its name. Passwords are locked: none was ever kept.
func (b *Blueprint) SeedFiles() []SeedFile {
	var passwd, shadow, group, gshadow strings.Builder
	for _, u := range b.Users {
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", u.Name, u.UID, u.GID, u.Gecos, u.Home, u.Shell)
		fmt.Fprintf(&shadow, "%s:*:19000:0:99999:7:::\n", u.Name)
	}
	for _, g := range b.Groups {
		fmt.Fprintf(&group, "%s:x:%d:%s\n", g.Name, g.GID, strings.Join(g.Members, ","))
		fmt.Fprintf(&gshadow, "%s:*::%s\n", g.Name, strings.Join(g.Members, ","))
	}
	return []SeedFile{
		{"etc/passwd", "0644", passwd.String()},
		{"etc/group", "0644", group.String()},
		{"etc/shadow", "0640", shadow.String()},
		{"etc/gshadow", "0640", gshadow.String()},
		{"etc/hostname", "0644", b.Machine.Hostname + "\n"},
		{"etc/hosts", "0644", "127.0.0.1 localhost\n127.0.1.1 " + b.Machine.Hostname + "\n::1 localhost ip6-localhost ip6-loopback\n"},
	}
}

// DpkgForces lists the checks that dpkg skips when it configures the packages (--force-…): that
// of dependencies, where a captured package lacks one.
func (b *Blueprint) DpkgForces() string {
	if slices.ContainsFunc(b.Packages, func(p Package) bool { return len(p.Lacks) > 0 }) {
		return "confold,unsafe-io,depends"
	}
	return "confold,unsafe-io"
}

// AlternativeCommands gives the commands that leave every alternative as it was
// captured. state tells whether a candidate is registered, and whether it is
// the one in force.
func AlternativeCommands(list []Alternative, state func(name, value string) (known, current bool)) []string {
	var cmds []string
	for _, a := range list {
		known, current := state(a.Name, a.Value)
		if !known {
			c := []string{"update-alternatives", "--install", quote(a.Link), quote(a.Name), quote(a.Value), fmt.Sprint(a.Priority)}
			for _, s := range a.Slaves {
				c = append(c, "--slave", quote(s.Link), quote(s.Name), quote(s.Path))
			}
			cmds = append(cmds, strings.Join(c, " "))
		}
		if a.Manual || (known && !current) {
			cmds = append(cmds, "update-alternatives --set "+quote(a.Name)+" "+quote(a.Value))
		}
	}
	return cmds
}

// quote makes a word of a shell script.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Plan lists the steps of a rebuild in their order.
func (b *Blueprint) Plan() []Step {
	return []Step{
		{
			Name: "check", Title: "check the originals",
			Why: "Every original is laid out by its name and compared with its digest. One that differs must not be used.",
			Commands: []string{
				`while read -r sum name; do`,
				`  case $name in config/*) continue ;; esac`,
				`  mkdir -p "$(dirname "$name")"`,
				`  cp "$DEPOT/blobs/sha256/$sum" "$name"`,
				`done < blueprint.sum`,
				`sha256sum --check --quiet blueprint.sum`,
			},
		},
		{
			Name: "seed", Title: "seed users and links",
			Why:      "Users and groups come first, so that their numbers are those of the captured machine.",
			Commands: b.seedCommands(),
		},
		{
			Name: "unpack", Title: fmt.Sprintf("unpack %d packages", len(b.Packages)),
			Why: "The packages are first laid out as they are, so that dpkg and the shell exist; then dpkg unpacks each properly, with its preinst script and its database entry.",
			Commands: []string{
				`for deb in deb/*.deb; do`,
				`  dpkg-deb --fsys-tarfile "$deb" | tar --extract --directory "$ROOT" --numeric-owner --keep-directory-symlink --preserve-permissions`,
				`done`,
				`mkdir "$ROOT/originals" && cp deb/*.deb "$ROOT/originals"`,
				`mkdir -p "$ROOT/var/lib/dpkg/info" "$ROOT/var/lib/dpkg/updates" "$ROOT/var/lib/dpkg/triggers"`,
				`: > "$ROOT/var/lib/dpkg/status"; : > "$ROOT/var/lib/dpkg/available"`,
				b.architectureCommand(),
				b.diversionCommands(),
				`in_root dpkg --unpack --force-depends --force-confold --recursive /originals`,
				`rm -r "$ROOT/originals"`,
			},
		},
		{
			Name: "configure", Title: "configure all packages",
			Why: "Every package's own scripts run, in one pass. The policy keeps them from starting services.",
			Commands: []string{
				`printf '#!/bin/sh\nexit 101\n' > "$ROOT/usr/sbin/policy-rc.d"; chmod 755 "$ROOT/usr/sbin/policy-rc.d"`,
				`in_root dpkg --configure -a --force-` + b.DpkgForces(),
				`rm "$ROOT/usr/sbin/policy-rc.d"`,
			},
		},
		{
			Name: "software", Title: "lay out software that no package owns",
			Why:      "Whole trees, whichever of their files the build used. One that stands where a package put something takes its place.",
			Commands: b.softwareCommands(),
		},
		{
			Name: "config", Title: "lay out the configuration",
			Why:      "Files that the administrator wrote or changed, at their own paths. A file that ends in .age is encrypted: age --decrypt -i KEY.",
			Commands: b.fileCommands(b.Config, File.ConfigName),
		},
		{
			Name: "generated", Title: "lay out generated files",
			Why:      "What a script on the captured machine made and the scripts here may make otherwise.",
			Commands: b.fileCommands(b.Generated, File.GeneratedName),
		},
		{
			Name: "finish", Title: "directories, alternatives, loader cache",
			Why:      "What stands between the files.",
			Commands: b.finishCommands(),
		},
	}
}

func (b *Blueprint) architectureCommand() string {
	return `printf '%s\n' ` + command(append([]string{b.Machine.Architecture}, b.Machine.Foreign...)) + ` > "$ROOT/var/lib/dpkg/arch"`
}

func (b *Blueprint) diversionCommands() string {
	var list []string
	for _, d := range b.Diversions {
		list = append(list, quote(d.From), quote(d.To), ":")
	}
	if len(list) == 0 {
		return ""
	}
	return `printf '%s\n' ` + strings.Join(list, " ") + ` > "$ROOT/var/lib/dpkg/diversions"`
}

func (b *Blueprint) seedCommands() []string {
	cmds := []string{`mkdir "$ROOT"; chmod 755 "$ROOT"`}
	dirs := []string{}
	for _, d := range b.SeedDirectories() {
		dirs = append(dirs, `"$ROOT"/`+quote(d))
	}
	cmds = append(cmds, "mkdir -p "+strings.Join(dirs, " "))
	for _, l := range b.Machine.MergedUsr {
		cmds = append(cmds, fmt.Sprintf(`ln -s %s "$ROOT"/%s`, quote("usr/"+l), quote(l)))
	}
	for _, f := range b.SeedFiles() {
		// No line of these files begins with a colon, so none ends the text early.
		cmds = append(cmds, fmt.Sprintf("cat > \"$ROOT\"/%s <<':END'\n%s:END", f.Path, f.Text), fmt.Sprintf(`chmod %s "$ROOT"/%s`, f.Mode, f.Path))
	}
	if gid, ok := b.GroupNumbers()["shadow"]; ok {
		cmds = append(cmds, fmt.Sprintf(`chown 0:%d "$ROOT"/etc/shadow "$ROOT"/etc/gshadow`, gid))
	}
	return cmds
}

func (b *Blueprint) softwareCommands() []string {
	var cmds []string
	for _, s := range b.Software {
		cmds = append(cmds, `in_root rm -rf `+quote(s.Path), fmt.Sprintf(`zstd -dc %s | enter tar --extract --directory / --numeric-owner --preserve-permissions --xattrs --xattrs-include='*' --warning=no-unknown-keyword`, quote(s.OriginalName())))
	}
	return cmds
}

// numeric gives an owner by numbers, as the machine that types the commands
// need not know the names.
func (b *Blueprint) numeric(owner string) string {
	u, g, _ := strings.Cut(owner, ":")
	if id, ok := b.UserNumbers()[u]; ok {
		u = fmt.Sprint(id)
	}
	if id, ok := b.GroupNumbers()[g]; ok {
		g = fmt.Sprint(id)
	}
	return u + ":" + g
}

func (b *Blueprint) fileCommands(files []File, name func(File) string) []string {
	var cmds []string
	for _, f := range files {
		to := `"$ROOT"` + quote(f.Path)
		cmds = append(cmds, `place `+quote(path.Dir(f.Path)))
		switch {
		case f.Absent:
			cmds = append(cmds, `rm -rf `+to)
		case f.Link != "":
			cmds = append(cmds, fmt.Sprintf(`test -L %s || test ! -d %s || rmdir %s; ln -sfn %s %s && chown -h %s %s`, to, to, to, quote(f.Link), to, quote(b.numeric(f.Owner)), to))
		case f.Encrypted:
			cmds = append(cmds, fmt.Sprintf(`test -z "$KEY" || { rm -f %s; age --decrypt -i "$KEY" %s > %s && chown %s %s && chmod %s %s; }`, to, quote(name(f)), to, quote(b.numeric(f.Owner)), to, quote(f.Mode), to))
		default:
			cmds = append(cmds, fmt.Sprintf(`rm -f %s && cp %s %s && chown %s %s && chmod %s %s`, to, quote(name(f)), to, quote(b.numeric(f.Owner)), to, quote(f.Mode), to))
		}
		if f.HasContent() && !f.Modified.IsZero() {
			cmds = append(cmds, fmt.Sprintf(`test ! -e %s || touch -d %s %s`, to, quote(f.Modified.UTC().Format(time.RFC3339Nano)), to))
		}
	}
	return cmds
}

func (b *Blueprint) finishCommands() []string {
	var cmds []string
	dirs := slices.Clone(b.Directories)
	slices.SortFunc(dirs, func(x, y Directory) int { return strings.Compare(x.Path, y.Path) })
	for _, d := range dirs {
		to := `"$ROOT"` + quote(d.Path)
		cmds = append(cmds, fmt.Sprintf(`place %s && chown %s %s && chmod %s %s`, quote(d.Path), quote(b.numeric(d.Owner)), to, quote(d.Mode), to))
	}
	for _, a := range b.Alternatives {
		install := AlternativeCommands([]Alternative{a}, func(string, string) (bool, bool) { return false, false })
		cmds = append(cmds, fmt.Sprintf(`in_root update-alternatives --list %s 2>/dev/null | grep -qxF %s || in_root %s`, quote(a.Name), quote(a.Value), install[0]))
		if a.Manual {
			cmds = append(cmds, fmt.Sprintf(`in_root update-alternatives --set %s %s`, quote(a.Name), quote(a.Value)))
		} else {
			cmds = append(cmds, fmt.Sprintf(`test "$(readlink "$ROOT"/etc/alternatives/%s)" = %s || in_root update-alternatives --set %s %s`, quote(a.Name), quote(a.Value), quote(a.Name), quote(a.Value)))
		}
	}
	for _, c := range append(CacheCommands(), b.HoldCommands()...) {
		cmds = append(cmds, "in_root sh -c "+quote(c))
	}
	for _, o := range b.Overrides {
		to := `"$ROOT"` + quote(o.Path)
		cmd := fmt.Sprintf(`place %s && { test -L %s || test ! -e %s || { chown %s %s && chmod %s %s`, quote(path.Dir(o.Path)), to, to, quote(b.numeric(o.Owner)), to, quote(o.Mode), to)
		for _, a := range o.Attributes {
			cmd += fmt.Sprintf(` && setfattr -n %s -v 0s%s %s`, quote(a.Name), a.Value, to)
		}
		cmds = append(cmds, cmd+"; }; }")
	}
	return cmds
}

// HoldCommands have dpkg hold the packages that the captured machine held.
func (b *Blueprint) HoldCommands() []string {
	var held []string
	for _, p := range b.Packages {
		name := p.Key()
		if p.Architecture == "all" { // dpkg knows it by its name alone
			name = p.Name
		}
		if p.Held {
			held = append(held, quote(name+" hold"))
		}
	}
	if len(held) == 0 {
		return nil
	}
	return []string{`printf '%s\n' ` + strings.Join(held, " ") + ` | dpkg --set-selections`}
}

// CacheCommands tell the loader and the trust store of what was laid on top.
func CacheCommands() []string {
	return []string{
		"if command -v ldconfig >/dev/null; then ldconfig; fi",
		"if command -v update-ca-certificates >/dev/null && ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then update-ca-certificates >/dev/null; fi",
	}
}
