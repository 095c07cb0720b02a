package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/release"
)

// verdictWorld is a release of two machines whose gold step writes a time and
// random digits, and more in one line of its script. Each build of it needs a
// clean workspace and an empty home.
func verdictWorld(t *testing.T, more string) *world {
	t.Parallel()
	marks := t.TempDir()
	w := newWorld(t, strings.ReplaceAll("---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Gold master\n\n"+
		"```sh {\"name\":\"gold\",\"timeout\":\"9s\",\"out\":\"dist/*\",\"gold\":\"true\"}\n"+
		"set -eu\necho $PWD >> DIR/ran\nmkdir dist $HOME/.cache\nsleep 5\n"+
		"{ cat app.txt; date -u '+built %Y-%m-%dT%H:%M:%SZ'; "+more+"; } > dist/app.txt\n"+
		"echo id=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n') > dist/id\ncp app.txt dist/same\n```\n\n"+
		"## Diligence\n\n- [ ] **tried** (@ann, needs gold): tried\n", "DIR", marks))
	if err := os.Symlink(marks, filepath.Join(w.dir, "marks")); err != nil {
		t.Fatal(err)
	}
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	return w
}

// A build that is never the same twice: the second machine builds it once more,
// finds that it differs from gold as it differs from itself, and the release
// stops until a person signs for each difference.
func TestFleetEquivalent(t *testing.T) {
	w := verdictWorld(t, ":")
	w.until("the second build stops the release", func() bool { return w.item("gold").Status == release.Stopped })
	s := w.status()
	if s.Gold == nil || s.Gold.Verdict != release.Equivalent || s.Gold.By != "b" || len(s.Gold.Differences) != 2 {
		t.Fatalf("gold: %+v", s.Gold)
	}
	text := w.trysail("release", "status", "4.2")
	for i, want := range []string{"dist/app.txt: line 2: “built 20", "dist/id: line 1: "} {
		if d := s.Gold.Differences[i]; !strings.HasPrefix(d, want) || !strings.Contains(d, " instead of ") || !strings.Contains(text, "  ! "+d+"\n") {
			t.Errorf("difference %q, want %q in:\n%s", d, want, text)
		}
	}
	if !strings.HasSuffix(s.Gold.Differences[0], "(time stamp)") || len(s.Asks) != 1 || s.Asks[0].Type != "except" {
		t.Errorf("%q, asks %+v", s.Gold.Differences, s.Asks)
	}
	if ran := strings.Fields(w.marker("ran")); len(ran) != 3 || ran[1] == ran[2] || !strings.Contains(ran[0], "/a/") || !strings.Contains(ran[1], "/b/") || !strings.Contains(ran[2], "/b/") {
		t.Errorf("it was built in %q", ran)
	}
	w.sh("grep -rq 'building once more' " + filepath.Join(w.dir, "control/control"))
	refused := func(why string, differences ...string) {
		t.Helper()
		args := []string{"release", "except", "4.2", "--as", "ann", "--reason", "it writes when it was built"}
		for _, d := range differences {
			args = append(args, "--difference", d)
		}
		if out, err := w.run(args...); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("an exception for %q was not refused: %s %v", differences, out, err)
		}
	}
	refused("names each difference")
	refused("names each difference", s.Gold.Differences[0])
	refused("names each difference", s.Gold.Differences[0], "dist/id: whatever")
	w.trysail("release", "except", "4.2", "--as", "ann", "--reason", "it writes when it was built", "--difference", s.Gold.Differences[0], "--difference", s.Gold.Differences[1])
	w.until("gold is done", func() bool { return w.item("gold").Status == release.Complete })
	w.trysail("release", "sign", "4.2", "tried", "--as", "ann")
	w.trysail("release", "ship", "4.2")
	granted := 0
	for _, e := range w.check() { // the lease was renewed through both builds
		switch e.Body.(type) {
		case release.Granted:
			granted++
		case release.Lost, release.Refused:
			t.Errorf("event %d: %s", e.Seq, release.Sentence(e))
		}
	}
	if granted != 2 {
		t.Errorf("%d leases", granted)
	}
}

// A machine that makes something else than gold in a place where the build is the
// same each time: no person can sign that away.
func TestFleetNotEquivalent(t *testing.T) {
	w := verdictWorld(t, "case $PWD in */b/*) echo made on another machine;; esac")
	w.until("the second build stops the release", func() bool { return w.item("gold").Status == release.Stopped })
	s := w.status()
	if s.Gold == nil || s.Gold.Verdict != release.Different || len(s.Gold.Differences) == 0 || len(s.Asks) != 1 || s.Asks[0].Type != "abort" {
		t.Fatalf("gold: %+v, asks %+v", s.Gold, s.Asks)
	}
	all := strings.Join(s.Gold.Differences, "\n")
	if !strings.Contains(all, "made on another machine") || !strings.Contains(all, "the build does not differ from itself in this") {
		t.Errorf("differences:\n%s", all)
	}
	args := []string{"release", "except", "4.2", "--as", "ann", "--reason", "please"}
	for _, d := range s.Gold.Differences {
		args = append(args, "--difference", d)
	}
	if _, err := w.run(args...); err == nil || !strings.Contains(err.Error(), "no difference that a person may sign for") {
		t.Errorf("an exception for another machine's bytes: %v", err)
	}
	if _, err := w.run("release", "retry", "4.2", "gold"); err == nil || !strings.Contains(err.Error(), "not tried until it agrees") {
		t.Errorf("gold was built until it agreed: %v", err)
	}
	w.trysail("release", "abort", "4.2", "--yes", "--reason", "find out why")
}
