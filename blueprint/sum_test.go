package blueprint

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sumOf is a sum that fits a blueprint.
func sumOf(b *Blueprint) Sum {
	s := Sum{}
	for _, n := range b.Names() {
		s[n] = sumB
	}
	for _, f := range b.Config {
		if f.Link == "" && !f.Encrypted {
			s[f.ConfigName()] = f.SHA256
		}
	}
	for _, f := range b.Generated {
		s[f.GeneratedName()] = f.SHA256
	}
	for _, x := range b.Builds {
		s[x.SourceName()], s[x.DownloadsName()], s[x.ObservationName()] = x.Source.Original, x.Downloads, x.Observation
	}
	return s
}

func TestParseSum(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for _, c := range []struct {
		name, text, what string
		line             int
	}{
		{"one", a + "  deb/x.deb\n", "", 0},
		{"none", "", "", 0},
		{"the same line twice", a + "  deb/x.deb\n" + a + "  deb/x.deb\n", "", 0},
		{"name with blanks", a + "  config/etc/my  file\n", "", 0},
		{"body", a + "  downloads/bodies/" + a + "\n", "", 0},
		{"two digests", a + "  deb/x.deb\n" + b + "  deb/x.deb\n", "stands twice", 2},
		{"torn", a + "  deb/x.deb\n" + b + "  deb/y.d", "torn", 2},
		{"torn in the digest", a[:20], "torn", 1},
		{"short digest", a[:63] + "  deb/x.deb\n", "not a line of sha256sum", 1},
		{"capitals", strings.ToUpper(a) + "  deb/x.deb\n", "not a line", 1},
		{"one blank", a + " deb/x.deb\n", "not a line", 1},
		{"no name", a + "  \n", "not relative and clean", 1},
		{"empty line", a + "  deb/x.deb\n\n", "not a line", 2},
		{"CRLF", a + "  deb/x.deb\r\n", "not relative and clean", 1},
		{"absolute", a + "  /deb/x.deb\n", "not relative and clean", 1},
		{"climbs", a + "  config/../../etc/passwd\n", "not relative and clean", 1},
		{"climbs in the end", a + "  config/..\n", "not relative and clean", 1},
		{"not clean", a + "  config//x\n", "not relative and clean", 1},
		{"control", a + "  config/\x1b[2J\n", "not relative and clean", 1},
		{"an option", a + "  -t/x\n", "not that of an original", 1},
		{"a file of the blueprint", a + "  REBUILD.md\n", "not that of an original", 1},
		{"a hidden file", a + "  .ssh/authorized_keys\n", "not that of an original", 1},
		{"a kind alone", a + "  deb\n", "not that of an original", 1},
		{"escape sequences in the error", "\x1b]0;x\a\n", `\x1b`, 1},
		{"very long", strings.Repeat("x", 1<<20) + "\n", "not a line", 1},
	} {
		s, err := ParseSum("trysail/blueprint.sum", []byte(c.text))
		if c.what == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if c.name != "the same line twice" && string(s.Marshal()) != c.text {
				t.Errorf("%s: written again it is %q", c.name, s.Marshal())
			}
			continue
		}
		var pe *ParseError
		if !errors.As(err, &pe) || !strings.Contains(pe.What, c.what) || pe.Line != c.line || pe.File != "trysail/blueprint.sum" || pe.Hint() == "" {
			t.Errorf("%s: %v, want line %d: %s", c.name, err, c.line, c.what)
		}
		if len(err.Error()) > 500 {
			t.Errorf("%s: the error is %d bytes long", c.name, len(err.Error()))
		}
	}
}

// TestSumIsSha256sums: sha256sum --check reads the file without Trysail.
func TestSumIsSha256sums(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "config/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config/etc/it's  x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := Sum{"config/etc/it's  x": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
	if err := os.WriteFile(filepath.Join(dir, "blueprint.sum"), s.Marshal(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", "blueprint.sum")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestSumCheck(t *testing.T) {
	b := sample()
	good := sumOf(b)
	if err := good.Check(b); err != nil {
		t.Fatal(err)
	}
	for _, name := range b.Names() {
		s := maps.Clone(good)
		delete(s, name)
		var pe *ParseError
		if err := s.Check(b); !errors.As(err, &pe) || !strings.Contains(pe.What, name) || pe.Hint() == "" {
			t.Errorf("without %s: %v", name, err)
		}
	}
	// A digest that stands in blueprint.yaml too must be the same in both.
	for _, name := range []string{"config/etc/ssl/openssl.cnf", "generated/usr/lib/locale/locale-archive", "source/release.tar.zst", "downloads/release.json", "observation/release.jsonl"} {
		s := maps.Clone(good)
		s[name] = "sha256:" + strings.Repeat("c", 64)
		if err := s.Check(b); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("with another digest for %s: %v", name, err)
		}
	}
	// A cipher's digest is not the plain file's.
	s := maps.Clone(good)
	s["config/etc/age/key.age"] = "sha256:" + strings.Repeat("c", 64)
	s["downloads/bodies/"+strings.Repeat("c", 64)] = sumA
	if err := s.Check(b); err != nil {
		t.Errorf("what is encrypted, and what is only in the sum: %v", err)
	}
}

func FuzzParseSum(f *testing.F) {
	f.Add(sumOf(sample()).Marshal())
	f.Add([]byte(strings.Repeat("a", 64) + "  deb/x\r\n"))
	f.Add([]byte("\\" + strings.Repeat("a", 64) + "  deb/x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSum("fuzz", data)
		if err != nil {
			return
		}
		out := s.Marshal()
		again, err := ParseSum("again", out)
		if err != nil || !maps.Equal(s, again) {
			t.Fatalf("written and not read: %v\n%q", err, out)
		}
		if len(out) > len(data) {
			t.Fatalf("%q grew to %q", data, out)
		}
		for name := range s {
			if filepath.IsAbs(name) || !filepath.IsLocal(name) || bytes.ContainsAny([]byte(name), "\x00\n\r") {
				t.Fatalf("name %q", name)
			}
		}
	})
}
