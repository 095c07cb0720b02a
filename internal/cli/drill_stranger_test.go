package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/drill"
)

// TestStranger: what is typed is what is kept, whatever the stranger does.
func TestStranger(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "REBUILD.md"), []byte("# R\n\n```sh\none\nother\n```\n\n## 2. Two\n\n```sh\ntwo\n```\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what, typed string
		exit        int
		verdict     drill.Value
		stumbles    string
		followed    int
	}{
		{"all worked", "\n\n\n", exitYes, drill.Pass, "", 3},
		{"a stumble", "no zstd here\n\n\n\n", exitNo, drill.Fail, "no zstd here", 3},
		{"given up", "\nwhich depot?\nq\n", exitNo, drill.Fail, "which depot?", 2},
		{"the terminal is gone", "\n", exitNo, drill.Unknown, "", 1},
		{"nobody", "", exitNo, drill.Unknown, "", 0},
	} {
		var out, errOut bytes.Buffer
		exit := Run(t.Context(), []string{"drill", "stranger", dir, "--json", "--owner", "ann", "--due", "14d", "--state", filepath.Join(dir, x.what)}, 0o022, strings.NewReader(x.typed), &out, &errOut)
		var v drill.ByHand
		if err := json.Unmarshal(out.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v\n%s%s", x.what, err, &out, &errOut)
		}
		stumbles := ""
		for _, f := range v.Followed {
			stumbles += strings.Join(f.Stumbles, ";")
		}
		if exit != x.exit || v.Verdict != x.verdict || stumbles != x.stumbles || len(v.Followed) != x.followed || v.Commands != 3 || (v.Verdict == drill.Fail) != (len(v.Issues) > 0) {
			t.Errorf("%s: exit %d, %+v", x.what, exit, v)
		}
		kept, err := filepath.Glob(filepath.Join(dir, x.what, "by-hand/*/by-hand.json"))
		if err != nil || len(kept) != 1 {
			t.Errorf("%s: %v is kept: %v", x.what, kept, err)
		}
		if !strings.Contains(errOut.String(), "one") {
			t.Errorf("%s: the commands are not shown:\n%s", x.what, &errOut)
		}
	}
	var out, errOut bytes.Buffer
	if exit := Run(t.Context(), []string{"drill", "stranger", filepath.Join(dir, "nowhere"), "--state", dir}, 0o022, strings.NewReader(""), &out, &errOut); exit != exitFailed {
		t.Errorf("no document: exit %d", exit)
	}
}
