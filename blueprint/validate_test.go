package blueprint

import (
	"slices"
	"strings"
	"testing"
	"time"
)

type validateCase struct {
	name     string
	break_   func(*Blueprint)
	at, what string
}

// validateCases has one entry for each rule, most of them hostile: a rebuild
// runs as root.
func validateCases() []validateCase {
	file := func(f func(*File)) func(*Blueprint) { return func(b *Blueprint) { f(&b.Config[2]) } }
	build := func(f func(*Build)) func(*Blueprint) { return func(b *Blueprint) { f(&b.Builds[0]) } }
	alt := func(f func(*Alternative)) func(*Blueprint) { return func(b *Blueprint) { f(&b.Alternatives[0]) } }
	return []validateCase{
		{"format", func(b *Blueprint) { b.Trysail = "" }, "trysail", `format ""`},
		{"name", func(b *Blueprint) { b.Name = "../age" }, "name", "not usable"},
		{"captured", func(b *Blueprint) { b.Captured = time.Time{} }, "captured", "time of capture"},
		{"distribution", func(b *Blueprint) { b.Machine.Distribution = "" }, "machine", "distribution"},
		{"distribution is Markdown", func(b *Blueprint) { b.Machine.Distribution = "x\n```sh\nreboot" }, "machine", "distribution"},
		{"architecture", func(b *Blueprint) { b.Machine.Architecture = "amd64;id" }, "machine", "architecture"},
		{"release", func(b *Blueprint) { b.Machine.Release = "12\n```sh\nreboot\n```" }, "machine.release", "one line"},
		{"hostname empty", func(b *Blueprint) { b.Machine.Hostname = "" }, "machine.hostname", "hostname"},
		{"hostname newline", func(b *Blueprint) { b.Machine.Hostname = "h\n10.0.0.1 deb.debian.org" }, "machine.hostname", "hostname"},
		{"hostname slash", func(b *Blueprint) { b.Machine.Hostname = "../h" }, "machine.hostname", "hostname"},
		{"hostname ends a quotation", func(b *Blueprint) { b.Machine.Hostname = "h'; reboot; '" }, "machine.hostname", "hostname"},
		{"hostname long", func(b *Blueprint) { b.Machine.Hostname = strings.Repeat("h", 65) }, "machine.hostname", "hostname"},
		{"foreign", func(b *Blueprint) { b.Machine.Foreign = []string{"i386", "$(reboot)"} }, "machine.foreign_architectures[1]", "foreign"},
		{"foreign twice", func(b *Blueprint) { b.Machine.Foreign = []string{"i386", "i386"} }, "machine.foreign_architectures[1]", "twice"},
		{"merged_usr other", func(b *Blueprint) { b.Machine.MergedUsr = []string{"bin", "etc"} }, "machine.merged_usr[1]", "merged_usr"},
		{"merged_usr dots", func(b *Blueprint) { b.Machine.MergedUsr = []string{".."} }, "machine.merged_usr[0]", "merged_usr"},
		{"package name", func(b *Blueprint) { b.Packages[1].Name = "Libc6" }, "packages[1].name", "Libc6"},
		{"package version", func(b *Blueprint) { b.Packages[1].Version = "1 2" }, "packages[1].version", "version"},
		{"package version option", func(b *Blueprint) { b.Packages[1].Version = "-1" }, "packages[1].version", "version"},
		{"package architecture", func(b *Blueprint) { b.Packages[1].Architecture = "" }, "packages[1].arch", "architecture"},
		{"package file", func(b *Blueprint) { b.Packages[1].File = "../../etc/passwd.deb" }, "packages[1].file", "plain file name"},
		{"package file option", func(b *Blueprint) { b.Packages[1].File = "--recursive.deb" }, "packages[1].file", "plain file name"},
		{"package file without ending", func(b *Blueprint) { b.Packages[1].File = "libc6" }, "packages[1].file", ".deb"},
		{"package twice", func(b *Blueprint) { b.Packages = append(b.Packages, b.Packages[1]) }, "packages[4]", "package libc6:amd64 stands twice"},
		{"one file for two", func(b *Blueprint) { b.Packages[1].File = b.Packages[0].File }, "packages[1].file", "twice"},
		{"software path", func(b *Blueprint) { b.Software[0].Path = "/opt/../etc" }, "software[0].path", "absolute and clean"},
		{"software root", func(b *Blueprint) { b.Software[0].Path = "/" }, "software[0].path", "absolute and clean"},
		{"software file climbs", func(b *Blueprint) { b.Software[0].File = "../config/etc/passwd" }, "software[0].file", "plain file name"},
		{"software file hidden", func(b *Blueprint) { b.Software[0].File = ".ssh" }, "software[0].file", "plain file name"},
		{"software twice", func(b *Blueprint) {
			s := b.Software[0]
			s.File = "other.tar.zst"
			b.Software = append(b.Software, s)
		}, "software[1]", "twice"},
		{"software file twice", func(b *Blueprint) {
			s := b.Software[0]
			s.Path = "/opt/other"
			b.Software = append(b.Software, s)
		}, "software[1].file", "twice"},
		{"config climbs", file(func(f *File) { f.Path = "/etc/../../root/.ssh/authorized_keys" }), "config[2].path", "absolute and clean"},
		{"config relative", file(func(f *File) { f.Path = "etc/x" }), "config[2].path", "absolute and clean"},
		{"config newline", file(func(f *File) { f.Path = "/etc/a\nb" }), "config[2].path", "absolute and clean"},
		{"config carriage return", file(func(f *File) { f.Path = "/etc/a\r```\rb" }), "config[2].path", "absolute and clean"},
		{"config not UTF-8", file(func(f *File) { f.Path = "/etc/\xff" }), "config[2].path", "absolute and clean"},
		{"config slash at the end", file(func(f *File) { f.Path = "/etc/a/" }), "config[2].path", "absolute and clean"},
		{"config owner", file(func(f *File) { f.Owner = "root" }), "config[2].owner", "user:group"},
		{"config owner option", file(func(f *File) { f.Owner = "-R:root" }), "config[2].owner", "user:group"},
		{"config owner unknown", file(func(f *File) { f.Owner = "nobody:root" }), "config[2].owner", "no user of this machine"},
		{"config group unknown", file(func(f *File) { f.Owner = "root:nogroup" }), "config[2].owner", "no group of this machine"},
		{"config owner number", file(func(f *File) { f.Owner = "4294967295:0" }), "config[2].owner", "no user"},
		{"config mode", file(func(f *File) { f.Mode = "rw" }), "config[2].mode", "mode"},
		{"config mode long", file(func(f *File) { f.Mode = "104755" }), "config[2].mode", "mode"},
		{"config mode high", file(func(f *File) { f.Mode = "74755" }), "config[2].mode", "mode"},
		{"config digest", file(func(f *File) { f.SHA256 = strings.ToUpper(sumA) }), "config[2].sha256", "sha256"},
		{"config link newline", file(func(f *File) { f.Link, f.SHA256 = "a\nb", "" }), "config[2].link", "one line"},
		{"config link with content", file(func(f *File) { f.Link = "a" }), "config[2]", "no content"},
		{"config twice", file(func(f *File) { f.Path = "/etc/localtime" }), "config[2]", "twice"},
		{"config in the place of another's cipher", file(func(f *File) { f.Path = "/etc/age/key.age" }), "config[2]", "original config/etc/age/key.age stands twice"},
		{"generated climbs", func(b *Blueprint) { b.Generated[0].Path = "/../x" }, "generated[0].path", "absolute and clean"},
		{"generated encrypted", func(b *Blueprint) { b.Generated[0].Encrypted = true }, "generated[0].encrypted", "encrypted"},
		{"generated is config", func(b *Blueprint) { b.Generated[0].Path = "/etc/localtime" }, "generated[0]", "twice"},
		{"directory path", func(b *Blueprint) { b.Directories[0].Path = "//x" }, "directories[0].path", "absolute and clean"},
		{"directory mode", func(b *Blueprint) { b.Directories[0].Mode = "u+s" }, "directories[0].mode", "mode"},
		{"directory owner", func(b *Blueprint) { b.Directories[0].Owner = "$(id):x" }, "directories[0].owner", "user:group"},
		{"directory twice", func(b *Blueprint) { b.Directories = append(b.Directories, b.Directories[0]) }, "directories[1]", "twice"},
		{"alternative name", alt(func(a *Alternative) { a.Name = "../cc" }), "alternatives[0].name", "name"},
		{"alternative option", alt(func(a *Alternative) { a.Name = "--remove-all" }), "alternatives[0].name", "name"},
		{"alternative link", alt(func(a *Alternative) { a.Link = "/usr/bin/cc\nreboot" }), "alternatives[0].link", "absolute and clean"},
		{"alternative value", alt(func(a *Alternative) { a.Value = "gcc" }), "alternatives[0].value", "absolute and clean"},
		{"alternative twice", func(b *Blueprint) { b.Alternatives = append(b.Alternatives, b.Alternatives[0]) }, "alternatives[1]", "twice"},
		{"slave name", alt(func(a *Alternative) { a.Slaves[0].Name = "" }), "alternatives[0].slaves[0].name", "slave"},
		{"slave link", alt(func(a *Alternative) { a.Slaves[0].Link = "/a/.." }), "alternatives[0].slaves[0].link", "absolute and clean"},
		{"slave path", alt(func(a *Alternative) { a.Slaves[0].Path = "" }), "alternatives[0].slaves[0].path", "absolute and clean"},
		{"ignored parameter", func(b *Blueprint) { b.Builds[0].IgnoreQuery = []string{"ts", "a=b"} }, "builds[0].ignore_query[1]", "no name of a query parameter"},
		{"override path", func(b *Blueprint) { b.Overrides[0].Path = "usr/bin/x" }, "overrides[0].path", "absolute and clean"},
		{"override mode", func(b *Blueprint) { b.Overrides[0].Mode = "u+s" }, "overrides[0].mode", "mode"},
		{"override owner", func(b *Blueprint) { b.Overrides[0].Owner = "$(id):x" }, "overrides[0].owner", "user:group"},
		{"override attribute", func(b *Blueprint) { b.Overrides[0].Attributes[0].Name = "trusted.overlay.opaque" }, "overrides[0].attributes[0].name", "no attribute"},
		{"override value", func(b *Blueprint) { b.Overrides[0].Attributes[0].Value = "AQ=" }, "overrides[0].attributes[0].value", "base64"},
		{"override twice", func(b *Blueprint) { b.Overrides = append(b.Overrides, b.Overrides[0]) }, "overrides[1]", "twice"},
		{"diversion from", func(b *Blueprint) { b.Diversions[0].From = "/a\n/b\n:" }, "diversions[0].from", "absolute and clean"},
		{"diversion to", func(b *Blueprint) { b.Diversions[0].To = "/../a" }, "diversions[0].to", "absolute and clean"},
		{"diversion twice", func(b *Blueprint) { b.Diversions = append(b.Diversions, b.Diversions[0]) }, "diversions[1]", "twice"},
		{"user name", func(b *Blueprint) { b.Users = append(b.Users, User{Name: "qa:x"}) }, "users[2].name", "user"},
		{"user gecos newline", func(b *Blueprint) { b.Users[1].Gecos = "x\nroot2::0:0::/:/bin/sh" }, "users[1].gecos", "gecos"},
		{"user gecos colon", func(b *Blueprint) { b.Users[1].Gecos = "x:/:/bin/sh" }, "users[1].gecos", "gecos"},
		{"user home", func(b *Blueprint) { b.Users[1].Home = "/home/rel\r" }, "users[1].home", "home"},
		{"user shell", func(b *Blueprint) { b.Users[1].Shell = "/bin/sh\n" }, "users[1].shell", "shell"},
		{"user id", func(b *Blueprint) { b.Users[1].UID = -1 }, "users[1].uid", "uid"},
		{"user id means none", func(b *Blueprint) { b.Users[1].UID = 1<<32 - 1 }, "users[1].uid", "uid"},
		{"user gid", func(b *Blueprint) { b.Users[1].GID = 1 << 32 }, "users[1].gid", "gid"},
		{"user twice", func(b *Blueprint) { b.Users = append(b.Users, b.Users[1]) }, "users[2]", "twice"},
		{"group name", func(b *Blueprint) { b.Groups[1].Name = "" }, "groups[1].name", "group"},
		{"group id", func(b *Blueprint) { b.Groups[1].GID = -2 }, "groups[1].gid", "gid"},
		{"group member", func(b *Blueprint) { b.Groups[2].Members[1] = "qa\nroot:x:0:rel" }, "groups[2].members[1]", "member"},
		{"group member is two", func(b *Blueprint) { b.Groups[2].Members[1] = "qa,root" }, "groups[2].members[1]", "member"},
		{"group twice", func(b *Blueprint) { b.Groups = append(b.Groups, b.Groups[1]) }, "groups[3]", "twice"},
		{"live name", func(b *Blueprint) { b.LiveDependencies[0].Name = "" }, "live_dependencies[0].name", "name"},
		{"live kind", func(b *Blueprint) { b.LiveDependencies[0].Kind = "sctp" }, "live_dependencies[0].kind", "sctp"},
		{"live address", func(b *Blueprint) { b.LiveDependencies[0].Address = "a\nb" }, "live_dependencies[0].address", "one line"},
		{"live device is a directory", func(b *Blueprint) { b.LiveDependencies[1].Address = "/etc" }, "live_dependencies[1].address", "not below /dev"},
		{"live device climbs", func(b *Blueprint) { b.LiveDependencies[1].Address = "/dev/../etc" }, "live_dependencies[1].address", "absolute and clean"},
		{"live socket", func(b *Blueprint) { b.LiveDependencies[0].Kind, b.LiveDependencies[0].Address = "unix", "run/x" }, "live_dependencies[0].address", "absolute and clean"},
		{"live file", func(b *Blueprint) { b.LiveDependencies[0].Kind, b.LiveDependencies[0].Address = "file", "/" }, "live_dependencies[0].address", "absolute and clean"},
		{"live twice", func(b *Blueprint) { b.LiveDependencies[1].Name = "licences" }, "live_dependencies[1]", "twice"},
		{"live expiry", func(b *Blueprint) { b.LiveDependencies[0].Expires = "next year" }, "live_dependencies[0].expires", "not a date"},
		{"ignore without a reason", func(b *Blueprint) { b.Ignore[0].Why = "" }, "ignore[0]", "not complete"},
		{"ignore relative", func(b *Blueprint) { b.Ignore[0].Glob = "**" }, "ignore[0]", "not complete"},
		{"ignore bracket", func(b *Blueprint) { b.Ignore[0].Glob = "/a[" }, "ignore[0].glob", "is not one"},
		{"ignore brace", func(b *Blueprint) { b.Ignore[0].Glob = "/a{b" }, "ignore[0].glob", "is not one"},
		{"withheld", func(b *Blueprint) { b.Withheld[0].Path = "`x`\n" }, "withheld[0].path", "absolute and clean"},
		{"unit", func(b *Blueprint) { b.Units[0].Path = "" }, "units[0].path", "absolute and clean"},
		{"apt file", func(b *Blueprint) { b.Apt.Files[0].Path = "x" }, "apt.files[0].path", "absolute and clean"},
		{"apt digest", func(b *Blueprint) { b.Apt.Files[0].SHA256 = "x" }, "apt.files[0].sha256", "sha256"},
		{"recipient", func(b *Blueprint) { b.Recipients[0] = "age1x\nage1y" }, "recipients[0]", "one line"},
		{"build name", build(func(x *Build) { x.Name = "a/b" }), "builds[0].name", "name"},
		{"build twice", func(b *Blueprint) { b.Builds = append(b.Builds, b.Builds[0]) }, "builds[1]", "twice"},
		{"build command", build(func(x *Build) { x.Command = nil }), "builds[0]", "no command"},
		{"build command empty", build(func(x *Build) { x.Command = []string{""} }), "builds[0]", "no command"},
		{"build command NUL", build(func(x *Build) { x.Command[1] = "a\x00b" }), "builds[0].command[1]", "word 2"},
		{"build workspace", build(func(x *Build) { x.Workspace = "/home/../../etc" }), "builds[0].workspace", "absolute and clean"},
		{"build home", build(func(x *Build) { x.Home = "" }), "builds[0].home", "absolute and clean"},
		{"build directory", build(func(x *Build) { x.Directory = ".." }), "builds[0].directory", "leaves the workspace"},
		{"build directory in the end", build(func(x *Build) { x.Directory = "a/../.." }), "builds[0].directory", "leaves the workspace"},
		{"build user", build(func(x *Build) { x.User = "0" }), "builds[0].user", "user"},
		{"build umask", build(func(x *Build) { x.Umask = "22" }), "builds[0].umask", "umask"},
		{"build revision", build(func(x *Build) { x.Source.Revision = "a\n```\n" }), "builds[0].source.revision", "one line"},
		{"build source", build(func(x *Build) { x.Source.Original = "sha256:" }), "builds[0].source.original", "digest"},
		{"build downloads", build(func(x *Build) { x.Downloads = "x" }), "builds[0].downloads", "digest"},
		{"build observation", build(func(x *Build) { x.Observation = "x" }), "builds[0].observation", "digest"},
		{"build output", build(func(x *Build) { x.Made[0].Path = "/etc/passwd" }), "builds[0].made[0].path", "output"},
		{"build output climbs", build(func(x *Build) { x.Made[0].Path = "dist/../../x" }), "builds[0].made[0].path", "output"},
		{"build output not clean", build(func(x *Build) { x.Made[0].Path = "dist//x" }), "builds[0].made[0].path", "output"},
		{"build output digest", build(func(x *Build) { x.Made[0].SHA256 = "x" }), "builds[0].made[0].sha256", "digest"},
		{"build output again", build(func(x *Build) { x.Made[0].Again = "x" }), "builds[0].made[0].again", "digest"},
		{"build output twice", build(func(x *Build) { x.Made[1].Path = x.Made[0].Path }), "builds[0].made[1]", "twice"},
		{"build glob", build(func(x *Build) { x.Outputs[0] = "a/../../**" }), "builds[0].outputs[0]", "leaves the workspace"},
		{"build glob by a brace", build(func(x *Build) { x.Outputs[0] = "{dist,..}/*" }), "builds[0].outputs[0]", "leaves the workspace"},
		{"build variable", build(func(x *Build) { x.Environment["A=B"] = "" }), "builds[0].environment", "variable name"},
		{"build variable NUL", build(func(x *Build) { x.Environment["A"] = "x\x00LD_PRELOAD=y" }), "builds[0].environment", "variable A"},
		{"build limit", build(func(x *Build) { x.Limits["RLIMIT_CPU"] = "-1:2" }), "builds[0].limits", "limit"},
		{"build limit name", build(func(x *Build) { x.Limits["nofile"] = "1:2" }), "builds[0].limits", "limit"},
	}
}

// TestValidateAccepts: what is unusual and right.
func TestValidateAccepts(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Blueprint)
	}{
		{"set-user-ID", func(b *Blueprint) { b.Config[2].Mode = "04755" }},
		{"three digits", func(b *Blueprint) { b.Config[2].Mode = "644" }},
		{"quotes in a path", func(b *Blueprint) { b.Config[2].Path = "/etc/it's $(x) `y` \"z\"" }},
		{"dots in a name", func(b *Blueprint) { b.Config[2].Path = "/etc/..data/...x" }},
		{"umlauts", func(b *Blueprint) { b.Users[1].Gecos, b.Config[2].Path = "Jörg Müller", "/etc/Größe" }},
		{"numbers for names", func(b *Blueprint) { b.Config[2].Owner = "12345:54321" }},
		{"host with a domain", func(b *Blueprint) { b.Machine.Hostname = "build_1.example.com" }},
		{"no release", func(b *Blueprint) { b.Machine.Release = "" }},
		{"command of several lines", func(b *Blueprint) { b.Builds[0].Command = []string{"sh", "-c", "make\nmake dist"} }},
		{"glob with dots", func(b *Blueprint) { b.Builds[0].Outputs = []string{"dist/**/*..tar", "./x"} }},
		{"abstract socket", func(b *Blueprint) { b.LiveDependencies[0].Kind, b.LiveDependencies[0].Address = "unix", "@dbus" }},
		{"two names for root", func(b *Blueprint) { b.Users = append(b.Users, User{Name: "toor", Home: "/root"}) }},
	} {
		b := sample()
		c.change(b)
		if err := b.Validate(); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if _, err := Parse("b", mustMarshal(t, b)); err != nil {
			t.Errorf("%s: written and not read: %v", c.name, err)
		}
	}
}

func TestNamesAndNumbers(t *testing.T) {
	b := sample()
	names := b.Names()
	for _, want := range []string{"config/etc/age/key.age", "config/etc/ssl/openssl.cnf", "deb/perl-base_1%3A5.36.0-7_amd64.deb", "downloads/release.json", "generated/usr/lib/locale/locale-archive", "observation/release.jsonl", "software/opt-toolchain.tar.zst", "source/release.tar.zst"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among the originals %q", want, names)
		}
	}
	if len(names) != 11 || slices.Contains(names, "config/etc/localtime") || !slices.IsSorted(names) {
		t.Errorf("originals %q: want 11, sorted, without links", names)
	}
	machine := b.MachineNames()
	if len(machine) != 8 || len(b.Builds) != 1 {
		t.Errorf("the machine itself needs %q; builds left: %d", machine, len(b.Builds))
	}
	if b.UserNumbers()["rel"] != 1000 || b.GroupNumbers()["shadow"] != 42 || b.numeric("rel:shadow") != "1000:42" || b.numeric("7:8") != "7:8" {
		t.Errorf("numbers: %v %v", b.UserNumbers(), b.GroupNumbers())
	}
	if b.Build("release") == nil || b.Build("other") != nil || b.Builds[0].WorkDirectory() != "/home/rel/age/cmd" || b.Reference() != "blueprint/age" {
		t.Error("look-ups of builds")
	}
	if got := BodyName(sumA); got != "downloads/bodies/"+sumA[7:] {
		t.Errorf("BodyName: %s", got)
	}
}
