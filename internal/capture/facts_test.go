package capture

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"trysail/blueprint"
	"trysail/internal/account"
	"trysail/internal/debian"
	"trysail/internal/recorder"
	"trysail/internal/vcs"
)

// root writes files below a new directory.
func root(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadAssignments(t *testing.T) {
	dir := root(t, map[string]string{"os-release": "# a comment\nID=debian\nVERSION_ID=\"12\"\nNAME='Debian \"GNU\"'\n\n  LANG=C.UTF-8  \nbroken\n#X=1\nEMPTY=\n"})
	got, err := readAssignments(filepath.Join(dir, "os-release"))
	want := map[string]string{"ID": "debian", "VERSION_ID": "12", "NAME": `Debian "GNU`, "LANG": "C.UTF-8", "EMPTY": ""}
	if err != nil || got["ID"] != want["ID"] || got["VERSION_ID"] != want["VERSION_ID"] || got["LANG"] != want["LANG"] || got["X"] != "" || len(got) != len(want) {
		t.Errorf("%q %v", got, err)
	}
	if _, err := readAssignments(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there is read")
	}
}

func TestReadUsers(t *testing.T) {
	dir := root(t, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nrel:x:1000:1000:J\xfcrgen M\xc3\xbcller\x1b,,,:/home/rel:\n+nis:::::\n+::::::\n\ntoo:few:1\nbad:x:many:0::/:/bin/sh\n:x:1:1::/:/bin/sh\nlast:x:7:7::/:/bin/false",
		"etc/group":  "root:x:0:\nrel:x:1000:rel,qa\n+:::\nbad:x:y:\n\nlast:x:7:",
	})
	users, groups, err := ReadUsers(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantUsers := []blueprint.User{{Name: "root", Gecos: "root", Home: "/root", Shell: "/bin/bash"}, {Name: "rel", UID: 1000, GID: 1000, Gecos: "J?rgen Müller?,,,", Home: "/home/rel"}, {Name: "last", UID: 7, GID: 7, Home: "/", Shell: "/bin/false"}}
	wantGroups := []blueprint.Group{{Name: "root"}, {Name: "rel", GID: 1000, Members: []string{"rel", "qa"}}, {Name: "last", GID: 7}}
	if !reflect.DeepEqual(users, wantUsers) || !reflect.DeepEqual(groups, wantGroups) {
		t.Errorf("%+v\n%+v", users, groups)
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		dir := root(t, map[string]string{"etc/passwd": "", "etc/group": ""})
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadUsers(dir); err == nil {
			t.Errorf("read without %s", name)
		}
	}
}

func TestChooseEnvironment(t *testing.T) {
	u := blueprint.User{Name: "rel", Home: "/home/rel"}
	token := "ghp_" + strings.Repeat("aB3dE6gH", 5)
	environ := []string{
		"PATH=/opt/bin:/usr/bin", "CFLAGS=-O2", "CC=clang", "GOFLAGS=-mod=vendor", "GOOGLE_API_KEY=" + strings.Repeat("Zx81", 8), "GOAUTH=" + token, "LC_ALL=C", "HOME=/root", "USER=root", "SSH_AUTH_SOCK=/tmp/x", "AWS_SECRET_ACCESS_KEY=x", "http_proxy=http://p", "SSL_CERT_FILE=/x",
		"PWD=/", "OLDPWD=/", "SHLVL=1", "SUDO_UID=0", "EMPTY=", "=C:=x", "broken", "TEAM=blue",
	}
	env, withheld, err := chooseEnvironment(environ, []string{"TEAM", "EXTRA=1=2"}, u)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"PATH": "/opt/bin:/usr/bin", "CFLAGS": "-O2", "CC": "clang", "GOFLAGS": "-mod=vendor", "LC_ALL": "C", "HOME": "/home/rel", "USER": "rel", "LOGNAME": "rel", "TEAM": "blue", "EXTRA": "1=2"}
	if !reflect.DeepEqual(env, want) {
		t.Errorf("environment %q, want %q", env, want)
	}
	if want := []string{"AWS_SECRET_ACCESS_KEY", "EMPTY", "GOAUTH", "GOOGLE_API_KEY", "SSH_AUTH_SOCK"}; !slices.Equal(withheld, want) {
		t.Errorf("withheld %q, want %q", withheld, want)
	}
	if env, _, err := chooseEnvironment(nil, nil, u); err != nil || env["PATH"] == "" {
		t.Errorf("without a PATH: %q %v", env, err)
	}
	for _, named := range []string{"NONE", "TOKEN=" + token} {
		_, _, err := chooseEnvironment(environ, []string{named}, u)
		if err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("--env %.10s: %v", named, err)
		}
	}
}

func TestReadLimits(t *testing.T) {
	limits, err := readLimits()
	if err != nil || !strings.Contains(limits["RLIMIT_NOFILE"], ":") {
		t.Errorf("%q %v", limits, err)
	}
	for n, want := range map[uint64]string{0: "0", 1024: "1024", ^uint64(0): "unlimited"} {
		if got := limitText(n); got != want {
			t.Errorf("%d is %q", n, got)
		}
	}
}

func TestReadUnits(t *testing.T) {
	dir := root(t, map[string]string{
		"etc/systemd/system/app.service":     "[Service]\nExecStart=/opt/app/bin/run --conf=/etc/app.conf\nExecStartPre=/bin/sh -c x\n",
		"usr/lib/systemd/system/x.timer":     "OnCalendar=daily\n",
		"etc/cron.d/nightly":                 "0 3 * * * root /opt/app/bin/run; /opt/app/bin/run /opt/application\n",
		"etc/crontab":                        "/etc/app.conf\n",
		"usr/lib/systemd/system/man.service": "[Service]\nExecStart=/usr/bin/find /var/cache\n",
		"usr/lib/systemd/system/app.service": "[Service]\nExecStart=/opt/app/bin/run\n",
		"etc/cron.daily/../elsewhere/job":    "/opt/app/bin/run\n",
	})
	got := readUnits(dir, map[string]bool{"/opt/app/bin/run": true, "/etc/app.conf": true, "/bin/sh": true, "/opt/app": true, "/usr/bin/find": false},
		func(p string) bool { return strings.HasPrefix(p, "/usr/lib") }, os.ReadFile)
	want := []blueprint.Unit{{Path: "/etc/systemd/system/app.service", Names: []string{"/etc/app.conf", "/opt/app/bin/run"}}, {Path: "/usr/lib/systemd/system/app.service", Names: []string{"/opt/app/bin/run"}}, {Path: "/etc/cron.d/nightly", Names: []string{"/opt/app/bin/run"}}, {Path: "/etc/crontab", Names: []string{"/etc/app.conf"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestParseSourcesList(t *testing.T) {
	got := parseSourcesList([]byte(`# deb http://old.example.com/ x main
deb http://deb.example.com/debian bookworm main contrib # comment
deb-src [arch=amd64 signed-by=/etc/keys/a.gpg] https://me:secret@deb.example.com/x ./
deb [ arch=amd64,i386 ] https://deb.example.com/y stable main
deb [signed-by=/etc/keys/b.gpg arch=amd64] https://deb.example.com/z stable main
deb [arch=amd64 https://never.closed/ x main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb http://only.example.com
rpm http://deb.example.com/ x main
`))
	want := []blueprint.AptSource{
		{Types: []string{"deb"}, URIs: []string{"http://deb.example.com/debian"}, Suites: []string{"bookworm"}, Components: []string{"main", "contrib"}},
		{Types: []string{"deb-src"}, URIs: []string{"https://deb.example.com/x"}, Suites: []string{"./"}, Components: []string{}, SignedBy: "/etc/keys/a.gpg"},
		{Types: []string{"deb"}, URIs: []string{"https://deb.example.com/y"}, Suites: []string{"stable"}, Components: []string{"main"}},
		{Types: []string{"deb"}, URIs: []string{"https://deb.example.com/z"}, Suites: []string{"stable"}, Components: []string{"main"}, SignedBy: "/etc/keys/b.gpg"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}

func TestParseSources(t *testing.T) {
	got := parseSources([]byte(`# comment
Types: deb deb-src
URIs: https://me:secret@deb.example.com/debian
 https://mirror.example.com/debian
Suites: bookworm
# another
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

Enabled: no
Types: deb
URIs: https://off.example.com/
Suites: x

enabled: FALSE
Types: deb
URIs: https://off.example.com/
Suites: x

Types: deb
URIs: https://inline.example.com/
Suites: x
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQENBF
`))
	want := []blueprint.AptSource{
		{Types: []string{"deb", "deb-src"}, URIs: []string{"https://deb.example.com/debian", "https://mirror.example.com/debian"}, Suites: []string{"bookworm", "bookworm-updates"}, Components: []string{"main"}, SignedBy: "/usr/share/keyrings/debian.gpg"},
		{Types: []string{"deb"}, URIs: []string{"https://inline.example.com/"}, Suites: []string{"x"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}

func TestReadSources(t *testing.T) {
	line := "deb http://deb.example.com/ x main\n"
	dir := root(t, map[string]string{"etc/apt/sources.list": line, "etc/apt/sources.list.d/a.list": line, "etc/apt/sources.list.d/b.sources": "Types: deb\nURIs: https://b.example.com/\nSuites: x\n", "etc/apt/sources.list.d/c.list.disabled": line, "etc/apt/sources.list.d/d.save": line})
	if got := readSources(dir, os.ReadFile); len(got) != 3 {
		t.Errorf("%+v", got)
	}
	if got := readSources(t.TempDir(), os.ReadFile); len(got) != 0 {
		t.Errorf("nothing is read as %+v", got)
	}
}

func TestWithoutCredentials(t *testing.T) {
	for in, want := range map[string]string{
		"https://deb.example.com/x": "https://deb.example.com/x", "https://me:s3cret@deb.example.com/x?y=1": "https://deb.example.com/x?y=1", "https://token@deb.example.com": "https://deb.example.com",
		"https://me:s3%ret@deb.example.com/x%": "https://deb.example.com/x%", "https://me:s3%zzret@deb.example.com": "https://deb.example.com", "file:/srv/mirror": "file:/srv/mirror", "mirror+file:/etc/apt/mirrors": "mirror+file:/etc/apt/mirrors", "a:b@c%": "a:b@c%", "http://[::1": "http://[::1", "": "",
		"http://me:s3/cret@deb.example.com/x": "http://deb.example.com/x", "a:://me:s3cret@b": "a:://b", "//me:s3cret@b/x": "//b/x", "https://b/x@y": "https://b/x@y", "file:/srv//x@y": "file:/srv//x@y",
	} {
		if got := vcs.WithoutUser(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestSafeName(t *testing.T) {
	for in, want := range map[string]string{"Build-01.Example.com": "build-01.example.com", "10.0.0.1:27000": "10.0.0.1-27000", "": "build", "---": "build", "Größe": "gr-e", "team__app": "team-app", "My Job @2": "my-job-2", "a..b.-.c": "a.b.c", "-x.": "x", "a--b": "a-b", strings.Repeat("a", 100): strings.Repeat("a", 60), strings.Repeat("a", 59) + ".b": strings.Repeat("a", 59)} {
		if got := safeName(in); got != want || !blueprint.UsableName(got) {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestHomeInAWorkingCopy(t *testing.T) {
	for _, c := range []struct {
		root, home string
		want       bool
	}{
		{"/home/ann", "/home/ann", true},
		{"/home", "/home/ann", true},
		{"/", "/root", true},
		{"/home/ann/app", "/home/ann", false},
		{"/home/an", "/home/ann", false},
		{"/srv/app", "/home/ann", false},
	} {
		if got := contains(c.root, c.home); got != c.want {
			t.Errorf("working copy %s, home %s: %v", c.root, c.home, got)
		}
	}
}

// A working copy's scripts run as its owner, unless root says otherwise.
func TestBuildUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root builds as another user")
	}
	stranger, root := account.Account{UID: 4242, Name: "stranger"}, account.Account{Name: "root"}
	for _, x := range []struct {
		sudo, named string
		owner       account.Account
		want        string
	}{
		{"", "", stranger, "stranger"},
		{"ann", "", stranger, "stranger"},
		{"ann", "bob", stranger, "bob"},
		{"", "root", stranger, "root"},
		{"ann", "", root, "ann"},
		{"", "", root, "root"},
	} {
		t.Setenv("SUDO_USER", x.sudo)
		if got, err := buildUser(x.named, x.owner); err != nil || got != x.want {
			t.Errorf("%+v: %q, %v", x, got, err)
		}
	}
}

func TestRepackings(t *testing.T) {
	list := repackings([]blueprint.Package{
		{Name: "a"},
		{Name: "b", Repacked: debian.NoIndex},
		{Name: "c", Repacked: debian.OldIndex + ": it has 1"},
		{Name: "d", Repacked: "no configured source has this version any more: they have 2"},
		{Name: "e", Repacked: debian.NoDownload + ": no route"},
	})
	if len(list) != 4 || list[0].names[0] != "b" || list[0].remedy != list[1].remedy || list[1].names[0] != "c" || list[2].names[0] != "e" || list[3].names[0] != "d" {
		t.Errorf("%+v", list)
	}
	if list := repackings([]blueprint.Package{{Name: "a"}}); len(list) != 0 {
		t.Errorf("nothing was packed again: %+v", list)
	}
}

func TestNetworkTrouble(t *testing.T) {
	for _, c := range []struct {
		list []recorder.Connection
		want string
	}{
		{nil, ""},
		{[]recorder.Connection{{Address: "git.example.com:22", Why: "ssh"}}, ""},
		{[]recorder.Connection{{Address: "a.example.com:443", Why: recorder.TLSRefused, Allowed: true}}, ""},
		{[]recorder.Connection{{Address: "a.example.com:443", Why: recorder.TLSRefused}, {Address: "a.example.com:443", Why: recorder.TLSRefused}}, "certificate for a.example.com:443"},
		{[]recorder.Connection{{Address: "a:1", Why: recorder.TLSRefused}, {Address: "b:1", Why: recorder.TLSRefused}}, "a:1, b:1"},
	} {
		what, remedy := networkTrouble(c.list)
		if (what == "") != (c.want == "") || (remedy == "") != (c.want == "") || !strings.Contains(what, c.want) {
			t.Errorf("%v: %q, %q", c.list, what, remedy)
		}
	}
}
