package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/blueprint"
	"trysail/drill"
	"trysail/evidence"
	"trysail/internal/recorder"
	"trysail/internal/site"
	"trysail/runbook"
)

// blocks finds the fenced blocks of a document by what stands after the fence.
func blocks(t *testing.T, file, info string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	fence := "```"
	if info == "md" {
		fence = "````" // around blocks of its own
	}
	for _, m := range regexp.MustCompile("(?ms)^"+fence+regexp.QuoteMeta(info)+"\n(.*?)^"+fence+"$").FindAllStringSubmatch(string(data), -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatalf("%s has no block %q", file, info)
	}
	return list
}

func TestExamplesOfFormats(t *testing.T) {
	for _, text := range blocks(t, "docs/blueprint.md", "yaml blueprint") {
		b, err := blueprint.Parse("docs/blueprint.md", []byte(text))
		if err != nil {
			t.Error(err)
			continue
		}
		again, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blueprint.Parse("again", again); err != nil {
			t.Error(err)
		}
	}
	for _, text := range blocks(t, "docs/blueprint.md", "text sum") {
		if sum, err := blueprint.ParseSum("docs/blueprint.md", []byte(text)); err != nil || len(sum) != 3 {
			t.Errorf("%d names, %v", len(sum), err)
		}
	}
	for _, text := range blocks(t, "docs/blueprint.md", "json observation") {
		if list, err := blueprint.ParseObservation([]byte(text)); err != nil || len(list) != 3 {
			t.Errorf("%d paths, %v", len(list), err)
		}
	}
	for _, text := range blocks(t, "docs/runbook.md", "md") {
		if r, err := runbook.Parse("docs/runbook.md", []byte(text), time.LoadLocation); err != nil || len(r.Items) != 6 {
			t.Error(err)
		}
	}
	for _, text := range blocks(t, "docs/evidence.md", "json statement") {
		if _, _, _, err := evidence.ReadStatement([]byte(text)); err != nil {
			t.Error(err)
		}
	}
	for _, text := range blocks(t, "docs/evidence.md", "text allowed_signers") {
		if list, err := evidence.ParseSigners("docs/evidence.md", []byte(text)); err != nil || len(list) != 2 {
			t.Error(err)
		}
	}
	for _, text := range blocks(t, "docs/recording.md", "json recording") {
		if _, err := recorder.ParseRecording([]byte(text)); err != nil {
			t.Error(err)
		}
	}
}

// The page on drills has an example with every key, and the lists of the program.
func TestDrillsPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/drills.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, text := range blocks(t, "docs/drills.md", "yaml scenario") {
		p, err := drill.Parse("docs/drills.md", []byte(text))
		if err != nil {
			t.Error(err)
			continue
		}
		left := unset("", reflect.ValueOf(p.Scenario))
		if len(left) > 0 {
			t.Errorf("the example lacks %v", left)
		}
	}
	for _, text := range blocks(t, "docs/drills.md", "yaml hosts") {
		if _, err := site.ParseHosts("docs/drills.md", []byte(text)); err != nil {
			t.Error(err)
		}
	}
	yes := map[bool]string{true: "yes"}
	var want, rows []string
	for _, k := range drill.Faults() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s | %s |", k.Fault, k.What, k.Where(), yes[k.Of], yes[k.Undone]))
	}
	_, table, _ := strings.Cut(page, "| fault | what | `host` | `of` | `for` |\n|---|---|---|---|---|\n")
	for line := range strings.Lines(table) {
		if line == "\n" {
			break
		}
		rows = append(rows, strings.TrimSuffix(line, "\n"))
	}
	if !slices.Equal(rows, want) {
		t.Errorf("the table of faults is\n%s\nand not\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
	names := slices.Concat(drill.Always(), drill.Final(), drill.Reached(), []string{string(drill.Pass), string(drill.Fail), string(drill.Unknown)})
	for _, q := range drill.Questions() {
		names = append(names, string(q))
	}
	for _, n := range names {
		if !strings.Contains(page, "`"+n+"`") {
			t.Errorf("%s is not on the page", n)
		}
	}
	// Each key has a row of the table that explains them.
	for i := range reflect.TypeFor[drill.Scenario]().NumField() {
		if key := reflect.TypeFor[drill.Scenario]().Field(i).Tag.Get("yaml"); !regexp.MustCompile("(?m)^\\| .*`" + key + "`.* \\|").MatchString(page) {
			t.Errorf("key %s is not explained", key)
		}
	}
}

// unset lists the keys that no value of an example has.
func unset(at string, v reflect.Value) []string {
	var list []string
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			list = append(list, unset(at+"."+v.Type().Field(i).Tag.Get("yaml"), v.Field(i))...)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			return []string{at}
		}
		// A key is there if one of the list has it.
		list = unset(at, v.Index(0))
		for i := range v.Len() {
			other := unset(at, v.Index(i))
			list = slices.DeleteFunc(list, func(k string) bool { return !slices.Contains(other, k) })
		}
	default:
		if v.IsZero() {
			return []string{at}
		}
	}
	return list
}

// TestFirstRelease types the commands of that page; what runs in a terminal of its
// own is started beside them.
func TestFirstRelease(t *testing.T) {
	t.Parallel()
	if ok, err := condition("root"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs root")
	}
	data, err := os.ReadFile("../../docs/first-release.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() { unmountBelow(t, dir) })
	script := "trap 'ssh-agent -k || :; kill $(jobs -p); wait' EXIT\n" // as the page does, if it comes to that
	for _, m := range regexp.MustCompile("(?ms)^```sh( background)?\n(.*?)^```$").FindAllStringSubmatch(string(data), -1) {
		if m[1] == "" {
			script += m[2]
			continue
		}
		script += strings.TrimSpace(m[2]) + " &\nuntil trysail fleet; do sleep 0.2; done 2>/dev/null\n"
	}
	// A stranger's bundle brings its own keys, and every file in it holds. Its steps run only
	// for who vouches for the key.
	script += "status=0; trysail reprove ../evidence || status=$?; echo \"a stranger's bundle: $status\"\n" +
		"status=0; trysail reprove ../evidence --trust SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA --signers trysail/allowed_signers || status=$?; echo \"another's key: $status\"\n"
	cmd := exec.Command("bash", "-euxc", script)
	cmd.Dir = dir
	state := filepath.Join(dir, "state")
	cmd.Env = append(os.Environ(), "PATH="+buildBinary(t)+":"+os.Getenv("PATH"), "TRYSAIL_STATE="+state)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"RELEASE.md reads one way", "Critical path", "first            primary  up", "second           backup   up", "in the server of hello, made anew, is identical", "Release 1.0 will ship on time", ": identical", "1.0: ship", "source.tar.zst", "build/deb/libc6", "  log\n", `"type":"shipped"`, "dist/hello.tar.gz", "Release 1.0 verifies: ", "RELEASE.md has licences, secrets", "release-manager says approve to licences-read (SHA256:", "Release 1.0: made again, the same bytes", "tester says approve to tested (SHA256:",
		"It is about what hello made: trysail release fetch 1.0 hello", "RELEASE.md has changes, notes", "Release 1.1 will ship on time", "known-issues             ready",
		"\na stranger's bundle: 3\n", "\nanother's key: 3\n", "not made again: nothing but the bundle itself vouches for who signed it", "would run    step hello (", "trysail reprove ../evidence --trust SHA256:",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the page's output lacks %q:\n%s", want, out)
		}
	}
}

// The guide's commands are typed in its order, in an empty directory.
func TestGuide(t *testing.T) {
	t.Parallel()
	if ok, err := condition("root"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs root")
	}
	state := filepath.Join(t.TempDir(), "state") // made by Trysail, with the modes that it gives
	t.Cleanup(func() { unmountBelow(t, state) })
	script := strings.Join(append(blocks(t, "docs/guide.md", "sh"), blocks(t, "docs/depot.md", "sh")...), "\n")
	cmd := exec.Command("sh", "-euxc", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+buildBinary(t)+":"+os.Getenv("PATH"), "TRYSAIL_STATE="+state)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"Rebuildable here: the rebuilt machine makes the same bytes", "kept by update-alternatives",
		"This machine is what its blueprint says", "0 problem(s)", "cc (",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the guide's output lacks %q:\n%s", want, out)
		}
	}
}
