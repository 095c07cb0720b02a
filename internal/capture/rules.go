package capture

import (
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// rule is a named reason why paths that no package owns need not be captured
// as they are, or must be.
type rule struct {
	name  string
	globs []string
	// remade is true when a rebuilt machine makes its own: its content may
	// rightly differ, so only its being there counts.
	remade bool
	why    string
	// by names the packages that make such files: a rebuilt machine needs those
	// that are installed.
	by []string
}

// generatedRules name what maintainer scripts, triggers and system programs
// write. Files of a rule that is not remade are captured with their bytes and
// laid on top where the rebuilt machine's own differ.
func generatedRules() []rule {
	return []rule{
		{"ld.so-cache", []string{"/etc/ld.so.cache", "/var/cache/ldconfig/**"}, true, "made by ldconfig from the libraries that are there", nil},
		{"users", []string{"/etc/{passwd,group,shadow,gshadow,subuid,subgid}{,-}"}, true, "made from the blueprint's users and groups", nil},
		{"dpkg-database", []string{"/var/lib/dpkg/**", "/var/lib/ucf/**", "/var/cache/debconf/**", "/etc/dpkg/origins/default"}, true, "kept by dpkg, apt and debconf", nil},
		{"python-bytecode", []string{"/usr/{lib,share}/**/__pycache__{,/**}", "/usr/{lib,share}/**/*.pyc"}, true, "compiled by the packages' scripts", nil},
		{"trust-store", []string{"/etc/ssl/certs{,/**}", "/etc/ca-certificates.conf"}, true, "made by update-ca-certificates", []string{"ca-certificates", "ca-certificates-java"}},
		{"shared-mime", []string{"/usr/share/mime/**", "/usr/share/applications/mimeinfo.cache"}, true, "made by update-mime-database", []string{"shared-mime-info", "desktop-file-utils"}},
		{"font-cache", []string{"/var/cache/fontconfig{,/**}", "/usr/share/fonts/**/.uuid"}, true, "made by fc-cache", []string{"fontconfig"}},
		{"man-index", []string{"/var/cache/man{,/**}", "/usr/share/info/dir{,.old}"}, true, "made by mandb and install-info", nil},
		{"glib-cache", []string{"/usr/lib/*/gio/modules/giomodule.cache", "/usr/share/glib-2.0/schemas/gschemas.compiled", "/usr/lib/*/gdk-pixbuf-2.0/**/loaders.cache", "/usr/lib/*/gtk-*/**/immodules.cache"}, true, "made by triggers", []string{"libglib2.0-0", "libglib2.0-bin", "libglib2.0-0t64"}},
		{"icon-cache", []string{"/usr/share/icons/**/icon-theme.cache"}, true, "made by gtk-update-icon-cache", []string{"gtk-update-icon-cache"}},
		{"gconv-cache", []string{"/usr/lib/*/gconv/gconv-modules.cache"}, true, "made by iconvconfig", nil},
		{"java-cache", []string{"/usr/lib/jvm/**/*.jsa", "/usr/lib/jvm/.java-*.jinfo"}, true, "made when Java is installed", nil},
		{"sgml-catalogs", []string{"/etc/{sgml,xml}/**", "/var/lib/{sgml-base,xml-core}/**"}, true, "registered by the packages' scripts", []string{"sgml-base", "xml-core"}},
		{"tex", []string{"/var/lib/{texmf,tex-common}/**", "/var/lib/texmf", "/var/cache/fonts{,/**}", "/etc/texmf/**", "/usr/share/{texmf,texlive}/**/ls-R", "/usr/local/share/texmf{,/**}"}, true, "made by the TeX packages' scripts", []string{"tex-common"}},
		{"perl-index", []string{"/var/lib/perl/**", "/etc/perl/XML/SAX/ParserDetails.ini"}, true, "made by the packages' scripts", nil},
		{"emacs", []string{"/usr/share/emacs/site-lisp/**/*.elc", "/var/lib/emacsen-common/**"}, true, "compiled by the packages' scripts", []string{"emacsen-common"}},
		{"system-state", []string{"/var/lib/systemd{,/**}", "/etc/machine-id", "/var/lib/dbus{,/**}", "/etc/.pwd.lock", "/etc/rc?.d/**", "/etc/systemd/system/*.wants{,/**}", "/var/spool{,/**}", "/var/mail{,/**}", "/var/backups{,/**}", "/lost+found"}, true, "state of the running system", nil},
		{"locale-archive", []string{"/usr/lib/locale{,/**}"}, false, "made by locale-gen from /etc/locale.gen", nil},
	}
}

// ignoredRules name what programs write for themselves and no build depends on.
func ignoredRules() []rule {
	return []rule{
		{"telemetry", []string{"/**/.config/go/telemetry{,/**}", "/**/.config/configstore{,/**}", "/**/.dotnet/TelemetryStorageService{,/**}", "/**/.npm/_logs{,/**}", "/**/.npm/_update-notifier-last-checked"}, true, "counters and logs that tools keep about themselves", nil},
		{"apt-marks", []string{"/var/lib/apt/extended_states"}, true, "which packages apt may remove by itself", nil},
		{"package-knowledge", []string{"/var/lib/dpkg/info/**", "/var/lib/apt/**", "/var/cache/apt/**"}, true, "what dpkg and apt know of each package; a rebuilt machine knows its own", nil},
		{"snakeoil", []string{"/etc/ssl/certs/ssl-cert-snakeoil.pem"}, true, "the certificate that ssl-cert makes for each host", nil},
		{"logs", []string{"/var/log{,/**}"}, true, "what programs said in the past", nil},
	}
}

// leftOut are the directories that small images have dpkg leave out (path-exclude): of
// documents and translations, not of what programs are made from.
func leftOut() []string {
	return []string{"/usr/share/{doc,man,locale,info,lintian,groff,linda,bug,gnome/help,omf}{,/**}"}
}

// systemRules name what is the kernel's or the network's, not the machine's.
func systemRules() []rule {
	return []rule{
		{"kernel", []string{"/proc{,/**}", "/sys{,/**}"}, true, "made by the kernel", nil},
		{"name-service", []string{"/run/nscd{,/**}", "/run/systemd/{userdb,resolve,journal}{,/**}"}, true, "services that the C library asks where they run, and does without where they do not", nil},
		{"runtime", []string{"/run{,/**}", "/var/run", "/var/lock"}, true, "state of running services, gone at every boot", nil},
		{"resolver", []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/etc/mtab"}, true, "the network the machine is in; a build server runs without one", nil},
		{"top-level", []string{"/", "/home", "/media", "/mnt", "/srv", "/opt", "/root", "/boot{,/**}"}, true, "the directories every system has", nil},
	}
}

// standardDevices are what every container has.
func standardDevices() []string {
	return []string{
		"/dev", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx",
		"/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/dev/fd/**", "/dev/pts", "/dev/pts/**", "/dev/shm", "/dev/shm/**", "/dev/core", "/dev/log", "/dev/mqueue",
	}
}

// matchRule finds the first rule with a glob that matches p.
func matchRule(rules []rule, p string) *rule {
	for i := range rules {
		if matchAny(rules[i].globs, p) {
			return &rules[i]
		}
	}
	return nil
}

// matchAny reports whether one of the globs matches p.
func matchAny(globs []string, p string) bool {
	for _, g := range globs {
		if ok, err := doublestar.Match(g, p); err == nil && ok {
			return true
		}
	}
	return false
}

// below reports whether p is dir or stands below it.
func below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// treeRoot finds the whole tree that p, which no package owns, belongs to: its
// topmost unowned ancestor below a directory that packages or users own, and
// never one that holds the workspace, a home or Trysail's own state.
func treeRoot(p string, owned func(dir string) bool, keepOut []string) string {
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	dir := "/"
	for i, part := range parts {
		dir = path.Join(dir, part)
		if i == len(parts)-1 {
			return dir
		}
		if i == 0 || owned(dir) {
			continue // /data itself is never a tree, /data/toolchain is
		}
		holds := false
		for _, k := range keepOut {
			holds = holds || below(k, dir)
		}
		if !holds {
			return dir
		}
	}
	return p
}
