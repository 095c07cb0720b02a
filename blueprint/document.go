package blueprint

import (
	"fmt"
	"strings"
)

// RebuildDocument renders REBUILD.md: the plan for a person at a shell, with
// nothing but the distribution's own tools. What comes from the blueprint is one
// line of text, one code span or one shell word wherever it stands, so that no
// value can end a block and begin commands of its own.
func (b *Blueprint) RebuildDocument() string {
	var w strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&w, format+"\n", args...) }
	p("# Rebuild %s by hand", b.Name)
	p("")
	p("This is the build server `%s` as it was on %s: %s %s, %s, %d packages, %d software trees, %d configuration files.", b.Name, b.Captured.Format("2006-01-02"), prose(b.Machine.Distribution), prose(b.Machine.Release), b.Machine.Architecture, len(b.Packages), len(b.Software), len(b.Config))
	p("`trysail rebuild` does the same, faster. This document is for the day when Trysail is gone.")
	p("")
	p("You need a Linux machine of the architecture %s, root, and the programs dpkg-deb, tar, zstd, sha256sum and unshare%s; no network.", b.Machine.Architecture, ageNeeded(b))
	p("Begin in an empty directory that holds this file, `blueprint.sum` and `config/`, with the depot (a directory with `blobs/sha256/`) at hand. All commands are for one root shell.")
	if len(b.Withheld) > 0 {
		p("")
		p("Not kept; bring them yourself if the build needs them:")
		p("")
		for _, x := range b.Withheld {
			p("- %s: %s", span(x.Path), prose(x.Why))
		}
	}
	if len(b.LiveDependencies) > 0 {
		p("")
		p("Needed all the same, and not to be rebuilt:")
		p("")
		for _, l := range b.LiveDependencies {
			p("- **%s** (%s %s)%s", prose(l.Name), l.Kind, prose(l.Address), details(l))
		}
	}
	p("")
	w.WriteString(block("sh", append([]string{
		"set -eu",
		"DEPOT=${DEPOT:-depot} ROOT=${ROOT:-$PWD/root} KEY=${KEY:-}",
		"export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"NAME=" + quote(b.Machine.Hostname),
	}, helpers()...)))
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
		w.WriteString(block("sh", st.Commands))
	}
	for _, x := range b.Builds {
		p("")
		p("## Build %s", x.Name)
		p("")
		p("The source is `%s` (%s revision %s). Unpack it at %s in the root, owned by `%s`, and run there, as that user, with umask %s and the environment in `blueprint.yaml`:", x.SourceName(), prose(x.Source.VCS), prose(x.Source.Revision), span(x.Workspace), x.User, x.Umask)
		p("")
		w.WriteString(block("text", []string{"cd " + quote(x.WorkDirectory()) + " && " + command(x.Command)}))
		p("")
		if x.Downloads != "" {
			p("What it downloads is recorded in `%s`: each answer's body is in the depot under its digest.", x.DownloadsName())
			p("")
		}
		p("It is the same machine if these come out:")
		p("")
		var made []string
		for _, o := range x.Made {
			if o.Link != "" {
				made = append(made, o.Path+" -> "+o.Link)
			} else {
				made = append(made, strings.TrimPrefix(o.SHA256, "sha256:")+"  "+o.Path)
			}
		}
		w.WriteString(block("text", made))
	}
	return w.String()
}

// helpers are the shell functions that the commands of the plan use.
func helpers() []string {
	return []string{
		`# in_root runs a command in the new root, without network and with nothing of this shell's environment; enter does so with standard input.`,
		`in_root() { enter "$@" < /dev/null; }`,
		`enter() {`,
		`  env -i PATH="$PATH" LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes \`,
		`  unshare --mount --pid --fork --net --uts --ipc sh -c 'root=$1 name=$2; shift 2`,
		`    hostname "$name"`,
		`    mkdir -p "$root/proc" "$root/dev" && mount -t proc proc "$root/proc" && mount -t tmpfs none "$root/dev"`,
		`    for d in null zero full random urandom tty; do : > "$root/dev/$d" && mount --bind "/dev/$d" "$root/dev/$d"; done`,
		`    mkdir "$root/dev/pts" "$root/dev/shm" && ln -s /proc/self/fd "$root/dev/fd"`,
		`    exec chroot "$root" "$@"' enter "$ROOT" "$NAME" "$@"`,
		`}`,
		`# place makes a directory, and stops where a link in the new root leads out of it.`,
		`place() {`,
		`  case $(realpath -m -- "$ROOT$1") in "$(realpath -- "$ROOT")"/* | "$(realpath -- "$ROOT")") ;; *) echo "$1 leads out of $ROOT" >&2; exit 1 ;; esac`,
		`  mkdir -p "$ROOT$1"`,
		`}`,
	}
}

// block fences lines with a fence that none of them can end.
func block(language string, lines []string) string {
	var body strings.Builder
	for _, l := range lines {
		if l != "" {
			body.WriteString(l + "\n")
		}
	}
	fence := "```"
	for strings.Contains(body.String(), fence) {
		fence += "`"
	}
	return fence + language + "\n" + body.String() + fence + "\n"
}

// span makes a code span, as CommonMark has it for text with backquotes.
func span(s string) string {
	s = oneLine(s)
	tick := "`"
	for strings.Contains(s, tick) {
		tick += "`"
	}
	if tick != "`" {
		s = " " + s + " "
	}
	return tick + s + tick
}

// prose makes one line of Markdown text that means itself.
func prose(s string) string {
	var w strings.Builder
	for _, r := range oneLine(s) {
		if strings.ContainsRune("\\`*_[]<>&|", r) {
			w.WriteByte('\\')
		}
		w.WriteRune(r)
	}
	return w.String()
}

// oneLine joins lines, and leaves out what is not printed.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return !plain(string(r)) || r == ' ' }), " ")
	return strings.ToValidUTF8(s, "\ufffd")
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
	if l.Proposed {
		s = "; proposed by the capture, not confirmed"
	}
	for _, f := range []struct{ name, value string }{{"why", l.Why}, {"owner", l.Owner}, {"expires", l.Expires}, {"fallback", l.Fallback}} {
		if f.value != "" {
			s += "; " + f.name + ": " + prose(f.value)
		}
	}
	return s
}
