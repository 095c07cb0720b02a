package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseIndex(t *testing.T) {
	sha := strings.Repeat("ab", 32)
	got, err := parseIndex([]byte("Package: hello\nVersion: 2.10-3\nArchitecture: amd64\nFilename: pool/main/h/hello.deb\nSize: 53000\nSHA256: " + sha + "\nDescription: x\n SHA256: no field\n\n" +
		"Package: hello\nStatus: install ok installed\nVersion: 2.10-2\nArchitecture: amd64\n\n" +
		"Package: short\nVersion: 1\nArchitecture: all\nFilename: x.deb\nSHA256: abcd\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	if ix := got["hello amd64 2.10-3"]; len(got) != 1 || ix.sha256 != sha || ix.size != 53000 {
		t.Errorf("index %+v", got)
	}
	if got, err := parseIndex(nil); err != nil || len(got) != 0 {
		t.Errorf("nothing known: %v %v", got, err)
	}
	if _, err := parseIndex([]byte("E: something else\nx")); err == nil {
		t.Error("apt's complaint is read as an index")
	}
}

func TestControlOf(t *testing.T) {
	list, err := ParseStatus("status", []byte("Package: a\nStatus: install ok installed\nVersion: 1\nConffiles:\n /etc/x 123\n /etc/y 456\nConfig-Version: 1\nTriggers-Pending: x\nTriggers-Awaited: y\nArchitecture: all\nDescription: d\n more\n .\n end\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(controlOf(list[0])), "Package: a\nVersion: 1\nArchitecture: all\nDescription: d\n more\n .\n end\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestTake: an archive is only kept as the original that it is.
func TestTake(t *testing.T) {
	raw := deb(t, control, nil, file("./x", "y"))
	sum := sha256.Sum256(raw)
	at := filepath.Join(t.TempDir(), "hello.deb")
	if err := os.WriteFile(at, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	hello := &Package{Name: "hello", Version: "1:2.10-3", Architecture: "amd64"}
	newer := &Package{Name: "hello", Version: "1:2.10-4", Architecture: "amd64"}
	full := errors.New("disk full")
	for _, c := range []struct {
		name, want string
		p          *Package
		sink       error
		ok         bool
	}{
		{"by digest", hex.EncodeToString(sum[:]), hello, nil, true},
		{"other digest", strings.Repeat("0", 64), hello, nil, false},
		{"by its own control file", "", hello, nil, true},
		{"another version", "", newer, nil, false},
		{"not kept", "", hello, full, false},
	} {
		var kept []byte
		o, err := take(context.Background(), c.p, at, c.want, "cache", "why", func(_ context.Context, o *Original, r io.Reader) error {
			var err error
			if kept, err = io.ReadAll(r); err != nil {
				return err
			}
			return c.sink
		})
		if (err == nil) != c.ok || (c.sink != nil && !errors.Is(err, c.sink)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.ok && (!bytes.Equal(kept, raw) || o.SHA256 != hex.EncodeToString(sum[:]) || o.Size != int64(len(raw)) || o.From != "cache" || o.Why != "why") {
			t.Errorf("%s: %+v, %d bytes kept", c.name, o, len(kept))
		}
		if !c.ok && c.sink == nil && kept != nil {
			t.Errorf("%s: kept what was refused", c.name)
		}
	}
}

// TestRepack: a package made again installs the same files, and twice gives the
// same bytes.
func TestRepack(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed")
	}
	root := machine(t, map[string]string{
		"lib":                              "-> usr/lib",
		"var/lib/dpkg/status":              "Package: tool\nStatus: install ok installed\nVersion: 1:1.0\nArchitecture: all\nMaintainer: a <a@b>\nConffiles:\n /etc/tool.conf 0123\n /etc/removed.conf 4567\nDescription: x\n",
		"var/lib/dpkg/info/tool.list":      "/.\n/etc\n/etc/tool.conf\n/etc/removed.conf\n/lib\n/lib/tool\n/lib/tool/program\n/lib/tool/link\n/usr/share/doc/tool/removed\n",
		"var/lib/dpkg/info/tool.conffiles": "/etc/tool.conf\n/etc/removed.conf\n",
		"var/lib/dpkg/info/tool.postinst":  "#!/bin/sh\n",
		"var/lib/dpkg/info/tool.x.list":    "another package's",
		"etc/tool.conf":                    "changed", "usr/lib/tool/program": "#!", "usr/lib/tool/link": "-> program",
	})
	if err := errors.Join(os.Chmod(filepath.Join(root, "usr/lib/tool/program"), 0o755|os.ModeSetuid), os.Chmod(filepath.Join(root, "var/lib/dpkg/info/tool.postinst"), 0o755)); err != nil {
		t.Fatal(err)
	}
	db, err := ReadDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	var made [2][]byte
	for i := range made {
		scratch := t.TempDir()
		out, err := Repack(context.Background(), db, db.Package("tool:all"), db.Files(db.Package("tool:all")), scratch)
		if err != nil {
			t.Fatal(err)
		}
		if made[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
		if names, err := os.ReadDir(scratch); err != nil || len(names) != 1 || names[0].Name() != "tool_1%3a1.0_all.deb" {
			t.Errorf("it leaves %v (%v)", names, err)
		}
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Error("packed twice, it differs")
	}
	tg, to, _ := target(t)
	d := readDeb(t, made[0])
	if got := d.Conffiles(); len(got) != 1 || got[0] != "/etc/tool.conf" {
		t.Errorf("conffiles %q", got)
	}
	if d.File("postinst") == nil || d.File("list") != nil || d.Package.Status != "" {
		t.Errorf("control %+v", d.Control)
	}
	if _, err := tg.Unpack(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	if got := read(t, to, "etc/tool.conf.dpkg-new"); got != "changed" {
		t.Errorf("configuration %q", got)
	}
	if info, err := os.Stat(filepath.Join(to, "usr/lib/tool/program")); err != nil || info.Mode() != 0o755|os.ModeSetuid {
		t.Errorf("program %v %v", info, err)
	}
	if got, err := os.Readlink(filepath.Join(to, "usr/lib/tool/link")); err != nil || got != "program" {
		t.Errorf("link %q %v", got, err)
	}
}
