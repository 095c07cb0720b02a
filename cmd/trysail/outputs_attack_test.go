package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/release"
)

// A step makes its output directory a link to the directory in which the agent keeps
// its key and all secrets, another leaves a FIFO for its test results, and a third
// one as its output. Each fails with its reason, control gets no key, and the agent
// goes on.
func TestFleetAttackOutputsAreLinksAndFIFOs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Build\n\n"+
		"```sh {\"name\":\"keys\",\"timeout\":\"20s\",\"out\":\"got/*,got/secrets/*\"}\nln -s \"${PWD%/scratch/*}/agent\" got\n```\n\n"+
		"```sh {\"name\":\"results\",\"timeout\":\"20s\",\"out\":\"report/*\",\"results\":\"junit.xml\"}\nmkdir report\n: > report/x\nmkfifo fifo\nln -s fifo junit.xml\n```\n\n"+
		"```sh {\"name\":\"pipe\",\"timeout\":\"20s\",\"out\":\"pipe/*\"}\nmkdir pipe\nmkfifo pipe/fifo\n```\n\n"+
		"```sh {\"name\":\"last\",\"timeout\":\"20s\",\"out\":\"out/*\"}\nmkdir out\necho done > out/file\n```\n\n"+
		"## Gold master\n\n```sh {\"name\":\"gold\",\"needs\":\"keys,results,pipe,last\",\"timeout\":\"9s\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmkdir dist\ncp app.txt dist\n```\n")
	w.agent("a", 11, "--plain")
	w.begin()
	for _, step := range []string{"keys", "results", "pipe"} {
		w.until(step+" is refused", func() bool { return w.item(step).Status == release.Stopped })
	}
	w.until("the agent goes on", func() bool { return w.item("last").Status == release.Complete })
	text := w.trysail("release", "status", "4.2")
	for _, want := range []string{"got is a symbolic link to", "junit.xml is a symbolic link", "pipe/fifo is a FIFO"} {
		if !strings.Contains(text, want) {
			t.Errorf("the status does not say %q:\n%s", want, text)
		}
	}
	for _, name := range []string{"key.pem", "secrets/UPLOAD_TOKEN"} {
		data, err := os.ReadFile(filepath.Join(w.dir, "a/agent", name))
		if err != nil {
			t.Fatal(err)
		}
		found, err := filepath.Glob(filepath.Join(w.dir, "*", "*", "blobs/sha256", fmt.Sprintf("%x", sha256.Sum256(data))))
		if err != nil || len(found) > 0 {
			t.Errorf("%s is in %s (%v)", name, found, err)
		}
	}
}
