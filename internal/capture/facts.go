package capture

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/account"
	"trysail/internal/debian"
	"trysail/internal/secret"
)

// ReadMachine reads what the machine is, apart from its packages and files.
func ReadMachine(db *debian.Database) (blueprint.Machine, error) {
	m := blueprint.Machine{MergedUsr: db.Merged()}
	release, err := readAssignments("/etc/os-release")
	if err != nil {
		return m, fmt.Errorf("which distribution this is: %w", err)
	}
	m.Distribution, m.Release, m.Codename = release["ID"], release["VERSION_ID"], release["VERSION_CODENAME"]
	if dpkg := db.Package("dpkg:amd64"); dpkg != nil {
		m.Architecture = dpkg.Architecture
	} else {
		out, err := exec.Command("dpkg", "--print-architecture").Output()
		if err != nil {
			return m, fmt.Errorf("dpkg --print-architecture: %w (Trysail captures Debian and Ubuntu machines)", err)
		}
		m.Architecture = strings.TrimSpace(string(out))
	}
	if data, err := os.ReadFile("/var/lib/dpkg/arch"); err == nil {
		for _, a := range strings.Fields(string(data)) {
			if a != m.Architecture {
				m.Foreign = append(m.Foreign, a)
			}
		}
	}
	if m.Hostname, err = os.Hostname(); err != nil {
		return m, err
	}
	if m.Identity, err = Identity(); err != nil {
		return m, err
	}
	if data, err := os.ReadFile("/etc/timezone"); err == nil {
		m.Timezone = strings.TrimSpace(string(data))
	} else if link, err := os.Readlink("/etc/localtime"); err == nil {
		_, m.Timezone, _ = strings.Cut(link, "zoneinfo/")
	}
	for _, f := range []string{"/etc/default/locale", "/etc/locale.conf"} {
		if locale, err := readAssignments(f); err == nil && m.Locale == "" {
			m.Locale = locale["LANG"]
		}
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if match := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(data); match != nil {
			m.CPU = string(match[1])
		}
	}
	return m, nil
}

// Identity is a digest of what stays the same while a machine is the same
// machine: its machine-id, the id of its boot disk's file system and its
// hardware address. It says whether two proofs were made on one machine.
func Identity() (string, error) {
	h := sha256.New()
	n := 0
	for _, f := range []string{"/etc/machine-id", "/sys/class/dmi/id/product_uuid", "/proc/sys/kernel/random/boot_id"} {
		data, err := os.ReadFile(f)
		if err != nil || len(strings.TrimSpace(string(data))) == 0 {
			continue
		}
		fmt.Fprintf(h, "%s=%s\n", f, strings.TrimSpace(string(data)))
		if n++; n == 2 {
			break // the boot id only stands in for what is missing
		}
	}
	if n == 0 {
		return "", fmt.Errorf("this machine has no identity: /etc/machine-id is missing (systemd-machine-id-setup makes it)")
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// readAssignments reads a file of NAME=value lines as os-release(5) has them.
func readAssignments(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string]string{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		k, v, ok := strings.Cut(strings.TrimSpace(sc.Text()), "=")
		if ok && !strings.HasPrefix(k, "#") {
			m[k] = strings.Trim(v, `"'`)
		}
	}
	return m, sc.Err()
}

// ReadUsers reads passwd and group below root. Lines that are no entries
// (NIS's plus signs, blank lines) are passed over, as the C library does.
func ReadUsers(root string) ([]blueprint.User, []blueprint.Group, error) {
	data, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		return nil, nil, err
	}
	var users []blueprint.User
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) != 7 {
			continue
		}
		uid, uerr := strconv.Atoi(f[2])
		gid, gerr := strconv.Atoi(f[3])
		if uerr != nil || gerr != nil || f[0] == "" {
			continue
		}
		users = append(users, blueprint.User{Name: f[0], UID: uid, GID: gid, Gecos: oneLine(f[4]), Home: f[5], Shell: f[6]})
	}
	data, err = os.ReadFile(filepath.Join(root, "etc/group"))
	if err != nil {
		return nil, nil, err
	}
	var groups []blueprint.Group
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) != 4 {
			continue
		}
		gid, err := strconv.Atoi(f[2])
		if err != nil || f[0] == "" {
			continue
		}
		g := blueprint.Group{Name: f[0], GID: gid}
		if f[3] != "" {
			g.Members = strings.Split(f[3], ",")
		}
		groups = append(groups, g)
	}
	return users, groups, nil
}

// oneLine makes the name of a person fit for the blueprint: old machines have
// them in Latin-1, and no build depends on one.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// buildUser is the user who builds: the one named; else, where root captures, the owner
// of the working copy, because its scripts are that user's; else who asks.
func buildUser(name string, owner account.Account) (string, error) {
	switch {
	case name != "":
		return name, nil
	case os.Geteuid() == 0 && owner.UID != 0:
		return owner.Name, nil
	}
	return invoker()
}

// invoker is who called sudo, else who runs the program.
func invoker() (string, error) {
	if name := os.Getenv("SUDO_USER"); name != "" && os.Geteuid() == 0 {
		return name, nil
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// allowedVariables are passed to a captured build when the shell has them:
// they configure compilers and tools and are known not to carry secrets.
func allowedVariables() []string {
	return []string{
		"PATH", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "EDITOR",
		"CC", "CXX", "CPP", "LD", "AR", "AS", "NM", "RANLIB", "STRIP", "FC", "F77", "*FLAGS", "LIBS", "MAKE", "MAKEFLAGS",
		"GO*", "CGO_*", "JAVA_HOME", "JDK_HOME", "MAVEN_HOME", "MAVEN_OPTS", "M2_HOME", "ANT_HOME", "GRADLE_HOME", "GRADLE_OPTS",
		"NODE_ENV", "NODE_OPTIONS", "NODE_PATH", "NVM_DIR", "PYTHON*", "VIRTUAL_ENV", "CARGO_HOME", "CARGO_BUILD_*", "CARGO_TARGET_DIR", "RUST*",
		"PERL*", "RUBY*", "GEM_HOME", "GEM_PATH", "PKG_CONFIG*", "CMAKE_*", "CTEST_*", "NINJA_STATUS", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH",
		"SOURCE_DATE_EPOCH", "DEB_*", "DEBEMAIL", "DEBFULLNAME", "DEBIAN_FRONTEND", "TEXMF*", "TEXINPUTS", "BIBINPUTS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "ARCH", "CROSS_COMPILE", "CI",
	}
}

// ownVariables are the recorder's: they name the authority that a captured
// build trusts, or the way to a network that a build server has not got.
func ownVariables() []string {
	return []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "npm_config_cafile", "NIX_SSL_CERT_FILE", "DENO_CERT", "*_proxy", "*_PROXY", "npm_config_*proxy", "JAVA_TOOL_OPTIONS"}
}

// chooseEnvironment splits the shell's variables into those that a build gets
// and the names of those withheld. named holds NAME or NAME=value.
func chooseEnvironment(environ, named []string, u blueprint.User) (env map[string]string, withheld []string, err error) {
	all := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			all[k] = v
		}
	}
	env = map[string]string{}
	for k, v := range all {
		switch {
		case matchAny(ownVariables(), k):
		case matchAny(allowedVariables(), k) && !holdsSecret(k, v):
			env[k] = v
		default:
			withheld = append(withheld, k)
		}
	}
	for _, n := range named {
		k, v, ok := strings.Cut(n, "=")
		if !ok {
			if v, ok = all[k]; !ok {
				return nil, nil, fmt.Errorf("--env %s: there is no such variable (give NAME=VALUE to set one)", k)
			}
		}
		if f, found := secret.Variable(k, v); found && f.Rule != "name" {
			return nil, nil, fmt.Errorf("--env %s: it holds %s, which the blueprint would keep in the clear: let the build read it from a file, or do without", k, f.What)
		}
		env[k] = v
		withheld = slices.DeleteFunc(withheld, func(w string) bool { return w == k })
	}
	env["HOME"], env["USER"], env["LOGNAME"] = u.Home, u.Name, u.Name
	if env["PATH"] == "" {
		env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	// The shell's own bookkeeping is no secret and no news.
	withheld = slices.DeleteFunc(withheld, func(w string) bool {
		return slices.Contains([]string{"HOME", "USER", "LOGNAME", "PWD", "OLDPWD", "SHLVL", "_", "MAIL", "HOSTNAME"}, w) || strings.HasPrefix(w, "SUDO_")
	})
	slices.Sort(withheld)
	return env, withheld, nil
}

// holdsSecret tells a variable that a rule allows and that is a secret all the
// same: GOOGLE_API_KEY begins like the variables of Go.
func holdsSecret(k, v string) bool {
	_, found := secret.Variable(k, v)
	return found
}

// readLimits reads the limits that this process, and so the build, has.
func readLimits() (map[string]string, error) {
	m := map[string]string{}
	for name, which := range map[string]int{
		"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE,
		"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CPU": unix.RLIMIT_CPU,
	} {
		var l unix.Rlimit
		if err := unix.Getrlimit(which, &l); err != nil {
			return nil, err
		}
		m[name] = limitText(l.Cur) + ":" + limitText(l.Max)
	}
	return m, nil
}

func limitText(n uint64) string {
	if n == ^uint64(0) {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// readUnits finds systemd units, timers and cron entries whose text names one
// of the paths: they may change what the build depends on between two builds.
// touched tells of each path whether it is the machine's own. The units that
// packages bring name programs of packages all the time, which says nothing:
// of these only those count that name something of the machine's own.
func readUnits(root string, touched map[string]bool, packaged func(p string) bool, read func(p string) ([]byte, error)) []blueprint.Unit {
	var units []blueprint.Unit
	for _, dir := range []string{"etc/systemd/system", "usr/lib/systemd/system", "etc/cron.d", "etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly", "var/spool/cron/crontabs", "etc/crontab"} {
		_ = filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // not there, or no file: names nothing
			}
			data, err := read(p)
			if err != nil {
				return nil // gone, or not for the build's user to read
			}
			u := blueprint.Unit{Path: strings.TrimPrefix(p, strings.TrimSuffix(root, "/"))}
			theirs := packaged(u.Path)
			for _, word := range unitWord.FindAllString(string(data), -1) {
				if own, ok := touched[word]; ok && (own || !theirs) && !slices.Contains(u.Names, word) && !everywhere(word) {
					u.Names = append(u.Names, word)
				}
			}
			if len(u.Names) > 0 {
				slices.Sort(u.Names)
				units = append(units, u)
			}
			return nil
		})
	}
	return units
}

var unitWord = regexp.MustCompile(`/[A-Za-z0-9_.+/@-]+[A-Za-z0-9_+@-]`)

// everywhere tells the words that nearly every unit names and that say nothing.
func everywhere(p string) bool {
	return slices.Contains([]string{"/bin/sh", "/usr/bin/sh", "/bin/bash", "/usr/bin/bash", "/dev/null", "/etc/passwd", "/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/bin/env", "/bin/true", "/usr/bin/test", "/etc/default", "/usr", "/etc", "/var", "/tmp", "/run", "/proc", "/sys", "/dev"}, p) || strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/")
}
