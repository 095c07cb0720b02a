package blueprint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRebuildDocument(t *testing.T) {
	golden(t, "testdata/REBUILD.md", []byte(sample().RebuildDocument()))
}

func TestRebuildDocumentEmpty(t *testing.T) {
	b := sample()
	b.Software, b.Config, b.Generated, b.Directories, b.Overrides, b.Alternatives, b.Diversions, b.Machine.Foreign, b.LiveDependencies, b.Withheld = nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
	doc := b.RebuildDocument()
	if n := strings.Count(doc, "Nothing to do for this machine."); n != 3 {
		t.Errorf("%d steps say that they have nothing to do, want 3:\n%s", n, doc)
	}
	if strings.Contains(doc, "and age for") || strings.Contains(doc, "Not kept") || strings.Contains(doc, "not to be rebuilt") {
		t.Errorf("the document speaks of what is not there:\n%s", doc)
	}
}

// hostile words: each would make a file named PWNED if a shell ever read it as
// anything but a word.
func hostile() []string {
	return []string{
		"$(touch PWNED)", "`touch PWNED`", "x; touch PWNED", "x'; touch PWNED; '", `x"; touch PWNED; "`, "x && touch PWNED", "x | touch PWNED", "x > PWNED", "${IFS}", "*", "?", "~", "#", "!", "\\", "'", "''", "a b", "-rf", "END", ":END", "$ROOT", "x=PWNED", "```", "Ünï",
	}
}

// hostileBlueprint puts a word wherever the rules let it stand.
func hostileBlueprint(t *testing.T, word string) *Blueprint {
	t.Helper()
	b := sample()
	for i := range b.Config {
		b.Config[i].Path += word
	}
	b.Config[1].Link = word
	b.Generated[0].Path += word
	b.Directories[0].Path += word
	b.Overrides[0].Path += word
	b.Software[0].Path += word
	b.Alternatives[0].Link += word
	b.Alternatives[0].Value += word
	b.Alternatives[0].Slaves[0].Link += word
	b.Alternatives[0].Slaves[0].Path += word
	b.Diversions[0].From += word
	b.Diversions[0].To += word
	b.Users[1].Gecos = strings.ReplaceAll(word, ":", "")
	b.Withheld[0].Path += word
	b.Withheld[0].Why = word + "\n\n```sh\ntouch PWNED\n```\n"
	b.LiveDependencies[0].Name = word
	b.LiveDependencies[0].Why = word + "\r```sh\rtouch PWNED\r```"
	b.LiveDependencies[0].Address = word
	b.Builds[0].Workspace += word
	b.Builds[0].Command = []string{word, "a\n```\n" + word + "\n"}
	b.Builds[0].Source.Revision = word
	b.Builds[0].Made[0].Path += word
	b.Builds[0].Made[1].Link = word
	if err := b.Validate(); err != nil {
		t.Fatalf("word %q: %v", word, err)
	}
	return b
}

// shellBlocks gives the text of the fenced blocks of a document, reading it
// as a Markdown renderer does.
func shellBlocks(t *testing.T, doc string) []string {
	t.Helper()
	var list []string
	var block strings.Builder
	fence := ""
	for line := range strings.Lines(doc) {
		line = strings.TrimSuffix(line, "\n")
		ticks := len(line) - len(strings.TrimLeft(line, "`"))
		switch {
		case fence == "" && ticks >= 3 && !strings.Contains(line[ticks:], "`"):
			fence = line[:ticks]
			block.Reset()
		case fence != "" && ticks >= len(fence) && strings.TrimSpace(line[ticks:]) == "":
			list = append(list, block.String())
			fence = ""
		case fence != "":
			block.WriteString(line + "\n")
		}
	}
	if fence != "" {
		t.Fatalf("a block is never closed:\n%s", doc)
	}
	return list
}

// stubs makes programs that write their arguments to a file and do nothing.
func stubs(t *testing.T) (bin, log string) {
	t.Helper()
	bin, log = t.TempDir(), filepath.Join(t.TempDir(), "log")
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\0' \"${0##*/}\" \"$@\" >> '%s'\nprintf '\\0' >> '%s'\n", log, log)
	for _, name := range []string{"tar", "zstd", "dpkg-deb", "chown", "chmod", "ln", "unshare", "age", "update-alternatives", "sha256sum", "rm", "touch", "rmdir", "realpath", "readlink", "setfattr"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin, log
}

func calls(t *testing.T, log string) [][]string {
	t.Helper()
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var list [][]string
	for call := range strings.SplitSeq(strings.TrimSuffix(string(data), "\x00\x00"), "\x00\x00") {
		list = append(list, strings.Split(call, "\x00"))
	}
	return list
}

// TestRebuildDocumentHostile runs the document's own commands in a shell, with
// programs that only write down what they are asked: no word becomes a command,
// and each arrives as it is.
func TestRebuildDocumentHostile(t *testing.T) {
	all := hostile()
	for i, word := range []string{strings.Join(all[:len(all)/2], " "), strings.Join(all[len(all)/2:], " "), "-rf"} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := hostileBlueprint(t, word)
			doc := b.RebuildDocument()
			if strings.Contains(doc, "\r") {
				t.Error("the document holds a carriage return, which ends a line of Markdown")
			}
			blocks := shellBlocks(t, doc)
			if len(blocks) != 1+len(b.Plan())+2*len(b.Builds) {
				t.Fatalf("the document has %d blocks of commands: a value made or ended one:\n%s", len(blocks), doc)
			}
			if want := "cd " + quote(b.Builds[0].WorkDirectory()) + " && " + command(b.Builds[0].Command) + "\n"; blocks[len(blocks)-2] != want {
				t.Errorf("the build's block is\n%swant\n%s", blocks[len(blocks)-2], want)
			}
			bin, log := stubs(t)
			dir := t.TempDir()
			root := filepath.Join(dir, "root")
			for _, d := range []string{"config", "deb", "generated", "software"} {
				if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range append(slices.Clone(b.Config), b.Generated...) {
				for _, name := range []string{f.ConfigName(), f.GeneratedName()} {
					if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			// The steps from the seed on, without what needs packages.
			script := "export PATH=" + bin + ":/usr/bin:/bin\nROOT=" + root + " KEY=key NAME=h\n" +
				"place() { printf 'place\\0%s\\0\\0' \"$1\" >> '" + log + "'; mkdir -p \"$ROOT$1\"; }\nin_root() { unshare \"$@\"; }\nenter() { unshare \"$@\"; }\n"
			for i, st := range b.Plan() {
				if st.Name == "finish" { // an override changes a file that exists
					file := quote(root + b.Overrides[0].Path)
					script += "mkdir -p " + quote(root+"/usr/bin") + "; : > " + file + "\n"
				}
				if st.Name == "seed" || st.Name == "software" || st.Name == "config" || st.Name == "generated" || st.Name == "finish" {
					script += blocks[1+i]
				}
			}
			cmd := exec.Command("sh", "-eu", "-c", script)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, script)
			}
			err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
				if filepath.Base(p) == "PWNED" {
					t.Errorf("a word was run as a command: %s", p)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(root, "etc/passwd")); err != nil || !strings.Contains(string(data), ":"+b.Users[1].Gecos+":") {
				t.Errorf("passwd: %v\n%s", err, data)
			}
			got := calls(t, log)
			a := b.Alternatives[0]
			for _, want := range [][]string{
				{"place", filepath.Dir(b.Config[2].Path)},
				{"chown", "0:0", root + b.Config[2].Path},
				{"chmod", "0644", root + b.Config[2].Path},
				{"age", "--decrypt", "-i", "key", b.Config[0].ConfigName()},
				{"ln", "-sfn", word, root + b.Config[1].Path},
				{"chown", "0:0", root + b.Generated[0].Path},
				{"chmod", "2750", root + b.Directories[0].Path},
				{"chown", "1000:1000", root + b.Overrides[0].Path},
				{"setfattr", "-n", "security.capability", "-v", "0sAQAAAgAEAAAAAAAAAAAAAAAAAAA=", root + b.Overrides[0].Path},
				{"unshare", "update-alternatives", "--install", a.Link, a.Name, a.Value, "20", "--slave", a.Slaves[0].Link, a.Slaves[0].Name, a.Slaves[0].Path},
				{"unshare", "update-alternatives", "--set", a.Name, a.Value},
			} {
				if !slices.ContainsFunc(got, func(c []string) bool { return slices.Equal(c, want) }) {
					t.Errorf("no call %q among\n%q", want, got)
				}
			}
		})
	}
}

// TestDiversionsAndForeign runs the two commands that write dpkg's own files.
func TestDiversionsAndForeign(t *testing.T) {
	b := sample()
	b.Diversions = []Diversion{{From: "/usr/bin/a'b $(x)", To: "/usr/bin/%s\\n"}, {From: "/x", To: "/y"}}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-eu", "-c", b.diversionCommands()+"\n"+b.architectureCommand())
	cmd.Env = append(os.Environ(), "ROOT="+root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]string{"diversions": "/usr/bin/a'b $(x)\n/usr/bin/%s\\n\n:\n/x\n/y\n:\n", "arch": "amd64\ni386\n"} {
		if got, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg", name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
	}
}

// TestPlace: by hand too, a link in the new root does not lead out of it.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	root, out := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	for _, d := range []string{filepath.Join(root, "usr/lib"), out} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"abs": out, "rel": "../outside", "lib": "usr/lib", "beside": root + "2"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		dir string
		ok  bool
	}{{"/etc/x", true}, {"/lib/y", true}, {"/", true}, {"/abs", false}, {"/abs/z", false}, {"/rel/z", false}, {"/beside/z", false}} {
		cmd := exec.Command("sh", "-eu", "-c", strings.Join(helpers(), "\n")+"\nplace \"$1\"", "sh", c.dir)
		cmd.Env = append(os.Environ(), "ROOT="+root)
		msg, err := cmd.CombinedOutput()
		if (err == nil) != c.ok {
			t.Errorf("place %s: %v %s, want ok=%v", c.dir, err, msg, c.ok)
		}
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
		t.Errorf("made outside of the root: %v %v", left, err)
	}
}

func TestQuote(t *testing.T) {
	for _, word := range append(hostile(), "", "/usr/bin/gcc-12", "a\nb", "x=y") {
		cmd := exec.Command("sh", "-c", "printf '%s' "+quote(word))
		cmd.Dir = t.TempDir()
		out, err := cmd.Output()
		if err != nil || string(out) != word {
			t.Errorf("quote(%q) = %s, which a shell reads as %q (%v)", word, quote(word), out, err)
		}
	}
	if got := quote("/usr/lib/x86_64-linux-gnu/a.so@1:2%3A,+b"); strings.Contains(got, "'") {
		t.Errorf("a harmless word is quoted: %s", got)
	}
}

func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{"a": "`a`", "a`b": "`` a`b ``", "``": "``` `` ```", "a\n```b": "```` a ```b ````", "": "``"} {
		if got := span(in); got != want {
			t.Errorf("span(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"a b": "a b", " a\n\n b\r": "a b", "<b>*x*_[y](z)": `\<b\>\*x\*\_\[y\](z)`, "a`b\\": "a\\`b\\\\"} {
		if got := prose(in); got != want {
			t.Errorf("prose(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSeed(t *testing.T) {
	b := sample()
	files := map[string]SeedFile{}
	for _, f := range b.SeedFiles() {
		files[f.Path] = f
	}
	for name, want := range map[string]string{
		"etc/passwd":   "root:x:0:0::/root:/bin/bash\nrel:x:1000:1000:Release,,,:/home/rel:/bin/sh\n",
		"etc/shadow":   "root:*:19000:0:99999:7:::\nrel:*:19000:0:99999:7:::\n",
		"etc/group":    "root:x:0:\nshadow:x:42:\nrel:x:1000:rel,qa\n",
		"etc/gshadow":  "root:*::\nshadow:*::\nrel:*::rel,qa\n",
		"etc/hostname": "build1\n",
		"etc/hosts":    "127.0.0.1 localhost\n127.0.1.1 build1\n::1 localhost ip6-localhost ip6-loopback\n",
	} {
		if files[name].Text != want {
			t.Errorf("%s is\n%swant\n%s", name, files[name].Text, want)
		}
	}
	for _, f := range []string{"etc/shadow", "etc/gshadow"} {
		if files[f].Mode != "0640" {
			t.Errorf("%s has mode %s", f, files[f].Mode)
		}
	}
}

func TestAlternativeCommands(t *testing.T) {
	auto := Alternative{Name: "cc", Link: "/usr/bin/cc", Value: "/usr/bin/gcc", Priority: 20}
	manual := auto
	manual.Manual = true
	slaves := auto
	slaves.Slaves = []Slave{{Name: "cc.1", Link: "/m/cc.1", Path: "/m/gcc.1"}}
	install, set := "update-alternatives --install /usr/bin/cc cc /usr/bin/gcc 20", "update-alternatives --set cc /usr/bin/gcc"
	for _, c := range []struct {
		name           string
		a              Alternative
		known, current bool
		want           []string
	}{
		{"as it is", auto, true, true, nil},
		{"another in force", auto, true, false, []string{set}},
		{"not registered", auto, false, false, []string{install}},
		{"manual", manual, true, true, []string{set}},
		{"manual, not registered", manual, false, false, []string{install, set}},
		{"with a slave", slaves, false, false, []string{install + " --slave /m/cc.1 cc.1 /m/gcc.1"}},
	} {
		got := AlternativeCommands([]Alternative{c.a}, func(name, value string) (bool, bool) {
			if name != "cc" || value != "/usr/bin/gcc" {
				t.Errorf("asked for %s %s", name, value)
			}
			return c.known, c.current
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
