package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/release"
)

const diligentRelease = `---
roles:
  build: {blueprint: trysail}
people:
  ann: {}
approvers: [ann]
---
# Release

## Gold master

` + "```sh {\"name\":\"gold\",\"timeout\":\"5m\",\"budget\":\"1m\",\"out\":\"dist/app.tar.gz\",\"gold\":\"true\"}\n./release.sh\n```" + `

## Ship

` + "```sh {\"name\":\"publish\",\"kind\":\"publish\",\"in\":\"dist/app.tar.gz\",\"timeout\":\"1m\"}\nsha256sum dist/app.tar.gz\n```\n"

// TestDiligence: every phase of due diligence that is ready to include runs inside of a
// rebuilt build server, with a real scanner; and what is not to be shipped stops it.
func TestDiligence(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("clamscan"); err != nil {
		t.Fatal("this test needs ClamAV: apt-get install clamav")
	}
	w := prepareWorld(t, diligentRelease)
	// What the scanner knows is the team's own here: one phrase, in hexadecimal.
	w.write("app/own.ndb", "Own.Worm:0:*:7468697320697320746865206f776e20776f726d\n")
	w.write("app/package.json", `{"name": "left-pad", "version": "1.3.0", "license": "MIT"}`+"\n")
	w.write("app/release.sh", "#!/bin/sh\nset -e\nclamscan --version > /dev/null # it is to be in the build server\nmkdir -p dist\n"+
		"tar --sort=name --mtime=@0 --owner=0 --group=0 -czf dist/app.tar.gz app.txt package.json\n")
	w.write("app/NOTES.md", "## 4.2\n\nNothing is known.\n")
	if err := os.Chmod(filepath.Join(w.app, "release.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	commit := func() {
		t.Helper()
		w.sh("cd " + w.app + "; git add -A; git -c user.name=t -c user.email=t@example.org commit -qm more")
	}
	at := func(state string, args ...string) {
		t.Helper()
		cmd := exec.Command(w.bin, append([]string{"--state", filepath.Join(w.dir, state)}, args...)...)
		cmd.Dir = w.app
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("trysail %v: %v\n%s", args, err, out)
		}
	}
	commit()
	at("control", "capture", "--yes", "--output", "dist/*", "--", "./release.sh")
	at("control", "runbook", "phases", "licences", "changes", "secrets", "malware", "reproducible", "notes", "legal", "support", "--who", "ann")
	w.sh("sed -i 's/^clamscan /clamscan --database=own.ndb /' " + w.app + "/RELEASE.md; grep -q 'database=own.ndb .*dist/app.tar.gz' " + w.app + "/RELEASE.md")
	// The release before had another version of the one component, and one more.
	bill := func(components string) {
		w.write("app/shipped.cdx.json", `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[`+components+`]}`)
	}
	bill(`{"type":"library","bom-ref":"a","name":"left-pad","version":"1.2.0","purl":"pkg:npm/left-pad@1.2.0"},{"type":"library","bom-ref":"b","name":"gone","version":"1","purl":"pkg:npm/gone@1"}`)
	w.write("app/app.txt", "this is the own worm\n")
	commit()
	w.startControl()
	w.agent("a", 11)
	w.agent("b", 12, "--rank", "backup")

	asked := func() {
		t.Helper()
		var err error
		if _, err = w.run("release", "wait", "4.2"); err == nil || !strings.Contains(err.Error(), "exit status 4") {
			t.Fatalf("it does not wait for people: %v\n%s", err, w.trysail("release", "status", "4.2"))
		}
	}
	w.begin()
	asked()
	for _, step := range []string{"licence-inventory", "component-changes", "secret-scan", "notes-written"} {
		if s := w.item(step); s.Status != release.Complete {
			t.Errorf("%s is %s: %s", step, s.Status, w.trysail("release", "log", "4.2", step))
		}
	}
	if s := w.item("malware-scan"); s.Status != release.Stopped {
		t.Errorf("a worm is %s", s.Status)
	}
	if log := w.trysail("release", "log", "4.2", "malware-scan"); !strings.Contains(log, "app.tar.gz: Own.Worm.UNOFFICIAL FOUND") {
		t.Errorf("the scanner says %s", log)
	}
	// What people are to read is there to be read.
	look := filepath.Join(w.dir, "look")
	for step, want := range map[string]string{"licence-inventory": "MIT", "component-changes": "left-pad", "gold": ""} {
		w.trysail("release", "fetch", "4.2", step, "--into", look)
		if out, err := w.run("release", "fetch", "4.2", step, "--into", look); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("what is there is overwritten: %s %v", out, err)
		}
		if text := w.sh("cat " + look + "/diligence/* " + look + "/dist/* 2>/dev/null || true"); !strings.Contains(text, want) {
			t.Errorf("%s: %s", step, text)
		}
	}
	if text := w.sh("cat " + look + "/diligence/changes.md"); !strings.Contains(text, "1.2.0") || !strings.Contains(text, "1.3.0") || !strings.Contains(text, "gone") {
		t.Errorf("changes: %s", text)
	}
	if got := w.sh("tar -xzOf " + look + "/dist/app.tar.gz app.txt"); got != "this is the own worm\n" {
		t.Errorf("gold is %q", got)
	}
	for step, why := range map[string]string{"malware-scan": "is not done", "secret-scan": "makes no files", "luck": "has no step luck", "notices": "has no step notices"} {
		if out, err := w.run("release", "fetch", "4.2", step, "--into", look); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("fetch %s: %s %v", step, out, err)
		}
	}
	w.trysail("release", "abort", "4.2", "--yes", "--reason", "a worm")

	// Without it everything passes, people sign, and it ships.
	w.write("app/app.txt", "clean\n")
	w.write("app/NOTES.md", "## 4.3\n\nNothing is known.\n")
	commit()
	w.trysail("release", "start", "4.3", "--yes", "--ship", "2036-12-01T09:00:00Z")
	if _, err := w.run("release", "wait", "4.3"); err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Fatalf("4.3 does not wait for people: %v", err)
	}
	for _, k := range w.statusOf("4.3").Asks {
		if k.Type != "sign" {
			t.Errorf("4.3 asks for %s: %s", k.Type, k.What)
			continue
		}
		w.trysail("release", "sign", "4.3", k.Item, "--as", "ann")
	}
	w.within(time.Minute, "4.3 is published", func() bool {
		for _, x := range w.statusOf("4.3").Items {
			if x.Status != release.Complete {
				return false
			}
		}
		return true
	})
	w.trysail("release", "ship", "4.3")
}
