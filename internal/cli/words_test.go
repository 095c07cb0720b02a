package cli

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/internal/api"
)

func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(context.Background(), append([]string{"--state", t.TempDir()}, args...), 0o022, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// TestWrongWords: a command line that is wrong says which word is, before anything is sent.
func TestWrongWords(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"release", "wait"}, "VERSION is missing: trysail release wait VERSION"},
		{[]string{"release", "sign", "1.0"}, "ITEM is missing: trysail release sign VERSION ITEM"},
		{[]string{"release", "waive", "1.0", "test", "a", "b"}, `"b" is one word too many: trysail release waive VERSION STEP TEST`},
		{[]string{"rebuild", "now"}, `"now" is one word too many: trysail rebuild`},
		{[]string{"release", "begin", "1.0"}, `trysail release has no command "begin" (see trysail release --help)`},
		{[]string{"fleet", "one"}, `trysail fleet has no command "one" (see trysail fleet --help)`},
		{[]string{"runbook", "check", "a", "b"}, `"b" is one word too many: trysail runbook check [FILE]`},
		{[]string{"release", "start", "release/1.0"}, "letters A-Z and a-z, digits and . + _ -"},
		{[]string{"release", "start", "1.0 rc1"}, "letters A-Z and a-z, digits and . + _ -"},
		{[]string{"release", "status", "é1"}, "letters A-Z and a-z, digits and . + _ -"},
		{[]string{"release", "start", "1." + strings.Repeat("0", 120)}, "use 1 to 64 of the letters"},
		{[]string{"release", "start", "-1"}, "a word that begins with - is a flag, and neither a version nor a name begins with -"},
		{[]string{"release", "start", ""}, "begin with a letter or a digit"},
	} {
		out, errs, code := run(t, c.args...)
		if code != exitUsage || !strings.Contains(errs, c.want) || strings.Contains(errs, "arg(s)") || out != "" {
			t.Errorf("%q: exit status %d, %s%s\nnot: %s", c.args, code, out, errs, c.want)
		}
	}
}

// TestUnknownCommandInJSON: an error is JSON where JSON is asked for, wherever that stands.
func TestUnknownCommandInJSON(t *testing.T) {
	for _, c := range []struct {
		args []string
		json bool
	}{
		{[]string{"relaese", "--json"}, true},
		{[]string{"--json", "relaese", "start"}, true},
		{[]string{"release", "begin", "--json"}, true},
		{[]string{"release", "start", "--no-such-flag", "--json"}, true},
		{[]string{"relaese"}, false},
		{[]string{"relaese", "--", "--json"}, false},
	} {
		out, errs, code := run(t, c.args...)
		if code != exitUsage || strings.HasPrefix(out, "{\n  \"error\"") != c.json || (errs == "") != c.json {
			t.Errorf("%q: exit status %d, %s%s", c.args, code, out, errs)
		}
	}
}

// TestNamesOfMachines: which letters a name may have is said before anything is sent.
func TestNamesOfMachines(t *testing.T) {
	for name, good := range map[string]bool{
		"Build Server 1": false, "build1.example.org": true, "BUILD_2": true, "": false, "-one": false, "büro": false, "a/b": false, strings.Repeat("a", 65): false,
	} {
		err := api.CheckMachineName(name)
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "letters A-Z and a-z, digits and . _ -") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestUnquoted: a pattern that the shell expanded is named, and a command with a word -- is not
// mistaken for one.
func TestUnquoted(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, f := range []string{"dist/a", "dist/b", "dist/c", "make"} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string // after --output
		want string
	}{
		{[]string{"dist/a", "dist/b", "--", "sh", "x"}, "Quote it: --output 'dist/*'"},
		{[]string{"dist/a", "dist/b", "dist/c", "--", "sh", "x"}, "Quote it: --output 'dist/*'"},
		{[]string{"dist/*", "--", "make", "dist"}, ""},
		{[]string{"dist/a", "make", "--", "all"}, ""},
		{[]string{"dist/a", "git", "--", "all"}, ""},
	} {
		_, errs, _ := run(t, append([]string{"capture", "--yes", "--output"}, c.args...)...)
		if got := strings.Contains(errs, "did the shell expand the pattern"); got != (c.want != "") || !strings.Contains(errs, c.want) {
			t.Errorf("%q: %s", c.args, errs)
		}
	}
}

// TestFold: lines fit a terminal, and commands stay in one piece.
func TestFold(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"short\n", "short\n"},
		{"one two three four five six seven\n", "one two three four\n  five six seven\n"},
		{"  one two three four five six\n", "  one two three four\n    five six\n"},
		{"    → trysail release status 1.0 and more of it\n", "    → trysail release status 1.0 and more of it\n"},
		{"sha256:0123456789012345678901234567890\n", "sha256:0123456789012345678901234567890\n"},
		{"ünë two three four fïve\n", "ünë two three four\n  fïve\n"},
		{"no end of the line here, or so", "no end of the line\n  here, or so"},
	} {
		if got := fold(c.text, 20); got != c.want {
			t.Errorf("%q\ngives %q\nnot   %q", c.text, got, c.want)
		}
	}
}

// TestDoctorJudges: what is missing counts where a command needs it.
func TestDoctorJudges(t *testing.T) {
	list := func() []finding {
		return []finding{
			{Name: "kernel", OK: false, For: []string{"capture"}},
			{Name: "runc", OK: true, For: []string{"capture", "rebuild", "drill", "agent"}},
			{Name: "git", OK: false, For: []string{"capture", "release"}},
			{Name: "svn", OK: false, For: []string{"capture", "release"}},
		} // as on a machine with an old kernel and no version control
	}
	for _, c := range []struct {
		commands []string
		copyOf   string
		missing  int
	}{
		{[]string{"capture", "rebuild", "drill"}, "", 1},
		{[]string{"capture"}, "git", 2},
		{[]string{"rebuild"}, "git", 0},
		{[]string{"release"}, "svn", 1},
		{[]string{"agent"}, "svn", 0},
	} {
		if got := judge(list(), c.commands, c.copyOf); got != c.missing {
			t.Errorf("%q in a copy of %q: %d missing, and not %d", c.commands, c.copyOf, got, c.missing)
		}
	}
	if _, errs, code := run(t, "doctor", "dentist"); code != exitUsage || !strings.Contains(errs, "it knows capture, rebuild") {
		t.Errorf("exit status %d, %s", code, errs)
	}
}

// TestNobodyListensTwice: an address that is taken is named in words.
func TestNobodyListensTwice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, errs, code := run(t, "serve", "--listen", l.Addr().String())
	if code != exitFailed || !strings.Contains(errs, "cannot listen at "+l.Addr().String()+": another program listens there") || strings.Contains(errs, "bind:") {
		t.Errorf("exit status %d, %s", code, errs)
	}
}
