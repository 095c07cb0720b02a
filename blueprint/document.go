package blueprint

import (
	"fmt"
	"strings"
)

// RebuildDocument renders REBUILD.md: the plan for a person at a shell, with
// nothing but the distribution's own tools.
func (b *Blueprint) RebuildDocument() string {
	var w strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&w, format+"\n", args...) }
	p("# Rebuild %s by hand", b.Name)
	p("")
	p("This is the build server `%s` as it was on %s: %s %s, %s, %d packages, %d software trees, %d configuration files.", b.Name, b.Captured.Format("2006-01-02"), b.Machine.Distribution, b.Machine.Release, b.Machine.Architecture, len(b.Packages), len(b.Software), len(b.Config))
	p("`trysail rebuild` does the same, faster. This document is for the day when Trysail is gone.")
	p("")
	p("You need a Linux machine of the architecture %s, root, and the programs dpkg-deb, tar, zstd, sha256sum and unshare%s; no network.", b.Machine.Architecture, ageNeeded(b))
	p("Begin in an empty directory that holds this file, `blueprint.sum` and `config/`, with the depot (a directory with `blobs/sha256/`) at hand. All commands are for one root shell.")
	if len(b.Withheld) > 0 {
		p("")
		p("Not kept, because they hold secrets; bring them yourself:")
		p("")
		for _, x := range b.Withheld {
			p("- `%s`: %s", x.Path, x.Why)
		}
	}
	if len(b.LiveDependencies) > 0 {
		p("")
		p("Needed all the same, and not to be rebuilt:")
		p("")
		for _, l := range b.LiveDependencies {
			p("- **%s** (%s %s)%s", l.Name, l.Kind, l.Address, details(l))
		}
	}
	p("")
	p("```sh")
	p("set -eu")
	p("DEPOT=${DEPOT:-depot} ROOT=${ROOT:-$PWD/root} KEY=${KEY:-}")
	p("export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	p("# in_root runs a command in the new root, without network and with nothing of this shell's environment.")
	p(`in_root() {`)
	p(`  env -i PATH="$PATH" LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes \`)
	p(`  unshare --mount --pid --fork --net --uts --ipc sh -c 'root=$1; shift`)
	p(`    hostname %s`, quote(b.Machine.Hostname))
	p(`    mkdir -p "$root/proc" "$root/dev" && mount -t proc proc "$root/proc" && mount -t tmpfs none "$root/dev"`)
	p(`    for d in null zero full random urandom tty; do : > "$root/dev/$d" && mount --bind "/dev/$d" "$root/dev/$d"; done`)
	p(`    mkdir "$root/dev/pts" "$root/dev/shm" && ln -s /proc/self/fd "$root/dev/fd"`)
	p(`    exec chroot "$root" "$@"' in_root "$ROOT" "$@" < /dev/null`)
	p("}")
	p("```")
	for i, st := range b.Plan() {
		p("")
		p("## %d. %s", i+1, strings.ToUpper(st.Title[:1])+st.Title[1:])
		p("")
		p("%s", st.Why)
		if len(st.Commands) == 0 {
			p("Nothing to do for this machine.")
			continue
		}
		p("")
		p("```sh")
		for _, c := range st.Commands {
			if c != "" {
				p("%s", c)
			}
		}
		p("```")
	}
	for _, x := range b.Builds {
		p("")
		p("## Build %s", x.Name)
		p("")
		p("The source is `%s` (%s revision `%s`). Unpack it at `%s` in the root, owned by `%s`, and run there, as that user, with umask %s and the environment in `blueprint.yaml`:", x.SourceName(), x.Source.VCS, x.Source.Revision, x.Workspace, x.User, x.Umask)
		p("")
		p("    cd %s && %s", quote(x.WorkDirectory()), command(x.Command))
		p("")
		if x.Downloads != "" {
			p("What it downloads is recorded in `%s`: each answer's body is in the depot under its digest.", x.DownloadsName())
			p("")
		}
		p("It is the same machine if these come out:")
		p("")
		for _, o := range x.Made {
			if o.Link != "" {
				p("    %s -> %s", o.Path, o.Link)
			} else {
				p("    %s  %s", strings.TrimPrefix(o.SHA256, "sha256:"), o.Path)
			}
		}
	}
	return w.String()
}

func command(argv []string) string {
	var list []string
	for _, a := range argv {
		list = append(list, quote(a))
	}
	return strings.Join(list, " ")
}

func ageNeeded(b *Blueprint) string {
	for _, f := range b.Config {
		if f.Encrypted {
			return ", and age for the encrypted files (set KEY to your identity file)"
		}
	}
	return ""
}

func details(l LiveDependency) string {
	var s string
	for _, f := range []struct{ name, value string }{{"why", l.Why}, {"owner", l.Owner}, {"expires", l.Expires}, {"fallback", l.Fallback}} {
		if f.value != "" {
			s += "; " + f.name + ": " + f.value
		}
	}
	return s
}
