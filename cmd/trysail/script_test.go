package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/rogpeppe/go-internal/testscript"

	"trysail/blueprint"
)

// The scripts in testdata/script run the real binary, as it is shipped, on real
// builds. One script shows one behaviour; its first lines say which. They need
// root and Debian packages (make test installs them): a script says what it
// needs by [condition], and where TRYSAIL_TESTS=all nothing may be lacking.

func TestScripts(t *testing.T) {
	t.Parallel() // TestGuide runs beside the scripts
	testscript.Run(t, scripts(t, "testdata/script"))
}

// TestReleases captures real builds and rehearses a release of each on machines that
// are lost, with the runbook and the scenario that init writes: one of them, another
// one each day, or all with TRYSAIL_RELEASES=all, as make releases does. Those that take
// minutes are only among all.
func TestReleases(t *testing.T) {
	t.Parallel()
	p := scripts(t, "testdata/releases")
	names, err := filepath.Glob("testdata/releases/*.txtar")
	if err != nil || len(names) < 5 {
		t.Fatalf("%d releases: %v", len(names), err)
	}
	if os.Getenv("TRYSAIL_RELEASES") != "all" {
		names = slices.DeleteFunc(names, func(s string) bool {
			return slices.Contains([]string{"age.txtar", "jq.txtar"}, filepath.Base(s))
		})
		day := time.Now().YearDay()
		p.Dir, p.Files = "", []string{names[day%len(names)]}
	}
	testscript.Run(t, p)
}

// scripts says how the scripts of a directory are run.
func scripts(t *testing.T, dir string) testscript.Params {
	t.Helper()
	bin := buildBinary(t)
	tools, err := filepath.Abs("testdata/bin")
	if err != nil {
		t.Fatal(err)
	}
	helpers, err := filepath.Abs("../../scripts")
	if err != nil {
		t.Fatal(err)
	}
	// Originals are fetched and packages configured once for all scripts;
	// everything else is a script's own, so that two can run at once.
	roots, depot := t.TempDir(), t.TempDir()
	return testscript.Params{
		Dir:                 dir,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Condition:           condition,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", strings.Join([]string{bin, tools, helpers, os.Getenv("PATH")}, ":"))
			e.Values["internet"] = &internetHolder{}
			state := filepath.Join(e.WorkDir, "state")
			if err := os.Mkdir(state, 0o700); err != nil {
				return err
			}
			if err := os.Symlink(roots, filepath.Join(state, "roots")); err != nil {
				return err
			}
			e.Setenv("TRYSAIL_STATE", state)
			// A script that fails in the middle may leave mounts, below which
			// nothing must be removed.
			e.Defer(func() { unmountBelow(t, e.WorkDir) })
			e.Setenv("TRYSAIL_DEPOT", depot)
			e.Setenv("SCRIPTS", helpers)
			e.Setenv("HOME", "/root")
			e.Setenv("GIT_CONFIG_COUNT", "2")
			e.Setenv("GIT_CONFIG_KEY_0", "user.name")
			e.Setenv("GIT_CONFIG_VALUE_0", "release")
			e.Setenv("GIT_CONFIG_KEY_1", "user.email")
			e.Setenv("GIT_CONFIG_VALUE_1", "release@example.com")
			// What the host needs to reach its package registries.
			for _, kv := range os.Environ() {
				name, value, _ := strings.Cut(kv, "=")
				if strings.HasSuffix(strings.ToLower(name), "_proxy") || slices.Contains([]string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GOFLAGS", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"}, name) {
					e.Setenv(name, value)
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"json": cmdJSON, "drop": cmdDrop, "clean-host": cmdCleanHost,
			"same-tree": cmdSameTree, "packages-only": cmdPackagesOnly, "commands": cmdCommands,
			"internet": cmdInternet, "confirm": cmdConfirm,
			// at-end COMMAND… runs when the script ends, wherever it fails.
			"at-end": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Defer(func() {
					if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
						t.Errorf("at the end: %q: %v\n%s", args, err, out)
					}
				})
			},
		},
	}
}

// unmountBelow undoes every mount below a directory, innermost first.
func unmountBelow(t *testing.T, dir string) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Error(err)
		return
	}
	for _, m := range slices.Backward(mounts) {
		if err := syscall.Unmount(m.Mountpoint, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", m.Mountpoint, err)
		}
	}
}

// TestMain removes what the tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if programDir != "" {
		os.RemoveAll(programDir)
	}
	os.Exit(code)
}

var programDir string // "" until a test needs the program

// program builds the program as it is shipped, once for all tests, and gives its
// directory.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "trysail-test-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "trysail"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	programDir = dir
	return dir, nil
})

// buildBinary gives the directory of the program.
func buildBinary(t *testing.T) string {
	t.Helper()
	dir, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// condition knows [root] and [exec:PROGRAM]; where everything must run, a
// condition that does not hold ends the tests.
func condition(cond string) (bool, error) {
	if cond == "root" {
		if os.Geteuid() == 0 {
			return true, nil
		}
		if os.Getenv("TRYSAIL_TESTS") == "all" {
			return false, fmt.Errorf("root is needed: make test")
		}
		return false, nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// cmdJSON checks a value in the JSON of a file or of stdout:
// json FILE PATH =|>=|~ VALUE, where PATH is like outputs.0.identical, and
// "len" is the length of a list.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: json FILE PATH =|>=|~ VALUE")
	}
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	got, err := lookup(v, strings.Split(args[1], "."))
	if err != nil {
		ts.Fatalf("%s: %s: %v", args[0], args[1], err)
	}
	text := fmt.Sprint(got)
	if f, ok := got.(float64); ok {
		text = strconv.FormatFloat(f, 'f', -1, 64)
	} else if got != nil && (reflect.TypeOf(got).Kind() == reflect.Slice || reflect.TypeOf(got).Kind() == reflect.Map) {
		data, err := json.Marshal(got)
		ts.Check(err)
		text = string(data)
	}
	var ok bool
	switch args[2] {
	case "=":
		ok = text == args[3]
	case "~":
		ok = strings.Contains(text, args[3])
	case ">=":
		a, aerr := strconv.ParseFloat(text, 64)
		b, berr := strconv.ParseFloat(args[3], 64)
		ok = aerr == nil && berr == nil && a >= b
	default:
		ts.Fatalf("unknown operator %q", args[2])
	}
	if ok == neg {
		ts.Fatalf("%s: %s is %s", args[0], args[1], text)
	}
}

func lookup(v any, path []string) (any, error) {
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			got, ok := x[p]
			if !ok {
				return nil, fmt.Errorf("no %q", p)
			}
			v = got
		case []any:
			if p == "len" {
				v = float64(len(x))
				continue
			}
			if p == "*" {
				return x, nil
			}
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(x) {
				return nil, fmt.Errorf("no element %q of %d", p, len(x))
			}
			v = x[i]
		default:
			return nil, fmt.Errorf("%q of a %T", p, v)
		}
	}
	return v, nil
}

// cmdDrop copies a blueprint without one item: drop FROM TO KIND NAME.
func cmdDrop(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: drop FROM TO KIND NAME")
	}
	from, to, kind, name := ts.MkAbs(args[0]), ts.MkAbs(args[1]), args[2], args[3]
	ts.Check(os.RemoveAll(to))
	ts.Check(os.CopyFS(to, os.DirFS(from)))
	file := filepath.Join(to, "blueprint.yaml")
	data, err := os.ReadFile(file)
	ts.Check(err)
	b, err := blueprint.Parse(file, data)
	ts.Check(err)
	found := false
	switch kind {
	case "config":
		b.Config, found = without(b.Config, func(f blueprint.File) bool { return f.Path == name })
	case "generated":
		b.Generated, found = without(b.Generated, func(f blueprint.File) bool { return f.Path == name })
	case "software":
		b.Software, found = without(b.Software, func(s blueprint.Software) bool { return s.Path == name })
	case "alternative":
		b.Alternatives, found = without(b.Alternatives, func(a blueprint.Alternative) bool { return a.Name == name })
	case "package":
		b.Packages, found = without(b.Packages, func(p blueprint.Package) bool { return p.Name == name })
	case "user":
		b.Users, found = without(b.Users, func(u blueprint.User) bool { return u.Name == name })
	case "builds":
		b.Builds, found = nil, true
	default:
		ts.Fatalf("unknown kind %q", kind)
	}
	if !found {
		ts.Fatalf("%s %s is not in the blueprint", kind, name)
	}
	data, err = b.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(file, data, 0o644))
}

// without drops the items that match, and says whether there was one.
func without[T any](list []T, match func(T) bool) (rest []T, found bool) {
	rest = slices.DeleteFunc(slices.Clone(list), match)
	return rest, len(rest) < len(list)
}

// cmdCleanHost checks that no run left anything behind: mounts, namespaces,
// cgroups, containers, journals, scratch directories, processes.
func cmdCleanHost(ts *testscript.TestScript, _ bool, _ []string) {
	state := ts.Getenv("TRYSAIL_STATE")
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(state))
	ts.Check(err)
	for _, m := range mounts {
		ts.Fatalf("mount left behind: %s", m.Mountpoint)
	}
	names, err := filepath.Glob(state + "/scratch/*")
	ts.Check(err)
	if len(names) > 0 {
		ts.Fatalf("left behind: %v", names)
	}
	// Other runs may be under way on this host: only what names our state counts.
	for _, glob := range []string{"/run/trysail/journal/*.json", "/run/trysail/runc/*/state.json"} {
		names, err := filepath.Glob(glob)
		ts.Check(err)
		for _, n := range names {
			if data, err := os.ReadFile(n); err == nil && strings.Contains(string(data), state+"/") {
				ts.Fatalf("left behind: %s", n)
			}
		}
	}
	for _, glob := range []string{"/sys/fs/cgroup/trysail-*", "/sys/fs/cgroup/*/trysail-*"} {
		names, err := filepath.Glob(glob)
		ts.Check(err)
		for _, n := range names {
			if _, err := os.Stat("/run/trysail/journal/" + filepath.Base(n) + ".json"); err != nil && !strings.Contains(filepath.Base(n)[8:], "-") {
				ts.Fatalf("control group left behind: %s", n)
			}
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/root")
	ts.Check(err)
	for _, p := range procs {
		if at, err := os.Readlink(p); err == nil && strings.HasPrefix(at, state+"/") {
			ts.Fatalf("process left behind: %s in %s", p, at)
		}
	}
}
