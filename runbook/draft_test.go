package runbook

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDraft(t *testing.T) {
	d := Draft{Title: "age", Blueprint: "trysail", Builds: []DraftBuild{
		{Name: "Age_linux", Command: []string{"./release.sh", "it's"}, Outputs: []string{"dist/*.tar.gz"}, Seconds: 71},
	}}
	r, err := Parse("RELEASE.md", d.Text(), time.LoadLocation)
	if err != nil {
		t.Fatalf("%v\n%s", err, d.Text())
	}
	if g := r.Gold(); g == nil || g.Name != "age-linux" || g.Script != `./release.sh 'it'\''s'`+"\n" || g.Budget != 2*time.Minute {
		t.Errorf("gold %+v", g)
	}
}

// TestDraftNames: whatever builds are called, their steps have names of their own.
func TestDraftNames(t *testing.T) {
	for _, c := range []struct {
		builds, steps string // steps: the builds, then gold
	}{
		{"build", "build"},
		{"build release", "build-2 release"},
		{"build build-2 release", "build-2 build-2-2 release"},
		{"a build", "a gold"},
		{"gold tests", "gold gold-2"},
		{"test test-app", "test-2 test-app"},
		{"test", "gold"},
		{"tests", "gold"},
		{"ship", "gold"},
		{"publish", "gold"},
		{"notes", "gold"},
		{"tested", "gold"},
		{"gold-master", "gold"},
		{"due-diligence", "gold"},
		{"a A", "a gold"},
		{"a A z", "a a-2 z"},
		{"a.b a-b a_b", "a-b a-b-2 gold"},
		{"... ---", "build-2 gold"},
		{strings.Repeat("x", 64) + " " + strings.Repeat("x", 63) + "." + " " + strings.Repeat("x", 64) + " z", strings.Repeat("x", 64) + " " + strings.Repeat("x", 63) + " " + strings.Repeat("x", 62) + "-2 z"},
	} {
		d := Draft{Title: "app", Blueprint: "trysail"}
		for i, n := range strings.Fields(c.builds) {
			d.Builds = append(d.Builds, DraftBuild{Name: n, Command: []string{"make", n}, Outputs: []string{fmt.Sprintf("dist/%d", i)}})
		}
		r, err := Parse("RELEASE.md", d.Text(), time.LoadLocation)
		if err != nil {
			t.Errorf("%s: %v", c.builds, err)
			continue
		}
		var steps []string
		for _, x := range r.Items {
			if strings.HasPrefix(x.Script, "make ") {
				steps = append(steps, x.Name)
			}
		}
		if got := strings.Join(steps, " "); got != c.steps || r.Gold().Name != steps[len(steps)-1] {
			t.Errorf("%s: the steps are %s, and not %s", c.builds, got, c.steps)
		}
	}
}

// TestDraftOutputs: globs are written as a runbook takes them, and what gold makes
// it alone makes.
func TestDraftOutputs(t *testing.T) {
	for _, c := range []struct{ build, gold, outBuild, outGold string }{
		{"obj/**", "dist/*.tar.gz", "obj/**", "dist/*.tar.gz"},
		{"dist/**", "dist/**", "", "dist/**"},
		{"dist/** log", "dist/*.tar.gz", "log", "dist/*.tar.gz"},
		{"./obj/", "./dist/*.{zip,tar.{gz,xz}}", "obj", "dist/*.zip,dist/*.tar.gz,dist/*.tar.xz"},
		{"x", "a;b *.zip", "x", "a;b,*.zip"},
		{"x", "", "x", "dist/**"},
	} {
		d := Draft{Title: "app", Blueprint: "trysail", Builds: []DraftBuild{
			{Name: "a", Command: []string{"make"}, Outputs: strings.Fields(c.build)}, {Name: "b", Command: []string{"make"}, Outputs: strings.Fields(c.gold)},
		}}
		r, err := Parse("RELEASE.md", d.Text(), time.LoadLocation)
		if err != nil {
			t.Errorf("%s, %s: %v", c.build, c.gold, err)
			continue
		}
		if a, b := strings.Join(r.Item("a").Out, ","), strings.Join(r.Item("b").Out, ","); a != c.outBuild || b != c.outGold {
			t.Errorf("%s, %s: %s and %s", c.build, c.gold, a, b)
		}
		if strings.Contains(c.gold, ";") && !strings.Contains(r.Item("publish").Script, `sha256sum a\;b *.zip`) {
			t.Errorf("%s: published by %s", c.gold, r.Item("publish").Script)
		}
	}
}

// TestDraftBlueprint: a directory is written so that YAML reads it back.
func TestDraftBlueprint(t *testing.T) {
	for _, dir := range []string{"trysail", ".", "a/b", "a, b", "a: b", "{a}", "null", "1e3", "#x", "é \"x\"", "it's"} {
		r, err := Parse("RELEASE.md", Draft{Title: "app", Blueprint: dir}.Text(), time.LoadLocation)
		if err != nil || r.Role("build").Blueprint != dir {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestDraftProgram: the first word is a program, whatever a shell takes it for.
func TestDraftProgram(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"make", "a=b", "if", "time", "function", "{", "!", "# x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho ran \"$1\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-e")
		cmd.Env = []string{"PATH=" + dir}
		cmd.Stdin = strings.NewReader(command([]string{name, "x y"}) + "\n")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ran x y\n" {
			t.Errorf("%s: %s%v", name, out, err)
		}
	}
}

// FuzzDraft: whatever builds are called and whatever they run, the document reads one
// way, and the gold step runs the last one's command, to the last byte.
func FuzzDraft(f *testing.F) {
	for _, names := range []string{"build", "build\nrelease", "test\nx", "a\nA", "ship", "é", "", "\n\n", "publish\nnotes\ntests"} {
		f.Add(names, "./release.sh\n--all", "")
	}
	for _, command := range []string{
		"sh\x00-c\x00make\nmake dist", "sh\x00-c\x00cat <<x\n```\nx\nmake", "```", "sh\x00-c\x00a\n`````\nb\n  ````  \nc", "sh\x00~~~\n~~~", "x\x00\n\n", "x\x00\r\n", "x\x00\x1b[31m",
		"x\x00a\u202eb\u200b", "x\x00'\\''$(y)`z`", "x\x00", "x\x00\t# no comment\n## no heading\n---\n", "x\x00- [ ] **a** (@b): c", "x\x00\u00a0", "x\x00\ufffd", "x\x00%s\\n\x00!", "x\x00\x7f\n\x01\n", "\u2028", " ", "$x", "x\x00$y\n$z\n$$\n $", "x\x00a \\ \nb\\\t \n \n",
	} {
		f.Add("release", command, "cmd/it's")
		f.Add("a\nrelease", command, "-x\n```")
	}
	f.Fuzz(func(t *testing.T, names, command, directory string) {
		d := Draft{Title: "app", Blueprint: "trysail"}
		argv := strings.Split(command, "\x00") // no word of a command holds one
		if argv[0] == "" || !utf8.ValidString(command) || strings.Contains(directory, "\x00") || len(names)+len(command)+len(directory) > 4<<10 {
			t.Skip()
		}
		for i, n := range strings.Split(names, "\n") {
			d.Builds = append(d.Builds, DraftBuild{Name: n, Command: argv, Directory: directory, Outputs: []string{fmt.Sprintf("dist/%d", i)}})
		}
		r, err := Parse("RELEASE.md", d.Text(), time.LoadLocation)
		if err != nil {
			t.Fatalf("%v\n%s", err, d.Text())
		}
		if len(r.Items) != len(d.Builds)+4 {
			t.Fatalf("%d items of %d builds\n%s", len(r.Items), len(d.Builds), d.Text())
		}
		// What the shell makes of the script: each word ends in a zero.
		script := r.Gold().Script
		var want []string
		if directory != "" {
			if strings.HasPrefix(directory, "-") {
				directory = "./" + directory
			}
			want = []string{"cd", directory}
		}
		want = append(want, argv...)
		for line := range strings.Lines(script) { // Runme drops both
			if strings.HasPrefix(line, "$") || strings.TrimRight(line, " \t\n")+"\n" != line {
				t.Errorf("Runme reads %q otherwise", line)
			}
		}
		whole := "f() { printf '%s\\0' \"$@\"; }\n"
		if directory != "" {
			script = strings.Replace(script, "cd ", "f cd ", 1)
			cd := "cd " + quote(directory) + "\n"
			rest, ok := strings.CutPrefix(script, "f "+cd)
			if !ok {
				t.Fatalf("no %q before\n%s", cd, script)
			}
			script = "f " + cd + "f " + rest
		} else {
			script = "f " + script
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-e")
		cmd.Stdin = strings.NewReader(whole + script)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, script)
		}
		if got := strings.Split(string(bytes.TrimSuffix(out, []byte{0})), "\x00"); !slices.Equal(got, want) {
			t.Errorf("the script is %q, and not %q:\n%s", got, want, script)
		}
	})
}
