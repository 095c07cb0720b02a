package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/release"
)

// manyFiles is more than an event names, and more than a signed statement named once.
const manyFiles = 7000

// manyRelease is a runbook whose steps hand on and publish many files.
func manyRelease(dir string) string {
	return strings.NewReplacer("DIR", dir, "MANY", fmt.Sprint(manyFiles)).Replace("---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\nsigners: trysail/allowed_signers\n---\n# Release\n\n## Build\n\n" +
		"```sh {\"name\":\"compile\",\"timeout\":\"5m\",\"out\":\"obj/**\"}\n" +
		"mkdir obj\nfor i in $(seq MANY); do echo $i > obj/$i; done\nln -f obj/2 obj/3\ntouch -d @1600000000.123456789 obj/*\nchmod 2750 obj\n```\n\n" +
		"## Gold master\n\n" +
		"```sh {\"name\":\"gold\",\"needs\":\"compile\",\"in\":\"obj/**\",\"timeout\":\"5m\",\"out\":\"dist/**\",\"gold\":\"true\"}\n" +
		asMade("obj") + "cp -a obj dist\n```\n\n" +
		"## Due diligence\n\n- [ ] **tried** (@ann, budget 1h, needs gold): installed and tried\n\n" +
		"## Ship\n\n" +
		"```sh {\"name\":\"upload\",\"kind\":\"publish\",\"in\":\"dist/**\",\"timeout\":\"5m\"}\n" +
		asMade("dist") + "mkdir -p DIR/marks/published\ncp -r dist DIR/marks/published\n```\n")
}

// asMade fails where files are not as the first step made them.
func asMade(dir string) string {
	return "set -eu\ntest " + dir + "/2 -ef " + dir + "/3\ntest \"$(stat -c %.9Y " + dir + "/7)\" = 1600000000.123456789\n" +
		"test \"$(stat -c %a " + dir + ")\" = 2750\n"
}

// A step makes 7,000 files, and gold is made of them: they are handed on as they are, built
// again, signed for, published and bundled, and the bundle verifies.
func TestFleetManyFiles(t *testing.T) {
	w := markedWorld(t, manyRelease)
	s := newSigners(w)
	w.env = s.env
	w.write("app/trysail/allowed_signers", w.sh("cat "+s.file("allowed")))
	w.sh("cd " + w.app + "; git add -A; git -c user.name=t -c user.email=t@example.org commit -qm signers")
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	complete := func(item string) {
		t.Helper()
		w.within(5*time.Minute, item+" is complete", func() bool { return w.item(item).Status == release.Complete })
	}
	complete("gold")
	w.trysail("release", "sign", "4.2", "tried", "--as", "ann", "--yes")
	complete("upload")
	key, bundle := s.file("release.age"), filepath.Join(w.dir, "bundle")
	w.write("release.pub", w.trysail("key", "new", key, "--passphrase-file", s.file("word")))
	w.trysail("release", "ship", "4.2", "--bundle", bundle, "--key", key, "--passphrase-file", s.file("word"))
	if out := w.trysail("verify", bundle, "--release-key", filepath.Join(w.dir, "release.pub")); !strings.Contains(out, "Release 4.2 verifies") {
		t.Errorf("verify says:\n%s", out)
	}

	var gold struct{ Outputs []release.Artifact }
	if err := json.Unmarshal([]byte(w.trysail("release", "fetch", "4.2", "gold", "--json", "--into", filepath.Join(w.dir, "fetched"))), &gold); err != nil {
		t.Fatal(err)
	}
	h := release.History{Gold: gold.Outputs}
	err := filepath.WalkDir(filepath.Join(w.dir, "marks/published/dist"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		h.Published = append(h.Published, fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
		return err
	})
	if err != nil || len(h.Published) != manyFiles {
		t.Errorf("%d files are published (%v)", len(h.Published), err)
	}
	for _, wrong := range release.Check(w.events(), h) {
		t.Error(wrong)
	}
}
